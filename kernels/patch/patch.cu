// Patches on a GPU. A thread: V neighbouring channels of one pixel of y. All ops are bound by memory; threads share
// nothing, and a pool's overlapping windows meet in the cache.
#include "kernels/device/channels.cuh"
#include "kernels/device/ops.cuh"
#include "kernels/move/resample.cuh"
#include "kernels/pool/average_axis.h"
#include "kernels/winner.h"

namespace switchback::SB_DEVICE {
namespace {

// --- places

struct Place {
  int row, col;
};

// A thread's place on the map of y's item, given where the item's patch begins.
__device__ __forceinline__ Place place_of(const Spot& spot, int width, Origin at) {
  const int row = spot.place / width;
  return {at.row + row, at.col + spot.place - row * width};
}

// What is written: y's elements, or some channels of a wider y from pixel to pixel.
template <typename T>
struct Target {
  T* y;
  int pitch;
  __device__ __forceinline__ T* at(const Spread& spread, const Spot& spot) const {
    return y + (int64_t(spot.item) * spread.places + spot.place) * pitch + spot.channel;
  }
};

template <typename T>
struct Source {
  const T* patch;         // Δ [P,h,w,channels]
  const T* clean;         // [map_h,map_w,channels]
  const Origin* origins;  // [P]
  int h, w, map_h, map_w, channels;
  bool relu;
  float clip;

  __device__ __forceinline__ float act(float s) const { return relu ? relu_limits(clip).value(s) : s; }
  // What a patch holds.
  __device__ __forceinline__ IntervalOf<int> rows(Origin patch_at) const { return {patch_at.row, patch_at.row + h}; }
  __device__ __forceinline__ IntervalOf<int> columns(Origin patch_at) const { return {patch_at.col, patch_at.col + w}; }
  __device__ __forceinline__ bool holds(Origin patch_at, Place p) const {
    return rows(patch_at).has(p.row) && columns(patch_at).has(p.col);
  }
  template <int V>
  __device__ __forceinline__ void load_clean(Place p, int channel, float (&v)[V]) const {
    load_channels(clean + (int64_t(p.row) * map_w + p.col) * channels + channel, v);
  }
  template <int V>
  __device__ __forceinline__ void load_delta(int item, Origin patch_at, Place p, int channel, float (&v)[V]) const {
    const int row = p.row - patch_at.row, col = p.col - patch_at.col;
    load_channels(patch + ((int64_t(item) * h + row) * w + col) * channels + channel, v);
  }
  // clean + Δ at a place of the map
  template <int V>
  __device__ __forceinline__ void load_sum(int item, Origin patch_at, Place p, int channel, float (&v)[V]) const {
    load_clean(p, channel, v);
    if (!holds(patch_at, p)) return;
    float delta[V];
    load_delta(item, patch_at, p, channel, delta);
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] += delta[i];
  }
  // act(clean + Δ) − act(clean) at any place; zero where the patch does not hold it
  template <int V>
  __device__ __forceinline__ void load_change(int item, Origin patch_at, Place p, int channel, float (&v)[V]) const {
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] = 0.f;
    if (!holds(patch_at, p)) return;
    load_delta(item, patch_at, p, channel, v);
    if (!relu) return;
    float s[V];
    load_clean(p, channel, s);
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] = act(s[i] + v[i]) - act(s[i]);
  }
};
template <typename T>
Source<T> source_of(const Change& x) {
  const Shape s = x.patch.shape, map = x.clean.shape;
  return {x.patch.as<T>(), x.clean.as<T>(), x.origins, int(s.h), int(s.w), int(map.h), int(map.w), int(s.c),
          x.relu,           x.clip};
}

// --- reading a change

enum class Read { changes, sums_of_changes, values };

template <typename T, int V, Read kRead>
__global__ void gather_kernel(Spread spread, int width, Source<T> x, const Origin* origins, Target<T> to) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const Place p = place_of(spot, width, origins ? origins[spot.item] : Origin{0, 0});
  const Origin patch_at = x.origins[spot.item];
  T* y = to.at(spread, spot);
  float v[V];
  if constexpr (kRead == Read::values) {
    x.load_sum(spot.item, patch_at, p, spot.channel, v);
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] = x.act(v[i]);
  } else {
    if (kRead == Read::sums_of_changes && !x.holds(patch_at, p)) return;
    x.load_change(spot.item, patch_at, p, spot.channel, v);
  }
  if constexpr (kRead == Read::sums_of_changes) {
    float before[V];
    load_channels(y, before);
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] += before[i];
  }
  store_channels(y, v);
}

