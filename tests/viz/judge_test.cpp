// Metrics of maps against their definitions, and `switchback judge`.
#include "viz/methods/judge.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "engine/files/npy.h"
#include "engine/zoo/zoo.h"
#include "tests/support/cli_run.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

using nlohmann::json;

TEST(Judge, MetricsOfAMapAlone) {
  EXPECT_NEAR(gini(std::vector<float>{0, 0, 0, 1}), 0.75, 1e-12);
  EXPECT_NEAR(gini(std::vector<float>{2, -2, 2, 2}), 0, 1e-12);
  EXPECT_TRUE(std::isnan(gini(std::vector<float>{0, 0})));
  const std::vector<float> map{1, -3, 2, 4, 4, 0};  // 2 rows of 3
  const Shape image{1, 1, 2, 3};
  const Box first{1, 0, 1, 1}, other{1, 1, 1, 1};
  EXPECT_EQ(pointing(map, image, std::span(&first, 1)), 1) << "of equal places the first";
  EXPECT_EQ(pointing(map, image, std::span(&other, 1)), 0);
  const Box both[] = {{0, 0, 1, 2}, {1, 0, 1, 1}};
  EXPECT_NEAR(energy(map, image, both), 5. / 11, 1e-12) << "without what is below 0";
}

TEST(Judge, EdgesAreSobels) {
  const Shape image{1, 2, 3, 3};
  std::vector<float> x(18, 0.f);
  for (int r = 0; r < 3; ++r) x[size_t(r * 3 + 2)] = 1;  // of the first channel a step between columns 1 and 2
  const std::vector<float> edges = edge_map(x.data(), image);
  for (int r = 0; r < 3; ++r) {
    EXPECT_FLOAT_EQ(edges[size_t(r * 3)], 0);
    EXPECT_FLOAT_EQ(edges[size_t(r * 3 + 1)], 4);
    EXPECT_FLOAT_EQ(edges[size_t(r * 3 + 2)], 4);
  }
}

TEST(Judge, BootstrapFindsWhatIsNoChance) {
  std::vector<double> a, b, c;
  for (int i = 0; i < 40; ++i) {
    b.push_back(std::sin(12.9 * i));
    a.push_back(b.back() + 0.1 + 0.05 * std::cos(7.7 * i));
    c.push_back(std::sin(5.3 * i));
  }
  const PairedDifference sure = paired_bootstrap(a, b, 1), unsure = paired_bootstrap(c, b, 1);
  EXPECT_GT(sure.low, 0.05);
  EXPECT_LT(sure.high, 0.15);
  EXPECT_TRUE(sure.low < sure.mean && sure.mean < sure.high);
  EXPECT_TRUE(unsure.low < 0 && unsure.high > 0);
}

TEST(Judge, ImputationSolvesForAllMissingPixelsTogether) {
  const Shape image{1, 2, 9, 11};
  Tensor ramp({2, 9, 11});
  for (int64_t e = 0; e < ramp.count(); ++e) ramp[e] = e < 99 ? float(3 * (e / 11) - 2 * (e % 11)) : std::sin(float(e * e));
  std::vector<char> missing(99, 0);
  for (int64_t r = 2; r < 7; ++r)
    for (int64_t c = 1; c < 9; ++c) missing[size_t(r * 11 + c)] = 1;
  Tensor covered = ramp.clone();
  for (int64_t e = 0; e < covered.count(); ++e)
    if (missing[size_t(e % 99)]) covered[e] = 1e6f;  // what is missing does not matter
  const Tensor y = linear_imputation(covered.data(), image, missing);
  for (int64_t e = 0; e < 99; ++e) EXPECT_NEAR(y[e], ramp[e], 1e-4) << "a ramp is its neighbours' mean";
  for (int64_t e = 99; e < 198; ++e) {
    if (!missing[size_t(e % 99)]) {
      EXPECT_EQ(y[e], ramp[e]);
    }
  }
  // At the border of the picture the neighbours there are; of all missing but one, that one everywhere.
  std::vector<char> most(99, 1);
  most[40] = 0;
  const Tensor one = linear_imputation(ramp.data(), image, most);
  for (int64_t e = 0; e < 99; ++e) EXPECT_NEAR(one[e], ramp[40], 1e-4);
  std::vector<char> corner(99, 0);
  corner[0] = 1;
  EXPECT_NEAR(linear_imputation(ramp.data(), image, corner)[0], (-2 / 6. + 3 / 6. + 1 / 12.) / (5. / 12), 1e-6);
}

