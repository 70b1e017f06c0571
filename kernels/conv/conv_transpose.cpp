#include "kernels/conv/conv_transpose.h"

#include "kernels/pointwise/pointwise.h"
#include "kernels/sliding.h"
#include "kernels/view_check.h"

namespace switchback {
namespace {

// [in, out / groups, taps] with every output channel scaled.
std::vector<float> scaled_weights(const ConvTranspose2d& c, const float* weight, const std::vector<float>& scale) {
  if (scale.empty()) return {};
  const int64_t group_out = c.out_channels / c.groups, group_in = c.in_channels / c.groups;
  const int64_t taps = c.kernel_h * c.kernel_w;
  std::vector<float> all(size_t(c.in_channels * group_out * taps));
  for (int64_t i = 0; i < c.in_channels; ++i)
    for (int64_t o = 0; o < group_out; ++o)
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t at = (i * group_out + o) * taps + t;
        all[size_t(at)] = weight[at] * scale[size_t(i / group_in * group_out + o)];
      }
  return all;
}

// Ones and the bias, as the pass behind the convolution wants them.
std::vector<float> ones_and_bias(const std::vector<float>& bias) {
  std::vector<float> both(bias.size(), 1.f);
  both.insert(both.end(), bias.begin(), bias.end());
  return both;
}

void check_views(const char* op, const ConvTranspose2d& conv, ConstView x, ConstView y) {
  check_view(op, "the output", y, output_shape(conv, x.shape), x.dtype);
}

}  // namespace

ConvTranspose2d conv_transpose2d(int64_t in_channels, int64_t out_channels, int64_t kernel, int64_t stride,
                                 int64_t padding, int64_t output_padding, int64_t groups, bool has_bias) {
  return {.in_channels = in_channels, .out_channels = out_channels, .kernel_h = kernel, .kernel_w = kernel,
          .stride_h = stride, .stride_w = stride, .pad_top = padding, .pad_left = padding, .pad_bottom = padding,
          .pad_right = padding, .output_pad_h = output_padding, .output_pad_w = output_padding, .groups = groups,
          .has_bias = has_bias};
}

Shape output_shape(const ConvTranspose2d& c, Shape x) {
  CHECK(c.in_channels > 0 && c.out_channels > 0 && c.groups > 0 && c.in_channels % c.groups == 0 &&
            c.out_channels % c.groups == 0,
        "transposed convolution: {} -> {} channels do not divide into {} groups", c.in_channels, c.out_channels, c.groups);
  CHECK(c.kernel_h > 0 && c.kernel_w > 0 && c.stride_h > 0 && c.stride_w > 0 && c.dilation_h > 0 && c.dilation_w > 0 &&
            c.pad_top >= 0 && c.pad_left >= 0 && c.pad_bottom >= 0 && c.pad_right >= 0,
        "transposed convolution: kernel {}x{}, stride {}x{}, dilation {}x{} must be positive and padding not negative",
        c.kernel_h, c.kernel_w, c.stride_h, c.stride_w, c.dilation_h, c.dilation_w);
  CHECK(c.output_pad_h >= 0 && c.output_pad_h < c.stride_h && c.output_pad_w >= 0 && c.output_pad_w < c.stride_w,
        "transposed convolution: output padding {}x{} must be smaller than the stride {}x{}", c.output_pad_h,
        c.output_pad_w, c.stride_h, c.stride_w);
  CHECK(x.c == c.in_channels, "transposed convolution: input has {} channels, weights expect {}", x.c, c.in_channels);
  const Shape y{x.n, c.out_channels,
                sliding_rows(c).transposed_outputs(x.h, c.pad_bottom, c.output_pad_h),
                sliding_columns(c).transposed_outputs(x.w, c.pad_right, c.output_pad_w)};
  CHECK(y.h > 0 && y.w > 0, "transposed convolution: padding leaves nothing of the output ({}x{})", y.h, y.w);
  return y;
}

Conv2d mirror_of(const ConvTranspose2d& c) {
  return {.in_channels = c.out_channels, .out_channels = c.in_channels, .kernel_h = c.kernel_h, .kernel_w = c.kernel_w,
          .stride_h = c.stride_h, .stride_w = c.stride_w, .pad_top = c.pad_top, .pad_left = c.pad_left,
          .pad_bottom = c.pad_bottom, .pad_right = c.pad_right, .dilation_h = c.dilation_h, .dilation_w = c.dilation_w,
          .groups = c.groups, .has_bias = false};
}

ConvTransposeWeights::ConvTransposeWeights(const ConvTranspose2d& conv, const float* weight,
                                           const std::vector<float>& bias, const std::vector<float>& scale)
    : conv_(conv), scaled_(scaled_weights(conv, weight, scale)), ones_and_bias_(ones_and_bias(bias)),
      mirror_(mirror_of(conv), scaled_.empty() ? weight : scaled_.data()) {}

ConvTransposeWeights ConvTransposeWeights::without_bias(const ConvTranspose2d& conv) const {
  return {conv, mirror_.without_bias(mirror_of(conv))};
}

const float* ConvTransposeWeights::ones_and_bias_on(Context& ctx) const {
  if (!ctx.gpu) return ones_and_bias_.data();
  return static_cast<const float*>(device_->get(ctx, 0, [&] {
    const char* p = reinterpret_cast<const char*>(ones_and_bias_.data());
    return std::vector<char>(p, p + ones_and_bias_.size() * sizeof(float));
  }));
}

void conv_transpose2d_forward(Context& ctx, const ConvTransposeWeights& weights, ConstView x, View y,
                              const Epilogue& epilogue) {
  check_views("transposed convolution", weights.conv(), x, y);
  CHECK(!epilogue.pool && !epilogue.pitch, "transposed convolution: neither pools nor concatenations can be fused");
  conv2d_backward_data(ctx, weights.mirror(), x, y, {.tf32 = epilogue.tf32});
  if (weights.bias()) {
    const float* ones = weights.ones_and_bias_on(ctx);
    channel_affine_forward(ctx, y, ones, ones + y.shape.c, y, epilogue);
  } else if (epilogue.residual || epilogue.relu) {
    relu_forward(ctx, y, y, epilogue);
  }
}

void conv_transpose2d_backward_data(Context& ctx, const ConvTransposeWeights& weights, ConstView dy, View dx,
                                    const BackwardEpilogue& epilogue) {
  check_views("transposed convolution backward", weights.conv(), dx, dy);
  conv2d_forward(ctx, weights.mirror(), dy, dx, {.residual = epilogue.other, .tf32 = epilogue.tf32});
  if (!epilogue.relu) return;
  BackwardEpilogue rule = epilogue;
  rule.other = nullptr;
  combine_backward(ctx, dx, dx, rule);
}

}  // namespace switchback
