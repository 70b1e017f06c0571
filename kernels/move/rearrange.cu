// Reshape and Permute: a thread moves one element, in the order of what is written.
#include "kernels/move/rearrange.h"

#include "kernels/move/gather.cuh"
#include "kernels/device/ops.cuh"

namespace switchback::SB_DEVICE {
namespace {

// Where the elements of a tensor come from, in 32 bits: one item has fewer than 2^31.
struct Moved {
  int jk, k;      // sizes of the map: j·k and k
  int stride[3];
  int places;     // h·w of the result
  int in_places, in_c;

  __device__ __forceinline__ int64_t offset(int item, int place, int channel) const {
    const int at = channel * places + place, i = at / jk, rest = at - i * jk, j = rest / k;
    const int from = i * stride[0] + j * stride[1] + (rest - j * k) * stride[2], c = from / in_places;
    return int64_t(item) * in_places * in_c + (from - c * in_places) * in_c + c;
  }
};
Moved moved_by(const Rearrangement::Map& map, Shape in, Shape out) {
  return {int(map.size[1] * map.size[2]), int(map.size[2]), {int(map.stride[0]), int(map.stride[1]), int(map.stride[2])},
          int(out.h * out.w), int(in.h * in.w), int(in.c)};
}

template <typename T>
__global__ void rearrange_forward_kernel(Spread spread, Moved moved, const T* x, T* y) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  y[pixel_of(spread, spot) * spread.channels + spot.channel] = x[moved.offset(spot.item, spot.place, spot.channel)];
}

template <typename T>
__global__ void rearrange_backward_kernel(Spread spread, Moved moved, const T* dy, BackwardEnd<T> end) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  float v[1] = {to_float(dy[moved.offset(spot.item, spot.place, spot.channel)])};
  finish(end, spot.item, spot.place, spot.channel, v);
}

}  // namespace

void rearrange_forward(Context& ctx, const Rearrangement& how, ConstView x, View y) {
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    spread_over<1>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"rearrange_forward", y.shape, grid, block}, rearrange_forward_kernel<T>, spread,
             moved_by(how.forward, how.in, how.out), x.as<T>(), y.as<T>());
    });
  });
}

void rearrange_backward(Context& ctx, const Rearrangement& how, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  by_type(dx.dtype, [&](auto type) {
    using T = decltype(type);
    spread_over<1>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"rearrange_backward", dx.shape, grid, block}, rearrange_backward_kernel<T>, spread,
             moved_by(how.backward, how.out, how.in), dy.as<T>(), backward_end<T>(dx, epilogue));
    });
  });
}

}  // namespace switchback::SB_DEVICE