TEST(Judge, SimilarityIsThatOfWindows) {
  const int64_t h = 9, w = 10;
  std::vector<float> a(90), b(90);
  for (size_t i = 0; i < 90; ++i) a[i] = std::sin(float(i)), b[i] = 0.5f * a[i] + std::cos(3.f * float(i)) + 2;
  EXPECT_NEAR(structural_similarity(a, a, h, w), 1, 1e-12);
  const auto [a_least, a_most] = std::ranges::minmax(a);
  const auto [b_least, b_most] = std::ranges::minmax(b);
  const double range = double(std::max(a_most, b_most)) - double(std::min(a_least, b_least));
  const double c1 = std::pow(0.01 * range, 2), c2 = std::pow(0.03 * range, 2);
  double sum = 0;
  for (int64_t r = 0; r + 7 <= h; ++r)
    for (int64_t q = 0; q + 7 <= w; ++q) {
      double ma = 0, mb = 0, va = 0, vb = 0, vab = 0;
      const auto each = [&](const auto& add) {
        for (int64_t y = r; y < r + 7; ++y)
          for (int64_t x = q; x < q + 7; ++x) add(double(a[size_t(y * w + x)]), double(b[size_t(y * w + x)]));
      };
      each([&](double u, double v) { ma += u / 49, mb += v / 49; });
      each([&](double u, double v) { va += (u - ma) * (u - ma) / 48, vb += (v - mb) * (v - mb) / 48, vab += (u - ma) * (v - mb) / 48; });
      sum += (2 * ma * mb + c1) * (2 * vab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
    }
  EXPECT_NEAR(structural_similarity(a, b, h, w), sum / 12, 1e-9);
  EXPECT_TRUE(std::isnan(structural_similarity(std::vector<float>(90, 2), std::vector<float>(90, 2), h, w)));
  EXPECT_TRUE(std::isfinite(structural_similarity(std::vector<float>{1, 2, 3, 4}, std::vector<float>{1, 2, 4, 3}, 2, 2))) << "below 7x7";
}

TEST(Judge, SensitivityIsHowFarAMapMoves) {
  const Shape image{1, 1, 2, 4};
  const std::vector<float> x{1, 2, 3, 4, 5, 6, 7, 8};
  const Judged judged{image, x.data(), {}};
  const Sensitivity none = sensitivity([&](const Tensor& copies) {
    Tensor maps({copies.dim(0), 2, 4});
    for (int64_t e = 0; e < maps.count(); ++e) maps[e] = 3;
    return maps;
  }, judged, std::vector<float>(8, 3), {.samples = 20, .size = 0.5});
  EXPECT_EQ(none.most, 0);
  EXPECT_EQ(none.mean, 0);
  double farthest = 0, sum = 0;
  int64_t seen = 0;
  const Sensitivity moved = sensitivity([&](const Tensor& copies) {  // the map is the image
    for (int64_t i = 0; i < copies.dim(0); ++i, ++seen) {
      double square = 0;
      for (int64_t e = 0; e < 8; ++e) {
        const double d = double(copies[i * 8 + e]) - double(x[size_t(e)]);
        EXPECT_LE(std::abs(d), 0.5);
        square += d * d;
      }
      farthest = std::max(farthest, std::sqrt(square / 204)), sum += std::sqrt(square / 204);
    }
    return copies.clone();
  }, judged, x, {.samples = 20, .size = 0.5});
  EXPECT_EQ(seen, 20);
  EXPECT_NEAR(moved.most, farthest, 1e-6);
  EXPECT_NEAR(moved.mean, sum / 20, 1e-6);
  EXPECT_GT(moved.most, moved.mean);
}

TEST(Judge, LayersAreTakenOverOneByOne) {
  Net net = make_network("lenet");
  const Weights trained = random_weights(net, 3), other = random_weights(net, 4);
  Weights now = trained;
  const std::vector<int> layers = layers_from_top(trained);
  ASSERT_EQ(layers.size(), 4u);
  EXPECT_EQ(Network(net).nodes[size_t(layers[0])].name, "fc2");
  EXPECT_EQ(Network(net).nodes[size_t(layers[3])].name, "conv1");
  take_layer(now, other, layers[0]);
  EXPECT_TRUE(std::ranges::equal(now.values(layers[0], "weight"), other.values(layers[0], "weight")));
  EXPECT_TRUE(std::ranges::equal(now.values(layers[0], "bias"), other.values(layers[0], "bias")));
  for (size_t k = 1; k < 4; ++k) EXPECT_TRUE(std::ranges::equal(now.values(layers[k], "weight"), trained.values(layers[k], "weight")));
  for (const int layer : layers) take_layer(now, other, layer);
  EXPECT_TRUE(std::ranges::equal(now.values(), other.values()));
  std::vector<int> drawn(10, 0);
  for (uint32_t i = 0; i < 200; ++i) ++drawn[size_t(other_class(6, 10, 1, i))];
  EXPECT_EQ(drawn[6], 0);
  for (size_t c = 0; c < 10; ++c) EXPECT_EQ(drawn[c] > 0, c != 6);
}

class VizJudge : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(VizJudge);

// A score for every changed image by itself.
TEST_P(VizJudge, CurvesAndFidelityAreThoseOfChangedImages) {
  Net net = make_network("lenet");
  net.weights = random_weights(net, 3);
  const Model model = net;
  const Shape image{1, 1, 28, 28};
  Tensor x({1, 28, 28});
  for (int64_t e = 0; e < 784; ++e) x[e] = std::sin(0.37f * float(e));
  const Tensor other = Tensor::zeros({1, 28, 28});
  std::vector<float> map(784);
  for (size_t e = 0; e < 784; ++e) map[e] = float(e * 37 % 50);  // many ties
  const int64_t steps = 7;
  Forward forward(ctx, model, image, logit_node(model.network), {}, 3);  // batches that do not divide the steps
  const Judged judged{image, x.data(), {logit_node(model.network), 4, -1, -1}, Score::logit};
  const CurveEnds ends = curve_ends(forward, judged, other);
  const Curve down = deletion(forward, judged, map, other, ends, steps), up = insertion(forward, judged, map, other, ends, steps);
  ASSERT_EQ(down.scores.size(), 8u);
  const auto score = [&](const Tensor& y) { return double(forward.run(y.data(), 1)[4]); };
  std::vector<size_t> order(784);
  for (size_t e = 0; e < 784; ++e) order[e] = e;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return map[a] > map[b]; });
  double area = 0;
  for (int64_t k = 0; k <= steps; ++k) {
    Tensor deleted({1, 28, 28}), inserted({1, 28, 28});
    for (int64_t i = 0; i < 784; ++i) {
      const bool taken = i < k * 784 / steps;
      deleted[int64_t(order[size_t(i)])] = taken ? 0 : x[int64_t(order[size_t(i)])];
      inserted[int64_t(order[size_t(i)])] = taken ? x[int64_t(order[size_t(i)])] : 0;
    }
    EXPECT_NEAR(down.scores[size_t(k)], score(deleted), 1e-5) << k;
    EXPECT_NEAR(up.scores[size_t(k)], score(inserted), 1e-5) << k;
    if (k > 0) area += (down.scores[size_t(k)] + down.scores[size_t(k - 1)]) / 2 / double(steps);
  }
  EXPECT_NEAR(down.area(), area, 1e-12);
  // A map that is what each cell takes away, of a score that is a sum over cells, would have 1; any other is within ±1, the
  // same for any batch, and turns its sign with the map's.
  const FidelityOptions options{.grid = 4, .subsets = 30, .share = 0.25, .seed = 5, .number = 2};
  Forward all(ctx, model, image, logit_node(model.network), {}, 31);
  const double once = fidelity(forward, judged, map, other, options);
  EXPECT_NEAR(fidelity(all, judged, map, other, options), once, 1e-6);
  EXPECT_LE(std::abs(once), 1);
  // ROAD: the scores of imputed images, which turn round with the map.
  const RoadOptions exact{.shares = {0.25, 0.5}, .noise = 0};
  const Road relevant = road(forward, judged, map, exact);
  for (size_t k = 0; k < 2; ++k)
    for (const bool most : {true, false}) {
      std::vector<char> missing(784, 0);
      for (size_t i = 0; i < size_t(exact.shares[k] * 784); ++i) missing[order[most ? i : 783 - i]] = 1;
      EXPECT_NEAR((most ? relevant.most_first : relevant.least_first)[k], score(linear_imputation(x.data(), image, missing)), 1e-5);
    }
  EXPECT_NEAR(relevant.combined(), (relevant.least_first[0] - relevant.most_first[0] + relevant.least_first[1] - relevant.most_first[1]) / 4, 1e-12);
  const RoadOptions noisy{.shares = {0.5}, .noise = 0.5, .seed = 3};
  EXPECT_EQ(road(all, judged, map, noisy).most_first, road(forward, judged, map, noisy).most_first);
  EXPECT_NE(road(forward, judged, map, noisy).most_first[0], relevant.most_first[1]);
  Tensor batch({1, 1, 28, 28});
  std::copy_n(x.data(), 784, batch.data());
  // The gradient tells what little noise does; another map does not, and its length does not matter.
  TargetSpec four;
  four.target = "4";
  const Maps gradients = gradient(ctx, model, batch, four, {});
  std::vector<float> own(gradients.values.data(), gradients.values.data() + 784), longer = own;
  for (float& v : longer) v *= -70;
  const NoiseOptions little{.samples = 12, .size = 0.003, .seed = 2};
  const double of_own = infidelity(forward, judged, own, little), of_map = infidelity(forward, judged, map, little);
  EXPECT_LT(of_own, 0.05 * of_map);
  EXPECT_NEAR(infidelity(all, judged, longer, little), of_own, 1e-6 * of_map + 1e-9);
  for (float& v : map) v = -v;
  EXPECT_NEAR(fidelity(all, judged, map, other, options), -once, 1e-6);
}

