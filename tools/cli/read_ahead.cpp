#include "tools/cli/read_ahead.h"

#include <algorithm>
#include <utility>

namespace switchback {

namespace {
constexpr size_t kAhead = 2;    // steps
constexpr size_t kAtOnce = 8;   // images that a thread takes
}  // namespace

ReadAhead::ReadAhead(int64_t item, int threads, Read read, LeaveOut leave_out, std::function<Step()> next)
    : item_(item), read_(std::move(read)), leave_out_(std::move(leave_out)), next_(std::move(next)) {
  for (int i = 0; i < std::max(1, threads); ++i) threads_.emplace_back([this] { work(); });
}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard hold(lock_);
    stop_ = true;
  }
  begin_.notify_all();
  for (std::thread& t : threads_) t.join();
}

// Begins to read until kAhead steps are under way.
void ReadAhead::ask() {
  while (readings_.size() < kAhead) {
    Step step = next_();
    if (step.images.empty()) return;
    auto reading = std::make_unique<Reading>();
    reading->epoch = step.epoch;
    reading->pixels.resize(step.images.size() * size_t(item_));
    reading->wrong.resize(step.images.size());
    reading->images = std::move(step.images);
    {
      const std::lock_guard hold(lock_);
      readings_.push_back(std::move(reading));
    }
    begin_.notify_all();
  }
}

void ReadAhead::work() {
  std::unique_lock hold(lock_);
  for (;;) {
    Reading* at = nullptr;
    begin_.wait(hold, [&] {
      for (const auto& r : readings_)
        if (!at && r->begun < r->images.size()) at = r.get();
      return stop_ || at;
    });
    if (stop_) return;
    const size_t first = at->begun, last = std::min(at->images.size(), first + kAtOnce);
    at->begun = last;
    hold.unlock();
    std::exception_ptr failed;
    for (size_t i = first; i < last && !failed; ++i) {
      try {
        read_(at->images[i], at->epoch, at->pixels.data() + i * size_t(item_));
      } catch (const Error& e) {
        at->wrong[i] = e;
      } catch (...) {
        failed = std::current_exception();
      }
    }
    hold.lock();
    if (failed) at->failed = failed;
    at->done += last - first;
    if (at->done == at->images.size()) end_.notify_all();
  }
}

ReadAhead::Batch ReadAhead::take() {
  ask();
  CHECK(!readings_.empty(), "there are no more steps");
  std::unique_ptr<Reading> read;
  {
    std::unique_lock hold(lock_);
    end_.wait(hold, [&] { return readings_.front()->done == readings_.front()->images.size(); });
    read = std::move(readings_.front());
    readings_.pop_front();
  }
  ask();
  if (read->failed) std::rethrow_exception(read->failed);
  const auto item = size_t(item_);
  size_t there = 0;
  for (size_t i = 0; i < read->images.size(); ++i) {
    if (read->wrong[i]) {
      leave_out_(read->images[i], *read->wrong[i]);
      continue;
    }
    if (there < i) std::copy_n(read->pixels.data() + i * item, item, read->pixels.data() + there * item);
    read->images[there++] = read->images[i];
  }
  read->images.resize(there);
  read->pixels.resize(there * item);
  return std::move(*read);
}

}  // namespace switchback
