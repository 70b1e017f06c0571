// Compiled with -ffp-contract=off: the normals are defined by the operations below, each rounded on its own (fma where
// it says fma), so that another device that does the same gets the same bits.
#include "kernels/noise.h"

#include <cmath>

#include "kernels/check.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"

namespace switchback {

static constexpr uint32_t kMultiply0 = 0xD2511F53u, kMultiply1 = 0xCD9E8D57u;  // Philox4x32, Salmon et al. 2011
static constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  auto [a, b, c, d] = counter;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p = uint64_t(kMultiply0) * a, q = uint64_t(kMultiply1) * c;
    a = uint32_t(q >> 32) ^ b ^ key[0];
    b = uint32_t(q);
    c = uint32_t(p >> 32) ^ d ^ key[1];
    d = uint32_t(p);
    key[0] += kWeyl0;
    key[1] += kWeyl1;
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
    for (int round = 0; round < 10; ++round) {
      for (int j = 0; j < kStep; ++j) {
        const uint64_t p = uint64_t(kMultiply0) * a[j], q = uint64_t(kMultiply1) * c[j];
        a[j] = uint32_t(q >> 32) ^ b[j] ^ key0;
        b[j] = uint32_t(q);
        c[j] = uint32_t(p >> 32) ^ d[j] ^ key1;
        d[j] = uint32_t(p);
      }
      key0 += kWeyl0;
      key1 += kWeyl1;
    }
    for (int j = 0; j < kStep; ++j) {
      words[0][j0 + j] = a[j], words[1][j0 + j] = b[j], words[2][j0 + j] = c[j], words[3][j0 + j] = d[j];
    }
  }
}

// ln((2k+1)·2^-25) for 0 <= k < 2^24, within 1 ulp or so. The argument is split as 2^e·(1+t) in integers: it has 25
// bits, and near 1 the rounding to f32 would cost all digits of the logarithm. Polynomial: Cephes logf.
static SB_INLINE float log_uniform(int32_t k) {
  const int32_t odd = 2 * k + 1;
  const int32_t bits = std::bit_cast<int32_t>(float(odd));
  // 2^p·(1+t), 1+t in about [sqrt(1/2), sqrt(2)): subtracting the bits of sqrt(1/2) rounds the exponent.
  const int32_t p = ((bits - 0x3f3504f3) >> 23);
  const float t = float(odd - (1 << p)) * std::bit_cast<float>((127 - p) << 23);  // exact
  const float e = float(p - 25);
  const float z = t * t;
  float y = 7.0376836292e-2f;
  y = std::fma(y, t, -1.1514610310e-1f);
  y = std::fma(y, t, 1.1676998740e-1f);
  y = std::fma(y, t, -1.2420140846e-1f);
  y = std::fma(y, t, 1.4249322787e-1f);
  y = std::fma(y, t, -1.6668057665e-1f);
  y = std::fma(y, t, 2.0000714765e-1f);
  y = std::fma(y, t, -2.4999993993e-1f);
  y = std::fma(y, t, 3.3333331174e-1f);
  y = y * t * z;
  y = std::fma(e, -2.12194440e-4f, y);
  y = std::fma(z, -0.5f, y);
  return std::fma(e, 0.693359375f, t + y);
}

// cos and sin of 2π·(2k+1)·2^-25: the nearest quarter turn q is taken off in integers, the rest is within ±π/4.
// Polynomials: Cephes sinf and cosf.
static SB_INLINE void cos_sin_turn(int32_t k, float& cosine, float& sine) {
  const int32_t odd = 2 * k + 1;
  const int32_t q = (odd + (1 << 22)) >> 23;
  constexpr float kStep = float(6.283185307179586 / (1 << 25));  // 2π·2^-25
  const float x = float(odd - (q << 23)) * kStep;
  const float z = x * x;
  float s = std::fma(-1.9515295891e-4f, z, 8.3321608736e-3f);
  s = std::fma(s, z, -1.6666654611e-1f);
  s = std::fma(s * z, x, x);
  float c = std::fma(2.443315711809948e-5f, z, -1.388731625493765e-3f);
  c = std::fma(c, z, 4.166664568298827e-2f);
  c = std::fma(c * z, z, std::fma(z, -0.5f, 1.f));
  // Turning by q quarters, without branches: swap for odd q, then signs.
  const uint32_t s_bits = std::bit_cast<uint32_t>(s), c_bits = std::bit_cast<uint32_t>(c);
  const uint32_t swap = (s_bits ^ c_bits) & (0u - (uint32_t(q) & 1u));
  const uint32_t cosine_sign = ((uint32_t(q) + 1u) & 2u) << 30, sine_sign = (uint32_t(q) & 2u) << 30;
  cosine = std::bit_cast<float>((c_bits ^ swap) ^ cosine_sign);
  sine = std::bit_cast<float>((s_bits ^ swap) ^ sine_sign);
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
      const float r = std::sqrt(-2.f * log_uniform(int32_t(first_word[j] >> 8)));
      float c, s;
      cos_sin_turn(int32_t(second_word[j] >> 8), c, s);
      cosines[j] = r * c;
      sines[j] = r * s;
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
  parallel_ranges(ctx, y.shape.n * chunks, 4 * kChunk, [&](int64_t begin, int64_t end) {
    float normals[kChunk] = {};
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t n = chunk / chunks, first = chunk % chunks * kChunk, last = std::min(item, first + kChunk);
      if (noise.sigma != 0.f) {
        normal_blocks(uint64_t(first / 4), noise.first_sample + uint32_t(n), noise.image, noise.seed, normals);
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
  with_type(y.dtype, "noise", [&](auto type) { write_noisy<decltype(type)>(ctx, x, noise, y); });
}

void write_interpolated_input(Context& ctx, const float* x, const float* baseline, const float* alpha, View y) {
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

}  // namespace switchback
