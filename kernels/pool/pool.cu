// Average pools, fixed and adaptive. A pool is a list of windows per axis, given by formulas. Every sum runs over a
// window, or over the outputs whose windows cover a pixel, in row-major order; large windows are cut into a number of
// parts that depends on the window alone.
#include "kernels/device/channels.cuh"
#include "kernels/device/ops.cuh"
#include "kernels/pool/average_axis.h"

namespace switchback::SB_DEVICE {
namespace {

using Axes = AverageAxesOf<int>;
using Window = AverageAxisOf<int>::Window;

// The window of one output pixel in x's item, its places counted row by row.
struct Window2d {
  Window row, column;
  __device__ __forceinline__ int width() const { return column.inputs.size(); }
  __device__ __forceinline__ int places() const { return row.inputs.size() * width(); }
  __device__ __forceinline__ float divisor() const { return float(int64_t(row.size) * column.size); }
};
__device__ __forceinline__ Window2d window_at(const Axes& axes, int place) {
  const int i = place / axes.columns.out, j = place - i * axes.columns.out;
  return {axes.rows.window(i), axes.columns.window(j)};
}

// The sum of the places first, first + step, ... of the window. item: V channels of x's item [h,w,channels].
template <typename T, int V>
__device__ __forceinline__ void sum_places(const T* item, int in_w, int channels, const Window2d& window, int first,
                                           int step, float (&sum)[V]) {
  const int width = window.width(), places = window.places();
  for (int place = first; place < places; place += step) {
    const int row = place / width;
    const int h = window.row.inputs.begin + row, w = window.column.inputs.begin + place - row * width;
    float v[V];
    load_channels(item + (int64_t(h) * in_w + w) * channels, v);
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] += v[i];
  }
}

// An average; that of an empty window (all in the padding, which is not counted) is zero.
template <typename T, int V>
__device__ __forceinline__ void store_average(T* y, const Window2d& window, float (&sum)[V]) {
  if (window.places() > 0) {
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] /= window.divisor();
  }
  store_channels(y, sum);
}

// A thread: V channels of one output pixel.
template <typename T, int V>
__global__ void forward_kernel(Spread spread, Axes axes, const T* x, T* y) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const Window2d window = window_at(axes, spot.place);
  const int in_w = axes.columns.in, channels = spread.channels;
  const T* item = x + int64_t(spot.item) * axes.rows.in * in_w * channels + spot.channel;
  float sum[V] = {};
  sum_places(item, in_w, channels, window, 0, 1, sum);
  store_average(y + (int64_t(spot.item) * spread.places + spot.place) * channels + spot.channel, window, sum);
}

// Large windows. A block: 32 V channels of one output pixel; blockDim.y threads share each window, thread p sums the
// places p, p + blockDim.y, ..., and the parts are added in order.
template <typename T, int V>
__global__ void __launch_bounds__(1024, 1)
    large_window_kernel(int places, int channels, int channel_blocks, Axes axes, const T* x, T* y) {
  const int parts = blockDim.y, part = threadIdx.y, lane = threadIdx.x;
  const Shared<float> sums(0, parts * 32 * V);  // [parts][V][32]
  const int pixel = blockIdx.x / channel_blocks, channel = ((blockIdx.x - pixel * channel_blocks) * 32 + lane) * V;
  const int item = pixel / places, in_w = axes.columns.in;
  const Window2d window = window_at(axes, pixel - item * places);
  float sum[V] = {};
  if (channel < channels) {
    const T* from = x + int64_t(item) * axes.rows.in * in_w * channels + channel;
    sum_places(from, in_w, channels, window, part, parts, sum);
  }
#pragma unroll
  for (int i = 0; i < V; ++i) sums[(part * V + i) * 32 + lane] = sum[i];
  __syncthreads();
  if (part > 0 || channel >= channels) return;
  for (int p = 1; p < parts; ++p) {
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] += sums[(p * V + i) * 32 + lane];
  }
  store_average(y + int64_t(pixel) * channels + channel, window, sum);
}

