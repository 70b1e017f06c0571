// Changes of images against their definitions, and `switchback perturb`.
#include "viz/methods/perturb.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "engine/zoo/zoo.h"
#include "kernels/noise/noise.h"
#include "tests/support/cli_run.h"
#include "tests/support/net.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/pixels.h"

namespace switchback::test {
namespace {

using nlohmann::json;
using Kind = Perturbation::Kind;

// A model of three channels with torchvision's normalisation, and one of LeNet's.
Model photos(ChannelOrder order = ChannelOrder::rgb) {
  Model model{make_network("lenet")};
  model.preprocess = imagenet_preprocess();
  model.preprocess.order = order;
  return model;
}
Model digits() {
  Model model{make_network("lenet")};
  model.preprocess = lenet_preprocess();
  return model;
}

Perturbation of(Kind kind, double amount = 0) {
  Perturbation p;
  p.name = "p";
  p.kind = kind;
  p.amount = amount;
  return p;
}

constexpr Shape kImage{1, 3, 6, 6};

// Pixels from 0 to 1, as the network's input.
Tensor photo(const Model& model, Shape image = kImage) {
  const PixelUnits units = pixel_units(model, image.c);
  Tensor x({image.c, image.h, image.w});
  for (int64_t e = 0; e < x.count(); ++e) {
    const size_t c = size_t(e / (image.h * image.w));
    x[e] = (0.5f + 0.4f * std::sin(0.7f * float(e))) * units.scale[c] + units.offset[c];
  }
  return x;
}

Tensor changed(const Perturbation& p, const Model& model, const Tensor& x, uint64_t seed = 0, uint32_t number = 0) {
  Context ctx;
  Tensor y(x.dims());
  perturb(ctx, p, model, {1, x.dim(0), x.dim(1), x.dim(2)}, x.data(), seed, number, y.data());
  return y;
}

bool same(const Tensor& a, const Tensor& b) { return std::ranges::equal(a.values(), b.values()); }

float pixel(const Model& model, const Tensor& x, int64_t c, int64_t i) {
  const PixelUnits units = pixel_units(model, x.dim(0));
  return (x[c * x.dim(1) * x.dim(2) + i] - units.offset[size_t(c)]) / units.scale[size_t(c)];
}

TEST(Perturb, ColoursAreThoseOfTheImageWhateverTheOrderOfChannels) {
  const Model rgb = photos(), bgr = photos(ChannelOrder::bgr);
  const Tensor x = photo(rgb), z = photo(bgr);
  const Tensor grey = changed(of(Kind::grey), rgb, x), grey_bgr = changed(of(Kind::grey), bgr, z);
  Perturbation brg = of(Kind::channels);
  brg.order = {2, 0, 1};
  const Tensor shuffled = changed(brg, rgb, x), shuffled_bgr = changed(brg, bgr, z);
  for (int64_t i = 0; i < 36; ++i) {
    const float want = 0.299f * pixel(rgb, x, 0, i) + 0.587f * pixel(rgb, x, 1, i) + 0.114f * pixel(rgb, x, 2, i);
    const float want_bgr = 0.299f * pixel(bgr, z, 2, i) + 0.587f * pixel(bgr, z, 1, i) + 0.114f * pixel(bgr, z, 0, i);
    for (int64_t c = 0; c < 3; ++c) {
      EXPECT_NEAR(pixel(rgb, grey, c, i), want, 1e-6);
      EXPECT_NEAR(pixel(bgr, grey_bgr, c, i), want_bgr, 1e-6);
    }
    for (int64_t c = 0; c < 3; ++c) EXPECT_NEAR(pixel(rgb, shuffled, c, i), pixel(rgb, x, (c + 2) % 3, i), 1e-6);
    EXPECT_NEAR(pixel(bgr, shuffled_bgr, 2, i), pixel(bgr, z, 0, i), 1e-6) << "red becomes blue";
    EXPECT_NEAR(pixel(bgr, shuffled_bgr, 1, i), pixel(bgr, z, 2, i), 1e-6) << "green becomes red";
  }
}

TEST(Perturb, BlurIsTheGaussianOfItsWindow) {
  const Perturbation p = window_blur(3);
  EXPECT_DOUBLE_EQ(p.amount, 0.8);
  EXPECT_NEAR(window_blur(5).amount, 1.1, 1e-12);
  const Model model = digits();
  Tensor x = Tensor::zeros({1, 7, 7});
  x[3 * 7 + 3] = 1;
  const Tensor y = changed(p, model, x);
  const double side = std::exp(-1 / (2 * 0.64)), sum = 1 + 2 * side;
  for (int64_t r = 0; r < 7; ++r)
    for (int64_t c = 0; c < 7; ++c) {
      const auto weight = [&](int64_t d) { return d == 0 ? 1 / sum : std::abs(d) == 1 ? side / sum : 0; };
      EXPECT_NEAR(y[r * 7 + c], weight(r - 3) * weight(c - 3), 1e-7);
    }
}

TEST(Perturb, SaltAndPepperAreDrawnByCounter) {
  const Model model = digits();
  const Shape image{1, 1, 50, 50};
  const Tensor x = photo(model, image);
  const PixelUnits units = pixel_units(model, 1);
  const Tensor some = changed(of(Kind::salt_pepper, 0.1), model, x, 7, 3), more = changed(of(Kind::salt_pepper, 0.2), model, x, 7, 3);
  int64_t black = 0, white = 0;
  for (int64_t e = 0; e < x.count(); ++e) {
    const uint32_t word = philox4x32({uint32_t(e / 4), 0, 1, 3}, {7, 0})[size_t(e % 4)];
    const double u = (double(word >> 8) + 0.5) * 0x1p-24;
    const float want = u < 0.05 ? units.offset[0] : u < 0.1 ? units.offset[0] + units.scale[0] : x[e];
    EXPECT_EQ(some[e], want) << e;
    black += some[e] == units.offset[0], white += some[e] == units.offset[0] + units.scale[0];
    EXPECT_TRUE(some[e] == x[e] || more[e] != x[e]) << "what a smaller share hits a larger one hits";
  }
  EXPECT_NEAR(double(black), 125, 40);
  EXPECT_NEAR(double(white), 125, 40);
  EXPECT_FALSE(same(some, changed(of(Kind::salt_pepper, 0.1), model, x, 7, 4))) << "another image";
}

TEST(Perturb, GaussianNoiseIsThatOfSmoothgradInPixels) {
  const Model model = photos();
  const Tensor x = photo(model);
  const PixelUnits units = pixel_units(model, 3);
  const Tensor y = changed(of(Kind::gaussian, 0.5), model, x, 5, 9);
  Context ctx;
  const std::vector<float> zeros(108, 0.f);
  std::vector<float> normals(108);  // NHWC
  write_noisy_input(ctx, zeros.data(), {.sigma = 1, .seed = 5, .image = 9}, {normals.data(), kImage, DType::f32});
  int64_t limited = 0;
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t i = 0; i < 36; ++i) {
      const float want = pixel(model, x, c, i) + 0.5f * normals[size_t(i * 3 + c)];
      limited += want < 0 || want > 1;
      EXPECT_NEAR(pixel(model, y, c, i), std::clamp(want, 0.f, 1.f), 1e-5);
      EXPECT_GE(y[c * 36 + i], units.lowest(size_t(c)));
      EXPECT_LE(y[c * 36 + i], units.highest(size_t(c)));
    }
  EXPECT_GT(limited, 5);
}

TEST(Perturb, TurningByARightAngleMovesPixels) {
  const Model model = photos();
  const Tensor x = photo(model), y = changed(of(Kind::rotate, 90), model, x);
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t r = 0; r < 6; ++r)
      for (int64_t q = 0; q < 6; ++q)
        EXPECT_NEAR(y[(c * 6 + r) * 6 + q], x[(c * 6 + q) * 6 + 5 - r], 2e-6) << "counter-clockwise";
  const Tensor black = changed(of(Kind::rotate, 45), model, x);
  EXPECT_NEAR(pixel(model, black, 0, 0), 0, 1e-6) << "a corner";
}

