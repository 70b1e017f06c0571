// Products of matrices, one for every group of an item: y[g] = a[g]·b[g], with a [M,K], b [K,N] and y [M,N]. As maps the
// columns are channels, the groups rows and a matrix's rows columns: a [n, K, G, M], b [n, N, G, K], y [n, N, G, M].
#pragma once

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

struct MatMul {  // torch.matmul of two values
  bool operator==(const MatMul&) const = default;
};
Shape output_shape(const MatMul& matmul, Shape a, Shape b);  // throws where they do not fit

void matmul_forward(Context& ctx, ConstView a, ConstView b, View y);
// The gradient of operand 0, dy·bᵀ, or 1, aᵀ·dy. a, b: the layer's inputs of the forward pass (item p / seeds_per_item).
void matmul_backward(Context& ctx, int operand, ConstView dy, ConstView a, ConstView b, View dx,
                     const BackwardEpilogue& epilogue = {});

}  // namespace switchback
