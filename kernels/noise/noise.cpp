// Compiled with -ffp-contract=off: see noise_math.h.
#include "kernels/noise/noise.h"

#include "kernels/check.h"
#include "kernels/device/device_ops.h"
#include "kernels/noise/noise_math.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"

namespace switchback {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  auto [a, b, c, d] = counter;
  for (int round = 0; round < noise_math::kRounds; ++round) {
    noise_math::philox_round(a, b, c, d, key[0], key[1]);
    key[0] += noise_math::kWeyl0;
    key[1] += noise_math::kWeyl1;
  }
  return {a, b, c, d};
}

static constexpr int kBlocks = 128;  // Philox blocks at a time; loops over them vectorise

// words[i][j] = word i of block first + j.
static void philox_blocks(uint64_t first, uint32_t sample, uint32_t image, uint64_t seed,
                          uint32_t (&words)[4][kBlocks]) {
  constexpr int kStep = 16;  // what the registers hold
  for (int j0 = 0; j0 < kBlocks; j0 += kStep) {
    uint32_t a[kStep], b[kStep], c[kStep], d[kStep];
    for (int j = 0; j < kStep; ++j) {
      const uint64_t block = first + uint64_t(j0 + j);
      a[j] = uint32_t(block), b[j] = uint32_t(block >> 32), c[j] = sample, d[j] = image;
    }
    uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
    for (int round = 0; round < noise_math::kRounds; ++round) {
      for (int j = 0; j < kStep; ++j) noise_math::philox_round(a[j], b[j], c[j], d[j], key0, key1);
      key0 += noise_math::kWeyl0;
      key1 += noise_math::kWeyl1;
    }
    for (int j = 0; j < kStep; ++j) {
      words[0][j0 + j] = a[j], words[1][j0 + j] = b[j], words[2][j0 + j] = c[j], words[3][j0 + j] = d[j];
    }
  }
}

// normals[4·j + lane] of blocks first + j.
static void normal_blocks(uint64_t first, uint32_t sample, uint32_t image, uint64_t seed, float* normals) {
  uint32_t words[4][kBlocks];
  philox_blocks(first, sample, image, seed, words);
  float lanes[4][kBlocks];
  for (int pair = 0; pair < 2; ++pair) {
    const uint32_t *first_word = words[2 * pair], *second_word = words[2 * pair + 1];
    float *cosines = lanes[2 * pair], *sines = lanes[2 * pair + 1];
    for (int j = 0; j < kBlocks; ++j) {
      noise_math::normal_pair(first_word[j], second_word[j], cosines[j], sines[j]);
    }
  }
  for (int j = 0; j < kBlocks; ++j) {
    normals[4 * j] = lanes[0][j];
    normals[4 * j + 1] = lanes[1][j];
    normals[4 * j + 2] = lanes[2][j];
    normals[4 * j + 3] = lanes[3][j];
  }
}

// Elements [first, last) of one image in NCHW order, cut where the channel changes: body(channel, pixel, element,
// count).
template <typename Body>
static void each_channel_run(int64_t first, int64_t last, int64_t hw, const Body& body) {
  while (first < last) {
    const int64_t channel = first / hw, pixel = first % hw, count = std::min(last - first, hw - pixel);
    body(channel, pixel, first, count);
    first += count;
  }
}

static constexpr int64_t kChunk = 4 * kBlocks;  // elements of one image done at a time

