// Active subgraphs: what every connection adds, by hand, against etalons and against the network's tail alone; and what
// their picture shows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/random_network.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/etalon.h"
#include "viz/methods/subgraph.h"

namespace switchback::test {
namespace {

class ActiveSubgraph : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(ActiveSubgraph);

void set(std::span<float> parameter, const std::vector<float>& values) {
  ASSERT_EQ(parameter.size(), values.size());
  std::ranges::copy(values, parameter.begin());
}

// Of (2, -1): units 0 and 2 are on with the value 2, unit 1 is off; the first output is 3·2 − 2·2 + 4.
Net small_network() {
  Net net("small", {1, 2, 1, 1});
  net.add("fc1", Linear{2, 3});
  net.add("relu", ReLU{});
  net.add("fc2", Linear{3, 2});
  net.weights = random_weights(net, 1);
  set(net.weights.edit(1, "weight"), {1, 1, -1, 0, 0, -2});
  set(net.weights.edit(1, "bias"), {1, 1, 0});
  set(net.weights.edit(3, "weight"), {3, 5, -2, 1, 1, 1});
  set(net.weights.edit(3, "bias"), {4, 0});
  return net;
}
const float kPoint[] = {2, -1};

std::map<std::pair<int64_t, int64_t>, double> by_ends(const std::vector<SubgraphEdge>& edges) {
  std::map<std::pair<int64_t, int64_t>, double> out;
  for (const SubgraphEdge& e : edges) out[{e.from, e.to}] = e.contribution;
  return out;
}

TEST_P(ActiveSubgraph, OfASmallNetworkByHand) {
  const Net net = small_network();
  const Subgraph g = active_subgraph(ctx, net, net.input, kPoint, {3, 0});
  using Edges = std::map<std::pair<int64_t, int64_t>, double>;
  EXPECT_EQ(g.value, 6);
  ASSERT_EQ(g.layers.size(), 3u);
  EXPECT_EQ(g.layers[1].name, "relu");
  EXPECT_EQ(by_ends(g.edges[0]), (Edges{{{0, 0}, 6}, {{1, 0}, -3}, {{1, 2}, -4}})) << "nothing into or out of unit 1";
  EXPECT_EQ(by_ends(g.edges[1]), (Edges{{{0, 0}, 6}, {{2, 0}, -4}})) << "nothing to the other output";
  const std::vector<double> active = {1, 0, 1}, adds = {6, 0, -4}, values = {2, 0, 2};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(g.layers[1].vertices[i].active, active[i]);
    EXPECT_EQ(g.layers[1].vertices[i].contribution, adds[i]);
    EXPECT_EQ(g.layers[1].vertices[i].map, std::vector<float>{float(values[i])});
  }
  EXPECT_EQ(g.layers[0].vertices[1].contribution, -7);
}

// conv, batch norm, ReLU, pool; then what tail() has.
constexpr Shape kPooled{1, 5, 5, 4};
void add_tail(Net& net) {
  net.add("conv2", conv2d(5, 6, 3, 2, 1));
  net.add("relu2", ReLU{});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{6 * 3 * 2, 4});
}
Net whole_network() {
  Net net("whole", {1, 3, 10, 9});
  net.add("conv1", conv2d(3, 5, 3, 1, 1));
  net.add("bn", BatchNorm2d{5});
  net.add("relu1", ReLU{});
  net.add("pool", max_pool2d(2, 2));
  add_tail(net);
  net.weights = random_weights(net, 3);
  return net;
}

// Σ over a channel's positions of W · x, for one input.
double channel_votes(const Tensor& w, const Tensor& x, int64_t channel) {
  const int64_t plane = x.dim(2) * x.dim(3);
  double sum = 0;
  for (int64_t i = channel * plane; i < (channel + 1) * plane; ++i) sum += double(w[i]) * double(x[i]);
  return sum;
}

TEST_P(ActiveSubgraph, AddsWhatTheEtalonsDo) {
  const Net net = whole_network();
  Net tail("tail", kPooled);
  add_tail(tail);
  tail.weights = random_weights(tail, 4);
  tail.fill([&](const Parameter& p, int64_t i) {
    return net.weights.values(net.find(tail.nodes[p.node].name), p.name)[size_t(i)];
  });
  const Tensor x = random_input(net, 3);
  const Unit unit{net.find("fc"), 2};
  const Subgraph g = active_subgraph(ctx, net, net.input, x.data(), unit);
  ASSERT_EQ(g.layers.size(), 4u);
  const EtalonMaps all = etalons(ctx, net, x, {"2", "", Score::logit}, {});
  Tensor pooled({1, kPooled.c, kPooled.h, kPooled.w});
  for (int64_t c = 0; c < kPooled.c; ++c)
    std::copy(g.layers[1].vertices[size_t(c)].map.begin(), g.layers[1].vertices[size_t(c)].map.end(),
              pooled.data() + c * kPooled.h * kPooled.w);
  const EtalonMaps late = etalons(ctx, tail, pooled, {"2", "", Score::logit}, {});
  const double size = all.inputs[0].checks[0].magnitude;
  for (int64_t c = 0; c < 3; ++c)
    EXPECT_NEAR(g.layers[0].vertices[size_t(c)].contribution, channel_votes(all.maps, x, c), 1e-5 * size);
  for (int64_t c = 0; c < kPooled.c; ++c)
    EXPECT_NEAR(g.layers[1].vertices[size_t(c)].contribution, channel_votes(late.maps, pooled, c), 1e-5 * size);
  EXPECT_NEAR(g.value, all.inputs[0].checks[0].score, 1e-5 * size);
  EXPECT_NEAR(all.inputs[0].checks[0].score, late.inputs[0].checks[0].score, 1e-5 * size);
  for (const SubgraphEdge& e : g.edges[2]) {
    EXPECT_EQ(e.to, 2);
    EXPECT_EQ(e.contribution, g.layers[2].vertices[size_t(e.from)].contribution);
  }
}

