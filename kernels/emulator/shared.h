// Shared memory as kernels see it, and wide accesses to global memory. The interface is that of kernels/device/cuda.cuh.
#pragma once

#include <cstring>
#include <type_traits>

#include "kernels/emulator/machine.h"

namespace switchback::emulator {

[[noreturn]] void out_of_bounds(int64_t index, int64_t count, size_t element_bytes, size_t bytes);
[[noreturn]] void misaligned(const char* what, uint64_t address, size_t bytes);
void check_region(int64_t offset, int64_t bytes, size_t alignment);

template <typename V>
V load_shared(uint32_t byte) {
  record_read(byte, sizeof(V));
  V v;
  std::memcpy(&v, machine.shared + byte, sizeof(V));
  return v;
}
template <typename V>
void store_shared(uint32_t byte, const V& v) {
  record_write(byte, sizeof(V));
  std::memcpy(machine.shared + byte, &v, sizeof(V));
}

// What Shared<T>::operator[] gives: reads as T, can be assigned. Only as a temporary, so that `auto v = s[i]` (which
// would read late) does not compile.
template <typename T>
class Element {
 public:
  explicit Element(uint32_t byte) : byte_(byte) {}
  Element(const Element&) = default;
  operator T() const&& { return load_shared<T>(byte_); }
  const Element& operator=(T v) const&& { return put(v); }
  const Element& operator=(const Element& other) const&& { return put(load_shared<T>(other.byte_)); }
  const Element& operator+=(T v) const&& { return put(load_shared<T>(byte_) + v); }
  const Element& operator-=(T v) const&& { return put(load_shared<T>(byte_) - v); }
  const Element& operator*=(T v) const&& { return put(load_shared<T>(byte_) * v); }
  const Element& operator|=(T v) const&& { return put(load_shared<T>(byte_) | v); }
  const Element& operator&=(T v) const&& { return put(load_shared<T>(byte_) & v); }

 private:
  const Element& put(T v) const {
    store_shared<T>(byte_, v);
    return *this;
  }
  uint32_t byte_;
};

}  // namespace switchback::emulator

namespace switchback::emulated {

template <typename T>
class Shared {
 public:
  Shared() = default;
  Shared(int byte_offset, int count) : offset_(byte_offset), count_(count) {
    emulator::check_region(byte_offset, int64_t(count) * int64_t(sizeof(T)), alignof(T));
  }
  emulator::Element<T> operator[](int i) const { return emulator::Element<T>(at(i, sizeof(T))); }
  template <typename V>
  V load(int i) const { return emulator::load_shared<V>(vector_at<V>(i)); }
  template <typename V>
  void store(int i, V v) const { emulator::store_shared<V>(vector_at<V>(i), v); }
  uint32_t address(int i) const { return at(i, sizeof(T)); }

  // Byte address of `bytes` bytes from element i on, within bounds.
  uint32_t at(int i, size_t bytes) const {
    if (i < 0 || int64_t(i) * int64_t(sizeof(T)) + int64_t(bytes) > int64_t(count_) * int64_t(sizeof(T)))
      emulator::out_of_bounds(i, count_, sizeof(T), bytes);
    return uint32_t(offset_) + uint32_t(i) * uint32_t(sizeof(T));
  }

 private:
  template <typename V>
  uint32_t vector_at(int i) const {
    const uint32_t byte = at(i, sizeof(V));
    if (byte % sizeof(V)) emulator::misaligned("shared memory", byte, sizeof(V));
    return byte;
  }
  int offset_ = 0, count_ = 0;
};

template <typename V>
V load_as(const void* p) {
  emulator::check_global("load_as", p, sizeof(V));
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}
template <typename V>
void store_as(void* p, V v) {
  emulator::check_global("store_as", p, sizeof(V));
  std::memcpy(p, &v, sizeof(V));
}

inline float4 load_shared_by_blocks(const float4* p) { return load_as<float4>(p); }

template <int Bytes, typename T>
void cp_async(Shared<T> to, int i, const void* from, uint32_t valid = 1) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
  const uint32_t byte = to.at(i, Bytes);
  if (byte % Bytes) emulator::misaligned("cp_async to shared memory", byte, Bytes);
  if (uintptr_t(from) % Bytes) emulator::misaligned("cp_async", uintptr_t(from), Bytes);
  if (valid) emulator::check_global("cp_async", from, Bytes);
  emulator::copy_async(byte, from, Bytes, valid != 0);
}
inline void cp_async_commit() { emulator::copy_async_commit(); }
template <int InFlight>
void cp_async_wait() { emulator::copy_async_wait(InFlight); }

}  // namespace switchback::emulated
