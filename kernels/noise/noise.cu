// Inputs with noise, interpolated inputs, and the sums of maps, on the device. The normals are noise.cpp's, bit by bit:
// noise_math.h.
#include <algorithm>

#include "kernels/noise/noise_math.h"
#include "kernels/device/ops.cuh"

namespace switchback::SB_DEVICE {
namespace {

struct Image {
  int channels, places;  // h·w
  int blocks;            // of 4 elements in NCHW order
};
Image image_of(Shape s) { return {int(s.c), int(s.h * s.w), int(ceil_div(s.item(), 4))}; }

// The block that thread t of an image has: where channels are whole blocks, neighbouring threads take the same 4 pixels
// of all the channels, which are neighbours in y.
__device__ __forceinline__ int block_of(const Image& image, int t) {
  if (image.places % 4) return t;
  const int pixels = t / image.channels;
  return (t - pixels * image.channels) * (image.places / 4) + pixels;
}

__device__ __forceinline__ void normals_of(uint32_t block, uint32_t sample, const Noise& noise, float (&normals)[4]) {
  uint32_t a = block, b = 0, c = sample, d = noise.image;
  uint32_t key0 = uint32_t(noise.seed), key1 = uint32_t(noise.seed >> 32);
#pragma unroll
  for (int round = 0; round < noise_math::kRounds; ++round) {
    noise_math::philox_round(a, b, c, d, key0, key1);
    key0 += noise_math::kWeyl0;
    key1 += noise_math::kWeyl1;
  }
  noise_math::normal_pair(a, b, normals[0], normals[1]);
  noise_math::normal_pair(c, d, normals[2], normals[3]);
}

// A thread: 4 elements of one sample. x: [c,h,w]; y: [n,h,w,c]
template <typename T>
__global__ void noisy_kernel(Image image, uint32_t count, const float* x, Noise noise, T* y) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= count) return;
  const uint32_t n = thread / uint32_t(image.blocks);
  const int block = block_of(image, int(thread - n * uint32_t(image.blocks)));
  const uint32_t more = noise.more_samples ? *noise.more_samples : 0;
  float normals[4] = {};
  if (noise.sigma != 0.f) normals_of(uint32_t(block), noise.first_sample + more + n, noise, normals);
  const int item = image.channels * image.places;
  int channel = 4 * block / image.places, place = 4 * block - channel * image.places;
  y += int64_t(n) * item;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int element = 4 * block + i;
    if (element >= item) return;
    const float v = noise_math::add(x[element], noise_math::multiply(noise.sigma, normals[i]));
    y[place * image.channels + channel] = from_float<T>(v);
    if (++place == image.places) place = 0, ++channel;
  }
}

// A thread: one element of y [n,h,w,c]; x, baseline: [c,h,w]
template <typename T>
__global__ void interpolated_kernel(Image image, uint32_t count, const float* x, const float* baseline,
                                    const float* alpha, T* y) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= count) return;
  const uint32_t item = uint32_t(image.channels * image.places), n = thread / item, element = thread - n * item;
  const uint32_t place = element / uint32_t(image.channels), channel = element - place * uint32_t(image.channels);
  const int64_t from = int64_t(channel) * image.places + place;
  const float b = baseline ? baseline[from] : 0.f, difference = baseline ? noise_math::add(x[from], -b) : x[from];
  const float step = noise_math::multiply(alpha[n], difference);
  y[thread] = from_float<T>(baseline ? noise_math::add(b, step) : step);
}

// A thread: one element of all n maps g [n,h,w,c], in their order. sum, square: [c,h,w]
template <typename T>
__global__ void moments_kernel(Image image, int64_t maps, const T* g, double* sum, double* square) {
  const int element = int(blockIdx.x * blockDim.x + threadIdx.x), item = image.channels * image.places;
  if (element >= item) return;
  const int place = element / image.channels;
  const int64_t to = int64_t(element - place * image.channels) * image.places + place;
  double total = sum[to], squares = square ? square[to] : 0;
#pragma unroll 4
  for (int64_t n = 0; n < maps; ++n) {
    const double v = double(to_float(g[n * item + element]));
    total += v;
    squares += v * v;  // v has 24 bits: the product is exact
  }
  sum[to] = total;
  if (square) square[to] = squares;
}

__global__ void advance_kernel(uint32_t* counter, uint32_t step) { *counter += step; }

inline constexpr int64_t kMostThreads = (int64_t(1) << 31) - 1, kBlock = 256;

// run(launch, first item, threads) until all items are covered: nearly always once.
template <typename Run>
void over_items(const char* op, Shape s, int64_t threads_per_item, const Run& run) {
  CHECK(s.item() <= kMostThreads - kBlock, "{}: an image of {}x{}x{} is too large", op, s.c, s.h, s.w);
  const int64_t most = kMostThreads / std::max<int64_t>(threads_per_item, 1);
  for (int64_t first = 0; first < s.n && threads_per_item > 0; first += most) {
    const int64_t threads = std::min(most, s.n - first) * threads_per_item;
    run(Launch{op, s, dim3(unsigned(ceil_div(threads, kBlock))), dim3(unsigned(std::min(threads, kBlock)))}, first,
        uint32_t(threads));
  }
}

}  // namespace

void write_noisy_input(Context& ctx, const float* x, const Noise& noise, View y) {
  const Image image = image_of(y.shape);
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    over_items("noise", y.shape, image.blocks, [&](const Launch& l, int64_t first, uint32_t threads) {
      Noise part = noise;
      part.first_sample += uint32_t(first);
      launch(ctx, l, noisy_kernel<T>, image, threads, x, part, y.as<T>() + first * y.shape.item());
    });
  });
}

void write_interpolated_input(Context& ctx, const float* x, const float* baseline, const float* alpha, View y) {
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    over_items("interpolation", y.shape, y.shape.item(), [&](const Launch& l, int64_t first, uint32_t threads) {
      launch(ctx, l, interpolated_kernel<T>, image_of(y.shape), threads, x, baseline, alpha + first,
             y.as<T>() + first * y.shape.item());
    });
  });
}

void accumulate_moments(Context& ctx, ConstView g, double* sum, double* square) {
  if (g.shape.n == 0) return;
  by_type(g.dtype, [&](auto type) {
    using T = decltype(type);
    over_items("moments", g.shape.with_n(1), g.shape.item(), [&](const Launch& l, int64_t, uint32_t) {
      launch(ctx, l, moments_kernel<T>, image_of(g.shape), g.shape.n, g.as<T>(), sum, square);
    });
  });
}

void advance(Context& ctx, uint32_t* counter, uint32_t step) {
  launch(ctx, {"advance", {1, 1, 1, 1}, dim3(1), dim3(1)}, advance_kernel, counter, step);
}

}  // namespace switchback::SB_DEVICE
