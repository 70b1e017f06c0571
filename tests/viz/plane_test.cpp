// The plane of networks with two inputs against geometry known by hand, against sampled points and against the engine;
// and the mlp that it draws.
#include "viz/methods/plane.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>
#include <set>

#include "engine/model.h"
#include "engine/files/safetensors.h"
#include "engine/zoo/zoo.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/regions.h"

namespace switchback::test {
namespace {

// One hidden layer whose units are the rows [a, b, c]: a x + b y + c.
Net lines_network(const std::vector<std::array<float, 3>>& lines, float clip = kNoClip) {
  const int64_t n = int64_t(lines.size());
  Net net("lines", {1, 2, 1, 1});
  net.add("0", Linear{2, n});
  net.add("1", ReLU{clip});
  net.add("2", Linear{n, 1});
  net.weights = random_weights(net, 1);
  for (size_t i = 0; i < lines.size(); ++i) {
    std::copy_n(lines[i].data(), 2, net.weights.edit(1, "weight").begin() + 2 * int64_t(i));
    net.weights.edit(1, "bias")[i] = lines[i][2];
  }
  return net;
}

size_t regions(const Net& net, const PlaneBox& box) { return plane_map(net, box).regions.size(); }

TEST(Plane, LinesInGeneralPosition) {  // tangents of a circle: any two meet, no three in one point
  for (int n = 1; n <= 9; ++n) {
    std::vector<std::array<float, 3>> lines;
    for (int i = 0; i < n; ++i) {
      const double angle = std::numbers::pi * (i + 0.3) / n;
      lines.push_back({float(std::cos(angle)), float(std::sin(angle)), -1});
    }
    const PlaneMap map = plane_map(lines_network(lines), {-20, 20, -20, 20});
    EXPECT_EQ(map.regions.size(), size_t(1 + n + n * (n - 1) / 2)) << n;
    ASSERT_EQ(map.layers.size(), 1u);
    EXPECT_EQ(map.layers[0].crossing, n);
    EXPECT_EQ(map.layers[0].off, 0);
    EXPECT_EQ(map.layers[0].regions, int64_t(map.regions.size()));
  }
}

TEST(Plane, LinesInSpecialPosition) {
  const PlaneBox box{-1, 1, -1, 1};
  EXPECT_EQ(regions(lines_network({{1, 0, 0}, {0, 1, 0}, {1, 1, 0}, {1, -1, 0}, {1, 3, 0}}), box), 10u) << "one point";
  EXPECT_EQ(regions(lines_network({{3, 1, .5f}, {3, 1, .1f}, {6, 2, 0}, {-3, -1, .3f}}), box), 5u) << "parallel";
  EXPECT_EQ(regions(lines_network({{3, 1, .1f}, {6, 2, .2f}, {-3, -1, -.1f}}), box), 2u) << "the same line thrice";
  EXPECT_EQ(regions(lines_network({{1, 1, 2}, {1, 1, -2}, {1, 0, 1}, {0, 1, 1}}), box), 1u)
      << "through corners and edges";
  EXPECT_EQ(regions(lines_network({{1, 1, 1}, {1, -1, 1}, {1, 0, 5}}), box), 3u) << "they meet on the border";
  const PlaneMap still = plane_map(lines_network({{0, 0, 1}, {0, 0, -1}, {0, 0, 0}, {1, 0, 7}, {1, 0, -7}}), box);
  EXPECT_EQ(still.regions.size(), 1u);
  EXPECT_EQ(still.layers[0].crossing, 0);
  EXPECT_EQ(still.layers[0].off, 3) << "0 is off";
  EXPECT_TRUE(still.lines.empty());
  EXPECT_EQ(regions(lines_network({{1, 0, 0}, {0, 1, 0}}, 0.5f), box), 9u) << "clips have two lines each";
  EXPECT_EQ(regions(lines_network({{1, 0, 0}}, 0.5f), {-1, 0.5, 0, 1}), 2u) << "the clip's line is the border";
}

// x -> tent(x) = 2 relu(x) - 4 relu(x - 1/2) on [0,1], L times: 2^L pieces of equal width (Montufar et al. 2014).
TEST(Plane, FoldingDoublesTheRegionsWithEveryLayer) {
  Net net("tent", {1, 2, 1, 1});
  constexpr int kLayers = 6;
  for (int l = 0; l < kLayers; ++l) {
    net.add("fc" + std::to_string(l), Linear{2, 2});
    net.add("relu" + std::to_string(l), ReLU{});
  }
  net.add("out", Linear{2, 1});
  net.weights = random_weights(net, 1);
  for (int l = 0; l < kLayers; ++l) {
    const int fc = net.find("fc" + std::to_string(l));
    const float rows[2][2] = {{l ? 2.f : 1.f, l ? -4.f : 0.f}, {l ? 2.f : 1.f, l ? -4.f : 0.f}};
    std::copy_n(&rows[0][0], 4, net.weights.edit(fc, "weight").begin());
    const std::span<float> bias = net.weights.edit(fc, "bias");
    bias[0] = 0, bias[1] = -0.5f;
  }
  const PlaneMap map = plane_map(net, {0, 1, 0, 1});
  ASSERT_EQ(map.regions.size(), size_t(1) << kLayers);
  for (int l = 0; l < kLayers; ++l) EXPECT_EQ(map.layers[size_t(l)].regions, 2 << l);
  for (const PlaneRegion& region : map.regions) {
    double left = 1, right = 0;
    for (const Point& p : region.polygon) left = std::min(left, p.x), right = std::max(right, p.x);
    EXPECT_NEAR(right - left, std::ldexp(1, -kLayers), 1e-12);
  }
}

// Evaluates a network with two inputs in double, node by node; the states of its ReLUs.
std::vector<int> states_at(const Net& net, Point at, std::vector<double>* output) {
  std::vector<std::vector<double>> values{{at.x, at.y}};
  std::vector<int> states;
  for (int i = 1; i < net.nodes.count(); ++i) {
    const Node& node = net.nodes[i];
    const auto of = [&](const char* name) { return net.weights.values(i, name); };
    const std::vector<double>& x = values[size_t(node.inputs[0])];
    std::vector<double> y = x;
    if (const auto* l = std::get_if<Linear>(&node.layer)) {
      y.assign(size_t(l->out_features), 0);
      for (size_t o = 0; o < y.size(); ++o) {
        y[o] = l->has_bias ? double(of("bias")[o]) : 0;
        for (size_t c = 0; c < x.size(); ++c) y[o] += double(of("weight")[o * x.size() + c]) * x[c];
      }
    } else if (const auto* relu = std::get_if<ReLU>(&node.layer)) {
      for (double& v : y) {
        states.push_back(v >= double(relu->clip) ? 2 : v > 0);
        v = std::clamp(v, 0.0, double(relu->clip));
      }
    } else if (const auto* bn = std::get_if<BatchNorm2d>(&node.layer)) {
      for (size_t c = 0; c < y.size(); ++c) {
        y[c] = (y[c] - double(of("running_mean")[c])) / std::sqrt(double(of("running_var")[c]) + double(bn->eps)) *
                   double(of("weight")[c]) +
               double(of("bias")[c]);
      }
    } else if (std::holds_alternative<Add>(node.layer)) {
      for (size_t c = 0; c < y.size(); ++c) y[c] += values[size_t(node.inputs[1])][c];
    } else if (std::holds_alternative<Concat>(node.layer)) {
      y.insert(y.end(), values[size_t(node.inputs[1])].begin(), values[size_t(node.inputs[1])].end());
    }
    values.push_back(std::move(y));
  }
  if (output) *output = values.back();
  return states;
}

// Every layer that --plane takes: a residual, a concatenation, a batch norm, a clip, a layer without bias.
Net winding_network(uint64_t seed) {
  Net net("winding", {1, 2, 1, 1});
  const int first = net.add("fc1", Linear{2, 7});
  net.add("bn", BatchNorm2d{7});
  const int relu1 = net.add("relu1", ReLU{});
  net.add("fc2", Linear{7, 7, false});
  net.add("drop", Dropout{});
  net.add("add", Add{}, {net.output(), first});
  const int relu2 = net.add("relu2", ReLU{1.f});
  net.add("concat", Concat{}, {relu2, relu1});
  net.add("fc3", Linear{14, 5});
  net.add("relu3", ReLU{});
  net.add("fc4", Linear{5, 3});
  net.weights = random_weights(net, seed);
  return net;
}

Point centroid(const PlaneRegion& region) {
  Point sum;
  for (const Point& p : region.polygon) sum.x += p.x, sum.y += p.y;
  return {sum.x / double(region.polygon.size()), sum.y / double(region.polygon.size())};
}

double area(const std::vector<Point>& p) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const Point &a = p[i], &b = p[(i + 1) % p.size()];
    sum += (a.x * b.y - b.x * a.y) / 2;
  }
  return sum;
}

