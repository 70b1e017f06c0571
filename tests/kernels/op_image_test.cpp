// What images are optimised with: steps of attacks, priors, transformations, products; all against plain double loops.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "kernels/image/fourier.h"
#include "kernels/image/image_step.h"
#include "kernels/image/priors.h"
#include "kernels/image/transform.h"
#include "tests/support/epilogue_check.h"
#include "tests/support/floats.h"
#include "tests/support/reference.h"

namespace switchback::test {
namespace {

Nchw constant_tolerance(Shape shape, double tolerance) { return Nchw(shape, tolerance); }

// The same bits for any number of threads.
void expect_threads_do_not_matter(OpRun& run, const std::function<std::vector<uint8_t>()>& op) {
  run.ctx.threads = 1;
  const std::vector<uint8_t> one = op();
  run.ctx.threads = 3;
  EXPECT_EQ(compare_bits(one, op()), "") << "1 and 3 threads";
}

// ---- image_step

struct Channels {
  std::vector<float> scale, lowest, highest;
};

void step_reference(const ImageStep& s, const Channels& range, const Nchw& clean, const Nchw& g, int64_t n, Nchw& x) {
  using Rule = ImageStep::Rule;
  const Shape shape = x.shape;
  const auto each = [&](const auto& body) {
    for (int64_t c = 0; c < shape.c; ++c)
      for (int64_t i = 0; i < shape.h; ++i)
        for (int64_t j = 0; j < shape.w; ++j) body(c, i, j, double(range.scale[size_t(c)]));
  };
  double squares = 0;
  each([&](int64_t c, int64_t i, int64_t j, double a) { squares += std::pow((s.rule == Rule::l2 ? a : 1) * g(n, c, i, j), 2); });
  const double norm = std::sqrt(squares);
  each([&](int64_t c, int64_t i, int64_t j, double a) {
    const double d = g(n, c, i, j);
    double& v = x(n, c, i, j);
    if (s.rule == Rule::plain) v += s.step * d;
    if (s.rule == Rule::capped) v += std::min(double(s.step), 2 / squares) * d;
    if (s.rule == Rule::sign) v += std::abs(a) * s.step * (d > 0 ? 1 : d < 0 ? -1 : 0);
    if (s.rule == Rule::l2) v += norm > 0 ? a * a * s.step * d / norm : 0;
  });
  double change = 0;
  each([&](int64_t c, int64_t i, int64_t j, double a) { change += std::pow((x(n, c, i, j) - clean(n, c, i, j)) / a, 2); });
  change = std::sqrt(change);
  each([&](int64_t c, int64_t i, int64_t j, double a) {
    double& v = x(n, c, i, j);
    const double at = clean(n, c, i, j);
    if (s.ball == ImageStep::Ball::inf) v = std::clamp(v, at - s.epsilon * std::abs(a), at + s.epsilon * std::abs(a));
    if (s.ball == ImageStep::Ball::l2 && change > s.epsilon) v = at + s.epsilon / change * (v - at);
    v = std::clamp(v, double(range.lowest[size_t(c)]), double(range.highest[size_t(c)])) * (1 - s.decay);
  });
}

void check_image_step(OpRun& run) {
  using Rule = ImageStep::Rule;
  using Ball = ImageStep::Ball;
  const Channels range{{0.5f, -2.f, 1.f}, {-0.75f, -1.f, -1e30f}, {0.75f, 0.875f, 1e30f}};  // -2: a negative scale
  const PixelRange on{run.input_of(range.scale).as<float>(), run.input_of(range.lowest).as<float>(),
                      run.input_of(range.highest).as<float>()};
  const Shape shape{5, 3, 9, 7};
  const Guarded &best = run.input_of(std::vector<int32_t>{1, 2, 3, 4, 5}), &labels = run.input_of(std::vector<int32_t>{1, 9, 3, 9, 9});
  for (const ImageStep& s : {ImageStep{.step = 0.25f}, ImageStep{.step = -0.25f, .decay = 0.125f},
                             ImageStep{.rule = Rule::capped, .step = 100.f}, ImageStep{.rule = Rule::capped, .step = 1e-3f},
                             ImageStep{Rule::sign, Ball::inf, 0.25f, 0.125f}, ImageStep{Rule::sign, Ball::inf, -0.0625f, 0.25f},
                             ImageStep{Rule::l2, Ball::l2, 0.5f, 0.25f}, ImageStep{Rule::l2, Ball::l2, 0.125f, 1e3f}}) {
    const Nchw start = run.reals(shape, DType::f32), clean = run.reals(shape, DType::f32);
    Nchw g = run.reals(shape, DType::f32);
    g.v[3] = 0;  // a sign of its own
    std::fill_n(g.v.begin() + shape.item(), shape.item(), 0.0);  // item 1 has no gradient
    const Activation on_g = run.input(g, DType::f32), on_clean = run.input(clean, DType::f32);
    for (const int stop : {0, 1, 2}) {  // none; the items with best == label; those with another
      const StopRule rule = stop == 0 ? StopRule{} : StopRule{best.as<int32_t>(), labels.as<int32_t>(), stop == 1};
      Nchw want = start;
      for (int64_t n = 0; n < shape.n; ++n)
        if (stop == 0 || (n == 0 || n == 2) != (stop == 1)) step_reference(s, range, clean, g, n, want);
      const auto once = [&] {
        const Activation x = run.in_place(start, DType::f32);
        image_step(run.ctx, s, on, on_clean.memory->as<float>(), on_g, rule, x);
        EXPECT_EQ(compare(x.read(), want, constant_tolerance(shape, 2e-6)), "")
            << "rule " << int(s.rule) << " ball " << int(s.ball) << " stop " << stop;
        return x.memory->read();
      };
      expect_threads_do_not_matter(run, once);
    }
  }
}

void check_sphere(OpRun& run) {
  const Shape shape{4, 3, 11, 5};
  const Nchw centre = run.reals(shape.with_n(1), DType::f32), noise = run.reals(shape, DType::f32);
  const Activation on_centre = run.input(centre, DType::f32);
  Nchw want(shape);
  for (int64_t n = 0; n < shape.n; ++n) {
    double squares = 0;
    for (int64_t i = 0; i < shape.item(); ++i) squares += std::pow(noise.v[size_t(n * shape.item() + i)], 2);
    for (int64_t i = 0; i < shape.item(); ++i)
      want.v[size_t(n * shape.item() + i)] =
          centre.v[size_t(i)] + 3.5 / std::sqrt(squares) * noise.v[size_t(n * shape.item() + i)];
  }
  const auto once = [&] {
    const Activation y = run.in_place(noise, DType::f32);
    scale_to_sphere(run.ctx, on_centre.memory->as<float>(), 3.5f, y);
    EXPECT_EQ(compare(y.read(), want, constant_tolerance(shape, 1e-6)), "");
    return y.memory->read();
  };
  expect_threads_do_not_matter(run, once);
}

// ---- priors

double filtered(const SymmetricFilter& f, const Nchw& x, int64_t n, int64_t c, int64_t i, int64_t j) {
  const auto place = [&](int64_t p, int64_t length) -> int64_t {
    if (p >= 0 && p < length) return p;
    if (f.border == SymmetricFilter::Border::zero) return -1;
    while (p < 0 || p >= length) p = p < 0 ? -1 - p : 2 * length - 1 - p;
    return p;
  };
  double sum = 0;
  for (int64_t a = -f.radius; a <= f.radius; ++a)
    for (int64_t b = -f.radius; b <= f.radius; ++b) {
      const int64_t r = place(i + a, x.shape.h), q = place(j + b, x.shape.w);
      if (r >= 0 && q >= 0) sum += double(f.taps[std::abs(a)]) * double(f.taps[std::abs(b)]) * x(n, c, r, q);
    }
  return sum;
}

void check_filters(OpRun& run) {
  for (const SymmetricFilter& f : {binomial_filter(), box_filter(5), gaussian_filter(0.5), gaussian_filter(3), box_filter(1)}) {
    EXPECT_NEAR(std::accumulate(f.taps + 1, f.taps + f.radius + 1, 0.0) * 2 + f.taps[0], 1, 1e-6);
    const Shape shape{2, 3, 6, 9};  // σ = 3 reaches further than the image is wide
    const Nchw x = run.reals(shape, DType::f32);
    const Activation on_x = run.input(x, DType::f32);
    Nchw want(shape);
    for (int64_t n = 0; n < shape.n; ++n)
      for (int64_t c = 0; c < shape.c; ++c)
        for (int64_t i = 0; i < shape.h; ++i)
          for (int64_t j = 0; j < shape.w; ++j) want(n, c, i, j) = filtered(f, x, n, c, i, j);
    const auto once = [&] {
      const Activation y = run.output(shape, DType::f32);
      run.poison_scratch();
      filter_image(run.ctx, f, on_x, y);
      EXPECT_EQ(compare(y.read(), want, constant_tolerance(shape, 2e-6)), "") << "radius " << f.radius;
      return y.memory->read();
    };
    expect_threads_do_not_matter(run, once);
  }
  EXPECT_THROW(gaussian_filter(9), Error);
  const Shape shape{1, 2, 3, 5};
  const Nchw x = run.integers(shape, 9), y = run.integers(shape, 9);
  const Activation on_x = run.input(x, DType::f32), on_y = run.in_place(y, DType::f32);
  mix(run.ctx, 2, on_x, -3, on_y);
  Nchw want(shape);
  for (size_t i = 0; i < want.v.size(); ++i) want.v[i] = 2 * x.v[i] - 3 * y.v[i];
  EXPECT_EQ(compare_exact(on_y.read(), want), "");
  // The same factor for all items: in memory's order, of one channel for simplicity.
  const Shape line{4, 1, 1, 33};
  const std::vector<float> factors = run.integers(33, 5);
  const Nchw v = run.integers(line, 9);
  Nchw product(line);
  for (size_t i = 0; i < product.v.size(); ++i) product.v[i] = v.v[i] * double(factors[i % 33]);
  const Activation scaled = run.in_place(v, DType::f32);
  scale_by(run.ctx, run.input_of(factors).as<float>(), scaled, scaled);
  EXPECT_EQ(compare_exact(scaled.read(), product), "");
}

// R in double, so that finite differences are its gradient.
double natural(const NaturalPrior& p, const Nchw& x) {
  double sum = 0;
  const Shape s = x.shape;
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t i = 0; i < s.h; ++i)
      for (int64_t j = 0; j < s.w; ++j) {
        double squares = 0;
        for (int64_t c = 0; c < s.c; ++c) {
          squares += x(n, c, i, j) * x(n, c, i, j);
          const double d1 = j + 1 < s.w ? x(n, c, i, j + 1) - x(n, c, i, j) : 0;
          const double d2 = i + 1 < s.h ? x(n, c, i + 1, j) - x(n, c, i, j) : 0;
          sum += p.tv_weight * std::pow(d1 * d1 + d2 * d2, p.beta / 2);
        }
        sum += p.range_weight * std::pow(std::sqrt(squares) / p.bound, p.alpha);
      }
  return sum;
}

void check_natural(OpRun& run) {
  const Shape shape{2, 3, 5, 6};
  for (const NaturalPrior& p : {NaturalPrior{.range_weight = 2, .bound = 0.75f, .tv_weight = 0.5f, .beta = 2, .sign = -1},
                                NaturalPrior{.tv_weight = 1, .beta = 1.5f}, NaturalPrior{.range_weight = 1, .bound = 2, .alpha = 4}}) {
    Nchw x = run.reals(shape, DType::f32);
    const Nchw start = run.reals(shape, DType::f32);
    const Activation on_x = run.input(x, DType::f32);
    Nchw want = start;
    for (size_t i = 0; i < want.v.size(); ++i) {
      const double at = x.v[i], h = 1e-5;
      x.v[i] = at + h;
      const double up = natural(p, x);
      x.v[i] = at - h;
      want.v[i] += p.sign * (up - natural(p, x)) / (2 * h);
      x.v[i] = at;
    }
    const auto once = [&] {
      const Activation g = run.in_place(start, DType::f32);
      add_natural_gradient(run.ctx, p, on_x, g);
      // Finite differences leave 1e-5 or so; a power and some ten products, each rounded.
      Nchw allowed(shape, 5e-5);
      for (size_t i = 0; i < want.v.size(); ++i) allowed.v[i] += 16 * kEpsF32 * std::abs(want.v[i]);
      EXPECT_EQ(compare(g.read(), want, allowed), "") << "alpha " << p.alpha << " beta " << p.beta;
      return g.memory->read();
    };
    expect_threads_do_not_matter(run, once);
  }
}

void check_momentum(OpRun& run) {
  const Shape shape{2, 3, 4, 5};
  const MomentumRule rule{.rate = 0.5f, .keep = 0.875f, .most = 1.25f};
  Nchw x = run.reals(shape, DType::f32), m(shape), squares(shape);
  const Activation on_x = run.in_place(x, DType::f32), on_m = run.in_place(m, DType::f32), on_s = run.in_place(squares, DType::f32);
  for (int step = 0; step < 3; ++step) {
    const Nchw g = run.reals(shape, DType::f32);
    momentum_step(run.ctx, rule, run.input(g, DType::f32), on_m.memory->as<float>(), on_s.memory->as<float>(), on_x);
    for (int64_t n = 0; n < shape.n; ++n)
      for (int64_t i = 0; i < shape.h * shape.w; ++i) {
        double norm = 0;
        for (int64_t c = 0; c < shape.c; ++c) {
          const size_t e = size_t((n * shape.c + c) * shape.h * shape.w + i);
          squares.v[e] = rule.keep * squares.v[e] + g.v[e] * g.v[e];
          m.v[e] = rule.keep * m.v[e] + g.v[e] / (1 / rule.rate + std::sqrt(squares.v[e]));
          x.v[e] += m.v[e];
          norm += x.v[e] * x.v[e];
        }
        norm = std::sqrt(norm);
        for (int64_t c = 0; c < shape.c && norm > rule.most; ++c)
          x.v[size_t((n * shape.c + c) * shape.h * shape.w + i)] *= rule.most / norm;
      }
  }
  EXPECT_EQ(compare(on_x.read(), x, constant_tolerance(shape, 3e-6)), "");
}

void check_small_pixels(OpRun& run) {
  for (const SmallPixels& small : {SmallPixels{SmallPixels::By::norm, 50}, SmallPixels{SmallPixels::By::contribution, 90},
                                   SmallPixels{SmallPixels::By::norm, 0}, SmallPixels{SmallPixels::By::norm, 100},
                                   SmallPixels{SmallPixels::By::contribution, 33.3}}) {
    const Shape shape{3, 3, 9, 8};
    // Integers of few values: scores are exact, and many are equal.
    const Nchw x = run.integers(shape, 3), g = run.integers(shape, 3);
    Nchw want = x;
    const int64_t pixels = shape.h * shape.w;
    for (int64_t n = 0; n < shape.n; ++n) {
      std::vector<float> scores;
      for (int64_t p = 0; p < pixels; ++p) {
        double squares = 0, product = 0;
        for (int64_t c = 0; c < shape.c; ++c) {
          const size_t e = size_t((n * shape.c + c) * pixels + p);
          squares += x.v[e] * x.v[e], product += x.v[e] * g.v[e];
        }
        scores.push_back(small.by == SmallPixels::By::norm ? std::sqrt(float(squares)) : std::abs(float(product)));
      }
      std::vector<float> sorted = scores;
      std::sort(sorted.begin(), sorted.end());
      const double place = small.percentile / 100 * double(pixels - 1);
      const size_t lower = size_t(place);
      const float upper = sorted[std::min(lower + 1, sorted.size() - 1)];
      const float limit = sorted[lower] + float(place - double(lower)) * (upper - sorted[lower]);
      for (int64_t p = 0; p < pixels; ++p)
        for (int64_t c = 0; c < shape.c && scores[size_t(p)] < limit; ++c) want.v[size_t((n * shape.c + c) * pixels + p)] = 0;
    }
    const Activation on_x = run.in_place(x, DType::f32);
    run.poison_scratch();
    clip_small_pixels(run.ctx, small, run.input(g, DType::f32), on_x);
    EXPECT_EQ(compare_exact(on_x.read(), want, Zeros::many_allowed), "") << small.percentile;
  }
}

// ---- transformations

std::vector<float> turned(double degrees, double scale, double down, double right) {
  const double a = degrees * M_PI / 180, c = std::cos(a) / scale, s = std::sin(a) / scale;
  return {float(c), float(-s), float(down), float(s), float(c), float(right)};
}

void check_affine_of(OpRun& run, int64_t channels) {
  const Shape in{3, channels, 9, 11}, out{3, channels, 7, 8};
  std::vector<float> maps;
  for (const auto& m : {turned(0, 1, 1, 2), turned(17, 1.3, -1.25, 2.5), turned(-40, 0.6, 3.5, -2.25)})
    maps.insert(maps.end(), m.begin(), m.end());
  const std::vector<float> fill{0.5f, -0.25f, 0.75f};
  const float *on_maps = run.input_of(maps).as<float>(), *on_fill = run.input_of(fill).as<float>();
  const Nchw x = run.reals(in, DType::f32), dy = run.reals(out, DType::f32);
  const Activation on_x = run.input(x, DType::f32), on_dy = run.input(dy, DType::f32);
  Nchw y(out), dx(in);
  for (int64_t n = 0; n < out.n; ++n)
    for (int64_t i = 0; i < out.h; ++i)
      for (int64_t j = 0; j < out.w; ++j) {
        const float* m = maps.data() + 6 * n;
        const double row = double(m[0]) * double(i) + double(m[1]) * double(j) + double(m[2]);
        const double col = double(m[3]) * double(i) + double(m[4]) * double(j) + double(m[5]);
        for (int64_t a = int64_t(std::floor(row)); a <= int64_t(std::floor(row)) + 1; ++a)
          for (int64_t b = int64_t(std::floor(col)); b <= int64_t(std::floor(col)) + 1; ++b) {
            const double weight = (1 - std::abs(row - double(a))) * (1 - std::abs(col - double(b)));
            const bool inside = a >= 0 && a < in.h && b >= 0 && b < in.w;
            for (int64_t c = 0; c < in.c; ++c) {
              y(n, c, i, j) += weight * (inside ? x(n, c, a, b) : double(fill[size_t(c)]));
              if (inside) dx(n, c, a, b) += weight * dy(n, c, i, j);
            }
          }
      }
  const auto once = [&] {
    const Activation on_y = run.output(out, DType::f32), on_dx = run.output(in, DType::f32);
    affine_forward(run.ctx, on_maps, on_fill, on_x, on_y);
    affine_backward(run.ctx, on_maps, on_dy, on_dx);
    // Places are rounded in float: 2^-20 of a pixel, times differences of neighbours below 2.
    EXPECT_EQ(compare(on_y.read(), y, constant_tolerance(out, 1e-5)), "");
    EXPECT_EQ(compare(on_dx.read(), dx, constant_tolerance(in, 2e-5), Zeros::many_allowed), "");
    return on_dx.memory->read();
  };
  expect_threads_do_not_matter(run, once);
}

// Several places of each image: as so many images would give, their gradients added in their order.
void check_crops(OpRun& run) {
  const Shape in{2, 3, 9, 11}, out{6, 3, 7, 8}, each{6, 3, 9, 11};
  std::vector<float> maps;
  for (int n = 0; n < 6; ++n) {
    const std::vector<float> m = turned(9 * n, 1 + 0.1 * n, 1.25 - 0.5 * n, 0.5 * n);
    maps.insert(maps.end(), m.begin(), m.end());
  }
  const float *on_maps = run.input_of(maps).as<float>(), *fill = run.input_of(std::vector<float>{0.5f, -0.25f, 0.75f}).as<float>();
  const Nchw x = run.reals(in, DType::f32), dy = run.reals(out, DType::f32);
  Nchw many(each);
  for (int64_t n = 0; n < 6; ++n) std::copy_n(x.v.begin() + n / 3 * in.item(), in.item(), many.v.begin() + n * in.item());
  const Activation on_x = run.input(x, DType::f32), on_many = run.input(many, DType::f32), on_dy = run.input(dy, DType::f32);
  const Activation y = run.output(out, DType::f32), want = run.output(out, DType::f32), gathered = run.output(each, DType::f32);
  affine_forward(run.ctx, on_maps, fill, on_x, y);
  affine_forward(run.ctx, on_maps, fill, on_many, want);
  EXPECT_EQ(compare_bits(y.memory->read(), want.memory->read()), "");
  affine_backward(run.ctx, on_maps, on_dy, gathered);
  const Nchw one_by_one = gathered.read();
  Nchw sum(in);
  for (int64_t i = 0; i < each.count(); ++i) sum.v[size_t(i / in.item() / 3 * in.item() + i % in.item())] += one_by_one.v[size_t(i)];
  const auto once = [&] {
    const Activation dx = run.output(in, DType::f32);
    affine_backward(run.ctx, on_maps, on_dy, dx);
    EXPECT_EQ(compare(dx.read(), sum, constant_tolerance(in, 4e-6), Zeros::many_allowed), "");
    return dx.memory->read();
  };
  expect_threads_do_not_matter(run, once);
  // One image's places in three calls.
  const Activation whole = run.output(in.with_n(1), DType::f32), parts = run.output(in.with_n(1), DType::f32);
  const auto places = [&](int64_t first, int64_t n) {
    return ConstView{on_dy.memory->as<float>() + first * out.item(), out.with_n(n), DType::f32};
  };
  affine_backward(run.ctx, on_maps, places(0, 3), whole);
  for (int64_t n = 0; n < 3; ++n) affine_backward(run.ctx, on_maps + 6 * n, places(n, 1), parts, n > 0);
  EXPECT_EQ(compare_bits(whole.memory->read(), parts.memory->read()), "");
}

void check_affine(OpRun& run) {
  check_affine_of(run, 2);
  check_affine_of(run, 3);
  check_crops(run);
}

// mixed: by a matrix; else channels by themselves.
void check_colours_of(OpRun& run, Shape shape, bool mixed) {
  std::vector<float> matrix{0.5f, 0.25f, 0.f, -0.5f, 1.f, 0.75f, 0.25f, 0.f, -1.f};
  if (!mixed) matrix = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  const std::vector<float> scale{2.f, 4.f, 0.5f}, offset{-1.f, 0.f, 3.f};
  for (const bool sigmoid : {false, true})
    for (const bool rows : {false, true}) {
      const Colours colours{mixed ? run.input_of(matrix).as<float>() : nullptr, run.input_of(scale).as<float>(), run.input_of(offset).as<float>(), sigmoid};
      const Nchw z = run.reals(shape, DType::f32), dy = run.reals(shape, DType::f32);
      Nchw y(shape), dz(shape);
      // [n,h,c,w] of an array in NHWC order: the harness's layout of shape (n, w, h, c).
      const auto stored = [&](const Nchw& from) {
        if (!rows) return from;
        Nchw to({shape.n, shape.w, shape.h, shape.c});
        for (int64_t n = 0; n < shape.n; ++n)
          for (int64_t c = 0; c < shape.c; ++c)
            for (int64_t i = 0; i < shape.h; ++i)
              for (int64_t j = 0; j < shape.w; ++j) to(n, j, i, c) = from(n, c, i, j);
        return to;
      };
      for (int64_t n = 0; n < shape.n; ++n)
        for (int64_t i = 0; i < shape.h; ++i)
          for (int64_t j = 0; j < shape.w; ++j)
            for (int64_t k = 0; k < 3; ++k) {
              double sum = 0;
              for (int64_t d = 0; d < 3; ++d) sum += double(matrix[size_t(3 * k + d)]) * z(n, d, i, j);
              const double s = sigmoid ? 1 / (1 + std::exp(-sum)) : sum, slope = sigmoid ? s * (1 - s) : 1;
              y(n, k, i, j) = double(scale[size_t(k)]) * s + double(offset[size_t(k)]);
              for (int64_t d = 0; d < 3; ++d)
                dz(n, d, i, j) += double(matrix[size_t(3 * k + d)]) * double(scale[size_t(k)]) * slope * dy(n, k, i, j);
            }
      const Activation on_z = run.input(stored(z), DType::f32), on_dz = run.output(stored(dz).shape, DType::f32);
      const Activation on_y = run.output(shape, DType::f32), on_dy = run.input(dy, DType::f32);
      const ConstView z_view{on_z.memory->data(), shape, DType::f32};
      colours_forward(run.ctx, colours, rows, z_view, on_y);
      colours_backward(run.ctx, colours, rows, z_view, on_dy, View{on_dz.memory->data(), shape, DType::f32});
      EXPECT_EQ(compare(on_y.read(), y, constant_tolerance(shape, 2e-6)), "");
      EXPECT_EQ(compare(on_dz.read(), stored(dz), constant_tolerance(on_dz.shape, 4e-6)), "");
    }
}

void check_colours(OpRun& run) {
  for (const bool mixed : {true, false}) {
    check_colours_of(run, {2, 3, 4, 5}, mixed);
    check_colours_of(run, {1, 3, 2, 19}, mixed);
  }
}

void check_product(OpRun& run) {
  for (const MatrixProduct& p : {MatrixProduct{.batch = 3, .m = 5, .n = 37, .k = 9, .a_step = 0, .b_step = 9 * 37, .c_step = 5 * 37},
                                 MatrixProduct{.batch = 2, .m = 33, .n = 64, .k = 17, .a_step = 33 * 17, .b_step = 0, .c_step = 33 * 64, .add = true},
                                 MatrixProduct{.m = 1, .n = 1, .k = 40}}) {
    const std::vector<float> a = run.integers(std::max<int64_t>(p.a_step * p.batch, p.m * p.k), 5);
    const std::vector<float> b = run.integers(std::max<int64_t>(p.b_step * p.batch, p.k * p.n), 5);
    const std::vector<float> start = run.integers(p.batch * p.m * p.n, 9);
    Nchw want({1, p.batch * p.m * p.n});
    for (int64_t t = 0; t < p.batch; ++t)
      for (int64_t i = 0; i < p.m; ++i)
        for (int64_t j = 0; j < p.n; ++j) {
          double sum = p.add ? double(start[size_t((t * p.m + i) * p.n + j)]) : 0;
          for (int64_t k = 0; k < p.k; ++k)
            sum += double(a[size_t(t * p.a_step + i * p.k + k)]) * double(b[size_t(t * p.b_step + k * p.n + j)]);
          want.v[size_t((t * p.m + i) * p.n + j)] = sum;
        }
    const float *on_a = run.input_of(a).as<float>(), *on_b = run.input_of(b).as<float>();
    Guarded& c = run.bytes(start.size() * sizeof(float), kPoison);
    c.write(start.data(), c.size());
    matrix_product(run.ctx, p, on_a, on_b, c.as<float>());
    Nchw got(want.shape);
    const std::vector<float> values = c.read_as<float>();
    got.v.assign(values.begin(), values.end());
    EXPECT_EQ(compare_exact(got, want, Zeros::many_allowed), "") << p.m << " " << p.n << " " << p.k;
  }
}

// Sizes of every radix, primes and one pixel among them; more rows and columns than fit side by side.
void check_fourier(OpRun& run) {
  for (const Shape s : {Shape{2, 3, 8, 12}, Shape{1, 3, 15, 14}, Shape{1, 2, 13, 11}, Shape{3, 1, 1, 1}, Shape{1, 1, 16, 9}, Shape{1, 4, 5, 2}}) {
    const int64_t f = s.w / 2 + 1, item = 2 * s.h * s.c * f, planes = s.h * s.c * s.w;
    InverseFourier fourier(run.ctx, s.h, s.w, s.c, 0.5);
    EXPECT_EQ(fourier.item(), item);
    const Nchw z = run.reals({1, s.n * item}, DType::f32), dy = run.reals({1, s.n * planes}, DType::f32), factors = run.reals({1, item}, DType::f32);
    Nchw y({1, s.n * planes}), dz({1, s.n * item});
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t c = 0; c < s.c; ++c)
        for (int64_t k = 0; k < s.h; ++k)
          for (int64_t j = 0; j < s.w; ++j)
            for (int64_t u = 0; u < s.h; ++u)
              for (int64_t v = 0; v < f; ++v) {
                const double twice = (v == 0 || 2 * v == s.w ? 0.5 : 1) / double(s.h * s.w);
                const double column = 2 * M_PI * double(u * k) / double(s.h), row = 2 * M_PI * double(v * j) / double(s.w);
                // The imaginary parts at v = 0 and w/2 do not count: sin(row) is 0 there.
                const double of[2] = {twice * (std::cos(column) * std::cos(row) - std::sin(column) * std::sin(row)),
                                      -twice * (std::sin(column) * std::cos(row) + std::cos(column) * std::sin(row))};
                const size_t at = size_t(n * planes + (k * s.c + c) * s.w + j);
                for (int64_t part = 0; part < 2; ++part) {
                  const int64_t e = ((part * s.h + u) * s.c + c) * f + v;
                  const double factor = factors.v[size_t(e)] * of[part];
                  y.v[at] += factor * z.v[size_t(n * item + e)];
                  dz.v[size_t(n * item + e)] += factor * dy.v[at];
                }
              }
    const Sums on_z(run, z.v), on_dy(run, dy.v), on_factors(run, factors.v);
    const auto once = [&] {
      const Sums on_y(run, y.v), on_dz(run, dz.v);
      run.poison_scratch();
      fourier.forward(on_factors.data(), s.n, on_z.data(), on_y.data());
      fourier.backward(on_factors.data(), s.n, on_dy.data(), on_dz.data());
      // Sums of so many values below 1, in logarithmic or linear depth.
      EXPECT_EQ(compare(on_y.read(y.shape), y, constant_tolerance(y.shape, 1e-6)), "") << s.h << "x" << s.w;
      EXPECT_EQ(compare(on_dz.read(dz.shape), dz, constant_tolerance(dz.shape, 1e-6)), "") << s.h << "x" << s.w;
      return on_dz.memory.read();
    };
    expect_threads_do_not_matter(run, once);
    const Sums on_y(run, y.v);
    fourier.forward(nullptr, s.n, on_z.data(), on_y.data());
    const Sums ones(run, std::vector<double>(size_t(item), 1)), other(run, y.v);
    fourier.forward(ones.data(), s.n, on_z.data(), other.data());
    EXPECT_EQ(compare_bits(on_y.memory.read(), other.memory.read()), "") << "no factors and ones";
  }
}