template <typename T, int V>
__global__ void subtract_kernel(Spread spread, int width, const T* clean, int map_w, const Origin* origins,
                                Target<T> to) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const Place p = place_of(spot, width, origins[spot.item]);
  T* y = to.at(spread, spot);
  float v[V], s[V];
  load_channels(y, v);
  load_channels(clean + (int64_t(p.row) * map_w + p.col) * spread.channels + spot.channel, s);
#pragma unroll
  for (int i = 0; i < V; ++i) v[i] -= s[i];
  store_channels(y, v);
}

// --- pools

struct PoolAxis {
  SlidingAxisOf<int> sliding;
  int in;
};

// Where the window of one output begins (may be < 0), its places inside the map, and those inside x's patch.
struct Taps {
  int start;
  IntervalOf<int> inside, changed;
};
__device__ __forceinline__ Taps taps_of(const PoolAxis& a, int output, IntervalOf<int> patch) {
  return {a.sliding.start(output), a.sliding.taps(output, {0, a.in}), a.sliding.taps(output, patch)};
}

// best = the maximum of clean + Δ over a pooling window. K > 0: K x K, unrolled, so that loads are in flight together.
template <int K, int V, typename T>
__device__ __forceinline__ void find_maximum(const Source<T>& x, const Spot& spot, Origin patch_at,
                                             const PoolAxis& rows, const PoolAxis& columns, const Taps& row,
                                             const Taps& column, float (&best)[V]) {
#pragma unroll
  for (int i = 0; i < V; ++i) best[i] = -INFINITY;
  const int kernel_h = K > 0 ? K : rows.sliding.kernel, kernel_w = K > 0 ? K : columns.sliding.kernel;
#pragma unroll
  for (int a = 0; a < kernel_h; ++a) {
#pragma unroll
    for (int b = 0; b < kernel_w; ++b) {
      if (!row.inside.has(a) || !column.inside.has(b)) continue;
      float v[V];
      const Place p{row.start + a * rows.sliding.dilation, column.start + b * columns.sliding.dilation};
      x.load_sum(spot.item, patch_at, p, spot.channel, v);
#pragma unroll
      for (int i = 0; i < V; ++i) best[i] = wins(v[i], best[i]) ? v[i] : best[i];
    }
  }
}

// act never falls, so the maximum of the values is act of the maximum.
template <typename T, int V, int K>
__global__ void max_pool_kernel(Spread spread, int width, PoolAxis rows, PoolAxis columns, Source<T> x, const T* clean,
                                int pooled_w, const Origin* origins, Target<T> to) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const Place p = place_of(spot, width, origins[spot.item]);
  const Origin patch_at = x.origins[spot.item];
  const Taps row = taps_of(rows, p.row, x.rows(patch_at)), column = taps_of(columns, p.col, x.columns(patch_at));
  float v[V] = {};
  if (!row.changed.empty() && !column.changed.empty()) {
    float before[V];
    load_channels(clean + (int64_t(p.row) * pooled_w + p.col) * spread.channels + spot.channel, before);
    find_maximum<K>(x, spot, patch_at, rows, columns, row, column, v);
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] = x.act(v[i]) - before[i];
  }
  store_channels(to.at(spread, spot), v);
}

template <typename T, int V>
__global__ void average_pool_kernel(Spread spread, int width, AverageAxesOf<int> axes, Source<T> x,
                                    const Origin* origins, Target<T> to) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const Place p = place_of(spot, width, origins[spot.item]);
  const Origin patch_at = x.origins[spot.item];
  const SlidingAxisOf<int>&down = axes.rows.sliding, &across = axes.columns.sliding;
  const IntervalOf<int> rows = down.taps(p.row, x.rows(patch_at)), columns = across.taps(p.col, x.columns(patch_at));
  float sum[V] = {};
  for (int a = rows.begin; a < rows.end; ++a) {
    for (int b = columns.begin; b < columns.end; ++b) {
      float v[V];
      x.load_change(spot.item, patch_at, {down.input(p.row, a), across.input(p.col, b)}, spot.channel, v);
#pragma unroll
      for (int i = 0; i < V; ++i) sum[i] += v[i];
    }
  }
  if (!rows.empty() && !columns.empty()) {
    const float divisor = float(int64_t(axes.rows.window(p.row).size) * axes.columns.window(p.col).size);
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] /= divisor;
  }
  store_channels(to.at(spread, spot), sum);
}

// --- Resize, Pad, Slice, ChannelShuffle

