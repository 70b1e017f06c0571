// Linear layers for AVX-512 (F, BW, DQ, VL): compiled with -march=x86-64-v4, run only where cpu_features() has it.
#include <immintrin.h>

#include "kernels/linear/linear_kernels.h"

namespace switchback {
namespace {

constexpr int kForwardR = 4, kForwardS = 4, kBackV = 3, kBackS = 8;  // 16 and 24 of 32 registers hold sums

struct V16 {
  __m512 a;
  static inline __attribute__((always_inline)) V16 zero() { return {_mm512_setzero_ps()}; }
  static inline __attribute__((always_inline)) V16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static inline __attribute__((always_inline)) V16 load(const uint16_t* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static inline __attribute__((always_inline)) V16 load_part(const float* p, int lanes) {
    return {_mm512_maskz_loadu_ps(mask(lanes), p)};
  }
  static inline __attribute__((always_inline)) V16 load_part(const uint16_t* p, int lanes) {
    return widen(_mm256_maskz_loadu_epi16(mask(lanes), p));
  }
  static inline __attribute__((always_inline)) V16 broadcast(const float* p) { return {_mm512_set1_ps(*p)}; }
  static inline __attribute__((always_inline)) V16 fma(V16 x, V16 y, V16 z) { return {_mm512_fmadd_ps(x.a, y.a, z.a)}; }
  static inline __attribute__((always_inline)) V16 add(V16 x, V16 y) { return {_mm512_add_ps(x.a, y.a)}; }
  inline __attribute__((always_inline)) void store(float* p) const { _mm512_storeu_ps(p, a); }
  inline __attribute__((always_inline)) void store_part(float* p, int lanes) const {
    _mm512_mask_storeu_ps(p, mask(lanes), a);
  }

 private:
  static inline __attribute__((always_inline)) __mmask16 mask(int lanes) { return __mmask16((1u << lanes) - 1); }
  static inline __attribute__((always_inline)) V16 widen(__m256i bits) {
    // maskz with a full mask: the plain forms make GCC 12 warn of uninitialised values
    const __m512i wide = _mm512_maskz_cvtepu16_epi32(__mmask16(0xffff), bits);
    return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(__mmask16(0xffff), wide, 16))};
  }
};

}  // namespace
}  // namespace switchback

#include "kernels/linear/linear_kernels.inl"

namespace switchback {
const LinearKernels<float> linear_avx512_f32 = {forward<float>, backward<float>};
const LinearKernels<uint16_t> linear_avx512_bf16 = {forward<uint16_t>, backward<uint16_t>};
}  // namespace switchback
