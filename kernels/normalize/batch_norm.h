// Batch norm in training (Ioffe and Szegedy 2015), and sums over the batch for gradients of what belongs to a channel.
//
//   y = x̂·weight + bias,  x̂ = (x − mean)·r,  r = 1 / sqrt(variance + eps)      over all items and places of a channel
//   dx = weight·r·(dy − mean(dy) − x̂·mean(dy·x̂))
//
// Sums are in double, an item's first and then item after item: they do not depend on threads. All f32; arrays are the
// context's device's.
#pragma once

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

// Of every channel of x: moments [3,c] = mean, variance (biased), r.
void batch_norm_moments(Context& ctx, ConstView x, float eps, float* moments);
// affine [2,c] = weight·r, bias − mean·weight·r: y by channel_affine_forward.
void batch_norm_affine(Context& ctx, int64_t channels, const float* moments, const float* weight, const float* bias,
                       float* affine);
// sums [2,c] = Σ dy, Σ dy·x̂: the gradients of bias and weight. Without x (null data): Σ dy alone, [c]. Not added to what
// is there.
void channel_sums(Context& ctx, ConstView dy, ConstView x, const float* moments, float* sums);
// dx = rule(gate, the above + other), with sums as channel_sums makes them.
void batch_norm_backward(Context& ctx, ConstView dy, ConstView x, const float* moments, const float* sums,
                         const float* weight, View dx, const BackwardEpilogue& epilogue = {});
// running [c] becomes (1 − momentum)·running + momentum·factor·of_batch.
void update_running(Context& ctx, int64_t channels, float momentum, float factor, const float* of_batch, float* running);

// The gradient of biases: sums[c] += Σ dy over an item's places, item after item, so that it does not matter how a batch
// is split over several calls.
void add_channel_sums(Context& ctx, ConstView dy, float* sums);
// That of a PReLU's slopes, one for all channels or one for each: slopes[c] += Σ dy·min(x, 0), likewise.
void add_slope_gradients(Context& ctx, ConstView dy, ConstView x, int64_t count, float* slopes);

}  // namespace switchback
