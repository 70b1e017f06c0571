// Fills and channel means against direct computations, the chart of channels, and the command `switchback channels`.
#include "viz/methods/channels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "tests/support/cli_run.h"
#include "engine/files/npy.h"
#include "engine/zoo/zoo.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"
#include "viz/pictures/grid.h"
#include "viz/methods/inspect.h"

namespace switchback::test {
namespace {

using nlohmann::json;

Tensor wave(Dims dims) {
  Tensor t(std::move(dims));
  for (int64_t i = 0; i < t.count(); ++i) t[i] = std::sin(0.7f * float(i)) + 0.3f * std::cos(0.05f * float(i));
  return t;
}

// ---- fills

// The blur as the plain sum over a square of offsets, not separated: the weight of offset (i, j) is
// exp(-(i² + j²) / 2σ²), and all weights together are 1.
double blurred_pixel(const float* plane, int64_t h, int64_t w, int64_t row, int64_t col, double sigma) {
  const int64_t r = int64_t(std::ceil(4 * sigma));
  double sum = 0, all = 0;
  for (int64_t i = -r; i <= r; ++i)
    for (int64_t j = -r; j <= r; ++j) {
      const double weight = std::exp(-double(i * i + j * j) / (2 * sigma * sigma));
      const int64_t y = std::clamp<int64_t>(row + i, 0, h - 1), x = std::clamp<int64_t>(col + j, 0, w - 1);
      sum += weight * plane[y * w + x];
      all += weight;
    }
  return sum / all;
}

TEST(Fill, BlurIsTheGaussianOverASquare) {
  const Shape image{1, 2, 9, 14};
  const Tensor x = wave({2, 9, 14});
  for (const double sigma : {0.0, 0.4, 1.25, 5.0}) {  // 0: 10 · 9 / 224; 5: wider than the image
    const Tensor blurred = baseline({Fill::Kind::blur, 0, sigma}, x.data(), image);
    ASSERT_EQ(blurred.dims(), (Dims{2, 9, 14}));
    const double used = sigma > 0 ? sigma : 10.0 * 9 / 224;
    for (int64_t c = 0; c < 2; ++c)
      for (int64_t row = 0; row < 9; ++row)
        for (int64_t col = 0; col < 14; ++col) {
          const double want = blurred_pixel(x.data() + c * 126, 9, 14, row, col, used);
          // One rounding to float; everything before is double.
          EXPECT_NEAR(blurred[(c * 9 + row) * 14 + col], want, 1e-7 * (1 + std::abs(want)))
              << sigma << " " << row << " " << col;
        }
  }
  EXPECT_NE(std::memcmp(baseline({Fill::Kind::blur}, x.data(), image).data(), x.data(), 126 * sizeof(float)), 0);
}

TEST(Fill, ConstantsAndMeans) {
  const Shape image{1, 2, 3, 4};
  Tensor x({2, 3, 4});
  for (int64_t i = 0; i < 24; ++i) x[i] = float(i);
  const Tensor zero = baseline({}, x.data(), image), mean = baseline({Fill::Kind::mean}, x.data(), image),
               constant = baseline({Fill::Kind::value, -2.5f}, x.data(), image);
  for (int64_t i = 0; i < 24; ++i) {
    EXPECT_EQ(zero[i], 0);
    EXPECT_EQ(constant[i], -2.5f);
    EXPECT_EQ(mean[i], i < 12 ? 5.5f : 17.5f);
  }
}

TEST(Fill, BoxesAreCutAtTheBorder) {
  const Shape image{1, 2, 4, 5};
  Tensor x = wave({2, 4, 5});
  const Tensor before = x.clone(), fill = baseline({Fill::Kind::value, 9}, x.data(), image);
  fill_box({.row = 2, .col = -1, .height = 5, .width = 3}, fill, x.data(), image);
  for (int64_t c = 0; c < 2; ++c)
    for (int64_t r = 0; r < 4; ++r)
      for (int64_t q = 0; q < 5; ++q) {
        const int64_t i = (c * 4 + r) * 5 + q;
        EXPECT_EQ(x[i], r >= 2 && q < 2 ? 9 : before[i]) << c << r << q;
      }
}

// ---- channel means

// A convolution with whole weights and a ReLU: on whole pixels every sum is exact.
Net whole_numbers() {
  Net net("whole", {1, 2, 5, 6});
  net.add("conv", conv2d(2, 4, 3, 1, 1));
  net.add("relu", ReLU{});
  net.fill([](const Parameter& p, int64_t i) { return p.name == "bias" ? float(i - 1) : float((i * 7 + i / 5) % 5 - 2); });
  return net;
}

// The values of conv for one image [2,5,6], [4,5,6].
std::vector<double> naive_conv(const Net& net, const float* x) {
  const Tensor weight = net.weights.tensor(1, "weight"), bias = net.weights.tensor(1, "bias");
  std::vector<double> out;
  for (int64_t o = 0; o < 4; ++o)
    for (int64_t r = 0; r < 5; ++r)
      for (int64_t q = 0; q < 6; ++q) {
        double sum = bias[o];
        for (int64_t c = 0; c < 2; ++c)
          for (int64_t i = 0; i < 3; ++i)
            for (int64_t j = 0; j < 3; ++j) {
              const int64_t y = r + i - 1, z = q + j - 1;
              if (y < 0 || y >= 5 || z < 0 || z >= 6) continue;
              sum += double(weight[((o * 2 + c) * 3 + i) * 3 + j]) * double(x[(c * 5 + y) * 6 + z]);
            }
        out.push_back(sum);
      }
  return out;
}

class VizChannels : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(VizChannels);

TEST_P(VizChannels, MeansOfImagesAndOccludedCopiesAreExact) {
  const Net net = whole_numbers();
  ctx.conv = ConvAlgorithm::direct;  // Winograd's fractions would round
  Tensor x({2, 2, 5, 6});
  for (int64_t i = 0; i < x.count(); ++i) x[i] = float((i * 5) % 11 - 4);
  ChannelOptions options;
  options.boxes = {{1, 2, 3, 2}, {0, 0, 5, 6}};
  options.fill = {Fill::Kind::value, 3};
  options.batch = 4;  // six copies: 4 and 2
  const std::vector<int> nodes = {net.find("relu"), net.find("conv")};
  const std::vector<Tensor> means = channel_means(ctx, net, x, nodes, options);
  ASSERT_EQ(means.size(), 2u);
  ASSERT_EQ(means[0].dims(), (Dims{2, 3, 4}));
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t copy = 0; copy < 3; ++copy) {
      Tensor seen = batch_item(x, i);
      for (int64_t e = 0; e < 60 && copy > 0; ++e) {
        const int64_t row = e / 6 % 5, col = e % 6;
        if (copy == 2 || (row >= 1 && row < 4 && col >= 2 && col < 4)) seen[e] = 3;
      }
      const std::vector<double> values = naive_conv(net, seen.data());
      for (int64_t c = 0; c < 4; ++c) {
        double sum = 0, positive = 0;
        for (int64_t e = c * 30; e < (c + 1) * 30; ++e)
          sum += values[size_t(e)], positive += std::max(0.0, values[size_t(e)]);
        EXPECT_EQ(means[0][(i * 3 + copy) * 4 + c], float(positive / 30)) << i << copy << c;
        EXPECT_EQ(means[1][(i * 3 + copy) * 4 + c], float(sum / 30)) << i << copy << c;
      }
    }
}

TEST_P(VizChannels, BatchesDoNotChangeThem) {
  Net net = make_network("lenet");
  net.weights = random_weights(net, 2);
  const Tensor x = wave({2, 1, 28, 28});
  ChannelOptions options;
  options.boxes = {{4, 4, 8, 8}, {10, 12, 6, 9}};
  options.fill = {Fill::Kind::blur};
  const std::vector<int> nodes = {net.find("conv2"), net.output()};
  std::vector<Tensor> first;
  for (const int64_t batch : {1, 4, 6}) {
    options.batch = batch;
    std::vector<Tensor> means = channel_means(ctx, net, x, nodes, options);
    if (first.empty())
      first = std::move(means);
    else
      for (size_t k = 0; k < nodes.size(); ++k)
        EXPECT_EQ(std::memcmp(means[k].data(), first[k].data(), size_t(first[k].count()) * sizeof(float)), 0) << batch;
  }
  // The second image alone: its copies are filled from it, and not from the first.
  const std::vector<Tensor> second = channel_means(ctx, net, batch_item(x, 1), nodes, options);
  EXPECT_EQ(std::memcmp(second[0].data(), first[0].data() + 3 * 64, 3 * 64 * sizeof(float)), 0);
  EXPECT_EQ(first[0].dims(), (Dims{2, 3, 64}));
  EXPECT_EQ(first[1].dims(), (Dims{2, 3, 10}));
  for (int64_t i = 0; i < 2; ++i)  // an occluded copy differs, and only it
    for (int64_t copy = 1; copy < 3; ++copy)
      EXPECT_NE(std::memcmp(first[0].data() + i * 3 * 64, first[0].data() + (i * 3 + copy) * 64, 64 * sizeof(float)),
                0);
}

TEST(Channels, RanksSharesAndAverages) {
  Tensor means({2, 2, 5});
  const float values[] = {1, 5, 3, 5, 0, /**/ 2, 0, 4, 1, 3, /**/ 3, 1, 3, 7, 2, /**/ 0, 0, 0, 0, 0};
  std::copy_n(values, 20, means.data());
  const Tensor one = average_means(means, 0, 1), both = average_means(means, 0, 2);
  EXPECT_EQ(top_channels(one, 0, 3), (std::vector<int64_t>{1, 3, 2})) << "the lower number first among equals";
  EXPECT_EQ(top_channels(one, 1, 3), (std::vector<int64_t>{2, 4, 0}));
  EXPECT_EQ(shared_channels(top_channels(one, 0, 3), top_channels(one, 1, 3)), 1);
  EXPECT_EQ(top_channels(one, 0, 9).size(), 5u) << "no more than there are";
  EXPECT_EQ(top_channels(both, 0, 1), (std::vector<int64_t>{3})) << "(5 + 7) / 2";
  EXPECT_EQ(both[0], 2);
  EXPECT_EQ(both[5], 1);
}

TEST(Channels, ValuesBeforeTheReluAreKnown) {
  const Net lenet = make_network("lenet"), resnet = make_network("resnet18");
  const auto names = [](const Net& net, const std::string& node) {
    std::vector<std::string> out;
    for (int i : nodes_to_relu(net, net.find(node))) out.push_back(net.nodes[size_t(i)].name);
    return out;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(names(resnet, "conv1"), (Names{"bn1", "relu"}));
  EXPECT_EQ(names(resnet, "layer1.0.bn1"), (Names{"layer1.0.relu"}));
  EXPECT_EQ(names(resnet, "layer1.0.add"), (Names{"layer1.0.relu_1"}));
  EXPECT_EQ(names(resnet, "layer1.0.bn2"), Names{}) << "an addition comes first";
  EXPECT_EQ(names(resnet, "layer1.0.relu"), Names{});
  EXPECT_EQ(names(resnet, "fc"), Names{});
}

// ---- the chart

int pixels_of(const Image& image, Rgb color) {
  int count = 0;
  for (size_t i = 0; i + 2 < image.pixels.size(); i += 3)
    count += image.pixels[i] == color[0] && image.pixels[i + 1] == color[1] && image.pixels[i + 2] == color[2];
  return count;
}

TEST(ColumnChart, BarsHaveTheirHeightsAndColors) {
  const std::vector<float> values = {1, 0.5f, -1, 0};
  ColumnOptions options;
  options.width = 40;  // bars of 9 pixels and a gap
  options.height = 100;
  options.marked = {1};
  const Image chart = pixels(column_chart(values, options));
  // The scale is -1 … 1, 50 pixels a side. The line of the zero, 1 pixel high, covers the top row of the bar below.
  EXPECT_EQ(pixels_of(chart, options.bar), 9 * 50 + 9 * 49);
  EXPECT_EQ(pixels_of(chart, options.mark), 9 * 25);
  const std::vector<float> many(4500, 1.f);  // three values a bar, 1500 bars
  ColumnOptions plain;
  plain.height = 10;
  EXPECT_EQ(pixels_of(pixels(column_chart(many, plain)), plain.bar), 1500 * 10);
  EXPECT_EQ(pixels_of(pixels(column_chart(std::vector<float>(7, 0.f), plain)), plain.bar), 0);
}

// ---- the command

const std::string kSamples = std::string(SWITCHBACK_SOURCE_DIR) + "/weights/samples/";

json channels_json(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"channels", "--model", "lenet", "--json"});
  const Outcome o = run_switchback(arguments);
  EXPECT_EQ(o.code, 0) << o.line << "\n" << o.err;
  return o.json();
}

