// Softmax attention (Vaswani et al. 2017, equation 1), for every group (a head, or a window's head) of an item:
//
//   s = scale·q·kᵀ + bias      [T,S], T queries and S keys of d numbers
//   p = softmax of s over the keys
//   y = p·v                    [T,e]
//
// and with g = dy·vᵀ: dv = pᵀ·dy, ds = p·(g − Σ_keys p·g), dq = scale·ds·k, dk = scale·dsᵀ·q.
//
// Scores are not stored: the CPU has those of some queries of one group at a time, a GPU's block those of one query or key.
// They are computed anew on the way back. As maps, numbers are channels, groups rows, queries and keys columns: q [n,d,G,T],
// k [n,d,G,S], v [n,e,G,S], y [n,e,G,T].
#pragma once

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

struct AttentionScores {
  float scale = 1;
  const float* bias = nullptr;  // [bias_groups,T,S], f32 on the context's device, or null; group g of an item has g % bias_groups
  int64_t bias_groups = 1;
};
// Throws where they do not fit.
Shape attention_shape(Shape q, Shape k, Shape v);

void attention_forward(Context& ctx, const AttentionScores& scores, ConstView q, ConstView k, ConstView v, View y);
// The gradient of operand 0 (q), 1 (k) or 2 (v). q, k, v: the layer's inputs of the forward pass (item p / seeds_per_item).
void attention_backward(Context& ctx, const AttentionScores& scores, int operand, ConstView dy, ConstView q, ConstView k,
                        ConstView v, View dx, const BackwardEpilogue& epilogue = {});

}  // namespace switchback
