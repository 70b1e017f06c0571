// Kernels whose threads hold V neighbouring channels of one pixel: V = 1 for any tensor, or 16 bytes of channels
// (kWide) where channels come in whole gate words. 32 / V neighbouring lanes always share one gate word, so a warp
// meets only where gates are written.
#pragma once

#include <algorithm>
#include <bit>
#include <initializer_list>

#include "kernels/device/cuda.cuh"
#include "kernels/epilogue/epilogue.cuh"

namespace switchback::SB_DEVICE {

template <typename T>
inline constexpr int kWide = 16 / int(sizeof(T));

// --- V neighbouring elements of E (1, 2 or 4 bytes) as one access, each as its bits

template <int Words>
struct WordsOf;
template <>
struct WordsOf<1> { using Type = uint32_t; };
template <>
struct WordsOf<2> { using Type = uint2; };
template <>
struct WordsOf<4> { using Type = uint4; };

template <int Words>
__device__ __forceinline__ void load_words(const void* p, uint32_t (&w)[Words]) {
  const auto raw = load_as<typename WordsOf<Words>::Type>(p);
  if constexpr (Words == 1) w[0] = raw;
  if constexpr (Words >= 2) w[0] = raw.x, w[1] = raw.y;
  if constexpr (Words == 4) w[2] = raw.z, w[3] = raw.w;
}
template <int Words>
__device__ __forceinline__ void store_words(void* p, const uint32_t (&w)[Words]) {
  if constexpr (Words == 1) store_as(p, w[0]);
  if constexpr (Words == 2) store_as(p, uint2{w[0], w[1]});
  if constexpr (Words == 4) store_as(p, uint4{w[0], w[1], w[2], w[3]});
}

template <int Bytes, int V>
__device__ __forceinline__ void load_bits(const void* p, uint32_t (&bits)[V]) {
  constexpr int kPerWord = 4 / Bytes, kWidth = 8 * Bytes;
  uint32_t words[V / kPerWord];
  load_words(p, words);
#pragma unroll
  for (int i = 0; i < V; ++i) bits[i] = words[i / kPerWord] >> i % kPerWord * kWidth & 0xffffffffu >> (32 - kWidth);
}
template <int Bytes, int V>  // bits above the element's are zero
__device__ __forceinline__ void store_bits(void* p, const uint32_t (&bits)[V]) {
  constexpr int kPerWord = 4 / Bytes, kWidth = 8 * Bytes;
  uint32_t words[V / kPerWord] = {};
#pragma unroll
  for (int i = 0; i < V; ++i) words[i / kPerWord] |= bits[i] << i % kPerWord * kWidth;
  store_words(p, words);
}

// --- the same as numbers: floats of an activation, small integers of switches

template <typename T, int V>
__device__ __forceinline__ void load_channels(const T* p, float (&v)[V]) {
  if constexpr (V == 1) {
    v[0] = to_float(*p);
  } else {
    uint32_t bits[V];
    load_bits<int(sizeof(T))>(p, bits);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if constexpr (sizeof(T) == 4) {
        v[i] = std::bit_cast<float>(bits[i]);
      } else {
        T element;
        element.bits = uint16_t(bits[i]);
        v[i] = to_float(element);
      }
    }
  }
}
template <typename T, int V>
__device__ __forceinline__ void store_channels(T* p, const float (&v)[V]) {
  if constexpr (V == 1) {
    *p = from_float<T>(v[0]);
  } else {
    uint32_t bits[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if constexpr (sizeof(T) == 4) bits[i] = std::bit_cast<uint32_t>(v[i]);
      else bits[i] = from_float<T>(v[i]).bits;
    }
    store_bits<int(sizeof(T))>(p, bits);
  }
}

template <typename Switch, int V>
__device__ __forceinline__ void load_switches(const Switch* p, uint32_t (&places)[V]) {
  if constexpr (V == 1) places[0] = *p;
  else load_bits<int(sizeof(Switch))>(p, places);
}
template <typename Switch, int V>
__device__ __forceinline__ void store_switches(Switch* p, const uint32_t (&places)[V]) {
  if constexpr (V == 1) *p = Switch(places[0]);
  else store_bits<int(sizeof(Switch))>(p, places);
}

// --- which pixel and channels a thread has

// The items [first, first + items) of a tensor: a launch has fewer than 2^31 threads, which then divide in 32 bits.
struct Spread {
  int first, items;
  int places;    // h·w
  int groups;    // threads for a pixel
  int channels;
};
struct Spot {
  int item, place;  // place = h·W + w
  int channel;      // the first of V
  bool live;        // false: there is no such channel (the thread still meets its warp)
};

template <int V>
__device__ __forceinline__ Spot spot_of(const Spread& s) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  const uint32_t pixel = thread / uint32_t(s.groups), item = pixel / uint32_t(s.places);
  const int channel = int(thread - pixel * uint32_t(s.groups)) * V;
  return {s.first + int(item), int(pixel - item * uint32_t(s.places)), channel,
          int(item) < s.items && channel < s.channels};
}

