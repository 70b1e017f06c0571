// Eight f32 lanes (AVX2, the baseline) with loads and stores from f32 and bf16, and the two epilogues on them. All
// maths is f32; bf16 is a storage type. Partial vectors (lanes < 8) never touch memory behind the last lane.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "kernels/check.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

using F8 = __m256;
using I8 = __m256i;

#define SB_INLINE inline __attribute__((always_inline))
#define SB_LAMBDA __attribute__((always_inline))  // behind the parameters of a lambda

SB_INLINE I8 lane_ids() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
SB_INLINE I8 first_lanes(int lanes) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), lane_ids()); }
SB_INLINE F8 all_ones(bool on) { return _mm256_castsi256_ps(_mm256_set1_epi32(on ? -1 : 0)); }

SB_INLINE F8 widen(__m128i bf16_bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16_bits), 16));
}
SB_INLINE __m128i narrow(F8 v) {  // to bf16, nearest even, NaN stays NaN (as bf16(float) in types.h)
  const I8 u = _mm256_castps_si256(v);
  const I8 upper = _mm256_srli_epi32(u, 16);
  const I8 odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
  const I8 rounded = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const I8 quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
  const I8 nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const I8 r = _mm256_blendv_epi8(rounded, quiet, nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}

SB_INLINE F8 load8(const float* p, int lanes = 8) {
  return lanes == 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_lanes(lanes));
}
SB_INLINE F8 load8(const bf16* p, int lanes = 8) {
  if (lanes == 8) return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  alignas(16) uint16_t bits[8] = {};
  for (int i = 0; i < lanes; ++i) bits[i] = p[i].bits;
  return widen(_mm_load_si128(reinterpret_cast<const __m128i*>(bits)));
}
SB_INLINE void store8(float* p, F8 v, int lanes = 8) {
  if (lanes == 8) {
    _mm256_storeu_ps(p, v);
  } else {
    _mm256_maskstore_ps(p, first_lanes(lanes), v);
  }
}
SB_INLINE void store8(bf16* p, F8 v, int lanes = 8) {
  if (lanes == 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(v));
    return;
  }
  alignas(16) uint16_t bits[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(bits), narrow(v));
  for (int i = 0; i < lanes; ++i) p[i].bits = bits[i];
}

// Switches: small integers, widened to 32-bit lanes and back.
SB_INLINE I8 load_switches8(const uint8_t* p, int lanes = 8) {
  if (lanes == 8) return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  alignas(32) int32_t wide[8] = {};
  for (int i = 0; i < lanes; ++i) wide[i] = p[i];
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(wide));
}
SB_INLINE I8 load_switches8(const uint16_t* p, int lanes = 8) {
  if (lanes == 8) return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  alignas(32) int32_t wide[8] = {};
  for (int i = 0; i < lanes; ++i) wide[i] = p[i];
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(wide));
}
template <typename Switch>
SB_INLINE void store_switches8(Switch* p, I8 v, int lanes = 8) {
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  if (lanes == 8) {
    if constexpr (sizeof(Switch) == 1) {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
    } else {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(p), words);
    }
    return;
  }
  alignas(16) uint16_t narrow_words[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(narrow_words), words);
  for (int i = 0; i < lanes; ++i) p[i] = Switch(narrow_words[i]);
}

// Lanes of bits 8·v … 8·v+7 of a gate word, as masks.
SB_INLINE F8 expand_gates(uint32_t word, int v) {
  const I8 bit = _mm256_sllv_epi32(_mm256_set1_epi32(1 << (8 * v)), lane_ids());
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(int(word)), bit), bit));
}

// A ReLU and its gates (gates.h); the rules are masks, so that one loop without branches serves every epilogue.
class ForwardRule {
 public:
  explicit ForwardRule(const Epilogue& e)
      : no_relu_(all_ones(!e.relu)),
        no_clip_(all_ones(!e.relu || e.clip == kNoClip)),
        clip_(_mm256_set1_ps(e.relu ? e.clip : kNoClip)) {}
  SB_INLINE F8 value(F8 s) const {
    const F8 keep = _mm256_or_ps(_mm256_cmp_ps(s, _mm256_setzero_ps(), _CMP_NLE_UQ), no_relu_);
    return _mm256_min_ps(clip_, _mm256_and_ps(s, keep));  // min gives its second operand for NaN
  }
  SB_INLINE uint32_t inside(F8 s) const {
    const F8 below = _mm256_or_ps(_mm256_cmp_ps(s, clip_, _CMP_LT_OQ), no_clip_);
    return uint32_t(_mm256_movemask_ps(_mm256_and_ps(_mm256_cmp_ps(s, _mm256_setzero_ps(), _CMP_GT_OQ), below)));
  }
  SB_INLINE uint32_t above(F8 s) const { return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(s, clip_, _CMP_GE_OQ))); }

 private:
  F8 no_relu_, no_clip_, clip_;
};

