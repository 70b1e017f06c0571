// Images that are optimised: trajectories against PyTorch in float64 (tests/golden/make_dreams.py), the same bits for any
// batch and number of threads, and what can't be driven; then the commands `adversarial`, `maximize` and `invert`.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "engine/files/image.h"
#include "engine/files/npy.h"
#include "engine/files/safetensors.h"
#include "tests/support/cli_run.h"
#include "tests/support/on_device.h"
#include "tests/support/smooth_model.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/adversarial.h"
#include "viz/methods/inspect.h"
#include "viz/methods/maximize.h"
#include "viz/methods/pixels.h"

namespace switchback::test {
namespace {

using nlohmann::json;

const Safetensors& golden() {
  static const Safetensors file(std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/dreams.safetensors");
  return file;
}

// The largest difference over the largest value.
double difference(const Tensor& got, const std::string& name) {
  const Tensor want = golden().load(name);
  EXPECT_EQ(got.count(), want.count()) << name;
  double most = 0, largest = 0;
  for (int64_t i = 0; i < want.count(); ++i) {
    most = std::max(most, std::abs(double(got[i]) - double(want[i])));
    largest = std::max(largest, std::abs(double(want[i])));
  }
  return std::isfinite(most) ? most / largest : INFINITY;
}

class Dreams : public OnDevice {
 protected:
  Model model = smooth_model();
  Drive drive{{model.network.find("conv2"), 5, -1, -1}, 3, {}};
  Tensor start() const { return golden().load("start"); }
  Tensor batch_of(int64_t n) const {
    const Tensor one = start();
    Tensor all({n, 3, 20, 24});
    for (int64_t i = 0; i < n; ++i) std::memcpy(all.data() + i * one.count(), one.data(), size_t(one.count()) * sizeof(float));
    return all;
  }
};

TEST_P(Dreams, RecipesFollowPyTorch) {
  for (const std::string name : {"fleuret", "yosinski", "yosinski-decay", "yosinski-norm", "yosinski-contribution", "mahendran", "lucid", "maco", "amirli"}) {
    MaximizeOptions o = recipe(name);
    o.steps = 20;
    o.seed = 7;
    Tensor from = start();
    if (name == "mahendran") o.jitter = 2;
    const bool falls = name == "yosinski-contribution" || name == "yosinski-decay";
    if (falls) o.keep_best = false;  // the best is where it starts
    if (name == "lucid") {
      o.jitter = 6;
      from = Tensor();
    }
    if (name == "maco") {
      o.crops = 4, o.size = {30, 36};
      from = Tensor();
    }
    if (name == "amirli") {
      o.steps = 6, o.late_steps = 0, o.scales = 3, o.size = {12, 14};
      const Tensor all = start();
      from = Tensor({3, 12, 14});
      for (int64_t i = 0; i < from.count(); ++i) from[i] = all[i / 168 * 480 + i / 14 % 12 * 24 + i % 14];
    }
    const Maximized made = maximize(ctx, model, std::span(&drive, 1), from, o);
    EXPECT_LT(difference(made.x, name), 1e-3) << name;
    EXPECT_TRUE(falls || made.items[0].value > made.items[0].start) << name;
    EXPECT_FALSE(made.items[0].dead);
    EXPECT_EQ(made.items[0].stopped, -1);
  }
}

// A network of bytes that computes the same of them goes the same way, 57.63 of them to a deviation.
TEST_P(Dreams, NetworksOfBytesAreDrivenAsOthers) {
  constexpr float kUnit = 0.226f * 255;
  Model bytes = smooth_model();
  bytes.preprocess.scale = 1, bytes.preprocess.mean = {}, bytes.preprocess.std = {};
  for (float& w : bytes.weights.edit(bytes.network.find("conv1"), "weight")) w /= kUnit;
  MaximizeOptions o = recipe("fleuret");
  o.steps = 20, o.seed = 7;
  const Tensor x = maximize(ctx, model, std::span(&drive, 1), Tensor(), o).x;
  Tensor same = maximize(ctx, bytes, std::span(&drive, 1), Tensor(), o).x;
  double most = 0, largest = 0;
  for (int64_t i = 0; i < x.count(); ++i) {
    most = std::max(most, std::abs(double(same[i] / kUnit) - double(x[i])));
    largest = std::max(largest, std::abs(double(x[i])));
  }
  EXPECT_GT(largest, 0.1);
  EXPECT_LT(most / largest, 1e-3);
}

TEST_P(Dreams, AttacksFollowPyTorch) {
  using Method = AdversarialOptions::Method;
  const auto run = [&](Method method, double epsilon, double step, int64_t target = -1) {
    AdversarialOptions o;
    o.method = method, o.epsilon = epsilon, o.step = step, o.target = target, o.seed = 7, o.images = {3};
    o.steps = method == Method::fgsm ? 1 : 20;
    return adversarial(ctx, model, batch_of(1), {}, o);
  };
  const Adversarial ascent = run(Method::ascent, 0, 0.1);
  EXPECT_LT(difference(ascent.x, "ascent"), 1e-3);
  EXPECT_EQ(ascent.items[0].classes.size(), 21u);
  EXPECT_EQ(ascent.items[0].classes[0], ascent.items[0].clean);
  EXPECT_EQ(ascent.items[0].classes[20], ascent.items[0].now);
  EXPECT_LT(difference(run(Method::fgsm, 0.03, 0.03).x, "fgsm"), 1e-3);
  EXPECT_LT(difference(run(Method::pgd_l2, 0.5, 0.05).x, "pgd_l2"), 1e-3);
  EXPECT_NEAR(run(Method::pgd_l2, 0.5, 0.05).items[0].l2, 0.5, 1e-4);
  const Adversarial pgd = run(Method::pgd, 0.03, 0.01);
  EXPECT_LT(difference(pgd.x, "pgd"), 1e-3);
  EXPECT_LE(pgd.items[0].linf, 0.03 * (1 + 1e-5));
  EXPECT_LT(difference(run(Method::pgd, 0.03, 0.01, 2).x, "pgd_targeted"), 1e-3);
}

TEST_P(Dreams, BatchesAndThreadsLeaveTheSameBits) {
  std::vector<Drive> drives;
  for (uint32_t i = 0; i < 3; ++i) drives.push_back({{drive.unit.node, int64_t(2 * i), -1, -1}, i, {}});
  for (const char* name : {"lucid", "mahendran"}) {
    MaximizeOptions o = recipe(name);
    o.steps = 3;
    std::vector<Tensor> made;
    for (const int64_t batch : {1, 2, 3}) {
      ctx.threads = int(batch);
      o.batch = batch;
      made.push_back(maximize(ctx, model, drives, {}, o).x);
      EXPECT_EQ(std::memcmp(made[0].data(), made.back().data(), size_t(made[0].count()) * sizeof(float)), 0) << name << batch;
    }
  }
  AdversarialOptions o;
  o.steps = 3;
  std::vector<Tensor> made;
  for (const int64_t batch : {1, 3}) {
    o.batch = batch;
    made.push_back(adversarial(ctx, model, batch_of(3), {}, o).x);
  }
  EXPECT_EQ(std::memcmp(made[0].data(), made[1].data(), size_t(made[0].count()) * sizeof(float)), 0);
  // Each image has random numbers of its own.
  EXPECT_NE(std::memcmp(made[0].data(), made[0].data() + made[0].count() / 3, 100), 0);
}

TEST_P(Dreams, UnitsThatAreDeadAndStepsThatLeadNowhereAreToldOf) {
  Network net("dead", {1, 1, 8, 8});
  net.add("conv", conv2d(1, 2, 3, 1, 1));
  net.add("relu", ReLU{});
  Model dead{net, random_weights(net, 1)};
  const std::span<float> bias = dead.weights.edit(1, "bias");
  bias[0] = -100.f, bias[1] = 1.f;
  const std::vector<Drive> drives{{{2, 0, -1, -1}, 0, {}}, {{2, 1, 3, 4}, 0, {}}};
  MaximizeOptions o = recipe("fleuret");
  o.steps = 3;
  Maximized made = maximize(ctx, dead, drives, {}, o);
  EXPECT_TRUE(made.items[0].dead);
  EXPECT_EQ(made.items[0].value, 0);
  EXPECT_FALSE(made.items[1].dead);
  EXPECT_GT(made.items[1].value, made.items[1].start);
  o.redirect = 3;  // with every ReLU open there is a way
  o.edges = 0, o.lr = 1;
  made = maximize(ctx, dead, drives, {}, o);
  EXPECT_NE(made.x[0], made.x[64]);
  if (!ctx.gpu) {  // a GPU looks at the values every 50 steps
    o.optimizer = {.kind = Optimizer::Kind::sgd};
    o.steps = 6, o.lr = 1e38;
    made = maximize(ctx, dead, std::span(drives).subspan(1), {}, o);
    EXPECT_GE(made.items[0].stopped, 1);
    for (const float v : made.x.values()) EXPECT_TRUE(std::isfinite(v));
  }
  dead.weights.edit(1, "bias")[1] = std::numeric_limits<float>::quiet_NaN();
  Tensor start({1, 8, 8});
  for (int64_t i = 0; i < start.count(); ++i) start[i] = 0.01f * float(i);
  made = maximize(ctx, dead, std::span(drives).subspan(1), start, o);
  EXPECT_EQ(made.items[0].stopped, 0);
  EXPECT_TRUE(std::ranges::equal(made.x.values(), start.values()));
}

// lucid's rule for rectifiers that let nothing through, until its sixteenth step.
TEST_P(Dreams, ShutRectifiersAreRedirectedAsLucidDoes) {
  Network net("shut", {1, 3, 20, 24});
  net.add("conv1", conv2d(3, 8, 3, 1, 1));
  net.add("relu1", ReLU{});
  net.add("conv2", conv2d(8, 12, 3, 2, 1));
  net.add("relu2", ReLU{});
  Model shut{net, random_weights(net, 7)};
  shut.preprocess = imagenet_preprocess();
  for (float& v : shut.weights.edit(net.find("conv2"), "bias")) v -= 6;
  const std::span<const float> fc = model.weights.values(model.network.find("fc"), "weight");
  Drive along{{net.find("relu2"), 0, -1, -1}, 3, {fc.data(), fc.data() + 12}};
  MaximizeOptions o = recipe("fleuret");
  o.edges = 0, o.mean = true, o.steps = 20, o.lr = 100, o.redirect = 16;
  o.optimizer = {.kind = Optimizer::Kind::sgd};
  const Maximized made = maximize(ctx, shut, std::span(&along, 1), start(), o);
  EXPECT_LT(difference(made.x, "redirected"), 1e-3);
  EXPECT_TRUE(made.items[0].start == 0 && made.items[0].value > 0.01) << made.items[0].value;
  EXPECT_FALSE(made.items[0].dead);
  o.redirect = 0;
  const Maximized still = maximize(ctx, shut, std::span(&along, 1), start(), o);
  EXPECT_TRUE(still.items[0].dead);
}

TEST_P(Dreams, CopiesAreKeptApart) {
  std::vector<Drive> drives;
  for (uint32_t i = 0; i < 4; ++i) drives.push_back({{drive.unit.node, i < 2 ? 5 : 1, -1, -1}, i % 2, {}});
  MaximizeOptions o = recipe("fleuret");
  o.steps = 8, o.copies = 2, o.batch = 3;  // copies stay together whatever the batch
  const auto alike = [&](const Maximized& made) {
    Tensor gradient;
    return similarity(activations(ctx, model, made.x, drive.unit.node), 2, gradient);
  };
  const double without = alike(maximize(ctx, model, drives, {}, o));
  o.diversity = 50;
  const Maximized apart = maximize(ctx, model, drives, {}, o);
  EXPECT_LT(alike(apart), without - 0.05);
  o.batch = 4;
  const Maximized again = maximize(ctx, model, drives, {}, o);
  EXPECT_EQ(std::memcmp(apart.x.data(), again.x.data(), size_t(again.x.count()) * sizeof(float)), 0);
}

TEST_P(Dreams, ExactContributionsAreTheGradientsWhereANetworkIsAffine) {
  Network net("affine", {1, 2, 9, 8});
  net.add("conv", conv2d(2, 3, 3, 1, 1));
  Model affine{net, random_weights(net, 3)};
  const std::vector<Drive> drives{{{1, 1, -1, -1}, 0, {}}, {{1, 2, 4, 3}, 1, {}}};
  MaximizeOptions o = recipe("yosinski-contribution");
  o.steps = 3, o.lr = 100, o.blur = 0, o.keep_best = false, o.small.percentile = 30;
  const Maximized want = maximize(ctx, affine, std::span(drives).first(1), {}, o);
  o.exact = o.small.percentile, o.small = {};
  const Maximized got = maximize(ctx, affine, std::span(drives).first(1), {}, o);
  int zeros = 0;
  for (int64_t i = 0; i < want.x.count(); ++i) {
    EXPECT_NEAR(got.x[i], want.x[i], 1e-4) << i;
    zeros += got.x[i] == 0;
  }
  EXPECT_GE(zeros, 2 * 72 * 3 / 10 - 2);
  // Of a unit at one place only what it sees counts.
  o.exact = 92;  // nine pixels of 72 count
  const Maximized place = maximize(ctx, affine, std::span(drives).last(1), {}, o);
  int left = 0;
  for (int64_t i = 0; i < place.x.count(); ++i) {
    const int64_t row = i % 72 / 8, col = i % 8;
    if (place.x[i] == 0) continue;
    ++left;
    EXPECT_TRUE(std::abs(row - 4) <= 1 && std::abs(col - 3) <= 1) << row << "," << col;
  }
  EXPECT_GE(left, 8);  // of two channels; the three smallest of nine go
  o.jitter = 2;
  expect_error("exact clipping", [&] { maximize(ctx, affine, drives, {}, o); });
}

TEST_P(Dreams, SpectraAreMeansOfMagnitudes) {
  // Two images of one wave each, along the columns and along the rows, in pixels.
  const PixelUnits units = pixel_units(model, 3);
  Tensor x({2, 3, 20, 24});
  for (int64_t i = 0; i < x.count(); ++i) {
    const int64_t column = i % 24, row = i / 24 % 20, c = i / 480 % 3;
    const double wave = i < x.count() / 2 ? std::cos(2 * M_PI * 3 * double(column) / 24) : std::sin(2 * M_PI * 2 * double(row) / 20);
    x[i] = float((0.5 + 0.25 * double(c + 1) * wave) * double(units.scale[size_t(c)]) + double(units.offset[size_t(c)]));
  }
  const Tensor plain = mean_spectrum(ctx, model, x, false);
  ASSERT_EQ(plain.dims(), (Dims{3, 20, 13}));
  for (int64_t i = 0; i < plain.count(); ++i) {
    const int64_t v = i % 13, u = i / 13 % 20, c = i / 260;
    double want = u == 0 && v == 0 ? 240 : 0;  // half of each image's
    if ((u == 0 && v == 3) || (v == 0 && (u == 2 || u == 18))) want = 0.25 * double(c + 1) * 480 / 2 / 2;
    EXPECT_NEAR(plain[i], want, 1e-3) << u << " " << v;
  }
  // The principal axes give the colours back.
  const Tensor axes = mean_spectrum(ctx, model, x, true);
  const double norms = std::max({std::hypot(0.26, 0.27, 0.27), std::hypot(0.09, 0.09), std::hypot(0.02, -0.05, 0.03)});
  const double red = (0.26 * axes[3] + 0.09 * axes[260 + 3] + 0.02 * axes[520 + 3]) / norms;
  EXPECT_LE(plain[3], red + 1e-3) << "magnitudes add up to no less";
}

TEST_P(Dreams, PreImagesComeNear) {
  MaximizeOptions o = recipe("mahendran");
  o.steps = 60, o.jitter = 1, o.weight = 300;
  const int node = model.network.find("gelu1");
  const Inverted near = invert(ctx, model, batch_of(1), node, false, {}, o);
  EXPECT_LT(near.error, 0.35);  // it starts beyond 1
  EXPECT_NEAR(near.image.items[0].value, -near.error, 1e-4);
  o.steps = 5;
  const Inverted part = invert(ctx, model, batch_of(1), node, false, {0, 3}, o);
  EXPECT_LT(part.error, 1.5);
  const Inverted more = invert(ctx, model, batch_of(1), node, true, {}, o);
  EXPECT_GT(more.image.items[0].value, more.image.items[0].start);
}

SWITCHBACK_ON_ALL_DEVICES(Dreams);

TEST(Similarity, OfGramMatrices) {
  const auto tensor = [](Dims dims, const std::vector<float>& values) {
    Tensor t(std::move(dims));
    std::ranges::copy(values, t.data());
    return t;
  };
  const Tensor same = tensor({3, 2, 2, 2}, {1, 2, 3, 4, 0, 1, 0, -1, 1, 2, 3, 4, 0, 1, 0, -1, 2, 4, 6, 8, 0, 2, 0, -2});
  Tensor gradient;
  EXPECT_NEAR(similarity(same, 3, gradient), 3, 1e-9);  // three pairs, whatever their lengths
  for (const float v : gradient.values()) EXPECT_NEAR(v, 0, 1e-6);
  const Tensor other = tensor({2, 2, 1, 2}, {1, 0, 0, 0, 0, 0, 0, 3});
  EXPECT_NEAR(similarity(other, 2, gradient), 0, 1e-9);
  // Against differences, for two units of two copies each.
  Tensor values({4, 3, 2, 2});
  for (int64_t i = 0; i < values.count(); ++i) values[i] = std::sin(1.7f * float(i)) + 0.3f;
  similarity(values, 2, gradient);
  for (int64_t i = 0; i < values.count(); ++i) {
    Tensor up = values.clone(), down = values.clone(), unused;
    up[i] += 1e-2f, down[i] -= 1e-2f;
    const double slope = (similarity(up, 2, unused) - similarity(down, 2, unused)) / (double(up[i]) - double(down[i]));
    EXPECT_NEAR(gradient[i], slope, 1e-3) << i;
  }
}

// ---- commands

TEST(CliDreams, AnAttackedDigit) {
  const TempFolder folder;
  const json d = succeed_json({"adversarial", "--model", "lenet", "--epsilon", "0.3", "--save", "png,npy", "--json", "--sphere", "20", "--early-stop",
                               "-o", folder / "out", digit(3), digit(8)});
  EXPECT_EQ(d["method"], "pgd");
  EXPECT_EQ(d["steps"], 10);
  EXPECT_EQ(d["reached"], 2);
  const json& one = d["inputs"][0];
  EXPECT_EQ(one["clean"]["target"], 3);
  EXPECT_NE(one["result"]["target"], 3);
  EXPECT_EQ(one["classes"].size(), 11u);
  EXPECT_LE(one["linf"].get<double>(), 0.3 * (1 + 1e-5));
  EXPECT_EQ(one["sphere"]["samples"], 20);
  EXPECT_NE(d["units"].get<std::string>().find("pixels from 0 to 1"), std::string::npos);
  const Tensor x = read_npy(result(d, ".npy"));
  EXPECT_EQ(x.dims(), (Dims{1, 1, 28, 28}));
  // What is written is read as is said.
  const json again = succeed_json({"classify", "--model", "lenet", "--json", "-o", folder / "out", result(d, ".npy")});
  EXPECT_EQ(again["inputs"][0]["target"], one["result"]["target"]);
}

TEST(CliDreams, ACurveOfRobustAccuracy) {
  const TempFolder folder;
  for (int d = 0; d < 10; ++d) {
    std::filesystem::create_directories(folder / ("digits/" + std::to_string(d)));
    std::filesystem::copy_file(digit(d), folder / ("digits/" + std::to_string(d) + "/a.png"));
  }
  const json d = succeed_json({"adversarial", "--model", "lenet", "--epsilon", "0,0.1,0.5", "--save", "png,npy", "--json", "-o", folder / "out",
                               folder / "digits"});
  ASSERT_EQ(d["curve"].size(), 3u);
  EXPECT_EQ(d["curve"][0]["robust"], 1.0);
  EXPECT_EQ(d["curve"][2]["robust"], 0.0);
  EXPECT_EQ(read_npy(result(d, ".npy")).dims(), (Dims{3}));
}

TEST(CliDreams, MaximizedAndInvertedImages) {
  const TempFolder folder;
  const json d = succeed_json({"maximize", "--model", "lenet", "--target", "1,7", "--steps", "5", "--copies", "2", "--frames", "2", "--save",
                               "png,npy", "--json", "--diversity", "0.1", "--reference", digit(7), "-o", folder / "out"});
  ASSERT_EQ(d["inputs"].size(), 4u);
  EXPECT_EQ(d["recipe"], "lucid");
  EXPECT_EQ(d["inputs"][3]["target"], 7);
  EXPECT_EQ(d["inputs"][3]["copy"], 1);
  EXPECT_EQ(d["inputs"][0]["files"].size(), 4u);
  EXPECT_NE(bytes_of(result(d, "animation.png")).find("acTL"), std::string::npos);
  // The reference's value is what the network says of it.
  const json seven = succeed_json({"classify", "--model", "lenet", "--json", "-o", folder / "out", digit(7)});
  EXPECT_NEAR(d["inputs"][2]["reference"].get<double>(), seven["inputs"][0]["score"].get<double>(), 1e-4);
  EXPECT_LT(d["inputs"][0]["reference"].get<double>(), d["inputs"][2]["reference"].get<double>()) << "another class's";
  EXPECT_EQ(read_npy(result(d, ".npy")).dims(), (Dims{4, 1, 28, 28}));
  const json i = succeed_json({"invert", "--model", "lenet", "--layer", "conv1,relu1", "--steps", "20", "--save", "png,npy", "--json", "-o",
                               folder / "out", digit(3)});
  ASSERT_EQ(i["inputs"][0]["layers"].size(), 2u);
  EXPECT_LT(i["inputs"][0]["layers"][0]["error"].get<double>(), 1);
  EXPECT_EQ(read_npy(result(i, ".npy")).dims(), (Dims{2, 1, 28, 28}));
}

TEST(CliDreams, VectorsAreDrivenAndPlotted) {
  const TempFolder folder;
  const json d = succeed_json({"maximize", "--model", "mlp:2-20-2", "--weights", "random:1", "--target", "all", "--steps", "20", "--json", "-o", folder / "out"});
  EXPECT_EQ(d["recipe"], "fleuret");
  for (const json& unit : d["inputs"]) EXPECT_GT(unit["value"].get<double>(), unit["start_value"].get<double>());
  EXPECT_GT(load_image(result(d, ".png")).width, 300);
}

TEST(CliDreams, PhasesInCrops) {
  const TempFolder folder;
  const auto run = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all{"maximize", "--model", "lenet", "--target", "3", "--recipe", "maco", "--steps", "30", "--crops", "6", "--size", "40x36",
                                 "--save", "png,npy", "--json", "-o", folder / "out"};
    all.insert(all.end(), more.begin(), more.end());
    return succeed_json(all);
  };
  const json d = run({"--frames", "2"});
  const Tensor x = read_npy(result(d, ".npy"));
  EXPECT_EQ(x.dims(), (Dims{1, 1, 40, 36}));
  EXPECT_EQ(read_npy(result(d, "weight.npy")).dims(), (Dims{1, 1, 40, 36}));
  EXPECT_GT(d["inputs"][0]["value"].get<double>(), d["inputs"][0]["start_value"].get<double>());
  // However many crops are seen at a time.
  EXPECT_EQ(bytes_of(result(run({"--batch", "2"}), ".npy")), bytes_of(result(run({"--batch", "6"}), ".npy")));
  // A digit's magnitudes instead of 1/f.
  const Tensor other = read_npy(result(run({"--spectrum", digit(3)}), ".npy"));
  EXPECT_NE(std::memcmp(other.data(), x.data(), size_t(x.count()) * sizeof(float)), 0);
}

TEST(CliDreams, BadInputIsToldOf) {
  const TempFolder folder;
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"adversarial", "--model", "lenet", "--epsilon", "-0.1", digit(3)}, "negative"},
      {{"adversarial", "--model", "lenet", "--epsilon", "8", digit(3)}, "above 1"},
      {{"adversarial", "--model", "lenet", "--epsilon", "8/0", digit(3)}, "divides by 0"},
      {{"adversarial", "--model", "lenet", "--epsilon", "x", digit(3)}, "no number"},
      {{"adversarial", "--model", "lenet", "--epsilon", "0,0.1", digit(3)}, "labelled data set"},
      {{"adversarial", "--model", "lenet", "--method", "ascent", "--epsilon", "0.1", digit(3)}, "without a limit"},
      {{"adversarial", "--model", "lenet", "--method", "fgsm", "--steps", "3", digit(3)}, "one step"},
      {{"adversarial", "--model", "lenet", "--targeted", "10", digit(3)}, "10"},
      {{"adversarial", "--model", "lenet", "--steps", "-2", digit(3)}, "--steps"},
      {{"adversarial", "--model", "lenet", "--steps", "0", digit(3)}, "--steps 0"},
      {{"maximize", "--model", "mlp:2-20-2", "--weights", "random:1", "--target", "0", "--recipe", "lucid"}, "takes vectors"},
      {{"maximize", "--model", "lenet"}, "wants a unit"},
      {{"maximize", "--model", "lenet", "--layer", "conv1"}, "names no channel"},
      {{"maximize", "--model", "lenet", "--target", "3", "--recipe", "dali"}, "unknown recipe"},
      {{"maximize", "--model", "lenet", "--target", "3", "--steps", "0"}, "--steps"},
      {{"maximize", "--model", "lenet", "--target", "3", "--size", "5"}, "images of 5x5"},
      {{"maximize", "--model", "lenet", "--target", "3", "--steps", "2", "--frames", "5"}, "5 frames of 2 steps"},
      {{"maximize", "--model", "lenet", "--target", "3", "--recipe", "amirli"}, "images of 56x56"},
      {{"maximize", "--model", "lenet", "--target", "3", digit(3)}, "makes its images itself"},
      {{"maximize", "--model", "lenet", "--target", "3", "--diversity", "1"}, "--copies"},
      {{"maximize", "--model", "lenet", "--target", "3", "--clip-exact", "20"}, "exact clipping"},
      {{"maximize", "--model", "lenet", "--target", "3", "--tv", "1"}, "of images of pixels"},
      {{"maximize", "--model", "lenet", "--target", "3", "--crops", "4"}, "neither moved"},
      {{"maximize", "--model", "lenet", "--target", "3", "--spectrum", digit(3)}, "of phases"},
      {{"maximize", "--model", "lenet", "--target", "3", "--recipe", "maco", "--start", digit(3)}, "image of pixels"},
      {{"maximize", "--model", "lenet", "--target", "3", "--recipe", "maco", "--noise", "-1"}, "--noise"},
      {{"invert", "--model", "lenet", "--layer", "conv1", "--recipe", "maco", digit(3)}, "seen whole"},
      {{"maximize", "--model", "lenet", "--target", "3", "--recipe", "yosinski", "--clip-exact", "20", "--clip-norm", "3"}, "exclude"},
      {{"maximize", "--model", "lenet", "--target", "3", "--recipe", "yosinski", "--clip-exact", "100"}, "percentile 100"},
      {{"invert", "--model", "lenet", digit(3)}, "wants --layer"},
  };
  for (const auto& [arguments, what] : cases) {
    std::vector<std::string> all = arguments;
    all.insert(all.end(), {"-o", folder / "out"});
    const Outcome outcome = run_switchback(all);
    EXPECT_EQ(outcome.code, 2) << outcome.line << outcome.err;
    EXPECT_NE(outcome.err.find(what), std::string::npos) << outcome.line << "\n" << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
}

}  // namespace
}  // namespace switchback::test
