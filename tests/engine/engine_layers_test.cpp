// A network that meets every layer beside those of engine_test.cpp: values and gradients against the references in
// double, fused against unfused, rules, seeds, tape files.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "engine/run/backward.h"
#include "engine/run/plan.h"
#include "engine/run/step.h"
#include "kernels/pointwise/pointwise.h"
#include "tests/support/net.h"
#include "tests/support/network_reference.h"
#include "tests/support/on_device.h"
#include "tests/support/token_network.h"
#include "tests/support/temp_folder.h"

namespace switchback {
namespace {

constexpr Shape kInput{1, 3, 6, 8};

using enum BinaryFunction;
using enum SmoothFunction;

// An encoder with squeeze-and-excitation, a decoder, and a head that moves things about.
test::Net busy_layers() {
  test::Net net("layers", kInput);
  net.add("reflect", Pad{.top = 1, .left = 1, .bottom = 1, .right = 1, .mode = Pad::Mode::reflect});
  net.add("stem", conv2d(3, 8, 3));
  const int stem = net.add("prelu", PReLU{8});  // [8,6,8]
  net.add("squeeze", Reduce{.h = true, .w = true});
  net.add("reduce", conv2d(8, 4, 1));
  net.add("silu", Smooth{silu});
  net.add("expand", conv2d(4, 8, 1));
  const int gate = net.add("gate", Hardsigmoid{});
  const int excited = net.add("excite", Binary{mul}, {stem, gate});
  net.add("channel_mean", Reduce{.c = true}, {excited});
  const int place = net.add("place", Smooth{sigmoid});  // [1,6,8]
  const int attended = net.add("attend", Binary{mul}, {place, excited});
  net.add("half", Slice{.h = {0, 100, 2}, .w = {1, 100, 2}}, {attended});  // [8,3,4]
  net.add("up", ConvTranspose2d{.in_channels = 8, .out_channels = 8, .kernel_h = 3, .kernel_w = 3, .stride_h = 2,
                                .stride_w = 2, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1,
                                .output_pad_h = 1, .output_pad_w = 1, .groups = 2});
  const int up = net.add("up_bn", BatchNorm2d{8});
  const int sum = net.add("sum", Add{}, {up, attended});
  const int relu = net.add("relu", ReLU{});
  net.add("shuffle", ChannelShuffle{4}, {relu});
  const int leaky = net.add("leaky", LeakyReLU{0.2f});
  const int clip = net.add("clip", clip_layer(-1.f, 0.75f), {sum});
  net.add("difference", Binary{sub}, {leaky, clip});
  net.add("hardswish", Smooth{hardswish});
  const int scaled = net.add("scaled", BinaryConstant{mul, {.5f, -1, 2, 1, .25f, 3, -.5f, 1}, {1, 8, 1, 1}});
  net.add("tanh", Smooth{tanh}, {attended});
  const int divisor = net.add("divisor", by_scalar(add, 2.f));
  net.add("quotient", Binary{div}, {scaled, divisor});
  const int inverse = net.add("inverse", by_scalar(div, 1.5f, true), {divisor});
  const int both = net.add("both", Concat{}, {net.find("quotient"), inverse});  // [16,6,8]
  net.add("first_half", Slice{.c = {0, 100, 2}}, {both});
  net.add("bilinear", bilinear_to(4, 5));
  std::vector<float> places(8 * 4 * 5);
  for (size_t i = 0; i < places.size(); ++i) places[i] = float(int(i % 7) - 3) / 4;
  net.add("position", BinaryConstant{sub, places, {1, 8, 4, 5}, true});
  net.add("position_relu", ReLU{6.f});
  net.add("nearest", Resize{.scale_h = 1.5f, .scale_w = 0.6f});             // [8,6,3]
  net.add("channels", Pad{.right = 1, .front = 1, .back = 3, .value = .5f});  // [12,6,4]
  net.add("permute", Permute{{2, 3, 1}});                                   // [6,4,12]
  net.add("reshape", Reshape{9, -1, 4});                                    // [9,8,4]
  net.add("mixed", ConvTranspose2d{.in_channels = 9, .out_channels = 6, .kernel_h = 2, .kernel_w = 2});
  const int mapped = net.add("mixed_relu", ReLU{});  // [6,9,5]
  const int best = net.add("best", GlobalMaxPool{}, {mapped});
  const int rows = net.add("rows", Reduce{.h = true, .w = true, .mean = false}, {mapped});
  net.add("join", Binary{add}, {best, rows});
  net.add("join_relu", ReLU{});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{6, 5});
  net.weights = random_weights(net, 5);
  return net;
}

test::Nchw image(Shape s) {
  test::Nchw x(s);
  for (size_t i = 0; i < x.v.size(); ++i) x.v[i] = double(float((i * 7919 + 13) % 1000) / 500.f - 1.f);
  return x;
}

std::vector<int> all_nodes(const test::Net& net) {
  std::vector<int> all(net.nodes.size());
  std::iota(all.begin(), all.end(), 0);
  return all;
}

struct Pass {
  Context ctx;  // of its own, so that passes do not share an arena
  Plan plan;
  Tape tape;
  Pass(const Context& on, const test::Net& net, const test::Nchw& x, std::vector<int> observe,
       Precision precision = Precision::fp32)
      : ctx(on.gpu), plan(ctx, net, x.shape, {.precision = precision, .observe = std::move(observe)}) {
    const std::vector<float> host(x.v.begin(), x.v.end());
    plan.write(host.data(), x.shape.n);
    plan.forward(&tape);
  }
  // Of `channel` of node `from`, for `seeds` items of each of the tape's.
  test::Nchw gradient(int from, int64_t channel, ReluRule rule, int64_t seeds = 1) {
    const int64_t n = tape.n * seeds;
    Backward backward(plan, from, {.nodes = {0}}, n);
    one_hot(ctx, backward.seed(n), std::vector<SeedUnit>(size_t(n), {channel, -1, -1}));
    const ConstView g = backward.run(tape, {.rule = rule, .seeds_per_item = seeds});
    std::vector<float> out(size_t(g.shape.count()));
    read_nchw(ctx, g, out.data());
    test::Nchw nchw(g.shape);
    nchw.v.assign(out.begin(), out.end());
    return nchw;
  }
};

double distance(const test::Nchw& a, const test::Nchw& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.v.size(); ++i) difference += std::pow(a.v[i] - b.v[i], 2), norm += std::pow(b.v[i], 2);
  return std::sqrt(difference / norm);
}

