// How far a command is: a progress bar on stderr, only where that is a terminal and only once the work has lasted a
// second; and the last words of a command that is interrupted.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace switchback {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class ProgressBar {
 public:
  // `enabled` false: draws nothing.
  ProgressBar(std::string what, bool enabled);
  ~ProgressBar();  // clears the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void start();               // the work begins now: rates and the time left are counted from here
  void update(double share);  // 0..1
  // With counts: "occlusion [####......] 42 %  3950/9409 positions, 35.2/s, 155 s left". `noun`: of several items, a
  // literal (the signal handler reads it).
  void update(int64_t done, int64_t total, const char* noun);
  void clear();  // before other text goes to the terminal; the work is done

 private:
  void draw(double share, double elapsed, const std::string& counts);
  std::string what_;
  bool enabled_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

// The bar's line, cut to fit into `columns`.
std::string progress_line(const std::string& what, double share, double elapsed_seconds, const std::string& counts,
                          int columns);

// For remove_temporaries_on_signals (engine/files/files.h): "switchback: interrupted at 1234 of 9409 positions (nothing was
// written)" on stderr, by async-signal-safe calls alone.
void say_interrupted(bool wrote);
// From now on it says that the command can be continued with --resume.
void can_be_resumed();

// One line "switchback: warning: …" on stderr.
void warn(const std::string& text);

}  // namespace switchback
