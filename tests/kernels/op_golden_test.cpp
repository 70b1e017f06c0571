// Single ops against PyTorch's float64 results (tests/golden/ops.safetensors, made by tests/golden/make_golden.py).
// The double references are checked against them too: they may err only by the file's rounding to float32.
#include <fmt/format.h>

#include <cmath>
#include <map>

#include "kernels/pointwise/pointwise.h"
#include "tests/support/golden_case.h"

namespace switchback::test {
namespace {

void run_conv(OpRun& run, const Golden& g) {
  const Conv2d conv{.in_channels = g.integer("in_channels"),
                    .out_channels = g.integer("out_channels"),
                    .kernel_h = g.integer("kernel_h"),
                    .kernel_w = g.integer("kernel_w"),
                    .stride_h = g.integer("stride_h"),
                    .stride_w = g.integer("stride_w"),
                    .pad_top = g.integer("pad_top"),
                    .pad_left = g.integer("pad_left"),
                    .pad_bottom = g.integer("pad_bottom"),
                    .pad_right = g.integer("pad_right"),
                    .dilation_h = g.integer("dilation_h"),
                    .dilation_w = g.integer("dilation_w"),
                    .groups = g.integer("groups"),
                    .has_bias = g.params.at("has_bias").get<bool>()};
  run.ctx.conv = ConvAlgorithm::direct;
  const Nchw x = g.map("x"), dy = g.map("dy");
  const std::vector<float> w = g.values("w"), b = g.values("b");
  const ConvWeights weights(conv, w.data(), b);
  const Activation y = run.output(dy.shape, kF32), dx = run.output(x.shape, kF32);
  conv2d_forward(run.ctx, weights, run.input(x, kF32), y);
  conv2d_backward_data(run.ctx, weights, run.input(dy, kF32), dx);
  const int64_t taps = conv.kernel_h * conv.kernel_w;
  expect_golden("y", y.read(), g.map("y"), conv_forward(conv, x, w, b, {}), g.exact(),
                rounding_steps(conv.in_channels * taps + 1));
  expect_golden("dx", dx.read(), g.map("dx"), conv_backward(conv, dy, w, {}, x.shape), g.exact(),
                rounding_steps(conv.out_channels * taps));
}

void run_linear(OpRun& run, const Golden& g) {
  const Nchw x = g.map("x"), dy = g.map("dy");
  const std::vector<float> w = g.values("w"), b = g.values("b");
  const LinearWeights weights{{x.shape.c, dy.shape.c, !b.empty()}, w.data(), b.empty() ? nullptr : b.data()};
  const Activation y = run.output(dy.shape, kF32), dx = run.output(x.shape, kF32);
  switchback::linear_forward(run.ctx, weights, run.input(x, kF32), y);
  switchback::linear_backward_data(run.ctx, weights, run.input(dy, kF32), dx);
  expect_golden("y", y.read(), g.map("y"), linear_forward(x, w, b, dy.shape.c), g.exact(),
                rounding_steps(x.shape.c + 1));
  expect_golden("dx", dx.read(), g.map("dx"), linear_backward(dy, w, x.shape.c), g.exact(), rounding_steps(dy.shape.c));
}

MaxPool2d max_pool_of(const Golden& g) {
  return {.kernel_h = g.integer("kernel_h"),
          .kernel_w = g.integer("kernel_w"),
          .stride_h = g.integer("stride_h"),
          .stride_w = g.integer("stride_w"),
          .pad_top = g.integer("pad_top"),
          .pad_left = g.integer("pad_left"),
          .pad_bottom = g.integer("pad_bottom"),
          .pad_right = g.integer("pad_right"),
          .dilation_h = g.integer("dilation_h"),
          .dilation_w = g.integer("dilation_w"),
          .ceil_mode = g.params.at("ceil_mode").get<bool>()};
}

// NCHW integers as the kernel's NHWC bytes or 16-bit words.
Guarded& switches_of(OpRun& run, const Golden& g, const MaxPool2d& pool, Shape y, std::vector<int>& nchw) {
  const std::vector<int64_t> stored = g.file.load_ints(g.name + ".switch");
  nchw.assign(stored.begin(), stored.end());
  std::vector<uint8_t> bytes(stored.size() * pool.switch_bytes());
  for (size_t i = 0; i < stored.size(); ++i) {
    const size_t c = i / size_t(y.h * y.w) % size_t(y.c), pixel = i % size_t(y.h * y.w), n = i / size_t(y.item());
    const size_t at = ((n * size_t(y.h * y.w) + pixel) * size_t(y.c) + c) * pool.switch_bytes();
    bytes[at] = uint8_t(stored[i]);
    if (pool.switch_bytes() == 2) bytes[at + 1] = uint8_t(stored[i] >> 8);
  }
  return run.input_of(bytes);
}

void run_max_pool(OpRun& run, const Golden& g) {
  const MaxPool2d pool = max_pool_of(g);
  const Nchw x = g.map("x"), dy = g.map("dy");
  std::vector<int> switches;
  const Guarded& want = switches_of(run, g, pool, dy.shape, switches);
  Guarded& got = run.bytes(want.size(), kPoisonBits);
  const Activation y = run.output(dy.shape, kF32), dx = run.output(x.shape, kF32);
  max_pool2d_forward(run.ctx, pool, run.input(x, kF32), y, got.data());
  EXPECT_EQ(compare_exact(y.read(), g.map("y"), Zeros::many_allowed), "");
  EXPECT_EQ(compare_bits(got.read(), want.read()), "") << "switches";
  const Pooled reference = max_pool_forward(pool, x);
  EXPECT_EQ(reference.switches, switches) << "switches of the reference";
  max_pool2d_backward(run.ctx, pool, run.input(dy, kF32), want.data(), dx);
  expect_golden("dx", dx.read(), g.map("dx"), max_pool_backward(pool, dy, switches, x.shape, 1), g.exact(),
                rounding_steps(pool.window()));
}

void run_unpool(OpRun& run, const Golden& g) {
  MaxPool2d pool{.kernel_h = g.integer("kernel_h"),
                 .kernel_w = g.integer("kernel_w"),
                 .stride_h = g.integer("stride_h"),
                 .stride_w = g.integer("stride_w"),
                 .pad_top = g.integer("pad_top"),
                 .pad_left = g.integer("pad_left"),
                 .pad_bottom = g.integer("pad_bottom"),
                 .pad_right = g.integer("pad_right")};
  const Nchw x = g.map("x"), want = g.map("y");
  std::vector<int> switches;
  const Guarded& in = switches_of(run, g, pool, x.shape, switches);
  const Activation y = run.output(want.shape, kF32);
  max_pool2d_backward(run.ctx, pool, run.input(x, kF32), in.data(), y);
  EXPECT_EQ(compare_exact(y.read(), want, Zeros::many_allowed), "");
}

void run_avg_pool(OpRun& run, const Golden& g) {
  const AvgPool2d pool{.kernel_h = g.integer("kernel_h"),
                       .kernel_w = g.integer("kernel_w"),
                       .stride_h = g.integer("stride_h"),
                       .stride_w = g.integer("stride_w"),
                       .pad_top = g.integer("pad_top"),
                       .pad_left = g.integer("pad_left"),
                       .pad_bottom = g.integer("pad_bottom"),
                       .pad_right = g.integer("pad_right"),
                       .ceil_mode = g.params.at("ceil_mode").get<bool>(),
                       .count_include_pad = g.params.at("count_include_pad").get<bool>()};
  const Nchw x = g.map("x"), dy = g.map("dy");
  const Activation y = run.output(dy.shape, kF32), dx = run.output(x.shape, kF32);
  avg_pool2d_forward(run.ctx, pool, run.input(x, kF32), y);
  avg_pool2d_backward(run.ctx, pool, run.input(dy, kF32), dx);
  const double steps = rounding_steps(pool.kernel_h * pool.kernel_w + 3);
  expect_golden("y", y.read(), g.map("y"), avg_pool_forward(pool, x), false, steps);
  expect_golden("dx", dx.read(), g.map("dx"), avg_pool_backward(pool, dy, x.shape), false, steps);
}

void run_adaptive(OpRun& run, const Golden& g) {
  const AdaptiveAvgPool2d pool{g.integer("out_h"), g.integer("out_w")};
  const Nchw x = g.map("x"), dy = g.map("dy");
  const Activation y = run.output(dy.shape, kF32), dx = run.output(x.shape, kF32);
  adaptive_avg_pool2d_forward(run.ctx, pool, run.input(x, kF32), y);
  adaptive_avg_pool2d_backward(run.ctx, pool, run.input(dy, kF32), dx);
  const double steps = rounding_steps(x.shape.h * x.shape.w + pool.out_h * pool.out_w + 3);
  expect_golden("y", y.read(), g.map("y"), adaptive_forward(pool, x), false, steps);
  expect_golden("dx", dx.read(), g.map("dx"), adaptive_backward(pool, dy, x.shape), false, steps);
}

void run_lrn(OpRun& run, const Golden& g) {
  const LocalResponseNorm lrn{g.integer("size"), g.params.at("alpha").get<float>(), g.params.at("beta").get<float>(),
                              g.params.at("k").get<float>()};
  const Nchw x = g.map("x"), dy = g.map("dy");
  const Activation in = run.input(x, kF32), y = run.output(x.shape, kF32), dx = run.output(x.shape, kF32);
  switchback::lrn_forward(run.ctx, lrn, in, y);
  switchback::lrn_backward(run.ctx, lrn, run.input(dy, kF32), in, dx);
  const double steps = (double(lrn.size) + 4) * (double(lrn.beta) + 1) + 8;
  // alpha reaches us as float32: the references differ by its rounding.
  Ref forward = lrn_forward(lrn, x), backward = lrn_backward(lrn, dy, x, 1);
  EXPECT_EQ(compare(y.read(), g.map("y"), tolerance(forward, steps + 2)), "");
  EXPECT_EQ(compare(dx.read(), g.map("dx"), tolerance(backward, steps + 2)), "");
  EXPECT_EQ(compare(forward.value, g.map("y"), tolerance(forward, 2)), "") << "reference";
  EXPECT_EQ(compare(backward.value, g.map("dx"), tolerance(backward, 4)), "") << "reference";
}

void run_softmax(OpRun& run, const Golden& g) {
  const Nchw x = g.map("x"), dy = g.map("dy");
  const Ref forward = softmax_forward(x);
  const Activation y = run.output(x.shape, kF32), dx = run.output(x.shape, kF32);
  switchback::softmax_forward(run.ctx, run.input(x, kF32), y);
  switchback::softmax_backward(run.ctx, run.input(dy, kF32), run.input(forward.value, kF32), dx);
  const double steps = rounding_steps(x.shape.c) + 8;
  expect_golden("y", y.read(), g.map("y"), forward, false, steps);
  expect_golden("dx", dx.read(), g.map("dx"), softmax_backward(dy, forward.value, 1), false, steps + 2);
}

void run_batch_norm(OpRun& run, const Golden& g) {
  const Nchw x = g.map("x"), dy = g.map("dy");
  const std::vector<float> w = g.values("w"), b = g.values("b"), mean = g.values("mean"), var = g.values("var");
  std::vector<float> scale, shift;
  for (size_t c = 0; c < w.size(); ++c) {
    const double factor = w[c] / std::sqrt(double(var[c]) + g.params.at("eps").get<double>());
    scale.push_back(float(factor)), shift.push_back(float(b[c] - mean[c] * factor));
  }
  const Guarded& scale_in = run.input_of(scale);
  const Activation y = run.output(x.shape, kF32), dx = run.output(x.shape, kF32);
  channel_affine_forward(run.ctx, run.input(x, kF32), scale_in.as<float>(), run.input_of(shift).as<float>(), y);
  channel_affine_backward(run.ctx, run.input(dy, kF32), scale_in.as<float>(), dx);
  const Nchw y_want = g.map("y"), dx_want = g.map("dx");
  Nchw y_allowed(x.shape), dx_allowed(x.shape);
  for (size_t i = 0; i < x.v.size(); ++i) {
    const size_t c = i / size_t(x.shape.h * x.shape.w) % w.size();
    y_allowed.v[i] = 4 * kEpsF32 * (std::abs(scale[c] * x.v[i]) + std::abs(shift[c]) + std::abs(y_want.v[i]));
    dx_allowed.v[i] = 4 * kEpsF32 * std::abs(dx_want.v[i]);
  }
  EXPECT_EQ(compare(y.read(), y_want, y_allowed), "");
  EXPECT_EQ(compare(dx.read(), dx_want, dx_allowed), "");
}

void run_relu(OpRun& run, const Golden& g) {
  const Nchw x = g.map("x"), dy = g.map("dy");
  const bool clipped = !g.params.at("clip").is_null();
  const float clip = clipped ? g.params.at("clip").get<float>() : kNoClip;
  const ReluRule rule{g.params.at("gate_forward").get<bool>(), g.params.at("gate_gradient").get<bool>()};
  Guarded& gates = run.bytes(size_t(gate_words(x.shape)) * (clipped ? 8 : 4), kPoisonBits);
  const Activation y = run.output(x.shape, kF32), dx = run.output(x.shape, kF32);
  relu_forward(run.ctx, run.input(x, kF32), y, {.relu = true, .clip = clip, .gates = gates.as<uint32_t>()});
  EXPECT_EQ(compare_exact(y.read(), g.map("y"), Zeros::many_allowed), "");
  const void* other = g.has("other") ? run.input(g.map("other"), kF32).memory->data() : nullptr;
  combine_backward(run.ctx, run.input(dy, kF32), dx,
                   {.other = other, .relu = true, .gates = gates.as<uint32_t>(), .rule = rule});
  EXPECT_EQ(compare_exact(dx.read(), g.map("dx"), Zeros::many_allowed), "");
}

const std::map<std::string, GoldenRunner>& runners() {
  static const std::map<std::string, GoldenRunner> rows = {
      {"conv2d", run_conv},
      {"linear", run_linear},
      {"max_pool2d", run_max_pool},
      {"max_unpool2d", run_unpool},
      {"avg_pool2d", run_avg_pool},
      {"adaptive_avg_pool2d", run_adaptive},
      {"lrn", run_lrn},
      {"softmax", run_softmax},
      {"batch_norm", run_batch_norm},
      {"relu", run_relu},
  };
  return rows;
}

}  // namespace

void register_golden_tests() { register_golden_cases("Op/Golden", "ops.safetensors", 60, runners()); }

}  // namespace switchback::test
