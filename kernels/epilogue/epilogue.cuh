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
