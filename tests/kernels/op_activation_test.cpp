// Slopes, ramps and smooth functions: shapes x devices x element types; derivatives of the references by finite
// differences.
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "kernels/check.h"
#include "tests/support/epilogue_check.h"
#include "tests/support/reference_layers.h"

namespace switchback::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Case {
  const char* name;
  Shape shape;
};
// Channels around the 32 bits of a gate word, and maps around the vector lengths.
constexpr Case kCases[] = {
    {"c1", {6, 1, 5, 7}},   {"c3", {6, 3, 4, 3}},   {"c31", {6, 31, 2, 2}},   {"c32", {6, 32, 2, 3}},
    {"c33", {6, 33, 2, 2}}, {"c70", {6, 70, 2, 1}}, {"vector", {6, 300, 1, 1}}, {"c96", {6, 96, 3, 2}},
};

Accuracy lenient(Accuracy accuracy) {
  accuracy.zeros = Zeros::many_allowed;
  return accuracy;
}

Gates random_gates(OpRun& run, Shape shape, int states) {
  Gates gates(size_t(shape.count()));
  for (uint8_t& g : gates) g = uint8_t(run.rng() % uint64_t(states));
  return gates;
}

// --- slopes

void check_slopes(OpRun& run, const Case& c, DType dtype) {
  for (const bool each : {false, true}) {
    std::vector<float> slopes = run.integers(each ? c.shape.c : 1, 3);  // negative ones too: PReLU may learn them
    for (float& s : slopes) s /= 4;
    const std::vector<double> exact_slopes(slopes.begin(), slopes.end());
    const Slopes given{.all = slopes[0], .by_channel = each ? run.input_of(slopes).as<float>() : nullptr};
    const Nchw x = run.integers(c.shape, 12);
    Gates open;
    const Ref want = slope_forward(exact_slopes, x, &open);
    const Activation in = run.input(x, dtype), y = run.output(c.shape, dtype);
    Guarded& gates = run.bytes(size_t(gate_words(c.shape)) * 4, kPoisonBits);
    switchback::slope_forward(run.ctx, given, in, y, gates.as<uint32_t>());
    EXPECT_EQ(compare_exact(y.read(), round_to(dtype, want.value), Zeros::many_allowed), "");
    EXPECT_EQ(compare_gates(c.shape, gates.read_as<uint32_t>(), open, false), "");
    const Activation without = run.output(c.shape, dtype);
    switchback::slope_forward(run.ctx, given, in, without, nullptr);
    EXPECT_EQ(compare_bits(without.memory->read(), y.memory->read()), "") << "without gates";

    const Nchw dy = run.integers(c.shape, 9);
    const Activation dy_in = run.input(dy, dtype);
    for (const int64_t seeds : {1, 2, 3})
      for (const Rule rule : kRules) {
        const Shape kept = c.shape.with_n(c.shape.n / seeds);
        const Gates states = random_gates(run, kept, 2);
        const Guarded& words = run.input_of(pack_gates(kept, states, false));
        check_backward(run, slope_backward(exact_slopes, dy, states, rule, seeds), lenient(exact(dtype)), seeds,
                       [&](View dx, const BackwardEpilogue& e) {
                         switchback::slope_backward(run.ctx, given, dy_in, words.as<uint32_t>(), relu_rule(rule), dx, e);
                       });
      }
  }
}

// Zeros of both signs, infinities and NaN in every channel: x > 0 decides, NaN passes with its gate off.
void check_slope_table(OpRun& run, const Case& c, DType dtype) {
  const double values[] = {0.0, -0.0, 1, -1, kInf, -kInf, kNan, 0x1p-120, -0x1p-120, -64};
  Nchw x(Shape{1, c.shape.c, 1, int64_t(std::size(values))});
  for (size_t i = 0; i < x.v.size(); ++i) x.v[i] = round_to(dtype, values[(i + i / std::size(values)) % std::size(values)]);
  Gates open;
  const Ref want = slope_forward({0.25}, x, &open);
  const Activation y = run.output(x.shape, dtype);
  Guarded& gates = run.bytes(size_t(gate_words(x.shape)) * 4, kPoisonBits);
  switchback::slope_forward(run.ctx, {.all = 0.25f}, run.input(x, dtype), y, gates.as<uint32_t>());
  EXPECT_EQ(compare_exact(y.read(), round_to(dtype, want.value), Zeros::many_allowed), "");
  EXPECT_EQ(compare_gates(x.shape, gates.read_as<uint32_t>(), open, false), "");
}

// --- ramps