// What is packed of other layers is kept where one layer's values change: the maps are those of weights made anew.
TEST_P(VizJudge, RandomisedLayersGiveTheMapsOfThoseWeights) {
  Net net = make_network("resnet20");
  const Weights trained = random_weights(net, 3), other = random_weights(net, 4);
  Tensor x({1, 3, 32, 32});
  for (int64_t e = 0; e < x.count(); ++e) x[e] = std::sin(0.11f * float(e));
  TargetSpec seven;
  seven.target = "7";
  const auto map_of = [&](const Weights& weights) {
    Model model{net};
    model.weights = weights;
    return gradient(ctx, model, x, seven, {}).values;
  };
  Weights now = trained;
  Tensor before = map_of(now);
  const std::vector<int> layers = layers_from_top(trained);
  for (size_t k = 0; k < layers.size(); k += 13) {  // convolutions and batch norms
    take_layer(now, other, layers[k]);
    Weights anew(net);
    std::ranges::copy(now.values(), anew.edit().begin());
    const Tensor map = map_of(now), want = map_of(anew);
    EXPECT_TRUE(std::ranges::equal(map.values(), want.values())) << k;
    EXPECT_FALSE(std::ranges::equal(map.values(), before.values())) << k;
    before = map.clone();
  }
}

TEST(CliJudge, MethodsBesideBaseLines) {
  const TempFolder folder;
  const std::vector<std::string> arguments{"judge", digit(3), digit(4), digit(7), "--model", "lenet", "--methods", "gradient,gradcam",
                                           "--points", "7", "--subsets", "20", "--json", "-o", folder / "out"};
  const json d = succeed_json(arguments);
  ASSERT_EQ(d["results"].size(), 4u * 4u);
  for (const json& r : d["results"]) {
    EXPECT_EQ(r["values"].size(), 3u);
    EXPECT_EQ(r["versus_random"].is_null(), r["method"] == "random");
    EXPECT_EQ(r.contains("curves"), r["metric"] == "deletion" || r["metric"] == "insertion");
  }
  EXPECT_EQ(d["results"][0]["curves"][0].size(), 8u);
  EXPECT_EQ(d["results"][0]["curves"][0][0], d["inputs"][0]["probability"]) << "nothing is deleted yet";
  EXPECT_TRUE(std::filesystem::exists(result(d, ".png")));
  std::vector<std::string> otherwise = arguments;
  otherwise.insert(otherwise.end(), {"--batch", "2", "--threads", "1"});
  EXPECT_EQ(succeed_json(otherwise)["results"], d["results"]);
}

