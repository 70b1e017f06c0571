// The census of a data set's linear regions, against naive counts.
#include "viz/methods/regions.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <random>

#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/random_network.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/inspect.h"
#include "viz/methods/state_bytes.h"

namespace switchback::test {
namespace {

// ---- the hash

TEST(Hash128, IsMurmurHash3) {  // values of the reference implementation
  const auto hash = [](std::string_view text) { return hash128(text.data(), text.size()); };
  EXPECT_EQ(hash(""), (Hash128{0, 0}));
  EXPECT_EQ(hash("hello"), (Hash128{0xcbd8a7b341bd9b02, 0x5b1e906a48ae1d19}));
  EXPECT_EQ(hash("The quick brown fox jumps over the lazy dog"), (Hash128{0xe34bbc7bbc071b6c, 0x7a433ca9c49a9347}));
}

// ---- the census

void fill_integers(Net& net, uint64_t seed) {
  std::mt19937_64 rng(seed);
  net.fill([&](const Parameter&, int64_t) { return float(int64_t(rng() % 5) - 2); });
}

Tensor integers(Dims dims, uint64_t seed) {
  std::mt19937_64 rng(seed);
  Tensor t(std::move(dims));
  for (float& v : t.values()) v = float(int64_t(rng() % 7) - 3);
  return t;
}

// Gates with a padded last word (40 channels), a clipped ReLU, overlapping pools with padding, a pool behind a ReLU and
// one before it, and smooth layers.
Net busy_network() {
  Net net("busy", {1, 2, 7, 6});
  net.add("conv", conv2d(2, 40, 3, 1, 1));
  net.add("relu6", ReLU{6.f});
  net.add("pool", max_pool2d(3, 2, 1));
  net.add("conv2", conv2d(40, 5, 1));
  net.add("pool2", max_pool2d(2, 1));
  net.add("drop", Dropout{});
  net.add("relu", ReLU{});
  net.add("conv3", conv2d(5, 5, 1));
  net.add("pool3", max_pool2d(2, 1));
  net.add("relu3", ReLU{});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{5 * 2, 3});
  net.add("softmax", Softmax{});
  fill_integers(net, 7);
  return net;
}

RegionReport census_of(Context& ctx, const Net& net, const Tensor& x, const std::vector<int>& labels,
                       int64_t classes, int64_t batch, Tensor* logits = nullptr) {
  const Shape image{1, x.dim(1), x.dim(2), x.dim(3)};
  RunOptions options;
  options.batch = batch;
  RegionCensus census(ctx, net, image, classes, options, x.dim(0));
  for (int64_t first = 0; first < x.dim(0); first += census.batch()) {
    const int64_t n = std::min(census.batch(), x.dim(0) - first);
    Tensor values = census.add(x.data() + first * image.item(), std::span(labels).subspan(size_t(first), size_t(n)));
    if (logits) *logits = std::move(values);
  }
  return census.report();
}

// States of one layer, [items][units], from the values that it reads: no tape, no packed bits.
using States = std::vector<std::vector<int>>;

States gate_states(const Tensor& s, float clip) {
  const int64_t items = s.dim(0), units = s.count() / items;
  const std::vector<int> closed(size_t(units), 0);
  States out(size_t(items), closed);
  for (int64_t i = 0; i < items; ++i)
    for (int64_t u = 0; u < units; ++u) out[size_t(i)][size_t(u)] = s[i * units + u] >= clip ? 2 : s[i * units + u] > 0;
  return out;
}

// [N,C,H,W] -> offsets of the first maximum in each window; units in NCHW order, as everywhere in this file.
States switch_states(const Tensor& x, const MaxPool2d& pool) {
  const Shape in{x.dim(0), x.dim(1), x.dim(2), x.dim(3)}, out = output_shape(pool, in);
  States states(size_t(in.n));
  for (int64_t n = 0; n < out.n; ++n)
    for (int64_t c = 0; c < out.c; ++c)
      for (int64_t y = 0; y < out.h; ++y)
        for (int64_t q = 0; q < out.w; ++q) {
          int best = -1;
          float largest = 0;
          for (int64_t ky = 0; ky < pool.kernel_h; ++ky)
            for (int64_t kx = 0; kx < pool.kernel_w; ++kx) {
              const int64_t row = y * pool.stride_h - pool.pad_top + ky, col = q * pool.stride_w - pool.pad_left + kx;
              if (row < 0 || row >= in.h || col < 0 || col >= in.w) continue;
              const float v = x[((n * in.c + c) * in.h + row) * in.w + col];
              if (best < 0 || v > largest) best = int(ky * pool.kernel_w + kx), largest = v;
            }
          states[size_t(n)].push_back(best);
        }
  return states;
}

// What the census should find of busy_network, layer by layer in the order of nodes.
std::vector<States> naive_states(const Net& net, const Tensor& x) {
  Context cpu;
  cpu.conv = ConvAlgorithm::direct;
  const auto value = [&](const char* node) { return activations(cpu, net, x, net.find(node)); };
  const auto pool = [&](const char* node) { return std::get<MaxPool2d>(net.nodes[size_t(net.find(node))].layer); };
  States relu6 = gate_states(value("conv"), 6), relu = gate_states(value("pool2"), kNoClip),
         relu3 = gate_states(value("pool3"), kNoClip);
  States pool3 = switch_states(value("conv3"), pool("pool3"));
  for (size_t i = 0; i < pool3.size(); ++i)  // relu3 alone reads pool3, and hides what it closes
    for (size_t u = 0; u < pool3[i].size(); ++u) pool3[i][u] *= relu3[i][u];
  return {relu6, switch_states(value("relu6"), pool("pool")), switch_states(value("conv2"), pool("pool2")), relu, pool3,
          relu3};
}

PatternStatistics naive_statistics(const States& states, const std::vector<int>& labels, int64_t classes) {
  std::map<std::vector<int>, std::map<int, int64_t>> patterns;
  for (size_t i = 0; i < states.size(); ++i) ++patterns[states[i]][labels[i]];
  PatternStatistics s;
  s.distinct = int64_t(patterns.size());
  s.distinct_of_class.assign(size_t(classes), 0);
  for (const auto& [pattern, counts] : patterns) {
    int64_t inputs = 0;
    for (const auto& [label, count] : counts) ++s.distinct_of_class[size_t(label)], inputs += count;
    s.largest = std::max(s.largest, inputs);
    s.mixed += counts.size() > 1;
  }
  const auto mean = [&](const std::function<bool(int, int)>& chosen) {  // the loop over all pairs
    int64_t sum = 0, pairs = 0;
    for (size_t i = 0; i < states.size(); ++i)
      for (size_t j = i + 1; j < states.size(); ++j) {
        if (!chosen(labels[i], labels[j])) continue;
        ++pairs;
        for (size_t u = 0; u < states[i].size(); ++u) sum += states[i][u] != states[j][u];
      }
    return pairs ? double(sum) / double(pairs) : std::nan("");
  };
  for (size_t u = 0; u < states[0].size(); ++u) {
    const auto same = [&](const std::vector<int>& of_input) { return of_input[u] == states[0][u]; };
    s.constant += std::all_of(states.begin(), states.end(), same);
  }
  s.within = mean([](int a, int b) { return a == b; });
  s.between = mean([](int a, int b) { return a != b; });
  for (int64_t k = 0; k < classes; ++k) s.within_class.push_back(mean([&](int a, int b) { return a == k && b == k; }));
  return s;
}

void expect_same(double a, double b, const std::string& what) {
  if (std::isnan(a) || std::isnan(b))
    EXPECT_EQ(std::isnan(a), std::isnan(b)) << what;
  else
    EXPECT_DOUBLE_EQ(a, b) << what;
}

void expect_equal(const PatternStatistics& got, const PatternStatistics& want, const std::string& what) {
  EXPECT_EQ(got.distinct, want.distinct) << what;
  EXPECT_EQ(got.largest, want.largest) << what;
  EXPECT_EQ(got.mixed, want.mixed) << what;
  EXPECT_EQ(got.constant, want.constant) << what;
  EXPECT_EQ(got.distinct_of_class, want.distinct_of_class) << what;
  expect_same(got.within, want.within, what + " within");
  expect_same(got.between, want.between, what + " between");
  ASSERT_EQ(got.within_class.size(), want.within_class.size()) << what;
  for (size_t k = 0; k < want.within_class.size(); ++k) expect_same(got.within_class[k], want.within_class[k], what);
}

class Regions : public OnDevice {
 protected:
  void SetUp() override {
    OnDevice::SetUp();
    if (!ctx.gpu) ctx.conv = ConvAlgorithm::direct;  // integers stay exact
  }
};
SWITCHBACK_ON_ALL_DEVICES(Regions);

TEST_P(Regions, CountsAndDistancesAreThoseOfANaiveLoopOverPairs) {
  const Net net = busy_network();
  Tensor x = integers({9, 2, 7, 6}, 3);
  const int64_t item = 2 * 7 * 6;  // three equal images: of class 0 twice, of class 3 once
  std::copy_n(x.data() + 1 * item, item, x.data() + 3 * item);
  std::copy_n(x.data() + 1 * item, item, x.data() + 6 * item);
  const std::vector<int> labels{0, 0, 0, 0, 1, 3, 3, 3, 3};  // a class of one image, and two of none
  const RegionReport report = census_of(ctx, net, x, labels, 5, 4);

  const std::vector<States> want = naive_states(net, x);
  ASSERT_EQ(report.layers.size(), want.size());
  States all(9);
  for (size_t l = 0; l < want.size(); ++l) {
    const RegionLayer& layer = report.layers[l];
    EXPECT_EQ(layer.units, int64_t(want[l][0].size())) << layer.name;
    expect_equal(report.of_layer[l], naive_statistics(want[l], labels, 5), layer.name);
    for (size_t i = 0; i < 9; ++i) all[i].insert(all[i].end(), want[l][i].begin(), want[l][i].end());
  }
  expect_equal(report.total, naive_statistics(all, labels, 5), "all layers");
  EXPECT_EQ(report.total.distinct, 7);
  EXPECT_EQ(report.total.largest, 3);
  EXPECT_EQ(report.total.mixed, 1);
  EXPECT_EQ(report.inputs, (std::vector<int64_t>{4, 1, 0, 4, 0}));
  EXPECT_EQ(report.layers[0].states, 3) << "a clipped ReLU";
  EXPECT_EQ(report.layers[1].states, 9) << "a 3x3 pool";
  EXPECT_TRUE(report.layers[1].switches && !report.layers[0].switches);
  EXPECT_EQ(report.not_counted, (std::vector<std::string>{"softmax (Softmax)"}));
}

TEST_P(Regions, HashesAreTheSameOnAllDevicesAndForAllBatches) {
  const Net net = busy_network();
  const Tensor x = integers({6, 2, 7, 6}, 11);
  const std::vector<int> labels{0, 0, 1, 1, 1, 2};
  Context cpu;
  cpu.conv = ConvAlgorithm::direct;
  Tensor want_logits;
  const RegionReport want = census_of(cpu, net, x, labels, 3, 6, &want_logits);
  for (const int64_t batch : {1, 4, 6}) {
    Tensor logits;
    const RegionReport got = census_of(ctx, net, x, labels, 3, batch, &logits);
    EXPECT_EQ(got.hashes, want.hashes) << "batch " << batch;
    expect_equal(got.total, want.total, "batch " + std::to_string(batch));
    EXPECT_EQ(logits[logits.count() - 1], want_logits[want_logits.count() - 1]) << "the last image's logits";
  }
  Tensor other = x.clone();
  other[3] += 40;  // another image, another region
  EXPECT_NE(census_of(ctx, net, other, labels, 3, 6).hashes[0], want.hashes[0]);
}

TEST_P(Regions, RandomNetworksHaveOneHashForEveryBatch) {
  for (const uint64_t seed : {1, 2, 3, 4, 5, 6}) {
    const Net net = random_network(seed, {.input = {1, 2, 9, 8}, .blocks = 3, .most_channels = 6});
    const Tensor x = random_input(net, seed, 3);
    const std::vector<int> labels{0, 1, 1};
    const RegionReport report = census_of(ctx, net, x, labels, 2, 1);
    EXPECT_EQ(report.hashes, census_of(ctx, net, x, labels, 2, 3).hashes) << seed;
    for (size_t l = 1; l < report.layers.size(); ++l)
      EXPECT_LT(net.find(report.layers[l - 1].name), net.find(report.layers[l].name)) << "in the order of nodes";
  }
}

TEST_P(Regions, LayersStandInTheOrderOfTheirNodes) {  // the plan runs relu_b before the pool whose ReLU comes last
  Net net("branches", {1, 1, 4, 4});
  const int pool = net.add("pool", max_pool2d(2, 2));
  net.add("conv_b", conv2d(1, 1, 2, 2), {0});
  const int relu_b = net.add("relu_b", ReLU{});
  const int relu_a = net.add("relu_a", ReLU{}, {pool});
  net.add("add", Add{}, {relu_a, relu_b});
  fill_integers(net, 2);
  const RegionReport report = census_of(ctx, net, integers({2, 1, 4, 4}, 4), {0, 0}, 1, 2);
  ASSERT_EQ(report.layers.size(), 3u);
  EXPECT_EQ(report.layers[0].name, "pool");
  EXPECT_EQ(report.layers[1].name, "relu_b");
  EXPECT_EQ(report.layers[2].name, "relu_a");
}

TEST_P(Regions, AGlobalMaxPoolIsAPoolOfTheWholeMap) {
  const auto network = [](Layer pool) {
    Net net("global", {1, 2, 5, 4});
    net.add("conv", conv2d(2, 3, 2));
    net.add("pool", std::move(pool));
    net.add("flatten", Flatten{});
    net.add("fc", Linear{3, 2});
    fill_integers(net, 5);
    return net;
  };
  const Tensor x = integers({7, 2, 5, 4}, 8);
  const std::vector<int> labels{0, 0, 0, 1, 1, 1, 1};
  const RegionReport global = census_of(ctx, network(GlobalMaxPool{}), x, labels, 2, 3);
  const RegionReport pool = census_of(ctx, network(MaxPool2d{.kernel_h = 4, .kernel_w = 3}), x, labels, 2, 3);
  ASSERT_EQ(global.layers.size(), 1u);
  EXPECT_TRUE(global.layers[0].switches);
  EXPECT_EQ(global.layers[0].states, 12);
  EXPECT_EQ(global.hashes, pool.hashes);
  EXPECT_GT(global.total.distinct, 1);
  expect_equal(global.total, pool.total, "all layers");
}

TEST_P(Regions, SlopesAndRampsHaveRegionsToo) {
  Net net("slopes", {1, 2, 5, 4});
  net.add("conv", conv2d(2, 3, 2));
  net.add("leaky", LeakyReLU{});
  net.add("conv2", conv2d(3, 2, 1));
  net.add("clip", Clip{-2, 3});
  fill_integers(net, 5);
  const RegionReport report = census_of(ctx, net, integers({6, 2, 5, 4}, 8), {0, 0, 0, 0, 0, 0}, 1, 3);
  ASSERT_EQ(report.layers.size(), 2u);
  EXPECT_EQ(report.layers[0].states, 2);
  EXPECT_EQ(report.layers[1].states, 3);
  EXPECT_GT(report.total.distinct, 1);
}

// Classes that go on in the next part, whole classes in one part, parts of one class alone, and empty ones.
TEST_P(Regions, CountsOfPartsJoinToThoseOfAll) {
  const Net net = busy_network();
  const Tensor x = integers({12, 2, 7, 6}, 5);
  const std::vector<int> labels{0, 0, 0, 1, 1, 1, 1, 3, 4, 4, 5, 5};
  const RegionReport all = census_of(ctx, net, x, labels, 6, 4);
  for (const std::vector<int64_t>& cuts : {std::vector<int64_t>{5}, {3, 7}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {0, 2, 2, 9, 12}}) {
    RegionCounts joined;
    for (size_t k = 0; k <= cuts.size(); ++k) {
      const int64_t first = k == 0 ? 0 : cuts[k - 1], last = k == cuts.size() ? 12 : cuts[k];
      RegionCensus census(ctx, net, {1, 2, 7, 6}, 6, {}, 12);
      if (last > first)
        census.add(x.data() + first * 84, std::span(labels).subspan(size_t(first), size_t(last - first)));
      std::string bytes = state_bytes(census.counts());
      RegionCounts next;
      StateReader read(bytes);
      read(next);
      read.end();
      joined.merge(std::move(next));
    }
    const RegionReport parts = joined.report();
    EXPECT_EQ(parts.inputs, all.inputs);
    EXPECT_EQ(parts.hashes, all.hashes);
    for (size_t l = 0; l <= all.layers.size(); ++l) {
      const PatternStatistics &a = l == all.layers.size() ? all.total : all.of_layer[l],
                              &b = l == all.layers.size() ? parts.total : parts.of_layer[l];
      EXPECT_EQ(a.distinct, b.distinct);
      EXPECT_EQ(a.mixed, b.mixed);
      EXPECT_EQ(a.largest, b.largest);
      EXPECT_EQ(a.constant, b.constant);
      EXPECT_EQ(a.distinct_of_class, b.distinct_of_class);
      EXPECT_EQ(a.within, b.within);
      EXPECT_EQ(a.between, b.between);
      for (size_t k = 0; k < 6; ++k)
        EXPECT_TRUE(a.within_class[k] == b.within_class[k] || (std::isnan(a.within_class[k]) && std::isnan(b.within_class[k])));
    }
  }
}

TEST_P(Regions, MemoryHoldsTheCensusToo) {
  const Net net = busy_network();
  RunOptions options;
  options.memory = 1 << 10;
  expect_error("counting the regions", [&] { RegionCensus(ctx, net, net.input, 2, options, 3); });
  options.memory = 1 << 20;
  EXPECT_EQ(RegionCensus(ctx, net, net.input, 2, options, 3).batch(), 3);
  const int64_t batch = RegionCensus(ctx, net, net.input, 2, options, 100000).batch();
  // Words of one pattern, and of the counts of the first class, another one and of all, two for each state but one of a bit or of a switch:
  // relu6 7x6 pixels of 2 words, pool 4x3x40 places, pool2, relu, pool3 and relu3 of 5 channels on 3x2 and 2x1 pixels.
  const size_t pattern = 84 * 2 + 480 + 30 + 6 + 10 + 2;
  const size_t counts = 3 * (84 * 32 * 2 + 480 * 8 + 30 * 3 + 6 * 32 + 10 * 3 + 2 * 32);
  const PlanOptions plan{.observe = {net.find("fc")}};
  const size_t bytes = run_bytes(ctx, net, net.input, plan, batch) + 4 * (size_t(batch) * pattern + counts);
  EXPECT_LE(bytes, options.memory);
  EXPECT_GT(bytes, options.memory * 8 / 10) << "most of it is used";
}

TEST(RegionsErrors, NetworksWithoutRegionsAndClassesOutOfOrder) {
  Context ctx;
  Net smooth("smooth", {1, 1, 4, 4});
  smooth.add("conv", conv2d(1, 2, 3));
  smooth.add("softmax", Softmax{});
  smooth.weights = random_weights(smooth, 1);
  expect_error("neither ReLUs nor max pools", [&] { RegionCensus(ctx, smooth, smooth.input, 2, {}, 1); });
  const Net net = busy_network();
  RegionCensus census(ctx, net, net.input, 2, {}, 2);
  const Tensor x = integers({2, 2, 7, 6}, 3);
  expect_error(
      "class 0 of 2 after class 1",
      [&] {
        census.add(x.data(), std::vector<int>{1, 0});
      },
      false);
  expect_error(
      "class 2 of 2", [&] { census.add(x.data(), std::vector<int>{2}); }, false);
  expect_error("channels", [&] { RegionCensus(ctx, net, {1, 3, 7, 6}, 2, {}, 2); });
}

}  // namespace
}  // namespace switchback::test
