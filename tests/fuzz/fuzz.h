// What the fuzzers share: bytes as a file, and the rules that every reader of users' files keeps:
//  - it returns something valid, all of which the fuzzer then touches, or throws an Error of one printable line;
//  - the memory in use never exceeds what the file's size allows, and all of it is given back.
// Crashes, undefined behaviour and other exceptions are the sanitizers' and libFuzzer's to report.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "kernels/check.h"

namespace switchback::fuzz {

// A file without a place on a disk, whose bytes are exchanged from input to input.
class MemoryFile {
 public:
  MemoryFile();
  const std::string& put(std::string_view bytes);  // returns the path
  const std::string& path() const { return path_; }

 private:
  int file_ = -1;
  std::string path_;
};

// A new folder for the fuzzers whose readers look for files by name; made once, removed at exit.
const std::string& work_folder();

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Runs `read`, which may throw nothing but a proper Error. False where it did.
bool succeeds(const std::function<void()>& read);

// Bytes that a reader may hold at once: `times` for each byte of the file, and `plus` for whatever file.
struct Allowance {
  int64_t times, plus;
};

// The same while every allocation is counted. Mapped files are not: they are as large as they are.
void read_within(Allowance allowance, size_t file_bytes, const std::function<void()>& read);

// Reads every byte, so that a span that reaches too far is noticed.
void touch(std::span<const std::byte> bytes);
template <typename T>
void touch(std::span<const T> values) {
  touch(std::as_bytes(values));
}

// Always on, for what a reader promises of its results.
#define PROMISED(condition)                                                                    \
  do {                                                                                         \
    if (!(condition)) ::switchback::fuzz::broken(__FILE__, __LINE__, "promised: " #condition); \
  } while (0)
[[noreturn]] void broken(const char* file, int line, const std::string& what);

}  // namespace switchback::fuzz
