// 2-D convolution (cross-correlation, as torch.nn.Conv2d), forward and backward-data, with fused epilogues.
//
//   y[n,o,p,q] = act( bias[o] + residual[n,o,p,q]
//                + sum_{c,r,s} w[o,c,r,s] · x[n, g·C/G + c, p·stride_h + r·dilation_h - pad_top, q·stride_w + …] )
//   dx        = rule( gate, conv_transpose(dy, w) + other )
//
// out = floor((in + pad_begin + pad_end - dilation·(kernel-1) - 1) / stride) + 1 in each direction.
#pragma once

#include <memory>
#include <vector>

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

struct Conv2d {
  int64_t in_channels = 0, out_channels = 0;
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int64_t dilation_h = 1, dilation_w = 1;
  int64_t groups = 1;
  bool has_bias = true;
  bool operator==(const Conv2d&) const = default;
};

// Square kernel, symmetric padding: the usual case.
Conv2d conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel, int64_t stride = 1, int64_t padding = 0,
              int64_t dilation = 1, int64_t groups = 1, bool has_bias = true);

// Shape of y for x; throws where the layer does not fit the input.
Shape output_shape(const Conv2d& conv, Shape x);

// Weights of one convolution, kept once as given and packed once per algorithm that asks for them.
// `weight` is OIHW (I = in_channels / groups), f32, and must outlive this object; `scale` (per output channel, may be
// empty) is folded in while packing, which is how batch norms disappear.
class ConvWeights {
 public:
  ConvWeights(const Conv2d& conv, const float* weight, std::vector<float> bias = {}, std::vector<float> scale = {});
  ~ConvWeights();
  ConvWeights(ConvWeights&&) noexcept;
  ConvWeights& operator=(ConvWeights&&) noexcept;

  // The same weights without the bias under another padding, as changes on patches want them (kernels/patch/patch.h). What is
  // packed of the one is packed of the other too.
  ConvWeights without_bias(const Conv2d& conv) const;

  const Conv2d& conv() const { return conv_; }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }  // [out_channels] or null
  float weight(int64_t o, int64_t i, int64_t r, int64_t s) const {              // with the scale applied
    const float w = weight_[((o * (conv_.in_channels / conv_.groups) + i) * conv_.kernel_h + r) * conv_.kernel_w + s];
    return scale_.empty() ? w : w * scale_[size_t(o)];
  }

  const float* given() const { return weight_; }               // OIHW, on the host
  const std::vector<float>& scale() const { return scale_; }  // by output channel, or empty

  struct Packed;  // per algorithm and precision; filled at first use
  Packed& packed() const { return *packed_; }
  DeviceCache& device() const { return *device_; }  // packed for GPUs (kernels/conv/conv.cuh)

 private:
  Conv2d conv_;
  const float* weight_;
  std::vector<float> bias_, scale_;
  std::shared_ptr<Packed> packed_;
  std::shared_ptr<DeviceCache> device_;
};

// Whether conv2d_forward takes `pool` in its epilogue for this layer on inputs x.
bool conv2d_fuses_pool(Context& ctx, const Conv2d& conv, Shape x, DType dtype, const MaxPool2d& pool);

// x and y have the same element type, f32 or bf16 (GPUs: or f16); sums are f32.
void conv2d_forward(Context& ctx, const ConvWeights& weights, ConstView x, View y, const Epilogue& epilogue = {});

// dy [P,K,P',Q'] -> dx [P,C,H,W]; every element of dx is written.
void conv2d_backward_data(Context& ctx, const ConvWeights& weights, ConstView dy, View dx,
                          const BackwardEpilogue& epilogue = {});

// The algorithm that `ctx` would use, for `info`, `bench` and tests. On the CPU "winograd", "im2col",
// "direct:<oneDNN's name>"; on a GPU "direct", "depthwise", "first", "linear", "gemm_…", "cudnn".
std::string conv2d_algorithm(Context& ctx, const ConvWeights& weights, Shape x, DType dtype, bool backward,
                             bool tf32 = false);

}  // namespace switchback
