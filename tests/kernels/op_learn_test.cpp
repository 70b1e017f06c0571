// What training needs of the kernels: gradients of parameters, batch norm over the batch, dropout, losses, optimisers.
#include <fmt/format.h>

#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "kernels/conv/conv_backward_weights.h"
#include "kernels/conv/winograd_weights.h"
#include "kernels/learn/loss.h"
#include "kernels/learn/optimizer.h"
#include "kernels/noise/dropout.h"
#include "kernels/noise/noise.h"
#include "kernels/normalize/batch_norm.h"
#include "kernels/normalize/set_norm.h"
#include "kernels/pointwise/pointwise.h"
#include "tests/support/floats.h"
#include "tests/support/epilogue_check.h"
#include "tests/support/reference.h"

namespace switchback::test {
namespace {

// --- gradients of weights

struct ConvCase {
  const char* name;
  Conv2d conv;
  Shape x;
};
const std::vector<ConvCase>& conv_cases() {
  static const std::vector<ConvCase> rows = {
      {"k5_one_channel", conv2d(1, 32, 5), {4, 1, 9, 8}},
      {"k3_p1", conv2d(20, 17, 3, 1, 1), {4, 20, 6, 5}},
      {"k3_s2_p1", conv2d(16, 24, 3, 2, 1), {4, 16, 7, 9}},
      {"k3_dilated", conv2d(18, 5, 3, 1, 2, 2), {4, 18, 6, 5}},
      {"k1_wide", conv2d(70, 61, 1), {4, 70, 3, 3}},
      {"k1_s2", conv2d(33, 8, 1, 2), {4, 33, 5, 5}},
      {"groups", conv2d(12, 8, 3, 1, 1, 1, 4), {4, 12, 4, 5}},
      {"groups_wide", conv2d(40, 26, 3, 1, 1, 1, 2), {4, 40, 4, 3}},
      {"depthwise", conv2d(21, 21, 3, 2, 1, 1, 21), {4, 21, 6, 7}},
      {"depthwise_times_two", conv2d(5, 10, 3, 1, 1, 1, 5), {4, 5, 4, 4}},
      {"covers_the_map", conv2d(17, 50, 4), {4, 17, 4, 4}},
      {"tap_sees_padding_only", conv2d(16, 3, 3, 3, 3, 3), {4, 16, 1, 1}},
      {"uneven",
       {.in_channels = 6, .out_channels = 14, .kernel_h = 3, .kernel_w = 2, .stride_h = 2, .stride_w = 3, .pad_top = 0,
        .pad_left = 2, .pad_bottom = 1, .pad_right = 0, .dilation_h = 2, .dilation_w = 1, .groups = 2},
       {4, 6, 9, 8}},
  };
  return rows;
}

Shape weight_shape(const Conv2d& v) { return {v.out_channels, v.in_channels / v.groups, v.kernel_h, v.kernel_w}; }

Ref reference(const Conv2d& v, const Nchw& x, const Nchw& dy, const Nchw& start) {
  Ref out(start.shape);
  out.value = start;
  for (size_t i = 0; i < start.v.size(); ++i) out.terms.v[i] = std::abs(start.v[i]);
  const int64_t inputs = v.in_channels / v.groups, outputs = v.out_channels / v.groups;
  for (int64_t n = 0; n < x.shape.n; ++n)
    for (int64_t o = 0; o < v.out_channels; ++o)
      for (int64_t p = 0; p < dy.shape.h; ++p)
        for (int64_t q = 0; q < dy.shape.w; ++q)
          for (int64_t c = 0; c < inputs; ++c)
            for (int64_t r = 0; r < v.kernel_h; ++r)
              for (int64_t s = 0; s < v.kernel_w; ++s) {
                const int64_t h = p * v.stride_h + r * v.dilation_h - v.pad_top, w = q * v.stride_w + s * v.dilation_w - v.pad_left;
                if (h < 0 || h >= x.shape.h || w < 0 || w >= x.shape.w) continue;
                const double product = dy(n, o, p, q) * x(n, o / outputs * inputs + c, h, w);
                out.value(o, c, r, s) += product;
                out.terms(o, c, r, s) += std::abs(product);
              }
  return out;
}

double dot(const Nchw& a, const Nchw& b) { return std::inner_product(a.v.begin(), a.v.end(), b.v.begin(), 0.0); }

void check_conv_weights(OpRun& run, const ConvCase& c) {
  const Shape y = conv_shape(c.conv, c.x), shape = weight_shape(c.conv);
  for (const bool integers : {true, false}) {
    const Nchw x = integers ? run.integers(c.x, 5) : run.reals(c.x, DType::f32);
    const Nchw dy = integers ? run.integers(y, 5) : run.reals(y, DType::f32);
    const Nchw start = integers ? run.integers(shape, 9) : run.reals(shape, DType::f32);
    const Activation on_x = run.input(x, DType::f32), on_dy = run.input(dy, DType::f32);
    const Sums dw(run, start.v);
    run.poison_scratch();
    conv2d_backward_weights(run.ctx, c.conv, on_x, on_dy, dw.data());
    const Ref want = reference(c.conv, x, dy, start);
    const Nchw got = dw.read(shape);
    if (!integers) {
      EXPECT_EQ(compare(got, want.value, tolerance(want, rounding_steps(y.pixels() + 1))), "");
      continue;
    }
    EXPECT_EQ(compare_exact(got, want.value, Zeros::many_allowed), "");
    // Bilinear: <dy, conv(x, v)> = <dw, v> for any weights v.
    const Nchw v = run.integers(shape, 5);
    const Ref forward = conv_forward(c.conv, x, std::vector<float>(v.v.begin(), v.v.end()), {}, {});
    EXPECT_EQ(dot(dy, forward.value), dot(got, v) - dot(start, v));
  }
}

// Neither threads nor the split of a batch over calls may show.
void check_conv_splits(OpRun& run, const ConvCase& c) {
  const Shape y = conv_shape(c.conv, c.x);
  const Nchw start = run.reals(weight_shape(c.conv), DType::f32);
  const Activation x = run.input(run.reals(c.x, DType::f32), DType::f32), dy = run.input(run.reals(y, DType::f32), DType::f32);
  std::vector<uint8_t> first;
  for (const int64_t items : {int64_t{4}, int64_t{1}, int64_t{3}}) {
    const Sums dw(run, start.v);
    run.ctx.threads = int(items);
    for (int64_t n = 0; n < c.x.n; n += items) {
      const int64_t count = std::min(items, c.x.n - n);
      conv2d_backward_weights(run.ctx, c.conv, slice(x, n, count), slice(dy, n, count), dw.data());
    }
    if (first.empty()) first = dw.memory.read();
    EXPECT_EQ(compare_bits(dw.memory.read(), first), "") << items << " items at a time";
  }
}

// By Winograd, whose transforms mix a tile, so that errors belong to the whole gradient: 2e-6 of it as a norm, and each within a
// wide multiple of the bound of the largest. In one piece or several, by any number of threads: the same bits. Sums of whole
// batches are other ones, and as exact.
void check_winograd_weights_gradient(OpRun& run) {
  const std::vector<ConvCase> cases = {{"one_block", conv2d(16, 16, 3, 1, 1), {3, 16, 12, 12}},
                                       {"partial_tiles_and_blocks", conv2d(80, 48, 3, 1, 0), {2, 80, 13, 11}},
                                       {"several_groups", conv2d(16, 16, 3, 1, 1), {510, 16, 9, 9}}};
  for (const ConvCase& c : cases) {
    SCOPED_TRACE(c.name);
    const Shape y = conv_shape(c.conv, c.x), shape = weight_shape(c.conv);
    const Nchw x = run.reals(c.x, DType::f32), dy = run.reals(y, DType::f32), start = run.reals(shape, DType::f32);
    const Activation on_x = run.input(x, DType::f32), on_dy = run.input(dy, DType::f32);
    const Ref want = reference(c.conv, x, dy, start);
    const double largest = *std::ranges::max_element(want.terms.v);
    const auto sums = [&](bool whole, int threads, int64_t items) {
      const Sums dw(run, start.v);
      run.ctx.threads = threads;
      run.poison_scratch();
      for (int64_t n = 0; n < c.x.n; n += items) {
        const int64_t count = std::min(items, c.x.n - n);
        (whole ? conv2d_backward_weights_whole : conv2d_backward_weights)(run.ctx, c.conv, slice(on_x, n, count), slice(on_dy, n, count),
                                                                          dw.data());
      }
      return dw.read(shape);
    };
    const auto check = [&](const Nchw& got) {
      double error = 0, norm = 0;
      for (size_t i = 0; i < got.v.size(); ++i) {
        const double by = got.v[i] - want.value.v[i];
        error += by * by, norm += want.value.v[i] * want.value.v[i];
        ASSERT_LE(std::abs(by), 8 * std::sqrt(double(y.pixels())) * kEpsF32 * largest) << i;
      }
      EXPECT_LE(std::sqrt(error / norm), 2e-6);
    };
    const Nchw got = sums(false, 1, c.x.n), whole = sums(true, 1, c.x.n);
    check(got), check(whole);
    EXPECT_EQ(sums(false, 2, 1).v, got.v);
    EXPECT_EQ(sums(false, 3, 2).v, got.v);
    EXPECT_EQ(sums(true, 2, c.x.n).v, whole.v);
    EXPECT_NE(whole.v, got.v) << "not by Winograd";
    run.ctx.conv = ConvAlgorithm::direct;
    EXPECT_EQ(sums(true, 1, c.x.n).v, sums(false, 2, 1).v);
    run.ctx.conv = ConvAlgorithm::automatic;
  }
}

void check_transposed(OpRun& run) {
  const ConvTranspose2d v{.in_channels = 6, .out_channels = 4, .kernel_h = 3, .kernel_w = 2, .stride_h = 2, .stride_w = 3,
                          .pad_top = 1, .output_pad_w = 1, .groups = 2};
  const Nchw x = run.integers({3, 6, 4, 3}, 5), dy = run.integers(output_shape(v, x.shape), 5);
  const Nchw zeros({6, 2, 3, 2}), w = run.integers(zeros.shape, 5);
  const Sums dw(run, zeros.v);
  conv_transpose2d_backward_weights(run.ctx, v, run.input(x, DType::f32), run.input(dy, DType::f32), dw.data());
  const std::vector<float> weight(w.v.begin(), w.v.end());
  EXPECT_EQ(dot(dy, conv_backward(mirror_of(v), x, weight, {}, dy.shape).value), dot(dw.read(zeros.shape), w));
  EXPECT_NE(dot(dw.read(zeros.shape), w), 0);
}

void check_linear(OpRun& run) {
  for (const auto& [batch, in, out] : {std::array<int64_t, 3>{5, 300, 70}, {7, 9, 3}, {1, 1, 1}, {3, 64, 10}}) {
    const Nchw x = run.integers({batch, in, 1, 1}, 7), dy = run.integers({batch, out, 1, 1}, 7), start = run.integers({out, in}, 5);
    const Sums dw(run, start.v);
    run.ctx.threads = int(batch % 3) + 1;
    linear_backward_weights(run.ctx, {in, out}, run.input(x, DType::f32), run.input(dy, DType::f32), dw.data());
    Nchw want = start;
    for (int64_t n = 0; n < batch; ++n)
      for (int64_t o = 0; o < out; ++o)
        for (int64_t i = 0; i < in; ++i) want(o, i, 0, 0) += dy(n, o, 0, 0) * x(n, i, 0, 0);
    EXPECT_EQ(compare_exact(dw.read(start.shape), want, Zeros::many_allowed), "");
  }
}

// --- what belongs to channels

void check_bias(OpRun& run) {
  for (const Shape s : {Shape{3, 37, 5, 4}, {5, 3, 1, 1}, {2, 16, 11, 13}}) {
    const Nchw dy = run.integers(s, 9), start = run.integers({1, s.c}, 9);
    const Activation on_dy = run.input(dy, DType::f32);
    Nchw want = start;
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t c = 0; c < s.c; ++c)
        for (int64_t p = 0; p < s.h * s.w; ++p) want(0, c, 0, 0) += dy(n, c, p / s.w, p % s.w);
    const Sums whole(run, start.v), split(run, start.v);
    add_channel_sums(run.ctx, on_dy, whole.data());
    run.ctx.threads = 3;
    for (int64_t n = 0; n < s.n; ++n) add_channel_sums(run.ctx, slice(on_dy, n, 1), split.data());
    EXPECT_EQ(compare_exact(whole.read(start.shape), want), "");
    EXPECT_EQ(compare_bits(whole.memory.read(), split.memory.read()), "");
  }
}

void check_slopes(OpRun& run) {
  const Nchw x = run.integers({4, 19, 3, 5}, 3), dy = run.integers(x.shape, 5);
  for (const int64_t count : {int64_t{1}, x.shape.c}) {
    Nchw want({1, count});
    for (int64_t i = 0; i < x.shape.count(); ++i)
      want.v[count == 1 ? 0 : i / 15 % 19] += dy.v[i] * std::min(x.v[i], 0.0);
    const Sums got(run, std::vector<double>(size_t(count), 0));
    add_slope_gradients(run.ctx, run.input(dy, DType::f32), run.input(x, DType::f32), count, got.data());
    EXPECT_EQ(compare_exact(got.read(want.shape), want), "");
  }
}

// y, dx, dweight and dbias of a batch norm over the batch, in double.
struct BatchNormed {
  Nchw y, dx;
  std::vector<double> mean, variance, dweight, dbias;
};
BatchNormed batch_norm(const Nchw& x, const Nchw& dy, const std::vector<double>& weight, const std::vector<double>& bias, double eps) {
  BatchNormed out{Nchw(x.shape), Nchw(x.shape), {}, {}, {}, {}};
  const Shape s = x.shape;
  const double count = double(s.n * s.h * s.w);
  for (int64_t c = 0; c < s.c; ++c) {
    const auto each = [&](const auto& f) {
      for (int64_t n = 0; n < s.n; ++n)
        for (int64_t p = 0; p < s.h * s.w; ++p) f(size_t(x.index(n, c, p / s.w, p % s.w)));
    };
    double mean = 0, variance = 0, all = 0, along = 0;
    each([&](size_t i) { mean += x.v[i] / count; });
    each([&](size_t i) { variance += (x.v[i] - mean) * (x.v[i] - mean) / count; });
    const double r = 1 / std::sqrt(variance + eps);
    each([&](size_t i) { all += dy.v[i], along += dy.v[i] * (x.v[i] - mean) * r; });
    each([&](size_t i) {
      const double at = (x.v[i] - mean) * r;
      out.y.v[i] = at * weight[size_t(c)] + bias[size_t(c)];
      out.dx.v[i] = weight[size_t(c)] * r * (dy.v[i] - all / count - at * along / count);
    });
    out.mean.push_back(mean), out.variance.push_back(variance), out.dweight.push_back(along), out.dbias.push_back(all);
  }
  return out;
}

void check_batch_norm(OpRun& run) {
  for (const Shape s : {Shape{3, 37, 4, 5}, {6, 8, 1, 1}, {2, 64, 7, 3}}) {
    // A mean far from 0 would show a variance from squares.
    Nchw x = run.reals(s, DType::f32), weight = run.reals({1, s.c}, DType::f32), bias = run.reals({1, s.c}, DType::f32);
    for (double& v : x.v) v = round_to(DType::f32, v + 3);
    const Nchw dy = run.reals(s, DType::f32);
    const BatchNormed want = batch_norm(x, dy, weight.v, bias.v, 1e-5);
    const Activation on_x = run.input(x, DType::f32), on_dy = run.input(dy, DType::f32), y = run.output(s, DType::f32);
    const auto as_floats = [&](const std::vector<double>& v) { return std::vector<float>(v.begin(), v.end()); };
    const float *w = run.input_of(as_floats(weight.v)).as<float>(), *b = run.input_of(as_floats(bias.v)).as<float>();
    Guarded& moments = run.bytes(size_t(3 * s.c) * 4, kPoison);
    Guarded &affine = run.bytes(size_t(2 * s.c) * 4, kPoison), &sums = run.bytes(size_t(2 * s.c) * 4, kPoison);
    batch_norm_moments(run.ctx, on_x, 1e-5f, moments.as<float>());
    batch_norm_affine(run.ctx, s.c, moments.as<float>(), w, b, affine.as<float>());
    channel_affine_forward(run.ctx, on_x, affine.as<float>(), affine.as<float>() + s.c, y);
    const auto near = [&](std::span<const float> got, const std::vector<double>& wanted, double allowed, const char* what) {
      for (size_t c = 0; c < wanted.size(); ++c) EXPECT_NEAR(got[c], wanted[c], allowed) << what << " " << c;
    };
    const std::vector<float> m = moments.read_as<float>();
    near({m.data(), size_t(s.c)}, want.mean, 4 * 2 * kEpsF32, "mean");  // means are below 4
    near({m.data() + s.c, size_t(s.c)}, want.variance, 2 * kEpsF32, "variance");
    // r is rounded once, x̂·r loses the digits of x − mean: |x| ≤ 4, r ≤ 1/sqrt(1/12)-ish, so a few eps·4·r.
    double most = 0;
    for (size_t c = 0; c < want.variance.size(); ++c) most = std::max(most, 1 / std::sqrt(want.variance[c] + 1e-5));
    const Nchw allowed(s, 16 * kEpsF32 * most);
    EXPECT_EQ(compare(y.read(), want.y, allowed), "");
    run.ctx.threads = 3;  // must not show
    channel_sums(run.ctx, on_dy, on_x, moments.as<float>(), sums.as<float>());
    const std::vector<float> g = sums.read_as<float>();
    near({g.data(), size_t(s.c)}, want.dbias, 1e-6 * double(s.pixels()), "dbias");
    near({g.data() + s.c, size_t(s.c)}, want.dweight, 2e-6 * double(s.pixels()), "dweight");
    Guarded& plain = run.bytes(size_t(s.c) * 4, kPoison);
    channel_sums(run.ctx, on_dy, {}, nullptr, plain.as<float>());
    EXPECT_EQ(plain.read_as<float>(), std::vector<float>(g.begin(), g.begin() + s.c));
    Ref dx(s);
    dx.value = want.dx;
    check_backward(run, dx, {.tolerance = [&](const Ref&) { return Nchw(s, 64 * kEpsF32 * most * most); }}, 1,
                   [&](View out, const BackwardEpilogue& e) {
                     batch_norm_backward(run.ctx, on_dy, on_x, moments.as<float>(), sums.as<float>(), w, out, e);
                   });
    const Sums running(run, bias.v);
    update_running(run.ctx, s.c, 0.1f, 2.f, moments.as<float>(), running.data());
    for (int64_t c = 0; c < s.c; ++c)
      EXPECT_NEAR(running.read({1, s.c}).v[size_t(c)], 0.9 * bias.v[size_t(c)] + 0.1 * 2 * want.mean[size_t(c)], 4e-7);
  }
  const Activation one = run.input(Nchw({1, 3, 1, 1}, 1), DType::f32);
  EXPECT_THROW(batch_norm_moments(run.ctx, one, 1e-5f, run.bytes(36, kPoison).as<float>()), Error);
}

void check_norm_gradients(OpRun& run) {
  struct Row {
    Shape x;
    NormSets sets;
    bool by_channel, by_place;
  };
  for (const Row& row : {Row{{3, 12, 4, 3}, {3, 12}, true, false}, Row{{2, 7, 2, 5}, {7, 1}, true, false},
                         Row{{3, 5, 3, 4}, {5, 12}, true, true}, Row{{2, 3, 4, 5}, {1, 5}, false, true}}) {
    const Shape s = row.x;
    const Nchw x = run.reals(s, DType::f32), dy = run.reals(s, DType::f32);
    NormGradients g{.by_place = row.by_place ? 1 : 0, .by_channel = row.by_channel ? (row.by_place ? row.sets.places : 1) : 0};
    g.count = (row.by_channel ? s.c : 1) * (row.by_place ? row.sets.places : 1);
    std::vector<double> weight(static_cast<size_t>(g.count), 0.0), bias(weight);
    const int64_t places = s.h * s.w;
    const auto at = [&](int64_t n, int64_t c, int64_t p) { return size_t(x.index(n, c, p / s.w, p % s.w)); };
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t c0 = 0; c0 < s.c; c0 += row.sets.channels)
        for (int64_t p0 = 0; p0 < places; p0 += row.sets.places) {
          const auto each = [&](const auto& f) {
            for (int64_t c = c0; c < c0 + row.sets.channels; ++c)
              for (int64_t p = p0; p < p0 + row.sets.places; ++p) f(at(n, c, p), size_t((p - p0) * g.by_place + c * g.by_channel));
          };
          const double count = double(row.sets.channels * row.sets.places);
          double mean = 0, variance = 0;
          each([&](size_t e, size_t) { mean += x.v[e] / count; });
          each([&](size_t e, size_t) { variance += (x.v[e] - mean) * (x.v[e] - mean) / count; });
          each([&](size_t e, size_t to) {
            weight[to] += dy.v[e] * (x.v[e] - mean) / std::sqrt(variance + 1e-5);
            bias[to] += dy.v[e];
          });
        }
    const Activation on_x = run.input(x, DType::f32), on_dy = run.input(dy, DType::f32);
    const std::vector<double> zeros(weight.size(), 0);
    const Sums dw(run, zeros), db(run, zeros), split_w(run, zeros), split_b(run, zeros);
    g.weight = dw.data(), g.bias = db.data();
    set_norm_backward_affine(run.ctx, row.sets, on_dy, on_x, g);
    const Nchw got_w = dw.read({1, g.count}), got_b = db.read({1, g.count});
    for (size_t i = 0; i < weight.size(); ++i) {
      EXPECT_NEAR(got_w.v[i], weight[i], 3e-5) << i;
      EXPECT_NEAR(got_b.v[i], bias[i], 1e-5) << i;
    }
    g.weight = split_w.data(), g.bias = split_b.data();
    run.ctx.threads = 3;
    for (int64_t n = 0; n < s.n; ++n) set_norm_backward_affine(run.ctx, row.sets, slice(on_dy, n, 1), slice(on_x, n, 1), g);
    EXPECT_EQ(compare_bits(split_w.memory.read(), dw.memory.read()), "");
    EXPECT_EQ(compare_bits(split_b.memory.read(), db.memory.read()), "");
  }
}

