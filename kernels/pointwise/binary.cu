// Binary functions of broadcast operands. The function is a branch that all threads take alike; memory is what counts.
#include "kernels/pointwise/binary.h"

#include "kernels/device/ops.cuh"
#include "kernels/normalize/reduce.cuh"

namespace switchback::SB_DEVICE {
namespace {

__device__ __forceinline__ float apply(BinaryFunction f, float a, float b) {
  switch (f) {
    case BinaryFunction::add: return a + b;
    case BinaryFunction::sub: return a - b;
    case BinaryFunction::mul: return a * b;
    case BinaryFunction::div: return a / b;
    case BinaryFunction::max: return a != a || a > b ? a : b;
    case BinaryFunction::min: return a != a || a < b ? a : b;
    case BinaryFunction::where: return b != 0.f ? a : 0.f;
    case BinaryFunction::where_not: return b == 0.f ? a : 0.f;
    case BinaryFunction::greater: return a > b ? 1.f : 0.f;
    case BinaryFunction::greater_equal: return a >= b ? 1.f : 0.f;
    default: return a == b ? 1.f : 0.f;  // equal
  }
}

// g·∂(a ∘ b)/∂a, or /∂b.
__device__ __forceinline__ float gradient_of(BinaryFunction f, int operand, float g, float a, float b) {
  switch (f) {
    case BinaryFunction::add: return g;
    case BinaryFunction::sub: return operand == 0 ? g : 0.f - g;
    case BinaryFunction::mul: return g * (operand == 0 ? b : a);
    case BinaryFunction::div: return operand == 0 ? g / b : g / b * ((0.f - a) / b);
    case BinaryFunction::max:
    case BinaryFunction::min: {  // half of it at a tie
      const bool other = (f == BinaryFunction::max) == (operand == 0) ? a < b : a > b;
      return other ? 0.f : a == b ? 0.5f * g : g;
    }
    case BinaryFunction::where:
    case BinaryFunction::where_not: return operand == 0 ? apply(f, g, b) : 0.f;
    default: return 0.f;
  }
}

template <typename T, int V>
__global__ void binary_forward_kernel(Spread spread, BinaryFunction f, Operand a, Operand b, ForwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  float v[V] = {}, other[V] = {};
  if (spot.live) {
    load_operand<T>(a, spot.item, spot.place, spot.channel, v);
    load_operand<T>(b, spot.item, spot.place, spot.channel, other);
  }
#pragma unroll
  for (int i = 0; i < V; ++i) v[i] = apply(f, v[i], other[i]);
  finish(end, spread, spot, v);
}

// The gradient before it is summed over the broadcast places.
template <typename T>
struct Gradient {
  BinaryFunction function;
  int operand;
  const T* dy;
  Operand a, b;  // null data: not needed
  int places, channels, seeds_per_item;
  template <int V>
  __device__ __forceinline__ void load(int item, int place, int channel, float (&g)[V]) const {
    const int kept = seeds_per_item == 1 ? item : item / seeds_per_item;
    float va[V] = {}, vb[V] = {};
    load_channels(dy + (int64_t(item) * places + place) * channels + channel, g);
    if (a.data) load_operand<T>(a, kept, place, channel, va);
    if (b.data) load_operand<T>(b, kept, place, channel, vb);
#pragma unroll
    for (int i = 0; i < V; ++i) g[i] = gradient_of(function, operand, g[i], va[i], vb[i]);
  }
  __device__ __forceinline__ float operator()(int item, int place, int channel) const {
    float g[1];
    load(item, place, channel, g);
    return g[0];
  }
};

template <typename T, int V>
__global__ void binary_backward_kernel(Spread spread, Gradient<T> gradient, BackwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  float g[V];
  gradient.load(spot.item, spot.place, spot.channel, g);
  finish(end, spot.item, spot.place, spot.channel, g);
}

}  // namespace

void binary_forward(Context& ctx, const Binary& binary, ConstView a, ConstView b, View y, const Epilogue& epilogue) {
  const bool wide = is_wide(y.shape.c, {a.data, b.data, y.data, epilogue.residual});
  by_type_and_width(y.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    spread_over<width()>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"binary_forward", y.shape, grid, block}, binary_forward_kernel<T, width()>, spread, binary.function,
             operand_of(a, y.shape), operand_of(b, y.shape), forward_end<T>(y, nullptr, epilogue));
    });
  });
}

void binary_backward(Context& ctx, const Binary& binary, int operand, ConstView dy, ConstView a, ConstView b, View dx,
                     const BackwardEpilogue& epilogue) {
  const Shape full = dy.shape;
  const bool summed = dx.shape != full;
  const bool wide = !summed && is_wide(full.c, {dy.data, a.data, b.data, dx.data, epilogue.other});
  by_type_and_width(dx.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    const Gradient<T> gradient{binary.function, operand, dy.as<T>(), operand_of(a, full), operand_of(b, full),
                               int(full.h * full.w), int(full.c), int(epilogue.seeds_per_item)};
    if (!summed) {
      spread_over<width()>(full, [&](Spread spread, dim3 grid, dim3 block) {
        launch(ctx, {"binary_backward", full, grid, block}, binary_backward_kernel<T, width()>, spread, gradient,
               backward_end<T>(dx, epilogue));
      });
    } else if constexpr (width() == 1) {
      reduce_sums(ctx, "binary_backward", full, dx.shape, gradient, FinishGradient<T>{backward_end<T>(dx, epilogue)});
    }
  });
}

}  // namespace switchback::SB_DEVICE
