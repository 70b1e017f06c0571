// Transpose: the axes of an item in another order, as memory has them. Activations lie NHWC, so tokens [T,C] are a map of
// C channels and T places, and reshapes of them move nothing; what is left of attention's heads, of windows and of pixel
// shuffles are transposes.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

// An item of x, in the order of memory (h, w, c), is an array of `sizes`; axis i of the result is its axis axes[i]
// (numpy.transpose). The result, in the order of memory, is a map of c, h, w. Up to six axes, once those that stay beside
// each other count as one. The identity gives the same elements another shape.
struct Transpose {
  std::vector<int64_t> sizes, axes;
  int64_t c = 0, h = 1, w = 1;
  bool operator==(const Transpose&) const = default;
};

Shape output_shape(const Transpose& transpose, Shape x);  // throws where it does not fit
Transpose inverse(const Transpose& transpose, Shape x);   // from the result back to x

// Element e of a result is digits of e in `size`, weighed with `stride`, of the other tensor. `run` elements and more lie
// side by side in both.
struct TransposedFrom {
  static constexpr int kMost = 6;
  int axes = 0;
  std::array<int32_t, kMost> size = {}, stride = {};
  int32_t run = 1;
};
TransposedFrom transposed_from(const Transpose& transpose);

void transpose_forward(Context& ctx, const Transpose& transpose, ConstView x, View y);
void transpose_backward(Context& ctx, const Transpose& transpose, ConstView dy, View dx, const BackwardEpilogue& epilogue = {});

}  // namespace switchback
