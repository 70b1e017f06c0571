// Runs an op through every combination of what can be fused behind it and checks values, gates and repeatability.
#pragma once

#include <functional>

#include "kernels/epilogue/epilogue.h"
#include "tests/support/harness.h"
#include "tests/support/reference.h"

namespace switchback::test {

// What is wanted of a result. Without a tolerance: equal to the reference rounded once to the stored type.
struct Accuracy {
  DType dtype = DType::f32;
  std::function<Nchw(const Ref&)> tolerance;  // of the pre-activation, residual included; null: exact
  Zeros zeros = Zeros::few;
  // The op stores its result and the epilogue reads it back: 16-bit types are rounded once more on the way.
  bool stored_before_epilogue = false;
  bool exact() const { return tolerance == nullptr; }
  std::string compare(const Nchw& got, const Ref& want, Zeros zeros) const;
  Ref stored(Ref op) const;  // what the epilogue starts from
};
Accuracy exact(DType dtype);
Accuracy within(DType dtype, double c);  // tolerance(ref, c, dtype)

using ForwardCall = std::function<void(View y, const Epilogue&)>;
using BackwardCall = std::function<void(View dx, const BackwardEpilogue&)>;

// `op`: the reference of the op alone (its bias included). Runs every forward epilogue: {residual} x {no ReLU, ReLU,
// clipped ReLU} x {gates}, each twice.
void check_forward(OpRun& run, const Ref& op, const Accuracy& accuracy, const ForwardCall& call);
// Every backward epilogue: {no other branch, another} x {no ReLU, the three rules} with gates of a batch of n / seeds
// (with a clip's second plane or without), each twice.
void check_backward(OpRun& run, const Ref& op, const Accuracy& accuracy, int64_t seeds, const BackwardCall& call);

// <dy, J v> = <J^T dy, v> up to the two results' tolerances: `y` is J v and `dx` is J^T dy as computed.
std::string check_adjoint(const Nchw& dy, const Nchw& y, const Nchw& y_tolerance, const Nchw& dx, const Nchw& v,
                          const Nchw& dx_tolerance);

// Calls `op(first, count)` for the whole batch, for single items and for 2 + the rest, and wants bit-equal bytes.
// `op` computes items [first, first + count) and returns their bytes.
std::string check_splits(int64_t batch, const std::function<std::vector<uint8_t>(int64_t first, int64_t count)>& op);

// Items [first, first + count) of an activation.
ConstView slice(const Activation& a, int64_t first, int64_t count);

}  // namespace switchback::test
