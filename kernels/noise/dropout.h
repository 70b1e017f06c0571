// Dropout in training (Srivastava et al. 2014; torch.nn.Dropout, and Dropout2d: whole channels), by counter:
//
//   y = keep ? x / (1 − rate) : 0,   keep: u >= rate,  u = (word e % 4 of the Philox block (e / 4, step, node, item) >> 8)·2^-24
//
// e: the element's place in its item as it lies, (h·W + w)·C + c, or for whole channels c. The key is the seed. So what is
// dropped depends neither on threads nor on how a batch is split.
#pragma once

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

struct DropoutDraw {
  float rate = 0.5f;
  bool channels = false;
  uint64_t seed = 0;
  uint32_t step = 0, node = 0, first_item = 0;  // of the view's items in the batch
};
void dropout_forward(Context& ctx, const DropoutDraw& draw, ConstView x, View y);
// dx = rule(gate, dy·keep / (1 − rate) + other).
void dropout_backward(Context& ctx, const DropoutDraw& draw, ConstView dy, View dx, const BackwardEpilogue& epilogue = {});

}  // namespace switchback
