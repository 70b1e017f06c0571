// Compiled with -ffp-contract=off: see image_math.h.
#include "kernels/image/priors.h"

#include <algorithm>
#include <vector>

#include "kernels/device/device_ops.h"
#include "kernels/image/each.h"
#include "kernels/image/image_math.h"
#include "kernels/parallel.h"
#include "kernels/view_check.h"

namespace switchback {
namespace {

void check_f32(const char* op, ConstView x, ConstView y) {
  check_same(op, x, y);
  check_view(op, "x", x, x.shape, DType::f32);
}

// A line of `count` numbers, y = taps[0]·x + Σ taps[k]·(x[−k·step] + x[k·step]); all of them are there. Sums in the order
// of FilterPass.
void filter_line(const SymmetricFilter& f, const float* __restrict x, int64_t step, int64_t count, float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = f.taps[0] * x[i];
  for (int k = 1; k <= f.radius; ++k) {
    const float tap = f.taps[k];
    const float *before = x - k * step, *behind = x + k * step;
    for (int64_t i = 0; i < count; ++i) y[i] += tap * (before[i] + behind[i]);
  }
}

// The pass over places of one axis, `inner` numbers side by side at each (row by row of an image: along w they are its
// channels, along h whole rows).
void filter_along(Context& ctx, const image_math::FilterPass& pass, int64_t lines, int64_t inner) {
  const int64_t radius = pass.filter.radius, length = pass.length;
  parallel_ranges(ctx, lines * length, 2 * inner, [=](int64_t first, int64_t last) {
    while (first < last) {
      const int64_t line = first / length, begin = first % length, end = std::min(length, begin + last - first);
      const int64_t inside_begin = std::clamp(radius, begin, end), inside_end = std::clamp(length - radius, inside_begin, end);
      const int64_t base = line * length * inner;
      const auto edge = [&](int64_t from, int64_t to) {
        for (int64_t i = base + from * inner; i < base + to * inner; ++i) pass(i);
      };
      edge(begin, inside_begin);
      filter_line(pass.filter, pass.x + base + inside_begin * inner, inner, (inside_end - inside_begin) * inner,
                  pass.y + base + inside_begin * inner);
      edge(inside_end, end);
      first += end - begin;
    }
  });
}

}  // namespace

SymmetricFilter binomial_filter() {
  SymmetricFilter f{.radius = 2};
  f.taps[0] = 6.f / 16, f.taps[1] = 4.f / 16, f.taps[2] = 1.f / 16;
  return f;
}

SymmetricFilter box_filter(int side) {
  CHECK(side > 0 && side % 2 == 1 && side / 2 <= SymmetricFilter::kMostRadius, "a box filter of {} places", side);
  SymmetricFilter f{.border = SymmetricFilter::Border::mirror, .radius = side / 2};
  for (int k = 0; k <= f.radius; ++k) f.taps[k] = 1.f / float(side);
  return f;
}

SymmetricFilter gaussian_filter(double sigma) {
  SymmetricFilter f{.border = SymmetricFilter::Border::mirror, .radius = int(4 * sigma + 0.5)};
  CHECK(sigma > 0 && f.radius <= SymmetricFilter::kMostRadius, "a blur of {} pixels; at most {} are possible", sigma,
        SymmetricFilter::kMostRadius / 4);
  double sum = 0;
  for (int k = -f.radius; k <= f.radius; ++k) sum += std::exp(-0.5 * k * k / (sigma * sigma));
  for (int k = 0; k <= f.radius; ++k) f.taps[k] = float(std::exp(-0.5 * k * k / (sigma * sigma)) / sum);
  return f;
}

void filter_image(Context& ctx, const SymmetricFilter& filter, ConstView x, View y) {
  check_f32("filter_image", x, y);
  CHECK(x.data != y.data, "filter_image: the result lies where the image is");
  if (ctx.gpu) return ctx.gpu->ops->filter_image(ctx, filter, x, y);
  const Shape s = x.shape;
  auto* rows = static_cast<float*>(ctx.scratch.reserve(size_t(s.count()) * sizeof(float)));
  filter_along(ctx, {filter, x.as<float>(), rows, s.c, s.w}, s.n * s.h, s.c);
  filter_along(ctx, {filter, rows, y.as<float>(), s.w * s.c, s.h}, s.n, s.w * s.c);
}

void mix(Context& ctx, float a, ConstView x, float b, View y) {
  check_f32("mix", x, y);
  if (ctx.gpu) return ctx.gpu->ops->mix(ctx, a, x, b, y);
  for_each(ctx, x.shape.count(), 1, image_math::Mix{a, b, x.as<float>(), y.as<float>()});
}

void add_absolute(Context& ctx, ConstView x, View y) {
  check_f32("add_absolute", x, y);
  if (ctx.gpu) return ctx.gpu->ops->add_absolute(ctx, x, y);
  for_each(ctx, x.shape.count(), 1, image_math::AddAbsolute{x.as<float>(), y.as<float>()});
}

void scale_by(Context& ctx, const float* factors, ConstView x, View y) {
  check_f32("scale_by", x, y);
  if (ctx.gpu) return ctx.gpu->ops->scale_by(ctx, factors, x, y);
  for_each(ctx, x.shape.count(), 1, image_math::ScaledBy{x.shape.item(), factors, x.as<float>(), y.as<float>()});
}

void add_natural_gradient(Context& ctx, const NaturalPrior& prior, ConstView x, View g) {
  check_f32("add_natural_gradient", x, g);
  if (ctx.gpu) return ctx.gpu->ops->add_natural_gradient(ctx, prior, x, g);
  const Shape s = x.shape;
  const image_math::NaturalGradient each{prior, s.h, s.w, s.c, x.as<float>(), g.as<float>()};
  parallel_ranges(ctx, s.n * s.h, 8 * s.c * s.w, [=](int64_t first, int64_t last) {
    for (int64_t line = first; line < last; ++line)
      for (int64_t col = 0; col < s.w; ++col) each.at_place(line * s.w + col, line % s.h, col);
  });
}

void momentum_step(Context& ctx, const MomentumRule& rule, ConstView g, float* momentum, float* squares, View x) {
  check_f32("momentum_step", g, x);
  if (ctx.gpu) return ctx.gpu->ops->momentum_step(ctx, rule, g, momentum, squares, x);
  for_each(ctx, x.shape.pixels(), 8 * x.shape.c,
           image_math::MomentumPixel{rule, x.shape.c, x.as<float>(), momentum, squares, g.as<float>()});
}

void clip_small_pixels(Context& ctx, const SmallPixels& small, ConstView g, View x) {
  check_f32("clip_small_pixels", g, x);
  CHECK(small.percentile >= 0 && small.percentile <= 100, "percentile {}", small.percentile);
  if (ctx.gpu) return ctx.gpu->ops->clip_small_pixels(ctx, small, g, x);
  const int64_t c = x.shape.c, pixels = x.shape.h * x.shape.w;
  if (pixels == 0) return;
  parallel_ranges(ctx, x.shape.n, 20 * pixels, [&](int64_t first, int64_t last) {
    std::vector<float> scores(static_cast<size_t>(pixels), 0.f), sorted;
    for (int64_t n = first; n < last; ++n) {
      float* item = x.as<float>() + n * pixels * c;
      const float* gradient = g.as<float>() + n * pixels * c;
      for (int64_t p = 0; p < pixels; ++p)
        scores[size_t(p)] = image_math::pixel_score(small.by, c, item + p * c, gradient + p * c);
      const image_math::Rank rank = image_math::rank_of(small.percentile, pixels);
      sorted = scores;
      const auto at = sorted.begin() + rank.lower;
      std::nth_element(sorted.begin(), at, sorted.end());
      const float lower = *at, upper = at + 1 == sorted.end() ? lower : *std::min_element(at + 1, sorted.end());
      const float limit = lower + rank.share * (upper - lower);
      for (int64_t p = 0; p < pixels; ++p)
        if (scores[size_t(p)] < limit)
          for (int64_t k = 0; k < c; ++k) item[p * c + k] = 0.f;
    }
  });
}

}  // namespace switchback
