// Arithmetic, comparisons and choices of operands that broadcast: functions x shapes x devices x element types.
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <span>

#include "kernels/check.h"
#include "tests/support/epilogue_check.h"
#include "tests/support/reference_layers.h"

namespace switchback::test {
namespace {

struct Case {
  const char* name;
  Shape a, b;
  bool b_constant = false;  // n = 1 and f32, for all items
};
constexpr Case kCases[] = {
    {"same", {6, 5, 3, 4}, {6, 5, 3, 4}},
    {"same_c64", {6, 64, 2, 2}, {6, 64, 2, 2}},
    {"squeeze_excite", {6, 33, 3, 4}, {6, 33, 1, 1}},
    {"squeeze_excite_c32", {6, 32, 5, 4}, {6, 32, 1, 1}},
    {"squeeze_excite_first", {6, 7, 1, 1}, {6, 7, 4, 3}},
    {"squeeze_excite_large", {6, 1, 33, 32}, {6, 1, 1, 1}},
    {"spatial_attention", {6, 40, 3, 2}, {6, 1, 3, 2}},
    {"one_value_each", {6, 35, 2, 3}, {6, 1, 1, 1}},
    {"rows", {6, 6, 4, 3}, {6, 6, 4, 1}},
    {"columns", {6, 33, 2, 5}, {6, 33, 1, 5}},
    {"both_ways", {6, 5, 4, 1}, {6, 1, 4, 3}},
    {"outer_product", {6, 1, 1, 7}, {6, 9, 5, 1}},
    {"vectors", {6, 100, 1, 1}, {6, 100, 1, 1}},
    {"scalar", {6, 32, 2, 3}, {1, 1, 1, 1}, true},
    {"scalar_c5", {6, 5, 3, 3}, {1, 1, 1, 1}, true},
    {"by_channel", {6, 32, 3, 2}, {1, 32, 1, 1}, true},
    {"by_channel_c7", {6, 7, 2, 3}, {1, 7, 1, 1}, true},
    {"by_channel_c1", {6, 1, 5, 7}, {1, 1, 1, 1}, true},
    {"by_channel_c2", {6, 2, 5, 3}, {1, 2, 1, 1}, true},
    {"by_channel_c3", {6, 3, 7, 5}, {1, 3, 1, 1}, true},
    {"by_channel_c4", {6, 4, 3, 5}, {1, 4, 1, 1}, true},
    {"by_channel_c5", {6, 5, 7, 3}, {1, 5, 1, 1}, true},
    {"by_channel_c67", {6, 67, 3, 1}, {1, 67, 1, 1}, true},
    {"by_channel_c3_threads", {6, 3, 34, 33}, {1, 3, 1, 1}, true},
    {"full_constant", {6, 33, 2, 3}, {1, 33, 2, 3}, true},
    {"map_constant", {6, 4, 2, 3}, {1, 1, 2, 3}, true},
};
using enum BinaryFunction;
constexpr BinaryFunction kFunctions[] = {add,   sub,       mul,     div,           BinaryFunction::max, BinaryFunction::min,
                                         where, where_not, greater, greater_equal, equal};

Nchw fill(OpRun& run, Shape shape, DType dtype, bool integers, bool divisor, bool condition = false) {
  Nchw v = integers ? run.integers(shape, 8) : run.reals(shape, dtype);
  for (size_t i = 1; condition && i < v.v.size(); i += 3) v.v[i] = 0;
  if (!divisor) return v;
  for (double& d : v.v) d = integers ? std::exp2(std::abs(d) > 4 ? -1 : 1) * (d < 0 ? -1 : 1) : d + (d < 0 ? -1 : 1);
  return round_to(dtype, v);
}

int64_t summed(Shape full, Shape part) { return full.item() / part.item(); }

void check_function(OpRun& run, const Case& c, BinaryFunction function, DType dtype, bool integers) {
  SCOPED_TRACE(fmt::format("function {}, {}", int(function), integers ? "integers" : "reals"));
  const DType b_type = c.b_constant ? DType::f32 : dtype;
  const Nchw a = fill(run, c.a, dtype, integers, false);
  const Nchw b = fill(run, c.b, b_type, integers, function == div, function == where || function == where_not);
  const Ref y = binary_forward(function, a, b);
  ASSERT_EQ(broadcast({function}, c.a, c.b), y.value.shape);
  const Activation a_in = run.input(a, dtype), b_in = run.input(b, b_type);
  const auto accuracy = [&](int64_t longest) {
    Accuracy v = integers ? exact(dtype) : within(dtype, rounding_steps(longest) + 4);
    v.zeros = Zeros::many_allowed;
    return v;
  };
  check_forward(run, y, accuracy(1), [&](View out, const Epilogue& e) {
    switchback::binary_forward(run.ctx, {function}, a_in, b_in, out, e);
  });

  const Shape full = y.value.shape;
  const Nchw dy = integers ? run.integers(full, 8) : run.reals(full, dtype);
  const Activation dy_in = run.input(dy, dtype);
  for (const int64_t seeds : {1, 2, 3})
    for (int operand = 0; operand < (c.b_constant ? 1 : 2); ++operand) {
      const int64_t items = full.n / seeds;
      const Nchw kept_a = a.items(0, items), kept_b = c.b_constant ? b : b.items(0, items);
      const Activation a_kept = run.input(kept_a, dtype), b_kept = run.input(kept_b, b_type);
      // Values that are not needed are not there.
      const Needs needed = needs({function}, operand);
      const ConstView a_view{needed.a ? a_kept.memory->data() : nullptr, kept_a.shape, dtype};
      const ConstView b_view{needed.b ? b_kept.memory->data() : nullptr, kept_b.shape, b_type};
      SCOPED_TRACE(fmt::format("operand {}", operand));
      check_backward(run, binary_backward(function, operand, dy, kept_a, kept_b, seeds),
                     accuracy(summed(full, operand == 0 ? c.a : c.b)), seeds, [&](View dx, const BackwardEpilogue& e) {
                       switchback::binary_backward(run.ctx, {function}, operand, dy_in, a_view, b_view, dx, e);
                     });
    }
}

void check_case(OpRun& run, const Case& c, DType dtype) {
  const bool large = c.a.count() > 5000;  // sums are what such a case is about
  for (const BinaryFunction function : kFunctions) {
    if (large && function != mul) continue;
    if (function > div && run.device.emulated && c.a.c > 5 && c.a.c != 33) continue;  // the same loops
    check_function(run, c, function, dtype, true);
    if (testing::Test::HasFailure()) return;
    if (function >= greater) continue;  // 0 and 1 are exact
    if (function == where_not && c.b.count() == 1) continue;  // nothing but zeros: no clip lies between them
    check_function(run, c, function, dtype, false);
    if (testing::Test::HasFailure()) return;
  }
}

// A constant before the operator: b is then what varies.
void check_constant_first(OpRun& run, DType dtype) {
  for (const BinaryFunction function : kFunctions) {
    if (function == where_not) continue;  // nothing but zeros, here
    const bool integers = function >= greater;
    const Nchw a = fill(run, {1, 5, 1, 1}, DType::f32, integers, false), b = fill(run, {6, 5, 3, 2}, dtype, integers, !integers);
    const Activation a_in = run.input(a, DType::f32), b_in = run.input(b, dtype);
    Accuracy accuracy = integers ? exact(dtype) : within(dtype, 8);
    accuracy.zeros = Zeros::many_allowed;
    check_forward(run, binary_forward(function, a, b), accuracy, [&](View y, const Epilogue& e) {
      switchback::binary_forward(run.ctx, {function}, a_in, b_in, y, e);
    });
    const Nchw dy = run.reals(b.shape, dtype);
    const Activation dy_in = run.input(dy, dtype);
    check_backward(run, binary_backward(function, 1, dy, a, b, 1), accuracy, 1, [&](View dx, const BackwardEpilogue& e) {
      switchback::binary_backward(run.ctx, {function}, 1, dy_in, a_in, b_in, dx, e);
    });
  }
}

// What is not chosen may be anything. NaN is the larger and the smaller one, compares with nothing, and chooses as 1 does.
void check_table(OpRun& run, DType dtype) {
  constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
  const double values[] = {0.0, -0.0, 1, -2, kInf, -kInf, kNan, 3};
  const int64_t count = int64_t(std::size(values));
  Nchw a(Shape{1, 3, count, count}), b(a.shape), dy(a.shape, 1);
  for (size_t i = 0; i < a.v.size(); ++i)
    a.v[i] = values[i / size_t(count) % size_t(count)], b.v[i] = values[i % size_t(count)];
  const Activation a_in = run.input(a, dtype), b_in = run.input(b, dtype), dy_in = run.input(dy, dtype);
  for (const BinaryFunction function : std::span(kFunctions).subspan(4)) {
    SCOPED_TRACE(fmt::format("function {}", int(function)));
    const Activation y = run.output(a.shape, dtype);
    switchback::binary_forward(run.ctx, {function}, a_in, b_in, y);
    EXPECT_EQ(compare_exact(y.read(), binary_forward(function, a, b).value, Zeros::many_allowed), "");
    for (const int operand : {0, 1}) {
      const Activation dx = run.output(a.shape, dtype);
      switchback::binary_backward(run.ctx, {function}, operand, dy_in, a_in, b_in, dx);
      EXPECT_EQ(compare_exact(dx.read(), binary_backward(function, operand, dy, a, b, 1).value, Zeros::many_allowed), "");
    }
  }
}

// Sums do not depend on how a batch is split.
void check_batch_splits(OpRun& run, const Case& c, DType dtype) {
  if (c.b_constant) return;
  const Activation a = run.input(run.reals(c.a, dtype), dtype), b = run.input(run.reals(c.b, dtype), dtype);
  const Shape full = broadcast({}, c.a, c.b);
  const Activation dy = run.input(run.reals(full, dtype), dtype);
  for (const int operand : {0, 1}) {
    const auto op = [&](int64_t first, int64_t count) {
      const Activation part = run.output((operand == 0 ? c.a : c.b).with_n(count), dtype);
      run.ctx.threads = int(count % 3) + 1;
      switchback::binary_backward(run.ctx, {BinaryFunction::mul}, operand, slice(dy, first, count), slice(a, first, count),
                                  slice(b, first, count), part);
      return part.memory->read();
    };
    EXPECT_EQ(check_splits(full.n, op), "") << "operand " << operand;
  }
}

// Central differences of the reference, through everything that an operand was broadcast to.
TEST(FiniteDifferences, BinaryFunctions) {
  constexpr double kStep = 1e-5;
  OpRun run(devices().front(), "binary");
  for (const BinaryFunction function : kFunctions)
    for (const auto& [a_shape, b_shape] : {std::pair<Shape, Shape>{{2, 3, 2, 2}, {2, 3, 1, 1}}, {{2, 1, 2, 1}, {2, 3, 2, 2}}}) {
      const Nchw a = fill(run, a_shape, DType::f32, false, true), b = fill(run, b_shape, DType::f32, false, true);
      const Nchw dy = run.reals({2, 3, 2, 2}, DType::f32);
      for (const int operand : {0, 1}) {
        const Nchw dx = binary_backward(function, operand, dy, a, b, 1).value;
        for (size_t i = 0; i < dx.v.size(); ++i) {
          double slope = 0;
          for (const double step : {-kStep, kStep}) {
            Nchw operands[] = {a, b};
            operands[operand].v[i] += step;
            const Nchw y = binary_forward(function, operands[0], operands[1]).value;
            for (size_t k = 0; k < dy.v.size(); ++k) slope += dy.v[k] * y.v[k] * (step > 0 ? 1 : -1) / (2 * kStep);
          }
          EXPECT_NEAR(slope, dx.v[i], 1e-7) << int(function) << " operand " << operand << " element " << i;
        }
      }
    }
}

void check_errors(OpRun& run) {
  const Activation a = run.input(Nchw(Shape{2, 3, 2, 2}, 1), DType::f32), b = run.input(Nchw(Shape{2, 2, 2, 2}, 1), DType::f32);
  const Activation y = run.output({2, 3, 2, 2}, DType::f32), half = run.output({2, 3, 2, 2}, DType::bf16);
  EXPECT_THROW(switchback::binary_forward(run.ctx, {}, a, b, y), Error);
  EXPECT_THROW(switchback::binary_forward(run.ctx, {}, half, a, y), Error);
  EXPECT_THROW(switchback::binary_backward(run.ctx, {}, 0, a, a, {nullptr, a.shape, DType::f32}, y), Error);
  EXPECT_THROW(switchback::binary_backward(run.ctx, {}, 0, a, a, a, run.output({2, 3, 1, 1}, DType::f32)), Error);
}

}  // namespace

void register_binary_tests() {
  for_each_device("Op/Binary", [](const DeviceRow& device) {
    for (const Case& c : kCases)
      for (const DType dtype : device.types) {
        add_test("Op/Binary", c.name, device, short_name(dtype), [&c, dtype](OpRun& run) { check_case(run, c, dtype); });
        add_test("Op/BinarySplits", c.name, device, short_name(dtype),
                 [&c, dtype](OpRun& run) { check_batch_splits(run, c, dtype); });
      }
    for (const DType dtype : device.types) {
      add_test("Op/Binary", "constant_first", device, short_name(dtype),
               [dtype](OpRun& run) { check_constant_first(run, dtype); });
      add_test("Op/Binary", "table", device, short_name(dtype), [dtype](OpRun& run) { check_table(run, dtype); });
    }
    add_test("Op/Binary", "errors", device, "", check_errors);
  });
}

}  // namespace switchback::test
