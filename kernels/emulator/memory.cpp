#include "kernels/emulator/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "kernels/emulator/machine.h"
#include "kernels/emulator/shared.h"

namespace switchback::emulator {
namespace {

constexpr size_t kZone = 4096;  // before and behind each allocation

size_t whole(size_t bytes) { return (bytes + kZone - 1) / kZone * kZone + 2 * kZone; }

// The pattern stands at multiples of 4 from the allocation's beginning, on both sides of it.
const unsigned char* pattern() {
  static const auto bytes = [] {
    std::array<unsigned char, 2 * kZone> p;
    for (size_t i = 0; i < p.size(); i += 4) std::memcpy(&p[i], &kPoison, 4);
    return p;
  }();
  return bytes.data();
}

// Where in [zone, zone + kZone) something was written, or -1. `phase`: the zone's distance from the allocation mod 4.
ptrdiff_t written(const char* zone, size_t phase) {
  const auto* expected = pattern() + phase;
  if (std::memcmp(zone, expected, kZone) == 0) return -1;
  size_t i = 0;
  while (static_cast<unsigned char>(zone[i]) == expected[i]) ++i;
  return ptrdiff_t(i);
}

// Of one f32, or of two bf16 (as f16, GPUs and the emulator have one NaN only).
bool differ_in_signs_of_nans(uint32_t a, uint32_t b) {
  const uint32_t other = a ^ b;
  if (other == 0x80000000u && (a & 0x7fffffffu) > 0x7f800000u) return true;
  if (other & 0x7fff7fffu) return false;
  return (!(other & 0x8000u) || (a & 0x7fffu) > 0x7f80u) && (!(other >> 31) || (a >> 16 & 0x7fffu) > 0x7f80u);
}

}  // namespace

void* DeviceMemory::allocate(size_t bytes) {
  if (bytes > capacity || used_ + bytes > capacity) return nullptr;
  auto* memory = static_cast<char*>(std::aligned_alloc(kZone, whole(bytes)));
  if (!memory) return nullptr;
  for (size_t i = 0; i < whole(bytes); i += kZone) std::memcpy(memory + i, pattern(), kZone);
  blocks_[memory + kZone] = bytes;
  used_ += bytes;
  return memory + kZone;
}

bool DeviceMemory::contains(const void* p, size_t bytes) const {
  const char* from = static_cast<const char*>(p);
  auto next = blocks_.upper_bound(const_cast<char*>(from));
  if (next == blocks_.begin()) return false;
  const auto& [begin, size] = *std::prev(next);
  return bytes <= size && size_t(from - begin) <= size - bytes;
}

bool DeviceMemory::contains_again(const void* p, size_t bytes) {
  const char* from = static_cast<const char*>(p);
  for (const auto& r : recent_)
    if (bytes <= r.bytes && size_t(from - r.begin) <= r.bytes - bytes) return true;
  if (!contains(p, bytes)) return false;
  const auto& [begin, size] = *std::prev(blocks_.upper_bound(const_cast<char*>(from)));
  recent_[next_recent_++ % 4] = {begin, size};
  return true;
}

bool DeviceMemory::touches(const void* p) const {
  const char* at = static_cast<const char*>(p);
  auto next = blocks_.upper_bound(const_cast<char*>(at) + kZone);
  if (next == blocks_.begin()) return false;
  const auto& [begin, size] = *std::prev(next);
  return at + kZone < begin + size + 2 * kZone;
}

bool DeviceMemory::release(void* p) {
  const auto block = blocks_.find(static_cast<char*>(p));
  const bool whole =
      written(block->first - kZone, 0) < 0 && written(block->first + block->second, block->second % 4) < 0;
  for (auto& r : recent_) r = {};
  used_ -= block->second;
  std::free(block->first - kZone);
  blocks_.erase(block);
  return whole;
}

std::string DeviceMemory::damage() {
  std::string what;
  for (const auto& [begin, bytes] : blocks_) {
    const ptrdiff_t before = written(begin - kZone, 0), behind = written(begin + bytes, bytes % 4);
    if (before < 0 && behind < 0) continue;
    if (what.empty())
      what = behind >= 0 ? fmt::format("{} bytes behind the end of an allocation of {} bytes", behind, bytes)
                         : fmt::format("{} bytes before an allocation of {} bytes", ptrdiff_t(kZone) - before, bytes);
    std::memcpy(begin - kZone, pattern(), kZone);
    std::memcpy(begin + bytes, pattern() + bytes % 4, kZone);
  }
  return what;
}

void DeviceMemory::save(Snapshot& snapshot) const {
  snapshot.resize(blocks_.size());
  size_t i = 0;
  for (const auto& [begin, bytes] : blocks_) snapshot[i++].assign(begin, begin + bytes);
}

void DeviceMemory::restore(const Snapshot& snapshot) const {
  size_t i = 0;
  for (const auto& [begin, bytes] : blocks_) std::memcpy(begin, snapshot[i++].data(), bytes);
}

std::string DeviceMemory::difference(const Snapshot& snapshot, bool signs_of_nans) const {
  size_t i = 0;
  for (const auto& [begin, bytes] : blocks_) {
    const char* other = snapshot[i++].data();
    if (bytes == 0 || std::memcmp(begin, other, bytes) == 0) continue;
    for (size_t at = 0; at < bytes; at += 4) {
      uint32_t words[2] = {};
      std::memcpy(&words[0], begin + at, std::min<size_t>(4, bytes - at));
      std::memcpy(&words[1], other + at, std::min<size_t>(4, bytes - at));
      if (words[0] == words[1] || (!signs_of_nans && differ_in_signs_of_nans(words[0], words[1]))) continue;
      return fmt::format("byte {} of an allocation of {} bytes (number {} of {}): {:#010x} and {:#010x}", at, bytes, i,
                         blocks_.size(), words[0], words[1]);
    }
  }
  return "";
}

void check_global(const char* what, const void* p, size_t bytes) {
  if (uintptr_t(p) % bytes) misaligned(what, uintptr_t(p), bytes);
  DeviceMemory& memory = device_memory();
  if (!memory.contains_again(p, bytes) && memory.touches(p))
    fault(fmt::format("global memory out of bounds: {} of {} bytes beside an allocation", what, bytes));
}

DeviceMemory& device_memory() {
  // Never destroyed: memory that static objects hold is given back after main.
  static auto& memory = *new DeviceMemory;
  return memory;
}

}  // namespace switchback::emulator
