// Convolution, forward and backward-data: cases x devices x algorithms x element types.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "kernels/conv/conv.h"
#include "kernels/conv/conv_im2col.h"
#include "kernels/device/device_ops.h"
#include "tests/support/epilogue_check.h"

namespace switchback::test {
namespace {

struct Case {
  const char* name;
  Conv2d conv;
  Shape x;
  bool scaled = false;  // per-channel factors folded into the weights, as for batch norms
};

// Square and symmetric is conv2d(in, out, kernel, stride, padding, dilation, groups, bias).
const std::vector<Case>& cases() {
  static const std::vector<Case> rows = {
      // 1x1
      {"k1", conv2d(16, 24, 1), {2, 16, 7, 5}},
      {"k1_one_channel", conv2d(1, 1, 1), {2, 1, 6, 7}},
      {"k1_s2_resnet_shortcut", conv2d(64, 128, 1, 2, 0, 1, 1, false), {2, 64, 9, 10}, true},
      {"k1_odd_channels", conv2d(33, 17, 1), {2, 33, 5, 6}},
      {"k1_on_one_pixel", conv2d(40, 70, 1), {5, 40, 1, 1}},
      {"k1_p1", conv2d(3, 5, 1, 1, 1), {2, 3, 4, 4}},
      // 3x3 stride 1: the Winograd path, odd channels and sizes, each padding
      {"k3_p1_c64_k64", conv2d(64, 64, 3, 1, 1), {2, 64, 8, 8}},
      {"k3_p1_c64_k128_odd_size", conv2d(64, 128, 3, 1, 1), {1, 64, 7, 13}},
      {"k3_p1_c128_k64_scaled", conv2d(128, 64, 3, 1, 1), {1, 128, 6, 9}, true},
      {"k3_p1_c64_k64_no_bias", conv2d(64, 64, 3, 1, 1, 1, 1, false), {2, 64, 5, 4}},
      {"k3_p0_c64_k64", conv2d(64, 64, 3, 1, 0), {2, 64, 9, 7}},
      {"k3_p2_c64_k64", conv2d(64, 64, 3, 1, 2), {1, 64, 5, 6}},
      {"k3_p1_c64_k64_one_pixel", conv2d(64, 64, 3, 1, 1), {2, 64, 1, 1}},
      {"k3_p1_c64_k64_batch5", conv2d(64, 64, 3, 1, 1), {5, 64, 6, 6}},
      {"k3_p1_c64_k64_tall", conv2d(64, 64, 3, 1, 1), {1, 64, 31, 2}},
      {"k3_p1_c64_k64_wide", conv2d(64, 64, 3, 1, 1), {1, 64, 2, 33}},
      {"k3_p1_c16_many_tiles", conv2d(16, 16, 3, 1, 1), {2, 16, 41, 42}},
      {"k3_p1_c80_many_tiles", conv2d(80, 16, 3, 1, 1), {1, 80, 55, 58}},
      {"k3_p1_c16_k32", conv2d(16, 32, 3, 1, 1), {2, 16, 10, 9}},
      {"k3_p1_c33_k31", conv2d(33, 31, 3, 1, 1), {2, 33, 7, 8}},
      {"k3_p1_c70_k70", conv2d(70, 70, 3, 1, 1), {1, 70, 9, 5}},
      {"k3_p1_c1_k1", conv2d(1, 1, 3, 1, 1), {2, 1, 9, 8}},
      {"k3_p0_to_one_pixel", conv2d(20, 30, 3, 1, 0), {2, 20, 3, 3}},
      {"k3_p3_padding_above_kernel", conv2d(6, 8, 3, 1, 4), {1, 6, 5, 5}},
      {"k3_p4_c64_k64_padding_above_kernel", conv2d(64, 64, 3, 1, 4), {1, 64, 5, 5}},
      {"k3_asymmetric",
       {.in_channels = 64,
        .out_channels = 64,
        .kernel_h = 3,
        .kernel_w = 3,
        .pad_top = 1,
        .pad_left = 0,
        .pad_bottom = 0,
        .pad_right = 2},
       {2, 64, 7, 6}},
      {"k3_d2", conv2d(16, 16, 3, 1, 2, 2), {2, 16, 9, 8}},
      {"k3_d4", conv2d(8, 12, 3, 1, 4, 4), {1, 8, 11, 12}},
      // 3x3 stride 2
      {"k3_s2_p1", conv2d(32, 64, 3, 2, 1), {2, 32, 9, 8}},
      {"k3_s2_p0_unused_border", conv2d(8, 8, 3, 2, 0), {2, 8, 8, 10}},
      {"k3_s2_p1_c64_k128", conv2d(64, 128, 3, 2, 1, 1, 1, false), {1, 64, 8, 7}, true},
      {"k3_s3_gaps", conv2d(5, 6, 3, 4, 1), {2, 5, 11, 12}},
      // first layers
      {"first_vgg_k3_p1", conv2d(3, 64, 3, 1, 1), {2, 3, 12, 14}},
      {"first_resnet_k7_s2_p3", conv2d(3, 64, 7, 2, 3, 1, 1, false), {2, 3, 21, 22}, true},
      {"first_alexnet_k11_s4_p2", conv2d(3, 64, 11, 4, 2), {2, 3, 31, 35}},
      {"first_lenet_k5", conv2d(1, 32, 5), {5, 1, 12, 12}},
      {"first_k3_p1_out8", conv2d(3, 8, 3, 1, 1), {4, 3, 9, 11}},
      {"first_k3_p1_grey", conv2d(1, 32, 3, 1, 1), {2, 1, 17, 34}},
      {"first_k3_s2_p1_out36", conv2d(2, 36, 3, 2, 1), {2, 2, 9, 37}},
      {"first_k3_p2_d2", conv2d(3, 32, 3, 1, 2, 2), {2, 3, 18, 9}},
      {"first_k5_p2_out8", conv2d(3, 8, 5, 1, 2), {2, 3, 7, 9}},
      {"first_k5_c4_out8", conv2d(4, 8, 5), {2, 4, 9, 8}},
      {"first_k11_s4_grey_out40", conv2d(1, 40, 11, 4, 2), {1, 1, 23, 27}},
      {"first_k11_s4_c4_out40", conv2d(4, 40, 11, 4, 2), {1, 4, 23, 15}},
      {"first_k3_p1_tall", conv2d(3, 64, 3, 1, 1), {1, 3, 83, 21}},
      {"first_k7_s2_p3_tall", conv2d(3, 33, 7, 2, 3), {1, 3, 75, 19}},
      {"k5_lenet_conv2", conv2d(32, 64, 5), {2, 32, 8, 8}},
      {"k5_p2_alexnet", conv2d(64, 96, 5, 1, 2), {1, 64, 7, 7}},
      // asymmetric everything
      {"asymmetric_all",
       {.in_channels = 5,
        .out_channels = 7,
        .kernel_h = 3,
        .kernel_w = 4,
        .stride_h = 2,
        .stride_w = 3,
        .pad_top = 2,
        .pad_left = 1,
        .pad_bottom = 0,
        .pad_right = 3,
        .dilation_h = 2,
        .dilation_w = 1},
       {2, 5, 11, 13}},
      {"k1x7",
       {.in_channels = 16, .out_channels = 16, .kernel_h = 1, .kernel_w = 7, .pad_left = 3, .pad_right = 3},
       {2, 16, 6, 11}},
      {"k7x1",
       {.in_channels = 16, .out_channels = 24, .kernel_h = 7, .kernel_w = 1, .pad_top = 3, .pad_bottom = 3},
       {2, 16, 11, 6}},
      {"k1x3_s1x2", {.in_channels = 9, .out_channels = 4, .kernel_h = 1, .kernel_w = 3, .stride_w = 2}, {2, 9, 4, 9}},
      // groups
      {"groups2", conv2d(16, 32, 3, 1, 1, 1, 2), {2, 16, 8, 7}},
      {"groups4_s2_odd", conv2d(12, 20, 3, 2, 1, 1, 4), {2, 12, 9, 9}, true},
      {"groups2_c128", conv2d(128, 128, 3, 1, 1, 1, 2), {1, 128, 5, 5}},
      {"depthwise_k3", conv2d(32, 32, 3, 1, 1, 1, 32), {2, 32, 9, 10}},
      {"depthwise_k5", conv2d(32, 32, 5, 1, 2, 1, 32), {2, 32, 9, 10}},
      {"depthwise_k7", conv2d(32, 32, 7, 1, 3, 1, 32), {2, 32, 9, 10}},
      {"depthwise_k3_s2_odd", conv2d(19, 19, 3, 2, 1, 1, 19), {2, 19, 9, 8}},
      {"depthwise_multiplier2", conv2d(8, 16, 3, 1, 1, 1, 8), {2, 8, 7, 7}},
      {"depthwise_k3_d6", conv2d(20, 20, 3, 1, 6, 6, 20), {2, 20, 8, 11}},
      {"groups32_of_4", conv2d(128, 128, 3, 1, 1, 1, 32), {2, 128, 6, 7}},
      {"groups8_s2_d2", conv2d(32, 48, 3, 2, 2, 2, 8), {2, 32, 9, 8}},
      {"groups5_of_3_and_7", conv2d(15, 35, 3, 1, 3, 3, 5), {2, 15, 7, 9}},
      {"groups2_deep", conv2d(100, 20, 3, 1, 4, 4, 2), {1, 100, 6, 7}},
      // paddings and dilations that reach over the map
      {"k3_d5_c70_k20", conv2d(70, 20, 3, 1, 5, 5), {2, 70, 6, 9}},
      {"k3_d8_wide", conv2d(9, 33, 3, 1, 8, 8), {2, 9, 5, 26}},
      {"k3_d16_over_the_map", conv2d(12, 12, 3, 1, 16, 16), {2, 12, 6, 19}},
      {"k3_d4_deep", conv2d(400, 20, 3, 1, 4, 4), {1, 400, 6, 5}},
      {"k9_p4", conv2d(8, 24, 9, 1, 4), {1, 8, 10, 12}},
      {"k3_s3_d2", conv2d(17, 10, 3, 3, 2, 2), {2, 17, 13, 11}},
      {"k5_p6_s2", conv2d(6, 9, 5, 2, 6), {2, 6, 7, 10}},
      // extremes
      {"whole_map_kernel", conv2d(12, 40, 6), {3, 12, 6, 6}},
      {"tiny_wide", conv2d(4, 4, 3, 1, 1), {1, 4, 1, 40}},
      {"tiny_tall_k5", conv2d(4, 4, 5, 1, 2), {1, 4, 50, 3}},
      {"s5_skips_inputs", conv2d(6, 6, 2, 5, 0), {2, 6, 12, 17}},
      {"k1_many_pixels_odd_channels", conv2d(20, 70, 1), {3, 20, 11, 13}},
      {"k1_few_columns", conv2d(24, 16, 1), {2, 24, 9, 7}},
      {"k1_32_columns", conv2d(9, 30, 1), {2, 9, 8, 7}},
  };
  return rows;
}

// The error of F(4x4,3x3) is not elementwise: its transforms mix a tile, with factors up to 8 that are not exact. So a
// wide multiple of the elementwise bound and one with the largest input and the weights' norm.
constexpr double kWinogradElementwise = 32, kWinogradMaxNorm = 16;

constexpr DType kTypes[] = {DType::f32, DType::bf16};
constexpr ConvAlgorithm kAlgorithms[] = {ConvAlgorithm::automatic, ConvAlgorithm::direct, ConvAlgorithm::winograd};

const char* name_of(ConvAlgorithm a) {
  constexpr const char* kNames[] = {"automatic", "direct", "winograd", "own", "gemm", "cudnn"};
  return kNames[int(a)];
}

// One column of the table of tests.
struct Variant {
  ConvAlgorithm algorithm;
  DType dtype;
  bool tf32 = false;
  bool product = false;  // CPU: the product of windows, whatever would be chosen
  std::string name() const {
    return std::string(product ? "im2col" : name_of(algorithm)) + "/" + (tf32 ? "tf32" : short_name(dtype));
  }
};

std::vector<Variant> variants(const DeviceRow& device) {
  using enum ConvAlgorithm;
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  if (device.gpu)
    return {{own, f32}, {own, bf16},  {own, f16},     {own, f32, true}, {gemm, f32},   {gemm, bf16},
            {gemm, f16}, {gemm, f32, true}, {direct, f32}, {direct, f16}, {vendor, f32}, {vendor, bf16}, {vendor, f16}};
  std::vector<Variant> all = {{automatic, f32}, {direct, f32}, {winograd, f32}};
  if (device.computes_in(bf16)) all.push_back({automatic, bf16});
  for (const DType dtype : {f32, bf16}) all.push_back({automatic, dtype, false, true});
  return all;
}

// A layer in both directions.
class Layer {
 public:
  Layer(OpRun& run, const ConvWeights& weights, const Variant& variant)
      : ctx_(run.ctx), weights_(weights), product_(variant.product), tf32_(variant.tf32) {
    if (!product_) return;
    forward_ = pack_im2col(weights, Im2col::forward);
    backward_ = pack_im2col(weights, Im2col::backward);
  }
  void forward(ConstView x, View y, Epilogue e = {}) const {
    e.tf32 = tf32_;
    if (product_)
      im2col_forward(ctx_, weights_, forward_.data(), x, y, e);
    else
      conv2d_forward(ctx_, weights_, x, y, e);
  }
  void backward(ConstView dy, View dx, BackwardEpilogue e = {}) const {
    e.tf32 = tf32_;
    if (product_)
      im2col_backward(ctx_, weights_, Im2col::backward, backward_.data(), dy, dx, e);
    else
      conv2d_backward_data(ctx_, weights_, dy, dx, e);
  }
  std::string algorithm(Shape x, DType dtype, bool backward) const {
    return product_ ? "im2col" : conv2d_algorithm(ctx_, weights_, x, dtype, backward, tf32_);
  }

