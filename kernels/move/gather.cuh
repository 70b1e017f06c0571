// What kernels share that take each value of a result from elsewhere: the places of a thread's pixel and its tape's, and
// broadcast operands.
#pragma once

#include "kernels/pointwise/broadcast.h"
#include "kernels/device/channels.cuh"

namespace switchback::SB_DEVICE {

__device__ __forceinline__ int64_t pixel_of(const Spread& spread, const Spot& spot) {
  return int64_t(spot.item) * spread.places + spot.place;
}
// The item and pixel of the tape that a thread's go with.
template <typename T>
__device__ __forceinline__ int kept_item_of(const BackwardEnd<T>& end, int item) {
  return end.seeds_per_item == 1 ? item : item / end.seeds_per_item;
}
template <typename T>
__device__ __forceinline__ int64_t kept_pixel_of(const BackwardEnd<T>& end, const Spot& spot) {
  return int64_t(kept_item_of(end, spot.item)) * end.places + spot.place;
}

// V channels of an operand at a place of the result; all the same where it has one channel for them.
template <typename T, int V>
__device__ __forceinline__ void load_operand(const Operand& o, int item, int place, int channel, float (&v)[V]) {
  int64_t at = o.offset(item, place);
  if (o.channels) {
    at += channel;
    if (!o.f32 || std::is_same_v<T, float>) return load_channels(o.as<T>() + at, v);
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] = o.as<float>()[at + i];
    return;
  }
  const float all = o.f32 ? o.as<float>()[at] : to_float(o.as<T>()[at]);
#pragma unroll
  for (int i = 0; i < V; ++i) v[i] = all;
}

}  // namespace switchback::SB_DEVICE