TEST(Perturb, SeveritiesTakeTheConstantsOfTheSize) {
  const Model model = digits();
  Perturbation p = of(Kind::salt_pepper);
  p.severity = 4;
  for (const auto& [side, share] : {std::pair<int64_t, double>{28, 0.05}, {64, 0.08}, {72, 0.17}}) {
    const Tensor x = photo(model, {1, 1, side, side});
    EXPECT_TRUE(same(changed(p, model, x), changed(of(Kind::salt_pepper, share), model, x))) << side;
  }
}

// ---- the command

std::string digits_in(const TempFolder& folder) {
  for (const int d : {1, 3, 7}) {
    const std::string to = folder / "digits/" + std::to_string(d);
    std::filesystem::create_directories(to);
    std::filesystem::copy_file(digit(d), to + "/digit.png");
  }
  return folder / "digits";
}

TEST(CliPerturb, OverADataSetInAnyBatchAndWithAnyThreads) {
  const TempFolder folder;
  const std::string data = digits_in(folder);
  const std::vector<std::string> arguments{"perturb", data, "--model", "lenet", "--kind",
                                           "blur:5,impulse,occlude:8,6,12,8,rotate:180", "--json", "-o", folder / "out"};
  const json all = succeed_json(arguments);
  ASSERT_EQ(all["kinds"].size(), 9u);
  const json& original = all["kinds"][0];
  EXPECT_EQ(original["kind"], "original");
  EXPECT_EQ(original["accuracy"], 1);
  EXPECT_EQ(original["same"], 1);
  EXPECT_EQ(all["kinds"][2]["kind"], "impulse:1");
  EXPECT_EQ(all["kinds"][6]["severity"], 5);
  EXPECT_EQ(all["kinds"][7]["kind"], "occlude:8,6,12,8");
  int64_t right = 0, wrong = 0;
  for (const json& kind : all["kinds"]) {
    EXPECT_EQ(kind["images"], 3);
    for (const json& n : kind["histogram"]["right"]) right += n.get<int64_t>();
    for (const json& n : kind["histogram"]["wrong"]) wrong += n.get<int64_t>();
    if (kind["kind"] != "original") {
      EXPECT_EQ(kind["spearman"]["n"], 3);
      EXPECT_LT(kind["spearman"]["mean"].get<double>(), 1);
    }
  }
  EXPECT_EQ(right + wrong, 27);
  EXPECT_GT(wrong, 0) << "a digit upside down is another one, at least once";
  std::vector<std::string> otherwise = arguments;
  otherwise.insert(otherwise.end(), {"--batch", "1", "--threads", "1"});
  EXPECT_EQ(succeed_json(otherwise)["kinds"], all["kinds"]);
}