// --- dropout

void check_dropout(OpRun& run, DType dtype) {
  const Shape s{4, 37, 5, 4};
  for (const bool channels : {false, true}) {
    // Factors are powers of two, so that sums behind them are exact.
    const DropoutDraw draw{.rate = channels ? 0.75f : 0.5f, .channels = channels, .seed = 0x123456789abull, .step = 7, .node = 3, .first_item = 5};
    const Nchw x = run.integers(s, 9), dy = run.integers(s, 9);
    Nchw factor(s);
    int64_t kept = 0;
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t c = 0; c < s.c; ++c)
        for (int64_t p = 0; p < s.h * s.w; ++p) {
          const uint64_t e = uint64_t(channels ? c : p * s.c + c);
          const auto words = philox({uint32_t(e / 4), 7, 3, uint32_t(5 + n)}, {0x456789ab, 0x123});
          const bool keep = double(words[e % 4] >> 8) * 0x1p-24 >= double(draw.rate);
          factor(n, c, p / s.w, p % s.w) = keep ? 1 / (1 - double(draw.rate)) : 0;
          kept += keep;
        }
    EXPECT_NEAR(double(kept) / double(s.count()), 1 - double(draw.rate), channels ? 0.15 : 0.03);
    const auto times = [&](const Nchw& a) {
      Ref out(s);
      for (size_t i = 0; i < a.v.size(); ++i) out.value.v[i] = round_to(dtype, a.v[i] * factor.v[i]);
      return out;
    };
    const Activation on_x = run.input(x, dtype), on_dy = run.input(dy, dtype);
    EXPECT_EQ(check_splits(s.n,
                           [&](int64_t first, int64_t count) {
                             const Activation y = run.output(s.with_n(count), dtype);
                             DropoutDraw part = draw;
                             part.first_item += uint32_t(first);
                             run.ctx.threads = int(count % 3) + 1;
                             dropout_forward(run.ctx, part, slice(on_x, first, count), y);
                             return y.memory->read();
                           }),
              "");
    const Activation y = run.output(s, dtype);
    dropout_forward(run.ctx, draw, on_x, y);
    EXPECT_EQ(compare_exact(y.read(), times(x).value), "");
    check_backward(run, times(dy), exact(dtype), 1,
                   [&](View dx, const BackwardEpilogue& e) { dropout_backward(run.ctx, draw, on_dy, dx, e); });
  }
  const Activation x = run.input(Nchw(s, 1), dtype), y = run.output(s, dtype);
  EXPECT_THROW(dropout_forward(run.ctx, {.rate = 1}, x, y), Error);
}

