// Element-wise ops, layout changes and seeds. All are bound by memory: 16 bytes a thread where channels allow.
#include "kernels/device/channels.cuh"
#include "kernels/device/ops.cuh"

namespace switchback::SB_DEVICE {
namespace {

// --- element-wise: where the V values at element `at`, of channels from `channel` on, come from

template <typename T>
struct Read {
  const T* x;
  template <int V>
  __device__ __forceinline__ void operator()(int64_t at, int, float (&v)[V]) const {
    load_channels(x + at, v);
  }
};
// Some channels of every pixel of a concatenation: its first, and how many there are in it and in the whole.
template <typename T>
struct ReadPart {
  const T* x;
  int64_t channels, pitch;
  template <int V>
  __device__ __forceinline__ void operator()(int64_t at, int channel, float (&v)[V]) const {
    load_channels(x + (at - channel) / channels * pitch + channel, v);  // at = pixel·channels + channel
  }
};
template <typename T>
struct Sum {
  const T *a, *b;
  template <int V>
  __device__ __forceinline__ void operator()(int64_t at, int, float (&v)[V]) const {
    float other[V];
    load_channels(a + at, v);
    load_channels(b + at, other);
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] += other[i];
  }
};
template <typename T>
struct Affine {
  const T* x;
  const float *scale, *shift;  // [channels]; shift may be null
  template <int V>
  __device__ __forceinline__ void operator()(int64_t at, int channel, float (&v)[V]) const {
    load_channels(x + at, v);
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] = fmaf(scale[channel + i], v[i], shift ? shift[channel + i] : 0.f);
  }
};

__device__ __forceinline__ int64_t element_of(const Spread& spread, const Spot& spot) {
  return (int64_t(spot.item) * spread.places + spot.place) * spread.channels + spot.channel;
}

template <typename T, int V, typename Source>
__global__ void forward_kernel(Spread spread, Source source, ForwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  float v[V] = {};
  if (spot.live) source(element_of(spread, spot), spot.channel, v);
  finish(end, spread, spot, v);
}
template <typename T, int V, typename Source>
__global__ void backward_kernel(Spread spread, Source source, BackwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  float v[V];
  source(element_of(spread, spot), spot.channel, v);
  finish(end, spot.item, spot.place, spot.channel, v);
}

// Without gates nobody asks which channel an element is of: pixels of 32 channels hold the same list of elements.
Shape flat(Shape s) { return s.count() % 32 ? s : Shape{s.count() / 32, 32, 1, 1}; }

template <typename T, int V, typename Source>
void forward(Context& ctx, const char* op, const Source& source, View y, const Epilogue& epilogue) {
  spread_over<V>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
    launch(ctx, {op, y.shape, grid, block}, forward_kernel<T, V, Source>, spread, source,
           forward_end<T>(y, nullptr, epilogue));
  });
}
template <typename T, int V, typename Source>
void backward(Context& ctx, const char* op, const Source& source, View dx, const BackwardEpilogue& epilogue) {
  spread_over<V>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
    launch(ctx, {op, dx.shape, grid, block}, backward_kernel<T, V, Source>, spread, source,
           backward_end<T>(dx, epilogue));
  });
}

bool reads_gates(const BackwardEpilogue& e) { return e.relu && e.rule.gate_forward; }

// --- layouts

// Where a transposition writes element (row, column) of x's item n [rows, columns].
template <typename To>
struct Store {
  To* y;  // [n, columns, rows]
  int rows, columns;
  template <typename V>
  __device__ __forceinline__ void operator()(int n, int row, int column, V v) const {
    const int64_t at = (int64_t(n) * columns + column) * rows + row;
    if constexpr (std::is_integral_v<To>) y[at] = To(v);
    else y[at] = from_float<To>(v);
  }
};
template <typename T>
struct StoreGradient {  // rows: channels, columns: places
  BackwardEnd<T> end;
  int first;  // item
  __device__ __forceinline__ void operator()(int n, int row, int column, float v) const {
    float values[1] = {v};
    finish(end, first + n, column, row, values);
  }
};

__device__ __forceinline__ uint32_t moved(uint32_t bits) { return bits; }
__device__ __forceinline__ uint32_t moved(uint16_t bits) { return bits; }
template <typename T>
__device__ __forceinline__ float moved(T v) { return to_float(v); }

inline constexpr int kTile = 32, kTileRows = 8;  // a block: 32 x 8 threads for a tile of 32 x 32

// x: [n, rows, columns]. Read along columns, written along rows.
template <typename From, typename Sink>
__global__ void transpose_tiles(const From* x, int rows, int columns, int tiles_down, int tiles_across, Sink sink) {
  using Value = decltype(moved(From()));
  const Shared<Value> tile(0, kTile * (kTile + 1));  // [column][row], rows padded against bank conflicts
  const int per_item = tiles_down * tiles_across, n = blockIdx.x / per_item, t = blockIdx.x - n * per_item;
  const int row0 = t / tiles_across * kTile, column0 = t % tiles_across * kTile;
  const int lane = threadIdx.x, column = column0 + lane, row = row0 + lane;
  x += int64_t(n) * rows * columns;
  for (int i = threadIdx.y; i < kTile && row0 + i < rows; i += kTileRows) {
    if (column < columns) tile[lane * (kTile + 1) + i] = moved(x[int64_t(row0 + i) * columns + column]);
  }
  __syncthreads();
  for (int i = threadIdx.y; i < kTile && column0 + i < columns; i += kTileRows) {
    if (row < rows) sink(n, row, column0 + i, Value(tile[i * (kTile + 1) + lane]));
  }
}

