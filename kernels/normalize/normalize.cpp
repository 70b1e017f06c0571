#include "kernels/normalize/normalize.h"

#include <cmath>
#include <vector>

#include "kernels/device/device_ops.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"

namespace switchback {

static void check_same(const char* op, ConstView x, ConstView y) {
  CHECK(x.shape == y.shape && x.dtype == y.dtype, "{}: input [{},{},{},{}] and output [{},{},{},{}] differ", op,
        x.shape.n, x.shape.c, x.shape.h, x.shape.w, y.shape.n, y.shape.c, y.shape.h, y.shape.w);
}

// `kept` (a value of the tape) serves the items of dx in groups of seeds_per_item.
static void check_kept(const char* op, ConstView dx, ConstView kept, int64_t seeds_per_item) {
  CHECK(kept.dtype == dx.dtype && kept.shape.with_n(dx.shape.n) == dx.shape &&
            kept.shape.n * seeds_per_item >= dx.shape.n,
        "{}: {} kept items [{},{},{},{}] do not serve {} seeds each for [{},{},{},{}]", op, kept.shape.n, kept.shape.n,
        kept.shape.c, kept.shape.h, kept.shape.w, seeds_per_item, dx.shape.n, dx.shape.c, dx.shape.h, dx.shape.w);
}

template <typename T>
static void load_channels(const T* from, int64_t count, float* to) {
  for (int64_t c = 0; c < count; ++c) to[c] = float(from[c]);
}

// out[c] = sum of in[c - back … c + ahead], where in has `back` zeros before and `ahead` behind its channels.
static void window_sums(const float* in, int64_t channels, int64_t back, int64_t ahead, float* out) {
  std::fill(out, out + channels, 0.f);
  for (int64_t offset = -back; offset <= ahead; ++offset) {
    for (int64_t c = 0; c < channels; ++c) out[c] += in[c + offset];
  }
}

// d^-beta; AlexNet's 3/4 without pow.
static void negative_powers(const float* d, float beta, int64_t channels, float* out) {
  if (beta == 0.75f) {
    for (int64_t c = 0; c < channels; ++c) {
      const float root = std::sqrt(d[c]);
      out[c] = 1.f / (root * std::sqrt(root));
    }
  } else {
    for (int64_t c = 0; c < channels; ++c) out[c] = std::pow(d[c], -beta);
  }
}

namespace {

// One pixel's channels on their way through the layer, with room for the windows that hang over at both ends.
struct LrnPixel {
  LrnPixel(const LocalResponseNorm& lrn, int64_t channels)
      : lrn(lrn),
        channels(channels),
        back(lrn.size / 2),
        ahead((lrn.size - 1) / 2),
        x(channels),
        padded_(channels + 2 * lrn.size),
        d(channels),
        power(channels) {}

  // Fills x, d and power = d^-beta.
  template <typename T>
  void load(const T* from) {
    load_channels(from, channels, x.data());
    for (int64_t c = 0; c < channels; ++c) padded()[c] = x[c] * x[c];
    window_sums(padded(), channels, back, ahead, d.data());
    const float scale = lrn.alpha / float(lrn.size);
    for (int64_t c = 0; c < channels; ++c) d[c] = lrn.k + scale * d[c];
    negative_powers(d.data(), lrn.beta, channels, power.data());
  }
  float* padded() { return padded_.data() + lrn.size; }

  const LocalResponseNorm& lrn;
  const int64_t channels, back, ahead;
  std::vector<float> x;

 private:
  std::vector<float> padded_;