std::vector<Net> plane_networks() {
  std::vector<Net> nets;
  for (const uint64_t seed : {1, 2, 3}) nets.push_back(winding_network(seed));
  nets.push_back(make_network("mlp:2-12-12-12-2"));
  nets.back().weights = random_weights(nets.back(), 4);
  return nets;
}

TEST(Plane, RegionsAreThePatternsOfTheirPoints) {
  const PlaneBox box{-1.5, 1, -1, 2};
  for (const Net& net : plane_networks()) {
    const PlaneMap map = plane_map(net, box);
    ASSERT_GT(map.regions.size(), 50u);
    double whole = 0;
    std::set<std::vector<int>> patterns;
    std::vector<std::vector<int>> of_region;
    for (const PlaneRegion& region : map.regions) {
      EXPECT_GT(area(region.polygon), 0);
      whole += area(region.polygon);
      std::vector<double> want;
      const Point at = centroid(region);
      of_region.push_back(states_at(net, at, &want));
      patterns.insert(of_region.back());
      ASSERT_EQ(region.outputs.size(), want.size());
      for (size_t k = 0; k < want.size(); ++k)
        EXPECT_NEAR(region.outputs[k][0] * at.x + region.outputs[k][1] * at.y + region.outputs[k][2], want[k], 1e-10);
      EXPECT_EQ(class_at(region, at), std::max_element(want.begin(), want.end()) - want.begin());
    }
    EXPECT_EQ(patterns.size(), map.regions.size()) << "two polygons of one pattern";
    EXPECT_NEAR(whole, 2.5 * 3, 1e-9) << "the polygons cover the box once";
    std::mt19937_64 rng(5);
    std::uniform_real_distribution<double> u(0, 1);
    for (int i = 0; i < 3000; ++i) {
      const Point p{-1.5 + 2.5 * u(rng), -1 + 3 * u(rng)};
      const int64_t region = region_of(map, p);
      ASSERT_GE(region, 0);
      EXPECT_EQ(states_at(net, p, nullptr), of_region[size_t(region)]) << net.name << " at " << p.x << ", " << p.y;
    }
    EXPECT_EQ(region_of(map, {-1.6, 0}), -1);
    EXPECT_EQ(region_of(map, {0, 2.1}), -1);
  }
}

