// Layers that only move an item's elements: Reshape and Permute. What is meant is the order of NCHW, as files and users
// see it; activations lie NHWC, so nearly every reshape moves something.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

// torch.Tensor.reshape(n, c, h, w): one of c, h, w may be -1, what the others leave.
struct Reshape {
  int64_t c = -1, h = 1, w = 1;
  bool operator==(const Reshape&) const = default;
};

// torch.permute(x, (0, axes…)): axis i of the result is axis axes[i] of x; 1 is channels, 2 rows, 3 columns.
struct Permute {
  std::array<int64_t, 3> axes = {1, 2, 3};
  bool operator==(const Permute&) const = default;
};

Shape output_shape(const Reshape& reshape, Shape x);
Shape output_shape(const Permute& permute, Shape x);

// One of these layers at one size of input.
struct Rearrangement {
  Rearrangement(const Reshape& reshape, Shape x);
  Rearrangement(const Permute& permute, Shape x);

  // Where the elements of a tensor come from: element (i, j, k), counted in the sizes `size`, is element
  // i·stride[0] + j·stride[1] + k·stride[2] of the other one, both in CHW order.
  struct Map {
    std::array<int64_t, 3> size, stride;
  };
  Shape in, out;          // n is 1
  Map forward, backward;  // from where y takes x's, and dx takes dy's
};

void rearrange_forward(Context& ctx, const Rearrangement& how, ConstView x, View y);
void rearrange_backward(Context& ctx, const Rearrangement& how, ConstView dy, View dx,
                        const BackwardEpilogue& epilogue = {});

}  // namespace switchback