TEST(CliJudge, NetworksWithOtherWeightsAndInputsWithNoise) {
  const TempFolder folder;
  const std::vector<std::string> arguments{"judge", digit(3), digit(4), "--model", "lenet", "--methods", "gradient,smoothgrad,cam", "--samples", "4",
                                           "--metrics", "road,infidelity,max-sensitivity,avg-sensitivity,randomisation,layer-randomisation,random-logit",
                                           "--draws", "4", "--json", "-o", folder / "out"};
  const json d = succeed_json(arguments);
  ASSERT_EQ(d["results"].size(), 7u * 5u);
  EXPECT_EQ(d["randomised_layers"], (json{"fc2", "fc1", "conv2", "conv1"}));
  const auto of = [&](const char* method, const char* metric) -> const json& {
    for (const json& r : d["results"])
      if (r["method"] == method && r["metric"] == metric) return r;
    throw Error(fmt::format("no {} of {}", metric, method));
  };
  for (const char* metric : {"randomisation", "layer-randomisation", "random-logit"}) {
    EXPECT_NEAR(double(of("edges", metric)["mean"]), 1, 1e-12) << "edges know no network";
    EXPECT_LT(double(of("gradient", metric)["mean"]), 0.95);
    EXPECT_GE(int(of("edges", metric)["rank"]), 4);
  }
  EXPECT_EQ(of("gradient", "randomisation")["spearman"][1].size(), 4u);
  EXPECT_EQ(of("gradient", "randomisation")["ssim"][1].size(), 4u);
  EXPECT_EQ(of("gradient", "randomisation")["spearman"][0][0], of("gradient", "layer-randomisation")["spearman"][0][0]) << "the first layer is alone";
  EXPECT_NE(of("gradient", "randomisation")["spearman"][0][1], of("gradient", "layer-randomisation")["spearman"][0][1]);
  EXPECT_LT(double(of("smoothgrad", "max-sensitivity")["mean"]), double(of("gradient", "max-sensitivity")["mean"]));
  EXPECT_GE(double(of("gradient", "max-sensitivity")["mean"]), double(of("gradient", "avg-sensitivity")["mean"]));
  EXPECT_EQ(double(of("random", "max-sensitivity")["mean"]), 0);
  EXPECT_EQ(of("gradient", "road")["least_first"][0].size(), 4u);
  EXPECT_EQ(d["pairs"].size(), 7u * 10u);
  std::vector<std::string> otherwise = arguments;
  otherwise.insert(otherwise.end(), {"--batch", "3", "--threads", "1"});
  EXPECT_EQ(succeed_json(otherwise)["results"], d["results"]);
}

