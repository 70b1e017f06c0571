// Fully connected layers, forward and backward: cases x devices x element types.
#include <fmt/format.h>

#include "kernels/check.h"
#include "kernels/linear/linear.h"
#include "tests/support/epilogue_check.h"

namespace switchback::test {
namespace {

struct Case {
  const char* name;
  int64_t batch, in, out;
  bool bias = true;
};
constexpr Case kCases[] = {
    {"one_by_one", 1, 1, 1},
    {"one_to_70", 2, 1, 70},
    {"70_to_one", 5, 70, 1},
    {"batch1_256_200", 1, 256, 200},
    {"batch2_200_10", 2, 200, 10},
    {"batch6_odd", 6, 33, 65},
    {"batch16_64_128", 16, 64, 128},
    {"batch1_odd", 1, 37, 31},
    {"batch1_long", 1, 4099, 34},
    {"batch3_long", 3, 2050, 19},
    {"batch2_long_back", 2, 19, 4100},
    {"batch5_no_bias", 5, 48, 96, false},
    {"batch33_tail", 33, 17, 100},
    {"batch4_wide", 4, 30, 1000},
};

struct Data {
  Nchw x, dy;
  std::vector<float> weight, bias;
};

Data make_data(OpRun& run, const Case& c, bool integers, DType dtype) {
  const Shape x{c.batch, c.in, 1, 1}, y{c.batch, c.out, 1, 1};
  Data d;
  d.x = integers ? run.integers(x, 7) : run.reals(x, dtype);
  d.dy = integers ? run.integers(y, 7) : run.reals(y, dtype);
  d.weight = integers ? run.integers(c.in * c.out, 5) : run.reals(c.in * c.out, dtype);
  if (c.bias) d.bias = integers ? run.integers(c.out, 9) : run.reals(c.out, dtype);
  return d;
}

LinearWeights weights_of(const Case& c, const Data& d) {
  return {{c.in, c.out, c.bias}, d.weight.data(), d.bias.empty() ? nullptr : d.bias.data()};
}

void check_both_directions(OpRun& run, const Case& c, DType dtype, bool integers) {
  const Data d = make_data(run, c, integers, dtype);
  const LinearWeights weights = weights_of(c, d);
  ASSERT_EQ(output_shape(weights.linear, d.x.shape), d.dy.shape);
  const Activation x = run.input(d.x, dtype), dy = run.input(d.dy, dtype);
  Accuracy forward = integers ? exact(dtype) : within(dtype, rounding_steps(c.in + 2));
  Accuracy backward = integers ? exact(dtype) : within(dtype, rounding_steps(c.out + 2));
  // With a single value or a single product chance may make it a zero.
  forward.zeros = backward.zeros = c.in * c.out <= 70 ? Zeros::many_allowed : Zeros::few;
  check_forward(run, linear_forward(d.x, d.weight, d.bias, c.out), forward,
                [&](View y, const Epilogue& e) { switchback::linear_forward(run.ctx, weights, x, y, e); });
  const Ref dx = linear_backward(d.dy, d.weight, c.in);
  for (const int64_t seeds : {1, 2, 3, 5, 11})
    if (c.batch % seeds == 0)
      check_backward(run, dx, backward, seeds, [&](View out, const BackwardEpilogue& e) {
        switchback::linear_backward_data(run.ctx, weights, dy, out, e);
      });
}

void check_case(OpRun& run, const Case& c, DType dtype) {
  check_both_directions(run, c, dtype, true);
  if (testing::Test::HasFailure()) return;
  check_both_directions(run, c, dtype, false);

  Data d = make_data(run, c, false, dtype);
  d.bias.clear();
  const LinearWeights weights = weights_of(c, d);
  const Activation x = run.input(d.x, dtype), dy = run.input(d.dy, dtype);
  const Activation y = run.output(d.dy.shape, dtype), dx = run.output(d.x.shape, dtype);
  switchback::linear_forward(run.ctx, weights, x, y);
  switchback::linear_backward_data(run.ctx, weights, dy, dx);
  EXPECT_EQ(
      check_adjoint(d.dy, y.read(), tolerance(linear_forward(d.x, d.weight, {}, c.out), rounding_steps(c.in), dtype),
                    dx.read(), d.x, tolerance(linear_backward(d.dy, d.weight, c.in), rounding_steps(c.out), dtype)),
      "");
}

// On integers: a library may sum in another order for another batch.
void check_batch_splits(OpRun& run, const Case& c, DType dtype) {
  const Data d = make_data(run, c, true, dtype);
  const LinearWeights weights = weights_of(c, d);
  for (const bool backward : {false, true}) {
    const Activation in = run.input(backward ? d.dy : d.x, dtype);
    const auto op = [&](int64_t first, int64_t count) {
      const Activation out = run.output((backward ? d.x : d.dy).shape.with_n(count), dtype);
      run.ctx.threads = int(count % 3) + 1;  // nor may the number of threads matter
      run.poison_scratch();
      if (backward)
        switchback::linear_backward_data(run.ctx, weights, slice(in, first, count), out);
      else
        switchback::linear_forward(run.ctx, weights, slice(in, first, count), out);
      return out.memory->read();
    };
    if (c.batch > 1) {
      EXPECT_EQ(check_splits(c.batch, op), "") << (backward ? "backward" : "forward");
    }
  }
}

void check_errors(OpRun& run) {
  const std::vector<float> w(12, 1.f);
  const LinearWeights weights{{3, 4, false}, w.data(), nullptr};
  const auto forward = [&](Shape x, Shape y) {
    switchback::linear_forward(run.ctx, weights, run.input(Nchw(x, 1), DType::f32), run.output(y, DType::f32));
  };
  EXPECT_NO_THROW(forward({2, 3, 1, 1}, {2, 4, 1, 1}));
  EXPECT_THROW(forward({2, 4, 1, 1}, {2, 4, 1, 1}), Error);
  EXPECT_THROW(forward({2, 3, 1, 1}, {2, 3, 1, 1}), Error);
  EXPECT_THROW(forward({2, 3, 1, 1}, {1, 4, 1, 1}), Error);
}

}  // namespace

void register_linear_tests() {
  for_each_device("Op/Linear", [](const DeviceRow& device) {
    for (const Case& c : kCases)
      for (const DType dtype : device.types) {
        if (!device.computes_in(dtype)) continue;
        add_test("Op/Linear", c.name, device, short_name(dtype), [&c, dtype](OpRun& run) {
          check_case(run, c, dtype);
          check_batch_splits(run, c, dtype);
        });
        // GPUs in 16 bits stream weights only where --conv direct says so.
        if (device.gpu && dtype != DType::f32 && std::string_view(c.name) == "batch2_long_back")
          add_test("Op/Linear", c.name, device, fmt::format("direct/{}", short_name(dtype)), [&c, dtype](OpRun& run) {
            run.ctx.conv = ConvAlgorithm::direct;
            check_case(run, c, dtype);
          });
      }
    if (!device.computes_in(DType::bf16))
      add_skip("Op/Linear", std::string("all_cases/") + device.name + "/bf16", "this processor has no fast bf16");
    add_test("Op/Linear", "errors", device, "", check_errors);
  });
}

}  // namespace switchback::test
