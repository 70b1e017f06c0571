// Packs weights, chooses the instruction set, and takes bf16 through f32.
#include "kernels/conv/conv_im2col.h"

#include <algorithm>

#include "kernels/parallel.h"

namespace switchback {
namespace {

bool avx512() { return cpu_features().avx512; }

std::vector<float> pack_windows(const ConvWeights& weights, bool backward) {
  const Conv2d& c = weights.conv();
  const int64_t i_count = c.in_channels / c.groups, o_count = c.out_channels / c.groups;
  const int64_t depth = backward ? o_count : i_count, columns = backward ? i_count : o_count;
  const int64_t rows = c.kernel_h * c.kernel_w * depth;
  const PanelWidth width = avx512() ? kPanelAvx512 : kPanelAvx2;
  const int64_t group_size = rows * round_up(columns, width.vector), panels = (columns + width.panel - 1) / width.panel;
  std::vector<float> packed(size_t(c.groups * group_size));
#pragma omp parallel for schedule(static) if (c.groups * group_size > 20000)
  for (int64_t panel = 0; panel < c.groups * panels; ++panel) {
    const int64_t group = panel / panels, first = panel % panels * width.panel;
    const int64_t real = std::min(width.panel, columns - first);
    float* to = packed.data() + group * group_size + first * rows;
    for (int64_t tap = 0; tap < c.kernel_h * c.kernel_w; ++tap)
      for (int64_t d = 0; d < depth; ++d, to += round_up(real, width.vector))
        for (int64_t j = 0; j < real; ++j) {
          const int64_t r = tap / c.kernel_w, s = tap % c.kernel_w;
          to[j] = backward ? weights.weight(group * o_count + d, first + j, c.kernel_h - 1 - r, c.kernel_w - 1 - s)
                           : weights.weight(group * o_count + first + j, d, r, s);
        }
  }
  return packed;
}

std::vector<float> pack_patches(const ConvWeights& weights) {
  const Conv2d& c = weights.conv();
  const int64_t columns = round_up(c.kernel_h * c.kernel_w * c.in_channels, 16);
  std::vector<float> packed(size_t(c.out_channels * columns));
  for (int64_t o = 0; o < c.out_channels; ++o)
    for (int64_t r = 0; r < c.kernel_h; ++r)
      for (int64_t s = 0; s < c.kernel_w; ++s)
        for (int64_t i = 0; i < c.in_channels; ++i)
          packed[size_t(o * columns + (r * c.kernel_w + s) * c.in_channels + i)] = weights.weight(o, i, r, s);
  return packed;
}

// run(f32 view of in, f32 view of out) and then the epilogue, image by image where these views are not in and out.
template <typename AnyEpilogue, typename Run>
void in_f32(Context& ctx, ConstView in, View out, const AnyEpilogue& epilogue, const Run& run) {
  if (in.dtype == DType::f32) return run(in, out, epilogue);
  const Shape in_item = in.shape.with_n(1), out_item = out.shape.with_n(1);
  const Memory memory = ctx.allocate(size_t(in_item.count() + out_item.count()) * sizeof(float));
  float *from = memory.as<float>(), *sums = from + in_item.count();
  for (int64_t n = 0; n < in.shape.n; ++n) {
    const bf16* item = in.as<bf16>() + n * in_item.count();
    parallel_ranges(ctx, in_item.count(), 1, [=](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) from[i] = float(item[i]);
    });
    run(ConstView{from, in_item, DType::f32}, View{sums, out_item, DType::f32}, AnyEpilogue{});
    store_sums(ctx, sums, out, epilogue, n, n + 1);
  }
}

}  // namespace

std::vector<float> pack_im2col(const ConvWeights& weights, Im2col way) {
  return way == Im2col::patches ? pack_patches(weights) : pack_windows(weights, way == Im2col::backward);
}

void im2col_forward(Context& ctx, const ConvWeights& weights, const float* packed, ConstView x, View y,
                    const Epilogue& epilogue) {
  in_f32(ctx, x, y, epilogue, [&](ConstView in, View out, const Epilogue& end) {
    const Im2colProblem problem{
        .conv = weights.conv(), .packed = packed, .bias = weights.bias(), .in = in, .out = out, .forward = &end};
    avx512() ? im2col_windows_avx512(ctx, problem) : im2col_windows_avx2(ctx, problem);
  });
}

void im2col_backward(Context& ctx, const ConvWeights& weights, Im2col way, const float* packed, ConstView dy, View dx,
                     const BackwardEpilogue& epilogue) {
  in_f32(ctx, dy, dx, epilogue, [&](ConstView in, View out, const BackwardEpilogue& end) {
    const Im2colProblem problem{
        .conv = weights.conv(), .packed = packed, .bias = nullptr, .in = in, .out = out, .backward = &end};
    if (way == Im2col::patches)
      avx512() ? im2col_patches_avx512(ctx, problem) : im2col_patches_avx2(ctx, problem);
    else
      avx512() ? im2col_windows_avx512(ctx, problem) : im2col_windows_avx2(ctx, problem);
  });
}

}  // namespace switchback
