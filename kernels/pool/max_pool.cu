// Max pooling with switches. Backward gathers: every dx element sums, in row-major order of the windows, those that
// cover it and whose switch names its place; no atomics, and no dependence on the batch.
#include "kernels/device/channels.cuh"
#include "kernels/device/ops.cuh"
#include "kernels/sliding.h"
#include "kernels/winner.h"

namespace switchback::SB_DEVICE {
namespace {

struct Axis {
  int in, out;
  SlidingAxisOf<int> sliding;
};
Axis rows_of(const MaxPool2d& p, Shape x, Shape y) { return {int(x.h), int(y.h), sliding_rows<int>(p)}; }
Axis columns_of(const MaxPool2d& p, Shape x, Shape y) { return {int(x.w), int(y.w), sliding_columns<int>(p)}; }

// V channels of a Winner (winner.h).
template <int V>
struct Winners {
  float best[V];
  uint32_t place[V];
  __device__ __forceinline__ explicit Winners(uint32_t first_place) {
#pragma unroll
    for (int i = 0; i < V; ++i) best[i] = -INFINITY, place[i] = first_place;
  }
  __device__ __forceinline__ void meet(const float (&v)[V], uint32_t at) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const bool better = wins(v[i], best[i]);
      best[i] = better ? v[i] : best[i];
      place[i] = better ? at : place[i];
    }
  }
};

// Of output pixel (i, j). item: the thread's first channel in x's item [h,w,channels]. A whole K x K window is unrolled,
// so that its loads are in flight together; K = 0: none is.
template <int K, int V, typename T>
__device__ __forceinline__ Winners<V> find_winner(const T* item, const Axis& rows, const Axis& columns, int i, int j,
                                                  int channels) {
  const int top = rows.sliding.start(i), left = columns.sliding.start(j);
  const auto at = [&](int ky, int kx) {
    const int h = top + ky * rows.sliding.dilation, w = left + kx * columns.sliding.dilation;
    return item + int64_t(h * columns.in + w) * channels;
  };
  if constexpr (K > 0) {
    const int bottom = top + (K - 1) * rows.sliding.dilation, right = left + (K - 1) * columns.sliding.dilation;
    if (top >= 0 && bottom < rows.in && left >= 0 && right < columns.in) {
      Winners<V> winner(0);
#pragma unroll
      for (int place = 0; place < K * K; ++place) {
        float v[V];
        load_channels(at(place / K, place % K), v);
        winner.meet(v, place);
      }
      return winner;
    }
  }
  const IntervalOf<int> down = rows.sliding.taps(i, {0, rows.in}), across = columns.sliding.taps(j, {0, columns.in});
  Winners<V> winner(down.empty() || across.empty() ? 0 : down.begin * columns.sliding.kernel + across.begin);
  for (int ky = down.begin; ky < down.end; ++ky) {
    for (int kx = across.begin; kx < across.end; ++kx) {
      float v[V];
      load_channels(at(ky, kx), v);
      winner.meet(v, ky * columns.sliding.kernel + kx);
    }
  }
  return winner;
}

// A thread: V channels of one output pixel.
template <typename T, typename Switch, int V, int K>
__global__ void __launch_bounds__(256)
    forward_kernel(Spread spread, Axis rows, Axis columns, const T* x, Switch* switches, ForwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  Winners<V> winner(0);
  if (spot.live) {
    const int i = spot.place / columns.out, j = spot.place - i * columns.out;
    const T* item = x + int64_t(spot.item) * rows.in * columns.in * spread.channels + spot.channel;
    winner = find_winner<K, V>(item, rows, columns, i, j, spread.channels);
    const int64_t pixel = int64_t(spot.item) * spread.places + spot.place;
    if (switches) store_switches(switches + pixel * spread.channels + spot.channel, winner.place);
  }
  finish(end, spread, spot, winner.best);
}

// What comes back to V channels: dy and the switches of one item, at this thread's first channel.
template <typename T, typename Switch>
struct Source {
  const T* dy;             // [h,w,channels] of dy's item
  const Switch* switches;  // the same of the tape's item
  template <int V>
  __device__ __forceinline__ void add_selected(int64_t element, uint32_t place, float (&sum)[V]) const {
    float g[V];
    uint32_t winners[V];
    load_channels(dy + element, g);
    load_switches(switches + element, winners);
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] += winners[i] == place ? g[i] : 0.f;
  }
};
template <typename T, typename Switch>
__device__ __forceinline__ Source<T, Switch> source_of(const T* dy, const Switch* switches, const Spot& spot,
                                                       int64_t places, const BackwardEnd<T>& end) {
  const int64_t item = places * end.channels;
  return {dy + spot.item * item + spot.channel, switches + spot.item / end.seeds_per_item * item + spot.channel};
}

// Any windows. A thread: V channels of one dx pixel.
template <typename T, typename Switch, int V>
__global__ void __launch_bounds__(256)
    gather_kernel(Spread spread, Axis rows, Axis columns, const T* dy, const Switch* switches, BackwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const int i = spot.place / columns.in, j = spot.place - i * columns.in;
  const auto source = source_of(dy, switches, spot, int64_t(rows.out) * columns.out, end);
  const IntervalOf<int> over_rows = rows.sliding.through({i, i + 1}, rows.out);
  const IntervalOf<int> over_columns = columns.sliding.through({j, j + 1}, columns.out);
  float sum[V] = {};
  for (int a = over_rows.begin; a < over_rows.end; ++a) {
    const int ky = rows.sliding.tap(a, i);
    if (ky < 0) continue;
    for (int b = over_columns.begin; b < over_columns.end; ++b) {
      const int kx = columns.sliding.tap(b, j);
      if (kx < 0) continue;
      source.add_selected((int64_t(a) * columns.out + b) * spread.channels, ky * columns.sliding.kernel + kx, sum);
    }
  }
  finish(end, spot.item, spot.place, spot.channel, sum);
}

