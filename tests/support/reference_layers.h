// Naive references in double for the layers beside reference.h's: linear ones as explicit lists of terms, from which both
// directions follow, and activations and binary functions by their formulas.
#pragma once

#include <vector>

#include "kernels/pointwise/activation.h"
#include "kernels/pointwise/binary.h"
#include "kernels/conv/conv_transpose.h"
#include "kernels/move/rearrange.h"
#include "kernels/move/transpose.h"
#include "kernels/normalize/reduce.h"
#include "kernels/normalize/set_norm.h"
#include "kernels/move/resample.h"
#include "tests/support/reference.h"

namespace switchback::test {

// y[out] = constant[out] + sum of weight·x[in] over the terms, for one item, both counted in CHW order.
struct LinearMap {
  struct Term {
    int64_t out, in;
    double weight;
  };
  Shape in, out;  // n is 1
  std::vector<Term> terms;
  std::vector<double> constant;  // empty: zeros
  int64_t longest_forward() const;   // terms of one output, at most
  int64_t longest_backward() const;  // terms of one input
};
LinearMap linear_map(const Resize& resize, Shape x);
LinearMap linear_map(const Pad& pad, Shape x);
LinearMap linear_map(const Slice& slice, Shape x);
LinearMap linear_map(const ChannelShuffle& shuffle, Shape x);
LinearMap linear_map(const Roll& roll, Shape x);
LinearMap linear_map(const Take& take, Shape x);
LinearMap linear_map(const Reshape& reshape, Shape x);
LinearMap linear_map(const Permute& permute, Shape x);
LinearMap linear_map(const Transpose& transpose, Shape x);
LinearMap linear_map(const Reduce& reduce, Shape x);
// weight: [in, out / groups, kernel_h, kernel_w]; scale: of each output channel, may be empty.
LinearMap linear_map(const ConvTranspose2d& conv, Shape x, const std::vector<float>& weight,
                     const std::vector<float>& bias, const std::vector<float>& scale);
Ref apply(const LinearMap& map, const Nchw& x);
Ref apply_transposed(const LinearMap& map, const Nchw& dy);

// slopes: one, or one for each channel. `gates` (1: open) belong to items p / seeds.
Ref slope_forward(const std::vector<double>& slopes, const Nchw& x, Gates* gates);
Ref slope_backward(const std::vector<double>& slopes, const Nchw& dy, const Gates& gates, Rule rule, int64_t seeds);
// s = scale·x + shift, to which the gates belong (0 at or below min, 1 inside, 2 at or above max), and its clipped value.
struct RampValue {
  Ref s, y;
  Gates gates;
};
RampValue ramp_forward(double scale, double shift, double min, double max, const Nchw& x);
Ref ramp_backward(double scale, const Nchw& dy, const Gates& gates, int64_t seeds);
// Norms over sets of values. weight, bias: of channel c at place p of its set at index p·by_place + c·by_channel; empty: 1, 0.
struct NormCase {
  NormSets sets;
  std::vector<double> weight, bias;
  int64_t by_place = 0, by_channel = 1;
};
Ref set_norm_forward(const NormCase& norm, const Nchw& x);
Ref set_norm_backward(const NormCase& norm, const Nchw& dy, const Nchw& x, int64_t seeds);

Ref smooth_forward(const Smooth& smooth, const Nchw& x);
Ref smooth_backward(const Smooth& smooth, const Nchw& dy, const Nchw& x, int64_t seeds);

// a, b of any sizes that broadcast; items of a and b belong to those of dy in groups of `seeds`.
Ref binary_forward(BinaryFunction function, const Nchw& a, const Nchw& b);
Ref binary_backward(BinaryFunction function, int operand, const Nchw& dy, const Nchw& a, const Nchw& b, int64_t seeds);

}  // namespace switchback::test
