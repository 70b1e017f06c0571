#include "tools/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace switchback {
namespace {

double seconds(std::chrono::steady_clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

ProgressBar::ProgressBar(std::string what, bool enabled)
    : what_(std::move(what)),
      enabled_(enabled && isatty(STDERR_FILENO)),
      start_(std::chrono::steady_clock::now()),
      last_(start_) {}

ProgressBar::~ProgressBar() { clear(); }

void ProgressBar::update(double share) {
  if (!enabled_) return;
  const auto now = std::chrono::steady_clock::now();
  const double elapsed = seconds(now - start_);
  if (elapsed < 1 || (drawn_ && share < 1 && seconds(now - last_) < 0.1)) return;
  last_ = now;
  drawn_ = true;
  share = std::clamp(share, 0.0, 1.0);
  constexpr int kWidth = 30;
  const int full = int(share * kWidth + 0.5);
  std::string left;
  if (share > 0.01) left = fmt::format(", {:.0f} s left", elapsed / share - elapsed);
  fmt::print(stderr, "\r{} [{}{}] {:3.0f} %{}\x1b[K", what_, std::string(size_t(full), '#'),
             std::string(size_t(kWidth - full), '.'), 100 * share, left);
  std::fflush(stderr);
}

void ProgressBar::clear() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

void warn(const std::string& text) { fmt::print(stderr, "switchback: warning: {}\n", text); }

}  // namespace switchback
