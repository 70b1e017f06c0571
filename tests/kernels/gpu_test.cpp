// What only GPUs have, on the emulated one and on a real one where there is one: recorded graphs, fused pools, batches
// that follow the memory, the four precisions.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "engine/run/backward.h"
#include "engine/run/recording.h"
#include "engine/files/safetensors.h"
#include "engine/zoo/zoo.h"
#include "kernels/emulator/emulated.h"
#include "kernels/noise/noise.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/gradient.h"

namespace switchback::test {
namespace {

std::vector<const DeviceRow*> gpus() {
  std::vector<const DeviceRow*> all;
  for (const DeviceRow& row : devices())
    if (row.gpu) all.push_back(&row);
  if (ptx_device().why_not().empty()) all.push_back(&ptx_device());  // else the op tests say that there is none
  return all;
}

class GpuEngine : public OnDevice {};
INSTANTIATE_TEST_SUITE_P(On, GpuEngine, testing::ValuesIn(gpus()),
                         [](const auto& info) { return std::string(info.param->name); });

Tensor wave(Dims dims) {
  Tensor t(std::move(dims));
  for (int64_t i = 0; i < t.count(); ++i) t[i] = std::sin(0.7f * float(i)) + 0.3f * std::cos(0.05f * float(i));
  return t;
}

Net lenet() {
  Net net = make_network("lenet");
  net.weights = random_weights(net, 2);
  return net;
}

double relative_error(const Tensor& a, const Tensor& b) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < a.count(); ++i) {
    difference += std::pow(double(a[i]) - b[i], 2);
    norm += std::pow(double(b[i]), 2);
  }
  EXPECT_GT(norm, 0);
  return std::sqrt(difference / norm);
}

void expect_same_bits(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.dims(), b.dims());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), size_t(a.count()) * sizeof(float)), 0);
}

// Replayed steps, steps launched one by one, and batches of any size add up the same maps; the CPU's differ by rounding.
TEST_P(GpuEngine, SmoothGradRecordedAndNot) {
  const Net net = lenet();
  const Tensor x = wave({2, 1, 28, 28});
  SmoothGradOptions options;
  options.samples = 11;
  options.seed = 7;
  options.batch = 2;  // five full batches, of which four are replayed, and one sample
  const Maps recorded = smoothgrad(ctx, net, x, {"3", "", Score::logit}, {}, options);
  ctx.graphs = false;
  expect_same_bits(smoothgrad(ctx, net, x, {"3", "", Score::logit}, {}, options).values, recorded.values);
  options.batch = 11;
  expect_same_bits(smoothgrad(ctx, net, x, {"3", "", Score::logit}, {}, options).values, recorded.values);
  Context cpu;
  EXPECT_LT(relative_error(recorded.values, smoothgrad(cpu, net, x, {"3", "", Score::logit}, {}, options).values), 1e-5);
}

// All ten rows of LeNet's Jacobian: one graph of at most 12 kernels, replayed with another image.
TEST_P(GpuEngine, JacobianOfLenetIsOneGraph) {
  const Net net = lenet();
  Plan plan(ctx, net, {1, 1, 28, 28}, {});
  Backward backward(plan, net.output(), {.nodes = {0}}, 10);
  Tape tape;
  std::vector<SeedUnit> units;
  for (int64_t k = 0; k < 10; ++k) units.push_back({k});
  const Memory input = ctx.allocate(784 * sizeof(float)), output = ctx.allocate(10 * 784 * sizeof(float));
  Recording recording;
  const auto jacobian = [&](const Tensor& x) {
    ctx.copy_in(input.data(), x.data(), input.size());
    recording.run(ctx, [&] {
      nchw_to_nhwc(ctx, input.as<float>(), plan.input(1));
      plan.forward(&tape);
      one_hot(ctx, backward.seed(10), units);
      nhwc_to_nchw(ctx, backward.run(tape, {.seeds_per_item = 10}), output.as<float>());
    });
    Tensor rows({10, 1, 28, 28});
    ctx.copy_out(rows.data(), output.data(), output.size());
    return rows;
  };
  const Tensor a = wave({1, 1, 28, 28});
  Tensor b = a.clone();
  for (int64_t i = 0; i < b.count(); ++i) b[i] = 1 - a[i] * a[i];
  const Tensor plain = jacobian(a);
  EXPECT_EQ(recording.graph(), nullptr);
  expect_same_bits(jacobian(a), plain);
  ASSERT_NE(recording.graph(), nullptr);
  EXPECT_LE(recording.graph()->kernels, 12);
  EXPECT_GE(recording.graph()->kernels, 6);
  const Tensor other = jacobian(b);  // replayed on another image
  Context cpu;
  for (const auto& [x, got] : {std::pair<const Tensor*, const Tensor*>{&a, &plain}, {&b, &other}})
    EXPECT_LT(relative_error(*got, gradient(cpu, net, *x, {"all", "", Score::logit}, {}).values), 1e-5);
}

