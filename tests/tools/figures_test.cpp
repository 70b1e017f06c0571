// The command's pictures: figures with words, inputs and bars, bare maps, SVG, and the options of colours.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "engine/files/image.h"
#include "engine/files/npy.h"
#include "tests/support/cli_run.h"
#include "tests/support/temp_folder.h"
#include "viz/pictures/render.h"

namespace switchback::test {
namespace {

using nlohmann::json;

json figure(const TempFolder& folder, std::vector<std::string> words, const std::string& save = "png") {
  words.insert(words.end(), {"--model", "lenet", "--save", save, "--json", "-o", folder / "out"});
  return succeed_json(words);
}

int occurrences(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

// The text of an SVG, its pieces with spaces between them.
std::string words_of(const std::string& svg) {
  std::string words;
  for (size_t at = svg.find("<text"); at != std::string::npos; at = svg.find("<text", at + 1)) {
    const size_t from = svg.find('>', at) + 1;
    words += svg.substr(from, svg.find('<', from) - from) + " ";
  }
  return words;
}

// Whether `part` stands in `whole`, pixel for pixel.
bool contains(const Image& whole, const Image& part) {
  const auto row_at = [&](int x, int y, int r) {
    return std::equal(part.at(0, r), part.at(0, r) + part.row_size(), whole.at(x, y + r));
  };
  for (int y = 0; y + part.height <= whole.height; ++y)
    for (int x = 0; x + part.width <= whole.width; ++x) {
      int r = 0;
      while (r < part.height && row_at(x, y, r)) ++r;
      if (r == part.height) return true;
    }
  return false;
}

TEST(CliFigures, OneInputStandsBesideItsMapWithAllWords) {
  TempFolder folder;
  const json d = figure(folder, {"gradient", "--rule", "guided", digit(3)}, "png,svg,npy");
  const json files = d["inputs"][0]["files"];
  ASSERT_EQ(files.size(), 3u);
  EXPECT_EQ(files[0]["path"], folder / "out/digit_3.guided.png");
  EXPECT_EQ(files[1]["path"], folder / "out/digit_3.guided.svg");
  const std::string svg = bytes_of(files[1]["path"]), words = words_of(svg);
  for (const char* part :
       {"Guided backpropagation, lenet", "weights: lenet.safetensors", "digit_3.png", "class 3, 100.0 %", "logit "})
    EXPECT_NE(words.find(part), std::string::npos) << part << " in " << words;
  EXPECT_EQ(occurrences(svg, "<image "), 3) << "input, map and bar";
  EXPECT_NE(svg.find("&quot;command_line&quot;"), std::string::npos) << "the run is in the metadata";
  // The bare map is in the figure, beside the input.
  const json plain = figure(folder, {"gradient", "--rule", "guided", "--plain", digit(3)});
  EXPECT_EQ(result(plain, ".png"), folder / "out/digit_3.guided-plain.png");
  const Tensor map = read_npy(files[2]["path"]);
  const Image bare = load_image(result(plain, ".png"));
  EXPECT_TRUE(bare == enlarge_to_at_least(signed_rgb(map.data(), 1, 28, 28, ChannelOrder::grey), 224));
  const Image whole = load_image(files[0]["path"]);
  EXPECT_TRUE(contains(whole, bare));
  EXPECT_TRUE(contains(whole, enlarge_to_at_least(load_image(digit(3)), 224)));
}

TEST(CliFigures, ColorOptionsChangePicturesAlone) {
  TempFolder folder;
  const json usual = figure(folder, {"gradient", digit(4)}, "npy");
  const std::string array = bytes_of(result(usual, ".npy"));
  const Tensor map = read_npy(result(usual, ".npy"));
  const std::vector<float> sum = absolute_sum(map.data(), 1, 28, 28);
  const auto drawn = [&](std::vector<std::string> words, ColorMap colors, Range range) {
    words.insert(words.begin(), {"gradient", digit(4), "--plain"});
    const json d = figure(folder, words, "png,npy");
    EXPECT_EQ(bytes_of(result(d, ".npy")), array);
    EXPECT_TRUE(load_image(result(d, ".png")) == enlarge_to_at_least(heatmap(sum.data(), 28, 28, colors, range), 224))
        << fmt::format("{}", fmt::join(words, " "));
  };
  const Range all = value_range(sum);
  drawn({}, ColorMap::grey, {all.lo, percentile(sum, 99)});
  drawn({"--colormap", "inferno"}, ColorMap::inferno, {all.lo, percentile(sum, 99)});
  drawn({"--clip", "90"}, ColorMap::grey, {all.lo, percentile(sum, 90)});
  drawn({"--clip", "none", "--colormap", "jet"}, ColorMap::jet, all);
}

TEST(CliFigures, ScaleIsTheirDensity) {
  TempFolder folder;
  const Image one = load_image(result(figure(folder, {"cam", digit(8)}), ".png"));
  const Image two = load_image(result(figure(folder, {"cam", "--scale", "2", digit(8)}), ".png"));
  EXPECT_EQ(two.width, 2 * one.width);
  EXPECT_EQ(two.height, 2 * one.height);
}

TEST(CliFigures, OneScaleForAllPanelsWhereItIsAskedFor) {
  TempFolder folder;
  const auto svg_of = [&](const char* scale) {
    return bytes_of(
        result(figure(folder, {"gradient", "--target", "all", "--panel-scale", scale, digit(8)}, "svg"), ".svg"));
  };
  EXPECT_EQ(occurrences(svg_of("own"), "<image "), 1 + 10 + 10) << "the input, maps, and a bar for each";
  EXPECT_EQ(occurrences(svg_of("shared"), "<image "), 1 + 10 + 1);
}

TEST(CliFigures, OcclusionLeavesThePhotoWhereNothingHappens) {
  TempFolder folder;
  const json d = figure(folder, {"occlusion", "--mask", "8", "--stride", "4", "--plain", digit(4)}, "png,npy");
  const Image heat = load_image(result(d, ".png")), photo = enlarge_to_at_least(load_image(digit(4)), 224);
  ASSERT_EQ(heat.width, photo.width);
  int same = 0, coloured = 0;
  for (size_t i = 0; i < heat.pixels.size(); i += 3) {
    int most = 0;
    for (size_t c = 0; c < 3; ++c) most = std::max(most, std::abs(int(heat.pixels[i + c]) - photo.pixels[i + c]));
    if (most < 26) ++same;
    if (most > 60) ++coloured;
  }
  EXPECT_GT(same, heat.width * heat.height / 20);
  EXPECT_GT(coloured, heat.width * heat.height / 20);
}

TEST(CliFigures, WhatIsLeftOutIsSaid) {
  TempFolder folder;
  const auto run = [&](std::vector<std::string> words) {
    words.insert(words.end(), {"--model", "lenet", "--save", "svg", "-o", folder / "out"});
    return succeed(words).out;
  };
  const auto words = [&](const std::string& name) { return words_of(bytes_of(folder / ("out/" + name + ".svg"))); };
  std::string out = run({"activations", "--layer", "fc1", digit(6)});
  EXPECT_NE(out.find("the 64 strongest of 200 channels, by their mean; --channels all shows all"), std::string::npos)
      << out;
  EXPECT_NE(words("digit_6.activations-fc1").find("64 strongest of 200 channels"), std::string::npos);
  out = run({"activations", "--layer", "fc1", "--channels", "all", digit(6)});
  EXPECT_EQ(out.find("strongest"), std::string::npos);
  for (const char* channel : {" 0 ", " 77 ", " 199 "})
    EXPECT_NE(words("digit_6.activations-fc1-channels_all").find(channel), std::string::npos) << channel;
  out = run({"filters", "--layer", "conv2", "--filters", "0-3"});
  EXPECT_NE(out.find("the first 16 of 32 channels; --channels all shows all"), std::string::npos) << out;
  EXPECT_NE(words("lenet.filters-conv2-filters0-3").find("the first 16 of 32 channels"), std::string::npos);
  out = run({"filters", "--layer", "conv2", "--filters", "0-3", "--channels", "all"});
  EXPECT_EQ(out.find("the first"), std::string::npos);
  EXPECT_NE(words("lenet.filters-conv2-filters0-3-channels_all").find("ch 31"), std::string::npos);
}

TEST(CliFigures, SixteenEtalonsAreAGrid) {
  TempFolder folder;
  const Image picture = load_image(result(figure(folder, {"etalon", "--layer", "conv2:7:all", digit(4)}), ".png"));
  EXPECT_LT(picture.width, 2 * picture.height);
  EXPECT_GT(picture.width, picture.height / 2);
}

TEST(CliFigures, RowsOfADataSetStandInTheOrderOfItsClasses) {
  TempFolder folder;
  for (const char* name : {"a", "b", "c"}) std::filesystem::create_directories(folder / (std::string("set/") + name));
  for (const auto& [name, d] : {std::pair<std::string, int>{"c", 1}, {"a", 7}, {"b", 0}})
    std::filesystem::copy_file(digit(d), folder / ("set/" + name + "/x.png"));
  const json d = figure(folder, {"etalon", "--target", "1,7", folder / "set"}, "svg");
  const std::string words = words_of(bytes_of(d["inputs"][0]["files"][0]["path"]));
  EXPECT_LT(words.find(" a "), words.find(" b ")) << words;
  EXPECT_LT(words.find(" b "), words.find(" c ")) << words;
}

TEST(CliFigures, MethodsAndModelsSideBySide) {
  TempFolder folder;
  const json d = figure(
      folder,
      {"compare", "--methods", "gradient,guided,occlusion,cam", "--mask", "8", "--stride", "4", digit(3), digit(7)},
      "png,svg");
  ASSERT_EQ(d["inputs"].size(), 2u);
  EXPECT_EQ(d["inputs"][1]["target"], 7);
  EXPECT_EQ(d["inputs"][0]["maps"].size(), 4u);
  EXPECT_EQ(d["inputs"][0]["maps"][3]["method"], "cam");
  EXPECT_EQ(d["inputs"][0]["maps"][3]["details"]["method"], "gradcam");
  EXPECT_EQ(d["inputs"][0]["maps"][2]["details"]["mask"], json({8, 8}));
  const json files = d["inputs"][0]["files"];
  EXPECT_EQ(files[0]["path"],
            folder / "out/contact_sheet.compare-methods_gradient,guided,occlusion,cam-mask8-stride4.png");
  const std::string svg = bytes_of(files[1]["path"]), words = words_of(svg);
  for (const char* part : {"Methods compared, lenet", "Gradient ", "Guided backpropagation",
                           "Occlusion, mask 8, stride 4", "digit_3.png", "digit_7.png"})
    EXPECT_NE(words.find(part), std::string::npos) << part << " in " << words;
  EXPECT_EQ(occurrences(svg, "<image "), 2 * (1 + 4 + 4));
  // Each map is the one that its own command draws.
  const Image whole = load_image(files[0]["path"]);
  const json own = figure(folder, {"gradient", "--rule", "guided", "--plain", digit(7)});
  const Image large = load_image(result(own, ".png"));  // each of the map's pixels 8 x 8
  Image small = Image::blank(28, 28, 3);
  for (int y = 0; y < 28; ++y)
    for (int i = 0; i < 28; ++i) std::copy_n(large.at(8 * i, 8 * y), 3, small.at(i, y));
  EXPECT_TRUE(contains(whole, resized(small, 168, 168)));

  const json two =
      figure(folder, {"compare", "--methods", "gradient", "--weights", "random:1", "--weights", "random:2", digit(3)});
  ASSERT_EQ(two["inputs"].size(), 2u);
  EXPECT_EQ(two["inputs"][0]["weights"], "random:1");
  EXPECT_EQ(two["inputs"][1]["weights"], "random:2");
  EXPECT_EQ(result(two, ".png"), folder / "out/digit_3.compare-methods_gradient.png");
  EXPECT_EQ(run_switchback({"compare", "--model", "lenet", "--methods", "gradient,magic", digit(3)}).code, 2);
  EXPECT_EQ(run_switchback({"compare", "--model", "lenet", "--save", "npy", digit(3)}).code, 2);
}

TEST(CliFigures, ImagesThatComeOutStandBesideTheInput) {
  TempFolder folder;
  Tensor x({2, 3, 32, 32});
  for (int64_t i = 0; i < x.count(); ++i) x[i] = float(i % 91) / 91 - 0.5f;
  write_npy(folder / "x.npy", x);
  const json d = succeed_json({"classify", "--model", "autoencoder", "--weights", "random:0", "--save", "svg,npy",
                               "--json", "-o", folder / "out", folder / "x.npy"});
  const Tensor y = read_npy(result(d, ".npy"));
  ASSERT_EQ(y.dims(), x.dims());
  double absolute = 0, square = 0;
  const int64_t item = x.count() / 2;
  for (int64_t i = item; i < 2 * item; ++i)
    absolute += std::abs(double(y[i]) - x[i]), square += std::pow(double(y[i]) - x[i], 2);
  const json& entry = d["inputs"][1];
  EXPECT_NEAR(entry["reconstruction"]["mean_absolute_error"].get<double>(), absolute / double(item), 1e-9);
  EXPECT_NEAR(entry["reconstruction"]["root_mean_square_error"].get<double>(), std::sqrt(square / double(item)), 1e-9);
  EXPECT_FALSE(entry.contains("class"));
  const std::string svg = bytes_of(result(d, ".svg"));
  EXPECT_NE(words_of(svg).find("Reconstruction, autoencoder"), std::string::npos);
  EXPECT_EQ(occurrences(svg, "<image "), 2 * 4) << "input, output, error and its bar";
}

TEST(CliFigures, OptionsAreChecked) {
  TempFolder folder;
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong = {
      {{"--colormap", "rainbow"}, "RdBu_r"}, {{"--clip", "101"}, "0 to 100"},       {{"--clip", "nan"}, "--clip"},
      {{"--scale", "0"}, "--scale"},         {{"--panel-scale", "none"}, "shared"}, {{"--columns", "-1"}, "--columns"}};
  for (const auto& [options, about] : wrong) {
    std::vector<std::string> words = {"gradient", "--model", "lenet", "-o", folder / "out", digit(4)};
    words.insert(words.end(), options.begin(), options.end());
    const Outcome o = run_switchback(words);
    EXPECT_EQ(o.code, 2) << options[0];
    EXPECT_NE(o.err.find(about), std::string::npos) << o.err;
  }
  EXPECT_EQ(run_switchback({"cam", "--model", "lenet", "--alpha", "1.5", digit(4)}).code, 2);
}

}  // namespace
}  // namespace switchback::test
