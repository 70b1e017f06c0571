// Local response normalisation (Krizhevsky et al. 2012, as torch.nn.LocalResponseNorm) and softmax: the smooth layers,
// whose derivative needs values kept on the tape.
#pragma once

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

// y_c = x_c / d_c^beta, d_c = k + alpha/size · sum_{c' in window of `size` channels around c} x_c'^2
// (the window reaches size/2 channels back and (size-1)/2 forward).
struct LocalResponseNorm {
  int64_t size = 5;
  float alpha = 1e-4f, beta = 0.75f, k = 1.f;
  bool operator==(const LocalResponseNorm&) const = default;
};
void lrn_forward(Context& ctx, const LocalResponseNorm& lrn, ConstView x, View y);
// x: the layer's input of the forward pass (item p / seeds_per_item).
void lrn_backward(Context& ctx, const LocalResponseNorm& lrn, ConstView dy, ConstView x, View dx,
                  const BackwardEpilogue& epilogue = {});

// Over the channels of every pixel.
void softmax_forward(Context& ctx, ConstView x, View y);
// dx = y·(dy − <dy, y>); y: the output of the forward pass (item p / seeds_per_item).
void softmax_backward(Context& ctx, ConstView dy, ConstView y, View dx, const BackwardEpilogue& epilogue = {});

}  // namespace switchback