template <typename T>
static void write_noisy(Context& ctx, const float* x, const Noise& noise, View y) {
  const int64_t c = y.shape.c, hw = y.shape.h * y.shape.w, item = y.shape.item();
  const int64_t chunks = (item + kChunk - 1) / kChunk;
  const uint32_t first_sample = noise.first_sample + (noise.more_samples ? *noise.more_samples : 0);
  parallel_ranges(ctx, y.shape.n * chunks, 4 * kChunk, [&](int64_t begin, int64_t end) {
    float normals[kChunk] = {};
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t n = chunk / chunks, first = chunk % chunks * kChunk, last = std::min(item, first + kChunk);
      if (noise.sigma != 0.f) {
        normal_blocks(uint64_t(first / 4), first_sample + uint32_t(n), noise.image, noise.seed, normals);
      }
      each_channel_run(first, last, hw, [&](int64_t channel, int64_t pixel, int64_t element, int64_t count) {
        T* out = y.as<T>() + n * item + pixel * c + channel;
        const float *in = x + element, *z = normals + (element - first);
        for (int64_t i = 0; i < count; ++i) out[i * c] = T(in[i] + noise.sigma * z[i]);
      });
    }
  });
}

void write_noisy_input(Context& ctx, const float* x, const Noise& noise, View y) {
  CHECK(noise.image < (1u << 31), "noise: image index {} is not below 2^31", noise.image);
  if (ctx.gpu) return ctx.gpu->ops->write_noisy_input(ctx, x, noise, y);
  with_type(y.dtype, "noise", [&](auto type) { write_noisy<decltype(type)>(ctx, x, noise, y); });
}

void write_interpolated_input(Context& ctx, const float* x, const float* baseline, const float* alpha, View y) {
  if (ctx.gpu) return ctx.gpu->ops->write_interpolated_input(ctx, x, baseline, alpha, y);
  with_type(y.dtype, "interpolation", [&](auto type) {
    using T = decltype(type);
    const int64_t c = y.shape.c, hw = y.shape.h * y.shape.w, item = y.shape.item();
    const int64_t chunks = (item + kChunk - 1) / kChunk;
    parallel_ranges(ctx, y.shape.n * chunks, kChunk, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t n = chunk / chunks, first = chunk % chunks * kChunk, last = std::min(item, first + kChunk);
        each_channel_run(first, last, hw, [&](int64_t channel, int64_t pixel, int64_t element, int64_t count) {
          T* out = y.as<T>() + n * item + pixel * c + channel;
          const float* in = x + element;
          if (baseline) {
            const float* b = baseline + element;
            for (int64_t i = 0; i < count; ++i) out[i * c] = T(b[i] + alpha[n] * (in[i] - b[i]));
          } else {
            for (int64_t i = 0; i < count; ++i) out[i * c] = T(alpha[n] * in[i]);
          }
        });
      }
    });
  });
}

void accumulate_moments(Context& ctx, ConstView g, double* sum, double* square) {
  if (ctx.gpu) return ctx.gpu->ops->accumulate_moments(ctx, g, sum, square);
  with_type(g.dtype, "moments", [&](auto type) {
    using T = decltype(type);
    const int64_t c = g.shape.c, hw = g.shape.h * g.shape.w, item = g.shape.item();
    constexpr int64_t kPixels = 1024;  // a strip of the sums stays in the cache while all the maps are added
    const int64_t strips = (hw + kPixels - 1) / kPixels;
    parallel_ranges(ctx, strips, kPixels * c * g.shape.n, [&](int64_t begin, int64_t end) {
      for (int64_t strip = begin; strip < end; ++strip) {
        const int64_t first = strip * kPixels, last = std::min(hw, first + kPixels);
        for (int64_t n = 0; n < g.shape.n; ++n) {
          for (int64_t channel = 0; channel < c; ++channel) {
            const T* in = g.as<T>() + n * item + channel;
            double* to = sum + channel * hw;
            for (int64_t p = first; p < last; ++p) to[p] += double(float(in[p * c]));
            if (!square) continue;
            to = square + channel * hw;
            for (int64_t p = first; p < last; ++p) {
              const double v = double(float(in[p * c]));
              to[p] += v * v;
            }
          }
        }
      }
    });
  });
}

void advance(Context& ctx, uint32_t* counter, uint32_t step) {
  if (ctx.gpu) return ctx.gpu->ops->advance(ctx, counter, step);
  *counter += step;
}

}  // namespace switchback
