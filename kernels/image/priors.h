// What keeps an optimised image near natural ones. f32, NHWC; all pointers are the context's device's.
#pragma once

#include <cstdint>

#include "kernels/device/context.h"
#include "kernels/types.h"

namespace switchback {

// A symmetric filter along rows and then along columns: taps[0] at the middle, taps[k] at ±k. Beyond the border are zeros
// (the filter is then its own adjoint), or the map mirrored (d c b a | a b c d, as scipy.ndimage does).
struct SymmetricFilter {
  static constexpr int kMostRadius = 32;
  enum class Border { zero, mirror } border = Border::zero;
  int radius = 0;
  float taps[kMostRadius + 1] = {1.f};
};
SymmetricFilter binomial_filter();                         // [1 4 6 4 1] / 16, zeros beyond the border
SymmetricFilter box_filter(int side);                      // 1 / side, side odd, mirrored
SymmetricFilter gaussian_filter(double sigma);             // cut at 4 σ, sum 1, mirrored: scipy.ndimage.gaussian_filter
void filter_image(Context& ctx, const SymmetricFilter& filter, ConstView x, View y);  // y must not be x

// y = a·x + b·y
void mix(Context& ctx, float a, ConstView x, float b, View y);

// y += |x|
void add_absolute(Context& ctx, ConstView x, View y);

// y[n] = factors·x[n], element by element; factors: of one item. y may be x.
void scale_by(Context& ctx, const float* factors, ConstView x, View y);

// The prior of Mahendran and Vedaldi (IJCV 2016, equations 3 to 5): g += sign·∂R/∂x with
//   R = range_weight·Σ (‖x‖ / bound)^α  +  tv_weight·Σ (d1² + d2²)^(β/2)
// ‖x‖ over the channels of a pixel; d1, d2 the forward differences of each channel, 0 at the last column and row.
struct NaturalPrior {
  float range_weight = 0, bound = 80, alpha = 6;
  float tv_weight = 0, beta = 2;
  float sign = 1;
};
void add_natural_gradient(Context& ctx, const NaturalPrior& prior, ConstView x, View g);

// Their update, ascending: G = keep·G + g²;  m = keep·m + g / (1/rate + √G);  x += m; then each pixel's norm over channels
// is at most `most`.
struct MomentumRule {
  float rate = 1, keep = 0.9f, most = 160;
};
void momentum_step(Context& ctx, const MomentumRule& rule, ConstView g, float* momentum, float* squares, View x);

// Yosinski et al. 2015: sets the pixels of an item to 0 whose score is below the percentile of all its pixels (as
// numpy.percentile): by norm ‖x‖ over the channels, or by contribution |Σ_c x·g|. g is looked at for the latter.
struct SmallPixels {
  enum class By { norm, contribution } by = By::norm;
  double percentile = 0;
};
void clip_small_pixels(Context& ctx, const SmallPixels& small, ConstView g, View x);

}  // namespace switchback