// A recording follows the memory it was made on: when a larger plan has moved the arena, it is made anew.
TEST_P(GpuEngine, RecordingsAreMadeAnewWhenMemoryMoves) {
  const Net net = lenet();
  Plan small(ctx, net, {1, 1, 28, 28}, {}), large(ctx, net, {64, 1, 28, 28}, {});
  const Tensor x = wave({64, 1, 28, 28});
  const Memory input = ctx.allocate(784 * sizeof(float));
  ctx.copy_in(input.data(), x.data(), input.size());
  Recording recording;
  const auto logits = [&] {
    recording.run(ctx, [&] {
      nchw_to_nhwc(ctx, input.as<float>(), small.input(1));
      small.forward();
    });
    return small.read(net.output());
  };
  const Tensor first = logits();
  expect_same_bits(logits(), first);
  expect_same_bits(logits(), first);
  large.write(x.data(), 64);
  large.forward();
  expect_same_bits(logits(), first);
  expect_same_bits(logits(), first);
}

// Every precision stays within what its rounding allows: half an ulp of each value and product through 18 layers.
TEST_P(GpuEngine, PrecisionsAreNearFp32) {
  Net net = make_network("resnet18", {.divide_channels = 8, .classes = 10});
  net.weights = random_weights(net, 5);
  const Tensor x = wave({2, 3, 64, 64});
  ctx.conv = ConvAlgorithm::gemm;
  const auto logits = [&](Precision precision) {
    Plan plan(ctx, net, {2, 3, 64, 64}, {.precision = precision, .observe = {}});
    plan.write(x.data(), 2);
    plan.forward();
    return plan.read(net.output());
  };
  const Tensor exact = logits(Precision::fp32);
  struct Row {
    Precision precision;
    double eps;
  };
  for (const auto& [precision, eps] : {Row{Precision::tf32, kEpsTf32}, {Precision::bf16, kEpsBf16}, {Precision::fp16, kEpsF16}}) {
    const double error = relative_error(logits(precision), exact);
    // Roundings of 18 layers, each of values and weights, independent of one another: eps·sqrt(2·18), and twice that.
    EXPECT_LT(error, 2 * std::sqrt(36.0) * eps) << int(precision);
    EXPECT_GT(error, 0) << int(precision);
  }
}

// `automatic` may take either library's product, by the clock, but a shape's choice is made once and holds.
TEST_P(GpuEngine, AutomaticChoosesOnce) {
  Net net = make_network("resnet18", {.divide_channels = 8, .classes = 10});
  net.weights = random_weights(net, 5);
  const Tensor x = wave({2, 3, 64, 64});
  SmoothGradOptions options;
  options.samples = options.batch = 3;
  const TargetSpec target{"3", "", Score::logit};
  const Maps own = smoothgrad(ctx, net, x, target, {}, options);
  ctx.conv = ConvAlgorithm::automatic;
  const Maps first = smoothgrad(ctx, net, x, target, {}, options);
  expect_same_bits(smoothgrad(ctx, net, x, target, {}, options).values, first.values);
  for (size_t i = 0; i < own.explained.size(); ++i)
    EXPECT_NEAR(first.explained[i].scores[0], own.explained[i].scores[0], 1e-5 * std::abs(own.explained[i].scores[0]));
  EXPECT_LT(relative_error(first.values, own.values), 1e-3);  // a gate may fall the other way
}

// CPU and GPU agree on the tape of a network with fused pools, bit for bit where all is exact.
TEST_P(GpuEngine, FusedPoolsLeaveTheSameTape) {
  Net net("pools", {1, 3, 16, 16});
  net.add("conv1", conv2d(3, 8, 3, 1, 1));
  net.add("relu1", ReLU{});
  net.add("pool1", max_pool2d(2, 2));
  net.add("conv2", conv2d(8, 40, 3, 1, 1));
  net.add("pool2", max_pool2d(2, 2));
  net.add("relu2", ReLU{});
  net.add("conv3", conv2d(40, 64, 1));
  net.add("relu3", ReLU{});
  net.add("pool3", max_pool2d(4, 4));
  net.add("flatten", Flatten{});
  net.add("fc", Linear{64, 4});
  net.fill([](const Parameter&, int64_t i) { return float((i * 31 + 7) % 5 - 2); });
  Tensor x({3, 3, 16, 16});
  for (int64_t i = 0; i < x.count(); ++i) x[i] = float((i * 7919 + 13) % 7 - 3);
  const TempFolder folder;
  const auto run = [&](Context& on, const std::string& path) {
    GradientOptions options;
    options.save_tape = folder / path;
    return gradient(on, net, x, {"2", "", Score::logit}, {}, options).values;
  };
  Context cpu;
  cpu.conv = ConvAlgorithm::direct;
  for (const ConvAlgorithm algorithm : {ConvAlgorithm::own, ConvAlgorithm::gemm, ConvAlgorithm::direct}) {
    ctx.conv = algorithm;
    expect_same_bits(run(ctx, "gpu.safetensors"), run(cpu, "cpu.safetensors"));
    const Safetensors a(folder / "gpu.safetensors"), b(folder / "cpu.safetensors");
    ASSERT_EQ(a.names(), b.names());
    ASSERT_GE(a.names().size(), 6u);
    for (const std::string& name : a.names()) EXPECT_EQ(a.load_ints(name), b.load_ints(name)) << name;
  }
}