void check_polar(OpRun& run) {
  const int64_t n = 3, count = 70;
  Nchw phase = run.reals({1, n * count}, DType::f32);
  for (double& v : phase.v) v = double(float(9 * v));  // beyond a whole turn
  const Nchw dy = run.reals({1, 2 * n * count}, DType::f32), magnitude = run.reals({1, count}, DType::f32);
  Nchw y({1, 2 * n * count}), dphase({1, n * count});
  for (int64_t i = 0; i < n * count; ++i) {
    const size_t re = size_t(i / count * 2 * count + i % count), im = re + size_t(count), e = size_t(i);
    const double m = magnitude.v[size_t(i % count)], c = m * std::cos(phase.v[e]), s = m * std::sin(phase.v[e]);
    y.v[re] = c, y.v[im] = s;
    dphase.v[e] = c * dy.v[im] - s * dy.v[re];
  }
  const Sums on_phase(run, phase.v), on_magnitude(run, magnitude.v), on_dy(run, dy.v), on_y(run, dy.v), on_dphase(run, phase.v);
  polar_forward(run.ctx, on_magnitude.data(), n, count, on_phase.data(), on_y.data());
  polar_backward(run.ctx, on_magnitude.data(), n, count, on_phase.data(), on_dy.data(), on_dphase.data());
  EXPECT_EQ(compare(on_y.read(y.shape), y, constant_tolerance(y.shape, 1e-6)), "");
  EXPECT_EQ(compare(on_dphase.read(dphase.shape), dphase, constant_tolerance(dphase.shape, 1e-6)), "");
  const Nchw x = run.integers({2, 3, 4, 5}, 9), start = run.integers(x.shape, 9);
  Nchw want = start;
  for (size_t i = 0; i < want.v.size(); ++i) want.v[i] += std::abs(x.v[i]);
  const Activation sum = run.in_place(start, DType::f32);
  add_absolute(run.ctx, run.input(x, DType::f32), sum);
  EXPECT_EQ(compare_exact(sum.read(), want), "");
}

}  // namespace

void register_image_tests() {
  for_each_device("Op/Image", [](const DeviceRow& device) {
    add_test("Op/Image", "step", device, "", check_image_step);
    add_test("Op/Image", "sphere", device, "", check_sphere);
    add_test("Op/Image", "filters", device, "", check_filters);
    add_test("Op/Image", "natural", device, "", check_natural);
    add_test("Op/Image", "momentum", device, "", check_momentum);
    add_test("Op/Image", "small_pixels", device, "", check_small_pixels);
    add_test("Op/Image", "affine", device, "", check_affine);
    add_test("Op/Image", "colours", device, "", check_colours);
    add_test("Op/Image", "product", device, "", check_product);
    add_test("Op/Image", "fourier", device, "", check_fourier);
    add_test("Op/Image", "polar", device, "", check_polar);
  });
}

}  // namespace switchback::test
