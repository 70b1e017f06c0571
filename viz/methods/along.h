// The derivative of a score with respect to one pixel, along a straight line of inputs (Smilkov et al. 2017, figure 2):
// how restless gradients are where nobody sees a difference.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "viz/methods/gradient.h"

namespace switchback {

struct AlongOptions : RunOptions {
  ReluRule rule = kGradient;
  int64_t points = 500;  // x(t) = x + t·(end − x), t = 0 … 1
  Tensor end;            // [C,H,W]; empty: x + σ·noise
  double noise = 0.01;   // σ as a share of (max − min) of the image
  uint64_t seed = 0;
  uint32_t image = 0;                       // the noise's image number
  std::array<int64_t, 2> pixel = {-1, -1};  // row, column; −1: the middle
};

struct Along {
  Tensor derivative;  // [P,C]
  Tensor largest;     // [P]: the largest |derivative| of all pixels and channels at that point
  Tensor end;         // [1,C,H,W]
  std::array<int64_t, 2> pixel = {0, 0};
  Explained explained;  // of x: one unit, which all points share
  int64_t batch = 0;
};

// x: [1,C,H,W]. Throws (usage) where the target is not one unit, or the pixel not within the image.
Along along(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
            const std::vector<std::string>& labels, const AlongOptions& options);

}  // namespace switchback