// --- Only the emulated device lets itself be made small, old or absent.

class EmulatedLimits : public testing::Test {
 protected:
  void TearDown() override {
    set_emulator_memory(size_t(1) << 30);
    set_emulated_workspace(64);
  }
};

TEST_F(EmulatedLimits, OutOfMemoryMakesTheBatchSmaller) {
  const Tensor x = wave({1, 1, 28, 28});
  SmoothGradOptions options;
  options.samples = 64;
  options.batch = 64;
  Tensor want;
  {
    Context ctx(emulated_ops()->open(0));
    const Maps maps = smoothgrad(ctx, lenet(), x, {"3", "", Score::logit}, {}, options);
    EXPECT_EQ(maps.batch, 64);
    want = maps.values.clone();
  }
  const Net net = lenet();
  Context ctx(emulated_ops()->open(0));
  const size_t one = run_bytes(ctx, net, {1, 1, 28, 28}, {}, 1);
  const size_t used = size_t(1) << 30, left = ctx.gpu->ops->free_memory(*ctx.gpu);
  set_emulator_memory(used - left + 24 * one + (size_t(2) << 20));  // weights and sums, and room for a few images
  const Maps maps = smoothgrad(ctx, net, x, {"3", "", Score::logit}, {}, options);
  EXPECT_LT(maps.batch, 64);
  EXPECT_GE(maps.batch, 1);
  expect_same_bits(maps.values, want);
}

TEST_F(EmulatedLimits, NoRoomForOneImage) {
  const Net net = lenet();
  Context ctx(emulated_ops()->open(0));
  const size_t left = ctx.gpu->ops->free_memory(*ctx.gpu);
  set_emulator_memory((size_t(1) << 30) - left + 4096);
  SmoothGradOptions options;
  options.batch = 4;
  expect_error("out of GPU memory", [&] { smoothgrad(ctx, net, wave({1, 1, 28, 28}), {"3", "", Score::logit}, {}, options); });
  options.batch = 0;
  EXPECT_THROW(smoothgrad(ctx, net, wave({1, 1, 28, 28}), {"3", "", Score::logit}, {}, options), Error);
}

// cuDNN's deterministic algorithms of f32 may want more memory than they are worth: --conv cudnn says so, auto takes ours.
TEST_F(EmulatedLimits, WorkspaceOfCudnn) {
  Context ctx(emulated_ops()->open(0));
  const Conv2d conv = conv2d(16, 16, 3, 1, 1);
  const std::vector<float> w(16 * 16 * 9);
  const ConvWeights weights(conv, w.data());
  const auto algorithm = [&](int64_t size) {
    return conv2d_algorithm(ctx, weights, {1, 16, size, size}, DType::f32, false, false);
  };
  set_emulated_workspace(size_t(600) << 20);
  ctx.conv = ConvAlgorithm::vendor;
  expect_error("take 600 MB of workspace or more, and 512 are allowed", [&] { algorithm(8); });
  ctx.conv = ConvAlgorithm::automatic;
  EXPECT_NE(algorithm(8), "cudnn");
  set_emulated_workspace(64);
  ctx.conv = ConvAlgorithm::vendor;
  EXPECT_EQ(algorithm(9), "cudnn");
}

TEST_F(EmulatedLimits, DevicesThatCannotBeUsed) {
  std::string why;
  EXPECT_EQ(emulated_ops()->count(why), 1);
  set_emulated_machine({.devices = 0, .driver = 0});
  EXPECT_EQ(emulated_ops()->count(why), 0);
  EXPECT_NE(why.find("no NVIDIA driver"), std::string::npos) << why;
  set_emulated_machine({.devices = 0});
  EXPECT_EQ(emulated_ops()->count(why), 0);
  EXPECT_NE(why.find("no usable GPU"), std::string::npos) << why;
  set_emulated_machine({.driver = 11080});
  EXPECT_EQ(emulated_ops()->count(why), 0);
  EXPECT_NE(why.find("driver is for CUDA 11.8"), std::string::npos) << why;
  set_emulated_machine({.major = 7, .minor = 5});
  EXPECT_EQ(emulated_ops()->count(why), 0);
  EXPECT_NE(why.find("7.5"), std::string::npos) << why;
  expect_error("7.5", [] { emulated_ops()->open(0); });
  set_emulated_machine({});
  EXPECT_EQ(emulated_ops()->count(why), 1);
}

}  // namespace
}  // namespace switchback::test