TEST(CliPerturb, ImagesBesideTheirMaps) {
  const TempFolder folder;
  const json d = succeed_json({"perturb", digit(3), digit(7), "--model", "lenet", "--kind", "blur:3,salt-pepper:0,gaussian:0.3",
                               "--method", "gradcam", "--json", "-o", folder / "out"});
  ASSERT_EQ(d["inputs"].size(), 2u);
  const json& versions = d["inputs"][1]["versions"];
  ASSERT_EQ(versions.size(), 4u);
  EXPECT_EQ(versions[0]["target"], 7);
  EXPECT_EQ(versions[0]["probability"], versions[0]["original_probability"]);
  EXPECT_EQ(versions[2]["probability"], versions[0]["probability"]) << "no salt, no pepper";
  EXPECT_EQ(versions[2]["spearman"], 1);
  EXPECT_NE(versions[3]["probability"], versions[0]["probability"]);
  EXPECT_EQ(d["kinds"][2]["same"], 1);
  EXPECT_FALSE(d["kinds"][0].contains("accuracy"));
  EXPECT_TRUE(std::filesystem::exists(result(d, ".png")));
}

TEST(CliPerturb, WhatCannotBeIsSaid) {
  const TempFolder folder;
  const auto fails = [&](const std::string& kinds, const std::string& part, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{"perturb", digit(3), "--model", "lenet", "--kind", kinds, "-o", folder / "out"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome o = run_switchback(arguments);
    EXPECT_NE(o.code, 0) << o.line;
    EXPECT_NE(o.err.find(part), std::string::npos) << o.err;
  };
  fails("fog", "fog");
  fails("grey", "grey wants red, green and blue, but the input has 1 channel");
  fails("channels:bgr", "channels:bgr wants red, green and blue");
  fails("channels:bgg", "no order of r, g and b");
  fails("blur:4", "no middle");
  fails("blur", "--kind blur wants a value");
  fails("grey:2", "grey takes no value");
  fails("impulse:6", "6 is out of range");
  fails("gaussian-blur:1", "constants for ImageNet's sizes, but the input is 28x28");
  fails("salt-pepper:1.5", "out of range");
  fails("rotate:x", "'x' is no number");
  fails("occlude:20,20,12,8", "occlude:20,20,12,8 does not lie inside of the input");
  fails("blur:3,blur:3", "given twice");
  fails("blur:3", "--method", {"--method", "nothing"});
  fails("blur:3", "one target of each input", {"--target", "all"});
  fails("blur:3", "saves no arrays", {"--save", "npy"});
  for (const char* name : {"none/0/a.png", "none/1/b.png"}) folder.put(name, "no image");
  const Outcome none = run_switchback({"perturb", folder / "none", "--model", "lenet", "-o", folder / "out"});
  EXPECT_NE(none.code, 0) << none.line;
  EXPECT_NE(none.err.find("none of 2 images"), std::string::npos) << none.err;
  EXPECT_TRUE(!std::filesystem::exists(folder / "out") || names_in(folder / "out").empty());
}

TEST(CliPerturb, SingleFilesHaveNoiseOfTheirOwn) {
  const TempFolder folder;
  std::filesystem::copy_file(digit(3), folder / "a.png");
  std::filesystem::copy_file(digit(3), folder / "b.png");
  const json d = succeed_json({"perturb", folder / "a.png", folder / "b.png", "--model", "lenet", "--kind", "salt-pepper:0.1,gaussian:0.3", "--method",
                               "none", "--json", "-o", folder / "out"});
  const auto probability = [&](int file, int version) { return double(d["inputs"][size_t(file)]["versions"][size_t(version)]["probability"]); };
  EXPECT_EQ(probability(0, 0), probability(1, 0));
  EXPECT_NE(probability(0, 1), probability(1, 1));
  EXPECT_NE(probability(0, 2), probability(1, 2));
}

}  // namespace
}  // namespace switchback::test