 private:
  Context& ctx_;
  const ConvWeights& weights_;
  bool product_, tf32_;
  std::vector<float> forward_, backward_;
};

// Why cuDNN cannot be had on this device; "" where it can.
std::string why_no_vendor(const DeviceRow& device) {
  if (!device.gpu) return "no vendor's convolutions on the CPU";
  const std::shared_ptr<Gpu> gpu = device.open();
  for (const std::string& line : gpu->ops->vendor_libraries(*gpu))
    if (line.find("cuDNN") != std::string::npos && line.find("not found") != std::string::npos) return line;
  return "";
}

// Whether this column's kernels are those of `own`, in both directions: on the emulated device, which takes its time,
// they need not run once more.
bool repeats_own(const DeviceRow& device, const Case& c, const Variant& variant) {
  if (variant.algorithm == ConvAlgorithm::own) return false;
  Context ctx(device.open());
  const Conv2d& v = c.conv;
  const std::vector<float> w(size_t(v.out_channels * (v.in_channels / v.groups) * v.kernel_h * v.kernel_w));
  const ConvWeights weights(v, w.data());
  const auto kernels = [&](ConvAlgorithm algorithm) {
    ctx.conv = algorithm;
    return std::pair(conv2d_algorithm(ctx, weights, c.x, variant.dtype, false, variant.tf32),
                     conv2d_algorithm(ctx, weights, c.x, variant.dtype, true, variant.tf32));
  };
  return kernels(variant.algorithm) == kernels(ConvAlgorithm::own);
}

struct Data {
  Nchw x, dy;
  std::vector<float> weight, bias, scale;
};

Data make_data(OpRun& run, const Case& c, bool integers, DType dtype) {
  const Conv2d& v = c.conv;
  const int64_t weights = v.out_channels * (v.in_channels / v.groups) * v.kernel_h * v.kernel_w;
  const Shape y = conv_shape(v, c.x);
  Data d;
  d.x = integers ? run.integers(c.x, 7) : run.reals(c.x, dtype);
  d.dy = integers ? run.integers(y, 7) : run.reals(y, dtype);
  d.weight = integers ? run.integers(weights, 5) : run.reals(weights, dtype);
  if (v.has_bias) d.bias = integers ? run.integers(v.out_channels, 9) : run.reals(v.out_channels, dtype);
  for (int64_t o = 0; c.scaled && o < v.out_channels; ++o) d.scale.push_back(float(1 << (run.rng() % 3)));  // exact
  return d;
}

// What one direction of one convolution may err by, given the algorithm that the engine says it uses.
Accuracy accuracy_of(const Variant& variant, const Case& c, const Data& d, bool integers, const std::string& algorithm,
                     bool backward) {
  const DType dtype = variant.dtype;
  const Conv2d& v = c.conv;
  const int64_t in = v.in_channels / v.groups, taps = v.kernel_h * v.kernel_w;
  if (algorithm != "winograd") {
    double steps = rounding_steps((backward ? v.out_channels / v.groups : in) * taps + 2);
    if (variant.tf32) steps += 2.02 * kEpsTf32 / kEpsF32;  // both factors of every product are rounded
    Accuracy accuracy = integers ? exact(dtype) : within(dtype, steps);
    accuracy.stored_before_epilogue = algorithm.starts_with("direct:");  // oneDNN, then a pass of our own
    if (algorithm == "cudnn" && dtype != DType::f32) {
      // What it stores is rounded without the bias, which our pass adds. Both addends of that pass are 9 at most.
      const double addends = d.bias.empty() ? 9 : 18;
      accuracy.tolerance = [=](const Ref& ref) {
        Nchw t = tolerance(ref, steps, dtype);
        for (size_t i = 0; i < t.v.size(); ++i) t.v[i] += 1.01 * eps_of(dtype) * (std::abs(ref.value.v[i]) + addends);
        return t;
      };
    }
    return accuracy;
  }
  double largest = 0;
  for (const double a : backward ? d.dy.v : d.x.v) largest = std::max(largest, std::abs(a));
  std::vector<double> norms(size_t(backward ? v.in_channels : v.out_channels), 0);  // Winograd has one group
  for (size_t i = 0; i < d.weight.size(); ++i) {
    const int64_t o = int64_t(i) / (in * taps), k = int64_t(i) / taps % in;
    norms[size_t(backward ? k : o)] += std::abs(double(d.weight[i])) * (d.scale.empty() ? 1.0 : d.scale[size_t(o)]);
  }
  return {dtype, [=](const Ref& ref) {
            Nchw t = tolerance(ref, kWinogradElementwise, dtype);
            const int64_t pixels = t.shape.h * t.shape.w;
            for (size_t i = 0; i < t.v.size(); ++i)
              t.v[i] += kWinogradMaxNorm * kEpsF32 * largest * norms[size_t(int64_t(i) / pixels % t.shape.c)];
            return t;
          }};
}

// oneDNN's reference code is slow; its products over copied windows are, too, and split their sums by batch and threads.
bool is_direct(const std::string& algorithm) {
  return algorithm.find("ref") == std::string::npos && algorithm.find("gemm") == std::string::npos;
}

void check_both_directions(OpRun& run, const Case& c, const Variant& variant, bool integers) {
  const DType dtype = variant.dtype;
  const Data d = make_data(run, c, integers, dtype);
  const ConvWeights weights(c.conv, d.weight.data(), d.bias, d.scale);
  const Layer layer(run, weights, variant);
  const Shape y_shape = conv_shape(c.conv, c.x);
  ASSERT_EQ(output_shape(c.conv, c.x), y_shape);

  const Ref y = conv_forward(c.conv, d.x, d.weight, d.bias, d.scale);
  const std::string forward = layer.algorithm(c.x, dtype, false);
  const Activation x = run.input(d.x, dtype);
  SCOPED_TRACE("forward algorithm " + forward);
  check_forward(run, y, accuracy_of(variant, c, d, integers, forward, false),
                [&](View out, const Epilogue& e) { layer.forward(x, out, e); });

  const Ref dx = conv_backward(c.conv, d.dy, d.weight, d.scale, c.x);
  const std::string backward = layer.algorithm(c.x, dtype, true);
  const Activation dy = run.input(d.dy, dtype);
  SCOPED_TRACE("backward algorithm " + backward);
  Accuracy accuracy = accuracy_of(variant, c, d, integers, backward, true);
  if (c.conv.stride_h > c.conv.kernel_h || c.conv.kernel_h == 1) accuracy.zeros = Zeros::many_allowed;
  const auto call = [&](View out, const BackwardEpilogue& e) { layer.backward(dy, out, e); };
  check_backward(run, dx, accuracy, 1, call);
  for (const int64_t seeds : {2, 3, 5})
    if (c.x.n % seeds == 0 && integers) check_backward(run, dx, accuracy, seeds, call);
}

void check_linear_map(OpRun& run, const Case& c, const Variant& variant) {
  const DType dtype = variant.dtype;
  const Data d = make_data(run, c, false, dtype);
  const ConvWeights weights(c.conv, d.weight.data(), {}, d.scale);
  const Layer layer(run, weights, variant);
  const Activation x = run.input(d.x, dtype), dy = run.input(d.dy, dtype);
  const Activation y = run.output(d.dy.shape, dtype), dx = run.output(d.x.shape, dtype);
  run.poison_scratch();
  layer.forward(x, y);
  run.poison_scratch();
  layer.backward(dy, dx);
  const auto allowed = [&](const Ref& ref, bool back) {
    const std::string algorithm = layer.algorithm(c.x, dtype, back);
    return accuracy_of(variant, c, d, false, algorithm, back).tolerance(ref);
  };
  EXPECT_EQ(check_adjoint(d.dy, y.read(), allowed(conv_forward(c.conv, d.x, d.weight, {}, d.scale), false), dx.read(),
                          d.x, allowed(conv_backward(c.conv, d.dy, d.weight, d.scale, c.x), true)),
            "");
}

// Results are bit-equal for every batch split and number of threads; cuDNN may choose another implementation for another
// batch, so there only integers must agree.
void check_batch_splits(OpRun& run, const Case& c, const Variant& variant) {
  if (c.x.n < 2) return;
  const DType dtype = variant.dtype;
  for (const bool backward : {false, true}) {
    const bool reals = variant.algorithm != ConvAlgorithm::vendor;
    const Data d = make_data(run, c, !reals, dtype);
    const ConvWeights weights(c.conv, d.weight.data(), d.bias, d.scale);
    const Layer layer(run, weights, variant);
    const std::string algorithm = layer.algorithm(c.x, dtype, backward);
    const Activation in = run.input(backward ? d.dy : d.x, dtype);
    const Shape out = backward ? c.x : d.dy.shape;
    const auto op = [&](int64_t first, int64_t count) {
      const Activation part = run.output(out.with_n(count), dtype);
      run.ctx.threads = int(count % 3) + 1;
      run.poison_scratch();
      if (!run.device.gpu) {  // there tiles follow the batch
        EXPECT_EQ(layer.algorithm(c.x.with_n(count), dtype, backward), algorithm);
      }
      if (backward)
        layer.backward(slice(in, first, count), part);
      else
        layer.forward(slice(in, first, count), part);
      return part.memory->read();
    };
    EXPECT_EQ(check_splits(c.x.n, op), "") << (backward ? "backward" : "forward") << (reals ? ", reals: " : ", integers: ")
                                           << algorithm;
  }
}

void check_case(OpRun& run, const Case& c, const Variant& variant) {
  run.ctx.conv = variant.algorithm;
  check_both_directions(run, c, variant, true);
  if (testing::Test::HasFailure()) return;
  check_both_directions(run, c, variant, false);
  if (testing::Test::HasFailure()) return;
  check_linear_map(run, c, variant);
  check_batch_splits(run, c, variant);
}

// The same where libraries' general ways split their sums by batch and threads: wide dilations, many groups, large kernels.
// Batches of 1, 2, 3 and 5 by 1 and 2 threads, and no algorithm may be one of those.
void check_any_batch_and_threads(OpRun& run, const Case& c, DType dtype) {
  const Data d = make_data(run, c, false, dtype);
  const ConvWeights weights(c.conv, d.weight.data(), d.bias);
  const Activation x = run.input(d.x, dtype), dy = run.input(d.dy, dtype);
  for (const bool backward : {false, true}) {
    const Shape out = backward ? c.x : d.dy.shape;
    const std::string algorithm = conv2d_algorithm(run.ctx, weights, c.x, dtype, backward);
    SCOPED_TRACE(fmt::format("dilation {}, {} groups, {}: {}", c.conv.dilation_h, c.conv.groups,
                             backward ? "backward" : "forward", algorithm));
    EXPECT_TRUE(is_direct(algorithm));
    std::vector<uint8_t> first_bytes;
    for (const int threads : {1, 2})
      for (const int64_t batch : {5, 1, 2, 3}) {
        run.ctx.threads = threads;
        std::vector<uint8_t> bytes;
        for (int64_t first = 0, count; first < c.x.n; first += count) {
          count = std::min(batch, c.x.n - first);
          const Activation part = run.output(out.with_n(count), dtype);
          run.poison_scratch();
          if (backward)
            conv2d_backward_data(run.ctx, weights, slice(dy, first, count), part);
          else
            conv2d_forward(run.ctx, weights, slice(x, first, count), part);
          const std::vector<uint8_t> more = part.memory->read();
          bytes.insert(bytes.end(), more.begin(), more.end());
        }
        if (first_bytes.empty()) first_bytes = bytes;
        EXPECT_EQ(compare_bits(bytes, first_bytes), "") << "batches of " << batch << " by " << threads << " threads";
      }
  }
}

// Winograd turns weights round in every call, and keeps a packed copy once calls of few tiles were repeated: no bit changes.
void check_winograd_weights(OpRun& run) {
  run.ctx.conv = ConvAlgorithm::winograd;
  for (const bool scaled : {false, true}) {
    Case c{"", conv2d(48, 80, 3, 1, 1), {2, 48, 9, 11}};
    c.scaled = scaled;
    const Data d = make_data(run, c, false, DType::f32);
    const Activation x = run.input(d.x, DType::f32), dy = run.input(d.dy, DType::f32);
    const Activation y = run.output(d.dy.shape, DType::f32), dx = run.output(d.x.shape, DType::f32);
    const ConvWeights weights(c.conv, d.weight.data(), d.bias, d.scale);
    std::vector<uint8_t> first[2];
    for (int call = 0; call < 8; ++call)
      for (const bool backward : {false, true}) {
        run.poison_scratch();
        backward ? conv2d_backward_data(run.ctx, weights, dy, dx) : conv2d_forward(run.ctx, weights, x, y);
        const std::vector<uint8_t> bytes = (backward ? dx : y).memory->read();
        if (call == 0) first[backward] = bytes;
        EXPECT_EQ(compare_bits(bytes, first[backward]), "") << "call " << call << (backward ? ", backward" : ", forward");
      }
  }
}

const std::vector<Case>& far_cases() {
  static const std::vector<Case> rows = {
      {"groups_of_4", conv2d(128, 128, 3, 1, 1, 1, 32), {5, 128, 14, 13}},
      {"groups_of_4_s2", conv2d(128, 128, 3, 2, 1, 1, 32), {5, 128, 13, 14}},
      {"groups_of_8", conv2d(64, 64, 3, 1, 1, 1, 8), {5, 64, 9, 9}},
      {"groups_of_25_d4", conv2d(50, 50, 3, 1, 4, 4, 2), {5, 50, 9, 9}},
      {"depthwise_d12", conv2d(96, 96, 3, 1, 12, 12, 96), {5, 96, 15, 17}},
      {"whole_map", conv2d(64, 80, 6), {5, 64, 6, 6}},
      {"k13", conv2d(32, 32, 13, 1, 6), {5, 32, 14, 14}},
      {"k11_s4", conv2d(48, 64, 11, 4, 2), {5, 48, 23, 23}},
      {"wide_padding", conv2d(64, 48, 3, 1, 3), {5, 64, 5, 7}},
      {"patches_of_16", conv2d(8, 64, 16, 16), {5, 8, 48, 48}},
  };
  return rows;
}

const std::vector<Case>& large_cases() {
  static const std::vector<Case> rows = {
      {"large_batch", conv2d(272, 288, 3, 1, 1), {2, 272, 60, 60}},
      {"large_c1024_k64", conv2d(1024, 64, 3, 1, 1), {1, 1024, 42, 40}},
      {"large_c64_k1024", conv2d(64, 1024, 3, 1, 1), {1, 64, 42, 40}},
  };
  return rows;
}

// More tiles and channels than the cases above can have: Winograd in several blocks of tiles and of panels, oneDNN in
// several steps of the batch. The reference is the plain direct convolution, exact on integers and checked above; its
// terms are the same convolution of absolute values.
void check_large(OpRun& run, const Case& c, bool backward) {
  Data d = make_data(run, c, true, DType::f32);
  const Shape in_shape = backward ? d.dy.shape : d.x.shape, out_shape = backward ? d.x.shape : d.dy.shape;
  const auto convolve = [&](const ConvWeights& weights, const Nchw& in) {
    const Activation out = run.output(out_shape, DType::f32);
    run.ctx.conv = ConvAlgorithm::direct;
    if (backward)
      conv2d_backward_data(run.ctx, weights, run.input(in, DType::f32), out);
    else
      conv2d_forward(run.ctx, weights, run.input(in, DType::f32), out);
    return out.read();
  };
  const auto absolute = [](auto values) {
    for (auto& v : values) v = std::abs(v);
    return values;
  };
  const Nchw& in_values = backward ? d.dy : d.x;
  Nchw in_absolute(in_shape);
  in_absolute.v = absolute(in_values.v);
  const std::vector<float> weight_absolute = absolute(d.weight), bias_absolute = absolute(d.bias);
  const ConvWeights weights(c.conv, d.weight.data(), d.bias);
  Ref want;
  want.value = convolve(weights, in_values);
  want.terms = convolve(ConvWeights(c.conv, weight_absolute.data(), bias_absolute), in_absolute);

  const Activation in = run.input(in_values, DType::f32);
  using enum ConvAlgorithm;
  for (const ConvAlgorithm algorithm : run.device.gpu ? std::vector{own, gemm} : std::vector{winograd, direct}) {
    run.ctx.conv = algorithm;
    const std::string name = conv2d_algorithm(run.ctx, weights, c.x, DType::f32, backward);
    SCOPED_TRACE(name);
    EXPECT_EQ(name == "winograd", algorithm == winograd);
    const Accuracy accuracy = accuracy_of({run.ctx.conv, DType::f32}, c, d, true, name, backward);
    const Nchw branch = run.integers(out_shape, 50);
    const Guarded* branch_in = run.input(branch, DType::f32).memory;
    Guarded& bits = run.bytes(size_t(gate_words(out_shape)) * 4, kPoisonBits);
    const Activation out = run.output(out_shape, DType::f32);
    run.poison_scratch();
    Ref result = want;
    if (backward) {
      Gates gates(result.value.v.size());
      for (uint8_t& g : gates) g = uint8_t(run.rng() % 2);
      finish_backward(result, &branch, &gates, Rule::guided, 1);
      const Guarded& gates_in = run.input_of(pack_gates(out_shape, gates, false));
      conv2d_backward_data(run.ctx, weights, in, out,
                           {.other = branch_in->data(),
                            .relu = true,
                            .gates = gates_in.as<uint32_t>(),
                            .seeds_per_item = 1,
                            .rule = kGuided});
      EXPECT_EQ(accuracy.compare(out.read(), result, Zeros::few), "");
    } else {
      const Activated activated = finish_forward(result, &branch, true, kNoClip);
      conv2d_forward(run.ctx, weights, in, out,
                     {.residual = branch_in->data(), .relu = true, .gates = bits.as<uint32_t>()});
      EXPECT_EQ(accuracy.compare(out.read(), result, Zeros::few), "");
      std::vector<uint8_t> undecided(result.value.v.size(), 0);
      if (!accuracy.exact()) undecided = undecided_gates(activated.s, accuracy.tolerance(result), kNoClip);
      EXPECT_EQ(compare_gates(out_shape, bits.read_as<uint32_t>(), activated.gates, false, &undecided), "");
    }
  }
}

// No layer may fall into oneDNN's general code, and 3x3 layers must get what was asked.
void check_algorithms(OpRun& run) {
  struct Row {
    Conv2d conv;
    Shape x;
    bool winograd;
  };
  const Row rows[] = {
      {conv2d(3, 64, 3, 1, 1), {16, 3, 224, 224}, false},   {conv2d(64, 64, 3, 1, 1), {16, 64, 224, 224}, true},
      {conv2d(256, 256, 3, 1, 1), {16, 256, 56, 56}, true}, {conv2d(512, 512, 3, 1, 1), {1, 512, 14, 14}, true},
      {conv2d(3, 64, 7, 2, 3), {4, 3, 224, 224}, false},    {conv2d(3, 64, 11, 4, 2), {4, 3, 224, 224}, false},
      {conv2d(64, 128, 3, 2, 1), {4, 64, 56, 56}, false},   {conv2d(64, 128, 1, 2, 0), {4, 64, 56, 56}, false},
      {conv2d(64, 192, 5, 1, 2), {4, 64, 27, 27}, false},   {conv2d(1, 32, 5), {10, 1, 28, 28}, false},
      {conv2d(32, 64, 5), {10, 32, 8, 8}, false},
      {conv2d(128, 128, 3, 1, 1, 1, 32), {2, 128, 56, 56}, false},
      {conv2d(512, 512, 3, 1, 4, 4), {2, 512, 28, 28}, false},
      {conv2d(25, 25, 3, 1, 16, 16), {2, 25, 64, 128}, false},
      {conv2d(32, 32, 31, 1, 15), {1, 32, 32, 32}, false},
  };
  for (const Row& row : rows) {
    const std::vector<float> w(size_t(row.conv.in_channels / row.conv.groups * row.conv.out_channels * row.conv.kernel_h *
                                      row.conv.kernel_w));
    const ConvWeights weights(row.conv, w.data());
    for (const ConvAlgorithm algorithm : kAlgorithms)
      for (const bool backward : {false, true})
        for (const DType dtype : kTypes) {
          if (dtype == DType::bf16 && !cpu_features().fast_bf16()) continue;
          run.ctx.conv = algorithm;
          const std::string name = conv2d_algorithm(run.ctx, weights, row.x, dtype, backward);
          SCOPED_TRACE(fmt::format("{}x{} {}->{}, asked for {}, {}, {}: {}", row.conv.kernel_h, row.conv.kernel_w,
                                   row.conv.in_channels, row.conv.out_channels, name_of(algorithm),
                                   switchback::name_of(dtype), backward ? "backward" : "forward", name));
          EXPECT_TRUE(is_direct(name));
          if (algorithm == ConvAlgorithm::winograd && dtype == DType::f32) {
            EXPECT_EQ(name == "winograd", row.winograd);
          }
          if (algorithm == ConvAlgorithm::direct || dtype == DType::bf16) {
            EXPECT_NE(name, "winograd");
          }
        }
  }
}

void check_weights_and_errors(OpRun& run) {
  const std::vector<float> w = run.integers(4 * 3 * 2 * 2, 5);
  const ConvWeights weights(conv2d(3, 4, 2), w.data(), {1, 2, 3, 4}, {1, 2, 4, 8});
  EXPECT_EQ(weights.weight(0, 0, 0, 0), w[0]);
  EXPECT_EQ(weights.weight(2, 1, 1, 0), 4 * w[2 * 12 + 1 * 4 + 2]);
  EXPECT_EQ(weights.weight(3, 2, 1, 1), 8 * w[47]);
  const auto run_on = [&](Shape x, Shape y, DType x_type, DType y_type) {
    conv2d_forward(run.ctx, weights, run.input(Nchw(x, 1), x_type), run.output(y, y_type));
  };
  constexpr DType f = DType::f32;
  EXPECT_NO_THROW(run_on({1, 3, 4, 4}, {1, 4, 3, 3}, f, f));
  EXPECT_THROW(run_on({1, 2, 4, 4}, {1, 4, 3, 3}, f, f), Error) << "channels";
  EXPECT_THROW(run_on({1, 3, 4, 4}, {1, 4, 4, 3}, f, f), Error) << "output height";
  EXPECT_THROW(run_on({2, 3, 4, 4}, {1, 4, 3, 3}, f, f), Error) << "batch";
  EXPECT_THROW(run_on({1, 3, 4, 4}, {1, 4, 3, 3}, f, DType::bf16), Error) << "types";
  const Activation dx = run.output({1, 3, 4, 4}, f);
  BackwardEpilogue aliased;
  aliased.other = dx.memory->data();
  EXPECT_THROW(conv2d_backward_data(run.ctx, weights, run.input(Nchw(Shape{1, 4, 3, 3}, 1), f), dx, aliased), Error)
      << "the other branch must not be dx";
  EXPECT_THROW(output_shape(conv2d(3, 4, 5), {1, 3, 4, 4}), Error) << "kernel larger than the input";
  EXPECT_THROW(output_shape(conv2d(4, 4, 3, 1, 1, 1, 3), {1, 4, 4, 4}), Error) << "groups do not divide channels";
}

// Windows that lie in the padding: outputs are the biases, and no input has a gradient.
void check_padding_alone(OpRun& run) {
  const Conv2d conv{.in_channels = 2, .out_channels = 3, .kernel_h = 2, .kernel_w = 2, .stride_h = 7, .stride_w = 7,
                    .pad_left = 4};
  const Shape x{2, 2, 3, 3}, y{2, 3, 1, 1};
  const std::vector<float> w = run.integers(3 * 2 * 2 * 2, 5);
  const ConvWeights weights(conv, w.data(), {1, 2, 3});
  const Activation out = run.output(y, DType::f32), dx = run.output(x, DType::f32);
  conv2d_forward(run.ctx, weights, run.input(Nchw(x, 7), DType::f32), out);
  conv2d_backward_data(run.ctx, weights, run.input(Nchw(y, 7), DType::f32), dx);
  EXPECT_EQ(out.read().v, (std::vector<double>{1, 2, 3, 1, 2, 3}));
  EXPECT_EQ(dx.read().v, std::vector<double>(size_t(x.count()), 0));
}

}  // namespace

void register_conv_tests() {
  for_each_device("Op/Conv", [](const DeviceRow& device) {
    for (const Variant& variant : variants(device)) {
      if (const std::string why = why_no_vendor(device); variant.algorithm == ConvAlgorithm::vendor && !why.empty()) {
        add_skip("Op/Conv", std::string("all_cases/") + device.name + "/" + variant.name(), why);
        continue;
      }
      for (const Case& c : cases()) {
        if (device.emulated && repeats_own(device, c, variant)) continue;
        add_test("Op/Conv", c.name, device, variant.name(), [&c, variant](OpRun& run) { check_case(run, c, variant); });
      }
    }
    if (!device.computes_in(DType::bf16))
      add_skip("Op/Conv", std::string("all_cases/") + device.name + "/bf16", "this processor has no fast bf16");
    add_test("Op/Conv", "weights_and_errors", device, "", check_weights_and_errors);
    add_test("Op/Conv", "padding_alone", device, "", check_padding_alone);
    if (!device.gpu) add_test("Op/Conv", "algorithms", device, "", check_algorithms);
    if (!device.gpu) add_test("Op/Conv", "winograd_weights", device, "", check_winograd_weights);
    for (const DType dtype : device.types) {
      if (device.gpu || !device.computes_in(dtype)) continue;
      for (const Case& c : far_cases())
        add_test("Op/ConvAnyBatchAndThreads", c.name, device, short_name(dtype),
                 [&c, dtype](OpRun& run) { check_any_batch_and_threads(run, c, dtype); });
      add_test("Op/ConvAnyBatchAndThreads", "dilations_1_to_36", device, short_name(dtype), [dtype](OpRun& run) {
        for (int64_t dilation = 1; dilation <= 36; ++dilation)
          check_any_batch_and_threads(run, {"", conv2d(64, 48, 3, 1, dilation, dilation), {5, 64, 9, 11}}, dtype);
      });
    }
    if (device.emulated) return;  // too large for it
    for (const Case& c : large_cases())
      for (const bool backward : {false, true})
        add_test("Op/Conv", std::string(c.name) + (backward ? "_backward" : "_forward"), device, "f32",
                 [&c, backward](OpRun& run) { check_large(run, c, backward); });
  });
}

}  // namespace switchback::test
