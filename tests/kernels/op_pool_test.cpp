// Max pooling with switches, average and adaptive average pooling: cases x devices x element types.
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "kernels/check.h"
#include "kernels/pool/pool.h"
#include "tests/support/epilogue_check.h"

namespace switchback::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

// What the input is made of. The few-valued ones make ties, the usual state behind a ReLU.
enum class Fill {
  reals, integers, ties_at_zero, signed_zeros, all_equal, all_minus_infinity, negative, with_nan, with_infinities
};
constexpr Fill kFills[] = {Fill::reals,     Fill::integers,           Fill::ties_at_zero, Fill::signed_zeros,
                           Fill::all_equal, Fill::all_minus_infinity, Fill::negative,
                           Fill::with_nan,  Fill::with_infinities};

Nchw make_input(OpRun& run, Shape shape, Fill fill, DType dtype) {
  switch (fill) {
    case Fill::reals:
      return run.reals(shape, dtype);
    case Fill::all_equal:
      return Nchw(shape, 2);
    case Fill::all_minus_infinity:
      return Nchw(shape, -kInf);
    default:
      break;
  }
  Nchw x = run.integers(shape, fill == Fill::ties_at_zero ? 1 : 5);
  for (double& v : x.v) {
    if (fill == Fill::ties_at_zero) v = v > 0 && run.rng() % 4 == 0 ? 1 : 0;
    if (fill == Fill::signed_zeros) v = run.rng() % 3 == 0 ? 0. : run.rng() % 2 == 0 ? -0. : -1.;
    if (fill == Fill::negative) v = -std::abs(v) - 1;
    if (fill == Fill::with_nan && run.rng() % 10 == 0) v = kNan;
    if (fill == Fill::with_infinities && run.rng() % 3 == 0) v = run.rng() % 4 == 0 ? kInf : -kInf;
  }
  return x;
}

struct MaxCase {
  const char* name;
  MaxPool2d pool;
  Shape x;
};
const std::vector<MaxCase>& max_cases() {
  static const std::vector<MaxCase> rows = {
      {"k2_s2", max_pool2d(2, 2), {2, 64, 8, 6}},
      {"k2_s2_odd", max_pool2d(2, 2), {3, 33, 7, 9}},
      {"k2_s2_ceil", max_pool2d(2, 2, 0, 1, true), {2, 31, 7, 9}},
      {"k3_s3_lenet", max_pool2d(3, 3), {2, 32, 12, 12}},
      {"k3_s3_c33", max_pool2d(3, 3), {2, 33, 9, 7}},
      {"k3_s2_alexnet_overlapping", max_pool2d(3, 2), {1, 64, 13, 11}},
      {"k3_s2_p1_resnet", max_pool2d(3, 2, 1), {1, 64, 12, 13}},
      {"k3_s2_p1_ceil", max_pool2d(3, 2, 1, 1, true), {2, 3, 10, 9}},
      {"k3_s2_ceil_squeezenet", max_pool2d(3, 2, 0, 1, true), {1, 70, 10, 12}},
      {"k3_s1_p1_same_size", max_pool2d(3, 1, 1), {2, 32, 5, 6}},
      {"k3_s1_p1_googlenet_c80", max_pool2d(3, 1, 1), {3, 80, 7, 9}},
      {"k3_s1_p1_c17", max_pool2d(3, 1, 1), {2, 17, 5, 3}},
      {"k3_s1_p1_one_row", max_pool2d(3, 1, 1), {2, 20, 1, 9}},
      {"k3_s1_p1_one_column", max_pool2d(3, 1, 1), {2, 5, 6, 1}},
      {"k3_s1_p1_c1", max_pool2d(3, 1, 1), {2, 1, 4, 5}},
      {"k3_s2_ceil_c69", max_pool2d(3, 2, 0, 1, true), {1, 69, 8, 8}},
      {"k2_s1_p1_c47", max_pool2d(2, 1, 1), {2, 47, 3, 5}},
      {"k2_s3_gaps", max_pool2d(2, 3), {2, 1, 9, 10}},
      {"k2_s1", max_pool2d(2, 1), {2, 8, 4, 5}},
      {"k3_d2", max_pool2d(3, 1, 1, 2), {2, 5, 9, 8}},
      {"k5_d2_p2", max_pool2d(5, 2, 2, 2), {1, 5, 11, 12}},
      {"k2_s2_d3_ceil", max_pool2d(2, 2, 1, 3, true), {1, 40, 10, 11}},
      {"k1", max_pool2d(1, 1), {2, 7, 3, 4}},
      {"k1_s2", max_pool2d(1, 2), {2, 7, 5, 4}},
      {"whole_map", max_pool2d(6, 6), {3, 35, 6, 6}},
      {"k16_one_byte_switches", max_pool2d(16, 3), {1, 3, 20, 19}},
      {"k17_two_byte_switches", max_pool2d(17, 2), {2, 3, 21, 20}},
      {"k17_two_byte_switches_wide", max_pool2d(17, 2), {1, 32, 21, 20}},
      {"k20_p9_two_byte_switches", max_pool2d(20, 5, 9), {1, 9, 22, 24}},
      {"rectangle",
       {.kernel_h = 2,
        .kernel_w = 3,
        .stride_h = 1,
        .stride_w = 2,
        .pad_top = 1,
        .pad_left = 0,
        .pad_bottom = 0,
        .pad_right = 1},
       {2, 9, 5, 8}},
      {"one_row", {.kernel_h = 1, .kernel_w = 2, .stride_h = 1, .stride_w = 2}, {2, 17, 1, 30}},
      {"one_pixel", max_pool2d(1, 1), {2, 64, 1, 1}},
  };
  return rows;
}

