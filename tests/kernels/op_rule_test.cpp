// The three ReLU rules as a truth table: gate x gradient value x rule, in every channel, through the backward epilogue
// of every op. Deconv and guided are not gradients, so no difference quotient can check them.
#include <fmt/format.h>

#include <limits>

#include "kernels/conv/conv.h"
#include "kernels/linear/linear.h"
#include "kernels/normalize/normalize.h"
#include "kernels/pointwise/pointwise.h"
#include "kernels/pool/pool.h"
#include "tests/support/epilogue_check.h"

namespace switchback::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();
constexpr double kGradients[] = {1, -1, 0.0, -0.0, kNan, kInf, -kInf, 0x1p-126, -0x1p-126, 0x1p+127};
constexpr int64_t kGradientCount = std::size(kGradients), kStates = 3, kCombinations = kGradientCount * kStates;
constexpr int64_t kChannels[] = {1, 3, 31, 32, 33, 64, 70};

// What the papers' formulas give, written out: columns are the gradients above, rows the unit's state.
//                             1   -1   0   -0  NaN  inf -inf tiny -tiny huge
constexpr bool kPasses[3][2][kGradientCount] = {
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},   // gradient: below or above a clip, inside
    {{1, 0, 0, 0, 0, 1, 0, 1, 0, 1}, {1, 0, 0, 0, 0, 1, 0, 1, 0, 1}},   // deconv: whatever the gate
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {1, 0, 0, 0, 0, 1, 0, 1, 0, 1}}};  // guided: both

TEST(Rule, TruthTableOfTheReferenceAndOfTheOneExpression) {
  for (int r = 0; r < 3; ++r)
    for (const bool active : {false, true})
      for (int64_t g = 0; g < kGradientCount; ++g) {
        const double value = kGradients[g], want = kPasses[r][active][g] ? value : 0.0;
        for (const double got :
             {rule_value(kRules[r], active, value), double(apply(relu_rule(kRules[r]), active, float(value)))})
          EXPECT_TRUE(got == want || (got != got && want != want)) << r << active << value << " gave " << got;
      }
}

// An op whose own gradient is 0 everywhere (dy = 0), so that `other` alone decides: no NaN meets a product.
struct Op {
  const char* name;
  void (*backward)(OpRun&, Shape dx, DType, const BackwardEpilogue&, View out);
  bool (*takes)(Shape dx);
};

Activation zeros(OpRun& run, Shape shape, DType dtype) { return run.input(Nchw(shape), dtype); }

void conv_of(OpRun& run, const Conv2d& conv, Shape dx, DType dtype, const BackwardEpilogue& e, View out) {
  const std::vector<float> w =
      run.integers(conv.out_channels * (conv.in_channels / conv.groups) * conv.kernel_h * conv.kernel_w, 3);
  const ConvWeights weights(conv, w.data());
  conv2d_backward_data(run.ctx, weights, zeros(run, conv_shape(conv, dx), dtype), out, e);
}

bool always(Shape) { return true; }