// --- losses: values by their definitions, gradients by central differences of these

double cross_entropy_of(const std::vector<double>& x, int label, double smoothing, const std::vector<double>& w) {
  double sum = 0;
  for (const double v : x) sum += std::exp(v);
  double loss = (1 - smoothing) * w[size_t(label)] * (std::log(sum) - x[size_t(label)]);
  for (size_t c = 0; c < x.size(); ++c) loss += smoothing / double(x.size()) * w[c] * (std::log(sum) - x[c]);
  return loss;
}

void check_losses(OpRun& run) {
  const Shape s{6, 7, 1, 1};
  const Nchw x = run.reals(s, DType::f32);
  const std::vector<int32_t> labels{0, 6, 3, 3, 1, 5};
  const double scale = 0.125;
  for (const bool weighted : {false, true}) {
    std::vector<float> class_weights(7, 1);
    if (weighted) class_weights = {0.5f, 1, 2, 0.25f, 1, 1, 4};
    const std::vector<double> w(class_weights.begin(), class_weights.end());
    const CrossEntropy loss{weighted ? 0.125f : 0.f, weighted ? run.input_of(class_weights).as<float>() : nullptr};
    const Activation dx = run.output(s, DType::f32);
    Guarded &losses = run.bytes(6 * sizeof(double), kPoison), &best = run.bytes(6 * 4, kPoisonBits);
    cross_entropy(run.ctx, loss, run.input(x, DType::f32), run.input_of(labels).as<int32_t>(), scale, dx, losses.as<double>(),
                  best.as<int32_t>());
    for (int64_t n = 0; n < s.n; ++n) {
      std::vector<double> row(x.v.begin() + n * 7, x.v.begin() + (n + 1) * 7);
      const auto at = [&](const std::vector<double>& v) {
        return scale * cross_entropy_of(v, labels[size_t(n)], double(loss.smoothing), w);
      };
      EXPECT_NEAR(losses.read_as<double>()[size_t(n)], at(row), 1e-14);
      EXPECT_EQ(best.read_as<int32_t>()[size_t(n)], std::max_element(row.begin(), row.end()) - row.begin());
      for (size_t c = 0; c < 7; ++c) {
        std::vector<double> up = row, down = row;
        up[c] += 1e-4, down[c] -= 1e-4;
        EXPECT_NEAR(dx.read()(n, int64_t(c), 0, 0), (at(up) - at(down)) / 2e-4, 2e-8) << n << " " << c;
      }
    }
  }
  const Shape map{3, 5, 4, 3};
  const Nchw values = run.reals(map, DType::f32);
  Nchw target = run.reals(map, DType::f32);
  for (double& t : target.v) t = round_to(DType::f32, (t + 1) / 2);
  for (const Distance distance : {Distance::mse, Distance::bce}) {
    const auto at = [&](double v, double t) {
      if (distance == Distance::mse) return scale * (v - t) * (v - t);
      return -scale * (t * std::log(1 / (1 + std::exp(-v))) + (1 - t) * std::log(1 / (1 + std::exp(v))));
    };
    const Activation dx = run.output(map, DType::f32);
    Guarded& losses = run.bytes(3 * sizeof(double), kPoison);
    distance_loss(run.ctx, distance, run.input(values, DType::f32), run.input(target, DType::f32), scale, dx, losses.as<double>());
    const Nchw got = dx.read();
    for (int64_t n = 0; n < map.n; ++n) {
      double sum = 0;
      for (int64_t i = n * map.item(); i < (n + 1) * map.item(); ++i) {
        const double v = values.v[size_t(i)], t = target.v[size_t(i)];
        sum += at(v, t);
        EXPECT_NEAR(got.v[size_t(i)], (at(v + 1e-4, t) - at(v - 1e-4, t)) / 2e-4, 4e-8);
      }
      EXPECT_NEAR(losses.read_as<double>()[size_t(n)], sum, 1e-13);
    }
  }
}