// compare_exact takes 0 and -0 for equal, but the value is that of the winner, bit by bit.
void expect_same_signs(const Nchw& got, const Nchw& want) {
  for (size_t i = 0; i < want.v.size(); ++i)
    if (!std::isnan(want.v[i]) && std::signbit(got.v[i]) != std::signbit(want.v[i])) {
      ADD_FAILURE() << "value " << i << " is " << got.v[i] << ", must be " << want.v[i];
      return;
    }
}

std::vector<int> read_switches(const MaxPool2d& pool, const Guarded& memory, Shape y) {
  const std::vector<uint8_t> bytes = memory.read();
  std::vector<int> out(size_t(y.count()));
  size_t i = 0;
  for (int64_t n = 0; n < y.n; ++n)
    for (int64_t c = 0; c < y.c; ++c)
      for (int64_t h = 0; h < y.h; ++h)
        for (int64_t w = 0; w < y.w; ++w, ++i) {
          const size_t at = size_t(((n * y.h + h) * y.w + w) * y.c + c);
          out[i] = pool.switch_bytes() == 1 ? bytes[at] : bytes[2 * at] + 256 * bytes[2 * at + 1];
        }
  return out;
}

Guarded& upload_switches(OpRun& run, const MaxPool2d& pool, const std::vector<int>& switches, Shape y) {
  std::vector<uint8_t> bytes(size_t(y.count()) * pool.switch_bytes());
  size_t i = 0;
  for (int64_t n = 0; n < y.n; ++n)
    for (int64_t c = 0; c < y.c; ++c)
      for (int64_t h = 0; h < y.h; ++h)
        for (int64_t w = 0; w < y.w; ++w, ++i) {
          const size_t at = size_t(((n * y.h + h) * y.w + w) * y.c + c) * pool.switch_bytes();
          bytes[at] = uint8_t(switches[i]);
          if (pool.switch_bytes() == 2) bytes[at + 1] = uint8_t(switches[i] >> 8);
        }
  return run.input_of(bytes);
}

