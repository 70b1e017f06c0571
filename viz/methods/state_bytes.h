// What a run keeps while images stream by, as bytes: to be put together with another run's. A type says what it holds by
//   template <typename A> void fields(A& a) { a(first, second); }
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/check.h"

namespace switchback {

class StateWriter {
 public:
  template <typename... T>
  void operator()(T&... values) {
    (put(values), ...);
  }
  std::string bytes;

 private:
  template <typename T>
  void put(T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    } else {
      value.fields(*this);
    }
  }
  void put(std::string& text) { put_list(text); }
  template <typename A, typename B>
  void put(std::pair<A, B>& pair) {
    (*this)(pair.first, pair.second);
  }
  template <typename T>
  void put(std::vector<T>& list) {
    put_list(list);
  }
  template <typename List>
  void put_list(List& list) {
    uint64_t count = list.size();
    put(count);
    if constexpr (std::is_arithmetic_v<typename List::value_type>) {
      bytes.append(reinterpret_cast<const char*>(list.data()), list.size() * sizeof(typename List::value_type));
    } else {
      for (auto& value : list) put(value);
    }
  }
};

// Throws where bytes are missing or left over.
class StateReader {
 public:
  explicit StateReader(std::string_view bytes) : left_(bytes) {}
  template <typename... T>
  void operator()(T&... values) {
    (get(values), ...);
  }
  void end() const {
    if (!left_.empty()) damaged();
  }

 private:
  [[noreturn]] static void damaged() { throw Error("what a share of the run has kept is damaged", "run it again"); }
  void take(void* to, size_t bytes) {
    if (bytes > left_.size()) damaged();
    if (bytes > 0) std::memcpy(to, left_.data(), bytes);
    left_.remove_prefix(bytes);
  }
  template <typename T>
  void get(T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      take(&value, sizeof value);
    } else {
      value.fields(*this);
    }
  }
  void get(std::string& text) { get_list(text); }
  template <typename A, typename B>
  void get(std::pair<A, B>& pair) {
    (*this)(pair.first, pair.second);
  }
  template <typename T>
  void get(std::vector<T>& list) {
    get_list(list);
  }
  template <typename List>
  void get_list(List& list) {
    using T = typename List::value_type;
    uint64_t count = 0;
    get(count);
    if constexpr (std::is_arithmetic_v<T>) {
      if (count > left_.size() / sizeof(T)) damaged();
      list.resize(count);
      take(list.data(), count * sizeof(T));
    } else {
      if (count > left_.size()) damaged();
      list.clear();
      for (uint64_t i = 0; i < count; ++i) get(list.emplace_back());
    }
  }
  std::string_view left_;
};

template <typename... T>
std::string state_bytes(T&... values) {
  StateWriter writer;
  writer(values...);
  return std::move(writer.bytes);
}

}  // namespace switchback