TEST(CliChannels, TableArraysAndPicture) {
  const TempFolder folder;
  const json d = channels_json({"--layer", "relu1,relu2", "--box", "8,6,12,16", "--box", "0,0,28,28", "--fill", "0",
                                "--save", "png,npy", "-o", folder.path(), kSamples + "digit_3.png"});
  const json activations = run_switchback({"activations", "--model", "lenet", "--layer", "relu2", "--save", "npy",
                                           "--json", "-o", folder.path(), kSamples + "digit_3.png"})
                               .json();
  ASSERT_EQ(d["inputs"].size(), 1u);
  ASSERT_EQ(d["inputs"][0]["files"].size(), 5u);
  const std::string stem = folder / "digit_3.channels-relu2-box8,6,12,16+0,0,28,28";
  const Tensor means = read_npy(stem + ".npy"), occluded = read_npy(stem + "-occluded.npy");
  const Tensor maps = read_npy(result(activations, ".npy"));
  ASSERT_EQ(means.dims(), (Dims{1, maps.dim(1)}));
  ASSERT_EQ(occluded.dims(), (Dims{1, 2, maps.dim(1)}));
  EXPECT_EQ(d["inputs"][0]["files"][4]["axes"], json({"N", "B", "C"}));
  const int64_t place = maps.dim(2) * maps.dim(3);
  for (int64_t c = 0; c < maps.dim(1); ++c) {
    double sum = 0;
    for (int64_t e = 0; e < place; ++e) sum += maps[c * place + e];
    EXPECT_EQ(means[c], float(sum / double(place))) << c;
  }
  const json& layer = d["inputs"][0]["layers"][1];
  EXPECT_EQ(layer["layer"], "relu2");
  ASSERT_EQ(layer["top"].size(), 10u);
  float last = INFINITY;
  for (const json& entry : layer["top"]) {
    EXPECT_EQ(entry["mean"].get<float>(), means[entry["channel"].get<int64_t>()]);
    EXPECT_LE(entry["mean"].get<float>(), last);
    last = entry["mean"].get<float>();
  }
  ASSERT_EQ(layer["occluded"].size(), 2u);
  for (size_t b = 0; b < 2; ++b) {
    std::set<int64_t> clean, now;
    for (const json& entry : layer["top"]) clean.insert(entry["channel"].get<int64_t>());
    int64_t shared = 0;
    for (const json& entry : layer["occluded"][b]["top"])
      shared += int64_t(clean.count(entry["channel"].get<int64_t>()));
    EXPECT_EQ(layer["occluded"][b]["shared"], shared);
  }
  EXPECT_EQ(layer["occluded"][0]["box"], json({8, 6, 12, 16}));
  EXPECT_LT(layer["occluded"][1]["shared"], 10) << "nothing is left of the digit";
  EXPECT_EQ(d["layers"][1]["top"], layer["top"]) << "one image is its own average";
  EXPECT_EQ(d["layers"][0]["note"], nullptr);
}

