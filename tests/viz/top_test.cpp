// The places of a data set where channels answer most, against whole activations and whole backward passes; and the
// command `switchback top`.
#include "viz/methods/top.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <numeric>

#include "engine/files/npy.h"
#include "engine/zoo/zoo.h"
#include "tests/support/cli_run.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/dump.h"
#include "viz/methods/inspect.h"

namespace switchback::test {
namespace {

using nlohmann::json;

// Images that differ, the third and the fifth equal.
Tensor photos(int64_t n, Shape image) {
  Tensor x({n, image.c, image.h, image.w});
  for (int64_t i = 0; i < n; ++i)
    for (int64_t e = 0; e < image.item(); ++e)
      x[i * image.item() + e] = std::sin(0.37f * float(e) + float(i == 4 ? 2 : i)) +
                                0.2f * std::cos(0.011f * float(e * (i == 4 ? 3 : i + 1)));
  return x;
}

Net small_lenet() {
  Net net = make_network("lenet");
  net.weights = random_weights(net, 3);
  return net;
}

class VizTop : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(VizTop);

TEST_P(VizTop, ListsAreThoseOfWholeActivations) {
  const Net net = small_lenet();
  const Tensor x = photos(7, {1, 1, 28, 28});
  const std::vector<int> nodes = {net.find("conv2"), net.find("relu1"), net.output()};
  for (const int64_t batch : {3, 7}) {
    TopOptions options;
    options.keep = 4, options.batch = batch;
    TopSearch search(ctx, net, {1, 1, 28, 28}, nodes, options, 7);
    for (int64_t first = 0; first < 7; first += search.batch()) {
      std::vector<int64_t> numbers(size_t(std::min(search.batch(), 7 - first)));
      std::iota(numbers.begin(), numbers.end(), 100 + first);
      search.add(x.data() + first * 784, numbers);
    }
    for (size_t k = 0; k < nodes.size(); ++k) {
      const Tensor values = activations(ctx, net, x, nodes[k]);
      const int64_t channels = values.dim(1), w = values.dims().size() == 4 ? values.dim(3) : 1;
      const int64_t places = values.count() / values.dim(0) / channels;
      ASSERT_EQ(search.channels(k), channels);
      for (int64_t c = 0; c < channels; ++c) {
        std::vector<TopPlace> want;
        for (int64_t i = 0; i < 7; ++i) {
          const float* map = values.data() + (i * channels + c) * places;
          const int64_t at = std::max_element(map, map + places) - map;
          want.push_back({100 + i, map[at], at / w, at % w});
        }
        std::stable_sort(want.begin(), want.end(),
                         [](const TopPlace& a, const TopPlace& b) { return a.value > b.value; });
        const TopList& got = search.top(k, c);
        ASSERT_EQ(got.size(), 4u);
        for (size_t r = 0; r < 4; ++r) {
          EXPECT_EQ(got[r].image, want[r].image) << k << " " << c << " " << r;
          EXPECT_EQ(got[r].value, want[r].value);
          EXPECT_EQ(got[r].row, want[r].row);
          EXPECT_EQ(got[r].col, want[r].col);
        }
      }
    }
  }
}

// Lowest values, and relevances: products of every value and the gradient of a class's score there.
TEST_P(VizTop, LowestAndRelevancesAreThoseOfWholeMaps) {
  const Net net = small_lenet();
  const Shape image{1, 1, 28, 28};
  const Tensor x = photos(5, image);
  const std::vector<int> nodes = {net.find("conv2"), net.find("fc1")};
  const std::vector<int> labels = {3, 0, 9, 9, 1};
  for (const auto& [by, order, labelled] : {std::tuple{TopBy::activation, TopOrder::lowest, false},
                                            {TopBy::relevance, TopOrder::highest, true},
                                            {TopBy::relevance, TopOrder::lowest, false}}) {
    TopOptions options;
    options.keep = 3, options.batch = 2, options.by = by, options.order = order;
    TopSearch search(ctx, net, image, nodes, options, 5);
    std::map<int, std::vector<std::vector<float>>> ranked;  // node -> image -> values
    NodeDump dump(ctx, net, image, Precision::fp32, true);
    for (int64_t i = 0; i < 5; ++i) {
      dump.forward(x.data() + i * 784);
      for (const int node : nodes) {
        const Tensor value = dump.value(node);
        ranked[node].emplace_back(value.data(), value.data() + value.count());
      }
      if (by == TopBy::activation) continue;
      const Tensor scores = dump.value(net.output());
      const int64_t best = std::max_element(scores.data(), scores.data() + 10) - scores.data();
      dump.gradients({net.output(), labelled ? labels[size_t(i)] : best}, Score::logit, scores, nodes,
                     [&](int node, const Tensor& gradient) {
                       for (int64_t e = 0; e < gradient.count(); ++e) ranked[node].back()[size_t(e)] *= gradient[e];
                     });
    }
    for (int64_t first = 0; first < 5; first += 2) {
      const size_t n = size_t(std::min<int64_t>(2, 5 - first));
      const std::vector<int64_t> numbers = {first, first + 1};
      search.add(x.data() + first * 784, {numbers.data(), n},
                 labelled ? std::span(labels).subspan(size_t(first), n) : std::span<const int>());
    }
    const float sign = order == TopOrder::highest ? 1 : -1;
    for (size_t k = 0; k < nodes.size(); ++k) {
      const int64_t channels = search.channels(k), places = int64_t(ranked[nodes[k]][0].size()) / channels;
      for (int64_t c = 0; c < channels; ++c) {
        std::vector<float> want;
        float largest = 0;
        for (const std::vector<float>& values : ranked[nodes[k]]) {
          const float* map = values.data() + c * places;
          want.push_back(sign * *std::max_element(map, map + places,
                                                  [&](float a, float b) { return sign * a < sign * b; }));
          for (int64_t p = 0; p < places; ++p) largest = std::max(largest, std::abs(map[p]));
        }
        std::sort(want.begin(), want.end(), std::greater<>());
        ASSERT_EQ(search.top(k, c).size(), 3u);
        for (size_t r = 0; r < 3; ++r) {
          const TopPlace& got = search.top(k, c)[r];
          EXPECT_NEAR(sign * got.value, want[r], 1e-5f * largest) << k << " " << c << " " << r;
          const int64_t place = got.row * std::lround(std::sqrt(double(places))) + got.col;  // of square maps
          EXPECT_NEAR(got.value, ranked[nodes[k]][size_t(got.image)][size_t(c * places + place)], 1e-5f * largest);
        }
      }
    }
  }
}

// A signal of the activation: the map of 1 times it, where no rule drops a negative one.
TEST_P(VizTop, SignalsMayBeActivations) {
  const Net net = small_lenet();
  const Shape image{1, 1, 28, 28};
  const Tensor x = photos(3, image);
  const std::vector<TopUnit> units = {{net.find("conv2"), 5, {{0, 1, 0, 0}, {2, 1, 3, 2}}}};
  std::map<std::pair<TopSignal, size_t>, std::vector<float>> maps;
  for (const TopSignal signal : {TopSignal::one, TopSignal::activation}) {
    TopOptions options;
    options.rule = kGradient, options.signal = signal;
    top_maps(
        ctx, net, image, units, [&](int64_t number, float* to) { std::copy_n(x.data() + number * 784, 784, to); },
        options, [&](size_t, size_t rank, const FieldBox& box, const float*, const float* map) {
          maps[{signal, rank}].assign(map, map + box.height * box.width);
        });
  }
  const Tensor values = activations(ctx, net, x, net.find("conv2"));
  for (size_t rank = 0; rank < 2; ++rank) {
    const TopPlace& place = units[0].top[rank];
    const float answer = values[((place.image * values.dim(1) + 5) * values.dim(2) + place.row) * values.dim(3) + place.col];
    const std::vector<float>&one = maps[{TopSignal::one, rank}], &by = maps[{TopSignal::activation, rank}];
    ASSERT_EQ(one.size(), by.size());
    for (size_t e = 0; e < one.size(); ++e) EXPECT_NEAR(by[e], answer * one[e], 1e-5 * std::abs(answer)) << rank;
  }
}

TEST_P(VizTop, MapsAreThePartsOfWholeOnesThatUnitsSee) {
  const Net net = small_lenet();
  const Shape image{1, 1, 28, 28};
  const Tensor x = photos(5, image);
  // Corners, borders and the middle, of two layers at once.
  std::vector<TopUnit> units = {{net.find("conv2"), 5, {{0, 1, 0, 0}, {3, 1, 3, 2}}},
                                {net.find("relu1"), 2, {{3, 1, 3, 4}, {1, 1, 7, 0}, {0, 1, 3, 4}}},
                                {net.find("conv2"), 7, {{4, 1, 2, 2}}}};
  for (const ReluRule rule : {kDeconv, kGradient}) {
    TopOptions options;
    options.rule = rule;
    options.batch = 2;
    int seen = 0;
    top_maps(
        ctx, net, image, units, [&](int64_t number, float* to) { std::copy_n(x.data() + number * 784, 784, to); },
        options,
        [&](size_t unit, size_t rank, const FieldBox& box, const float* pixels, const float* map) {
          ++seen;
          const TopUnit& u = units[unit];
          const TopPlace& place = u.top[rank];
          EXPECT_TRUE(std::equal(pixels, pixels + 784, x.data() + place.image * 784));
          TargetSpec target;
          target.layer = fmt::format("{}:{}:{},{}", net.nodes[u.node].name, u.channel, place.row, place.col);
          GradientOptions whole;
          whole.rule = rule;
          const Tensor want = gradient(ctx, net, batch_item(x, place.image), target, {}, whole).values;
          double largest = 0;
          for (const float v : want.values()) largest = std::max(largest, double(std::abs(v)));
          for (int64_t r = 0; r < 28; ++r)
            for (int64_t c = 0; c < 28; ++c) {
              const int64_t y = r - box.top, z = c - box.left;
              const bool inside = y >= 0 && y < box.height && z >= 0 && z < box.width;
              EXPECT_NEAR(want[r * 28 + c], inside ? map[y * box.width + z] : 0, 1e-5 * largest)
                  << target.layer << " " << r << " " << c;
            }
        });
    EXPECT_EQ(seen, 6);
  }
}

TEST_P(VizTop, ValuesThatAreNoNumbersAreNamed) {
  Net net = small_lenet();
  Tensor x = photos(2, {1, 1, 28, 28});
  x[784 + 5] = NAN;
  TopOptions options;
  TopSearch search(ctx, net, {1, 1, 28, 28}, {net.find("conv1")}, options, 2);
  const std::vector<int64_t> numbers = {40, 41};
  expect_error(
      "of conv1 is not a number in image 41", [&] { search.add(x.data(), numbers); }, false);
}

TEST(Top, PatchesCutOffAtABorderLieAtTheOtherSide) {
  const std::pair<int64_t, int64_t> whole{10, 12};
  EXPECT_EQ(place_in_field({.top = 5, .left = 5, .height = 10, .width = 12}, whole),
            (std::pair<int64_t, int64_t>{0, 0}));
  EXPECT_EQ(place_in_field({.top = 0, .left = 20, .height = 7, .width = 9}, whole),
            (std::pair<int64_t, int64_t>{3, 0}));
  EXPECT_EQ(place_in_field({.top = 3, .left = 0, .height = 10, .width = 9}, whole),
            (std::pair<int64_t, int64_t>{0, 3}));
}

// ---- the command

std::string digits(const TempFolder& folder) {
  for (const int d : {1, 3, 7}) {
    const std::string to = folder / "digits/" + std::to_string(d);
    std::filesystem::create_directories(to);
    std::filesystem::copy_file(digit(d), to + "/digit.png");
  }
  return folder / "digits";
}

TEST(CliTop, FigureArraysAndDocument) {
  const TempFolder folder;
  const std::string data = digits(folder);
  folder.put("digits/7/broken.png", "no image");
  const Outcome o = run_switchback({"top", data, "--model", "lenet", "--layer", "conv1,fc2", "--channels", "0,4",
                                    "--keep", "2", "--save", "png,npy", "--json", "-o", folder.path()});
  EXPECT_EQ(o.code, 1) << "the others are done";
  EXPECT_NE(o.err.find("broken.png"), std::string::npos) << o.err;
  const json d = o.json();
  EXPECT_EQ(d["images"], 3) << "the broken one is left out";
  ASSERT_EQ(d["units"].size(), 4u);
  const json& unit = d["units"][1];
  EXPECT_EQ(unit["layer"], "conv1");
  EXPECT_EQ(unit["channel"], 4);
  ASSERT_EQ(unit["top"].size(), 2u);
  EXPECT_GE(unit["top"][0]["value"].get<float>(), unit["top"][1]["value"].get<float>());
  const Tensor patches = read_npy(result(d, "conv1-channels0,4-keep2.npy")),
               maps = read_npy(result(d, "conv1-channels0,4-keep2.maps.npy"));
  EXPECT_EQ(patches.dims(), (Dims{2, 2, 1, 5, 5})) << "conv1 sees 5x5 pixels";
  EXPECT_EQ(maps.dims(), patches.dims());
  // Of a first layer the map is the filter, wherever it answers, and its answer is their product.
  const Tensor filter = read_npy(result(
      succeed_json({"filters", "--model", "lenet", "--layer", "conv1", "--save", "npy", "--json", "-o", folder.path()}),
      ".npy"));
  for (int64_t k = 0; k < 2; ++k)
    for (int64_t e = 0; e < 25; ++e) EXPECT_FLOAT_EQ(maps[(2 + k) * 25 + e], filter[4 * 25 + e]) << k << " " << e;
  EXPECT_EQ(read_npy(result(d, "fc2-channels0,4-keep2.npy")).dims(), (Dims{2, 2, 1, 28, 28}));
  EXPECT_FALSE(bytes_of(result(d, "conv1-channels0,4-keep2.png")).empty());
  // The weakest of three images is not among the first two of any channel twice.
  for (const json& u : d["units"]) EXPECT_NE(u["top"][0]["path"], u["top"][1]["path"]);
}

TEST(CliTop, RelevanceOfLabels) {
  const TempFolder folder;
  const json d = succeed_json({"top", digits(folder), "--model", "lenet", "--layer", "conv2", "--by", "relevance", "--target",
                               "label", "--order", "lowest", "--keep", "2", "--signal", "activation", "--json", "-o",
                               folder.path()});
  EXPECT_EQ(d["by"], "relevance");
  EXPECT_EQ(d["order"], "lowest");
  EXPECT_EQ(d["signal"], "activation");
  for (const json& unit : d["units"])
    EXPECT_LE(unit["top"][0]["value"].get<float>(), unit["top"][1]["value"].get<float>());
  EXPECT_FALSE(bytes_of(result(d, ".png")).empty());
}

TEST(CliTop, WhatCannotBeIsSaid) {
  const TempFolder folder;
  const std::string data = digits(folder);
  const auto fails = [&](std::vector<std::string> more, const std::string& part) {
    std::vector<std::string> arguments = {"top", data, "--model", "lenet", "-o", folder / "out"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome o = run_switchback(arguments);
    EXPECT_EQ(o.code, 2) << o.line;
    EXPECT_NE(o.err.find(part), std::string::npos) << o.err;
  };
  fails({}, "--layer is missing");
  fails({"--layer", "conv9"}, "conv9");
  fails({"--layer", "conv1", "--channels", "99"}, "99");
  fails({"--layer", "conv1", "--keep", "0"}, "--keep 0 is out of range");
  fails({"--layer", "conv1", data}, "one data set");
  EXPECT_FALSE(std::filesystem::exists(folder / "out/digits.top-conv1.png"));
}

}  // namespace
}  // namespace switchback::test
