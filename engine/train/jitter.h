// Colours changed at random, as torchvision's ColorJitter and its functions on tensors: brightness x·f, contrast and
// saturation a blend f·x + (1 − f)·m with the image's mean grey or each pixel's own, hue a turn of HSV's. Values are 0
// … 1 and clamped after each step.
#pragma once

#include <array>
#include <cstdint>

#include "engine/files/image.h"
#include "kernels/types.h"

namespace switchback {

// How far factors go from 1, and the hue from 0, in turns.
struct Jitter {
  double brightness = 0, contrast = 0, saturation = 0, hue = 0;
  bool any() const { return brightness > 0 || contrast > 0 || saturation > 0 || hue > 0; }
};

// One draw: what is done, in this order (0 brightness, 1 contrast, 2 saturation, 3 hue).
struct DrawnJitter {
  std::array<int, 4> order = {0, 1, 2, 3};
  float brightness = 1, contrast = 1, saturation = 1, hue = 0;
};
// Factors from four words, the order from the fifth. A factor lies in [max(0, 1 − a), 1 + a).
DrawnJitter draw_jitter(const Jitter& how, const std::array<uint32_t, 4>& words, uint32_t order);

// One image [c,h,w] in place. Of grey ones saturation and hue are nothing.
void apply_jitter(const DrawnJitter& drawn, Shape item, ChannelOrder order, float* pixels);

}  // namespace switchback
