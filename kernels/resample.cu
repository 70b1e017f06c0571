// Resize, Pad, Slice, ChannelShuffle: one gather over tables that the host has made.
#include "kernels/resample.h"

#include <cstring>

#include "kernels/gather.cuh"
#include "kernels/ops.cuh"

namespace switchback::SB_DEVICE {
namespace {

using Tap = Resampling::Tap;

// Resampling::Tables on the device.
struct Tables {
  const int32_t *first_row, *first_column;
  const Tap *rows, *columns;
  const int32_t* channels;  // or null
};

// All five arrays one behind the other, each at a multiple of 8 bytes.
struct Layout {
  size_t offset[5], bytes;
  explicit Layout(const Resampling::Tables& t) {
    const size_t sizes[] = {t.rows.first.size() * 4, t.columns.first.size() * 4, t.rows.taps.size() * sizeof(Tap),
                            t.columns.taps.size() * sizeof(Tap), t.channels.size() * 4};
    bytes = 0;
    for (int i = 0; i < 5; ++i) offset[i] = bytes, bytes += (sizes[i] + 7) / 8 * 8;
  }
};

Tables on_device(Context& ctx, const Resampling& r, bool backward) {
  const Resampling::Tables& t = backward ? r.backward() : r.forward();
  const Layout layout(t);
  const char* base = static_cast<const char*>(r.device().get(ctx, backward ? 1 : 0, [&] {
    std::vector<char> bytes(layout.bytes);
    const auto put = [&](int i, const auto& values) {
      if (!values.empty()) std::memcpy(bytes.data() + layout.offset[i], values.data(), values.size() * sizeof(values[0]));
    };
    put(0, t.rows.first), put(1, t.columns.first), put(2, t.rows.taps), put(3, t.columns.taps), put(4, t.channels);
    return bytes;
  }));
  const auto at = [&](int i) { return static_cast<const void*>(base + layout.offset[i]); };
  return {static_cast<const int32_t*>(at(0)), static_cast<const int32_t*>(at(1)), static_cast<const Tap*>(at(2)),
          static_cast<const Tap*>(at(3)), t.channels.empty() ? nullptr : static_cast<const int32_t*>(at(4))};
}

// The weighted sums of a pixel of the result.
template <typename T>
struct Gather {
  Tables tables;
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
      const Tap row = tables.rows[r];
      for (int c = tables.first_column[w]; c < tables.first_column[w + 1]; ++c) {
        const Tap column = tables.columns[c];
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
  return {on_device(ctx, r, backward), from.as<T>(), int(from.shape.h), int(from.shape.w), int(from.shape.c), int(to.w),
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
