// Plans and backward passes over a network made to meet every layer and every way that branches join.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/run/backward.h"
#include "engine/run/plan.h"
#include "engine/zoo/zoo.h"
#include "kernels/pointwise/pointwise.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"

namespace switchback {
namespace {

// Joins: conv + batch norm + add + ReLU (fused), x + x, an add of two pools, one value with three readers, a ReLU behind
// a pool, two ReLUs on one value, dropouts in between, and the smooth layers.
test::Net busy_network() {
  test::Net net("busy", {1, 3, 13, 11});
  const int stem = net.add("stem", conv2d(3, 32, 3, 1, 1));
  net.add("stem_bn", BatchNorm2d{32});
  const int relu6 = net.add("relu6", ReLU{6.f});
  const int body = net.add("body", conv2d(32, 32, 3, 1, 1), {relu6});
  const int drop = net.add("drop", Dropout{}, {relu6});
  const int add = net.add("add", Add{}, {body, drop});
  const int relu = net.add("relu", ReLU{}, {add});
  const int twice = net.add("twice", Add{}, {relu, relu});
  const int lrn = net.add("lrn", LocalResponseNorm{}, {twice});
  const int max = net.add("max", max_pool2d(3, 2, 1), {lrn});
  const int late = net.add("late_relu", ReLU{}, {max});
  const int avg = net.add("avg", AvgPool2d{.kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 2, .pad_top = 1,
                                           .pad_left = 1, .pad_bottom = 1, .pad_right = 1}, {relu});
  const int pools = net.add("pools", Add{}, {late, avg});
  const int side = net.add("side", conv2d(32, 32, 5, 2, 2), {stem});
  const int join = net.add("join", Add{}, {pools, side});
  net.add("strided", conv2d(32, 16, 3, 2, 1, 1, 4), {join});
  net.add("strided_relu", ReLU{});
  net.add("global", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{16, 7});
  net.add("softmax", Softmax{});
  net.weights = random_weights(net, 3);
  return net;
}

Tensor image(Shape s) {
  Tensor x({s.n, s.c, s.h, s.w});
  for (int64_t i = 0; i < x.count(); ++i) x[i] = float((i * 7919 + 13) % 1000) / 500.f - 1.f;
  return x;
}

Context& configured(Context& ctx, const Context& as) {
  ctx.conv = as.conv;
  return ctx;
}

struct Pass {
  Context ctx;  // of its own, so that passes do not share an arena
  Plan plan;
  Tape tape;
  Pass(const Context& on, const test::Net& net, const Tensor& x, std::vector<int> observe,
       Precision precision = Precision::fp32)
      : ctx(on.gpu), plan(configured(ctx, on), net, {x.dim(0), x.dim(1), x.dim(2), x.dim(3)},
             {.precision = precision, .observe = std::move(observe)}) {
    plan.write(x.data(), x.dim(0));
    plan.forward(&tape);
  }
  std::vector<double> gradient(int from, int64_t channel, ReluRule rule) {
    const int64_t n = tape.n;
    Backward backward(plan, from, {.nodes = {0}}, n);
    one_hot(ctx, backward.seed(n), std::vector<SeedUnit>(size_t(n), {channel, -1, -1}));
    const ConstView g = backward.run(tape, {.rule = rule});
    std::vector<float> out(size_t(g.shape.count()));
    read_nchw(ctx, g, out.data());
    return {out.begin(), out.end()};
  }
};

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) difference += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
  return std::sqrt(difference / norm);
}

std::vector<int> all_nodes(const test::Net& net) {
  std::vector<int> all(net.nodes.size());
  std::iota(all.begin(), all.end(), 0);
  return all;
}

class Engine : public test::OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(Engine);

// Fusion, folding and shared memory change nothing but rounding: against a plan in which every node stands alone.
TEST_P(Engine, FusedIsUnfused) {
  const test::Net net = busy_network();
  const Tensor x = image({2, 3, 13, 11});
  Pass fused(ctx, net, x, {}), alone(ctx, net, x, all_nodes(net));
  const Tensor a = fused.plan.read(net.output()), b = alone.plan.read(net.output());
  for (int64_t i = 0; i < a.count(); ++i) EXPECT_NEAR(a[i], b[i], 1e-6);
  for (ReluRule rule : {kGradient, kDeconv, kGuided})
    EXPECT_LT(distance(fused.gradient(net.output(), 2, rule), alone.gradient(net.output(), 2, rule)), 1e-5);
}

