// Resize, Pad, Slice, ChannelShuffle: one gather over tables that the host has made.
#include "kernels/move/gather.cuh"
#include "kernels/device/ops.cuh"
#include "kernels/move/resample.cuh"

namespace switchback::SB_DEVICE {
namespace {

// The weighted sums of a pixel of the result.
template <typename T>
struct Gather {
  ResampleTables tables;
  const T* x;
  int in_h, in_w, in_c, width;  // width: of the result
  float constant;

  template <int V>
  __device__ __forceinline__ void load(int item, int place, int channel, float (&sum)[V]) const {
    int from = channel;
    if (tables.channels) from = tables.channels[channel];  // V is 1
    const int h = place / width, w = place - h * width;
    x_of(item, h, w, from, sum);
  }

 private:
  template <int V>
  __device__ __forceinline__ void x_of(int item, int h, int w, int channel, float (&sum)[V]) const {
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] = 0.f;
    for (int r = tables.first_row[h]; r < tables.first_row[h + 1]; ++r) {
      const Resampling::Tap row = tables.rows[r];
      for (int c = tables.first_column[w]; c < tables.first_column[w + 1]; ++c) {
        const Resampling::Tap column = tables.columns[c];
        const bool inside = row.from >= 0 && column.from >= 0 && channel >= 0;
        float v[V];
        if (inside) load_channels(x + ((int64_t(item) * in_h + row.from) * in_w + column.from) * in_c + channel, v);
#pragma unroll
        for (int i = 0; i < V; ++i) sum[i] = inside ? fmaf(row.weight * column.weight, v[i], sum[i]) : constant;
      }
    }
  }
};

template <typename T>
Gather<T> gather_of(Context& ctx, const Resampling& r, bool backward, ConstView from, Shape to) {
  const Shape s = from.shape;
  return {tables_on_device(ctx, r, backward), from.as<T>(), int(s.h), int(s.w), int(s.c), int(to.w),
          backward ? 0.f : r.constant()};
}

template <typename T, int V>
__global__ void resample_forward_kernel(Spread spread, Gather<T> gather, T* y) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  float v[V];
  gather.load(spot.item, spot.place, spot.channel, v);
  store_channels(y + pixel_of(spread, spot) * spread.channels + spot.channel, v);
}

template <typename T, int V>
__global__ void resample_backward_kernel(Spread spread, Gather<T> gather, BackwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  float v[V];
  gather.load(spot.item, spot.place, spot.channel, v);
  finish(end, spot.item, spot.place, spot.channel, v);
}

}  // namespace

void resample_forward(Context& ctx, const Resampling& r, ConstView x, View y) {
  const bool wide = r.forward().channels.empty() && is_wide(y.shape.c, {x.data, y.data});
  by_type_and_width(y.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    const Gather<T> gather = gather_of<T>(ctx, r, false, x, y.shape);
    spread_over<width()>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"resample_forward", y.shape, grid, block}, resample_forward_kernel<T, width()>, spread, gather,
             y.as<T>());
    });
  });
}

void resample_backward(Context& ctx, const Resampling& r, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  const bool wide = r.backward().channels.empty() && is_wide(dx.shape.c, {dy.data, dx.data, epilogue.other});
  by_type_and_width(dx.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    const Gather<T> gather = gather_of<T>(ctx, r, true, dy, dx.shape);
    spread_over<width()>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"resample_backward", dx.shape, grid, block}, resample_backward_kernel<T, width()>, spread, gather,
             backward_end<T>(dx, epilogue));
    });
  });
}

}  // namespace switchback::SB_DEVICE
