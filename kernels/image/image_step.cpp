// Compiled with -ffp-contract=off: see image_math.h.
#include "kernels/image/image_step.h"

#include "kernels/device/device_ops.h"
#include "kernels/image/image_math.h"
#include "kernels/parallel.h"
#include "kernels/view_check.h"

namespace switchback {
namespace {

// √Σ value(i)² over an item. Eight sums side by side, which vectorise.
template <typename Value>
double norm_of(int64_t count, const Value& value) {
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (int64_t k = 0; k < 8; ++k) sums[k] += value(i + k) * value(i + k);
  for (; i < count; ++i) sums[0] += value(i) * value(i);
  double sum = 0;
  for (const double part : sums) sum += part;
  return std::sqrt(sum);
}

void step_item(const ImageStep& s, const PixelRange& range, const float* clean, const float* g, int64_t c, int64_t count,
               float* x) {
  using Rule = ImageStep::Rule;
  using Ball = ImageStep::Ball;
  double norm = 0;
  if (s.rule == Rule::l2) norm = norm_of(count, [=](int64_t i) { return double(range.scale[i % c]) * double(g[i]); });
  if (s.rule == Rule::capped) norm = norm_of(count, [=](int64_t i) { return double(g[i]); });
  const float factor = image_math::step_factor(s, norm);
  for (int64_t first = 0; first < count; first += c)
    for (int64_t k = 0; k < c; ++k) {
      const int64_t i = first + k;
      x[i] = image_math::stepped(s, x[i], g[i], range.scale[k], factor);
      if (s.ball == Ball::inf) x[i] = image_math::within_inf(s, x[i], clean[i], range.scale[k]);
      if (s.ball != Ball::l2) x[i] = image_math::finished(s, x[i], range.lowest[k], range.highest[k]);
    }
  if (s.ball != Ball::l2) return;
  const double change = norm_of(count, [=](int64_t i) { return (double(x[i]) - double(clean[i])) / double(range.scale[i % c]); });
  const float back = change > double(s.epsilon) ? float(double(s.epsilon) / change) : 1.f;
  for (int64_t i = 0; i < count; ++i) {
    if (back != 1.f) x[i] = clean[i] + back * (x[i] - clean[i]);
    x[i] = image_math::finished(s, x[i], range.lowest[i % c], range.highest[i % c]);
  }
}

}  // namespace

void image_step(Context& ctx, const ImageStep& s, const PixelRange& range, const float* clean, ConstView g,
                const StopRule& stop, View x) {
  check_same("image_step", g, x);
  check_view("image_step", "x", x, x.shape, DType::f32);
  CHECK(s.ball == ImageStep::Ball::none || clean, "image_step: a ball around no image");
  if (ctx.gpu) return ctx.gpu->ops->image_step(ctx, s, range, clean, g, stop, x);
  const int64_t count = x.shape.item();
  parallel_ranges(ctx, x.shape.n, 4 * count, [=](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n)
      if (!image_math::stopped(stop, n))
        step_item(s, range, clean ? clean + n * count : nullptr, g.as<float>() + n * count, x.shape.c, count,
                  x.as<float>() + n * count);
  });
}

void scale_to_sphere(Context& ctx, const float* x, float radius, View y) {
  check_view("scale_to_sphere", "y", y, y.shape, DType::f32);
  if (ctx.gpu) return ctx.gpu->ops->scale_to_sphere(ctx, x, radius, y);
  const int64_t count = y.shape.item();
  parallel_ranges(ctx, y.shape.n, 3 * count, [=](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      float* v = y.as<float>() + n * count;
      const float factor = float(double(radius) / norm_of(count, [=](int64_t i) { return double(v[i]); }));
      for (int64_t i = 0; i < count; ++i) v[i] = x[i] + factor * v[i];
    }
  });
}

}  // namespace switchback
