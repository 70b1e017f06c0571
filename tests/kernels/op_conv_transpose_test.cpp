// Transposed convolution against its list of terms: cases x devices x algorithms x element types.
#include <fmt/format.h>

#include <cmath>

#include "kernels/check.h"
#include "tests/support/epilogue_check.h"
#include "tests/support/reference_layers.h"

namespace switchback::test {
namespace {

struct Case {
  const char* name;
  ConvTranspose2d conv;
  Shape x;
  bool scaled = false;  // per-channel factors folded into the weights, as for batch norms
};

ConvTranspose2d square(int64_t in, int64_t out, int64_t kernel, int64_t stride = 1, int64_t pad = 0, int64_t output_pad = 0,
                       int64_t dilation = 1, int64_t groups = 1, bool bias = true) {
  return {.in_channels = in, .out_channels = out, .kernel_h = kernel, .kernel_w = kernel, .stride_h = stride,
          .stride_w = stride, .pad_top = pad, .pad_left = pad, .pad_bottom = pad, .pad_right = pad,
          .output_pad_h = output_pad, .output_pad_w = output_pad, .dilation_h = dilation, .dilation_w = dilation,
          .groups = groups, .has_bias = bias};
}

const std::vector<Case>& cases() {
  static const std::vector<Case> rows = {
      {"k2_s2_espnet", square(20, 20, 2, 2, 0, 0, 1, 1, false), {6, 20, 3, 4}},
      {"k3_s2_p1_op1", square(16, 8, 3, 2, 1, 1), {6, 16, 3, 3}},
      {"k4_s2_p1_dcgan", square(8, 33, 4, 2, 1), {6, 8, 2, 3}},
      {"k4_s4_segmentation", square(5, 5, 8, 4, 2, 0, 1, 5, false), {6, 5, 2, 3}},
      {"k3_s1_p1", square(5, 7, 3, 1, 1), {6, 5, 4, 3}},
      {"k1", square(6, 4, 1), {6, 6, 3, 3}},
      {"k3_s3_gaps", square(3, 4, 2, 3, 0, 2), {6, 3, 3, 2}},
      {"k5_s2_p2_op1_autoencoder", square(4, 3, 5, 2, 2, 1), {6, 4, 4, 4}},
      {"dilated", square(4, 6, 3, 1, 2, 0, 2), {6, 4, 4, 5}},
      {"dilated_s2_op1", square(3, 5, 3, 2, 1, 1, 3), {6, 3, 3, 2}},
      {"groups2", square(8, 6, 3, 2, 1, 0, 1, 2), {6, 8, 3, 3}, true},
      {"groups4_uneven", square(4, 12, 2, 2, 0, 1, 1, 4), {6, 4, 3, 2}, true},
      {"one_pixel", square(12, 5, 4), {6, 12, 1, 1}},
      {"scaled", square(9, 4, 3, 2, 1, 1), {6, 9, 3, 4}, true},
      {"scaled_no_bias", square(9, 4, 3, 2, 1, 1, 1, 1, false), {6, 9, 3, 4}, true},
      {"uneven_everything",
       {.in_channels = 6, .out_channels = 4, .kernel_h = 3, .kernel_w = 2, .stride_h = 2, .stride_w = 3, .pad_top = 1,
        .pad_left = 0, .pad_bottom = 2, .pad_right = 1, .output_pad_h = 0, .output_pad_w = 2, .dilation_h = 1,
        .dilation_w = 2, .groups = 2},
       {6, 6, 4, 3}, true},
  };
  return rows;
}

struct Data {
  Nchw x, dy;
  std::vector<float> weight, bias, scale;
};

Data make_data(OpRun& run, const Case& c, Shape y, bool integers, DType dtype) {
  const ConvTranspose2d& v = c.conv;
  const int64_t weights = v.in_channels * (v.out_channels / v.groups) * v.kernel_h * v.kernel_w;
  Data d;
  // Small enough that no integer is rounded before the bias is added, in 8 bits of mantissa either.
  d.x = integers ? run.integers(c.x, 2) : run.reals(c.x, dtype);
  d.dy = integers ? run.integers(y, 2) : run.reals(y, dtype);
  d.weight = integers ? run.integers(weights, 2) : run.reals(weights, dtype);
  if (v.has_bias) d.bias = integers ? run.integers(v.out_channels, 9) : run.reals(v.out_channels, dtype);
  for (int64_t o = 0; c.scaled && o < v.out_channels; ++o) d.scale.push_back(float(1 << (run.rng() % 2)));  // exact
  return d;
}

// 16-bit results are stored before the bias and what is fused are added: two addends of at most 9 (reals: 1).
Accuracy accuracy_of(int64_t longest, bool integers, DType dtype) {
  Accuracy accuracy = integers ? exact(dtype) : within(dtype, rounding_steps(longest) + 2);
  accuracy.zeros = Zeros::many_allowed;
  if (integers || dtype == DType::f32) return accuracy;
  accuracy.tolerance = [=](const Ref& ref) {
    Nchw t = tolerance(ref, rounding_steps(longest) + 2, dtype);
    for (size_t i = 0; i < t.v.size(); ++i) t.v[i] += 2.02 * eps_of(dtype) * (std::abs(ref.value.v[i]) + 2);
    return t;
  };
  return accuracy;
}

void check_both_directions(OpRun& run, const Case& c, DType dtype, bool integers) {
  SCOPED_TRACE(integers ? "integers" : "reals");
  const Shape y_shape = output_shape(c.conv, c.x);
  const Data d = make_data(run, c, y_shape, integers, dtype);
  const LinearMap map = linear_map(c.conv, c.x, d.weight, d.bias, d.scale);
  ASSERT_EQ(map.out.with_n(c.x.n), y_shape);
  ASSERT_EQ(output_shape(mirror_of(c.conv), y_shape), c.x);
  const ConvTransposeWeights weights(c.conv, d.weight.data(), d.bias, d.scale);
  const Activation x = run.input(d.x, dtype), dy = run.input(d.dy, dtype);
  check_forward(run, apply(map, d.x), accuracy_of(map.longest_forward(), integers, dtype),
                [&](View y, const Epilogue& e) { conv_transpose2d_forward(run.ctx, weights, x, y, e); });
  const auto call = [&](View dx, const BackwardEpilogue& e) { conv_transpose2d_backward_data(run.ctx, weights, dy, dx, e); };
  for (const int64_t seeds : {1, 3})
    check_backward(run, apply_transposed(map, d.dy), accuracy_of(map.longest_backward(), integers, dtype), seeds, call);
}

void check_case(OpRun& run, const Case& c, ConvAlgorithm algorithm, DType dtype) {
  run.ctx.conv = algorithm;
  check_both_directions(run, c, dtype, true);
  if (testing::Test::HasFailure()) return;
  check_both_directions(run, c, dtype, false);
}

TEST(ConvTransposeErrors, LayersThatDoNotFit) {
  const Shape x{1, 4, 3, 3};
  EXPECT_THROW(output_shape(square(5, 4, 3), x), Error);
  EXPECT_THROW(output_shape(square(4, 4, 3, 2, 1, 2), x), Error);
  EXPECT_THROW(output_shape(square(4, 4, 3, 1, 1, 1), x), Error);
  EXPECT_THROW(output_shape(square(4, 4, 3, 1, 3), x), Error);
  EXPECT_THROW(output_shape(square(4, 6, 3, 1, 1, 0, 1, 4), x), Error);
  EXPECT_THROW(output_shape(square(4, 4, 0), x), Error);
  EXPECT_THROW(output_shape(square(4, 4, 3, 0), x), Error);
}

}  // namespace

void register_conv_transpose_tests() {
  for_each_device("Op/ConvTranspose", [](const DeviceRow& device) {
    using enum ConvAlgorithm;
    for (const Case& c : cases())
      for (const DType dtype : device.types) {
        if (!device.computes_in(dtype)) continue;
        for (const ConvAlgorithm algorithm : device.gpu ? std::vector{own, direct} : std::vector{ConvAlgorithm::direct})
          add_test("Op/ConvTranspose", c.name, device,
                   fmt::format("{}/{}", algorithm == own ? "own" : "direct", short_name(dtype)),
                   [&c, algorithm, dtype](OpRun& run) { check_case(run, c, algorithm, dtype); });
      }
  });
}

}  // namespace switchback::test