TEST(Plane, LinesAreWhereTheirUnitsChange) {
  for (const Net& net : plane_networks()) {
    const PlaneMap map = plane_map(net, {});
    std::vector<size_t> first_unit{0};
    for (const PlaneLayer& layer : map.layers) first_unit.push_back(first_unit.back() + size_t(layer.units));
    size_t changes = 0;
    for (const PlaneLine& line : map.lines) {
      const Point middle{(line.from.x + line.to.x) / 2, (line.from.y + line.to.y) / 2};
      const double dx = line.to.x - line.from.x, dy = line.to.y - line.from.y, length = std::hypot(dx, dy);
      if (length < 1e-4) continue;  // too near to other lines
      const double e = 1e-7 / length;
      const size_t unit = first_unit[size_t(line.layer)] + size_t(line.unit);
      const int a = states_at(net, {middle.x - e * dy, middle.y + e * dx}, nullptr)[unit];
      const int b = states_at(net, {middle.x + e * dy, middle.y - e * dx}, nullptr)[unit];
      EXPECT_EQ(std::abs(a - b), 1) << net.name << ": unit " << line.unit << " of layer " << line.layer;
      ++changes;
    }
    EXPECT_GT(changes, 100u);
  }
}

class PlaneOnDevice : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(PlaneOnDevice);