TEST_P(Engine, GradientIsTheDirectionalDerivative) {
  const test::Net net = busy_network();
  const Tensor x = image({1, 3, 13, 11});
  for (const char* name : {"softmax", "fc", "join", "lrn"}) {
    const int node = net.find(name);
    Pass pass(ctx, net, x, {node});
    const std::vector<double> g = pass.gradient(node, 3, kGradient);
    double slope = 0;
    for (double v : g) slope += v * v;  // along the gradient itself
    ASSERT_GT(slope, 0) << name;
    const auto score = [&](double step) {
      Tensor moved = x.clone();
      for (int64_t i = 0; i < x.count(); ++i) moved[i] += float(step * g[size_t(i)] / std::sqrt(slope));
      const Tensor y = Pass(ctx, net, moved, {node}).plan.read(node);
      const int64_t positions = y.count() / y.dim(1);
      double sum = 0;
      for (int64_t p = 0; p < positions; ++p) sum += y[3 * positions + p];
      return sum;
    };
    const double h = 2e-3, measured = (score(h) - score(-h)) / (2 * h);
    EXPECT_NEAR(measured / std::sqrt(slope), 1, 2e-2) << name;
  }
}

// Values observed in the middle do not disturb one another, and dropout has its input's value.
TEST_P(Engine, ObservedValues) {
  const test::Net net = busy_network();
  const Tensor x = image({2, 3, 13, 11});
  Pass all(ctx, net, x, all_nodes(net));
  for (size_t node = 0; node < net.nodes.size(); ++node) {
    Pass one(ctx, net, x, {int(node)});
    const Tensor a = one.plan.read(int(node)), b = all.plan.read(int(node));
    ASSERT_EQ(a.dims(), b.dims());
    for (int64_t i = 0; i < a.count(); ++i) ASSERT_NEAR(a[i], b[i], 2e-5) << net.nodes[node].name;
  }
  const Tensor dropped = all.plan.read(net.find("drop")), kept = all.plan.read(net.find("relu6"));
  for (int64_t i = 0; i < kept.count(); ++i) ASSERT_EQ(dropped[i], kept[i]);
}

// Branches as in inception blocks: convolutions, a fused and a plain max pool that GPUs write in place, an average pool
// that is copied, a value that others read too, the same value twice, a concatenation of concatenations. Observing every
// node keeps all of them apart; on integers not a bit may differ, nor from the CPU.
TEST_P(Engine, ConcatenationsInPlaceAndNot) {
  test::Net net("branches", {1, 3, 12, 12});
  const int stem = net.add("stem", conv2d(3, 16, 3, 1, 1));
  const int relu = net.add("relu", ReLU{});
  const int one = net.add("one", conv2d(16, 8, 1), {relu});
  net.add("three", conv2d(16, 40, 3, 1, 1), {relu});
  const int three = net.add("three_relu", ReLU{});
  const int max = net.add("max", max_pool2d(3, 1, 1), {relu});
  const int avg = net.add("avg", AvgPool2d{.kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1}, {relu});
  const int inner = net.add("inner", Concat{}, {one, three, max});
  const int outer = net.add("outer", Concat{}, {inner, avg, avg, stem});
  net.add("conv", conv2d(112, 33, 3, 2, 1), {outer});
  net.add("conv_relu", ReLU{});
  const int pool = net.add("pool", max_pool2d(2, 2));
  const int last = net.add("last", conv2d(112, 5, 1, 4), {outer});
  net.add("end", Concat{}, {last, pool});
  net.fill([](const Parameter&, int64_t i) { return float((i * 31 + 7) % 5 - 2); });
  Tensor x = image({2, 3, 12, 12});
  for (int64_t i = 0; i < x.count(); ++i) x[i] = std::floor(2 * x[i]);
  ASSERT_EQ(net.shapes({2, 3, 12, 12}).back(), (Shape{2, 38, 3, 3}));

  Context cpu;
  cpu.conv = ConvAlgorithm::direct;
  Pass on_cpu(cpu, net, x, {});
  const Tensor want = on_cpu.plan.read(net.output());
  using enum ConvAlgorithm;
  for (const ConvAlgorithm algorithm : ctx.gpu ? std::vector{own, gemm, direct} : std::vector{direct}) {
    ctx.conv = algorithm;
    Pass in_place(ctx, net, x, {}), apart(ctx, net, x, all_nodes(net));
    const Tensor a = in_place.plan.read(net.output()), b = apart.plan.read(net.output());
    for (int64_t i = 0; i < a.count(); ++i) {
      ASSERT_EQ(a[i], want[i]) << i;
      ASSERT_EQ(b[i], want[i]) << i;
    }
    for (ReluRule rule : {kGradient, kDeconv, kGuided})
      for (const int64_t channel : {2, 20}) {
        const std::vector<double> wanted = on_cpu.gradient(net.output(), channel, rule);
        EXPECT_GT(*std::max_element(wanted.begin(), wanted.end()), 0);
        EXPECT_EQ(in_place.gradient(net.output(), channel, rule), wanted);
        EXPECT_EQ(apart.gradient(net.output(), channel, rule), wanted);
      }
  }
}