void check_ramp(OpRun& run, Shape shape, DType dtype, const Ramp& ramp, bool integers) {
  SCOPED_TRACE(fmt::format("scale {} shift {} min {} max {}", ramp.scale, ramp.shift, ramp.min, ramp.max));
  Nchw x = integers ? run.integers(shape, 9) : run.reals(shape, dtype);
  if (!integers)
    for (double& v : x.v) v *= 8;  // exact
  RampValue want = ramp_forward(ramp.scale, ramp.shift, ramp.min, ramp.max, x);
  const Activation y = run.output(shape, dtype);
  const bool two_planes = ramp.max < kInfinity;
  Guarded& gates = run.bytes(size_t(gate_words(shape)) * (two_planes ? 8 : 4), kPoisonBits);
  switchback::ramp_forward(run.ctx, ramp, run.input(x, dtype), y, gates.as<uint32_t>());
  const Accuracy accuracy = lenient(integers ? exact(dtype) : within(dtype, 4));
  EXPECT_EQ(accuracy.compare(y.read(), want.y, Zeros::many_allowed), "");
  // The sum before it is stored: rounding may decide only where it is that near to an end.
  const Nchw margin = integers ? Nchw(shape) : tolerance(want.s, 4);
  std::vector<uint8_t> undecided(x.v.size(), 0);
  for (size_t i = 0; i < x.v.size(); ++i)
    undecided[i] = !integers && (std::abs(want.s.value.v[i] - ramp.min) <= margin.v[i] ||
                                 std::abs(want.s.value.v[i] - ramp.max) <= margin.v[i]);
  EXPECT_EQ(compare_gates(shape, gates.read_as<uint32_t>(), want.gates, two_planes, &undecided), "");

  const Nchw dy = run.integers(shape, 9);
  const Activation dy_in = run.input(dy, dtype);
  for (const int64_t seeds : {1, 2, 3}) {
    const Shape kept = shape.with_n(shape.n / seeds);
    const Gates states = random_gates(run, kept, 3);
    const Guarded& words = run.input_of(pack_gates(kept, states, true));
    check_backward(run, ramp_backward(ramp.scale, dy, states, seeds), accuracy, seeds,
                   [&](View dx, const BackwardEpilogue& e) {
                     switchback::ramp_backward(run.ctx, ramp, dy_in, words.as<uint32_t>(), dx, e);
                   });
  }
}

void check_ramps(OpRun& run, const Case& c, DType dtype) {
  check_ramp(run, c.shape, dtype, Clip{-4, 3}, true);
  if (run.device.emulated && c.shape.c > 32) return;
  check_ramp(run, c.shape, dtype, Clip{-kInfinity, 5}, true);
  check_ramp(run, c.shape, dtype, Clip{-2, kInfinity}, true);
  check_ramp(run, c.shape, dtype, Clip{-kInfinity, kInfinity}, true);
  check_ramp(run, c.shape, dtype, Hardsigmoid{0.25f, 0.5f}, true);
  check_ramp(run, c.shape, dtype, Hardsigmoid{}, false);
  check_ramp(run, c.shape, dtype, Hardsigmoid{0.2f, 0.5f}, false);
}

void check_ramp_table(OpRun& run, const Case& c, DType dtype) {
  const double values[] = {0.0, -0.0, 2, -2, 1.75, kInf, -kInf, kNan, 3, -3, -1.75};
  for (const Ramp& ramp : {Ramp(Clip{-2, 2}), Ramp(Clip{-2, kInfinity}), Ramp(Clip{-kInfinity, 2})}) {
    Nchw x(Shape{1, c.shape.c, 1, int64_t(std::size(values))});
    for (size_t i = 0; i < x.v.size(); ++i) x.v[i] = values[(i + i / std::size(values)) % std::size(values)];
    const RampValue want = ramp_forward(1, 0, ramp.min, ramp.max, x);
    const Activation y = run.output(x.shape, dtype);
    const bool two_planes = ramp.max < kInfinity;
    Guarded& gates = run.bytes(size_t(gate_words(x.shape)) * (two_planes ? 8 : 4), kPoisonBits);
    switchback::ramp_forward(run.ctx, ramp, run.input(x, dtype), y, gates.as<uint32_t>());
    EXPECT_EQ(compare_exact(y.read(), want.y.value, Zeros::many_allowed), "");
    EXPECT_EQ(compare_gates(x.shape, gates.read_as<uint32_t>(), want.gates, two_planes), "");
  }
}

// --- smooth functions

