// How values are distributed over a data set, against sums over whole activations; and the command.
#include "viz/methods/distribution.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <random>

#include "engine/files/npy.h"
#include "engine/zoo/zoo.h"
#include "tests/support/cli_run.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/inspect.h"

namespace switchback::test {
namespace {

using nlohmann::json;

std::vector<float> normals(size_t n, float shift) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(random) + shift;
  return values;
}

TEST(ValueSketch, QuantilesAreWithinTheStatedError) {
  std::vector<float> values = normals(5000, 0.5f);
  values.insert(values.end(), {0, 0, -0.f, 1e-30f, 3e38f, -3e38f});
  ValueSketch whole, odd, even;
  for (size_t i = 0; i < values.size(); ++i) whole.add(values[i]), (i % 2 ? odd : even).add(values[i]);
  odd.merge(even);
  std::sort(values.begin(), values.end());
  for (double share = 0.01; share < 1; share += 0.01) {
    const double exact = values[size_t(std::ceil(share * double(values.size()))) - 1];
    EXPECT_NEAR(whole.quantile(share), exact, whole.error() * std::abs(exact) + 1e-7) << share;
    EXPECT_EQ(odd.quantile(share), whole.quantile(share)) << "however it was merged";
  }
  EXPECT_TRUE(std::isnan(ValueSketch().quantile(0.5)));
}

TEST(ValueSketch, HistogramsHoldAllThatLiesInside) {
  ValueSketch sketch;
  for (const float v : normals(4000, 0)) sketch.add(v);
  for (int i = 0; i < 500; ++i) sketch.add(0);
  const std::vector<double> counts = sketch.histogram(-8, 8, 64, 500);
  double sum = 0, left = 0;
  for (size_t b = 0; b < 64; ++b) sum += counts[b], left += b < 32 ? counts[b] : 0;
  EXPECT_NEAR(sum, 4000, 1e-6) << "the 500 zeros are left out";
  EXPECT_NEAR(left, 2000, 100);
}

TEST(ValueSketch, WassersteinOfAShiftIsTheShift) {
  ValueSketch a, b, empty;
  for (const float v : normals(4000, 2)) a.add(v), b.add(v + 0.25f);
  EXPECT_NEAR(wasserstein1(a, b), 0.25, 0.01);
  EXPECT_EQ(wasserstein1(a, a), 0);
  EXPECT_EQ(wasserstein1(a, b), wasserstein1(b, a));
  EXPECT_TRUE(std::isnan(wasserstein1(a, empty)));
}

class VizDistribution : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(VizDistribution);

TEST_P(VizDistribution, StatisticsAreThoseOfWholeActivations) {
  Net net = make_network("lenet");
  net.weights = random_weights(net, 3);
  const int64_t images = 7;
  Tensor x({images, 1, 28, 28});
  for (int64_t e = 0; e < x.count(); ++e) x[e] = std::sin(0.37f * float(e) + float(e / 784));
  const std::vector<int> nodes = {net.find("relu1"), net.find("conv2"), net.output()}, labels = {0, 2, 2, 0, 1, 2, 0};
  std::vector<std::vector<double>> first;
  for (const int64_t batch : {7, 3}) {
    RunOptions options;
    options.batch = batch;
    Distribution distribution(ctx, net, {1, 1, 28, 28}, nodes, 4, options, images);
    for (int64_t i = 0; i < images; i += distribution.batch()) {
      const size_t n = size_t(std::min(distribution.batch(), images - i));
      std::vector<int64_t> numbers(n);
      std::iota(numbers.begin(), numbers.end(), i);
      distribution.add(x.data() + i * 784, numbers, std::span(labels).subspan(size_t(i), n));
    }
    std::vector<std::vector<double>> all;
    for (size_t k = 0; k < nodes.size(); ++k) {
      const Tensor values = activations(ctx, net, x, nodes[k]);
      const int64_t channels = values.dim(1), places = values.count() / images / channels;
      const std::vector<ChannelStatistics> of_channels = distribution.channels(k);
      ASSERT_EQ(int64_t(of_channels.size()), channels);
      for (int64_t c = 0; c < channels; ++c) {
        const ChannelStatistics& got = of_channels[size_t(c)];
        std::vector<double> seen, positive(4, 0);
        int64_t zeros = 0;
        for (int64_t i = 0; i < images; ++i)
          for (int64_t p = 0; p < places; ++p) {
            const float v = values[(i * channels + c) * places + p];
            seen.push_back(v), zeros += v == 0;
            positive[size_t(labels[size_t(i)])] += std::max(v, 0.f);
          }
        double mean = 0, m2 = 0, m3 = 0;
        for (const double v : seen) mean += v / double(seen.size());
        for (const double v : seen) m2 += (v - mean) * (v - mean), m3 += std::pow(v - mean, 3);
        EXPECT_EQ(got.count, int64_t(seen.size()));
        EXPECT_EQ(got.zeros, zeros);
        EXPECT_EQ(got.most, *std::max_element(seen.begin(), seen.end()));
        EXPECT_EQ(got.dead(), got.most <= 0);
        EXPECT_NEAR(got.mean, mean, 1e-12 * (1 + std::abs(mean)));
        EXPECT_NEAR(got.m2, m2, 1e-9 * (1 + m2));
        EXPECT_NEAR(got.m3, m3, 1e-9 * (1 + std::pow(m2, 1.5)));
        const double counts[] = {3, 1, 3, 1};  // the fourth class has none
        for (size_t l = 0; l < 4; ++l) {
          positive[l] /= counts[l] * double(places);
          EXPECT_NEAR(got.positive[l], positive[l], 1e-9 * (1 + positive[l]));
        }
        const size_t best = size_t(std::max_element(positive.begin(), positive.end()) - positive.begin());
        const double others = (positive[0] + positive[1] + positive[2] - positive[best]) / 2;
        if (positive[best] > 0) {
          EXPECT_NEAR(got.selectivity(), (positive[best] - others) / (positive[best] + others), 1e-6);
          EXPECT_EQ(size_t(got.selective_class()), best);
        } else {
          EXPECT_TRUE(std::isnan(got.selectivity()));
        }
        all.push_back({got.mean, got.m2, got.m3, got.values.quantile(0.3), got.positive[2]});
      }
    }
    if (first.empty()) first = all;
    EXPECT_EQ(all, first) << "batches show";
  }
}

TEST_P(VizDistribution, ValuesThatAreNoNumbersAreNamed) {
  Net net = make_network("lenet");
  net.weights = random_weights(net, 3);
  Tensor x = Tensor::zeros({2, 1, 28, 28});
  x[784 + 5] = NAN;
  Distribution distribution(ctx, net, {1, 1, 28, 28}, {net.find("conv1")}, 0, {}, 2);
  const std::vector<int64_t> numbers = {40, 41};
  expect_error("of conv1 is not finite in image 41", [&] { distribution.add(x.data(), numbers, {}); }, false);
}

// ---- the command

TEST(CliDistribution, OfCheckpointsSideBySide) {
  const TempFolder folder;
  for (const int d : {1, 3, 7}) {
    const std::string to = folder / "digits/" + std::to_string(d);
    std::filesystem::create_directories(to);
    std::filesystem::copy_file(digit(d), to + "/digit.png");
  }
  const std::string data = folder / "digits";
  const json one = succeed_json({"distribution", data, "--model", "lenet", "--layer", "relu1,fc2", "--save", "png,npy",
                                 "--json", "-o", folder / "out"});
  EXPECT_EQ(one["images"], 3);
  EXPECT_EQ(one["channels"].size(), 32u + 10u);
  const json& channel = one["channels"][0];
  EXPECT_EQ(channel["layer"], "relu1");
  EXPECT_GE(channel["zeros"].get<double>() + channel["open"].get<double>(), 0.999999) << "a ReLU's values";
  EXPECT_LE(channel["quantiles"]["0.05"].get<double>(), channel["quantiles"]["0.95"].get<double>());
  const Tensor quantiles = read_npy(result(one, "relu1.quantiles.npy"));
  EXPECT_EQ(quantiles.dims(), (Dims{32, 101}));
  EXPECT_EQ(quantiles[100], channel["max"].get<float>());
  const Tensor bins = read_npy(result(one, "relu1.npy")), moments = read_npy(result(one, "relu1.moments.npy"));
  EXPECT_EQ(bins.dims(), (Dims{32, 64}));
  double sum = 0;
  for (int64_t b = 0; b < 64; ++b) sum += bins[b];
  EXPECT_NEAR(sum, 3 * 8 * 8, 1e-3) << "all values";
  EXPECT_EQ(moments.dims(), (Dims{32, 4}));
  EXPECT_EQ(moments[0], channel["mean"].get<float>());
  const json two = succeed_json({"distribution", data, "--model", "lenet", "--layer", "fc2", "--weights",
                                 "random:0,random:1", "--save", "npy", "--json", "-o", folder / "out"});
  EXPECT_EQ(read_npy(result(two, ".moments.npy")).dims(), (Dims{2, 10, 4}));
  ASSERT_EQ(two["others"].size(), 1u);
  EXPECT_GT(two["others"][0]["channels"][0]["distance"].get<double>(), 0);
  const json same = succeed_json({"distribution", data, data, "--model", "lenet", "--layer", "fc2", "--channels", "3",
                                  "--json", "-o", folder / "out2"});
  EXPECT_EQ(same["others"][0]["channels"][0]["distance"], 0);
}

TEST(CliDistribution, WhatCannotBeIsSaid) {
  const TempFolder folder;
  const auto fails = [&](std::vector<std::string> arguments, const std::string& part) {
    arguments.insert(arguments.begin(), "distribution");
    arguments.insert(arguments.end(), {"--model", "lenet", "-o", folder / "out"});
    const Outcome o = run_switchback(arguments);
    EXPECT_NE(o.code, 0) << o.line;
    EXPECT_NE(o.err.find(part), std::string::npos) << o.err;
  };
  std::filesystem::create_directories(folder / "data/0");
  std::filesystem::copy_file(digit(0), folder / "data/0/digit.png");
  const std::string data = folder / "data";
  fails({data}, "--layer is missing");
  fails({data, "--layer", "conv9"}, "conv9");
  fails({data, "--layer", "conv1", "--channels", "99"}, "99");
  fails({data, "--layer", "conv1", "--top", "0"}, "--top 0 is out of range");
  fails({data, data, data, "--layer", "conv1"}, "one data set or two");
  fails({data, data, "--layer", "conv1", "--weights", "random:0,random:1"}, "two data sets and several --weights");
  folder.put("data/0/digit.png", "no image");
  fails({data, "--layer", "conv1"}, "none of 1 image of ");
}

}  // namespace
}  // namespace switchback::test
