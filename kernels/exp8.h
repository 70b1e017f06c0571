// e^x and what is made of it on eight f32 lanes, within 2 or 3 units in the last place.
#pragma once

#include "kernels/simd.h"

namespace switchback {

// 2^n for |n| up to 252, in two factors so that neither leaves the range of exponents.
SB_INLINE F8 times_power_of_two(F8 v, I8 n) {
  const I8 half = _mm256_srai_epi32(n, 1), rest = _mm256_sub_epi32(n, half), bias = _mm256_set1_epi32(127);
  const auto power = [&](I8 e) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, bias), 23)); };
  return _mm256_mul_ps(_mm256_mul_ps(v, power(half)), power(rest));
}

// e^x = 2^n·(1 + rest). Polynomial and split of ln 2: Cephes expf. NaN passes.
struct Exp8 {
  F8 n, rest;
};
SB_INLINE Exp8 split_exp8(F8 x) {
  const F8 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  F8 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  F8 p = _mm256_set1_ps(1.9875691500e-4f);
  for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
  return {n, _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r)};
}

SB_INLINE F8 exp8(F8 x) {
  const Exp8 e = split_exp8(_mm256_min_ps(_mm256_set1_ps(89.f), _mm256_max_ps(_mm256_set1_ps(-104.f), x)));
  return times_power_of_two(_mm256_add_ps(e.rest, _mm256_set1_ps(1.f)), _mm256_cvtps_epi32(e.n));
}

SB_INLINE F8 negated(F8 x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.f)); }
SB_INLINE F8 magnitude(F8 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), x); }

// 1 / (1 + z) or z / (1 + z) with z = e^-|x|: nothing overflows, and small values keep their digits.
SB_INLINE F8 sigmoid8(F8 x) {
  const F8 one = _mm256_set1_ps(1.f), z = exp8(negated(magnitude(x)));
  return _mm256_div_ps(_mm256_blendv_ps(one, z, x), _mm256_add_ps(one, z));  // by the sign bit of x
}
// sigmoid'(x) = z / (1 + z)² with z = e^-|x|: no cancellation at either end.
SB_INLINE F8 sigmoid_slope8(F8 x) {
  const F8 z = exp8(negated(magnitude(x))), sum = _mm256_add_ps(_mm256_set1_ps(1.f), z);
  return _mm256_div_ps(z, _mm256_mul_ps(sum, sum));
}

// Near 0 a polynomial (Cephes tanhf), elsewhere 1 - 2 / (1 + e^2|x|) with the sign of x.
SB_INLINE F8 tanh8(F8 x) {
  const F8 size = magnitude(x), squared = _mm256_mul_ps(x, x), one = _mm256_set1_ps(1.f);
  F8 p = _mm256_set1_ps(-5.70498872745e-3f);
  for (const float c : {2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f, -3.33332819422e-1f})
    p = _mm256_fmadd_ps(p, squared, _mm256_set1_ps(c));
  const F8 near = _mm256_fmadd_ps(_mm256_mul_ps(p, squared), x, x);
  const F8 grown = _mm256_add_ps(one, exp8(_mm256_add_ps(size, size)));
  const F8 far = _mm256_or_ps(_mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.f), grown)),
                              _mm256_and_ps(x, _mm256_set1_ps(-0.f)));
  return _mm256_blendv_ps(near, far, _mm256_cmp_ps(size, _mm256_set1_ps(0.625f), _CMP_GE_OQ));
}
// tanh'(x) = 4·sigmoid'(2x).
SB_INLINE F8 tanh_slope8(F8 x) {
  return _mm256_mul_ps(_mm256_set1_ps(4.f), sigmoid_slope8(_mm256_add_ps(x, x)));
}

}  // namespace switchback
