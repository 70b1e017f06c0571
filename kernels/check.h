// The one exception type and the CHECK macro. Only `main` catches (engine/README.md).
#pragma once

#ifdef __NVCC__
#define FMT_USE_CONSTEXPR 1  // fmt 9 turns it off for nvcc, and then has no compile-time format checks
#endif
#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace switchback {

// What went wrong, and what to do about it. `usage` marks a wrong call (exit code 2) as against a failure (1).
struct Error : std::runtime_error {
  explicit Error(const std::string& what, std::string hint = "", bool usage = false)
      : std::runtime_error(what), hint(std::move(hint)), usage(usage) {}
  std::string hint;
  bool usage;
};

// A device has no room for what was asked; whoever chose the batch may try a smaller one.
struct OutOfMemory : Error {
  using Error::Error;
};

template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace switchback

// CHECK(cond, "pool1: kernel {} exceeds padded input {}", k, padded): always on, always prints values.
#define CHECK(condition, ...)                       \
  do {                                              \
    if (!(condition)) ::switchback::fail(__VA_ARGS__); \
  } while (0)