test::Nchw read(const Plan& plan, int node) {
  const Tensor t = plan.read(node);
  test::Nchw out(plan.shapes()[size_t(node)].with_n(t.dim(0)));
  out.v.assign(t.values().begin(), t.values().end());
  return out;
}

class EngineLayers : public test::OnDevice {
 protected:
  void SetUp() override {
    test::OnDevice::SetUp();
    if (!ctx.gpu) ctx.conv = ConvAlgorithm::direct;
  }
};
SWITCHBACK_ON_ALL_DEVICES(EngineLayers);

// Some dozens of roundings at f32 stand between a value and the input.
constexpr double kNear = 2e-5;

TEST_P(EngineLayers, ValuesAreTheReferences) {
  const test::Net net = busy_layers();
  const test::Nchw x = image(kInput.with_n(2));
  const std::vector<test::Nchw> want = test::evaluate(net, x);
  const Pass all(ctx, net, x, all_nodes(net)), fused(ctx, net, x, {});
  for (size_t node = 0; node < net.nodes.size(); ++node) {
    SCOPED_TRACE(net.nodes[node].name);
    ASSERT_EQ(all.plan.shapes()[node], want[node].shape);
    EXPECT_LT(distance(read(all.plan, int(node)), want[node]), kNear);
  }
  EXPECT_LT(distance(read(fused.plan, net.output()), want.back()), kNear);
}