// Calls run(spread, grid, block) until all of the tensor is covered: nearly always once. groups: threads for a pixel.
template <int V, typename Run>
void spread_over(Shape s, int64_t groups, const Run& run) {
  const int64_t item = s.h * s.w * groups;
  constexpr int64_t kMostThreads = (int64_t(1) << 31) - 1, kBlock = 256;
  CHECK(item <= kMostThreads, "an item of [{},{},{},{}] is too large for one launch", s.n, s.c, s.h, s.w);
  const int64_t most = kMostThreads / std::max<int64_t>(item, 1);
  for (int64_t first = 0; first < s.n && item > 0; first += most) {
    const int64_t items = std::min(most, s.n - first), threads = items * item;
    const int64_t block = std::min(kBlock, ceil_div(threads, 32) * 32);
    run(Spread{int(first), int(items), int(s.h * s.w), int(groups), int(s.c)}, dim3(unsigned(ceil_div(threads, block))),
        dim3(unsigned(block)));
  }
}
// The same with whole gate words, for kernels that write gates.
template <int V, typename Run>
void spread_over(Shape s, const Run& run) {
  spread_over<V>(s, gate_words_per_pixel(s.c) * (32 / V), run);
}

// Whether all of these NHWC arrays of `channels` channels can be read and written 16 bytes at a time.
inline bool is_wide(int64_t channels, std::initializer_list<const void*> arrays) {
  return channels % 32 == 0 && std::all_of(arrays.begin(), arrays.end(), [](const void* p) {
           return reinterpret_cast<uintptr_t>(p) % 16 == 0;
         });
}

// Calls f(T(), V) with the element type and the channels of a thread, both known at compile time.
template <typename F>
void by_type_and_width(DType dtype, bool wide, const F& f) {
  by_type(dtype, [&](auto type) {
    if (wide) f(type, std::integral_constant<int, kWide<decltype(type)>>());
    else f(type, std::integral_constant<int, 1>());
  });
}

// --- the two epilogues

// A thread's V bits, of channels from `channel` on, together with those of the lanes that share its gate word.
template <int V>
__device__ __forceinline__ uint32_t gate_word(uint32_t bits, int channel) {
  if constexpr (V == 1) {
    return __ballot_sync(kFullMask, bits);
  } else {
    bits <<= channel & 31;
#pragma unroll
    for (int lanes = 1; lanes < 32 / V; lanes *= 2) bits |= __shfl_xor_sync(kFullMask, bits, lanes);
    return bits;
  }
}

// y = act(v + bias + residual), with gate bits. All lanes of a warp call it.
template <typename T, int V>
__device__ __forceinline__ void finish(const ForwardEnd<T>& e, const Spread& spread, const Spot& spot, float (&v)[V]) {
  const int64_t pixel = int64_t(spot.item) * spread.places + spot.place, at = pixel * e.channels + spot.channel;
  uint32_t inside = 0, above = 0;
  if (spot.live) {
    float residual[V] = {};
    if (e.residual) load_channels(e.residual + at, residual);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (e.bias) v[i] += e.bias[spot.channel + i];
      if (e.residual) v[i] += residual[i];
      inside |= uint32_t(relu_limits(e.clip).inside(v[i])) << i;
      if (e.above) above |= uint32_t(relu_limits(e.clip).above(v[i])) << i;
      v[i] = e.act(v[i]);
    }
    store_channels(e.y + pixel * e.pitch + spot.channel, v);
  }
  if (!e.gates) return;
  const int64_t word = pixel * e.words + spot.channel / 32;
  const bool writes = spot.live && spot.channel % 32 == 0;
  inside = gate_word<V>(inside, spot.channel);
  if (writes) e.gates[word] = inside;
  if (!e.above) return;
  above = gate_word<V>(above, spot.channel);
  if (writes) e.above[word] = above;
}

// dx = rule(gate, v + other) for a live spot. No warp operation inside.
template <typename T, int V>
__device__ __forceinline__ void finish(const BackwardEnd<T>& e, int item, int place, int channel, float (&v)[V]) {
  const int64_t at = (int64_t(item) * e.places + place) * e.channels + channel;
  if (e.other) {
    float other[V];
    load_channels(e.other + at, other);
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] += other[i];
  }
  if (e.relu) {
    uint32_t gates = ~0u;
    if (e.rule.gate_forward) {
      const int kept = e.seeds_per_item == 1 ? item : item / e.seeds_per_item;
      gates = e.gates[(int64_t(kept) * e.places + place) * e.words + channel / 32] >> (channel & 31);
    }
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] = apply(e.rule, gates >> i & 1u, v[i]);
  }
  store_channels(e.dx + at, v);
}

}  // namespace switchback::SB_DEVICE
