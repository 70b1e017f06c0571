// Warp operations: shuffles, votes, matrix loads and tensor core products, each with a model of what the lanes of a
// warp exchange (PTX ISA: shfl.sync, vote.sync, ldmatrix, mma.sync).
#pragma once

#include <cstring>
#include <type_traits>

#include "kernels/emulator/shared.h"
#include "kernels/types.h"

namespace switchback::emulator {

enum class Shuffle { index, exclusive_or, down, up };
uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int operand, int width);
enum class Vote { ballot, any, all };
uint32_t vote(Vote kind, uint32_t mask, bool predicate);
void sync_warp(uint32_t mask);

void ldmatrix(uint32_t (&r)[4], uint32_t row, bool transposed);  // row: byte address of this lane's 16 bytes
enum class MmaType { bf16, f16, tf32 };
void mma(MmaType type, float* c, const uint32_t* a, const uint32_t* b);

template <typename T>
T shuffle_as(Shuffle kind, uint32_t mask, T value, int operand, int width) {
  static_assert((sizeof(T) == 4 || sizeof(T) == 8) && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(kind, mask, bits, operand, width);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace switchback::emulator

namespace switchback::emulated {

inline void __syncthreads() { emulator::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::sync_warp(mask); }

template <typename T>
T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
  return emulator::shuffle_as(emulator::Shuffle::index, mask, v, lane, width);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32) {
  return emulator::shuffle_as(emulator::Shuffle::exclusive_or, mask, v, lanes, width);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  return emulator::shuffle_as(emulator::Shuffle::down, mask, v, int(delta), width);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  return emulator::shuffle_as(emulator::Shuffle::up, mask, v, int(delta), width);
}
inline unsigned __ballot_sync(unsigned mask, bool p) { return emulator::vote(emulator::Vote::ballot, mask, p); }
inline int __any_sync(unsigned mask, bool p) { return int(emulator::vote(emulator::Vote::any, mask, p)); }
inline int __all_sync(unsigned mask, bool p) { return int(emulator::vote(emulator::Vote::all, mask, p)); }

template <typename T>
void ldmatrix_x4(uint32_t (&r)[4], Shared<T> s, int i) {
  emulator::ldmatrix(r, s.at(i, 16), false);
}
template <typename T>
void ldmatrix_x4_trans(uint32_t (&r)[4], Shared<T> s, int i) {
  emulator::ldmatrix(r, s.at(i, 16), true);
}
template <typename T>
void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, f16>);
  emulator::mma(std::is_same_v<T, bf16> ? emulator::MmaType::bf16 : emulator::MmaType::f16, c, a, b);
}
inline void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::mma(emulator::MmaType::tf32, c, a, b);
}

inline uint32_t to_tf32(float v) {  // nearest, ties away from zero; the low 13 bits are 0
  const uint32_t u = std::bit_cast<uint32_t>(v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fffe000u;  // NaN
  return (u + 0x1000u) & ~0x1fffu;  // infinity stays: its mantissa is 0
}

inline float to_float(float v) { return v; }
inline float to_float(bf16 v) { return v; }
inline float to_float(f16 v) { return v; }
template <typename T>
T from_float(float v) {
  T t(v);
  if constexpr (!std::is_same_v<T, float>)
    if (v != v) t.bits = 0x7fff;  // GPUs have one NaN
  return t;
}

}  // namespace switchback::emulated
