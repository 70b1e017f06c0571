// Transposed 2-D convolution (torch.nn.ConvTranspose2d): the backward-data pass of a convolution run forward. That
// convolution, its mirror, maps y to x, has the same weights, and its own forward pass is this layer's backward.
//
//   y[n, g·O/G + o, p·stride_h + r·dilation_h - pad_top, …] += w[i,o,r,s] · x[n,i,p,q];  then bias, residual, ReLU
//
// out = (in - 1)·stride - pad_begin - pad_end + dilation·(kernel - 1) + 1 + output_pad in each direction. w is
// [in, out / groups, kernel_h, kernel_w], as PyTorch and ONNX have it.
#pragma once

#include <vector>

#include "kernels/conv/conv.h"

namespace switchback {

struct ConvTranspose2d {
  int64_t in_channels = 0, out_channels = 0;
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int64_t output_pad_h = 0, output_pad_w = 0;  // rows and columns more at the bottom and right, below the stride
  int64_t dilation_h = 1, dilation_w = 1;
  int64_t groups = 1;
  bool has_bias = true;
  bool operator==(const ConvTranspose2d&) const = default;
};

// Square kernel, symmetric padding: the usual case.
ConvTranspose2d conv_transpose2d(int64_t in_channels, int64_t out_channels, int64_t kernel, int64_t stride = 1,
                                 int64_t padding = 0, int64_t output_padding = 0, int64_t groups = 1,
                                 bool has_bias = true);

// Shape of y for x; throws where the layer does not fit the input.
Shape output_shape(const ConvTranspose2d& conv, Shape x);

// The convolution from y to x (without a bias).
Conv2d mirror_of(const ConvTranspose2d& conv);

// Weights of one transposed convolution. `weight` ([in, out / groups, kernel_h, kernel_w], f32) must outlive this object;
// `scale` (per output channel, may be empty) is multiplied in: folded batch norms.
class ConvTransposeWeights {
 public:
  ConvTransposeWeights(const ConvTranspose2d& conv, const float* weight, const std::vector<float>& bias = {},
                       const std::vector<float>& scale = {});

  // As ConvWeights::without_bias; this object must outlive the result.
  ConvTransposeWeights without_bias(const ConvTranspose2d& conv) const;

  const ConvTranspose2d& conv() const { return conv_; }
  const ConvWeights& mirror() const { return mirror_; }
  bool bias() const { return !ones_and_bias_.empty(); }
  // [2, out_channels]: ones, then the bias, where ctx's kernels can read them.
  const float* ones_and_bias_on(Context& ctx) const;

 private:
  ConvTransposeWeights(const ConvTranspose2d& conv, ConvWeights mirror) : conv_(conv), mirror_(std::move(mirror)) {}
  ConvTranspose2d conv_;
  std::vector<float> scaled_;  // the weights with the scale, where there is one
  std::vector<float> ones_and_bias_;
  ConvWeights mirror_;
  std::shared_ptr<DeviceCache> device_ = std::make_shared<DeviceCache>();
};

// x and y have the same element type, f32 or bf16 (GPUs: or f16). 16-bit results are rounded once more before the bias.
void conv_transpose2d_forward(Context& ctx, const ConvTransposeWeights& weights, ConstView x, View y,
                              const Epilogue& epilogue = {});
void conv_transpose2d_backward_data(Context& ctx, const ConvTransposeWeights& weights, ConstView dy, View dx,
                                    const BackwardEpilogue& epilogue = {});

}  // namespace switchback
