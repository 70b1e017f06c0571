// Frozen networks: with its gates and switches fixed, a piecewise-affine network is one affine map of its input
// (Molchanov et al., "Etalon images"). What that needs beside the ordinary ops: the offset of the map, summed up during
// the backward pass; forward passes that obey a tape instead of deciding; and cut-outs of a tape.
#pragma once

#include "kernels/device/context.h"
#include "kernels/pool/pool.h"
#include "kernels/types.h"

namespace switchback {

// One seed's part of b in <W, x> + b: sum of g·bias over all pre-activations, and of |g·bias|, by which rounding errors
// are judged. Sums are in double, in an order that depends on the shape of one item alone.
struct OffsetSum {
  double sum = 0, magnitude = 0;
};

// sums[p] += sum over item p of dy [P,C,H,W] of dy·constant. constant: f32, n = 1, each of c, h, w is dy's or 1 (a bias is
// [1,C,1,1]); sums: [P]; all on the context's device.
void add_constant_offset(Context& ctx, ConstView dy, ConstView constant, OffsetSum* sums);

// What a gated unit adds to scale·x in each state of its gate: a clipped ReLU {0, clip, 0}, min(max(a·x + b, 0), 1)
// {b, 1, 0}.
struct GateConstants {
  float inside = 0, above = 0, below = 0;
};
// The same for gated units: sums[p] += sum of dy·(the constant of the unit's state). dy is the gradient at their output.
// gates, above: the planes of their gates (gates.h), of item p / seeds_per_item; above is null where there is but one.
void add_gate_offset(Context& ctx, ConstView dy, const uint32_t* gates, const uint32_t* above, int64_t seeds_per_item,
                     const GateConstants& constants, OffsetSum* sums);
// y = scale·x + constants.inside where the gate is on, else constants.above or .below. Item p uses the gates of item
// p / items_per_tape_item. y may be x.
void frozen_gates_forward(Context& ctx, ConstView x, const uint32_t* gates, const uint32_t* above, float scale,
                          const GateConstants& constants, int64_t items_per_tape_item, View y);
// y = the input at the place that the switch names; a window without any place inside the input gives 0.
void frozen_max_pool2d_forward(Context& ctx, const MaxPool2d& pool, ConstView x, const void* switches,
                               int64_t items_per_tape_item, View y);

// Cut-out p of `to` [P,height,width] = rows corners[p].row … and columns corners[p].column … of item corners[p].item of
// `from` [N,map_height,map_width]; a pixel is `pixel_bytes` bytes (gate words or switches). Cut-outs lie inside the map.
struct Corner {
  int32_t item = 0, row = 0, column = 0;
};
struct CutOut {
  int64_t map_height = 0, map_width = 0, height = 0, width = 0, pixel_bytes = 0;
};
void cut_out(Context& ctx, const CutOut& shape, const void* from, const Corner* corners, int64_t count, void* to);

}  // namespace switchback
