// Convolution as a register-tiled product, f32, NHWC: for 1x1 convolutions, for the first layers of networks (1 to 4
// channels in, any kernel and stride), which libraries do slowly (oneDNN's 64 -> 3 backward-data reaches a tenth of the
// peak), and for layers too small for a library's start-up cost (LeNet).
//
//   forward:  y[pixel, :] = window[pixel, kh·kw·c] · W[kh·kw·c, k]; windows are read where they lie
//   backward: 1x1: dx[pixel, :] = dy[pixel, :] · W^T[k, c], as forward; else
//             window gradient[pixel, kh·kw·c] = dy[pixel, :] · W^T[k, kh·kw·c], added into dx row by row
#pragma once

#include "kernels/conv/conv.h"

namespace switchback {

// Both: dilation 1, groups 1. `packed` as made by pack_im2col_*.
struct Im2colProblem {
  const Conv2d& conv;
  const float* packed;
  const float* bias;
  ConstView in;  // x, or dy
  View out;      // y, or dx
  const Epilogue* forward = nullptr;
  const BackwardEpilogue* backward = nullptr;  // one of the two
};
constexpr int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }
inline constexpr int64_t kIm2colPanel = 64;  // columns that one product makes
inline bool is_pointwise(const Conv2d& c) {
  return c.kernel_h == 1 && c.kernel_w == 1 && c.stride_h == 1 && c.stride_w == 1 && c.pad_top == 0 && c.pad_left == 0 &&
         c.pad_bottom == 0 && c.pad_right == 0;
}

// Columns are padded with zeros to a multiple of 16; panels of 64 columns lie one behind the other, the last may be
// narrower: [panels][rows][min(64, columns left)].
void pack_im2col_forward(const ConvWeights& weights, float* packed);   // rows kh·kw·c, columns k
void pack_im2col_backward(const ConvWeights& weights, float* packed);  // 1x1: rows k, columns c; else [k][round_up(kh·kw·c, 16)]

void im2col_forward_avx2(Context& ctx, const Im2colProblem& problem);
void im2col_forward_avx512(Context& ctx, const Im2colProblem& problem);
void im2col_backward_avx2(Context& ctx, const Im2colProblem& problem);
void im2col_backward_avx512(Context& ctx, const Im2colProblem& problem);

}  // namespace switchback
