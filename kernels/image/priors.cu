// Priors: a thread an element or a pixel; percentiles a block an item.
#include <bit>

#include "kernels/device/ops.cuh"
#include "kernels/image/image_math.h"

namespace switchback::SB_DEVICE {
namespace {

constexpr int kThreads = 256;

template <typename Each>
__global__ void each_kernel(int64_t count, Each each) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) each(i);
}
template <typename Each>
void for_each(Context& ctx, const char* op, Shape shape, int64_t count, const Each& each) {
  if (count == 0) return;
  launch(ctx, {op, shape, dim3(unsigned(ceil_div(count, int64_t(kThreads)))), dim3(kThreads)}, each_kernel<Each>, count, each);
}

// The order statistic `rank` of the item's scores is found bit by bit from the highest: floats that are not negative are
// ordered as their bits. Integer counts alone: every order of additions gives the same.
__global__ void small_pixels_kernel(SmallPixels small, int c, int64_t pixels, const float* g, float* scores, float* x) {
  const Shared<uint32_t> counts(0, kThreads);
  const int t = int(threadIdx.x);
  x += int64_t(blockIdx.x) * pixels * c;
  g += int64_t(blockIdx.x) * pixels * c;
  scores += int64_t(blockIdx.x) * pixels;
  for (int64_t p = t; p < pixels; p += kThreads) scores[p] = image_math::pixel_score(small.by, c, x + p * c, g + p * c);
  // How many bits a thread's scores have below `limit`, all threads' together.
  const auto below = [&](uint32_t limit) {
    uint32_t count = 0;
    for (int64_t p = t; p < pixels; p += kThreads) count += load_as<uint32_t>(scores + p) < limit;
    counts[t] = count;
    for (int half = kThreads / 2; half > 0; half /= 2) {
      __syncthreads();
      if (t < half) counts[t] += uint32_t(counts[t + half]);
    }
    __syncthreads();
    const uint32_t all = counts[0];
    __syncthreads();
    return all;
  };
  const image_math::Rank rank = image_math::rank_of(small.percentile, pixels);
  const auto statistic = [&](int64_t place) {
    uint32_t bits = 0;  // the largest value that at most `place` scores are below
    for (int bit = 30; bit >= 0; --bit) {
      const uint32_t tried = bits | 1u << bit;
      if (int64_t(below(tried)) <= place) bits = tried;
    }
    return bits;
  };
  const float lower = std::bit_cast<float>(statistic(rank.lower));
  const float upper = rank.lower + 1 < pixels ? std::bit_cast<float>(statistic(rank.lower + 1)) : lower;
  const float limit = lower + rank.share * (upper - lower);
  for (int64_t p = t; p < pixels; p += kThreads)
    if (scores[p] < limit)
      for (int k = 0; k < c; ++k) x[p * c + k] = 0.f;
}

}  // namespace

void filter_image(Context& ctx, const SymmetricFilter& filter, ConstView x, View y) {
  const Shape s = x.shape;
  auto* rows = static_cast<float*>(ctx.scratch.reserve(size_t(s.count()) * sizeof(float)));
  for_each(ctx, "filter_image", s, s.count(), image_math::FilterPass{filter, x.as<float>(), rows, s.c, s.w});
  for_each(ctx, "filter_image", s, s.count(), image_math::FilterPass{filter, rows, y.as<float>(), s.w * s.c, s.h});
}

void mix(Context& ctx, float a, ConstView x, float b, View y) {
  for_each(ctx, "mix", x.shape, x.shape.count(), image_math::Mix{a, b, x.as<float>(), y.as<float>()});
}

void add_absolute(Context& ctx, ConstView x, View y) {
  for_each(ctx, "add_absolute", x.shape, x.shape.count(), image_math::AddAbsolute{x.as<float>(), y.as<float>()});
}

void scale_by(Context& ctx, const float* factors, ConstView x, View y) {
  for_each(ctx, "scale_by", x.shape, x.shape.count(),
           image_math::ScaledBy{x.shape.item(), factors, x.as<float>(), y.as<float>()});
}

void add_natural_gradient(Context& ctx, const NaturalPrior& prior, ConstView x, View g) {
  const Shape s = x.shape;
  for_each(ctx, "add_natural_gradient", s, s.pixels(),
           image_math::NaturalGradient{prior, s.h, s.w, s.c, x.as<float>(), g.as<float>()});
}

void momentum_step(Context& ctx, const MomentumRule& rule, ConstView g, float* momentum, float* squares, View x) {
  for_each(ctx, "momentum_step", x.shape, x.shape.pixels(),
           image_math::MomentumPixel{rule, x.shape.c, x.as<float>(), momentum, squares, g.as<float>()});
}

void clip_small_pixels(Context& ctx, const SmallPixels& small, ConstView g, View x) {
  const int64_t pixels = x.shape.h * x.shape.w;
  if (x.shape.n * pixels == 0) return;
  auto* scores = static_cast<float*>(ctx.scratch.reserve(size_t(x.shape.n * pixels) * sizeof(float)));
  launch(ctx, {"clip_small_pixels", x.shape, dim3(unsigned(x.shape.n)), dim3(kThreads), kThreads * sizeof(uint32_t)},
         small_pixels_kernel, small, int(x.shape.c), pixels, g.as<float>(), scores, x.as<float>());
}

}  // namespace switchback::SB_DEVICE
