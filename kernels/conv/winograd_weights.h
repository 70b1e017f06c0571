// The gradient of the weights of a 3x3 convolution of stride 1 by Winograd's F(4x4, 3x3), whose algorithm (winograd.h)
// is linear in the weights: transposing it gives
//
//   dw += G^T [ Σ_tiles (A dy A^T) ⊙ (B^T x B) ] G
//
// 36 products for a tile of 16 outputs instead of 144. The sum over the tiles of one item is made first, turned into a
// 3x3 kernel and added to dw, item after item: neither the batch's split nor threads show. Where the batch comes whole,
// sums run through as many items as there is room for: turning them takes as long as the products of twenty tiles. The
// error is about 1e-6 of the gradient.
#pragma once

#include <cstdint>

#include "kernels/conv/conv.h"
#include "kernels/device/context.h"

namespace switchback {

struct WinogradWeightsProblem {
  const float* x;  // [n, h, w, c]
  int64_t n, h, w, c;
  const float* dy;  // [n, p, q, k]
  int64_t p, q, k;
  int64_t pad_top, pad_left;
  float* dw;   // [k, c, 3, 3]
  bool whole;  // the items are a whole batch
  int64_t tiles_y() const { return (p + 3) / 4; }
  int64_t tiles_x() const { return (q + 3) / 4; }
  int64_t tiles() const { return tiles_y() * tiles_x(); }  // of an item
};

// conv2d_backward_weights (conv_backward_weights.h), but for batches that never are split over calls.
void conv2d_backward_weights_whole(Context& ctx, const Conv2d& conv, ConstView x, ConstView dy, float* dw);

// c and k must be multiples of 16.
void winograd_weights_avx2(Context& ctx, const WinogradWeightsProblem& problem);
void winograd_weights_avx512(Context& ctx, const WinogradWeightsProblem& problem);

}  // namespace switchback