// A thread: V channels of one dx pixel.
template <typename T, int V>
__global__ void backward_kernel(Spread spread, Axes axes, const T* dy, BackwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const int in_w = axes.columns.in, out_w = axes.columns.out, channels = spread.channels;
  const int i = spot.place / in_w, j = spot.place - i * in_w;
  const T* item = dy + int64_t(spot.item) * axes.rows.out * out_w * channels + spot.channel;
  const IntervalOf<int> rows = axes.rows.through(i), columns = axes.columns.through(j);
  float sum[V] = {};
  for (int a = rows.begin; a < rows.end; ++a) {
    for (int b = columns.begin; b < columns.end; ++b) {
      const float divisor = Window2d{axes.rows.window(a), axes.columns.window(b)}.divisor();
      float g[V];
      load_channels(item + (int64_t(a) * out_w + b) * channels, g);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += g[v] / divisor;
    }
  }
  finish(end, spot.item, spot.place, spot.channel, sum);
}

// How many threads share a window: a function of the layer and of one image's shape.
int parts_of(const Axes& axes) {
  const int64_t window = int64_t(axes.rows.longest()) * axes.columns.longest();
  return window < 64 ? 1 : window < 1024 ? 8 : 32;
}

template <typename T, int V>
void forward_large(Context& ctx, const Axes& axes, int parts, ConstView x, View y) {
  const int64_t channel_blocks = ceil_div(y.shape.c, 32 * V), places = y.shape.h * y.shape.w;
  const int64_t most = ((int64_t(1) << 31) - 1) / (channel_blocks * places);  // items in a launch
  const size_t shared = size_t(parts) * 32 * V * sizeof(float);
  for (int64_t first = 0; first < y.shape.n; first += most) {
    const int64_t items = std::min(most, y.shape.n - first);
    const dim3 grid(unsigned(items * places * channel_blocks)), block(32, unsigned(parts));
    launch(ctx, {"average pool", y.shape, grid, block, shared}, large_window_kernel<T, V>, int(places),
           int(y.shape.c), int(channel_blocks), axes, x.as<T>() + first * x.shape.item(),
           y.as<T>() + first * y.shape.item());
  }
}

void forward(Context& ctx, const Axes& axes, ConstView x, View y) {
  const int parts = parts_of(axes);
  by_type_and_width(y.dtype, is_wide(y.shape.c, {x.data, y.data}), [&](auto type, auto width) {
    using T = decltype(type);
    if (parts > 1) return forward_large<T, width()>(ctx, axes, parts, x, y);
    spread_over<width()>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"average pool", y.shape, grid, block}, forward_kernel<T, width()>, spread, axes, x.as<T>(),
             y.as<T>());
    });
  });
}

void backward(Context& ctx, const Axes& axes, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  by_type_and_width(dx.dtype, is_wide(dx.shape.c, {dy.data, dx.data, epilogue.other}), [&](auto type, auto width) {
    using T = decltype(type);
    spread_over<width()>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"average pool backward", dx.shape, grid, block}, backward_kernel<T, width()>, spread, axes,
             dy.as<T>(), backward_end<T>(dx, epilogue));
    });
  });
}

}  // namespace

void avg_pool2d_forward(Context& ctx, const AvgPool2d& pool, ConstView x, View y) {
  forward(ctx, average_axes<int>(pool, x.shape, y.shape), x, y);
}
void avg_pool2d_backward(Context& ctx, const AvgPool2d& pool, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  backward(ctx, average_axes<int>(pool, dx.shape, dy.shape), dy, dx, epilogue);
}
void adaptive_avg_pool2d_forward(Context& ctx, const AdaptiveAvgPool2d& pool, ConstView x, View y) {
  forward(ctx, average_axes<int>(pool, x.shape, y.shape), x, y);
}
void adaptive_avg_pool2d_backward(Context& ctx, const AdaptiveAvgPool2d& pool, ConstView dy, View dx,
                                  const BackwardEpilogue& epilogue) {
  backward(ctx, average_axes<int>(pool, dx.shape, dy.shape), dy, dx, epilogue);
}

}  // namespace switchback::SB_DEVICE