// rule(gate, g), likewise; without a ReLU the identity.
class BackwardRule {
 public:
  explicit BackwardRule(const BackwardEpilogue& e)
      : ignore_gate_(all_ones(!(e.relu && e.rule.gate_forward))),
        ignore_sign_(all_ones(!(e.relu && e.rule.gate_gradient))) {}
  // v: which eight bits of `word`.
  SB_INLINE F8 value(F8 g, uint32_t word, int v) const {
    const F8 gate = _mm256_or_ps(expand_gates(word, v), ignore_gate_);
    const F8 sign = _mm256_or_ps(_mm256_cmp_ps(g, _mm256_setzero_ps(), _CMP_GT_OQ), ignore_sign_);
    return _mm256_and_ps(g, _mm256_and_ps(gate, sign));
  }

 private:
  F8 ignore_gate_, ignore_sign_;
};

// The gate words that a backward epilogue really reads, or null.
inline const uint32_t* gates_read(const BackwardEpilogue& e) {
  return e.relu && e.rule.gate_forward ? e.gates : nullptr;
}
inline void check_epilogue(const BackwardEpilogue& e, const char* op) {
  CHECK(!(e.relu && e.rule.gate_forward) || e.gates, "{}: the rule needs gate bits and there are none", op);
  CHECK(e.seeds_per_item >= 1, "{}: seeds_per_item is {}, must be at least 1", op, e.seeds_per_item);
}

// Calls f(T{}) with the element type of `dtype`.
template <typename F>
void with_type(DType dtype, const char* op, const F& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(bf16{});
    default:
      fail("{}: {} is not supported on the CPU, use float32 or bfloat16", op, name_of(dtype));
  }
}

// Where the forward epilogue of a tensor of element type T writes and reads.
template <typename T>
struct ForwardTarget {
  ForwardTarget(View y, const Epilogue& e)
      : y(y.as<T>()),
        residual(static_cast<const T*>(e.residual)),
        inside(e.gates),
        above(e.gates && e.relu && e.clip != kNoClip ? e.gates + e.gate_plane(y.shape) : nullptr),
        rule(e) {
    CHECK(!e.pitch, "concatenations are not written in place on the CPU");
  }

  // One group of up to 32 channels. element: offset of the first; word: index of its gate word;
  // source(v, lanes) gives the eight values 8v…8v+7 before residual and activation.
  template <typename Source>
  SB_INLINE void write_group(int64_t element, int64_t word, int64_t count, const Source& source) const {
    if (count >= 32) {
      write_vectors<true>(element, word, 32, source);
    } else if (count % 8 == 0) {
      write_vectors<true>(element, word, int(count), source);
    } else {
      write_vectors<false>(element, word, int(count), source);
    }
  }

  T* y;
  const T* residual;
  uint32_t *inside, *above;
  ForwardRule rule;

 private:
  template <bool kWhole, typename Source>
  SB_INLINE void write_vectors(int64_t element, int64_t word, int count, const Source& source) const {
    const int vectors = (count + 7) / 8;
    uint32_t bits = 0, bits_above = 0;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const int lanes = kWhole ? 8 : std::min(8, count - 8 * v);
      F8 s = source(v, lanes);
      if (residual) s = _mm256_add_ps(s, load8(residual + element + 8 * v, lanes));
      store8(y + element + 8 * v, rule.value(s), lanes);
      const uint32_t live = (1u << lanes) - 1;
      bits |= (rule.inside(s) & live) << (8 * v);
      bits_above |= (rule.above(s) & live) << (8 * v);
    }
    if (inside) inside[word] = bits;
    if (above) above[word] = bits_above;
  }
};

// The same on the way back. Items of dx share gates: gate word index = that of item p / seeds_per_item.
template <typename T>
struct BackwardTarget {
  BackwardTarget(View dx, const BackwardEpilogue& e)
      : dx(dx.as<T>()), other(static_cast<const T*>(e.other)), gates(gates_read(e)), rule(e) {}

  template <typename Source>
  SB_INLINE void write_group(int64_t element, int64_t word, int64_t count, const Source& source) const {
    const uint32_t bits = gates ? gates[word] : 0;
    if (count >= 32) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) write_vector(element + 8 * v, bits, v, 8, source(v, 8));
    } else if (count % 8 == 0) {
      for (int v = 0; 8 * v < count; ++v) write_vector(element + 8 * v, bits, v, 8, source(v, 8));
    } else {
      for (int v = 0; 8 * v < count; ++v) {
        const int lanes = std::min(8, int(count) - 8 * v);
        write_vector(element + 8 * v, bits, v, lanes, source(v, lanes));
      }
    }
  }
  SB_INLINE void write_vector(int64_t element, uint32_t bits, int v, int lanes, F8 g) const {
    if (other) g = _mm256_add_ps(g, load8(other + element, lanes));
    store8(dx + element, rule.value(g, bits, v), lanes);
  }

  T* dx;
  const T* other;
  const uint32_t* gates;
  BackwardRule rule;
};

}  // namespace switchback