TEST_P(EngineLayers, GradientsAreNumericDerivatives) {
  const test::Net net = busy_layers();
  const test::Nchw x = image(kInput);
  for (const char* name : {"fc", "best", "position", "both", "excite"}) {
    const int node = net.find(name);
    Pass pass(ctx, net, x, {node});
    EXPECT_LT(distance(pass.gradient(node, 2, kGradient), test::numeric_gradient(net, x, node, 2)), kNear) << name;
  }
}

test::Net norms() {
  test::Net net("norms", {1, 3, 5, 4});
  net.add("stem", conv2d(3, 8, 3, 1, 1));
  net.add("channels", LayerNorm{.c = 8});
  net.add("gelu", Smooth{gelu});
  net.add("conv", conv2d(8, 12, 1));
  net.add("columns", LayerNorm{.w = 4});
  net.add("gelu_tanh", Smooth{gelu_tanh});
  net.add("groups", GroupNorm{3, 12});
  net.add("square", Binary{mul}, {net.output(), net.output()});
  net.add("instance", GroupNorm{12, 12, 1e-5f, false});
  net.add("item", LayerNorm{.c = 12, .h = 5, .w = 4});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{240, 6});
  net.add("vector", LayerNorm{.c = 6, .has_bias = false});
  net.weights = random_weights(net, 8);
  return net;
}

// All values of two items, and the gradient of output 2, the same under every rule: there is no rectifier.
void expect_references(Context& ctx, const test::Net& net) {
  const test::Nchw x = image(net.input.with_n(2)), one = image(net.input);
  const std::vector<test::Nchw> want = test::evaluate(net, x);
  const Pass all(ctx, net, x, all_nodes(net));
  for (int node = 0; node < net.nodes.count(); ++node)
    EXPECT_LT(distance(read(all.plan, node), want[size_t(node)]), kNear) << net.nodes[node].name;
  Pass pass(ctx, net, one, {});
  const test::Nchw numeric = test::numeric_gradient(net, one, net.output(), 2);
  for (const ReluRule rule : {kGradient, kDeconv, kGuided})
    EXPECT_LT(distance(pass.gradient(net.output(), 2, rule), numeric), kNear);
}

TEST_P(EngineLayers, NormsAreTheReferences) {
  const test::Net net = norms();
  expect_references(ctx, net);
  Pass pass(ctx, net, image(net.input), {});
  const Dims dims = pass.plan.dims(net.output());
  EXPECT_EQ(dims, (Dims{1, 6}));
}

// Two heads over the places of a map as tokens, with biases; a product of values, and functions element by element.
test::Net tokens() {
  test::Net net("tokens", {1, 3, 4, 5});
  net.add("embed", conv2d(3, 8, 1));
  const int norm = net.add("norm", LayerNorm{.c = 8});
  const int qkv = net.add("qkv", conv2d(8, 24, 1));  // 20 tokens of 3·2·4
  std::array<int, 3> of{};
  for (int64_t i = 0; i < 3; ++i) {
    const std::string name = fmt::format("{}", "qkv"[i]);
    net.add(name, Slice{.c = {8 * i, 8 * (i + 1), 1}}, {qkv});
    of[size_t(i)] = net.add(name + "_heads", Transpose{{20, 2, 4}, {1, 0, 2}, 4, 2, 20});
  }
  std::vector<float> bias(20 * 20);
  for (size_t i = 0; i < bias.size(); ++i) bias[i] = float(int(i * 7 % 11) - 5) / 8;
  net.add("attention", Attention{0.5f, bias, 1}, {of[0], of[1], of[2]});
  net.add("together", Transpose{{2, 20, 4}, {1, 0, 2}, 8, 4, 5});
  const int sum = net.add("sum", Add{}, {norm, net.output()});
  net.add("elu", Smooth{elu, 0.75f});
  net.add("mish", Smooth{mish});
  net.add("rows", Transpose{{160}, {0}, 8, 1, 20});
  const int left = net.add("softplus", Smooth{softplus});
  net.add("turned", Transpose{{20, 8}, {1, 0}, 20, 1, 8}, {sum});
  net.add("product", MatMul{}, {left, net.output()});  // [20,20]
  net.add("tanh", Smooth{SmoothFunction::tanh});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{400, 3});
  net.weights = random_weights(net, 3);
  return net;
}

