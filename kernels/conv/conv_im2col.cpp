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
  const int64_t taps = c.kernel_h * c.kernel_w, rows = taps * depth;
  const float* scale = weights.scale().empty() ? nullptr : weights.scale().data();
  const PanelWidth width = avx512() ? kPanelAvx512 : kPanelAvx2;
  const int64_t group_size = rows * round_up(columns, width.vector), panels = (columns + width.panel - 1) / width.panel;
  std::vector<float> packed(size_t(c.groups * group_size));
#pragma omp parallel for schedule(static) if (c.groups * group_size > 20000)
  for (int64_t i = 0; i < c.groups * panels * depth; ++i) {
    const int64_t panel = i / depth, d = i % depth;
    const int64_t group = panel / panels, first = panel % panels * width.panel;
    const int64_t real = std::min(width.panel, columns - first);
    float* to = packed.data() + group * group_size + first * rows;
    // From one value of a row of the panel to the next: weights are [o][i][tap].
    const int64_t step = backward ? taps : i_count * taps, pitch = round_up(real, width.vector);
    for (int64_t tap = 0; tap < taps; ++tap) {
      const float* from = weights.given() + (backward ? ((group * o_count + d) * i_count + first) * taps + taps - 1 - tap
                                                      : ((group * o_count + first) * i_count + d) * taps + tap);
      float* row = to + (tap * depth + d) * pitch;
      for (int64_t j = 0; j < real; ++j) row[j] = from[j * step];
      if (scale)
        for (int64_t j = 0; j < real; ++j) row[j] *= scale[group * o_count + (backward ? d : first + j)];
    }
  }
  return packed;
}

std::vector<float> pack_patches(const ConvWeights& weights) {
  const Conv2d& c = weights.conv();
  const int64_t columns = round_up(c.kernel_h * c.kernel_w * c.in_channels, 16);
  std::vector<float> packed(size_t(c.out_channels * columns));
#pragma omp parallel for schedule(static) if (c.out_channels * columns > 20000)
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
