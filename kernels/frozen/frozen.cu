// Offsets, frozen forward passes and cut-outs of tapes on the device. All are bound by memory.
#include "kernels/device/channels.cuh"
#include "kernels/device/ops.cuh"
#include "kernels/sliding.h"

namespace switchback::SB_DEVICE {
namespace {

// --- offsets: a block sums a piece of one item, then a thread adds up the pieces of one item in their order

struct ConstantWeight {
  const float* values;
  int width, row, column, channel;  // strides of the constant; 0: it has but one there
  __device__ __forceinline__ double operator()(int64_t, int64_t place, int c) const {
    const int h = int(place) / width, w = int(place) - h * width;
    return double(values[int64_t(h) * row + w * column + c * channel]);
  }
};
struct GateWeight {
  const uint32_t *gates, *above;  // above may be null
  int64_t places, seeds_per_item;
  int words;
  GateConstants constants;
  // The first word of the pixel that an item's pixel takes its gates from.
  __device__ __forceinline__ int64_t word_of(int64_t item, int64_t place) const {
    return (item / seeds_per_item * places + place) * words;
  }
  __device__ __forceinline__ float at(int64_t word, int channel) const {
    const GateState state = gate_state(gates + word, above ? above + word : nullptr, channel);
    return state == GateState::inside ? constants.inside : state == GateState::above ? constants.above : constants.below;
  }
  __device__ __forceinline__ double operator()(int64_t item, int64_t place, int c) const {
    return double(at(word_of(item, place), c));
  }
};

inline constexpr int kOffsetThreads = 256;

// dy: [n, places, channels]; block b: piece b % pieces (`piece` pixels) of item b / pieces.
template <typename T, typename Weight>
__global__ void __launch_bounds__(kOffsetThreads)
    offset_parts_kernel(int64_t places, int channels, int64_t pieces, int64_t piece, const T* dy, Weight weight,
                        OffsetSum* parts) {
  const Shared<double> sums(0, kOffsetThreads), sizes(kOffsetThreads * int(sizeof(double)), kOffsetThreads);
  const int64_t item = blockIdx.x / pieces, begin = blockIdx.x % pieces * piece, end = min(places, begin + piece);
  const T* g = dy + (item * places + begin) * channels;
  const int t = int(threadIdx.x), elements = int(end - begin) * channels;
  double sum = 0, size = 0;
  for (int e = t; e < elements; e += kOffsetThreads) {
    const int place = e / channels;
    const double product = double(to_float(g[e])) * weight(item, begin + place, e - place * channels);
    sum += product;
    size += product < 0 ? -product : product;
  }
  sums[t] = sum;
  sizes[t] = size;
  for (int half = kOffsetThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) {
      sums[t] += double(sums[t + half]);
      sizes[t] += double(sizes[t + half]);
    }
  }
  if (t == 0) parts[blockIdx.x] = {sums[0], sizes[0]};
}

__global__ void offset_totals_kernel(int64_t items, int64_t pieces, const OffsetSum* parts, OffsetSum* sums) {
  const int64_t item = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (item >= items) return;
  OffsetSum total = sums[item];
  for (int64_t k = 0; k < pieces; ++k) {
    total.sum += parts[item * pieces + k].sum;
    total.magnitude += parts[item * pieces + k].magnitude;
  }
  sums[item] = total;
}

template <typename Weight>
void add_offsets(Context& ctx, const char* op, ConstView dy, const Weight& weight, OffsetSum* sums) {
  const Shape s = dy.shape;
  const int64_t places = s.h * s.w, piece = std::max<int64_t>(1, 32768 / s.c), pieces = ceil_div(places, piece);
  auto* parts = static_cast<OffsetSum*>(ctx.scratch.reserve(size_t(s.n * pieces) * sizeof(OffsetSum)));
  by_type(dy.dtype, [&](auto type) {
    using T = decltype(type);
    launch(ctx, {op, s, dim3(unsigned(s.n * pieces)), dim3(kOffsetThreads), 2 * kOffsetThreads * sizeof(double)},
           offset_parts_kernel<T, Weight>, places, int(s.c), pieces, piece, dy.as<T>(), weight, parts);
  });
  launch(ctx, {op, s, dim3(unsigned(ceil_div(s.n, 64))), dim3(64)}, offset_totals_kernel, s.n, pieces, parts, sums);
}

// --- forward passes that obey a tape

template <typename T, int V>
__global__ void __launch_bounds__(256)
    frozen_gates_kernel(Spread spread, GateWeight gates, float scale, const T* x, T* y) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const int64_t at = (int64_t(spot.item) * spread.places + spot.place) * spread.channels + spot.channel;
  const int64_t word = gates.word_of(spot.item, spot.place);
  float v[V];
  load_channels(x + at, v);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const int channel = spot.channel + i;
    v[i] = fmaf(scale, gate_bit(gates.gates + word, channel) ? v[i] : 0.f, gates.at(word, channel));
  }
  store_channels(y + at, v);
}

struct Pool {
  int in_h, in_w, out_w;
  SlidingAxisOf<int> rows, columns;
};