// A constant (place or channel -1) lies in no patch. V is 1 where the tables list channels.
template <typename T, int V>
__global__ void resample_kernel(Spread spread, int width, ResampleTables tables, Source<T> x, const Origin* origins,
                                Target<T> to) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const Place p = place_of(spot, width, origins[spot.item]);
  const Origin patch_at = x.origins[spot.item];
  const int channel = tables.channels ? tables.channels[spot.channel] : spot.channel;
  float sum[V] = {};
  for (int a = tables.first_row[p.row]; channel >= 0 && a < tables.first_row[p.row + 1]; ++a) {
    const Resampling::Tap row = tables.rows[a];
    for (int b = tables.first_column[p.col]; b < tables.first_column[p.col + 1]; ++b) {
      const Resampling::Tap column = tables.columns[b];
      const Place from{row.from, column.from};
      if (!x.holds(patch_at, from)) continue;
      float v[V];
      x.load_change(spot.item, patch_at, from, channel, v);
#pragma unroll
      for (int i = 0; i < V; ++i) sum[i] = fmaf(row.weight * column.weight, v[i], sum[i]);
    }
  }
  store_channels(to.at(spread, spot), sum);
}

// --- boxes

__device__ __forceinline__ bool lies_in(int i, int begin, int size) {  // whatever the box: no sum that can overflow
  return i >= begin && size > 0 && uint32_t(i) - uint32_t(begin) < uint32_t(size);
}
__device__ __forceinline__ bool covers(const Box& box, Place p) {
  return lies_in(p.row, box.row, box.height) && lies_in(p.col, box.col, box.width);
}

// x and baseline at the same place of a map of width `map_w`.
template <typename T>
struct Image {
  const T *x, *baseline;
  int map_w;
  __device__ __forceinline__ int64_t at(const Spread& spread, const Spot& spot, Place p) const {
    return (int64_t(p.row) * map_w + p.col) * spread.channels + spot.channel;
  }
};

template <typename T, int V>
__global__ void occlude_patches_kernel(Spread spread, int width, Image<T> image, const Box* boxes,
                                       const Origin* origins, Target<T> to) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const Place p = place_of(spot, width, origins[spot.item]);
  float v[V] = {};
  if (covers(boxes[spot.item], p)) {
    const int64_t at = image.at(spread, spot, p);
    float s[V];
    load_channels(image.baseline + at, v);
    load_channels(image.x + at, s);
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] -= s[i];
  }
  store_channels(to.at(spread, spot), v);
}

template <typename T, int V>
__global__ void occlude_images_kernel(Spread spread, int width, Image<T> image, const Box* boxes, Target<T> to) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const Place p = place_of(spot, width, Origin{0, 0});
  float v[V];
  load_channels((covers(boxes[spot.item], p) ? image.baseline : image.x) + image.at(spread, spot, p), v);
  store_channels(to.at(spread, spot), v);
}

// --- launches

// Whether pixels of these counts of channels, in these arrays, are whole numbers of 16 bytes.
bool is_wide(DType dtype, std::initializer_list<int64_t> channels, std::initializer_list<const void*> arrays) {
  const auto even = [](auto n) { return uint64_t(n) % 16 == 0; };
  return std::all_of(channels.begin(), channels.end(), [&](int64_t c) { return even(c * int64_t(size_of(dtype))); }) &&
         std::all_of(arrays.begin(), arrays.end(), [&](const void* p) { return even(reinterpret_cast<uintptr_t>(p)); });
}

// Launches kernel(spread, width of y, args..., target) for `channels` channels of y from `channel` on.
template <typename T, int V, typename Kernel, typename... Args>
void launch_over_channels(Context& ctx, const char* op, Kernel kernel, View y, int64_t channel, int64_t channels,
                          Args... args) {
  const Shape s{y.shape.n, channels, y.shape.h, y.shape.w};
  spread_over<V>(s, ceil_div(channels, V), [&](Spread spread, dim3 grid, dim3 block) {
    launch(ctx, {op, s, grid, block}, kernel, spread, int(s.w), args...,
           Target<T>{y.as<T>() + channel, int(y.shape.c)});
  });
}
template <typename T, int V, typename Kernel, typename... Args>
void launch_over(Context& ctx, const char* op, Kernel kernel, View y, Args... args) {
  launch_over_channels<T, V>(ctx, op, kernel, y, 0, y.shape.c, args...);
}

template <Read kRead>
void gather(Context& ctx, const char* op, const Change& x, const Origin* origins, View y, int64_t channel) {
  const int64_t channels = x.patch.shape.c;
  const bool wide = is_wide(y.dtype, {channels, channel, y.shape.c}, {x.patch.data, x.clean.data, y.data});
  by_type_and_width(y.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    launch_over_channels<T, width()>(ctx, op, gather_kernel<T, width(), kRead>, y, channel, channels, source_of<T>(x),
                                     origins);
  });
}

