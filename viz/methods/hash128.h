// MurmurHash3_x64_128 by Austin Appleby (public domain), seed 0: 128 bits, the same on every little-endian machine. Not
// against an adversary: it only has to tell apart patterns that nobody chose (10^6 of them collide with probability
// 1e-27).
#pragma once

#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace switchback {

struct Hash128 {
  uint64_t high = 0, low = 0;
  template <typename A>
  void fields(A& a) {
    a(high, low);
  }
  auto operator<=>(const Hash128&) const = default;
};

inline Hash128 hash128(const void* data, size_t bytes) {
  constexpr uint64_t c1 = 0x87c37b91114253d5, c2 = 0x4cf5ad432745937f;
  const auto mix1 = [](uint64_t k) { return std::rotl(k * c1, 31) * c2; };
  const auto mix2 = [](uint64_t k) { return std::rotl(k * c2, 33) * c1; };
  const auto* p = static_cast<const unsigned char*>(data);
  uint64_t h1 = 0, h2 = 0, k[2];
  size_t left = bytes;
  for (; left >= 16; left -= 16, p += 16) {
    std::memcpy(k, p, 16);
    h1 = (std::rotl(h1 ^ mix1(k[0]), 27) + h2) * 5 + 0x52dce729;
    h2 = (std::rotl(h2 ^ mix2(k[1]), 31) + h1) * 5 + 0x38495ab5;
  }
  k[0] = k[1] = 0;  // the tail; zeros change nothing
  std::memcpy(k, p, left);
  h1 ^= mix1(k[0]) ^ bytes;
  h2 ^= mix2(k[1]) ^ bytes;
  const auto finish = [](uint64_t h) {
    h = (h ^ h >> 33) * 0xff51afd7ed558ccd;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53;
    return h ^ h >> 33;
  };
  h1 += h2;
  h2 += h1;
  h1 = finish(h1);
  h2 = finish(h2);
  h1 += h2;
  h2 += h1;
  return {h1, h2};
}

}  // namespace switchback
