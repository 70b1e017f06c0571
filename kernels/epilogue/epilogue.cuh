// The two epilogues on a GPU, for kernels whose warps hold 32 neighbouring channels of one pixel, a channel a lane: that
// is one gate word, one coalesced row of y, and one ballot.
#pragma once

#include "kernels/device/cuda.cuh"
#include "kernels/epilogue/epilogue.h"

namespace switchback::SB_DEVICE {

// y = act(v + bias + residual), with gate bits.
template <typename T>
struct ForwardEnd {
  T* y;                // [n,h,w,channels]
  const float* bias;   // [channels] or null
  const T* residual;   // as y, or null
  float clip;
  bool relu;
  uint32_t* gates;     // [n,h,w,words] or null
  uint32_t* above;     // the clip's second plane, or null
  int channels, words;
  int pitch;           // elements of y from pixel to pixel: channels, or more in a concatenation
  __device__ __forceinline__ float act(float s) const { return relu ? relu_limits(clip).value(s) : s; }
};
template <typename T>
ForwardEnd<T> forward_end(View y, const float* bias, const Epilogue& e) {
  const bool clipped = e.gates && e.clip != kNoClip;
  return {y.as<T>(), bias, static_cast<const T*>(e.residual), e.clip, e.relu, e.gates,
          clipped ? e.gates + gate_words(y.shape) : nullptr, int(y.shape.c), int(gate_words_per_pixel(y.shape.c)),
          int(e.pitch ? e.pitch : y.shape.c)};
}

// dx = rule(gate, v + other).
template <typename T>
struct BackwardEnd {
  T* dx;              // [n,h,w,channels]
  const T* other;     // as dx, or null
  const uint32_t* gates;
  bool relu;
  ReluRule rule;
  int channels, words;
  int places;          // h·w
  int seeds_per_item;  // item n of dx uses the gates of item n / seeds_per_item
};
template <typename T>
BackwardEnd<T> backward_end(View dx, const BackwardEpilogue& e) {
  return {dx.as<T>(), static_cast<const T*>(e.other), e.gates, e.relu, e.rule, int(dx.shape.c),
          int(gate_words_per_pixel(dx.shape.c)), int(dx.shape.h * dx.shape.w), int(e.seeds_per_item)};
}

__device__ __forceinline__ float relu_of(float s, float clip) {  // NaN passes
  return s <= 0.f ? 0.f : s > clip ? clip : s;
}

// The gates of a pixel; as below, with s of this lane's channel before the ReLU. live: there is such a channel.
template <typename T>
__device__ __forceinline__ void write_gates(const ForwardEnd<T>& e, int64_t pixel, int word, bool live, float s) {
  const bool writes = (threadIdx.x & 31) == 0;
  const int64_t at = pixel * e.words + word;
  const uint32_t inside = __ballot_sync(kFullMask, live && relu_limits(e.clip).inside(s));
  if (writes) e.gates[at] = inside;
  if (!e.above) return;
  const uint32_t above = __ballot_sync(kFullMask, live && relu_limits(e.clip).above(s));
  if (writes) e.above[at] = above;
}

// These two spell out what kernels/gates.h says (tests/kernels/gates_test.cpp holds them to it): called through it, the
// largest tf32 product has a register too few on sm_80.
//
// Called by all 32 lanes of a warp; this lane has v of channel 32·word + lane (anything where there is no such channel).
template <typename T>
__device__ __forceinline__ void finish(const ForwardEnd<T>& e, int64_t pixel, int word, float v) {
  const int lane = threadIdx.x & 31, channel = 32 * word + lane;
  const bool live = channel < e.channels;
  if (live) {
    if (e.bias) v += e.bias[channel];
    if (e.residual) v += to_float(e.residual[pixel * e.channels + channel]);
    e.y[pixel * e.pitch + channel] = from_float<T>(e.relu ? relu_of(v, e.clip) : v);
  }
  if (!e.gates) return;
  const uint32_t inside = __ballot_sync(kFullMask, live && v > 0.f && (v < e.clip || e.clip == kNoClip));
  if (lane == 0) e.gates[pixel * e.words + word] = inside;
  if (!e.above) return;
  const uint32_t above = __ballot_sync(kFullMask, live && v >= e.clip);
  if (lane == 0) e.above[pixel * e.words + word] = above;
}

// The same for `pixels` <= Pixels pixels from `first` on, v[i] of the i-th: what does not depend on the pixel is done
// once. All that is read comes before what is written: the compiler cannot know that these are different arrays, and
// would wait for memory pixel by pixel.
template <int Pixels, typename T>
__device__ __forceinline__ void finish_pixels(const ForwardEnd<T>& e, int64_t first, int pixels, int word,
                                              float (&v)[Pixels]) {
  const int lane = threadIdx.x & 31, channel = 32 * word + lane;
  const bool live = channel < e.channels;
  if (live && e.bias) {
    const float bias = e.bias[channel];
#pragma unroll
    for (int i = 0; i < Pixels; ++i) v[i] += bias;
  }
  if (live && e.residual) {
    const T* from = e.residual + first * e.channels + channel;
    float residual[Pixels];
#pragma unroll
    for (int i = 0; i < Pixels; ++i) residual[i] = i < pixels ? to_float(from[int64_t(i) * e.channels]) : 0.f;
#pragma unroll
    for (int i = 0; i < Pixels; ++i) v[i] += residual[i];
  }
  char* y = reinterpret_cast<char*>(e.y + first * e.pitch + channel);
  const int pitch = e.pitch * int(sizeof(T));
  const float least = e.relu ? 0.f : -kNoClip, most = e.relu ? e.clip : kNoClip;
#pragma unroll
  for (int i = 0; i < Pixels; ++i) {  // no branches
    float value = v[i] > most ? most : v[i];
    value = v[i] <= least ? least : value;
    const T out = from_float<T>(value);
    if (live & (i < pixels)) store_as(y + int64_t(i) * pitch, out);
  }
  if (!e.gates) return;
  // Lane i keeps and writes the words of pixel i.
  const float closed = e.above ? e.clip : __uint_as_float(0x7fffffffu);  // nothing is above a NaN
  uint32_t open = 0;
#pragma unroll
  for (int i = 0; i < Pixels; ++i) {
    const uint32_t ballot = __ballot_sync(kFullMask, live & (v[i] > 0.f) & !(v[i] >= closed));
    open = lane == i ? ballot : open;
  }
  const int64_t at = (first + lane) * e.words + word;
  if (lane < pixels) e.gates[at] = open;
  if (!e.above) return;
  uint32_t over = 0;
#pragma unroll
  for (int i = 0; i < Pixels; ++i) {
    const uint32_t ballot = __ballot_sync(kFullMask, live & (v[i] >= e.clip));
    over = lane == i ? ballot : over;
  }
  if (lane < pixels) e.above[at] = over;
}

// ---- Eight channels of a pixel a lane: what lanes have where columns of a tensor core's product are dealt out so that a
// quad's lane t gets channels 8t … 8t + 7 of a word. Accesses of 16 bytes, a byte of gates, no warp operation.

template <typename T>
__device__ __forceinline__ uint32_t two(T low, T high) {
  return uint32_t(low.bits) | uint32_t(high.bits) << 16;
}
template <typename T>
__device__ __forceinline__ void apart(uint32_t both, float& low, float& high) {
  T v;
  v.bits = uint16_t(both), low = to_float(v);
  v.bits = uint16_t(both >> 16), high = to_float(v);
}

// Whether eights of y and of the residual are whole and aligned to 16 bytes: else they are read and written one by one.
template <typename T>
bool by_eights(const ForwardEnd<T>& e) {
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  return e.channels % 8 == 0 && e.pitch % 8 == 0 && aligned(e.y) && aligned(e.residual);
}
template <typename T>
bool by_eights(const BackwardEnd<T>& e) {
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  return e.channels % 8 == 0 && aligned(e.dx) && aligned(e.other);
}

// Values of channels `channel` … + 7 of a pixel that begins at `from`.
template <typename T>
__device__ __forceinline__ void load_eight(float (&v)[8], const T* from, int channel) {
  if constexpr (std::is_same_v<T, float>) {
    const float4 low = load_as<float4>(from + channel), high = load_as<float4>(from + channel + 4);
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w, v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
  } else {
    const uint4 raw = load_as<uint4>(from + channel);
    apart<T>(raw.x, v[0], v[1]), apart<T>(raw.y, v[2], v[3]), apart<T>(raw.z, v[4], v[5]), apart<T>(raw.w, v[6], v[7]);
  }
}
template <typename T>
__device__ __forceinline__ void store_eight(T* to, int channel, const float (&v)[8]) {
  if constexpr (std::is_same_v<T, float>) {
    store_as(to + channel, float4{v[0], v[1], v[2], v[3]});
    store_as(to + channel + 4, float4{v[4], v[5], v[6], v[7]});
  } else {
    T out[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = from_float<T>(v[i]);
    store_as(to + channel, uint4{two(out[0], out[1]), two(out[2], out[3]), two(out[4], out[5]), two(out[6], out[7])});
  }
}

// −0 where there is none, which leaves every sum as it is.
template <typename T>
__device__ __forceinline__ void load_bias(const ForwardEnd<T>& e, int channel, float (&bias)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) bias[i] = e.bias && channel + i < e.channels ? e.bias[channel + i] : -0.f;
}

// The gates of channels `channel` … + 7 of a pixel, with v before the ReLU; closed where there is no such channel.
template <typename T>
__device__ __forceinline__ void write_gates_of_eight(const ForwardEnd<T>& e, int64_t pixel, int channel, const float (&v)[8]) {
  const int64_t byte = pixel * (4 * e.words) + channel / 8;
  const uint32_t live = (1u << min(max(e.channels - channel, 0), 8)) - 1;
  uint32_t open = 0, above = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) open |= v[i] > 0.f ? 1u << i : 0u;
  open &= live;
  if (e.above) {
#pragma unroll
    for (int i = 0; i < 8; ++i) above |= v[i] >= e.clip ? 1u << i : 0u;
    above &= live;
    open &= ~above;
    store_as(reinterpret_cast<char*>(e.above) + byte, uint8_t(above));
  }
  store_as(reinterpret_cast<char*>(e.gates) + byte, uint8_t(open));
}

