// Weights as a value: copies, changes, files that do not fit; and what learning will stand on: the gradients at every step
// that has parameters, and plans that go on with changed weights.
#include "engine/weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "engine/files/safetensors.h"
#include "engine/run/backward.h"
#include "engine/run/plan.h"
#include "kernels/pointwise/pointwise.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"

namespace switchback {
namespace {

using test::expect_error;

test::Net small() {
  test::Net net("small", {1, 2, 6, 6});
  net.add("conv", conv2d(2, 4, 3, 1, 1));
  net.add("bn", BatchNorm2d{4});
  net.add("relu", ReLU{});
  net.add("pool", max_pool2d(2, 2));
  const int pool = net.output();
  net.add("branch", conv2d(4, 4, 3, 1, 1));
  net.add("sum", Add{}, {net.output(), pool});
  net.add("sum_relu", ReLU{});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{36, 5});
  net.weights = random_weights(net, 3);
  return net;
}

std::vector<float> images(const Network& net, int64_t n) {
  std::vector<float> x(size_t(net.input.item() * n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = float((i * 7919 + 13) % 1000) / 500.f - 1.f;
  return x;
}

TEST(Weights, CopiesKeepTheirValues) {
  const test::Net net = small();
  Weights changed = net.weights;
  EXPECT_EQ(changed.values().data(), net.weights.values().data()) << "copies share memory";
  EXPECT_EQ(changed.version(), net.weights.version());
  const float before = net.weights.values(net.find("fc"), "bias")[2];
  changed.edit(net.find("fc"), "bias")[2] = 42;
  EXPECT_EQ(net.weights.values(net.find("fc"), "bias")[2], before);
  EXPECT_EQ(changed.values(net.find("fc"), "bias")[2], 42);
  EXPECT_NE(changed.version(), net.weights.version());
  const uint64_t once = changed.version();
  changed.edit(net.find("fc"), "bias")[2] = 43;
  EXPECT_NE(changed.version(), once) << "a change of one's own is a change too";
}

TEST(Weights, TheListNamesEveryParameterOnce) {
  const test::Net net = small();
  std::string names;
  for (const Parameter& p : net.weights.list()) {
    names += net.nodes[p.node].name + "." + p.name + (p.trainable ? " " : "! ");
    EXPECT_EQ(p.offset % 16, 0);
    EXPECT_EQ(net.weights.values(p).data(), net.weights.values().data() + p.offset);
    EXPECT_EQ(net.weights.find(p.node, p.name), &p);
  }
  EXPECT_EQ(names,
            "conv.weight conv.bias bn.weight bn.bias bn.running_mean! bn.running_var! branch.weight branch.bias fc.weight "
            "fc.bias ");
  EXPECT_EQ(net.weights.find(net.find("relu"), "weight"), nullptr);
  EXPECT_TRUE(net.weights.values(net.find("relu"), "weight").empty());
}

TEST(Weights, AllMisfitsAreNamedInOneError) {
  const test::TempFolder folder;
  const test::Net net = small();
  std::vector<NamedTensor> list;
  const Tensor bias({4, 1}), weight({5, 36, 1}), strange({3});
  for (const Parameter& p : net.weights.list()) {
    const std::string name = net.nodes[p.node].name + "." + p.name;
    if (name == "bn.running_mean" || name == "branch.weight") continue;
    if (name == "conv.bias")
      list.emplace_back(name, bias);
    else if (name == "fc.weight")
      list.emplace_back(name, weight);
    else
      list.emplace_back(name, p.dims, net.weights.values(p));
  }
  list.emplace_back("head.bias", strange);
  list.emplace_back("bn.num_batches_tracked", strange);
  write_safetensors(folder / "odd.safetensors", list);
  expect_error(
      "these are not weights of small: 2 missing: bn.running_mean, branch.weight; 2 misshapen: conv.bias is [4,1], should "
      "be [4], fc.weight is [5,36,1], should be [5,36]; 1 surplus: head.bias",
      [&] { load_weights(net, Safetensors(folder / "odd.safetensors")); });
}

TEST(Weights, FilesKeepThem) {
  const test::TempFolder folder;
  const test::Net net = small();
  save_weights(net, net.weights, folder / "w.safetensors");
  const Weights again = load_weights(net, Safetensors(folder / "w.safetensors"));
  for (const Parameter& p : net.weights.list())
    EXPECT_TRUE(std::ranges::equal(again.values(p), net.weights.values(p))) << p.name;
}

class WeightsOn : public test::OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(WeightsOn);

// The output's values and the gradient of its channel 1 at the input.
std::vector<float> values_and_gradient(Plan& plan, const std::vector<float>& x, int64_t n) {
  Tape tape;
  plan.write(x.data(), n);
  plan.forward(&tape);
  const Tensor y = plan.read(plan.network().output());
  std::vector<float> all(y.values().begin(), y.values().end());
  Backward backward(plan, plan.network().output(), {.nodes = {0}}, n);
  one_hot(plan.context(), backward.seed(n), std::vector<SeedUnit>(size_t(n), {1, -1, -1}));
  const ConstView g = backward.run(tape);
  const size_t at = all.size();
  all.resize(at + size_t(g.shape.count()));
  read_nchw(plan.context(), g, all.data() + at);
  return all;
}

TEST_P(WeightsOn, PlansGoOnWithChangedOnes) {
  const test::Net net = small();
  const std::vector<float> x = images(net, 2);
  Plan plan(ctx, net, net.input.with_n(2), {});
  const std::vector<float> before = values_and_gradient(plan, x, 2);
  Weights changed = net.weights;
  for (const Parameter& p : net.weights.list())
    for (float& v : changed.edit(p)) v *= 1.25f;
  EXPECT_EQ(values_and_gradient(plan, x, 2), before) << "a plan's weights are its own";
  plan.set_weights(changed);
  const std::vector<float> after = values_and_gradient(plan, x, 2);
  Plan fresh(ctx, Model{net, changed}, net.input.with_n(2), {});
  EXPECT_EQ(after, values_and_gradient(fresh, x, 2));
  EXPECT_NE(after, before);
  changed.edit(net.find("fc"), "bias")[1] += 1;  // once more, now that packed forms exist
  plan.set_weights(changed);
  const std::vector<float> shifted = values_and_gradient(plan, x, 2);
  EXPECT_NEAR(shifted[1], after[1] + 1, 1e-5);
  plan.set_weights(net.weights);
  EXPECT_EQ(values_and_gradient(plan, x, 2), before);
  expect_error("weights of another network", [&] { plan.set_weights(Weights()); }, false);
}

// A bias gets the sum of the gradients at its step's pre-activation: compared with differences of the functional, which is
// piecewise linear in each bias.
TEST_P(WeightsOn, PassesShowTheGradientAtEveryStepWithParameters) {
  const test::Net net = small();
  constexpr int64_t kN = 2;
  const std::vector<float> x = images(net, kN);
  Plan plan(ctx, net, net.input.with_n(kN), {});
  Tape tape;
  plan.write(x.data(), kN);
  plan.forward(&tape);
  std::map<std::string, std::vector<double>> sums;  // by the last node with parameters of each step
  const auto take = [&](const Step& step, ConstView dy) {
    std::vector<float> values(size_t(dy.shape.count()));
    read_nchw(plan.context(), dy, values.data());
    const int64_t plane = dy.shape.h * dy.shape.w;
    auto& sum = sums[net.nodes[step.batch_norm >= 0 ? step.batch_norm : step.node].name];
    EXPECT_TRUE(sum.empty()) << "shown twice";
    sum.assign(size_t(dy.shape.c), 0.);
    for (size_t i = 0; i < values.size(); ++i) sum[i / size_t(plane) % sum.size()] += values[i];
  };
  const auto run = [&](Wanted wanted) {
    sums.clear();
    Backward backward(plan, net.output(), std::move(wanted), kN);
    one_hot(plan.context(), backward.seed(kN), std::vector<SeedUnit>(size_t(kN), {1, -1, -1}));
    backward.run(tape, {.at_step = take});
    return sums;
  };
  const auto alone = run({.parameters = true});
  const auto with_input = run({.nodes = {0}, .parameters = true});
  EXPECT_EQ(alone, with_input);
  ASSERT_EQ(alone.size(), 3u);

  const auto functional = [&](const Weights& weights) {  // channel 1 of both items, summed up
    plan.set_weights(weights);
    plan.write(x.data(), kN);
    plan.forward();
    const Tensor y = plan.read(net.output());
    return double(y.data()[1]) + y.data()[5 + 1];
  };
  constexpr float kStep = 1.f / 512;
  for (const auto& [name, sum] : alone)
    for (int64_t c = 0; c < int64_t(sum.size()); ++c) {
      Weights more = net.weights, less = net.weights;
      more.edit(net.find(name), "bias")[size_t(c)] += kStep;
      less.edit(net.find(name), "bias")[size_t(c)] -= kStep;
      const double numeric = (functional(more) - functional(less)) / (2 * kStep);
      EXPECT_NEAR(sum[size_t(c)], numeric, 2e-3) << name << ".bias[" << c << "]";
    }
}

}  // namespace
}  // namespace switchback
