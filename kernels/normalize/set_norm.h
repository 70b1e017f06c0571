// Normalisation over sets of an item's values: layer norm (Ba et al. 2016), instance norm (Ulyanov et al. 2016) and group
// norm (Wu and He 2018) differ only in what shares a mean and a variance.
//
//   y = x̂·weight + bias,  x̂ = (x − mean)·r,  r = 1 / sqrt(variance + eps)
//   dx = r·(g − mean(g) − x̂·mean(g·x̂)),  g = dy·weight                          means and the variance (of all, biased) over the set
//
// Statistics are in double, in an order that depends on the shape of one item alone.
#pragma once

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

// A set: `channels` neighbouring channels at `places` consecutive places (in row-major order) of one item. Both divide
// what the item has.
struct NormSets {
  int64_t channels = 1, places = 1;
  float eps = 1e-5f;
};
// The weight of channel c at place p of its set is weight[p·by_place + c·by_channel]; so is the bias. Both f32 on the
// context's device, or null: 1 and 0.
struct NormAffine {
  const float *weight = nullptr, *bias = nullptr;
  int64_t by_place = 0, by_channel = 1;
};

void set_norm_forward(Context& ctx, const NormSets& sets, const NormAffine& affine, ConstView x, View y);
// x: the layer's input of the forward pass (item p / seeds_per_item).
void set_norm_backward(Context& ctx, const NormSets& sets, const NormAffine& affine, ConstView dy, ConstView x, View dx,
                       const BackwardEpilogue& epilogue = {});

// Gradients of weight and bias (f32 data): weight[p·by_place + c·by_channel] += Σ dy·x̂, bias[…] += Σ dy, where p is the place
// in its set and c the channel in its item. An item's sum first, in double, then item after item. Either may be null.
struct NormGradients {
  float *weight = nullptr, *bias = nullptr;
  int64_t by_place = 0, by_channel = 1;
  int64_t count = 0;  // of values of each
};
void set_norm_backward_affine(Context& ctx, const NormSets& sets, ConstView dy, ConstView x, const NormGradients& gradients);

}  // namespace switchback
