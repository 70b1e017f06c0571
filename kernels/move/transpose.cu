// Transpose: a thread moves one element, in the order of what is written.
#include "kernels/move/transpose.h"

#include "kernels/device/ops.cuh"
#include "kernels/move/gather.cuh"

namespace switchback::SB_DEVICE {
namespace {

struct From {
  int axes;
  int size[TransposedFrom::kMost], stride[TransposedFrom::kMost];

  // Of an item of `places` pixels.
  __device__ __forceinline__ int64_t offset(const Spread& spread, const Spot& spot) const {
    int element = spot.place * spread.channels + spot.channel, at = 0;
#pragma unroll
    for (int i = TransposedFrom::kMost - 1; i > 0; --i) {
      if (i >= axes) continue;
      const int rest = element / size[i];
      at += (element - rest * size[i]) * stride[i];
      element = rest;
    }
    return int64_t(spot.item) * spread.places * spread.channels + at + element * stride[0];
  }
};
From from_of(const TransposedFrom& t) {
  From from{t.axes, {}, {}};
  for (size_t i = 0; i < t.size.size(); ++i) from.size[i] = t.size[i], from.stride[i] = t.stride[i];
  return from;
}

template <typename T>
__global__ void transpose_forward_kernel(Spread spread, From from, const T* x, T* y) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  y[pixel_of(spread, spot) * spread.channels + spot.channel] = x[from.offset(spread, spot)];
}

template <typename T>
__global__ void transpose_backward_kernel(Spread spread, From from, const T* dy, BackwardEnd<T> end) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  float v[1] = {to_float(dy[from.offset(spread, spot)])};
  finish(end, spot.item, spot.place, spot.channel, v);
}

}  // namespace

void transpose_forward(Context& ctx, const Transpose& transpose, ConstView x, View y) {
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    spread_over<1>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"transpose_forward", y.shape, grid, block}, transpose_forward_kernel<T>, spread,
             from_of(transposed_from(transpose)), x.as<T>(), y.as<T>());
    });
  });
}

void transpose_backward(Context& ctx, const Transpose& transpose, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  const From from = from_of(transposed_from(inverse(transpose, dx.shape)));
  by_type(dx.dtype, [&](auto type) {
    using T = decltype(type);
    spread_over<1>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"transpose_backward", dx.shape, grid, block}, transpose_backward_kernel<T>, spread, from, dy.as<T>(),
             backward_end<T>(dx, epilogue));
    });
  });
}

}  // namespace switchback::SB_DEVICE
