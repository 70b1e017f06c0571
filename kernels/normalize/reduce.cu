#include "kernels/normalize/reduce.cuh"

#include "kernels/device/ops.cuh"
#include "kernels/normalize/reduce.h"

namespace switchback::SB_DEVICE {
namespace {

template <typename T>
struct Read {
  const T* x;  // [n, places, channels]
  int places, channels;
  __device__ __forceinline__ float operator()(int item, int place, int channel) const {
    return to_float(x[(int64_t(item) * places + place) * channels + channel]);
  }
};

template <typename T>
struct StoreScaled {
  T* y;
  int places, channels;
  float scale;
  __device__ __forceinline__ void operator()(int item, int place, int channel, float sum) const {
    y[(int64_t(item) * places + place) * channels + channel] = from_float<T>(scale * sum);
  }
};

// A thread: V channels of one dx pixel.
template <typename T, int V>
__global__ void reduce_backward_kernel(Spread spread, Operand dy, float scale, BackwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  float g[V];
  load_operand<T>(dy, spot.item, spot.place, spot.channel, g);
#pragma unroll
  for (int i = 0; i < V; ++i) g[i] *= scale;
  finish(end, spot.item, spot.place, spot.channel, g);
}

}  // namespace

void reduce_forward(Context& ctx, const Reduce& reduce, ConstView x, View y) {
  const Shape s = x.shape;
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    reduce_sums(ctx, "reduce_forward", s, y.shape, Read<T>{x.as<T>(), int(s.h * s.w), int(s.c)},
                StoreScaled<T>{y.as<T>(), int(y.shape.h * y.shape.w), int(y.shape.c), factor_of(reduce, s)});
  });
}

void reduce_backward(Context& ctx, const Reduce& reduce, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  const Operand from = operand_of(dy, dx.shape);
  const bool wide = is_wide(dx.shape.c, {dy.data, dx.data, epilogue.other});
  by_type_and_width(dx.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    spread_over<width()>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"reduce_backward", dx.shape, grid, block}, reduce_backward_kernel<T, width()>, spread, from,
             factor_of(reduce, dx.shape), backward_end<T>(dx, epilogue));
    });
  });
}

}  // namespace switchback::SB_DEVICE
