#include "tools/cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <string_view>

namespace switchback {
namespace {

// Where the work is, for the signal handler. Its parts are read one by one: at worst one of them is a batch older.
struct Place {
  std::atomic<int64_t> done{0}, total{0};  // total 0: no counts
  std::atomic<const char*> noun{""};
  std::atomic<bool> resumable{false};
};
Place shown;
static_assert(std::atomic<int64_t>::is_always_lock_free && std::atomic<const char*>::is_always_lock_free);

double seconds(std::chrono::steady_clock::duration d) { return std::chrono::duration<double>(d).count(); }

int terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string rate_text(double rate) { return fmt::format("{:.{}f}/s", rate, rate < 1 ? 2 : rate < 100 ? 1 : 0); }

std::string time_text(double s) {
  if (s < 1000) return fmt::format("{:.0f} s", s);
  return s < 100 * 60 ? fmt::format("{:.0f} min", s / 60) : fmt::format("{:.1f} h", s / 3600);
}

// A line put together without memory of the heap, which a signal may find in any state.
class Line {
 public:
  void add(std::string_view text) {
    for (char c : text)
      if (size_ < sizeof text_) text_[size_++] = c;
  }
  void add(int64_t number) {  // not negative
    char digits[20];
    size_t n = 0;
    do digits[n++] = char('0' + number % 10);
    while ((number /= 10) > 0);
    while (n > 0) add(std::string_view(&digits[--n], 1));
  }
  void write() const { [[maybe_unused]] const ssize_t put = ::write(STDERR_FILENO, text_, size_); }

 private:
  char text_[256];
  size_t size_ = 0;
};

}  // namespace

std::string progress_line(const std::string& what, double share, double elapsed_seconds, const std::string& counts,
                          int columns) {
  constexpr int kWidest = 30, kNarrowest = 5;
  share = std::clamp(share, 0.0, 1.0);
  std::string rest = fmt::format(" {:3.0f} %{}{}", 100 * share, counts.empty() ? "" : "  ", counts);
  if (share > 0.01) rest += fmt::format(", {} left", time_text(elapsed_seconds / share - elapsed_seconds));
  // A line that reached the last column could not be drawn over.
  const int room = columns - 1 - int(what.size() + rest.size()) - int(std::string_view(" []").size());
  const int width = std::min(room, kWidest), full = int(share * width + 0.5);
  std::string line = what;
  if (width >= kNarrowest)
    line += fmt::format(" [{}{}]", std::string(size_t(full), '#'), std::string(size_t(width - full), '.'));
  return (line + rest).substr(0, size_t(std::max(1, columns - 1)));
}

ProgressBar::ProgressBar(std::string what, bool enabled)
    : what_(std::move(what)), enabled_(enabled && isatty(STDERR_FILENO)) {
  start();
}

ProgressBar::~ProgressBar() { clear(); }

void ProgressBar::start() { start_ = last_ = std::chrono::steady_clock::now(); }

void ProgressBar::update(double share) { draw(share, seconds(std::chrono::steady_clock::now() - start_), ""); }

void ProgressBar::update(int64_t done, int64_t total, const char* noun) {
  shown.noun = noun;
  shown.done = done;
  shown.total = total;
  const double elapsed = seconds(std::chrono::steady_clock::now() - start_);
  draw(double(done) / double(std::max<int64_t>(1, total)), elapsed,
       fmt::format("{}/{} {}, {}", done, total, noun, rate_text(double(done) / std::max(1e-9, elapsed))));
}

void ProgressBar::draw(double share, double elapsed, const std::string& counts) {
  if (!enabled_) return;
  const auto now = std::chrono::steady_clock::now();
  if (elapsed < 1 || (drawn_ && share < 1 && seconds(now - last_) < 0.1)) return;
  last_ = now;
  drawn_ = true;
  fmt::print(stderr, "\r{}\x1b[K", progress_line(what_, share, elapsed, counts, terminal_columns()));
  std::fflush(stderr);
}

void ProgressBar::clear() {
  shown.total = 0;
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

void say_interrupted(bool wrote) {
  Line line;
  termios unused;
  if (tcgetattr(STDERR_FILENO, &unused) == 0) line.add("\r\x1b[K");  // over the bar, or the terminal's own ^C
  line.add("switchback: interrupted");
  if (const int64_t total = shown.total) {
    line.add(" at ");
    line.add(shown.done);
    line.add(" of ");
    line.add(total);
    line.add(" ");
    line.add(std::string_view(shown.noun.load()));
  }
  line.add(shown.resumable ? " (go on with --resume)\n"
           : wrote         ? " (files that were written are complete)\n"
                           : " (nothing was written)\n");
  line.write();
}

void can_be_resumed() { shown.resumable = true; }

void warn(const std::string& text) { fmt::print(stderr, "switchback: warning: {}\n", text); }

}  // namespace switchback
