// Element-wise ops: ReLU with gates, the rule on the way back, sums of branches, batch norm (unfolded), layout changes.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

// y = min(max(x, 0), clip); NaN passes through. y may be x. `residual` of the epilogue is added first.
void relu_forward(Context& ctx, ConstView x, View y, const Epilogue& epilogue);
// dx = rule(gate, dy + other); dx may be dy. Without a ReLU in the epilogue this is a plain sum of two branches.
void combine_backward(Context& ctx, ConstView dy, View dx, const BackwardEpilogue& epilogue);
// y = a + b.
void add_forward(Context& ctx, ConstView a, ConstView b, View y, const Epilogue& epilogue = {});

// y[n,c,h,w] = scale[c]·x[n,c,h,w] + shift[c]; scale, shift: [c], f32. A null shift is zero; with `other`/rule this is
// also its backward (dx = rule(gate, scale·dy + other)).
void channel_affine_forward(Context& ctx, ConstView x, const float* scale, const float* shift, View y,
                            const Epilogue& epilogue = {});
void channel_affine_backward(Context& ctx, ConstView dy, const float* scale, View dx,
                             const BackwardEpilogue& epilogue = {});

// Between the engine's NHWC activations and the user's NCHW f32 arrays; both on the context's device.
void nhwc_to_nchw(Context& ctx, ConstView x, float* y);
void nchw_to_nhwc(Context& ctx, const float* x, View y);
// Flatten as torch.flatten(x, 1): features in CHW order. x [n,c,h,w] -> y [n, c·h·w, 1, 1], same type.
void flatten_forward(Context& ctx, ConstView x, View y);
void flatten_backward(Context& ctx, ConstView dy, View dx, const BackwardEpilogue& epilogue = {});

// Concatenation along channels: x becomes channels `channel`, `channel` + 1, … of every pixel of y; other channels of y stay.
// On GPUs convolutions and max pools write there themselves (Epilogue::pitch).
void concat_forward(Context& ctx, ConstView x, View y, int64_t channel);
// dx = rule(gate, those channels of dy + other).
void concat_backward(Context& ctx, ConstView dy, int64_t channel, View dx, const BackwardEpilogue& epilogue = {});

// Sets all of `seed` to zero but seed[p, channel[p], row[p], col[p]] = 1; row -1: the whole channel is 1 (the sum over
// its positions is what is differentiated). `units` is on the host, one for each item.
struct SeedUnit {
  int64_t channel = 0, row = -1, col = -1;
};
void one_hot(Context& ctx, View seed, const std::vector<SeedUnit>& units);

}  // namespace switchback