TEST_P(Engine, TapeFileRoundTripWithAClip) {
  const test::Net net = busy_network();
  const Tensor x = image({2, 3, 13, 11});
  Pass pass(ctx, net, x, {});
  const std::vector<double> before = pass.gradient(net.output(), 1, kGuided);
  const test::TempFolder folder;
  save_tape(pass.ctx, net, pass.tape, folder / "tape.safetensors");
  const std::vector<uint32_t> other(100, 0x5a5a5a5au);
  pass.ctx.copy_in(pass.tape.data(pass.tape.slot(Tape::Kind::gate, net.find("relu6"))), other.data(), 400);
  EXPECT_GT(distance(pass.gradient(net.output(), 1, kGuided), before), 1e-3);
  load_tape(pass.ctx, net, pass.tape, folder / "tape.safetensors");
  EXPECT_EQ(pass.gradient(net.output(), 1, kGuided), before);
}

// A vector that gates a map: the result is a map, in whatever order they stand.
TEST_P(Engine, MapsTimesVectorsAreMaps) {
  test::Net net("gated", {1, 2, 3, 4});
  const int mean = net.add("mean", AdaptiveAvgPool2d{1, 1});
  const int vector = net.add("vector", Flatten{}, {mean});
  net.add("doubled", Add{}, {vector, vector});
  net.add("gated", Binary{BinaryFunction::mul}, {vector, 0});
  const Tensor x = image({2, 2, 3, 4});
  Plan plan(ctx, net, {2, 2, 3, 4}, {.observe = {vector, net.find("doubled")}});
  plan.write(x.data(), 2);
  plan.forward();
  EXPECT_EQ(plan.dims(vector), (Dims{2, 2}));
  EXPECT_EQ(plan.dims(net.find("doubled")), (Dims{2, 2}));
  const Tensor mean_of = plan.read(vector), y = plan.read(net.output());
  ASSERT_EQ(y.dims(), x.dims());
  for (int64_t i = 0; i < x.count(); ++i) EXPECT_FLOAT_EQ(y[i], x[i] * mean_of[i / 12]) << i;
}

TEST_P(Engine, BackwardNeedsAPath) {
  test::Net net("split", {1, 1, 4, 4});
  const int a = net.add("a", conv2d(1, 2, 3, 1, 1), {0}), b = net.add("b", conv2d(1, 2, 3, 1, 1), {0});
  net.add("sum", Add{}, {a, b});
  net.weights = random_weights(net, 1);
  const Plan plan(ctx, net, {1, 1, 4, 4}, {.observe = {a, b}});
  test::expect_error("does not depend on", [&] { Backward(plan, a, {.nodes = {b}}, 1); });
  EXPECT_THROW(Plan(ctx, net, {1, 2, 4, 4}, {}), Error);
}

TEST_P(Engine, Bf16IsNearFp32) {
  if (!device.computes_in(DType::bf16)) GTEST_SKIP() << "no AVX512-BF16 or AMX";
  test::Net net = make_network("resnet18", {.divide_channels = 4, .classes = 10});
  net.weights = random_weights(net, 5);
  const Tensor x = image({2, 3, 64, 64});
  Pass exact(ctx, net, x, {}), coarse(ctx, net, x, {}, Precision::bf16);
  const Tensor a = exact.plan.read(net.output()), b = coarse.plan.read(net.output());
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < a.count(); ++i) difference += std::pow(a[i] - b[i], 2), norm += std::pow(a[i], 2);
  EXPECT_LT(std::sqrt(difference / norm), 0.03);  // 2^-8 a layer, 18 layers
  EXPECT_GT(difference, 0);
}

TEST_P(Engine, BatchFollowsTheMemoryLimit) {
  test::Net net = make_network("vgg11", {.divide_channels = 8, .classes = 10});
  net.weights = random_weights(net, 0);
  const Shape item{1, 3, 64, 64};
  const size_t one = run_bytes(ctx, net, item, {}, 1);
  EXPECT_EQ(batch_within(ctx, net, item, {}, 5 * one, 64), 5);
  EXPECT_EQ(batch_within(ctx, net, item, {}, 100 * one, 8), 8);
  EXPECT_THROW(batch_within(ctx, net, item, {}, one / 2, 8), Error);
}

}  // namespace
}  // namespace switchback