TEST(CliChannels, SeveralImagesAreAveraged) {
  const TempFolder folder;
  const json d = channels_json({"--layer", "fc1", "--top", "3", "--save", "png,npy", "-o", folder.path(),
                                kSamples + "digit_3.png", kSamples + "digit_8.png"});
  EXPECT_EQ(d["average"], folder / "average.channels-fc1-top3.png");
  const Tensor three = read_npy(result(d, ".npy")), eight = read_npy(result(d, ".npy", 1));
  ASSERT_EQ(d["layers"][0]["top"].size(), 3u);
  for (const json& entry : d["layers"][0]["top"]) {
    const int64_t c = entry["channel"];
    EXPECT_FLOAT_EQ(entry["mean"].get<float>(), (three[c] + eight[c]) / 2);
  }
  EXPECT_FALSE(d["layers"][0].contains("occluded"));
  EXPECT_EQ(d["layers"][0]["note"], "its value before relu3");
}

TEST(CliChannels, WrongUsage) {
  const std::string digit = kSamples + "digit_3.png";
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {{digit}, "--layer is missing"},
      {{"--layer", "conv9", digit}, "conv2"},
      {{"--layer", "conv1,conv1", digit}, "twice"},
      {{"--layer", "conv1", "--box", "1,2,3", digit}, "is no box"},
      {{"--layer", "conv1", "--box", "1,2,3,x", digit}, "no whole number"},
      {{"--layer", "conv1", "--box", "1,2,0,4", digit}, "out of range"},
      {{"--layer", "conv1", "--box", "20,2,9,4", digit}, "x + w <= 28"},
      {{"--layer", "conv1", "--box", "2,2,9,4", "--fill", "grey", digit}, "one of: 0, mean, blur"},
      {{"--layer", "conv1", "--box", "2,2,9,4", "--fill", "inf", digit}, "one of: 0, mean, blur"},
  };
  for (const auto& [arguments, says] : cases) {
    const TempFolder folder;
    std::vector<std::string> words = {"channels", "--model", "lenet", "-o", folder / "out"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const Outcome o = run_switchback(words);
    EXPECT_EQ(o.code, 2) << o.line << o.err;
    EXPECT_NE(o.err.find(says), std::string::npos) << o.line << "\n" << o.err;
    EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
    std::error_code none;
    std::filesystem::remove(folder / "out", none);  // may be there, but empty
    EXPECT_EQ(folder.files(), 0u);
  }
}

}  // namespace
}  // namespace switchback::test
