// The transforms of winograd.h's F(4x4, 3x3) and their transposes, for vectors of channels. Included by the `.inl`
// files that are compiled once per instruction set.
#pragma once

#include "kernels/types.h"
#include "kernels/vec.h"

namespace switchback::simd::inline SWITCHBACK_ISA {

// Interpolation points ±a, ±b.
inline constexpr float kA = 0.625f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB;
inline constexpr float kA2B2 = kA2 * kB2, kSum = kA2 + kB2;
inline constexpr float kN0 = float(1 / (double(kA2) * double(kB2))),
                       kNa = float(1 / (2 * double(kA2) * (double(kA2) - double(kB2)))),
                       kNb = float(1 / (2 * double(kB2) * (double(kB2) - double(kA2))));

// t = B^T d for one row or column of six.
inline void input_transform(const Vec d[6], Vec t[6]) {
  const Vec a2 = set1(kA2), b2 = set1(kB2);
  t[0] = fma(set1(kA2B2), d[0], fnma(set1(kSum), d[2], d[4]));
  const Vec even_a = fnma(b2, d[2], d[4]), odd_a = set1(kA) * fnma(b2, d[1], d[3]);
  t[1] = even_a + odd_a;
  t[2] = even_a - odd_a;
  const Vec even_b = fnma(a2, d[2], d[4]), odd_b = set1(kB) * fnma(a2, d[1], d[3]);
  t[3] = even_b + odd_b;
  t[4] = even_b - odd_b;
  t[5] = fma(set1(kA2B2), d[1], fnma(set1(kSum), d[3], d[5]));
}

// u = G g: from three taps to six points.
inline void weight_transform(const Vec g[3], Vec u[6]) {
  u[0] = set1(kN0) * g[0];
  const Vec even_a = fma(set1(kA2), g[2], g[0]), odd_a = set1(kA) * g[1];
  u[1] = set1(kNa) * (even_a + odd_a);
  u[2] = set1(kNa) * (even_a - odd_a);
  const Vec even_b = fma(set1(kB2), g[2], g[0]), odd_b = set1(kB) * g[1];
  u[3] = set1(kNb) * (even_b + odd_b);
  u[4] = set1(kNb) * (even_b - odd_b);
  u[5] = g[2];
}

// y = A^T m: from six points to four outputs.
inline void output_transform(const Vec m[6], Vec y[4]) {
  const Vec sum_a = m[1] + m[2], diff_a = m[1] - m[2], sum_b = m[3] + m[4], diff_b = m[3] - m[4];
  y[0] = m[0] + sum_a + sum_b;
  y[1] = fma(set1(kA), diff_a, set1(kB) * diff_b);
  y[2] = fma(set1(kA2), sum_a, set1(kB2) * sum_b);
  y[3] = fma(set1(kA2 * kA), diff_a, fma(set1(kB2 * kB), diff_b, m[5]));
}

// Transposed: m = A y, from four outputs to six points.
inline void output_transposed(const Vec y[4], Vec m[6]) {
  m[0] = y[0];
  const Vec even_a = fma(set1(kA2), y[2], y[0]), odd_a = fma(set1(kA2 * kA), y[3], set1(kA) * y[1]);
  m[1] = even_a + odd_a;
  m[2] = even_a - odd_a;
  const Vec even_b = fma(set1(kB2), y[2], y[0]), odd_b = fma(set1(kB2 * kB), y[3], set1(kB) * y[1]);
  m[3] = even_b + odd_b;
  m[4] = even_b - odd_b;
  m[5] = y[3];
}

// Transposed: g = G^T u, from six points to three taps.
inline void weight_transposed(const Vec u[6], Vec g[3]) {
  const Vec sum_a = u[1] + u[2], diff_a = u[1] - u[2], sum_b = u[3] + u[4], diff_b = u[3] - u[4];
  g[0] = fma(set1(kN0), u[0], fma(set1(kNa), sum_a, set1(kNb) * sum_b));
  g[1] = fma(set1(kNa * kA), diff_a, set1(kNb * kB) * diff_b);
  g[2] = fma(set1(kNa * kA2), sum_a, fma(set1(kNb * kB2), sum_b, u[5]));
}

// Where the 6x6 places from (top, left) on of an item [h,w,c] lie; `zeros` for those outside.
inline void input_tile(const float* item, Shape s, int64_t top, int64_t left, const float* zeros,
                       const float* source[36]) {
  for (int64_t r = 0; r < 6; ++r)
    for (int64_t t = 0; t < 6; ++t) {
      const int64_t y = top + r, x = left + t;
      source[6 * r + t] = y >= 0 && y < s.h && x >= 0 && x < s.w ? item + (y * s.w + x) * s.c : zeros;
    }
}

// Four rows of four places that the tiles below are the first to read: maps of a batch come from memory.
inline void prefetch_tile(const float* corner, int64_t row, int64_t length) {
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t i = 0; i < length; i += 16) __builtin_prefetch(corner + r * row + i, 0, 2);
}

// B^T d B of a vector of channels from c on: 36 values, `stride` apart.
inline void transform_input_tile(const float* const source[36], int64_t c, float* out, int64_t stride) {
  Vec half[6][6];  // columns done
  for (int s = 0; s < 6; ++s) {
    Vec d[6], f[6];
    for (int r = 0; r < 6; ++r) d[r] = load(source[6 * r + s] + c);
    input_transform(d, f);
    for (int r = 0; r < 6; ++r) half[r][s] = f[r];
  }
  for (int r = 0; r < 6; ++r) {
    Vec f[6];
    input_transform(half[r], f);
    for (int s = 0; s < 6; ++s) store(out + (6 * r + s) * stride, f[s]);
  }
}

}  // namespace switchback::simd::inline SWITCHBACK_ISA