void check_max_forward(OpRun& run, const MaxCase& c, Fill fill, DType dtype) {
  SCOPED_TRACE(fmt::format("fill {}", int(fill)));
  const Nchw values = make_input(run, c.x, fill, dtype);
  const Pooled want = max_pool_forward(c.pool, values);
  const Shape y_shape = want.value.shape;
  ASSERT_EQ(output_shape(c.pool, c.x), y_shape);
  const Activation x = run.input(values, dtype);
  for (const bool with_switches : {true, false}) {
    const Activation y = run.output(y_shape, dtype);
    Guarded* switches = nullptr;
    if (with_switches) switches = &run.bytes(size_t(y_shape.count()) * c.pool.switch_bytes(), kPoisonBits);
    max_pool2d_forward(run.ctx, c.pool, x, y, switches ? switches->data() : nullptr);
    const Nchw got = y.read();
    EXPECT_EQ(compare_exact(got, want.value, Zeros::many_allowed), "") << "with switches: " << with_switches;
    expect_same_signs(got, want.value);
    if (switches) {
      EXPECT_EQ(read_switches(c.pool, *switches, y_shape), want.switches);
    }
  }
}

void check_max(OpRun& run, const MaxCase& c, DType dtype) {
  for (const Fill fill : kFills) {
    check_max_forward(run, c, fill, dtype);
    if (testing::Test::HasFailure()) return;
  }
  const Nchw values = run.integers(c.x, 9);
  const Pooled want = max_pool_forward(c.pool, values);
  const Shape y_shape = want.value.shape;
  const Activation x = run.input(values, dtype);
  Guarded& written = run.bytes(size_t(y_shape.count()) * c.pool.switch_bytes(), kPoisonBits);
  Ref forward(y_shape);
  forward.value = want.value;
  Accuracy accuracy = exact(dtype);
  accuracy.zeros = Zeros::many_allowed;
  check_forward(run, forward, accuracy, [&](View y, const Epilogue& e) {
    max_pool2d_forward(run.ctx, c.pool, x, y, written.data(), e);
    EXPECT_EQ(read_switches(c.pool, written, y_shape), want.switches) << "the epilogue must not move a switch";
  });

  const Guarded& switches = upload_switches(run, c.pool, want.switches, y_shape);
  for (const int64_t seeds : {1, 2, 3}) {
    const Nchw dy = run.integers(y_shape.with_n(y_shape.n * seeds), 7);
    const Activation dy_in = run.input(dy, dtype);
    const Ref dx = max_pool_backward(c.pool, dy, want.switches, c.x.with_n(c.x.n * seeds), seeds);
    check_backward(run, dx, accuracy, seeds, [&](View out, const BackwardEpilogue& e) {
      max_pool2d_backward(run.ctx, c.pool, dy_in, switches.data(), out, e);
    });
  }
  // Unpooling is the adjoint of picking the winners.
  const Nchw dy = run.reals(y_shape, dtype), picked = run.reals(c.x, dtype);
  const Activation dx = run.output(c.x, dtype);
  max_pool2d_backward(run.ctx, c.pool, run.input(dy, dtype), switches.data(), dx);
  const Ref right = max_pool_backward(c.pool, dy, want.switches, c.x, 1);
  EXPECT_EQ(compare(dx.read(), right.value, tolerance(right, double(c.pool.window()), dtype), Zeros::many_allowed), "");
}

// --- Averages --------------------------------------------------------------------------------------------------------

AvgPool2d avg(int64_t kernel, int64_t stride, int64_t pad, bool ceil, bool include) {
  return {.kernel_h = kernel,
          .kernel_w = kernel,
          .stride_h = stride,
          .stride_w = stride,
          .pad_top = pad,
          .pad_left = pad,
          .pad_bottom = pad,
          .pad_right = pad,
          .ceil_mode = ceil,
          .count_include_pad = include};
}