using enum SmoothFunction;
constexpr Smooth kFunctions[] = {{sigmoid}, {SmoothFunction::tanh}, {hardswish}, {silu}, {gelu}, {gelu_tanh}, {elu, 0.75f},
                                 {celu, 0.5f}, {softplus}, {mish}, {SmoothFunction::erf}, {SmoothFunction::exp}, {SmoothFunction::log},
                                 {SmoothFunction::sqrt}, {reciprocal}, {SmoothFunction::abs}, {SmoothFunction::pow, 3.f},
                                 {SmoothFunction::pow, 0.25f}, {SmoothFunction::sin}, {SmoothFunction::cos},
                                 {SmoothFunction::floor}, {SmoothFunction::ceil}, {SmoothFunction::round}, {sign}};
// Those that are not defined, or not smooth, everywhere: tried where they are.
bool wants_positive(const Smooth& s) {
  return s.function == SmoothFunction::log || s.function == SmoothFunction::sqrt || s.function == reciprocal ||
         (s.function == SmoothFunction::pow && s.a != 3.f);
}
// Exponentials are good to 3 units in the last place; a sum, a square and quotients follow.
constexpr double kSmoothSteps = 16;

// Below its least normal number f32 may flush.
Nchw smooth_tolerance(const Ref& ref, DType dtype) {
  Nchw t = tolerance(ref, kSmoothSteps, dtype);
  for (double& v : t.v) v += 0x1p-125;
  return t;
}

void check_smooth(OpRun& run, const Case& c, DType dtype) {
  for (const Smooth& function : kFunctions) {
    SCOPED_TRACE(fmt::format("function {}", int(function.function)));
    if (run.device.emulated && function.function > gelu_tanh && c.shape.c != 3 && c.shape.c != 32) continue;  // the same loops
    Nchw x = run.reals(c.shape, dtype);
    for (size_t i = 0; i < x.v.size(); ++i) x.v[i] *= i % 3 == 0 ? 0.5 : i % 3 == 1 ? 4 : 16;  // exact
    if (function.function == SmoothFunction::exp)
      for (double& v : x.v) v /= 4;  // inside the range of f16
    if (wants_positive(function))
      for (double& v : x.v) v = round_to(dtype, std::abs(v) + 0.0625);
    const Activation y = run.output(c.shape, dtype);
    switchback::smooth_forward(run.ctx, function, run.input(x, dtype), y);
    const Ref want = smooth_forward(function, x);
    EXPECT_EQ(compare(y.read(), want.value, smooth_tolerance(want, dtype), Zeros::many_allowed), "");
    const Nchw dy = run.reals(c.shape, dtype);
    const Activation dy_in = run.input(dy, dtype);
    const Accuracy accuracy{dtype, [=](const Ref& ref) { return smooth_tolerance(ref, dtype); }, Zeros::many_allowed};
    for (const int64_t seeds : {1, 2, 3}) {
      const Nchw kept = x.items(0, c.shape.n / seeds);
      const Activation kept_in = run.input(kept, dtype);
      check_backward(run, smooth_backward(function, dy, kept, seeds), accuracy, seeds,
                     [&](View dx, const BackwardEpilogue& e) {
                       switchback::smooth_backward(run.ctx, function, dy_in, kept_in, dx, e);
                     });
    }
  }
}

// The ends of the range, where an exponential over- or underflows, and the corners of hardswish.
void check_smooth_table(OpRun& run, const Case& c, DType dtype) {
  const double values[] = {0.0,  -0.0, kInf, -kInf, kNan, 88,   -88,  89.5, -89.5,     105,        -105, 1e4,
                           -1e4, 3,    -3,   2.984375, -2.984375, 0.625, 0.5, -0.5, 0x1p-20, -0x1p-20, 17,   -17};
  const int64_t count = int64_t(std::size(values));
  Nchw x(Shape{1, c.shape.c, 1, count}), dy(x.shape, 1);
  for (size_t i = 0; i < x.v.size(); ++i) x.v[i] = round_to(dtype, values[(i + i / size_t(count)) % size_t(count)]);
  const Activation in = run.input(x, dtype), dy_in = run.input(dy, dtype);
  for (const Smooth& function : std::span(kFunctions).first(10)) {  // the others have their library's ends
    SCOPED_TRACE(fmt::format("function {}", int(function.function)));
    const Activation y = run.output(x.shape, dtype), dx = run.output(x.shape, dtype);
    switchback::smooth_forward(run.ctx, function, in, y);
    switchback::smooth_backward(run.ctx, function, dy_in, in, dx);
    Ref forward = smooth_forward(function, x), backward = smooth_backward(function, dy, x, 1);
    EXPECT_EQ(compare(y.read(), forward.value, smooth_tolerance(forward, dtype), Zeros::many_allowed), "");
    // At infinities and NaN derivatives are not asked for.
    Nchw got = dx.read();
    for (size_t i = 0; i < x.v.size(); ++i)
      if (!std::isfinite(x.v[i])) got.v[i] = backward.value.v[i] = backward.terms.v[i] = 0;
    EXPECT_EQ(compare(got, backward.value, smooth_tolerance(backward, dtype), Zeros::many_allowed), "");
  }
}

