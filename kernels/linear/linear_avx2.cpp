// Linear layers for AVX2 and FMA: sixteen lanes are two registers.
#include <immintrin.h>

#include "kernels/linear/linear_kernels.h"

namespace switchback {
namespace {

constexpr int kForwardR = 2, kForwardS = 3, kBackV = 2, kBackS = 3;  // 12 of 16 registers hold sums

struct V16 {
  __m256 a, b;
  static inline __attribute__((always_inline)) V16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static inline __attribute__((always_inline)) V16 load(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
  }
  static inline __attribute__((always_inline)) V16 load(const uint16_t* p) { return {widen(p), widen(p + 8)}; }
  static inline __attribute__((always_inline)) V16 load_part(const float* p, int lanes) {
    return {_mm256_maskload_ps(p, mask(lanes)), _mm256_maskload_ps(p + (lanes > 8 ? 8 : 0), mask(lanes - 8))};
  }
  static inline __attribute__((always_inline)) V16 load_part(const uint16_t* p, int lanes) {
    uint16_t bits[16] = {};
    for (int i = 0; i < lanes; ++i) bits[i] = p[i];
    return load(bits);
  }
  static inline __attribute__((always_inline)) V16 broadcast(const float* p) {
    const __m256 v = _mm256_broadcast_ss(p);
    return {v, v};
  }
  static inline __attribute__((always_inline)) V16 fma(V16 x, V16 y, V16 z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  static inline __attribute__((always_inline)) V16 add(V16 x, V16 y) {
    return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
  }
  inline __attribute__((always_inline)) void store(float* p) const {
    _mm256_storeu_ps(p, a);
    _mm256_storeu_ps(p + 8, b);
  }
  inline __attribute__((always_inline)) void store_part(float* p, int lanes) const {
    _mm256_maskstore_ps(p, mask(lanes), a);
    _mm256_maskstore_ps(p + (lanes > 8 ? 8 : 0), mask(lanes - 8), b);
  }

 private:
  static inline __attribute__((always_inline)) __m256i mask(int lanes) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static inline __attribute__((always_inline)) __m256 widen(const uint16_t* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
};

}  // namespace
}  // namespace switchback

#include "kernels/linear/linear_kernels.inl"

namespace switchback {
const LinearKernels<float> linear_avx2_f32 = {forward<float>, backward<float>};
const LinearKernels<uint16_t> linear_avx2_bf16 = {forward<uint16_t>, backward<uint16_t>};
}  // namespace switchback