// A thread: one channel of one output pixel.
template <typename T, typename Switch>
__global__ void __launch_bounds__(256) frozen_max_pool_kernel(Spread spread, Pool pool, int64_t items_per_tape_item,
                                                              const T* x, const Switch* switches, T* y) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  const int64_t item = int64_t(spread.places) * spread.channels;
  const int64_t element = int64_t(spot.place) * spread.channels + spot.channel;
  const int name = int(switches[spot.item / items_per_tape_item * item + element]);
  const int i = spot.place / pool.out_w, j = spot.place - i * pool.out_w;
  const int h = pool.rows.input(i, name / pool.columns.kernel), w = pool.columns.input(j, name % pool.columns.kernel);
  const bool inside = h >= 0 && h < pool.in_h && w >= 0 && w < pool.in_w;
  const int64_t from = ((int64_t(spot.item) * pool.in_h + h) * pool.in_w + w) * spread.channels + spot.channel;
  y[spot.item * item + element] = from_float<T>(inside ? to_float(x[from]) : 0.f);
}

// --- cut-outs. A thread: sizeof(Unit) bytes.
template <typename Unit>
__global__ void __launch_bounds__(256)
    cut_out_kernel(int64_t units, CutOut s, int units_per_pixel, const char* from, const Corner* corners, char* to) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= units) return;
  const int64_t pixel = at / units_per_pixel, row = pixel / s.width, p = row / s.height;
  const Corner corner = corners[p];
  const int64_t map_row = corner.item * s.map_height + corner.row + (row - p * s.height);
  const int64_t map_pixel = map_row * s.map_width + corner.column + (pixel - row * s.width);
  store_as(to + at * int64_t(sizeof(Unit)),
           load_as<Unit>(from + (map_pixel * units_per_pixel + (at - pixel * units_per_pixel)) * int64_t(sizeof(Unit))));
}

}  // namespace

void add_constant_offset(Context& ctx, ConstView dy, ConstView constant, OffsetSum* sums) {
  const Shape k = constant.shape;
  const ConstantWeight weight{constant.as<float>(), int(dy.shape.w), k.h == 1 ? 0 : int(k.w * k.c),
                              k.w == 1 ? 0 : int(k.c), k.c == 1 ? 0 : 1};
  add_offsets(ctx, "add_constant_offset", dy, weight, sums);
}

namespace {

GateWeight gate_weight(Shape s, const uint32_t* gates, const uint32_t* above, int64_t per_item,
                       const GateConstants& constants) {
  return {gates, above, s.h * s.w, per_item, int(gate_words_per_pixel(s.c)), constants};
}

}  // namespace

void add_gate_offset(Context& ctx, ConstView dy, const uint32_t* gates, const uint32_t* above, int64_t seeds_per_item,
                     const GateConstants& constants, OffsetSum* sums) {
  add_offsets(ctx, "add_gate_offset", dy, gate_weight(dy.shape, gates, above, seeds_per_item, constants), sums);
}

void frozen_gates_forward(Context& ctx, ConstView x, const uint32_t* gates, const uint32_t* above, float scale,
                          const GateConstants& constants, int64_t items_per_tape_item, View y) {
  const Shape s = x.shape;
  by_type_and_width(x.dtype, is_wide(s.c, {x.data, y.data}), [&](auto type, auto width) {
    using T = decltype(type);
    spread_over<width()>(s, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"frozen_gates_forward", s, grid, block}, frozen_gates_kernel<T, width()>, spread,
             gate_weight(s, gates, above, items_per_tape_item, constants), scale, x.as<T>(), y.as<T>());
    });
  });
}

void frozen_max_pool2d_forward(Context& ctx, const MaxPool2d& pool, ConstView x, const void* switches,
                               int64_t items_per_tape_item, View y) {
  const Pool sizes{int(x.shape.h), int(x.shape.w), int(y.shape.w), sliding_rows<int>(pool), sliding_columns<int>(pool)};
  by_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    spread_over<1>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
      const Launch l{"frozen_max_pool2d_forward", y.shape, grid, block};
      if (pool.switch_bytes() == 1)
        launch(ctx, l, frozen_max_pool_kernel<T, uint8_t>, spread, sizes, items_per_tape_item, x.as<T>(),
               static_cast<const uint8_t*>(switches), y.as<T>());
      else
        launch(ctx, l, frozen_max_pool_kernel<T, uint16_t>, spread, sizes, items_per_tape_item, x.as<T>(),
               static_cast<const uint16_t*>(switches), y.as<T>());
    });
  });
}

void cut_out(Context& ctx, const CutOut& s, const void* from, const Corner* corners, int64_t count, void* to) {
  const auto run = [&](auto unit) {
    using Unit = decltype(unit);
    const int64_t per_pixel = s.pixel_bytes / int64_t(sizeof(Unit)), units = count * s.height * s.width * per_pixel;
    launch(ctx, {"cut_out", {count, s.pixel_bytes, s.height, s.width}, dim3(unsigned(ceil_div(units, 256))), dim3(256)},
           cut_out_kernel<Unit>, units, s, int(per_pixel), static_cast<const char*>(from), corners, static_cast<char*>(to));
  };
  const uintptr_t alignment = uintptr_t(s.pixel_bytes) | reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to);
  if (alignment % 16 == 0) run(uint4{});
  else if (alignment % 4 == 0) run(uint32_t{});
  else if (alignment % 2 == 0) run(uint16_t{});
  else run(uint8_t{});
}

}  // namespace switchback::SB_DEVICE