// The same for a few rows or a few columns: a thread an element, in the order of what is written.
template <typename From, typename Sink>
__global__ void transpose_elements(const From* x, int rows, int columns, uint32_t count, Sink sink) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= count) return;
  const uint32_t line = thread / uint32_t(rows), n = line / uint32_t(columns);
  const int row = int(thread - line * uint32_t(rows)), column = int(line - n * uint32_t(columns));
  sink(int(n), row, column, moved(x[(int64_t(n) * rows + row) * columns + column]));
}

// sink(first item): what the items from there on are given to, counted from 0.
template <typename From, typename MakeSink>
void transpose(Context& ctx, const char* op, Shape s, const From* x, int64_t rows, int64_t columns,
               const MakeSink& sink) {
  using Sink = decltype(sink(0));
  constexpr int64_t kMost = (int64_t(1) << 31) - 1, kBlock = 256;
  const bool thin = std::min(rows, columns) <= 4;
  const int64_t down = ceil_div(rows, kTile), across = ceil_div(columns, kTile);
  const int64_t most = std::max<int64_t>(1, kMost / (thin ? rows * columns : down * across));  // items in a launch
  for (int64_t first = 0; first < s.n; first += most) {
    const int64_t items = std::min(most, s.n - first), count = items * rows * columns;
    const From* from = x + first * rows * columns;
    if (thin) {
      launch(ctx, {op, s, dim3(unsigned(ceil_div(count, kBlock))), dim3(unsigned(std::min(count, kBlock)))},
             transpose_elements<From, Sink>, from, int(rows), int(columns), uint32_t(count), sink(first));
    } else {
      launch(ctx, {op, s, dim3(unsigned(items * down * across)), dim3(kTile, kTileRows),
                   kTile * (kTile + 1) * sizeof(float)},
             transpose_tiles<From, Sink>, from, int(rows), int(columns), int(down), int(across), sink(first));
    }
  }
}

template <typename From, typename To>
void transpose_to(Context& ctx, const char* op, Shape s, const From* x, int64_t rows, int64_t columns, To* y) {
  transpose(ctx, op, s, x, rows, columns, [&](int64_t first) {
    return Store<To>{y + first * rows * columns, int(rows), int(columns)};
  });
}

// Both layouts are the same list of elements.
bool same_order(Shape s) { return s.c == 1 || s.h * s.w == 1; }

void copy(Context& ctx, void* to, const void* from, size_t bytes) {
  if (to != from) ctx.copy(to, from, bytes);
}

// --- seeds

inline constexpr int kUnits = 256;  // in a launch: 3 of the 4 KB of a kernel's parameters
struct Units {
  struct {
    int channel, row, column;
  } at[kUnits];
};

template <typename T, int V>
__global__ void one_hot_kernel(Spread spread, Units units, int width, T* seed) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const auto& unit = units.at[spot.item];
  const bool here = unit.row < 0 || spot.place == unit.row * width + unit.column;
  float v[V];
#pragma unroll
  for (int i = 0; i < V; ++i) v[i] = here && spot.channel + i == unit.channel ? 1.f : 0.f;
  store_channels(seed + element_of(spread, spot), v);
}

}  // namespace

void relu_forward(Context& ctx, ConstView x, View y, const Epilogue& epilogue) {
  if (!epilogue.gates) y.shape = flat(y.shape);
  by_type_and_width(y.dtype, is_wide(y.shape.c, {x.data, y.data, epilogue.residual}), [&](auto type, auto width) {
    using T = decltype(type);
    forward<T, width()>(ctx, "relu_forward", Read<T>{x.as<T>()}, y, epilogue);
  });
}

void combine_backward(Context& ctx, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  if (!reads_gates(epilogue)) dx.shape = flat(dx.shape);
  by_type_and_width(dx.dtype, is_wide(dx.shape.c, {dy.data, dx.data, epilogue.other}), [&](auto type, auto width) {
    using T = decltype(type);
    backward<T, width()>(ctx, "combine_backward", Read<T>{dy.as<T>()}, dx, epilogue);
  });
}

void add_forward(Context& ctx, ConstView a, ConstView b, View y, const Epilogue& epilogue) {
  if (!epilogue.gates) y.shape = flat(y.shape);
  const bool wide = is_wide(y.shape.c, {a.data, b.data, y.data, epilogue.residual});
  by_type_and_width(y.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    forward<T, width()>(ctx, "add_forward", Sum<T>{a.as<T>(), b.as<T>()}, y, epilogue);
  });
}

