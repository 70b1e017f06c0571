// Convolution by im2col and a register-tiled product, f32, NHWC: for the first layers of networks (1 to 4 channels in,
// any kernel and stride), which libraries do slowly (oneDNN's 64 -> 3 backward-data reaches a tenth of the peak), and for
// layers too small for a library's start-up cost (LeNet).
//
//   forward:  y[pixel, :] = patch[pixel, kh·kw·c] · W[kh·kw·c, k]
//   backward: patch gradient[pixel, kh·kw·c] = dy[pixel, :] · W^T[k, kh·kw·c], added into dx row by row
#pragma once

#include "kernels/conv.h"

namespace switchback {

// Both: dilation 1, groups 1. `packed` as made by pack_im2col_*, columns padded with zeros to a multiple of 16.
struct Im2colProblem {
  const Conv2d& conv;
  const float* packed;
  const float* bias;
  ConstView in;  // x, or dy
  View out;      // y, or dx
  const Epilogue* forward = nullptr;
};
constexpr int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }
void pack_im2col_forward(const ConvWeights& weights, float* packed);   // [kh·kw·c][round_up(k, 16)]
void pack_im2col_backward(const ConvWeights& weights, float* packed);  // [k][round_up(kh·kw·c, 16)]

void im2col_forward_avx2(Context& ctx, const Im2colProblem& problem);
void im2col_forward_avx512(Context& ctx, const Im2colProblem& problem);
// Writes conv_transpose(dy, w) only; the caller applies the epilogue.
void im2col_backward_avx2(Context& ctx, const Im2colProblem& problem);
void im2col_backward_avx512(Context& ctx, const Im2colProblem& problem);

}  // namespace switchback