struct AvgCase {
  const char* name;
  AvgPool2d pool;
  Shape x;
};
const std::vector<AvgCase>& avg_cases() {
  static const std::vector<AvgCase> rows = {
      {"k2_s2", avg(2, 2, 0, false, true), {2, 64, 8, 6}},
      {"k3_s2_p1", avg(3, 2, 1, false, true), {2, 33, 9, 8}},
      {"k3_s2_p1_without_pad", avg(3, 2, 1, false, false), {2, 3, 9, 8}},
      {"k3_s2_p1_ceil", avg(3, 2, 1, true, true), {1, 31, 10, 12}},
      {"k3_s2_p1_ceil_without_pad", avg(3, 2, 1, true, false), {1, 70, 10, 12}},
      {"k3_s1_p1_inception", avg(3, 1, 1, false, true), {2, 32, 5, 6}},
      {"k2_s3_gaps", avg(2, 3, 0, false, true), {2, 1, 9, 10}},
      {"k9_large_windows", avg(9, 4, 0, false, true), {1, 32, 13, 14}},
      {"k9_large_windows_c5", avg(9, 4, 0, false, true), {1, 5, 13, 18}},
      {"k7_whole_map", avg(7, 7, 0, false, true), {3, 40, 7, 7}},
      {"asymmetric",
       {.kernel_h = 3,
        .kernel_w = 4,
        .stride_h = 2,
        .stride_w = 1,
        .pad_top = 1,
        .pad_left = 2,
        .pad_bottom = 0,
        .pad_right = 1},
       {2, 6, 7, 9}},
  };
  return rows;
}

struct AdaptiveCase {
  const char* name;
  AdaptiveAvgPool2d pool;
  Shape x;
};
constexpr AdaptiveCase kAdaptiveCases[] = {
    {"global", {1, 1}, {2, 70, 7, 5}},      {"7_from_7", {7, 7}, {2, 33, 7, 7}},
    {"7_from_10x9", {7, 7}, {2, 3, 10, 9}}, {"7_from_14", {7, 7}, {1, 64, 14, 14}},
    {"6_from_13", {6, 6}, {2, 31, 13, 13}}, {"7_from_1", {7, 7}, {2, 32, 1, 1}},
    {"7_from_3x4", {7, 7}, {1, 8, 3, 4}},   {"5x3_from_11x7", {5, 3}, {2, 1, 11, 7}},
};

// A sum of up to `window` values and a division or a product with a rounded reciprocal.
double average_steps(int64_t window) { return rounding_steps(window + 3); }

template <typename Forward, typename Backward>
void check_average(OpRun& run, DType dtype, const Nchw& x, const Ref& y, double steps, Forward forward,
                   Backward backward, const std::function<Ref(const Nchw& dy, Shape x)>& reference) {
  const Activation in = run.input(x, dtype), out = run.output(y.value.shape, dtype);
  forward(in, out);
  const Nchw got = out.read();
  EXPECT_EQ(compare(got, y.value, tolerance(y, steps, dtype)), "");
  for (const int64_t seeds : {1, 2, 3}) {
    const Nchw dy = run.reals(y.value.shape.with_n(seeds * x.shape.n), dtype);
    const Activation dy_in = run.input(dy, dtype);
    const Ref dx = reference(dy, x.shape.with_n(seeds * x.shape.n));
    Accuracy accuracy = within(dtype, steps);
    accuracy.zeros = Zeros::many_allowed;
    check_backward(run, dx, accuracy, seeds, [&](View to, const BackwardEpilogue& e) { backward(dy_in, to, e); });
    if (seeds > 1) continue;
    const Activation dx_out = run.output(x.shape, dtype);
    backward(dy_in, dx_out, BackwardEpilogue{});
    EXPECT_EQ(check_adjoint(dy, got, tolerance(y, steps, dtype), dx_out.read(), x, tolerance(dx, steps, dtype)), "");
  }
}