const std::vector<Op>& ops() {
  static const std::vector<Op> rows = {
      {"combine",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         combine_backward(run.ctx, zeros(run, s, t), out, e);
       },
       always},
      {"conv_k1",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         conv_of(run, conv2d(s.c, 16, 1), s, t, e, out);
       },
       always},
      {"conv_k3_direct",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         run.ctx.conv = ConvAlgorithm::direct;
         conv_of(run, conv2d(s.c, 64, 3, 1, 1), s, t, e, out);
       },
       always},
      {"conv_k3_winograd",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         run.ctx.conv = run.device.gpu ? ConvAlgorithm::gemm : ConvAlgorithm::winograd;
         conv_of(run, conv2d(s.c, 64, 3, 1, 1), s, t, e, out);
       },
       always},
      {"conv_k3_s2",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         conv_of(run, conv2d(s.c, 32, 3, 2, 1), s, t, e, out);
       },
       always},
      {"conv_k7_s2_first",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         conv_of(run, conv2d(s.c, 64, 7, 2, 3), s, t, e, out);
       },
       [](Shape s) { return s.c <= 3; }},
      {"conv_depthwise",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         conv_of(run, conv2d(s.c, s.c, 3, 1, 1, 1, s.c), s, t, e, out);
       },
       always},
      {"linear",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         const std::vector<float> w = run.integers(8 * s.c, 3);
         const LinearWeights weights{{s.c, 8, false}, w.data(), nullptr};
         linear_backward_data(run.ctx, weights, zeros(run, {s.n, 8, 1, 1}, t), out, e);
       },
       [](Shape s) { return s.h * s.w == 1; }},
      {"max_pool",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         const MaxPool2d pool = max_pool2d(3, 2, 1);
         const Shape y = pool_shape(pool, s);
         const std::vector<uint8_t> switches(size_t(y.count()), 4);  // the middle: always inside
         max_pool2d_backward(run.ctx, pool, zeros(run, y, t), run.input_of(switches).data(), out, e);
       },
       always},
      {"avg_pool",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         const AvgPool2d pool{.kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1};
         avg_pool2d_backward(run.ctx, pool, zeros(run, s, t), out, e);
       },
       always},
      {"adaptive_avg_pool",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         adaptive_avg_pool2d_backward(run.ctx, {2, 1}, zeros(run, {s.n, s.c, 2, 1}, t), out, e);
       },
       always},
      {"channel_affine",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         const Guarded& scale = run.input_of(run.integers(s.c, 3));
         channel_affine_backward(run.ctx, zeros(run, s, t), scale.as<float>(), out, e);
       },
       always},
      {"flatten",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         flatten_backward(run.ctx, zeros(run, {s.n, s.item(), 1, 1}, t), out, e);
       },
       always},
      {"lrn",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         const Shape tape = s.with_n(s.n / e.seeds_per_item);
         lrn_backward(run.ctx, {}, zeros(run, s, t), run.input(run.reals(tape, t), t), out, e);
       },
       always},
      {"softmax",
       [](OpRun& run, Shape s, DType t, const BackwardEpilogue& e, View out) {
         const Shape tape = s.with_n(s.n / e.seeds_per_item);
         softmax_backward(run.ctx, zeros(run, s, t), run.input(Nchw(tape, 0.25), t), out, e);
       },
       always},
  };
  return rows;
}

// Every channel meets every combination of gradient and gate state once per tape item: combination (k + 7·c) where k
// counts the pixels (for vectors: the items).
void check_table(OpRun& run, const Op& op, Shape shape, DType dtype, int64_t seeds) {
  const Shape tape = shape.with_n(shape.n / seeds);
  Gates gates(size_t(tape.count()));
  Nchw other(shape);
  const auto combination = [&](int64_t m, int64_t c, int64_t pixel) {
    return (m * shape.h * shape.w + pixel + 7 * c) % kCombinations;
  };
  const int64_t pixels = shape.h * shape.w;
  for (int64_t i = 0; i < tape.count(); ++i)
    gates[size_t(i)] = uint8_t(combination(i / tape.item(), i / pixels % shape.c, i % pixels) / kGradientCount);
  for (int64_t i = 0; i < shape.count(); ++i) {
    const int64_t n = i / shape.item(), at = combination(n / seeds, i / pixels % shape.c, i % pixels);
    // Other seeds of the same item meet the same gates with other gradients.
    other.v[size_t(i)] = in_range(dtype, kGradients[(at + 3 * (n % seeds)) % kGradientCount]);
  }
  const Guarded& bits = run.input_of(pack_gates(tape, gates, true));
  for (const Rule rule : kRules) {
    Ref want(shape);
    finish_backward(want, &other, &gates, rule, seeds);
    const Activation dx = run.output(shape, dtype);
    run.poison_scratch();
    op.backward(run, shape, dtype,
                {.other = run.input(other, dtype).memory->data(),
                 .relu = true,
                 .gates = bits.as<uint32_t>(),
                 .seeds_per_item = seeds,
                 .rule = relu_rule(rule)},
                dx);
    EXPECT_EQ(compare_exact(dx.read(), want.value, Zeros::many_allowed), "")
        << name_of(rule) << ", " << seeds << " seeds per item";
    if (testing::Test::HasFailure()) return;
  }
}