 public:
  std::vector<float> d, power;
};

}  // namespace

void lrn_forward(Context& ctx, const LocalResponseNorm& lrn, ConstView x, View y) {
  check_same("lrn_forward", x, y);
  CHECK(lrn.size >= 1, "lrn: size {} must be at least 1", lrn.size);
  if (ctx.gpu) return ctx.gpu->ops->lrn_forward(ctx, lrn, x, y);
  with_type(x.dtype, "lrn_forward", [&](auto type) {
    using T = decltype(type);
    const int64_t channels = x.shape.c;
    parallel_ranges(ctx, x.shape.pixels(), 8 * channels, [&](int64_t first, int64_t last) {
      LrnPixel pixel(lrn, channels);
      for (int64_t p = first; p < last; ++p) {
        pixel.load(x.as<T>() + p * channels);
        T* out = y.as<T>() + p * channels;
        for (int64_t c = 0; c < channels; ++c) out[c] = T(pixel.x[c] * pixel.power[c]);
      }
    });
  });
}

// dx_j = dy_j·d_j^-β − (2αβ/size)·x_j · sum over the windows c that hold j of dy_c·x_c·d_c^(-β-1).
void lrn_backward(Context& ctx, const LocalResponseNorm& lrn, ConstView dy, ConstView x, View dx,
                  const BackwardEpilogue& epilogue) {
  check_same("lrn_backward", dy, dx);
  check_kept("lrn_backward", dx, x, epilogue.seeds_per_item);
  check_epilogue(epilogue, "lrn_backward");
  CHECK(lrn.size >= 1, "lrn: size {} must be at least 1", lrn.size);
  if (ctx.gpu) return ctx.gpu->ops->lrn_backward(ctx, lrn, dy, x, dx, epilogue);
  with_type(dx.dtype, "lrn_backward", [&](auto type) {
    using T = decltype(type);
    const int64_t channels = dx.shape.c, hw = dx.shape.h * dx.shape.w, words = gate_words_per_pixel(channels);
    const BackwardTarget<T> target(dx, epilogue);
    const float factor = 2.f * lrn.alpha * lrn.beta / float(lrn.size);
    parallel_ranges(ctx, dx.shape.pixels(), 16 * channels, [&](int64_t first, int64_t last) {
      LrnPixel pixel(lrn, channels);
      std::vector<float> gradient(channels), crossed(channels);
      for (int64_t p = first; p < last; ++p) {
        const int64_t kept = p / hw / epilogue.seeds_per_item * hw + p % hw;
        pixel.load(x.as<T>() + kept * channels);
        load_channels(dy.as<T>() + p * channels, channels, gradient.data());
        float* product = pixel.padded();
        for (int64_t c = 0; c < channels; ++c) product[c] = gradient[c] * pixel.x[c] * pixel.power[c] / pixel.d[c];
        window_sums(product, channels, pixel.ahead, pixel.back, crossed.data());
        for (int64_t c = 0; c < channels; ++c) {
          gradient[c] = gradient[c] * pixel.power[c] - factor * pixel.x[c] * crossed[c];
        }
        for (int64_t c = 0; c < channels; c += 32) {
          target.write_group(p * channels + c, kept * words + c / 32, channels - c,
                             [&](int v, int lanes) SB_LAMBDA { return load8(gradient.data() + c + 8 * v, lanes); });
        }
      }
    });
  });
}

void softmax_forward(Context& ctx, ConstView x, View y) {
  check_same("softmax_forward", x, y);
  if (ctx.gpu) return ctx.gpu->ops->softmax_forward(ctx, x, y);
  with_type(x.dtype, "softmax_forward", [&](auto type) {
    using T = decltype(type);
    const int64_t channels = x.shape.c;
    parallel_ranges(ctx, x.shape.pixels(), 8 * channels, [&](int64_t first, int64_t last) {
      std::vector<float> values(channels);
      for (int64_t p = first; p < last; ++p) {
        load_channels(x.as<T>() + p * channels, channels, values.data());
        float most = -std::numeric_limits<float>::infinity();
        for (const float v : values) most = v > most || std::isnan(v) ? v : most;
        double sum = 0;
        for (float& v : values) {
          v = std::exp(v - most);
          sum += double(v);
        }
        T* out = y.as<T>() + p * channels;
        for (int64_t c = 0; c < channels; ++c) out[c] = T(float(double(values[c]) / sum));
      }
    });
  });
}

void softmax_backward(Context& ctx, ConstView dy, ConstView y, View dx, const BackwardEpilogue& epilogue) {
  check_same("softmax_backward", dy, dx);
  check_kept("softmax_backward", dx, y, epilogue.seeds_per_item);
  check_epilogue(epilogue, "softmax_backward");
  if (ctx.gpu) return ctx.gpu->ops->softmax_backward(ctx, dy, y, dx, epilogue);
  with_type(dx.dtype, "softmax_backward", [&](auto type) {
    using T = decltype(type);
    const int64_t channels = dx.shape.c, hw = dx.shape.h * dx.shape.w, words = gate_words_per_pixel(channels);
    const BackwardTarget<T> target(dx, epilogue);
    parallel_ranges(ctx, dx.shape.pixels(), 2 * channels, [&](int64_t first, int64_t last) {
      for (int64_t p = first; p < last; ++p) {
        const int64_t kept = p / hw / epilogue.seeds_per_item * hw + p % hw;
        const T *g = dy.as<T>() + p * channels, *out = y.as<T>() + kept * channels;
        double dot = 0;
        for (int64_t c = 0; c < channels; ++c) dot += double(float(g[c])) * double(float(out[c]));
        const F8 mean = _mm256_set1_ps(float(dot));
        for (int64_t c = 0; c < channels; c += 32) {
          target.write_group(p * channels + c, kept * words + c / 32, channels - c, [&](int v, int lanes) SB_LAMBDA {
            const int64_t at = c + 8 * v;
            return _mm256_mul_ps(load8(out + at, lanes), _mm256_sub_ps(load8(g + at, lanes), mean));
          });
        }
      }
    });
  });
}

}  // namespace switchback
