// Functions of two operands that are broadcast against each other: any of an operand's n, c, h, w may be 1 where the
// result has more (NumPy's rule). Squeeze-and-excitation (Hu et al. 2018) multiplies a map [N,C,H,W] with [N,C,1,1];
// constants are operands with n = 1.
#pragma once

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

// Besides arithmetic:
//   max, min               as torch.maximum: NaN where one is NaN; the gradient goes to the one taken, at a tie to both by halves
//   where, where_not       a where b is not 0 (NaN is not), or is 0; 0 elsewhere, whatever a is there. Their sum chooses of two
//   greater, greater_equal, equal    1 or 0, as IEEE compares
// No gradient goes to what is compared, nor to the b that a choice is made by.
enum class BinaryFunction { add, sub, mul, div, max, min, where, where_not, greater, greater_equal, equal };
struct Binary {
  BinaryFunction function = BinaryFunction::mul;
  bool operator==(const Binary&) const = default;
};

// The result's shape; throws where two sizes differ and neither is 1.
Shape broadcast(const Binary& binary, Shape a, Shape b);

// Whether the gradient for `operand` (0: a, 1: b) needs the value of a, of b.
struct Needs {
  bool a, b;
};
Needs needs(const Binary& binary, int operand);

// y = act(a ∘ b + residual). a and b have y's element type, or are f32.
void binary_forward(Context& ctx, const Binary& binary, ConstView a, ConstView b, View y, const Epilogue& epilogue = {});
// dx = rule(gate, sum of dy·∂y/∂operand over the places that the operand was broadcast to + other). dx has the operand's
// shape and dy's n; a and b are values of the forward pass (item p / seeds_per_item, or of n = 1: constants), and one that
// is not needed may have null data but must have its shape.
void binary_backward(Context& ctx, const Binary& binary, int operand, ConstView dy, ConstView a, ConstView b, View dx,
                     const BackwardEpilogue& epilogue = {});

}  // namespace switchback