void check_avg(OpRun& run, const AvgCase& c, DType dtype) {
  const Nchw x = run.reals(c.x, dtype);
  const Ref y = avg_pool_forward(c.pool, x);
  ASSERT_EQ(output_shape(c.pool, c.x), y.value.shape);
  check_average(
      run, dtype, x, y, average_steps(c.pool.kernel_h * c.pool.kernel_w),
      [&](ConstView in, View out) { avg_pool2d_forward(run.ctx, c.pool, in, out); },
      [&](ConstView dy, View dx, const BackwardEpilogue& e) { avg_pool2d_backward(run.ctx, c.pool, dy, dx, e); },
      [&](const Nchw& dy, Shape shape) { return avg_pool_backward(c.pool, dy, shape); });
}

void check_adaptive(OpRun& run, const AdaptiveCase& c, DType dtype) {
  const Nchw x = run.reals(c.x, dtype);
  const Ref y = adaptive_forward(c.pool, x);
  ASSERT_EQ(output_shape(c.pool, c.x), y.value.shape);
  check_average(
      run, dtype, x, y, average_steps(std::max(c.x.h * c.x.w, c.pool.out_h * c.pool.out_w)),
      [&](ConstView in, View out) { adaptive_avg_pool2d_forward(run.ctx, c.pool, in, out); },
      [&](ConstView dy, View dx, const BackwardEpilogue& e) {
        adaptive_avg_pool2d_backward(run.ctx, c.pool, dy, dx, e);
      },
      [&](const Nchw& dy, Shape shape) { return adaptive_backward(c.pool, dy, shape); });
}

void check_errors(OpRun& run) {
  EXPECT_THROW(output_shape(max_pool2d(5, 1), Shape{1, 2, 4, 9}), Error) << "window larger than the input";
  EXPECT_THROW(output_shape(max_pool2d(3, 1, 0, 3), Shape{1, 2, 6, 9}), Error)
      << "dilated window larger than the input";
  EXPECT_THROW(output_shape(avg(5, 1, 0, false, true), Shape{1, 2, 9, 4}), Error);
  EXPECT_THROW(output_shape(max_pool2d(2, 0), Shape{1, 2, 6, 9}), Error) << "stride 0";
  const Activation x = run.input(Nchw(Shape{1, 2, 4, 4}, 1), DType::f32), y = run.output({1, 2, 3, 2}, DType::f32);
  EXPECT_THROW(max_pool2d_forward(run.ctx, max_pool2d(2, 2), x, y, nullptr), Error);
  EXPECT_THROW(avg_pool2d_forward(run.ctx, avg(2, 2, 0, false, true), x, y), Error);
  EXPECT_THROW(adaptive_avg_pool2d_forward(run.ctx, {2, 2}, x, y), Error);
  if (!run.ctx.gpu) return;
  const ConstView huge{x.memory->data(), {1, 1, 1 << 16, 1 << 15}, DType::f32};
  const Activation corner = run.output({1, 1, 2, 1}, DType::f32);
  EXPECT_THROW(max_pool2d_forward(run.ctx, max_pool2d(2, 1 << 15), huge, corner, nullptr), Error) << "2^31 places";
}

}  // namespace

void register_pool_tests() {
  const auto add = [](const char* suite, const DeviceRow& device, const auto& cases, auto check) {
    for (const auto& c : cases)
      for (const DType dtype : device.types)
        add_test(suite, c.name, device, short_name(dtype),
                 [&c, dtype, check](OpRun& run) { check(run, c, dtype); });
  };
  for_each_device("Op/MaxPool", [&](const DeviceRow& device) { add("Op/MaxPool", device, max_cases(), check_max); });
  for_each_device("Op/AvgPool", [&](const DeviceRow& device) {
    add("Op/AvgPool", device, avg_cases(), check_avg);
    add_test("Op/AvgPool", "errors", device, "", check_errors);
  });
  for_each_device("Op/AdaptiveAvgPool",
                  [&](const DeviceRow& device) { add("Op/AdaptiveAvgPool", device, kAdaptiveCases, check_adaptive); });
}

}  // namespace switchback::test
