// The numbers of noise.h, the same for every device: each operation below is rounded on its own, fma where it says fma.
// So what includes this is compiled without contraction: noise.cpp and the emulated noise.cu with -ffp-contract=off,
// while on a GPU the operations are named.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/types.h"

#define SB_NOISE SB_HOST_DEVICE inline __attribute__((always_inline))

namespace switchback::noise_math {

#ifdef __CUDA_ARCH__
SB_NOISE float multiply(float a, float b) { return __fmul_rn(a, b); }
SB_NOISE float add(float a, float b) { return __fadd_rn(a, b); }
SB_NOISE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
SB_NOISE float root(float a) { return __fsqrt_rn(a); }
#else
SB_NOISE float multiply(float a, float b) { return a * b; }
SB_NOISE float add(float a, float b) { return a + b; }
SB_NOISE float fma(float a, float b, float c) { return std::fma(a, b, c); }
SB_NOISE float root(float a) { return std::sqrt(a); }
#endif

// Philox4x32-10, Salmon et al. 2011: one round, and what the key gains after it.
inline constexpr uint32_t kMultiply0 = 0xD2511F53u, kMultiply1 = 0xCD9E8D57u;
inline constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
inline constexpr int kRounds = 10;

SB_NOISE void philox_round(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d, uint32_t key0, uint32_t key1) {
  const uint64_t p = uint64_t(kMultiply0) * a, q = uint64_t(kMultiply1) * c;
  a = uint32_t(q >> 32) ^ b ^ key0;
  b = uint32_t(q);
  c = uint32_t(p >> 32) ^ d ^ key1;
  d = uint32_t(p);
}

// ln((2k+1)·2^-25) for 0 <= k < 2^24, within 1 ulp or so. The argument is split as 2^e·(1+t) in integers: it has 25
// bits, and near 1 the rounding to f32 would cost all digits of the logarithm. Polynomial: Cephes logf.
SB_NOISE float log_uniform(int32_t k) {
  const int32_t odd = 2 * k + 1;
  const int32_t bits = std::bit_cast<int32_t>(float(odd));
  // 2^p·(1+t), 1+t in about [sqrt(1/2), sqrt(2)): subtracting the bits of sqrt(1/2) rounds the exponent.
  const int32_t p = ((bits - 0x3f3504f3) >> 23);
  const float t = multiply(float(odd - (1 << p)), std::bit_cast<float>((127 - p) << 23));  // exact
  const float e = float(p - 25);
  const float z = multiply(t, t);
  float y = 7.0376836292e-2f;
  y = fma(y, t, -1.1514610310e-1f);
  y = fma(y, t, 1.1676998740e-1f);
  y = fma(y, t, -1.2420140846e-1f);
  y = fma(y, t, 1.4249322787e-1f);
  y = fma(y, t, -1.6668057665e-1f);
  y = fma(y, t, 2.0000714765e-1f);
  y = fma(y, t, -2.4999993993e-1f);
  y = fma(y, t, 3.3333331174e-1f);
  y = multiply(multiply(y, t), z);
  y = fma(e, -2.12194440e-4f, y);
  y = fma(z, -0.5f, y);
  return fma(e, 0.693359375f, add(t, y));
}

// cos and sin of 2π·(2k+1)·2^-25: the nearest quarter turn q is taken off in integers, the rest is within ±π/4.
// Polynomials: Cephes sinf and cosf.
SB_NOISE void cos_sin_turn(int32_t k, float& cosine, float& sine) {
  const int32_t odd = 2 * k + 1;
  const int32_t q = (odd + (1 << 22)) >> 23;
  constexpr float kStep = float(6.283185307179586 / (1 << 25));  // 2π·2^-25
  const float x = multiply(float(odd - (q << 23)), kStep);
  const float z = multiply(x, x);
  float s = fma(-1.9515295891e-4f, z, 8.3321608736e-3f);
  s = fma(s, z, -1.6666654611e-1f);
  s = fma(multiply(s, z), x, x);
  float c = fma(2.443315711809948e-5f, z, -1.388731625493765e-3f);
  c = fma(c, z, 4.166664568298827e-2f);
  c = fma(multiply(c, z), z, fma(z, -0.5f, 1.f));
  // Turning by q quarters, without branches: swap for odd q, then signs.
  const uint32_t s_bits = std::bit_cast<uint32_t>(s), c_bits = std::bit_cast<uint32_t>(c);
  const uint32_t swap = (s_bits ^ c_bits) & (0u - (uint32_t(q) & 1u));
  const uint32_t cosine_sign = ((uint32_t(q) + 1u) & 2u) << 30, sine_sign = (uint32_t(q) & 2u) << 30;
  cosine = std::bit_cast<float>((c_bits ^ swap) ^ cosine_sign);
  sine = std::bit_cast<float>((s_bits ^ swap) ^ sine_sign);
}

// Box-Muller: two words give two normals.
SB_NOISE void normal_pair(uint32_t first, uint32_t second, float& cosine, float& sine) {
  const float r = root(multiply(-2.f, log_uniform(int32_t(first >> 8))));
  float c, s;
  cos_sin_turn(int32_t(second >> 8), c, s);
  cosine = multiply(r, c);
  sine = multiply(r, s);
}

}  // namespace switchback::noise_math
