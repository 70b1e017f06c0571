// Means and sums over channels, rows or columns (torch.mean with keepdim): the reduced sizes become 1.
#pragma once

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

struct Reduce {
  bool c = false, h = false, w = false;  // what is reduced
  bool mean = true;                      // else the sum
  bool operator==(const Reduce&) const = default;
};

Shape output_shape(const Reduce& reduce, Shape x);
float factor_of(const Reduce& reduce, Shape x);  // that the sum is multiplied with

void reduce_forward(Context& ctx, const Reduce& reduce, ConstView x, View y);
void reduce_backward(Context& ctx, const Reduce& reduce, ConstView dy, View dx, const BackwardEpilogue& epilogue = {});

}  // namespace switchback