// y = act(v), a branch for all.
template <typename T>
__device__ __forceinline__ void act_eight(const ForwardEnd<T>& e, const float (&v)[8], float (&y)[8]) {
  const float least = e.relu ? 0.f : -kNoClip;
#pragma unroll
  for (int i = 0; i < 8; ++i) y[i] = v[i] <= least ? least : v[i];
  if (e.relu && e.clip != kNoClip) {
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = y[i] > e.clip ? e.clip : y[i];
  }
}

// y = act(v + bias + residual), with gate bits, of channels `channel` … + 7 (a multiple of 8) of a pixel. `wide`: by_eights.
template <typename T>
__device__ __forceinline__ void finish_eight(const ForwardEnd<T>& e, bool wide, int64_t pixel, int channel,
                                             const float (&bias)[8], float (&v)[8]) {
  if (channel >= 32 * e.words) return;
  const bool live = channel < e.channels;  // else its gates are written, which are closed
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] += bias[i];
  if (e.residual && live) {
    const T* from = e.residual + pixel * e.channels;
    float residual[8] = {};
    if (wide) {
      load_eight(residual, from, channel);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (channel + i < e.channels) residual[i] = to_float(from[channel + i]);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] += residual[i];
  }
  if (live) {
    float y[8];
    act_eight(e, v, y);
    T* to = e.y + pixel * e.pitch;
    if (wide) {
      store_eight(to, channel, y);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (channel + i < e.channels) to[channel + i] = from_float<T>(y[i]);
    }
  }
  if (e.gates) write_gates_of_eight(e, pixel, channel, v);
}

// The gates of channels `channel` … + 7 of a pixel, bit i of the i-th.
template <typename T>
__device__ __forceinline__ uint32_t gates_of_eight(const BackwardEnd<T>& e, int64_t pixel, int channel) {
  return load_as<uint8_t>(reinterpret_cast<const char*>(e.gates) + pixel * (4 * e.words) + channel / 8);
}

// `n`: item of dx, `place`: h·W + w in it. No warp operation inside: lanes without a channel may skip it.
template <typename T>
__device__ __forceinline__ void finish(const BackwardEnd<T>& e, int n, int place, int channel, float v) {
  if (channel >= e.channels) return;
  const int64_t at = (int64_t(n) * e.places + place) * e.channels + channel;
  if (e.other) v += to_float(e.other[at]);
  if (e.relu) {
    bool gate = true;
    if (e.rule.gate_forward) {
      const int item = e.seeds_per_item == 1 ? n : n / e.seeds_per_item;
      const int64_t word = (int64_t(item) * e.places + place) * e.words + channel / 32;
      gate = e.gates[word] >> (channel & 31) & 1u;
    }
    v = apply(e.rule, gate, v);
  }
  e.dx[at] = from_float<T>(v);
}

}  // namespace switchback::SB_DEVICE