// A unit at a place of a map, and one that is a whole channel.
TEST_P(ActiveSubgraph, OfHiddenUnits) {
  const Net net = whole_network();
  const Tensor x = random_input(net, 4);
  for (const char* layer : {"conv2:1:2,1", "conv2:1"}) {
    const EtalonMaps maps = etalons(ctx, net, x, {"max", layer, Score::logit}, {});
    const Subgraph g = active_subgraph(ctx, net, net.input, x.data(), maps.inputs[0].explained.units[0]);
    const EtalonCheck& check = maps.inputs[0].checks[0];
    double sum = 0;
    for (const auto& v : g.layers[0].vertices) sum += v.contribution;
    EXPECT_NEAR(sum, check.dot, 1e-5 * check.magnitude) << layer;
    EXPECT_NEAR(g.value, check.score, 1e-5 * check.magnitude) << layer;
    EXPECT_GT(subgraph_picture(g, layer).width(), 400);
  }
}

TEST(ActiveSubgraphRefusal, NamesTheLayer) {
  Context ctx;
  Net net("mean", {1, 3, 8, 8});
  net.add("conv", conv2d(3, 4, 3, 1, 1));
  net.add("mean", AdaptiveAvgPool2d{});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{4, 3});
  net.weights = random_weights(net, 1);
  const Tensor x = random_input(net, 1);
  expect_error("mean (", [&] { active_subgraph(ctx, net, net.input, x.data(), {net.find("fc"), 0}); });
  Net big("big", {1, 600, 1, 1});
  big.add("fc", Linear{600, 400});
  big.weights = random_weights(big, 1);
  const Tensor many = random_input(big, 1);
  expect_error("too large", [&] { active_subgraph(ctx, big, big.input, many.data(), {1, 0}); });
}

// ---- the picture

// Pixels that are clearly of the colour of what adds (red) and of what takes away (blue).
struct Coloured {
  int red = 0, blue = 0;
};
Coloured coloured(const Image& image) {
  Coloured out;
  for (size_t i = 0; i < image.pixels.size(); i += 3) {
    const int r = image.pixels[i], b = image.pixels[i + 2];
    out.red += r > b + 80;
    out.blue += b > r + 80;
  }
  return out;
}

// The smallest box around all pixels that differ: width and height.
std::pair<int, int> extent_of_difference(const Image& a, const Image& b) {
  EXPECT_EQ(a.width, b.width);
  EXPECT_EQ(a.height, b.height);
  int left = a.width, right = -1, top = a.height, bottom = -1;
  for (int y = 0; y < a.height; ++y)
    for (int x = 0; x < a.width; ++x) {
      const size_t at = 3 * (size_t(y) * size_t(a.width) + size_t(x));
      if (std::equal(a.pixels.begin() + int64_t(at), a.pixels.begin() + int64_t(at) + 3, b.pixels.begin() + int64_t(at)))
        continue;
      left = std::min(left, x), right = std::max(right, x), top = std::min(top, y), bottom = std::max(bottom, y);
    }
  return {right - left + 1, bottom - top + 1};
}

TEST(SubgraphPicture, ShowsSignsStrengthAndFrozenUnits) {
  Context ctx;
  const Net net = small_network();
  const Subgraph g = active_subgraph(ctx, net, net.input, kPoint, {3, 0});
  const Image picture = pixels(subgraph_picture(g, "title"));
  Subgraph positive = g;
  for (auto& edges : positive.edges)
    for (SubgraphEdge& e : edges) e.contribution = std::abs(e.contribution);
  for (auto& layer : positive.layers)
    for (auto& v : layer.vertices) v.contribution = std::abs(v.contribution);
  const Coloured all = coloured(picture), red = coloured(pixels(subgraph_picture(positive, "title")));
  EXPECT_GT(all.blue, 3 * red.blue) << "the legend alone is blue there";
  EXPECT_GT(red.red, all.red);
  Subgraph weaker = g;
  weaker.edges[1].pop_back();
  EXPECT_LT(coloured(pixels(subgraph_picture(weaker, "title"))).blue, all.blue) << "a line less";
  // A unit that freezes changes its disc, its number's shade and the count above its layer, not the lines.
  Subgraph thawed = g;
  thawed.layers[1].vertices[1].active = 0.5;
  const auto [width, height] = extent_of_difference(picture, pixels(subgraph_picture(thawed, "title")));
  EXPECT_LT(width, 120);
  EXPECT_GT(height, 10);
}

// Hundreds of vertices stay apart: lanes beside each other.
TEST(SubgraphPicture, OfManyVertices) {
  Subgraph g;
  g.layers.resize(3);
  g.layers[0] = {.name = "x", .height = 1, .width = 1, .vertices = {{.active = 1, .contribution = 1, .map = {1}}}};
  g.layers[1] = {.name = "many", .height = 1, .width = 1, .vertices = {}};
  g.layers[2] = g.layers[0];
  g.edges.resize(2);
  for (int64_t i = 0; i < 240; ++i) {
    g.layers[1].vertices.push_back({.active = double(i % 2), .contribution = 1, .map = {1}});
    g.edges[0].push_back({0, i, 1});
  }
  const Image picture = pixels(subgraph_picture(g, "many"));
  for (auto& v : g.layers[1].vertices) v.active = 0;
  const int discs = coloured(picture).red - coloured(pixels(subgraph_picture(g, "many"))).red;
  EXPECT_GT(discs, 120 * 40) << "120 discs of at least 40 pixels";
  EXPECT_LT(picture.height, 1000);
}

}  // namespace
}  // namespace switchback::test
