// What happens to the sums of our own CPU convolutions before they are stored: the fused epilogues, kLanes outputs of one
// pixel at a time. Included by the `.inl` files that are compiled once per instruction set.
#pragma once

#include <cstring>

#include "kernels/epilogue/epilogue.h"
#include "kernels/vec.h"

namespace switchback::simd::inline SWITCHBACK_ISA {

inline Vec load_some(const float* p, int lanes) { return lanes == kLanes ? load(p) : load_first(p, lanes); }
inline void store_some(float* p, Vec v, int lanes) { lanes == kLanes ? store(p, v) : store_first(p, v, lanes); }

inline void put_bits(uint32_t* pixel_words, int64_t channel, uint32_t bits) {  // little-endian, as every x86
  auto* bytes = reinterpret_cast<unsigned char*>(pixel_words) + channel / 8;
  if constexpr (kLanes == 16) {
    const uint16_t half = uint16_t(bits);
    std::memcpy(bytes, &half, 2);
  } else {
    *bytes = uint8_t(bits);
  }
}

// Both are called with sums v of channels k .. k + lanes of a pixel (sums behind the last lane are zero) and with the
// pixel whose gates count, gate_pixel(pixel): results and their gates may belong to different items.
struct ForwardEnd {
  Epilogue e;
  const float* bias;
  int64_t channels, plane;  // plane: words of the gates
  const float* residual = static_cast<const float*>(e.residual);
  int64_t words = gate_words_per_pixel(channels);
  int64_t gate_pixel(int64_t pixel) const { return pixel; }
  Vec operator()(Vec v, int64_t pixel, int64_t gate_pixel, int64_t k, int lanes = kLanes) const {
    if (bias) v = v + load_some(bias + k, lanes);
    if (residual) v = v + load_some(residual + pixel * channels + k, lanes);
    if (!e.relu) return v;
    const uint32_t positive = greater(v, zero());
    if (e.clip == kNoClip) {
      if (e.gates) put_bits(e.gates + gate_pixel * words, k, positive);
      return above_zero(v);
    }
    if (e.gates) {
      const uint32_t live = (1u << lanes) - 1, above = at_least(v, set1(e.clip)) & live;
      put_bits(e.gates + gate_pixel * words, k, positive & ~above);
      put_bits(e.gates + plane + gate_pixel * words, k, above);
    }
    return min(set1(e.clip), above_zero(v));
  }
};

template <bool kForwardGate, bool kGradientGate>
struct BackwardEnd {
  BackwardEpilogue e;
  int64_t channels, pixels_per_image;
  int64_t words = gate_words_per_pixel(channels);
  const float* other = static_cast<const float*>(e.other);
  int64_t gate_pixel(int64_t pixel) const {
    if (e.seeds_per_item == 1) return pixel;
    return pixel / pixels_per_image / e.seeds_per_item * pixels_per_image + pixel % pixels_per_image;
  }
  Vec operator()(Vec v, int64_t pixel, int64_t gate_pixel, int64_t k, int lanes = kLanes) const {
    if (other) v = v + load_some(other + pixel * channels + k, lanes);
    if constexpr (kGradientGate) v = keep(v, greater(v, zero()));
    if constexpr (kForwardGate) v = keep(v, get_bits(e.gates + gate_pixel * words, k));
    return v;
  }
};

// run(end) with the end that an epilogue asks for; y and dx: the shape of what is stored.
template <typename Run>
void with_end(const Epilogue& e, const float* bias, Shape y, const Run& run) {
  const int64_t plane = e.gate_plane(y);
  if (e.relu && e.gates && y.c % 32)  // the padding bits, which not all lanes write
    for (int p = 0; p < (e.clip == kNoClip ? 1 : 2); ++p) std::memset(e.gates + p * plane, 0, size_t(gate_words(y)) * 4);
  run(ForwardEnd{.e = e, .bias = bias, .channels = y.c, .plane = plane});
}
template <typename Run>
void with_end(const BackwardEpilogue& e, Shape dx, const Run& run) {
  const int64_t pixels = dx.h * dx.w;
  const ReluRule rule = e.relu ? e.rule : ReluRule{false, false};
  if (rule == kGradient) return run(BackwardEnd<true, false>{.e = e, .channels = dx.c, .pixels_per_image = pixels});
  if (rule == kDeconv) return run(BackwardEnd<false, true>{.e = e, .channels = dx.c, .pixels_per_image = pixels});
  if (rule == kGuided) return run(BackwardEnd<true, true>{.e = e, .channels = dx.c, .pixels_per_image = pixels});
  run(BackwardEnd<false, false>{.e = e, .channels = dx.c, .pixels_per_image = pixels});
}

}  // namespace switchback::simd::inline SWITCHBACK_ISA