void check_op(OpRun& run, const Op& op, int64_t channels, DType dtype) {
  const Shape map{1, channels, 5, kCombinations / 5}, vector{kCombinations, channels, 1, 1};
  const Shape shape = op.takes(map) ? map : vector;
  for (const int64_t seeds : {1, 3}) check_table(run, op, shape.with_n(shape.n * seeds), dtype, seeds);
}

// --- Forward ---------------------------------------------------------------------------------------------------------

// The same on the way forward: an op that gives 0 everywhere, so that the residual is s. The gate is 0 < s (< clip) and
// NaN passes with its gate off.
struct ForwardOp {
  const char* name;
  void (*forward)(OpRun&, Shape y, DType, const Epilogue&, View out);
  bool (*takes)(Shape y);
};

void conv_forward_of(OpRun& run, const Conv2d& conv, Shape x, DType dtype, const Epilogue& e, View out) {
  const std::vector<float> w =
      run.integers(conv.out_channels * (conv.in_channels / conv.groups) * conv.kernel_h * conv.kernel_w, 3);
  const ConvWeights weights(conv, w.data());
  conv2d_forward(run.ctx, weights, zeros(run, x, dtype), out, e);
}

const std::vector<ForwardOp>& forward_ops() {
  static const std::vector<ForwardOp> rows = {
      {"relu",
       [](OpRun& run, Shape s, DType t, const Epilogue& e, View out) {
         relu_forward(run.ctx, zeros(run, s, t), out, e);
       },
       always},
      {"add",
       [](OpRun& run, Shape s, DType t, const Epilogue& e, View out) {
         add_forward(run.ctx, zeros(run, s, t), zeros(run, s, t), out, e);
       },
       always},
      {"channel_affine",
       [](OpRun& run, Shape s, DType t, const Epilogue& e, View out) {
         const Guarded& scale = run.input_of(run.integers(s.c, 3));
         channel_affine_forward(run.ctx, zeros(run, s, t), scale.as<float>(), nullptr, out, e);
       },
       always},
      {"max_pool",
       [](OpRun& run, Shape s, DType t, const Epilogue& e, View out) {
         max_pool2d_forward(run.ctx, max_pool2d(2, 2), zeros(run, {s.n, s.c, 2 * s.h, 2 * s.w}, t), out, nullptr, e);
       },
       always},
      {"linear",
       [](OpRun& run, Shape s, DType t, const Epilogue& e, View out) {
         const std::vector<float> w = run.integers(8 * s.c, 3);
         const LinearWeights weights{{8, s.c, false}, w.data(), nullptr};
         linear_forward(run.ctx, weights, zeros(run, {s.n, 8, 1, 1}, t), out, e);
       },
       [](Shape s) { return s.h * s.w == 1; }},
      {"conv_k1",
       [](OpRun& run, Shape s, DType t, const Epilogue& e, View out) {
         conv_forward_of(run, conv2d(16, s.c, 1, 1, 0, 1, 1, false), {s.n, 16, s.h, s.w}, t, e, out);
       },
       always},
      {"conv_k3_direct",
       [](OpRun& run, Shape s, DType t, const Epilogue& e, View out) {
         run.ctx.conv = ConvAlgorithm::direct;
         conv_forward_of(run, conv2d(64, s.c, 3, 1, 1, 1, 1, false), {s.n, 64, s.h, s.w}, t, e, out);
       },
       always},
      {"conv_k3_winograd",
       [](OpRun& run, Shape s, DType t, const Epilogue& e, View out) {
         run.ctx.conv = run.device.gpu ? ConvAlgorithm::gemm : ConvAlgorithm::winograd;
         conv_forward_of(run, conv2d(64, s.c, 3, 1, 1, 1, 1, false), {s.n, 64, s.h, s.w}, t, e, out);
       },
       always},
      {"conv_k3_first",
       [](OpRun& run, Shape s, DType t, const Epilogue& e, View out) {
         conv_forward_of(run, conv2d(3, s.c, 3, 1, 1, 1, 1, false), {s.n, 3, s.h, s.w}, t, e, out);
       },
       always},
      {"conv_k3_d2",
       [](OpRun& run, Shape s, DType t, const Epilogue& e, View out) {
         conv_forward_of(run, conv2d(8, s.c, 3, 1, 2, 2, 1, false), {s.n, 8, s.h, s.w}, t, e, out);
       },
       always},
      {"conv_depthwise",
       [](OpRun& run, Shape s, DType t, const Epilogue& e, View out) {
         conv_forward_of(run, conv2d(s.c, s.c, 3, 1, 1, 1, s.c, false), s, t, e, out);
       },
       always},
  };
  return rows;
}