TEST(CliJudge, MethodsThatANetworkDoesNotAllowAreSkippedAndSaid) {
  const TempFolder folder;
  Tensor x({1, 2, 1, 1});
  x[0] = 0.3f, x[1] = -0.4f;
  write_npy(folder / "point.npy", x);
  const std::vector<std::string> arguments{"judge", folder / "point.npy", "--model", "mlp", "--weights", "random:1", "--metrics", "sparseness", "-o", folder / "out"};
  std::vector<std::string> some = arguments, none = arguments;
  some.insert(some.end(), {"--methods", "gradient,gradcam", "--json"});
  none.insert(none.end(), {"--methods", "gradcam"});
  const json d = succeed_json(some);
  ASSERT_EQ(d["skipped"].size(), 1u);
  EXPECT_EQ(d["skipped"][0]["method"], "gradcam");
  EXPECT_NE(std::string(d["skipped"][0]["why"]).find("convolution"), std::string::npos) << d["skipped"];
  EXPECT_EQ(d["results"].size(), 3u);
  const Outcome o = run_switchback(none);
  EXPECT_NE(o.code, 0);
  EXPECT_NE(o.err.find("allows none of these methods"), std::string::npos) << o.err;
}

TEST(CliJudge, WhatCannotBeIsSaid) {
  const TempFolder folder;
  const auto fails = [&](std::vector<std::string> more, const std::string& part) {
    std::vector<std::string> arguments{"judge", digit(3), "--model", "lenet", "-o", folder / "out"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome o = run_switchback(arguments);
    EXPECT_NE(o.code, 0) << o.line;
    EXPECT_NE(o.err.find(part), std::string::npos) << o.err;
  };
  const auto array = [&](const std::string& name, Dims dims, bool constant) {
    Tensor t(dims);
    for (int64_t i = 0; i < t.count(); ++i) t[i] = constant ? 2 : float(i);
    write_npy(folder / name, t);
    return folder / name;
  };
  fails({"--methods", "shap"}, "shap");
  fails({"--metrics", "beauty"}, "beauty");
  fails({"--methods", "none"}, "no maps to judge");
  fails({"--metrics", "pointing"}, "--boxes FILE");
  fails({"--target", "99"}, "99");
  fails({"--points", "1"}, "--points 1 is out of range");
  fails({"--deletion-fill", "pink"}, "pink");
  folder.put("boxes", "1,0,0,5,5\n");
  fails({"--metrics", "energy", "--boxes", folder / "boxes"}, "no box of image 0");
  folder.put("outside", "0,20,20,12,8\n");
  fails({"--metrics", "energy", "--boxes", folder / "outside"}, "does not lie inside");
  const std::vector<std::string> given{"--methods", "none", "--metrics", "sparseness", "--maps"};
  const auto maps = [&](const std::string& path) {
    std::vector<std::string> all = given;
    all.push_back(path);
    return all;
  };
  fails(maps(array("small.npy", {1, 8, 8}, false)), "maps of 8x8 for an image of 28x28");
  fails(maps(array("two.npy", {2, 28, 28}, false)), "2 maps, but there is 1 input");
  Tensor broken({1, 28, 28});
  for (int64_t i = 0; i < broken.count(); ++i) broken[i] = i == 30 ? std::nanf("") : float(i);
  write_npy(folder / "nan.npy", broken);
  fails(maps(folder / "nan.npy"), "element 30 (in C order) is nan");
  fails({"--metrics", "deletion,deletion"}, "--metrics names deletion twice");
  fails({"--metrics", "road", "--road-noise", "-1"}, "--road-noise -1 is out of range");
  fails({"--metrics", "infidelity", "--draws", "2"}, "--draws 2 is out of range");
  // The default mask is too large for a digit: the method is left out, unless that mask is asked for.
  const json small = succeed_json({"judge", digit(3), "--model", "lenet", "--methods", "gradient,occlusion", "--metrics", "sparseness", "--json", "-o", folder / "out"});
  EXPECT_EQ(small["skipped"][0]["method"], "occlusion");
  fails({"--methods", "gradient,occlusion", "--metrics", "sparseness", "--mask", "40"}, "--mask can be at most 28");
  // A constant map is judged: its pixels are taken by rows and columns.
  const json d = succeed_json({"judge", digit(3), "--model", "lenet", "--methods", "none", "--maps", array("constant.npy", {1, 28, 28}, true),
                               "--metrics", "deletion,random-logit", "--points", "4", "--json", "-o", folder / "out"});
  EXPECT_EQ(d["constant_maps"]["maps"], 1);
  EXPECT_EQ(d["results"][0]["curves"][0].size(), 5u);
  EXPECT_TRUE(d["results"][3]["mean"].is_null()) << "given maps are of no network that could be asked for another class";
}

}  // namespace
}  // namespace switchback::test