// Steps at their steps, and what is far from 0.
void check_steps(OpRun& run, DType dtype) {
  const double values[] = {0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -1.5, -2.5, 3, -3, 0.375, -0.625, kInf, -kInf, kNan, 1e4, 3e38, 1e9};
  Nchw x(Shape{1, 3, 1, int64_t(std::size(values))});
  for (size_t i = 0; i < x.v.size(); ++i) x.v[i] = round_to(dtype, values[i % std::size(values)]);
  const Activation in = run.input(x, dtype), y = run.output(x.shape, dtype);
  for (const Smooth& function : std::span(kFunctions).last(4)) {
    SCOPED_TRACE(fmt::format("function {}", int(function.function)));
    switchback::smooth_forward(run.ctx, function, in, y);
    EXPECT_EQ(compare_exact(y.read(), smooth_forward(function, x).value, Zeros::many_allowed), "");
  }
  if (dtype != DType::f32) return;
  for (double& v : x.v) v = std::isfinite(v) ? v * 1000 + 0.25 : v;
  for (double& v : x.v) v = round_to(dtype, v);
  const Activation far = run.input(x, dtype);
  for (const Smooth& function : std::span(kFunctions).last(6).first(2)) {
    switchback::smooth_forward(run.ctx, function, far, y);
    Ref want = smooth_forward(function, x);
    for (double& t : want.terms.v) t = 1;
    EXPECT_EQ(compare(y.read(), want.value, smooth_tolerance(want, dtype), Zeros::many_allowed), "");
  }
}

TEST(FiniteDifferences, SmoothFunctions) {
  constexpr double kStep = 1e-5;
  for (const Smooth& function : kFunctions)
    for (double at = wants_positive(function) ? 0.31 : -8.03; at < 8; at += 0.37) {
      Nchw x(Shape{1, 3, 1, 1}), dy(Shape{1, 1, 1, 1}, 1);
      x.v = {at - kStep, at, at + kStep};
      const Nchw y = smooth_forward(function, x).value;
      Nchw middle(Shape{1, 1, 1, 1}, at);
      if (function.function >= SmoothFunction::floor && y.v[2] != y.v[0]) continue;  // over a step
      EXPECT_NEAR((y.v[2] - y.v[0]) / (2 * kStep), smooth_backward(function, dy, middle, 1).value.v[0], 1e-8 * std::max(1.0, std::abs(y.v[2]))) << at;
    }
}

void check_errors(OpRun& run) {
  const Activation a = run.input(Nchw(Shape{2, 2, 3, 4}, 1), DType::f32), b = run.input(Nchw(Shape{2, 2, 4, 3}, 1), DType::f32);
  const Activation y = run.output({2, 2, 3, 4}, DType::f32);
  EXPECT_THROW(switchback::slope_forward(run.ctx, {}, b, y, nullptr), Error);
  EXPECT_THROW(switchback::ramp_forward(run.ctx, Clip{2, 1}, a, y, nullptr), Error);
  EXPECT_THROW(switchback::ramp_backward(run.ctx, Clip{1, 2}, a, nullptr, y), Error);
  EXPECT_THROW(switchback::slope_backward(run.ctx, {}, a, nullptr, kGradient, y), Error);
  EXPECT_THROW(switchback::smooth_backward(run.ctx, {}, a, run.input(Nchw(Shape{1, 2, 3, 4}, 1), DType::f32), y), Error);
}

}  // namespace

void register_activation_tests() {
  struct Op {
    const char* suite;
    void (*check)(OpRun&, const Case&, DType);
  };
  constexpr Op kOps[] = {{"Op/Slope", check_slopes},    {"Op/SlopeTable", check_slope_table},
                         {"Op/Ramp", check_ramps},      {"Op/RampTable", check_ramp_table},
                         {"Op/Smooth", check_smooth},   {"Op/SmoothTable", check_smooth_table}};
  for (const Op& op : kOps)
    for_each_device(op.suite, [&](const DeviceRow& device) {
      for (const Case& c : kCases)
        for (const DType dtype : device.types)
          add_test(op.suite, c.name, device, short_name(dtype),
                   [&c, dtype, check = op.check](OpRun& run) { check(run, c, dtype); });
      for (const DType dtype : device.types)
        if (op.check == check_smooth_table)
          add_test(op.suite, "steps", device, short_name(dtype), [dtype](OpRun& run) { check_steps(run, dtype); });
      if (op.check == check_slopes) add_test(op.suite, "errors", device, "", check_errors);
    });
}

}  // namespace switchback::test