TEST_P(EngineLayers, TokensAreTheReferences) { expect_references(ctx, tokens()); }

// Layers of transformers that have parameters.
TEST_P(EngineLayers, TokensWithParametersAreTheReferences) {
  for (const bool continuous : {false, true}) {
    SCOPED_TRACE(continuous ? "continuous" : "table");
    expect_references(ctx, test::token_network(continuous));
  }
}

TEST_P(EngineLayers, FusedIsUnfused) {
  const test::Net net = busy_layers();
  const test::Nchw x = image(kInput.with_n(2));
  Pass fused(ctx, net, x, {}), alone(ctx, net, x, all_nodes(net));
  EXPECT_LT(fused.plan.steps().size(), alone.plan.steps().size());
  for (ReluRule rule : {kGradient, kDeconv, kGuided})
    EXPECT_LT(distance(fused.gradient(net.output(), 1, rule), alone.gradient(net.output(), 1, rule)), kNear);
}

// Rules are no derivatives, so they are compared across devices; and they differ.
TEST_P(EngineLayers, RulesAreTheCpus) {
  const test::Net net = busy_layers();
  const test::Nchw x = image(kInput);
  Context cpu;
  cpu.conv = ConvAlgorithm::direct;
  Pass here(ctx, net, x, {}), there(cpu, net, x, {});
  const test::Nchw gradient = there.gradient(net.output(), 3, kGradient);
  for (ReluRule rule : {kDeconv, kGuided}) {
    const test::Nchw want = there.gradient(net.output(), 3, rule);
    EXPECT_LT(distance(here.gradient(net.output(), 3, rule), want), kNear);
    EXPECT_GT(distance(want, gradient), 1e-2);
  }
}

// What a rectifier with a slope holds back is scaled by it, whatever the rule; other activations know no rules.
TEST_P(EngineLayers, RulesOfSlopes) {
  const auto gradients = [&](const Layer& layer, ReluRule rule) {
    test::Net net("one", {1, 1, 1, 4});
    net.add("signs", BinaryConstant{mul, {1, 1, -1, -1}, {1, 1, 1, 4}});  // dy of `layer`: + + - - once more below
    net.add("layer", layer);
    net.add("weights", BinaryConstant{mul, {1, -1, 1, -1}, {1, 1, 1, 4}});
    test::Nchw x(Shape{1, 1, 1, 4}, 0.5);  // before `layer`: + + - -
    Pass pass(ctx, net, x, {});
    return pass.gradient(net.output(), 0, rule).v;
  };
  using Row = std::vector<double>;
  const LeakyReLU leaky{0.25f};
  EXPECT_EQ(gradients(leaky, kGradient), (Row{1, -1, -0.25, 0.25}));
  EXPECT_EQ(gradients(leaky, kDeconv), (Row{1, -0.25, -1, 0.25}));
  EXPECT_EQ(gradients(leaky, kGuided), (Row{1, -0.25, -0.25, 0.25}));
  EXPECT_EQ(gradients(ReLU{}, kGuided), (Row{1, 0, 0, 0}));
  for (ReluRule rule : {kGradient, kDeconv, kGuided}) {
    EXPECT_EQ(gradients(Clip{-1, 1}, rule), (Row{1, -1, -1, 1}));
    EXPECT_EQ(gradients(Clip{-0.25f, 1}, rule), (Row{1, -1, 0, 0}));
    EXPECT_EQ(gradients(Hardsigmoid{0.5f, 0.5f}, rule), (Row{0.5, -0.5, -0.5, 0.5}));
  }
}