// K x K windows side by side: dy and switches are read once. `spread` is over dx cut into ceil(h/K) x ceil(w/K) cells;
// a cell without a window (the rest that no window reaches) gets zeros. A thread: V channels of one cell.
template <typename T, typename Switch, int V, int K>
__global__ void __launch_bounds__(256)
    tiled_kernel(Spread spread, Axis rows, Axis columns, const T* dy, const Switch* switches, BackwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const int cells_w = (columns.in + K - 1) / K, a = spot.place / cells_w, b = spot.place - a * cells_w;
  const auto source = source_of(dy, switches, spot, int64_t(rows.out) * columns.out, end);
  float g[V] = {};
  uint32_t winners[V] = {};
  if (a < rows.out && b < columns.out) {
    const int64_t element = (int64_t(a) * columns.out + b) * spread.channels;
    load_channels(source.dy + element, g);
    load_switches(source.switches + element, winners);
  }
#pragma unroll
  for (uint32_t place = 0; place < K * K; ++place) {
    const int h = a * K + int(place) / K, w = b * K + int(place) % K;
    if (h >= rows.in || w >= columns.in) continue;
    float selected[V];
#pragma unroll
    for (int i = 0; i < V; ++i) selected[i] = winners[i] == place ? g[i] : 0.f;
    finish(end, spot.item, h * columns.in + w, spot.channel, selected);
  }
}

bool tiles(const MaxPool2d& p, int64_t k) {
  return p.kernel_h == k && p.kernel_w == k && p.stride_h == k && p.stride_w == k && p.pad_top == 0 &&
         p.pad_left == 0 && p.dilation_h == 1 && p.dilation_w == 1;
}

template <typename T, typename Switch, int V>
void forward(Context& ctx, const MaxPool2d& pool, ConstView x, View y, Switch* switches, const Epilogue& epilogue) {
  CHECK(x.shape.h * x.shape.w <= INT32_MAX, "max pool: a map of {}x{} has more than 2^31 places", x.shape.h, x.shape.w);
  auto* kernel = forward_kernel<T, Switch, V, 0>;
  if constexpr (sizeof(Switch) == 1) {
    if (pool.kernel_h == 2 && pool.kernel_w == 2) kernel = forward_kernel<T, Switch, V, 2>;
    if (pool.kernel_h == 3 && pool.kernel_w == 3) kernel = forward_kernel<T, Switch, V, 3>;
  }
  spread_over<V>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
    launch(ctx, {"max_pool2d_forward", y.shape, grid, block}, kernel, spread, rows_of(pool, x.shape, y.shape),
           columns_of(pool, x.shape, y.shape), x.as<T>(), switches, forward_end<T>(y, nullptr, epilogue));
  });
}

template <typename T, typename Switch, int V>
void backward(Context& ctx, const MaxPool2d& pool, ConstView dy, const Switch* switches, View dx,
              const BackwardEpilogue& epilogue) {
  const int k = tiles(pool, 2) ? 2 : tiles(pool, 3) ? 3 : 0;
  auto* kernel = gather_kernel<T, Switch, V>;
  if constexpr (sizeof(Switch) == 1) {
    if (k == 2) kernel = tiled_kernel<T, Switch, V, 2>;
    if (k == 3) kernel = tiled_kernel<T, Switch, V, 3>;
  }
  const Shape s = dx.shape;
  const Shape cells = k ? Shape{s.n, s.c, ceil_div(s.h, k), ceil_div(s.w, k)} : s;
  spread_over<V>(cells, [&](Spread spread, dim3 grid, dim3 block) {
    launch(ctx, {"max_pool2d_backward", s, grid, block}, kernel, spread, rows_of(pool, s, dy.shape),
           columns_of(pool, s, dy.shape), dy.as<T>(), switches, backward_end<T>(dx, epilogue));
  });
}

// f(switches as their type)
template <typename Void, typename F>
void by_switches(const MaxPool2d& pool, Void* switches, const F& f) {
  constexpr bool kConst = std::is_const_v<Void>;
  if (pool.switch_bytes() == 1) f(static_cast<std::conditional_t<kConst, const uint8_t, uint8_t>*>(switches));
  else f(static_cast<std::conditional_t<kConst, const uint16_t, uint16_t>*>(switches));
}

}  // namespace

void max_pool2d_forward(Context& ctx, const MaxPool2d& pool, ConstView x, View y, void* switches,
                        const Epilogue& epilogue) {
  const bool wide = is_wide(y.shape.c, {x.data, y.data, switches, epilogue.residual}) && epilogue.pitch % 8 == 0;
  by_type_and_width(y.dtype, wide, [&](auto type, auto width) {
    by_switches(pool, switches, [&](auto* typed) {
      forward<decltype(type), std::remove_pointer_t<decltype(typed)>, width()>(ctx, pool, x, y, typed, epilogue);
    });
  });
}

void max_pool2d_backward(Context& ctx, const MaxPool2d& pool, ConstView dy, const void* switches, View dx,
                         const BackwardEpilogue& epilogue) {
  const bool wide = is_wide(dx.shape.c, {dy.data, dx.data, switches, epilogue.other});
  by_type_and_width(dx.dtype, wide, [&](auto type, auto width) {
    by_switches(pool, switches, [&](const auto* typed) {
      backward<decltype(type), std::remove_cv_t<std::remove_pointer_t<decltype(typed)>>, width()>(ctx, pool, dy, typed,
                                                                                                  dx, epilogue);
    });
  });
}

}  // namespace switchback::SB_DEVICE