void concat_forward(Context& ctx, ConstView x, View y, int64_t channel) {
  const View part{y.as<char>() + size_t(channel) * size_of(y.dtype), x.shape, y.dtype};
  const Epilogue end{.pitch = y.shape.c};
  const bool wide = is_wide(x.shape.c, {x.data, part.data}) && y.shape.c % 8 == 0;
  by_type_and_width(y.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    forward<T, width()>(ctx, "concat_forward", Read<T>{x.as<T>()}, part, end);
  });
}

void concat_backward(Context& ctx, ConstView dy, int64_t channel, View dx, const BackwardEpilogue& epilogue) {
  const char* part = dy.as<char>() + size_t(channel) * size_of(dy.dtype);
  const bool wide = is_wide(dx.shape.c, {part, dx.data, epilogue.other}) && dy.shape.c % 8 == 0;
  by_type_and_width(dx.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    const ReadPart<T> source{reinterpret_cast<const T*>(part), dx.shape.c, dy.shape.c};
    backward<T, width()>(ctx, "concat_backward", source, dx, epilogue);
  });
}

void channel_affine_forward(Context& ctx, ConstView x, const float* scale, const float* shift, View y,
                            const Epilogue& epilogue) {
  by_type_and_width(y.dtype, is_wide(y.shape.c, {x.data, y.data, epilogue.residual}), [&](auto type, auto width) {
    using T = decltype(type);
    forward<T, width()>(ctx, "channel_affine_forward", Affine<T>{x.as<T>(), scale, shift}, y, epilogue);
  });
}

void channel_affine_backward(Context& ctx, ConstView dy, const float* scale, View dx,
                             const BackwardEpilogue& epilogue) {
  by_type_and_width(dx.dtype, is_wide(dx.shape.c, {dy.data, dx.data, epilogue.other}), [&](auto type, auto width) {
    using T = decltype(type);
    backward<T, width()>(ctx, "channel_affine_backward", Affine<T>{dy.as<T>(), scale, nullptr}, dx, epilogue);
  });
}

void nhwc_to_nchw(Context& ctx, ConstView x, float* y) {
  const Shape s = x.shape;
  if (same_order(s) && x.dtype == DType::f32) return copy(ctx, y, x.data, size_t(s.count()) * sizeof(float));
  by_type(x.dtype, [&](auto type) {
    transpose_to(ctx, "nhwc_to_nchw", s, x.as<decltype(type)>(), s.h * s.w, s.c, y);
  });
}

void nchw_to_nhwc(Context& ctx, const float* x, View y) {
  const Shape s = y.shape;
  if (same_order(s) && y.dtype == DType::f32) return copy(ctx, y.data, x, size_t(s.count()) * sizeof(float));
  by_type(y.dtype, [&](auto type) {
    transpose_to(ctx, "nchw_to_nhwc", s, x, s.c, s.h * s.w, y.as<decltype(type)>());
  });
}

// Bits are moved, not converted.
void flatten_forward(Context& ctx, ConstView x, View y) {
  const Shape s = x.shape;
  if (same_order(s)) return copy(ctx, y.data, x.data, size_t(s.count()) * size_of(x.dtype));
  if (size_of(x.dtype) == 4) {
    transpose_to(ctx, "flatten_forward", s, x.as<uint32_t>(), s.h * s.w, s.c, y.as<uint32_t>());
  } else {
    transpose_to(ctx, "flatten_forward", s, x.as<uint16_t>(), s.h * s.w, s.c, y.as<uint16_t>());
  }
}

void flatten_backward(Context& ctx, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  if (same_order(dx.shape)) return SB_DEVICE::combine_backward(ctx, {dy.data, dx.shape, dy.dtype}, dx, epilogue);
  const Shape s = dx.shape;
  by_type(dx.dtype, [&](auto type) {
    using T = decltype(type);
    transpose(ctx, "flatten_backward", s, dy.as<T>(), s.c, s.h * s.w, [&](int64_t first) {
      return StoreGradient<T>{backward_end<T>(dx, epilogue), int(first)};
    });
  });
}

void one_hot(Context& ctx, View seed, const std::vector<SeedUnit>& units) {
  const Shape s = seed.shape;
  for (int64_t first = 0; first < s.n; first += kUnits) {
    const int64_t items = std::min<int64_t>(kUnits, s.n - first);
    Units chunk = {};
    for (int64_t i = 0; i < items; ++i) {
      const SeedUnit& u = units[size_t(first + i)];
      chunk.at[i] = {int(u.channel), int(u.row), int(u.col)};
    }
    by_type_and_width(seed.dtype, is_wide(s.c, {seed.data}), [&](auto type, auto width) {
      using T = decltype(type);
      spread_over<width()>(s.with_n(items), [&](Spread spread, dim3 grid, dim3 block) {
        launch(ctx, {"one_hot", s, grid, block}, one_hot_kernel<T, width()>, spread, chunk, int(s.w),
               seed.as<T>() + first * s.item());
      });
    });
  }
}

}  // namespace switchback::SB_DEVICE