TEST_P(PlaneOnDevice, TheEngineFindsTheRegionsOfThePlane) {
  const Net net = winding_network(2);
  const PlaneMap map = plane_map(net, {});
  std::vector<const PlaneRegion*> wide;  // where float32 cannot cross a border
  for (const PlaneRegion& region : map.regions) {
    const Point c = centroid(region);
    bool inside = true;
    for (const Point d : {Point{1e-3, 0}, Point{-1e-3, 0}, Point{0, 1e-3}, Point{0, -1e-3}})
      inside &= states_at(net, {c.x + d.x, c.y + d.y}, nullptr) == states_at(net, c, nullptr);
    if (inside && wide.size() < 64) wide.push_back(&region);
  }
  ASSERT_EQ(wide.size(), 64u);
  Tensor x({64, 2, 1, 1});
  for (size_t i = 0; i < wide.size(); ++i) {
    x[int64_t(2 * i)] = float(centroid(*wide[i]).x);
    x[int64_t(2 * i + 1)] = float(centroid(*wide[i]).y);
  }
  RegionCensus census(ctx, net, net.input, 1, {}, 64);
  ASSERT_EQ(census.batch(), 64);
  const Tensor logits = census.add(x.data(), std::vector<int>(64, 0));
  const RegionReport report = census.report();
  EXPECT_EQ(report.total.distinct, 64);
  EXPECT_EQ(report.layers.size(), map.layers.size());
  for (int64_t i = 0; i < 64; ++i)
    for (int64_t k = 0; k < 3; ++k) {
      const std::array<double, 3>& o = wide[size_t(i)]->outputs[size_t(k)];
      EXPECT_NEAR(logits[i * 3 + k], o[0] * x[2 * i] + o[1] * x[2 * i + 1] + o[2], 1e-4);
    }
}

TEST(Plane, NetworksThatItCannotDraw) {
  expect_error("28x28", [] { plane_map({make_network("lenet")}, {}); });
  expect_error("no ReLU", [] { plane_map({make_network("mlp:2-3")}, {}); });
  Net soft("soft", {1, 2, 1, 1});
  soft.add("fc", Linear{2, 3});
  soft.add("softmax", Softmax{});
  soft.add("relu", ReLU{});
  soft.weights = random_weights(soft, 1);
  expect_error("softmax, a Softmax", [&] { plane_map(soft, {}); });
  Net last("last", {1, 2, 1, 1});  // a final one is left out
  last.add("fc", Linear{2, 3});
  last.add("relu", ReLU{});
  last.add("softmax", Softmax{});
  last.weights = random_weights(last, 1);
  EXPECT_GT(regions(last, {}), 3u);
  expect_error(
      "empty",
      [&] {
        plane_map(last, {1, -1, 0, 1});
      },
      false);
}

// ---- mlp

TEST(Mlp, SizesFromItsNameAndItsWeights) {
  const Net net = make_network("mlp:2-5-4-3");
  EXPECT_EQ(net.name, "mlp:2-5-4-3");
  EXPECT_EQ(net.input, (Shape{1, 2, 1, 1}));
  std::vector<std::string> names;
  for (const Node& node : net.nodes) names.push_back(node.name);
  EXPECT_EQ(names, (std::vector<std::string>{"x", "0", "1", "2", "3", "4"})) << "torch.nn.Sequential's";
  EXPECT_EQ(net.parameter_count(), 2 * 5 + 5 + 5 * 4 + 4 + 4 * 3 + 3);
  for (const char* wrong :
       {"mlp:", "mlp:2", "mlp:2-", "mlp:2-0-2", "mlp:-2-2", "mlp:2-x", "mlp:2-99999", "mlp:2--2", "mlp:2-3 "})
    expect_error("mlp:", [&] { make_network(wrong); });

  TempFolder folder;
  Net filled = make_network("mlp:3-4-2");
  filled.weights = random_weights(filled, 5);
  const std::string file = folder / "w.safetensors";
  save_weights(filled, filled.weights, file);
  EXPECT_EQ(mlp_sizes(Safetensors(file)), (std::vector<int64_t>{3, 4, 2}));
  const Model model = open_model({"mlp", file, ""}, {});
  EXPECT_EQ(model.network.name, "mlp:3-4-2");
  EXPECT_EQ(model.weights.values(1, "weight")[5], filled.weights.values(1, "weight")[5]);
  const Tensor a = Tensor::zeros({4, 3}), b = Tensor::zeros({2, 5});
  write_safetensors(folder / "bad.safetensors", {{"0.weight", a}, {"2.weight", b}});
  expect_error("2.weight is [2,5], [any,4]", [&] { mlp_sizes(Safetensors(folder / "bad.safetensors")); });
  write_safetensors(folder / "other.safetensors", {{"fc.weight", a}});
  expect_error("no 0.weight", [&] { open_model({"mlp", folder / "other.safetensors", ""}, {}); });
}

}  // namespace
}  // namespace switchback::test