constexpr double kInputs[] = {0.0, -0.0, 1, -1, 6, 5.96875, 7, kInf, -kInf, kNan, 0x1p-126, -0x1p-126, 0x1p+127, -3};
constexpr int64_t kInputCount = std::size(kInputs);

void check_forward_op(OpRun& run, const ForwardOp& op, int64_t channels, DType dtype) {
  const Shape map{1, channels, 2, kInputCount / 2}, vector{kInputCount, channels, 1, 1};
  const Shape shape = op.takes(map) ? map : vector;
  Nchw residual(shape);
  const int64_t pixels = shape.h * shape.w;
  for (int64_t i = 0; i < shape.count(); ++i)
    residual.v[size_t(i)] = in_range(dtype, kInputs[(i / shape.item() + i % pixels + 5 * (i / pixels % channels)) % kInputCount]);
  for (const bool clipped : {false, true}) {
    Ref want(shape);
    const Activated activated = finish_forward(want, &residual, true, clipped ? 6.f : kNoClip);
    const Activation y = run.output(shape, dtype);
    Guarded& gates = run.bytes(size_t(gate_words(shape)) * (clipped ? 8 : 4), kPoisonBits);
    run.poison_scratch();
    op.forward(run, shape, dtype,
               {.residual = run.input(residual, dtype).memory->data(),
                .relu = true,
                .clip = clipped ? 6.f : kNoClip,
                .gates = gates.as<uint32_t>()},
               y);
    EXPECT_EQ(compare_exact(y.read(), want.value, Zeros::many_allowed), "") << "clipped " << clipped;
    EXPECT_EQ(compare_gates(shape, gates.read_as<uint32_t>(), activated.gates, clipped), "") << "clipped " << clipped;
  }
}

// The CPU has convolutions and linear layers in bf16 only where it is fast at it.
bool runs_in(const DeviceRow& device, const std::string& name, DType dtype) {
  const bool product = name.starts_with("conv") || name == "linear";
  return !product || device.computes_in(dtype);
}

}  // namespace

void register_rule_tests() {
  const auto add = [](const char* suite, const DeviceRow& device, const auto& ops, auto check) {
    for (const auto& op : ops)
      for (const int64_t channels : kChannels)
        for (const DType dtype : device.types) {
          if (!op.takes({1, channels, 5, 6}) && !op.takes({1, channels, 1, 1})) continue;
          if (!runs_in(device, op.name, dtype)) continue;
          add_test(suite, fmt::format("{}_c{}", op.name, channels), device, short_name(dtype),
                   [&op, channels, dtype, check](OpRun& run) { check(run, op, channels, dtype); });
        }
  };
  for_each_device("Op/Rule", [&](const DeviceRow& device) { add("Op/Rule", device, ops(), check_op); });
  for_each_device("Op/Gate", [&](const DeviceRow& device) { add("Op/Gate", device, forward_ops(), check_forward_op); });
}

}  // namespace switchback::test