template <typename Pool>
PoolAxis rows_of(const Pool& p, Shape x) { return {sliding_rows<int>(p), int(x.h)}; }
template <typename Pool>
PoolAxis columns_of(const Pool& p, Shape x) { return {sliding_columns<int>(p), int(x.w)}; }

template <typename T, int V>
auto max_pool_kernel_for(const MaxPool2d& p) {
  const auto is = [&](int64_t k) { return p.kernel_h == k && p.kernel_w == k; };
  return is(2) ? max_pool_kernel<T, V, 2> : is(3) ? max_pool_kernel<T, V, 3> : max_pool_kernel<T, V, 0>;
}

template <typename T>
Image<T> image_of(ConstView x, ConstView baseline) {
  return {x.as<T>(), baseline.as<T>(), int(x.shape.w)};
}

}  // namespace

void gather_changes(Context& ctx, const Change& x, const Origin* origins, View y, int64_t channel) {
  gather<Read::changes>(ctx, "gather_changes", x, origins, y, channel);
}
void add_changes(Context& ctx, const Change& x, const Origin* origins, View y) {
  gather<Read::sums_of_changes>(ctx, "add_changes", x, origins, y, 0);
}
void gather_values(Context& ctx, const Change& x, const Origin* origins, View y) {
  gather<Read::values>(ctx, "gather_values", x, origins, y, 0);
}
void expand_patches(Context& ctx, const Change& x, View y) {
  gather<Read::values>(ctx, "expand_patches", x, nullptr, y, 0);
}

void subtract_clean(Context& ctx, ConstView clean, const Origin* origins, View y) {
  by_type_and_width(y.dtype, is_wide(y.dtype, {y.shape.c}, {clean.data, y.data}), [&](auto type, auto width) {
    using T = decltype(type);
    launch_over<T, width()>(ctx, "subtract_clean", subtract_kernel<T, width()>, y, clean.as<T>(), int(clean.shape.w),
                            origins);
  });
}

void max_pool2d_changes(Context& ctx, const MaxPool2d& pool, const Change& x, ConstView clean, const Origin* origins,
                        View y) {
  const Shape map = x.clean.shape;
  const bool wide = is_wide(y.dtype, {y.shape.c}, {x.patch.data, x.clean.data, clean.data, y.data});
  by_type_and_width(y.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    launch_over<T, width()>(ctx, "max_pool2d_changes", max_pool_kernel_for<T, width()>(pool), y, rows_of(pool, map),
                            columns_of(pool, map), source_of<T>(x), clean.as<T>(), int(clean.shape.w), origins);
  });
}

void avg_pool2d_changes(Context& ctx, const AvgPool2d& pool, const Change& x, const Origin* origins, View y) {
  const Shape map = x.clean.shape;
  const bool wide = is_wide(y.dtype, {y.shape.c}, {x.patch.data, x.clean.data, y.data});
  by_type_and_width(y.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    launch_over<T, width()>(ctx, "avg_pool2d_changes", average_pool_kernel<T, width()>, y,
                            average_axes<int>(pool, map, output_shape(pool, map)), source_of<T>(x), origins);
  });
}

void resample_changes(Context& ctx, const Resampling& r, const Change& x, const Origin* origins, View y) {
  const bool wide = r.forward().channels.empty() &&
                    is_wide(y.dtype, {y.shape.c}, {x.patch.data, x.clean.data, y.data});
  by_type_and_width(y.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    launch_over<T, width()>(ctx, "resample_changes", resample_kernel<T, width()>, y, tables_on_device(ctx, r, false),
                            source_of<T>(x), origins);
  });
}

void occlude_patches(Context& ctx, ConstView x, ConstView baseline, const Box* boxes, const Origin* origins, View y) {
  const bool wide = is_wide(y.dtype, {y.shape.c}, {x.data, baseline.data, y.data});
  by_type_and_width(y.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    launch_over<T, width()>(ctx, "occlude_patches", occlude_patches_kernel<T, width()>, y, image_of<T>(x, baseline),
                            boxes, origins);
  });
}

void occlude_images(Context& ctx, ConstView x, ConstView baseline, const Box* boxes, View y) {
  const bool wide = is_wide(y.dtype, {y.shape.c}, {x.data, baseline.data, y.data});
  by_type_and_width(y.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    launch_over<T, width()>(ctx, "occlude_images", occlude_images_kernel<T, width()>, y, image_of<T>(x, baseline),
                            boxes);
  });
}

}  // namespace switchback::SB_DEVICE
