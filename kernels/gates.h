// What a ReLU does and what the tape keeps of it: its gates. Said once, for the CPU, for GPUs and for the engine; the
// CPU's vector code is tested against it. A ReLU is the ramp y = min(max(s, min), max) from 0 to its clip; other ramps
// (kernels/pointwise/activation.h) have the same gates.
//
//   state    where                    y      derivative
//   below    s <= min, or s is NaN    min    0             (NaN stays NaN, and no gradient passes)
//   inside   min < s < max            s      1
//   above    s >= max                 max    0
//
// An infinite limit is none: s = +∞ is inside a ReLU without a clip, which passes its gradient. s = −0 is below, as 0 is,
// and y is then +0.
#pragma once

#include <limits>

#include "kernels/types.h"

namespace switchback {

inline constexpr float kNoClip = std::numeric_limits<float>::infinity();

enum class GateState : uint8_t { below, inside, above };

struct Limits {
  float min = 0, max = kNoClip;

  SB_HOST_DEVICE constexpr bool inside(float s) const {
    return (s > min || (min == -kNoClip && s == s)) && (s < max || max == kNoClip);
  }
  SB_HOST_DEVICE constexpr bool above(float s) const { return s >= max && max != kNoClip; }
  SB_HOST_DEVICE constexpr GateState state(float s) const {
    return inside(s) ? GateState::inside : above(s) ? GateState::above : GateState::below;
  }
  SB_HOST_DEVICE constexpr float value(float s) const { return s <= min ? min : s >= max ? max : s; }
};
SB_HOST_DEVICE constexpr Limits relu_limits(float clip) { return {0.f, clip}; }

// Where the states lie: for every pixel ceil(c/32) words; bit c % 32 of word c / 32 is set where channel c is inside.
// Where there is a `max`, a second plane of the same size behind the first has the bits of what is above.
SB_HOST_DEVICE constexpr int64_t gate_words_per_pixel(int64_t channels) { return (channels + 31) / 32; }
SB_HOST_DEVICE constexpr int64_t gate_words(Shape s) { return s.pixels() * gate_words_per_pixel(s.c); }
template <typename Int>
SB_HOST_DEVICE constexpr bool gate_bit(const uint32_t* pixel_words, Int channel) {
  return pixel_words[channel / 32] >> (channel & 31) & 1u;
}
// inside, above: a pixel's words in the two planes; above is null where there is but one.
template <typename Int>
SB_HOST_DEVICE constexpr GateState gate_state(const uint32_t* inside, const uint32_t* above, Int channel) {
  if (gate_bit(inside, channel)) return GateState::inside;
  return above && gate_bit(above, channel) ? GateState::above : GateState::below;
}

// What a ReLU lets through on the way back (Zeiler & Fergus 2014; Springenberg et al. 2015).
struct ReluRule {
  bool gate_forward = true;    // multiply with the forward gate [inside]
  bool gate_gradient = false;  // multiply with [g > 0]
  bool operator==(const ReluRule&) const = default;
};
inline constexpr ReluRule kGradient{true, false}, kDeconv{false, true}, kGuided{true, true};

SB_HOST_DEVICE constexpr float apply(ReluRule rule, bool gate, float g) {
  return (!rule.gate_forward || gate) && (!rule.gate_gradient || g > 0.f) ? g : 0.f;
}

}  // namespace switchback