// One forward pass serves several seeds of each item.
TEST_P(EngineLayers, SeedsShareATape) {
  const test::Net net = busy_layers();
  const test::Nchw x = image(kInput.with_n(2));
  Pass pass(ctx, net, x, {});
  const test::Nchw one = pass.gradient(net.output(), 4, kGuided), three = pass.gradient(net.output(), 4, kGuided, 3);
  for (int64_t seed = 0; seed < 6; ++seed)
    EXPECT_LT(distance(three.items(seed, 1), one.items(seed / 3, 1)), 1e-6) << seed;
}

TEST_P(EngineLayers, Bf16IsNearFp32) {
  if (!device.computes_in(DType::bf16)) GTEST_SKIP() << "no AVX512-BF16 or AMX";
  const test::Net net = busy_layers();
  const test::Nchw x = image(kInput);
  Pass exact(ctx, net, x, {}), coarse(ctx, net, x, {}, Precision::bf16);
  const double apart = distance(read(coarse.plan, net.output()), read(exact.plan, net.output()));
  EXPECT_LT(apart, 0.1);  // 2^-8 a layer, 40 layers
  EXPECT_GT(apart, 0);
  EXPECT_LT(distance(coarse.gradient(net.output(), 1, kGradient), exact.gradient(net.output(), 1, kGradient)), 0.3);
}

TEST_P(EngineLayers, TapeFiles) {
  const test::Net net = busy_layers();
  Pass pass(ctx, net, image(kInput.with_n(2)), {});
  const test::Nchw before = pass.gradient(net.output(), 1, kGuided);
  const test::TempFolder folder;
  save_tape(pass.ctx, net, pass.tape, folder / "tape.safetensors");
  const std::vector<uint32_t> other(16, 0x5a5a5a5au);
  const auto slot = [&](Tape::Kind kind, const char* name) { return pass.tape.data(pass.tape.slot(kind, net.find(name))); };
  for (const char* name : {"prelu", "clip", "leaky"}) pass.ctx.copy_in(slot(Tape::Kind::gate, name), other.data(), 64);
  pass.ctx.copy_in(slot(Tape::Kind::switches, "best"), other.data(), 8);
  EXPECT_GT(distance(pass.gradient(net.output(), 1, kGuided), before), 1e-3);
  load_tape(pass.ctx, net, pass.tape, folder / "tape.safetensors");
  EXPECT_EQ(pass.gradient(net.output(), 1, kGuided).v, before.v);
}

