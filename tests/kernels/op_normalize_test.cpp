// Local response normalisation and softmax: the references by finite differences, the kernels by the references.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "kernels/normalize/normalize.h"
#include "tests/support/epilogue_check.h"

namespace switchback::test {
namespace {

struct LrnCase {
  const char* name;
  LocalResponseNorm lrn;
  Shape x;
};
constexpr LrnCase kLrnCases[] = {
    {"alexnet", {5, 1e-4f, 0.75f, 1.f}, {2, 64, 3, 4}},
    {"strong", {5, 2.f, 0.75f, 2.f}, {2, 33, 3, 3}},
    {"size3", {3, 1.5f, 0.5f, 1.f}, {2, 6, 4, 3}},
    {"size4_uneven_reach", {4, 1.f, 0.75f, 1.f}, {2, 9, 3, 3}},
    {"wider_than_channels", {9, 1.f, 1.f, 1.f}, {2, 3, 3, 4}},
    {"size1", {1, 0.5f, 2.f, 1.f}, {2, 32, 2, 2}},
    {"one_channel", {5, 1.f, 0.75f, 1.f}, {2, 1, 5, 5}},
    {"odd_beta_many_channels", {5, 3.f, 0.6f, 0.5f}, {2, 70, 2, 3}},
};

struct SoftmaxCase {
  const char* name;
  Shape x;
  double scale;
};
constexpr SoftmaxCase kSoftmaxCases[] = {
    {"c10", {2, 10, 1, 1}, 1}, {"c1000", {2, 1000, 1, 1}, 8},    {"pixels", {2, 5, 3, 4}, 4},
    {"c1", {2, 1, 2, 2}, 1},   {"c33_pixels", {2, 33, 2, 2}, 3}, {"large_logits", {2, 17, 1, 1}, 200},
};

// Powers are good to a few units in the last place; the denominator is a sum of `size` squares raised to beta + 1.
double lrn_steps(const LocalResponseNorm& lrn) { return (double(lrn.size) + 4) * (double(lrn.beta) + 1) + 8; }
double softmax_steps(int64_t channels) { return rounding_steps(channels) + 8; }

void check_lrn(OpRun& run, const LrnCase& c, DType dtype) {
  const Nchw x = run.reals(c.x, dtype);
  const Ref y = lrn_forward(c.lrn, x);
  const double steps = lrn_steps(c.lrn);
  const Activation in = run.input(x, dtype), out = run.output(c.x, dtype);
  switchback::lrn_forward(run.ctx, c.lrn, in, out);
  EXPECT_EQ(compare(out.read(), y.value, tolerance(y, steps, dtype)), "");
  for (const int64_t seeds : {1, 2, 3}) {
    const Nchw dy = run.reals(c.x.with_n(c.x.n * seeds), dtype);
    const Activation dy_in = run.input(dy, dtype);
    check_backward(
        run, lrn_backward(c.lrn, dy, x, seeds), within(dtype, steps), seeds,
        [&](View dx, const BackwardEpilogue& e) { switchback::lrn_backward(run.ctx, c.lrn, dy_in, in, dx, e); });
  }
}

void check_softmax(OpRun& run, const SoftmaxCase& c, DType dtype) {
  Nchw x = run.reals(c.x, dtype);
  for (double& v : x.v) v = round_to(dtype, v * c.scale);
  const Ref y = softmax_forward(x);
  const double steps = softmax_steps(c.x.c);
  const Activation in = run.input(x, dtype), out = run.output(c.x, dtype);
  switchback::softmax_forward(run.ctx, in, out);
  Nchw allowed = tolerance(y, steps, dtype);
  for (double& t : allowed.v) t += 0x1p-126;  // below: f32 may flush what is smaller than its least normal number
  EXPECT_EQ(compare(out.read(), y.value, allowed, Zeros::many_allowed), "");

  const Nchw kept = round_to(dtype, y.value);  // what the tape holds
  const Activation kept_in = run.input(kept, dtype);
  for (const int64_t seeds : {1, 2, 3}) {
    const Nchw dy = run.reals(c.x.with_n(c.x.n * seeds), dtype);
    const Activation dy_in = run.input(dy, dtype);
    Accuracy accuracy{dtype,
                      [=](const Ref& ref) {
                        Nchw t = tolerance(ref, steps, dtype);
                        for (double& v : t.v) v += 0x1p-126;
                        return t;
                      },
                      Zeros::many_allowed};
    // With one channel the gradient is exactly 0 and only its rounding is left to see.
    if (c.x.c == 1) continue;
    check_backward(run, softmax_backward(dy, kept, seeds), accuracy, seeds, [&](View dx, const BackwardEpilogue& e) {
      switchback::softmax_backward(run.ctx, dy_in, kept_in, dx, e);
    });
  }
}

// Central differences of the double references: the derivative formulas are right, not merely agreed upon.
void expect_gradient(const Nchw& x, const Nchw& dy, const Nchw& dx, const std::function<Nchw(const Nchw&)>& forward) {
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < x.v.size(); ++i) {
    Nchw above = x, below = x;
    above.v[i] += kStep, below.v[i] -= kStep;
    const Nchw high = forward(above), low = forward(below);
    double slope = 0;
    for (size_t k = 0; k < dy.v.size(); ++k) slope += dy.v[k] * (high.v[k] - low.v[k]) / (2 * kStep);
    EXPECT_NEAR(slope, dx.v[i], 1e-8) << i;
  }
}

TEST(FiniteDifferences, LocalResponseNorm) {
  for (const LrnCase& c : kLrnCases) {
    if (c.x.c > 9) continue;
    OpRun run(devices().front(), c.name);
    const Nchw x = run.reals(c.x.with_n(1), DType::f32), dy = run.reals(c.x.with_n(1), DType::f32);
    expect_gradient(x, dy, lrn_backward(c.lrn, dy, x, 1).value,
                    [&](const Nchw& v) { return lrn_forward(c.lrn, v).value; });
  }
}

TEST(FiniteDifferences, Softmax) {
  for (const Shape shape : {Shape{1, 10, 1, 1}, Shape{1, 4, 2, 3}}) {
    OpRun run(devices().front(), "softmax");
    const Nchw x = run.reals(shape, DType::f32), dy = run.reals(shape, DType::f32);
    expect_gradient(x, dy, softmax_backward(dy, softmax_forward(x).value, 1).value,
                    [&](const Nchw& v) { return softmax_forward(v).value; });
  }
}

}  // namespace

void register_normalize_tests() {
  const auto add = [](const char* suite, const auto& cases, auto check) {
    for_each_device(suite, [&](const DeviceRow& device) {
      for (const auto& c : cases)
        for (const DType dtype : device.types)
          add_test(suite, c.name, device, short_name(dtype),
                   [&c, dtype, check](OpRun& run) { check(run, c, dtype); });
    });
  };
  add("Op/Lrn", kLrnCases, check_lrn);
  add("Op/Softmax", kSoftmaxCases, check_softmax);
}

}  // namespace switchback::test
