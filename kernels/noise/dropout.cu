// Dropout: a thread an element, which draws its own Philox block.
#include "kernels/device/channels.cuh"
#include "kernels/device/ops.cuh"
#include "kernels/noise/noise_math.h"

namespace switchback::SB_DEVICE {
namespace {

__device__ __forceinline__ float factor(const DropoutDraw& draw, const Spread& spread, const Spot& spot) {
  const uint64_t e = draw.channels ? uint64_t(spot.channel) : uint64_t(spot.place) * uint64_t(spread.channels) + uint64_t(spot.channel);
  uint32_t w0 = uint32_t(e / 4), w1 = draw.step, w2 = draw.node, w3 = draw.first_item + uint32_t(spot.item);
  uint32_t key0 = uint32_t(draw.seed), key1 = uint32_t(draw.seed >> 32);
  for (int round = 0; round < noise_math::kRounds; ++round) {
    noise_math::philox_round(w0, w1, w2, w3, key0, key1);
    key0 += noise_math::kWeyl0;
    key1 += noise_math::kWeyl1;
  }
  const uint32_t word = e & 2 ? (e & 1 ? w3 : w2) : e & 1 ? w1 : w0;  // an array would lie in local memory
  return float(word >> 8) * 0x1p-24f >= draw.rate ? 1 / (1 - draw.rate) : 0.f;
}

template <typename T>
__global__ void dropout_forward_kernel(Spread spread, DropoutDraw draw, const T* x, T* y) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  const int64_t at = (int64_t(spot.item) * spread.places + spot.place) * spread.channels + spot.channel;
  y[at] = from_float<T>(to_float(x[at]) * factor(draw, spread, spot));
}

template <typename T>
__global__ void dropout_backward_kernel(Spread spread, DropoutDraw draw, const T* dy, BackwardEnd<T> end) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  const int64_t at = (int64_t(spot.item) * spread.places + spot.place) * spread.channels + spot.channel;
  float v[1] = {to_float(dy[at]) * factor(draw, spread, spot)};
  finish(end, spot.item, spot.place, spot.channel, v);
}

}  // namespace

void dropout_forward(Context& ctx, const DropoutDraw& draw, ConstView x, View y) {
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    spread_over<1>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"dropout_forward", y.shape, grid, block}, dropout_forward_kernel<T>, spread, draw, x.as<T>(), y.as<T>());
    });
  });
}

void dropout_backward(Context& ctx, const DropoutDraw& draw, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  by_type(dx.dtype, [&](auto type) {
    using T = decltype(type);
    spread_over<1>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"dropout_backward", dx.shape, grid, block}, dropout_backward_kernel<T>, spread, draw, dy.as<T>(),
             backward_end<T>(dx, epilogue));
    });
  });
}

}  // namespace switchback::SB_DEVICE
