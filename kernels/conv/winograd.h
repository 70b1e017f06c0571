// Winograd convolution F(4x4, 3x3) for stride 1 (Lavin & Gray, "Fast algorithms for convolutional neural networks",
// 2016), f32, NHWC, in both directions: 4x4 outputs from 6x6 inputs take 36 products instead of 144.
//
//   y = A^T [ (G w G^T) ⊙ (B^T x B) ] A        interpolation points 0, ±5/8, ±3/2, ∞: exact in binary, and at half
//                                              the rounding error of the textbook's 0, ±1, ±2, ∞
//
// For every block of tiles: V = B^T x B for all channels, then for every 64 output channels 36 small matrix products
// M = V·U and the output transform with the whole epilogue. U = G w G^T is made anew in every call: at 4 times the
// weights it would be 640 MB for VGG19 in both directions, and making it costs 2 % of using it on a batch.
#pragma once

#include <cstdint>

#include "kernels/conv/conv.h"
#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"

namespace switchback {

inline constexpr int64_t kWinogradBlock = 16;  // channels are blocked by 16 in the packed weights

// 3x3, stride 1, channels in blocks, fp32.
bool winograd_fits(const Conv2d& conv, DType dtype);

// Weights, OIHW as they are given, with a scale for each output channel; or packed: [O/16][C/16][3·3][16 c][16 o].
struct WinogradWeights {
  const float* given;
  const float* scale;   // [O] or null
  const float* packed;  // or null: then each block of 16 c and 16 o is turned round whenever it is used
  int64_t o, c;
};

struct WinogradProblem {
  const float* x;  // [n, h, w, c]
  int64_t n, h, w, c;
  float* y;  // [n, p, q, k]
  int64_t p, q, k;
  int64_t pad_top, pad_left;
  WinogradWeights weights;
  bool transposed;  // backward-data: c runs over O, k over C, and taps are flipped
  const float* bias = nullptr;
  const Epilogue* forward = nullptr;           // one of the two
  const BackwardEpilogue* backward = nullptr;
};

// Both need c and k to be multiples of 16. avx512 where the processor has it.
void winograd_avx2(Context& ctx, const WinogradProblem& problem);
void winograd_avx512(Context& ctx, const WinogradProblem& problem);

}  // namespace switchback
