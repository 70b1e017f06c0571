// Occlusion: the incremental algorithm against full recomputation, full recomputation against pixels set by hand.
#include "viz/occlusion.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "engine/windows.h"
#include "engine/zoo.h"
#include "tests/on_device.h"
#include "tests/random_network.h"
#include "viz/inspect.h"

namespace switchback::test {
namespace {

using Algorithm = OcclusionOptions::Algorithm;

class VizOcclusion : public OnDevice {
 protected:
  OcclusionMaps run(const Network& net, const Tensor& x, const TargetSpec& target, OcclusionOptions options,
                    Algorithm how) {
    options.algorithm = how;
    return occlusion(ctx, net, x, target, {}, options);
  }

  // Both algorithms' maps differ by rounding only, relative to the scores. Returns the largest value of the map.
  double expect_agreement(const Network& net, const Tensor& x, const TargetSpec& target,
                          const OcclusionOptions& options, double tolerance = 2e-5) {
    const OcclusionMaps fast = run(net, x, target, options, Algorithm::incremental);
    const OcclusionMaps full = run(net, x, target, options, Algorithm::full);
    EXPECT_EQ(fast.values.dims(), full.values.dims());
    double scale = 0, largest = 0;
    for (const Explained& e : full.explained)
      for (double s : e.scores) scale = std::max(scale, std::abs(s));
    for (float v : full.values.values()) largest = std::max(largest, std::abs(double(v)));
    for (int64_t i = 0; i < full.values.count(); ++i) {
      EXPECT_NEAR(fast.values[i], full.values[i], tolerance * std::max(scale, largest)) << "at " << i;
      if (HasFailure()) break;
    }
    return largest;
  }
  int networks() const { return device.emulated ? 3 : 40; }
};
SWITCHBACK_ON_ALL_DEVICES(VizOcclusion);

Tensor wave(Dims dims) {
  Tensor t(std::move(dims));
  for (int64_t i = 0; i < t.count(); ++i) t[i] = std::sin(0.7f * float(i)) + 0.3f * std::cos(0.05f * float(i));
  return t;
}

OcclusionOptions masks(int64_t h, int64_t w, int64_t stride_h, int64_t stride_w) {
  OcclusionOptions options;
  options.mask_h = h, options.mask_w = w, options.stride_h = stride_h, options.stride_w = stride_w;
  return options;
}

Fill filled(Fill::Kind kind, float value = 0) {
  Fill fill;
  fill.kind = kind;
  fill.value = value;
  return fill;
}

// Whole-numbered weights and biases, small enough that every sum is exact.
void make_whole(Network& net, int64_t range) {
  for (size_t n = 0; n < net.nodes.size(); ++n)
    for (auto& [spec, tensor] : net.nodes[n].parameters())
      for (int64_t i = 0; i < tensor->count(); ++i)
        (*tensor)[i] = float((i * 31 + int64_t(n) * 7) % (2 * range + 1) - range);
  net.packed.reset();
}

TEST_P(VizOcclusion, ExactOnWholeNumbers) {
  Network net("exact", {1, 2, 17, 15});
  net.add("conv1", conv2d(2, 4, 3, 1, 1));
  const int relu1 = net.add("relu1", ReLU{});
  net.add("pool1", max_pool2d(3, 2, 1));
  const int conv2 = net.add("conv2", conv2d(4, 4, 3, 1, 2, 2));
  net.add("relu2", ReLU{6});
  net.add("conv3", conv2d(4, 4, 3, 1, 1, 1, 4));
  const int sum = net.add("add", Add{}, {net.output(), conv2});
  net.add("relu3", ReLU{});
  const int side = net.add("conv4", conv2d(4, 4, 1, 2), {relu1});
  net.add("cat", Concat{}, {net.find("relu3"), side});
  net.add("relu4", ReLU{});
  net.add("conv5", conv2d(8, 3, 3, 2, 0));
  net.add("relu5", ReLU{});
  const Shape map = net.shapes(net.input).back();
  net.add("flatten", Flatten{});
  net.add("fc", Linear{map.item(), 4, true});
  random_weights(net, 1);
  make_whole(net, 1);
  Tensor x({2, 2, 17, 15});
  for (int64_t i = 0; i < x.count(); ++i) x[i] = float(i * 7919 % 7 - 3);
  ASSERT_EQ(net.shapes(net.input)[size_t(sum)], net.shapes(net.input)[size_t(side)]);
  for (const auto& [h, w, stride] : {std::tuple{1, 1, 1}, {3, 2, 1}, {5, 5, 3}, {17, 4, 2}, {17, 15, 1}}) {
    const int64_t step = device.emulated ? 4 * stride : stride;
    OcclusionOptions options = masks(h, w, step, step);
    options.fill = filled(Fill::Kind::value, 2);
    const OcclusionMaps fast = run(net, x, {"all", "", Score::logit}, options, Algorithm::incremental);
    const OcclusionMaps full = run(net, x, {"all", "", Score::logit}, options, Algorithm::full);
    EXPECT_EQ(std::memcmp(fast.values.data(), full.values.data(), size_t(full.values.count()) * sizeof(float)), 0)
        << h << "x" << w;
  }
}

// By hand: the image with its pixels replaced, through an ordinary forward pass.
TEST_P(VizOcclusion, FullIsTheScoreOfTheChangedImage) {
  const Network net = random_network(3);
  const Tensor x = random_input(net, 1, 2);
  const Shape image = net.input;
  const int64_t step_h = device.emulated ? 7 : 3, step_w = device.emulated ? 8 : 4;
  OcclusionOptions options = masks(4, 5, step_h, step_w);
  options.fill = filled(Fill::Kind::mean);
  const OcclusionMaps maps = run(net, x, {"all", "", Score::nll}, options, Algorithm::full);
  ASSERT_EQ(maps.places.rows, (image.h - 4) / step_h + 1);
  ASSERT_EQ(maps.places.cols, (image.w - 5) / step_w + 1);
  const int64_t places = maps.places.rows * maps.places.cols, targets = maps.values.dim(1);
  for (int64_t i = 0; i < 2; ++i)
    for (const int64_t place : {int64_t(0), places / 2, places - 1}) {
      Tensor changed = batch_item(x, i);
      const int64_t top = place / maps.places.cols * step_h, left = place % maps.places.cols * step_w;
      for (int64_t c = 0; c < image.c; ++c) {
        double mean = 0;
        for (int64_t k = 0; k < image.h * image.w; ++k) mean += double(x[(i * image.c + c) * image.h * image.w + k]);
        mean /= double(image.h * image.w);
        for (int64_t r = top; r < top + 4; ++r)
          for (int64_t q = left; q < left + 5; ++q) changed[(c * image.h + r) * image.w + q] = float(mean);
      }
      const Tensor before = logits(ctx, net, batch_item(x, i)), after = logits(ctx, net, changed);
      for (int64_t t = 0; t < targets; ++t) {
        const Unit unit{net.output(), t};
        const double want = score_of(unit, Score::nll, before) - score_of(unit, Score::nll, after);
        EXPECT_NEAR(maps.values[(i * targets + t) * places + place], want, 1e-5 * (1 + std::abs(want)));
      }
    }
}

TEST_P(VizOcclusion, IncrementalIsFullOnRandomNetworks) {
  int moved = 0;
  for (int seed = 0; seed < networks(); ++seed) {
    SCOPED_TRACE("random network " + std::to_string(seed));
    const Network net = random_network(uint64_t(seed));
    const Tensor x = random_input(net, uint64_t(seed) + 100);
    OcclusionOptions options = masks(1 + seed % 7, 1 + seed % 5, 1 + seed % 3, 1 + seed % 4);
    if (seed % 9 == 8) options.mask_h = net.input.h, options.mask_w = net.input.w;
    options.cover = seed % 2;
    options.fill = filled(seed % 3 == 0   ? Fill::Kind::blur
                          : seed % 3 == 1 ? Fill::Kind::value
                                          : Fill::Kind::zero,
                          -0.5f);
    moved += expect_agreement(net, x, {"all", "", Score::logit}, options) > 0;
    if (HasFailure()) return;
  }
  EXPECT_GT(moved, 0.9 * networks()) << "masks that change nothing prove nothing";
}

TEST_P(VizOcclusion, IncrementalIsFullOnTheZoo) {
  for (const auto& [name, side] : {std::pair{"vgg11_bn", 64}, {"resnet18", 64}, {"alexnet", 79}, {"lenet", 28},
                                   {"resnet50", 64}, {"resnet50:dilated=0,1,1", 50}, {"resnext50_32x4d", 50},
                                   {"squeezenet1_0", 64}, {"squeezenet1_1", 64}, {"googlenet", 64},
                                   {"mobilenet_v2", 64}, {"caffenet", 55}, {"encoder_decoder", 64},
                                   {"autoencoder", 32}, {"context", 40}}) {
    if (device.emulated && std::string(name) != "lenet" && std::string(name) != "resnet18") continue;
    SCOPED_TRACE(name);
    const int64_t size = device.emulated && side > 32 ? 40 : side;
    const int64_t divide = std::string(name).starts_with("squeezenet") ? 8 : 16;  // else its last ReLU lets nothing pass
    Network net = make_network(name, {.divide_channels = divide, .classes = 6, .side = side});
    random_weights(net, 4);
    const Tensor x = wave({1, net.input.c, size, size});
    OcclusionOptions options = masks(9, 7, device.emulated ? 16 : 5, 8);
    EXPECT_GT(expect_agreement(net, x, {"all", "", Score::logit}, options), 0);
  }
}

TEST_P(VizOcclusion, DenseBlocksAndHiddenUnits) {
  Network net("dense", {1, 3, 20, 20});
  int all = net.add("stem", conv2d(3, 6, 3, 1, 1));
  for (int i = 0; i < 3; ++i) {
    const std::string name = "layer" + std::to_string(i);
    net.add(name + ".norm", BatchNorm2d{6 + 4 * i}, {all});
    net.add(name + ".relu", ReLU{});
    const int grown = net.add(name + ".conv", conv2d(6 + 4 * i, 4, 3, 1, 1, 1, 1, false));
    all = net.add(name + ".cat", Concat{}, {all, grown});
  }
  net.add("norm", BatchNorm2d{18});
  net.add("relu", ReLU{});
  net.add("lrn", LocalResponseNorm{});
  net.add("pool", AvgPool2d{});
  net.add("last", conv2d(18, 5, 3));
  net.add("gap", AdaptiveAvgPool2d{});
  net.add("flatten", Flatten{});
  random_weights(net, 3);
  const Tensor x = wave({1, 3, 20, 20});
  const OcclusionOptions options = device.emulated ? masks(5, 5, 5, 5) : masks(3, 3, 4, 5);
  EXPECT_GT(expect_agreement(net, x, {"all", "", Score::logit}, options), 0);
  EXPECT_GT(expect_agreement(net, x, {"1,2", "", Score::probability}, options), 0);
  EXPECT_GT(expect_agreement(net, x, {"max", "layer1.conv:2", Score::logit}, options), 0);  // before what follows it
  EXPECT_GT(expect_agreement(net, x, {"max", "relu:max:max", Score::logit}, options), 0);
  EXPECT_GT(expect_agreement(net, x, {"max", "lrn:3:10,9", Score::logit}, options), 0);
}

TEST_P(VizOcclusion, BatchesAndCompanyDoNotChangeAMap) {
  const Network net = random_network(11);
  const Tensor x = random_input(net, 5, 2);
  OcclusionOptions options = masks(3, 4, 3, 3);
  for (const Algorithm how : {Algorithm::incremental, Algorithm::full}) {
    options.batch = 0;
    const OcclusionMaps whole = run(net, x, {"all", "", Score::logit}, options, how);
    for (const int64_t batch : {1, 3}) {
      options.batch = batch;
      const OcclusionMaps other = run(net, x, {"all", "", Score::logit}, options, how);
      EXPECT_EQ(other.batch, batch);
      EXPECT_EQ(std::memcmp(other.values.data(), whole.values.data(), size_t(whole.values.count()) * sizeof(float)), 0);
    }
    const OcclusionMaps second = run(net, batch_item(x, 1), {"all", "", Score::logit}, options, how);
    const int64_t half = whole.values.count() / 2;
    EXPECT_EQ(std::memcmp(second.values.data(), whole.values.data() + half, size_t(half) * sizeof(float)), 0);
  }
}

TEST_P(VizOcclusion, OwnBoxes) {
  const Network net = random_network(7);
  const Tensor x = random_input(net, 9);
  OcclusionOptions options;
  options.boxes = {{0, 0, 2, 3},
                   {3, 4, 1, 1},
                   {int32_t(net.input.h) - 5, 2, 5, 6},
                   {0, 0, int32_t(net.input.h), int32_t(net.input.w)}};
  EXPECT_GT(expect_agreement(net, x, {"all", "", Score::logit}, options), 0);
  options.boxes.push_back({int32_t(net.input.h) - 1, 0, 2, 1});
  EXPECT_THROW(occlusion(ctx, net, x, {}, {}, options), Error);
}

// Where the network is affine, the first-order map is the exact one.
TEST_P(VizOcclusion, PreviewIsExactWithoutGates) {
  Network net("affine", {1, 2, 9, 8});
  net.add("conv", conv2d(2, 3, 3, 1, 1));
  net.add("flatten", Flatten{});
  net.add("fc", Linear{3 * 72, 4, true});
  random_weights(net, 2);
  const Tensor x = wave({2, 2, 9, 8});
  OcclusionOptions options = masks(3, 2, 2, 1);
  options.fill = filled(Fill::Kind::mean);
  const TargetSpec target{"all", "", Score::logit};
  const OcclusionMaps exact = run(net, x, target, options, Algorithm::incremental);
  const OcclusionMaps preview = occlusion_preview(ctx, net, x, target, {}, options);
  double scale = 0;
  for (float v : exact.values.values()) scale = std::max(scale, std::abs(double(v)));
  for (int64_t i = 0; i < exact.values.count(); ++i) ASSERT_NEAR(preview.values[i], exact.values[i], 1e-5 * scale);
}

// Windows cost less: on a deep stack of 3x3 layers the counted arithmetic falls, and no box is lost on the way.
TEST_P(VizOcclusion, GroupsHoldEveryBoxOnce) {
  Network net = make_network("vgg11", {.divide_channels = 16, .classes = 3});
  random_weights(net, 1);
  WindowNetwork shared(ctx, net, {1, 3, 64, 64}, Precision::fp32, net.output());
  const OcclusionOptions options = masks(8, 8, 3, 3);
  const Places places = occlusion_places(options, {1, 3, 64, 64});
  for (const int most : {1, 3, 100}) {
    std::set<size_t> seen;
    const auto groups = group_boxes(shared, places.boxes, most);
    EXPECT_LE(groups.size(), size_t(most * most));
    for (const std::vector<size_t>& group : groups)
      for (size_t box : group) EXPECT_TRUE(seen.insert(box).second);
    EXPECT_EQ(seen.size(), places.boxes.size());
  }
  double full = 0;
  for (const Step& step : shared.steps()) full += shared.flops(step);
  const WindowPlan all(shared, places.boxes, 1), one(shared, std::span(places.boxes).first(1), 1);
  EXPECT_LT(all.flops(), 0.6 * full);
  EXPECT_LT(one.flops(), all.flops());
}

TEST(VizOcclusionPlaces, GridAndCover) {
  OcclusionOptions options = masks(32, 24, 8, 10);
  Places places = occlusion_places(options, {1, 3, 100, 60});
  EXPECT_EQ(places.rows, (100 - 32) / 8 + 1);
  EXPECT_EQ(places.cols, (60 - 24) / 10 + 1);
  EXPECT_EQ(places.boxes[size_t(places.cols) + 1], (Box{8, 10, 32, 24}));
  options.cover = true;
  places = occlusion_places(options, {1, 3, 100, 60});
  EXPECT_EQ(places.rows, 10);
  EXPECT_EQ(places.cols, 5);
  EXPECT_EQ(places.boxes.back(), (Box{68, 36, 32, 24}));
  options.mask_h = 101;
  EXPECT_THROW(occlusion_places(options, {1, 3, 100, 60}), Error);
}

TEST(VizOcclusionPlaces, PixelAveragesAndRanks) {
  const Places places{{{0, 0, 2, 2}, {0, 1, 2, 2}}, 1, 2};
  const float map[] = {1, 4};
  const std::vector<float> mean = pixel_average(places, map, 2, 4);
  EXPECT_EQ(mean[0], 1);
  EXPECT_EQ(mean[1], 2.5f);
  EXPECT_EQ(mean[2], 4);
  EXPECT_TRUE(std::isnan(mean[3]));
  const std::vector<float> a = {1, 2, 3, 4}, b = {10, 20, 20, 40}, c = {4, 3, 2, 1}, d = {1, 1, 1, 1};
  EXPECT_DOUBLE_EQ(rank_correlation(a, c), -1);
  EXPECT_NEAR(rank_correlation(a, b), 0.9486832980505138, 1e-12);  // scipy.stats.spearmanr
  EXPECT_TRUE(std::isnan(rank_correlation(a, d)));
}

}  // namespace
}  // namespace switchback::test
