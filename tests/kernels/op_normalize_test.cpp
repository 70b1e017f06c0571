// Local response normalisation, softmax and norms over sets: the references by finite differences, the kernels by the
// references.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "kernels/normalize/normalize.h"
#include "kernels/normalize/set_norm.h"
#include "tests/support/epilogue_check.h"
#include "tests/support/reference_layers.h"

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

struct SetNormCase {
  const char* name;
  NormSets sets;
  bool weight, bias;
  int64_t by_place, by_channel;
  Shape x;
};
constexpr SetNormCase kSetNormCases[] = {
    {"layer_norm_of_channels", {96, 1}, true, true, 0, 1, {2, 96, 2, 3}},
    {"layer_norm_of_vectors", {33, 1, 1e-6f}, true, false, 0, 1, {4, 33, 1, 1}},
    {"layer_norm_of_columns", {1, 5}, true, true, 1, 0, {2, 7, 3, 5}},
    {"layer_norm_of_maps", {1, 12}, true, true, 1, 0, {2, 40, 3, 4}},
    {"layer_norm_of_items", {9, 12, 0.1f}, true, true, 9, 1, {2, 9, 3, 4}},
    {"group_norm", {16, 20}, true, true, 0, 1, {2, 64, 4, 5}},
    {"group_norm_of_three", {3, 30}, true, true, 0, 1, {4, 12, 5, 6}},
    {"group_norm_of_all", {6, 16}, false, false, 0, 1, {2, 6, 4, 4}},
    {"instance_norm", {1, 35}, false, false, 0, 1, {2, 35, 5, 7}},
    {"large_sets", {32, 36}, true, true, 0, 1, {2, 32, 6, 6}},
};
NormCase reference_of(OpRun& run, const SetNormCase& c) {
  const int64_t places = c.by_place > 0 ? c.sets.places : 1, channels = c.by_channel > 0 ? c.x.c : 1;
  const auto values = [&](bool there) {
    const std::vector<float> v = there ? run.reals(places * channels, DType::f32) : std::vector<float>();
    return std::vector<double>(v.begin(), v.end());
  };
  return {c.sets, values(c.weight), values(c.bias), c.by_place, c.by_channel};
}

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

void check_set_norm(OpRun& run, const SetNormCase& c, DType dtype) {
  const NormCase norm = reference_of(run, c);
  const auto on_device = [&](const std::vector<double>& v) -> Guarded& {
    return run.input_of(std::vector<float>(v.begin(), v.end()));
  };
  const Guarded &weight = on_device(norm.weight), &bias = on_device(norm.bias);
  const NormAffine affine{c.weight ? weight.as<float>() : nullptr, c.bias ? bias.as<float>() : nullptr, c.by_place,
                          c.by_channel};
  const Nchw x = run.reals(c.x, dtype);
  const Activation in = run.input(x, dtype), out = run.output(c.x, dtype);
  switchback::set_norm_forward(run.ctx, c.sets, affine, in, out);
  const Ref y = set_norm_forward(norm, x);
  constexpr double kSteps = 8;  // sums are in double
  EXPECT_EQ(compare(out.read(), y.value, tolerance(y, kSteps, dtype), Zeros::many_allowed), "");
  for (const int64_t seeds : {1, 3}) {
    const Nchw dy = run.reals(c.x.with_n(c.x.n * seeds), dtype);
    const Activation dy_in = run.input(dy, dtype);
    check_backward(run, set_norm_backward(norm, dy, x, seeds), within(dtype, 2 * kSteps), seeds,
                   [&](View dx, const BackwardEpilogue& e) {
                     switchback::set_norm_backward(run.ctx, c.sets, affine, dy_in, in, dx, e);
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

TEST(FiniteDifferences, SetNorms) {
  for (const SetNormCase& c : kSetNormCases) {
    if (c.x.item() > 120) continue;
    OpRun run(devices().front(), c.name);
    const NormCase norm = reference_of(run, c);
    const Nchw x = run.reals(c.x.with_n(1), DType::f32), dy = run.reals(c.x.with_n(1), DType::f32);
    expect_gradient(x, dy, set_norm_backward(norm, dy, x, 1).value,
                    [&](const Nchw& v) { return set_norm_forward(norm, v).value; });
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
  add("Op/SetNorm", kSetNormCases, check_set_norm);
}

}  // namespace switchback::test