// --- optimisers: five steps in double

void check_optimizers(OpRun& run) {
  using Kind = Optimizer::Kind;
  const int64_t count = 4099;
  for (const Optimizer& o : {Optimizer{.kind = Kind::sgd}, Optimizer{.kind = Kind::sgd, .weight_decay = 0.1, .momentum = 0.9},
                             Optimizer{.kind = Kind::sgd, .weight_decay = 0.1, .momentum = 0.9, .nesterov = true},
                             Optimizer{.kind = Kind::adam, .weight_decay = 0.1},
                             Optimizer{.kind = Kind::adam, .weight_decay = 0.1, .decoupled = true},
                             Optimizer{.kind = Kind::nadam, .weight_decay = 0.1},
                             Optimizer{.kind = Kind::adadelta, .weight_decay = 0.1, .eps = 1e-6}}) {
    std::vector<double> w = run.reals({1, count}, DType::f32).v, a(size_t(count), 0), b(size_t(count), 0);
    const Sums on_w(run, w), other(run, w), state0(run, a), state1(run, a), other0(run, a), other1(run, a);
    const double lr = 0.125;
    double product = 1;  // NAdam's
    for (int64_t step = 1; step <= 5; ++step) {
      const Nchw g = run.reals({1, count}, DType::f32);
      const std::vector<float> gradient(g.v.begin(), g.v.end());
      const float* on_g = run.input_of(gradient).as<float>();
      const auto state = [&](const Sums& s, int i) { return o.states() > i ? s.data() : nullptr; };
      run.ctx.threads = 1;
      optimizer_step(run.ctx, o, lr, step, {on_w.data(), on_g, state(state0, 0), state(state1, 1), count});
      run.ctx.threads = 3;
      optimizer_step(run.ctx, o, lr, step, {other.data(), on_g, state(other0, 0), state(other1, 1), count});
      const auto mu = [&](int64_t t) { return o.beta1 * (1 - 0.5 * std::pow(0.96, 0.004 * double(t))); };
      product *= mu(step);
      for (size_t i = 0; i < w.size(); ++i) {
        double d = g.v[i];
        if (o.decoupled) w[i] -= lr * o.weight_decay * w[i];
        else d += o.weight_decay * w[i];
        if (o.kind == Kind::sgd) {
          a[i] = o.momentum * a[i] + d;
          w[i] -= lr * (o.nesterov ? d + o.momentum * a[i] : a[i]);
        } else if (o.kind == Kind::nadam) {
          a[i] = o.beta1 * a[i] + (1 - o.beta1) * d;
          b[i] = o.beta2 * b[i] + (1 - o.beta2) * d * d;
          w[i] -= lr * ((1 - mu(step)) / (1 - product) * d + mu(step + 1) / (1 - product * mu(step + 1)) * a[i]) /
                  (std::sqrt(b[i] / (1 - std::pow(o.beta2, double(step)))) + o.eps);
        } else if (o.kind == Kind::adam) {
          a[i] = o.beta1 * a[i] + (1 - o.beta1) * d;
          b[i] = o.beta2 * b[i] + (1 - o.beta2) * d * d;
          const double t = double(step);
          w[i] -= lr * a[i] / (1 - std::pow(o.beta1, t)) / (std::sqrt(b[i] / (1 - std::pow(o.beta2, t))) + o.eps);
        } else {
          a[i] = o.rho * a[i] + (1 - o.rho) * d * d;
          const double delta = d * std::sqrt(b[i] + o.eps) / std::sqrt(a[i] + o.eps);
          b[i] = o.rho * b[i] + (1 - o.rho) * delta * delta;
          w[i] -= lr * delta;
        }
      }
    }
    EXPECT_EQ(compare_bits(on_w.memory.read(), other.memory.read()), "") << "1 and 3 threads";
    // Each step rounds a few times, values stay below 4; Adam's quotient near g = 0 amplifies what m and s were rounded by.
    const Nchw got = on_w.read({1, count});
    for (size_t i = 0; i < w.size(); ++i) ASSERT_NEAR(got.v[i], w[i], 5e-6) << i << " kind " << int(o.kind);
  }
  const Nchw v = run.integers({1, 10000}, 9);
  const Sums on_v(run, v.v);
  Guarded& sum = run.bytes(sizeof(double), kPoison);
  const double start = 5;
  sum.write(&start, sizeof start);
  add_squares(run.ctx, on_v.data(), 10000, sum.as<double>());
  EXPECT_EQ(sum.read_as<double>()[0], 5 + dot(v, v));
  scale_array(run.ctx, on_v.data(), 10000, 0.5f);
  Nchw half = v;
  for (double& d : half.v) d *= 0.5;
  EXPECT_EQ(compare_exact(on_v.read({1, 10000}), half), "");
  EXPECT_THROW(optimizer_step(run.ctx, {.kind = Kind::adam}, 1, 1, {on_v.data(), on_v.data(), nullptr, nullptr, 1}), Error);
  EXPECT_THROW(optimizer_step(run.ctx, {}, 1, 0, {on_v.data(), on_v.data(), nullptr, nullptr, 1}), Error);
}

}  // namespace

