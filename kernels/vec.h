// A vector of floats for kernels that are compiled once for AVX2 and once for AVX-512 (the `.inl` files): the same code,
// chosen at run time by cpu_features(). Lanes are channels, so a mask of lanes is a piece of a pixel's gate bits.
#pragma once

#include <immintrin.h>

#include <cstdint>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define SWITCHBACK_ISA avx512
#else
#define SWITCHBACK_ISA avx2
#endif

// Everything that is compiled twice lives in the instruction set's own namespace, or the linker would keep one of two
// functions of the same name.
namespace switchback::simd::inline SWITCHBACK_ISA {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
struct Vec {
  static constexpr int kLanes = 16;
  __m512 v;
};
inline Vec zero() { return {_mm512_setzero_ps()}; }
inline Vec set1(float f) { return {_mm512_set1_ps(f)}; }
inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline Vec load_first(const float* p, int lanes) { return {_mm512_maskz_loadu_ps(__mmask16((1u << lanes) - 1), p)}; }
inline void store_first(float* p, Vec a, int lanes) { _mm512_mask_storeu_ps(p, __mmask16((1u << lanes) - 1), a.v); }
inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a·b
inline Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }                  // b where either is NaN
inline uint32_t greater(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
inline uint32_t at_least(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
inline Vec above_zero(Vec a) {  // max(a, 0): NaN passes, −0 becomes 0
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, _mm512_setzero_ps(), _CMP_NLE_UQ), a.v)};
}
inline Vec keep(Vec a, uint32_t mask) { return {_mm512_maskz_mov_ps(__mmask16(mask), a.v)}; }
// Moves lanes down by n and fills up with zeros.
struct ShiftDown {
  explicit ShiftDown(int n)
      : index(_mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(n))),
        kept(__mmask16(0xffffu >> n)) {}
  Vec operator()(Vec a) const { return {_mm512_maskz_permutexvar_ps(kept, index, a.v)}; }
  __m512i index;
  __mmask16 kept;
};

// out[j][i] = in[i·stride + j] for 16x16 floats: four rounds of shuffles, pairs, fours, halves.
inline void transpose16(const float* in, int64_t stride, float* out) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_ps(in + i * stride);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
  const auto low = [](__m512 x, __m512 y) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
  };
  const auto high = [](__m512 x, __m512 y) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
  };
  for (int i = 0; i < 16; i += 4) {  // a[i + j], quarter q: column 4q + j of rows i .. i+3
    a[i] = low(b[i], b[i + 2]);
    a[i + 1] = high(b[i], b[i + 2]);
    a[i + 2] = low(b[i + 1], b[i + 3]);
    a[i + 3] = high(b[i + 1], b[i + 3]);
  }
  for (int j = 0; j < 4; ++j) {
    const __m512 even0 = _mm512_shuffle_f32x4(a[j], a[4 + j], 0x88), even1 = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0x88);
    const __m512 odd0 = _mm512_shuffle_f32x4(a[j], a[4 + j], 0xdd), odd1 = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0xdd);
    _mm512_storeu_ps(out + 16 * j, _mm512_shuffle_f32x4(even0, even1, 0x88));
    _mm512_storeu_ps(out + 16 * (4 + j), _mm512_shuffle_f32x4(odd0, odd1, 0x88));
    _mm512_storeu_ps(out + 16 * (8 + j), _mm512_shuffle_f32x4(even0, even1, 0xdd));
    _mm512_storeu_ps(out + 16 * (12 + j), _mm512_shuffle_f32x4(odd0, odd1, 0xdd));
  }
}
#else
struct Vec {
  static constexpr int kLanes = 8;
  __m256 v;
};
inline __m256i lane_mask(uint32_t mask) {
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(int(mask)), bits), bits);
}
inline Vec zero() { return {_mm256_setzero_ps()}; }
inline Vec set1(float f) { return {_mm256_set1_ps(f)}; }
inline Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
inline Vec load_first(const float* p, int lanes) { return {_mm256_maskload_ps(p, lane_mask((1u << lanes) - 1))}; }
inline void store_first(float* p, Vec a, int lanes) { _mm256_maskstore_ps(p, lane_mask((1u << lanes) - 1), a.v); }
inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec fnma(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
inline Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
inline uint32_t greater(Vec a, Vec b) { return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ))); }
inline uint32_t at_least(Vec a, Vec b) { return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ))); }
inline Vec above_zero(Vec a) { return {_mm256_and_ps(a.v, _mm256_cmp_ps(a.v, _mm256_setzero_ps(), _CMP_NLE_UQ))}; }
inline Vec keep(Vec a, uint32_t mask) { return {_mm256_and_ps(a.v, _mm256_castsi256_ps(lane_mask(mask)))}; }
// out[8][16 floats apart] = the transposed 8 rows of `in`.
inline void transpose8(const float* in, int64_t stride, float* out) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(in + i * stride);
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {  // a[i + j], half h: column 4h + j of rows i .. i+3
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
  for (int j = 0; j < 4; ++j) {
    _mm256_storeu_ps(out + 16 * j, _mm256_permute2f128_ps(a[j], a[4 + j], 0x20));
    _mm256_storeu_ps(out + 16 * (4 + j), _mm256_permute2f128_ps(a[j], a[4 + j], 0x31));
  }
}
inline void transpose16(const float* in, int64_t stride, float* out) {
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 16; j += 8) transpose8(in + i * stride + j, stride, out + 16 * j + i);
}
#endif

inline constexpr int kLanes = Vec::kLanes;

// Gate bits of kLanes consecutive channels, starting at channel c (a multiple of kLanes) of the pixel whose words are
// given: 16 or 8 bits, which is half or a quarter of a word.
inline uint32_t get_bits(const uint32_t* pixel_words, int64_t c) {
  return (pixel_words[c / 32] >> (c % 32)) & uint32_t((uint64_t(1) << kLanes) - 1);
}

}  // namespace switchback::simd::inline SWITCHBACK_ISA
