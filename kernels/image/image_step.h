// One step of images that follow a gradient: attacks (Goodfellow et al. 2015; Madry et al. 2018) and plain ascent. A
// network's input is scale·pixel + offset in each channel, with pixels from 0 to 1: steps and limits of attacks are in
// pixels, whatever the normalisation.
//
//   plain    x += step·g                                     sign   x += |scale|·step·sign(g)
//   capped   x += min(step, 2 / ‖g‖²)·g  (Yosinski 2015)     l2     x += scale²·step·g / ‖scale·g‖
//
// then the change x − clean is brought back into its ball, x into lowest … highest, and x is multiplied by 1 − decay.
// Norms are over one item, sums in double.
#pragma once

#include <cstdint>

#include "kernels/device/context.h"
#include "kernels/types.h"

namespace switchback {

struct ImageStep {
  enum class Rule { plain, capped, sign, l2 } rule = Rule::plain;
  enum class Ball { none, inf, l2 } ball = Ball::none;  // |x − clean| ≤ epsilon·|scale|; ‖(x − clean) / scale‖ ≤ epsilon
  float step = 0, epsilon = 0, decay = 0;
};

// What pixels are in the network's input; arrays [c] on the device.
struct PixelRange {
  const float* scale = nullptr;
  const float *lowest = nullptr, *highest = nullptr;  // of x, in input units; may be infinite
};

// Items that have reached their goal stay as they are: where (best[n] == labels[n]) is `equal`. Device, [n]; null: all move.
struct StopRule {
  const int32_t *best = nullptr, *labels = nullptr;
  bool equal = false;
};

// clean, g, x: f32 [n,c,h,w]; x is changed in place. clean may be null where there is no ball.
void image_step(Context& ctx, const ImageStep& step, const PixelRange& range, const float* clean, ConstView g,
                const StopRule& stop, View x);

// y[n] = x + radius·y[n] / ‖y[n]‖: normal noise y becomes points of the sphere around one image x (NHWC, [h,w,c]).
void scale_to_sphere(Context& ctx, const float* x, float radius, View y);

}  // namespace switchback
