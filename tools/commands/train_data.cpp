#include "tools/commands/train_data.h"

#include <algorithm>
#include <utility>

#include "engine/files/files.h"
#include "engine/files/npy.h"
#include "tools/cli/labelled.h"
#include "tools/cli/progress.h"

namespace switchback {
namespace {

void check_labels(const std::string& path, const std::vector<int64_t>& labels, int64_t outputs) {
  for (size_t i = 0; i < labels.size(); ++i)
    if (labels[i] < 0 || labels[i] >= outputs)
      throw Error(fmt::format("{}: label {} is {}, the network has outputs 0 to {}", path, i, labels[i], outputs - 1),
                  "labels count from 0");
}

int64_t outputs_of(const Model& model) { return model.network.shapes(model.network.input)[model.network.output()].c; }

}  // namespace

TrainingData::TrainingData(Dataset data, const std::string& path, const Model& model, bool classes)
    : model_(model), item_(image_of(model)),
      data_(std::move(data)) {
  const Shape want = model.network.input;
  if (item_ != want)
    throw Error(fmt::format("{} takes [{},{},{}], its preprocessing makes [{},{},{}]", model.network.name, want.c, want.h, want.w,
                            item_.c, item_.h, item_.w),
                "give a --preprocess that fits");
  units_ = colour_units(model.preprocess);
  if (!classes) return;
  const std::vector<int64_t> map = class_map(*data_, model, outputs_of(model), path);
  for (int64_t i = 0; i < data_->size(); ++i) labels_.push_back(int32_t(map[data_->label(i)]));
}

TrainingData::TrainingData(const std::string& array, const std::string& labels, const Model& model, bool classes)
    : model_(model), item_(model.network.input), images_(read_npy(array, {4})) {
  const Dims& d = images_->dims();
  if (Shape{1, d[1], d[2], d[3]} != item_)
    throw Error(fmt::format("{}: images of [{},{},{}], but {} takes [{},{},{}]", array, d[1], d[2], d[3], model.network.name,
                            item_.c, item_.h, item_.w),
                "arrays are used as they are");
  units_.black.assign(size_t(item_.c), 0.f);
  if (!classes) return;
  if (labels.empty()) throw Error(fmt::format("{} has no labels, and a cross entropy needs them", array), "give --labels FILE.npy", true);
  Dims dims;
  const std::vector<int64_t> read = read_npy_integers(labels, {1}, dims);
  if (dims[0] != d[0])
    throw Error(fmt::format("{} has {} labels, {} {} images", labels, dims[0], array, d[0]), "give one label an image");
  check_labels(labels, read, outputs_of(model));
  labels_.assign(read.begin(), read.end());
}

void TrainingData::leave_out(int64_t image, const std::string& why) {
  if (!unreadable_.emplace(image, why).second) return;
  warn(fmt::format("left out: {}", why));
  if (int64_t(unreadable_.size()) * 100 > size())
    throw Error(fmt::format("{} of {} images cannot be read, the last of them: {}", unreadable_.size(), size(), why),
                "more than a hundredth is too much: take them away, or mend them");
}

void TrainingData::read(int64_t image, const Augmentation& how, uint64_t seed, int64_t epoch, float* to) const {
  if (images_) std::copy_n(images_->data() + image * item_.item(), item_.item(), to);
  else load_item(*data_, image, model_, to);
  augment(how, seed, epoch, image, item_, units_, to);
}

// --- ahead of the step

namespace {
constexpr size_t kAhead = 2;    // steps
constexpr size_t kAtOnce = 8;   // images that a thread takes
}  // namespace

ReadAhead::ReadAhead(TrainingData& data, const Augmentation& how, uint64_t seed, int threads, std::function<Step()> next)
    : data_(data), how_(how), seed_(seed), next_(std::move(next)) {
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
    reading->pixels.resize(step.images.size() * size_t(data_.item().item()));
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
        data_.read(at->images[i], how_, seed_, at->epoch, at->pixels.data() + i * size_t(data_.item().item()));
      } catch (const Error& e) {
        at->wrong[i] = e.what();
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
  const auto item = size_t(data_.item().item());
  size_t there = 0;
  for (size_t i = 0; i < read->images.size(); ++i) {
    if (!read->wrong[i].empty()) {
      data_.leave_out(read->images[i], read->wrong[i]);
      continue;
    }
    if (there < i) std::copy_n(read->pixels.data() + i * item, item, read->pixels.data() + there * item);
    read->images[there++] = read->images[i];
  }
  if (there == 0) throw Error("a step has no image that can be read", "take a larger --batch-size");
  read->images.resize(there);
  read->pixels.resize(there * item);
  return std::move(*read);
}

}  // namespace switchback
