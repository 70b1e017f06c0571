// Convolution as a register-tiled product of windows and weights, f32, NHWC, of any layer. It serves 1x1 convolutions, the
// first layers of networks (1 to 4 channels in, any kernel and stride), which libraries do slowly (oneDNN's 64 -> 3
// backward-data reaches a tenth of the peak), layers too small for a library's start-up cost (LeNet), and layers that
// oneDNN has no direct kernel for (on AVX2 wide dilations and groups of four channels).
//
//   windows: out[pixel, group's columns] = window[pixel, taps·depth] · W[group][taps·depth, columns], forward with depth c/G
//            and columns k/G, backward with the taps flipped, depth k/G and columns c/G
//   patches: backward of few channels: window gradient[pixel, kh·kw·c] = dy[pixel, :] · W^T[k, kh·kw·c], added into dx row
//            by row; dilation 1, groups 1
#pragma once

#include "kernels/conv/conv.h"

namespace switchback {

constexpr int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }
inline bool is_pointwise(const Conv2d& c) {
  return c.kernel_h == 1 && c.kernel_w == 1 && c.stride_h == 1 && c.stride_w == 1 && c.pad_top == 0 && c.pad_left == 0 &&
         c.pad_bottom == 0 && c.pad_right == 0;
}

// Packed weights: [group][panels][taps·depth][columns of the panel]. Panels are as wide as a register tile, the last of a
// group may be narrower: its columns, with zeros up to a whole vector. Patches: [k][round_up(kh·kw·c, 16)].
struct PanelWidth {
  int64_t panel, vector;
};
inline constexpr PanelWidth kPanelAvx2{16, 8}, kPanelAvx512{64, 16};

enum class Im2col { forward, backward, patches };  // backward: by windows

// Makes dense f32 results, or bf16 ones (windows only), which go through f32.
void im2col_forward(Context& ctx, const ConvWeights& weights, const float* packed, ConstView x, View y, const Epilogue& epilogue);
void im2col_backward(Context& ctx, const ConvWeights& weights, Im2col way, const float* packed, ConstView dy, View dx,
                     const BackwardEpilogue& epilogue);
std::vector<float> pack_im2col(const ConvWeights& weights, Im2col way);

// One problem for one instruction set.
struct Im2colProblem {
  const Conv2d& conv;
  const float* packed;
  const float* bias;
  ConstView in;  // x, or dy; f32
  View out;      // y, or dx
  const Epilogue* forward = nullptr;
  const BackwardEpilogue* backward = nullptr;  // one of the two
};
void im2col_windows_avx2(Context& ctx, const Im2colProblem& problem);
void im2col_windows_avx512(Context& ctx, const Im2colProblem& problem);
void im2col_patches_avx2(Context& ctx, const Im2colProblem& problem);
void im2col_patches_avx512(Context& ctx, const Im2colProblem& problem);

}  // namespace switchback