TEST(Layers, DescribedAsInPyTorch) {
  const std::pair<Layer, const char*> rows[] = {
      {ConvTranspose2d{.in_channels = 8, .out_channels = 4, .kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 2,
                       .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1, .output_pad_h = 1, .output_pad_w = 1},
       "ConvTranspose2d(8, 4, kernel 3, stride 2, padding 1, output padding 1)"},
      {GlobalMaxPool{}, "AdaptiveMaxPool2d(1)"},
      {LeakyReLU{0.2f}, "LeakyReLU(0.2)"},
      {PReLU{64}, "PReLU(64)"},
      {clip_layer(-1, 2), "Clip(-1, 2)"},
      {clip_layer(0, 6), "ReLU6()"},
      {clip_layer(0, std::numeric_limits<float>::infinity()), "ReLU()"},
      {Smooth{silu}, "SiLU()"},
      {Smooth{gelu}, "GELU()"},
      {LayerNorm{.h = 5, .w = 4}, "LayerNorm(5, 4)"},
      {Transpose{{20, 2, 4}, {1, 0, 2}, 4, 2, 20}, "Transpose([20,2,4] by 1,0,2 to 4, 2, 20)"},
      {MatMul{}, "MatMul()"},
      {Attention{0.5f, {}, 1}, "Attention(scale 0.5)"},
      {Smooth{elu, 0.75f}, "ELU(0.75)"},
      {GroupNorm{3, 12}, "GroupNorm(3, 12)"},
      {GroupNorm{12, 12}, "InstanceNorm2d(12)"},
      {PlaceLinear{8, 24}, "Linear(8, 24)"},
      {LayerScale{8}, "LayerScale(8)"},
      {Embedding{5, 8}, "Embedding(5 tokens, 8)"},
      {HeadScale{3}, "HeadScale(3)"},
      {WindowAttention{.window = 7, .heads = 3, .rows = 2, .columns = 4, .shift_w = 3},
       "WindowAttention(window 7, 3 heads, 2x4 windows, shifted)"},
      {Roll{-3, 2}, "Roll(-3, 2)"},
      {Take{.c = {2, 0}, .w = {0, 1, 2, 3, 4, 5, 6, 7, 7}}, "Take([2,0], :, 9 places)"},
      {ResizeLike{}, "UpsampleLike()"},
      {Smooth{hardswish}, "Hardswish()"},
      {Binary{div}, "Div()"},
      {by_scalar(sub, 1.5f, true), "Sub(1.5, x)"},
      {BinaryConstant{mul, {1, 2, 3}, {1, 3, 1, 1}}, "Mul(x, [3,1,1])"},
      {Reduce{.h = true, .w = true}, "Mean(rows, columns)"},
      {bilinear_to(32, 48), "Upsample(to 32x48, bilinear, half_pixel)"},
      {Resize{.scale_h = 2, .scale_w = 2}, "Upsample(by 2x2, nearest, asymmetric)"},
      {Pad{.top = 1, .left = 2, .mode = Pad::Mode::edge}, "ReplicationPad2d(left 2 right 0 top 1 bottom 0)"},
      {Slice{.h = {0, 7, 2}}, "Slice(:, :7:2, :)"},
      {Permute{{2, 3, 1}}, "Permute(0, 2, 3, 1)"},
  };
  for (const auto& [layer, text] : rows) EXPECT_EQ(describe(layer), text);
}

TEST(Layers, ParametersAndErrors) {
  const ConvTranspose2d conv{.in_channels = 8, .out_channels = 6, .kernel_h = 2, .kernel_w = 3, .groups = 2};
  const std::vector<ParameterSpec> specs = parameters(conv);
  ASSERT_EQ(specs.size(), 2u);
  EXPECT_EQ(specs[0].dims, (Dims{8, 3, 2, 3}));
  EXPECT_EQ(specs[1].dims, (Dims{6}));
  EXPECT_EQ(parameters(PReLU{5})[0].dims, (Dims{5}));
  const Shape x{1, 8, 4, 4}, small{1, 8, 1, 1};
  EXPECT_EQ(flops(conv, {&x, 1}), 2 * 8 * 16 * 3 * 6);
  const auto refuses = [&](const Layer& layer, std::vector<Shape> inputs) {
    EXPECT_THROW(output_shape(layer, inputs), Error) << describe(layer);
  };
  refuses(PReLU{5}, {x});
  refuses(Clip{2, 1}, {x});
  refuses(Binary{mul}, {x});
  refuses(Binary{mul}, {x, {1, 8, 3, 1}});
  refuses(BinaryConstant{mul, {1, 2}, {1, 3, 1, 1}}, {x});
  refuses(BinaryConstant{mul, {1, 2}, {1, 2, 1, 1}}, {x});
  refuses(Reduce{}, {x});
  refuses(Resize{.scale_h = 0}, {x});
  const std::vector<Shape> two{x, small};
  EXPECT_EQ(output_shape(Binary{mul}, two), x);
}

}  // namespace
}  // namespace switchback
