// A progress bar on stderr: only where that is a terminal, and only once the work has lasted a second.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace switchback {

class ProgressBar {
 public:
  // total 0: not known yet. `enabled` false: draws nothing.
  ProgressBar(std::string what, bool enabled);
  ~ProgressBar();  // clears the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void update(double share);  // 0..1
  void clear();               // before other text goes to the terminal

 private:
  std::string what_;
  bool enabled_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

// One line "switchback: warning: …" on stderr.
void warn(const std::string& text);

}  // namespace switchback
