// Inside of Plan and Backward: fused steps, packed weights, and the layout of an arena.
#pragma once

#include <limits>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "engine/run/plan.h"

namespace switchback {

inline constexpr size_t kNowhere = std::numeric_limits<size_t>::max();

// One kernel call of the forward pass: value(output) = relu( bn( op(inputs) ) + residual ), each part optional.
struct Step {
  int node;                 // the op that runs; for a ReLU that stands alone, the ReLU
  int output;               // the last node of the group, whose value this is
  std::vector<int> inputs;  // nodes whose values the op reads
  int batch_norm = -1;      // folded into a convolution
  int residual = -1;        // node whose value is added before the ReLU
  int relu = -1;            // ReLU node, whose gates are stored
  float clip = kNoClip;
  // A max pool that the convolution's kernel does as well (forward only; backward sees two steps as ever): the step of
  // the convolution knows that the next one is done with it, and that one that it is not to run.
  bool with_next_pool = false, done_with_previous = false;
};

// y = scale·x + shift for each channel.
struct AffineWeights {
  std::vector<float> scale, shift;
  mutable DeviceCache device;
  const float* scale_on(Context& ctx) const;  // where ctx's kernels can read them
  const float* shift_on(Context& ctx) const;
};

// Values that kernels read: slopes, constants.
struct DeviceArray {
  std::vector<float> values;
  mutable DeviceCache device;
  const float* on(Context& ctx) const;
};

// What a step adds to its op's result, the same for all items: biases, shifts of batch norms, constants.
struct StepShift {
  DeviceArray array;  // NHWC; empty: nothing is added
  Shape shape;        // n = 1; each of c, h, w is the result's or 1
};

// The planes of a gate slot on `tape` (kernels/types.h): `above` is null where the unit has no upper limit.
struct GatePlanes {
  const uint32_t *gates, *above;
};
GatePlanes gate_planes(const Tape& tape, int node);

// What a layer that clips adds to scale·x in each state of its gate.
inline GateConstants gate_constants(const Ramp& r) { return {.inside = r.shift, .above = r.max, .below = r.min}; }

// Weights in the form that kernels take, made when a plan first needs them.
struct PackedWeights {
  std::map<std::pair<int, int>, ConvWeights> convs;  // (conv node, folded batch norm node or -1)
  std::map<std::pair<int, int>, ConvTransposeWeights> conv_transposes;  // likewise
  std::map<std::tuple<int, int64_t, int64_t>, ConvWeights> map_linears;  // (linear node, height, width of its input)
  std::map<int, LinearWeights> linears;
  std::map<int, AffineWeights> affines;  // by batch norm node
  std::map<std::tuple<int, int, int64_t, int64_t>, StepShift> shifts;  // (node, batch norm or -1, height, width)
  std::map<int, DeviceArray> arrays;  // by PReLU or BinaryConstant node
  std::map<std::tuple<int, int64_t, int64_t, int64_t>, Resampling> resamplings;  // (node, channels, height, width)
};
PackedWeights& packed_weights(const Network& network);
const ConvWeights& packed_conv(const Network& network, const Step& step);
const LinearWeights& packed_linear(const Network& network, int node);
// A linear layer that reads a map [c,h,w] where it lies (NHWC), without the flatten before it: a convolution whose kernel
// covers the map, since the columns of its weight are in CHW order.
const ConvWeights& packed_map_linear(const Network& network, int node, Shape map);
const AffineWeights& packed_affine(const Network& network, int node);
const ConvTransposeWeights& packed_conv_transpose(const Network& network, const Step& step);
Slopes packed_slopes(Context& ctx, const Network& network, int node);  // of a PReLU
ConstView packed_constant(Context& ctx, const Network& network, int node);  // of a BinaryConstant: f32, n = 1
// The tables of a Resize, Pad, Slice or ChannelShuffle.
const Resampling& packed_resampling(const Network& network, int node, Shape in);
// Whether the gradient of a product or quotient needs its operands' values.
inline bool keeps_operands(const Binary& l) {
  const Needs first = needs(l, 0), second = needs(l, 1);
  return first.a || first.b || second.a || second.b;
}
inline bool keeps_operand(const BinaryConstant& l) {  // of the operand that is no constant
  const Needs own = needs({l.function}, l.reversed ? 1 : 0);
  return l.reversed ? own.b : own.a;
}
// Where a Binary's second operand lies on the tape: behind the first one, of shape `first`.
inline size_t second_operand(Shape first, DType type) { return (size_t(first.count()) * size_of(type) + 63) / 64 * 64; }
// Null where a step adds nothing. `in`: the shape of its first input.
const StepShift* packed_shift(const Network& network, const Step& step, Shape in);

// Offsets for buffers with lifetimes [first, last] (inclusive, in steps): largest first, each at the lowest place that
// is free while it lives. Returns the size of the whole.
struct Lifetime {
  size_t bytes = 0;
  int first = 0, last = 0;
};
size_t place(std::span<const Lifetime> buffers, std::vector<size_t>& offsets);

// For each node, the one that holds its value: dropout and flatten of 1x1 maps have none of their own. With `maps_to_linear`
// neither has a flatten that only linear layers read (they then read the map itself) and that nobody observes.
std::vector<int> holders(const Network& network, const std::vector<Shape>& shapes, const std::vector<int>& observe,
                         bool maps_to_linear);

}  // namespace switchback