void register_learn_tests() {
  for_each_device("Op/Learn", [](const DeviceRow& device) {
    for (const ConvCase& c : conv_cases())
      add_test("Op/Learn", fmt::format("conv_weights_{}", c.name), device, "", [&c](OpRun& run) {
        check_conv_weights(run, c);
        check_conv_splits(run, c);
      });
    if (!device.gpu) add_test("Op/Learn", "conv_weights_by_winograd", device, "", check_winograd_weights_gradient);
    add_test("Op/Learn", "conv_transpose_weights", device, "", check_transposed);
    add_test("Op/Learn", "linear_weights", device, "", check_linear);
    add_test("Op/Learn", "bias", device, "", check_bias);
    add_test("Op/Learn", "slopes", device, "", check_slopes);
    add_test("Op/Learn", "batch_norm", device, "", check_batch_norm);
    add_test("Op/Learn", "norm_gradients", device, "", check_norm_gradients);
    for (const DType dtype : device.types)
      add_test("Op/Learn", "dropout", device, short_name(dtype), [dtype](OpRun& run) { check_dropout(run, dtype); });
    add_test("Op/Learn", "losses", device, "", check_losses);
    add_test("Op/Learn", "optimizers", device, "", check_optimizers);
  });
}

}  // namespace switchback::test
