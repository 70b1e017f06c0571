// Depthwise convolutions: input channel c makes output channels c·M … c·M + M - 1. Memory-bound (3x3: 18 FLOPs for 8
// bytes of f32), so lanes hold neighbouring channels, and where the stride is 1 a warp slides down a 2x4 block of
// pixels with one input row (of a 3x3 kernel: and the weights) in registers: 4 loads per output instead of 18.
#include "kernels/conv/conv.cuh"

namespace switchback::SB_DEVICE {

namespace {

constexpr int kRows = 2, kColumns = 4;  // output pixels of a warp

// A stride-1 correlation in either direction; backwards (M = 1) its taps are flipped and its padding is what
// the forward one lacked.
struct Slide {
  int n, in_h, in_w, in_c, out_h, out_w, out_c;
  int pad_top, pad_left, multiplier;
  bool flipped;
};

template <typename T, int kSize, typename End>
__global__ void __launch_bounds__(128, 4) depthwise_slide_kernel(Slide z, const T* x, const T* rsck, End end) {
  constexpr int kInputs = kColumns + kSize - 1;
  [[maybe_unused]] constexpr int kUnroll = kSize == 3 ? kRows + kSize - 1 : 1;  // registers for 9 weights, not for 25
  const int blocks_w = (z.out_w + kColumns - 1) / kColumns, unit = warp_unit(), word = unit % end.words, n = image();
  const int row = unit / end.words / blocks_w * kRows, column = unit / end.words % blocks_w * kColumns;
  if (row >= z.out_h || n >= z.n) return;
  const int lane_channel = 32 * word + int(threadIdx.x & 31), channel = min(lane_channel, z.out_c - 1);
  const T* item = x + int64_t(n) * z.in_h * z.in_w * z.in_c + channel / z.multiplier;
  float sum[kRows][kColumns] = {};
#pragma unroll kUnroll
  for (int j = 0; j < kRows + kSize - 1; ++j) {  // input rows
    const int h = row + j - z.pad_top;
    float in[kInputs];
#pragma unroll
    for (int i = 0; i < kInputs; ++i) {
      const int w = column + i - z.pad_left;
      const bool inside = h >= 0 && h < z.in_h && w >= 0 && w < z.in_w;
      in[i] = inside ? to_float(item[(h * z.in_w + w) * z.in_c]) : 0.f;
    }
#pragma unroll
    for (int a = 0; a < kRows; ++a) {
      if (j < a || j - a >= kSize) continue;
      float weight[kSize];
#pragma unroll
      for (int s = 0; s < kSize; ++s) {
        const int tap = (j - a) * kSize + s;
        weight[s] = to_float(rsck[(z.flipped ? kSize * kSize - 1 - tap : tap) * z.out_c + channel]);
      }
#pragma unroll
      for (int b = 0; b < kColumns; ++b)
#pragma unroll
        for (int s = 0; s < kSize; ++s) sum[a][b] = fmaf(in[b + s], weight[s], sum[a][b]);
    }
  }
#pragma unroll
  for (int a = 0; a < kRows; ++a) {
#pragma unroll
    for (int b = 0; b < kColumns; ++b) {
      const int place = (row + a) * z.out_w + column + b;
      if (row + a >= z.out_h || column + b >= z.out_w) continue;
      if constexpr (std::is_same_v<End, ForwardEnd<T>>)
        finish(end, int64_t(n) * z.out_h * z.out_w + place, word, sum[a][b]);
      else
        finish(end, n, place, lane_channel, sum[a][b]);
    }
  }
}

// Any stride, dilation and multiplier: a warp gathers 32 channels of one pixel of dx.
template <typename T>
__global__ void __launch_bounds__(128) depthwise_backward_kernel(ConvSize z, const T* dy, const T* rsck,
                                                                 BackwardEnd<T> end) {
  const int unit = warp_unit(), place = unit / end.words, channel = 32 * (unit % end.words) + int(threadIdx.x & 31);
  const int h = place / z.w, w = place % z.w, n = image();
  if (place >= end.places || channel >= z.c || n >= z.n) return;
  const T* item = dy + int64_t(n) * z.p * z.q * z.k + channel * z.group_k;
  float sum = 0.f;
  for (int r = 0; r < z.rows.kernel; ++r) {
    const int p = z.rows.output(h, r, z.p);
    if (p < 0) continue;
    for (int s = 0; s < z.columns.kernel; ++s) {
      const int q = z.columns.output(w, s, z.q);
      if (q < 0) continue;
      const T* from = item + (p * z.q + q) * z.k;
      const T* weights = rsck + (r * z.columns.kernel + s) * z.k + channel * z.group_k;
      for (int m = 0; m < z.group_k; ++m) sum = fmaf(to_float(from[m]), to_float(weights[m]), sum);
    }
  }
  finish(end, n, place, channel, sum);
}

// Square kernels of 3, 5 and 7 with stride 1: those that networks have.
bool slides(const Conv2d& c) {
  return c.kernel_h == c.kernel_w && (c.kernel_h == 3 || c.kernel_h == 5 || c.kernel_h == 7) && c.stride_h == 1 &&
         c.stride_w == 1 && c.dilation_h == 1 && c.dilation_w == 1;
}

template <typename T, typename End>
void launch_slide(Context& ctx, const char* op, Shape out, int64_t kernel, const Slide& slide, const T* x,
                  const T* rsck, const End& end) {
  const int64_t blocks = ceil_div(slide.out_h, kRows) * ceil_div(slide.out_w, kColumns);
  launch(ctx, warp_launch(op, out, blocks * gate_words_per_pixel(slide.out_c)),
         kernel == 3   ? depthwise_slide_kernel<T, 3, End>
         : kernel == 5 ? depthwise_slide_kernel<T, 5, End>
                       : depthwise_slide_kernel<T, 7, End>,
         slide, x, rsck, end);
}

}  // namespace

bool depthwise_fits(const Conv2d& c) { return c.groups > 1 && c.groups == c.in_channels; }

void depthwise_forward(Context& ctx, const ConvWeights& weights, ConstView x, View y, const Epilogue& epilogue) {
  const Conv2d& conv = weights.conv();
  if (!slides(conv)) return direct_forward(ctx, weights, x, y, epilogue);  // lanes hold channels there, too
  const ConvSize z = conv_size(conv, x.shape);
  const Slide slide{z.n, z.h, z.w, z.c, z.p, z.q, z.k, z.rows.pad, z.columns.pad, z.group_k, false};
  const auto* bias = static_cast<const float*>(packed_weights(ctx, weights, ConvPacking::bias, DType::f32));
  by_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    const auto* rsck = static_cast<const T*>(packed_weights(ctx, weights, ConvPacking::rsck, x.dtype));
    launch_slide(ctx, "conv_depthwise", y.shape, conv.kernel_h, slide, x.as<T>(), rsck,
                 forward_end<T>(y, bias, epilogue));
  });
}

void depthwise_backward(Context& ctx, const ConvWeights& weights, ConstView dy, View dx,
                        const BackwardEpilogue& epilogue) {
  const Conv2d& conv = weights.conv();
  const ConvSize z = conv_size(conv, dx.shape);
  const Slide slide{z.n, z.p, z.q, z.k, z.h, z.w, z.c, z.rows.extent() - 1 - z.rows.pad,
                    z.columns.extent() - 1 - z.columns.pad, 1, true};
  by_type(dy.dtype, [&](auto type) {
    using T = decltype(type);
    const auto* rsck = static_cast<const T*>(packed_weights(ctx, weights, ConvPacking::rsck, dy.dtype));
    const auto end = backward_end<T>(dx, epilogue);
    if (slides(conv) && z.group_k == 1)
      return launch_slide(ctx, "conv_depthwise_backward", dx.shape, conv.kernel_h, slide, dy.as<T>(), rsck, end);
    launch(ctx, warp_launch("conv_depthwise_backward", dx.shape, int64_t(z.h) * z.w * end.words),
           depthwise_backward_kernel<T>, z, dy.as<T>(), rsck, end);
  });
}

}  // namespace switchback::SB_DEVICE
