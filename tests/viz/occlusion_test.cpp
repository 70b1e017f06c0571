// Occlusion: the incremental algorithm against full recomputation, full recomputation against pixels set by hand.
#include "viz/methods/occlusion.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <set>

#include "engine/run/patches.h"
#include "engine/zoo/zoo.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/random_network.h"
#include "viz/methods/inspect.h"

namespace switchback::test {
namespace {

using Algorithm = OcclusionOptions::Algorithm;

class VizOcclusion : public OnDevice {
 protected:
  OcclusionMaps run(const Net& net, const Tensor& x, const TargetSpec& target, OcclusionOptions options,
                    Algorithm how) {
    options.algorithm = how;
    return occlusion(ctx, net, x, target, {}, options);
  }

  // Both algorithms' maps differ by rounding only, relative to the scores. Returns the largest value of the map.
  double expect_agreement(const Net& net, const Tensor& x, const TargetSpec& target,
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
  // Maps of two images: in runs of other sizes, and of one image by itself.
  void expect_same_bits_in_any_batch(const Net& net, OcclusionOptions options) {
    const Tensor x = random_input(net, 5, 2);
    for (const Algorithm how : {Algorithm::incremental, Algorithm::full}) {
      options.batch = 0;
      const OcclusionMaps whole = run(net, x, {"all", "", Score::logit}, options, how);
      for (const int64_t batch : {1, 3}) {
        options.batch = batch;
        const OcclusionMaps other = run(net, x, {"all", "", Score::logit}, options, how);
        EXPECT_EQ(other.batch, batch);
        EXPECT_EQ(std::memcmp(other.values.data(), whole.values.data(), size_t(whole.values.count()) * sizeof(float)),
                  0);
      }
      const OcclusionMaps second = run(net, batch_item(x, 1), {"all", "", Score::logit}, options, how);
      const int64_t half = whole.values.count() / 2;
      EXPECT_EQ(std::memcmp(second.values.data(), whole.values.data() + half, size_t(half) * sizeof(float)), 0);
    }
  }
  // Both algorithms on all outputs: the maps, which must be equal bit by bit.
  OcclusionMaps expect_same_bits(const Net& net, const Tensor& x, const OcclusionOptions& options) {
    const OcclusionMaps fast = run(net, x, {"all", "", Score::logit}, options, Algorithm::incremental);
    OcclusionMaps full = run(net, x, {"all", "", Score::logit}, options, Algorithm::full);
    EXPECT_EQ(std::memcmp(fast.values.data(), full.values.data(), size_t(full.values.count()) * sizeof(float)), 0);
    return full;
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

TEST_P(VizOcclusion, ExactOnWholeNumbers) {
  Net net("exact", {1, 2, 17, 15});
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
  net.weights = random_weights(net, 1);
  test::make_whole(net, 1);
  Tensor x({2, 2, 17, 15});
  for (int64_t i = 0; i < x.count(); ++i) x[i] = float(i * 7919 % 7 - 3);
  ASSERT_EQ(net.shapes(net.input)[size_t(sum)], net.shapes(net.input)[size_t(side)]);
  for (const auto& [h, w, stride] : {std::tuple{1, 1, 1}, {3, 2, 1}, {5, 5, 3}, {17, 4, 2}, {17, 15, 1}}) {
    const int64_t step = device.emulated ? 4 * stride : stride;
    OcclusionOptions options = masks(h, w, step, step);
    options.fill = filled(Fill::Kind::value, 2);
    SCOPED_TRACE(fmt::format("{}x{}", h, w));
    expect_same_bits(net, x, options);
  }
}

// Boxes that touch every border and corner, of one pixel and a few.
std::vector<Box> small_boxes(Shape image) {
  const int32_t h = int32_t(image.h), w = int32_t(image.w);
  return {{0, 0, 1, 1},         {h - 1, w - 1, 1, 1}, {h / 2, w / 2, 1, 1}, {1, w / 3, 3, 2}, {h - 2, w - 3, 2, 3},
          {0, w - 1, 1, 1},     {h - 1, 0, 1, 1},     {h / 2, 0, 2, 1},     {0, 2, 2, 3},     {h / 3, w - 1, 1, 1},
          {h / 2 - 1, 1, 2, 2}, {h - 1, w / 2, 1, 2}};
}
// By themselves, since boxes that run together have patches of the largest one's size.
std::vector<Box> large_boxes(Shape image) {
  const int32_t h = int32_t(image.h), w = int32_t(image.w);
  return {{0, 0, h, w}, {h / 2, 1, 1, w - 2}, {1, 0, h - 1, 1}, {0, 0, h / 2, w / 2}};
}

TEST_P(VizOcclusion, ExactOnWholeNumbersWithRareLayers) {
  Net net("exact", {1, 2, 15, 13});
  const int conv1 = net.add("conv1", conv2d(2, 6, 3, 1, 1));
  net.add("leaky", LeakyReLU{2.f});
  net.add("shuffle", ChannelShuffle{3});
  net.add("conv2", conv2d(6, 6, 3, 2, 1));
  const int clip = net.add("clip", Clip{-4.f, 6.f});
  net.add("scale", by_scalar(BinaryFunction::mul, 3.f));
  net.add("from", by_scalar(BinaryFunction::sub, 2.f, true));
  net.add("product", Binary{}, {net.output(), clip});
  net.add("pad", Pad{.top = 1, .left = 0, .bottom = 2, .right = 1, .value = 3.f});
  net.add("conv3", conv2d(6, 4, 2));
  net.add("hardsigmoid", Hardsigmoid{1.f / 256, 0.5f});  // rarely saturated
  net.add("transposed", ConvTranspose2d{.in_channels = 4, .out_channels = 6, .kernel_h = 4, .kernel_w = 3, .stride_h = 2,
                                        .stride_w = 2, .pad_top = 1, .pad_left = 1, .pad_bottom = 2, .output_pad_w = 1});
  net.add("relu", ReLU{});
  net.add("slice", Slice{.c = {0, 6, 2}, .h = {1, 12}, .w = {1, 12}});
  net.add("up", Resize{.scale_h = 2, .scale_w = 2});
  net.add("down", conv2d(3, 3, 2, 2));
  const int side = net.add("side", Slice{.c = {1, 4}, .h = {2, 13}, .w = {0, 11}}, {conv1});
  net.add("sub", Binary{BinaryFunction::sub}, {net.find("down"), side});
  net.add("mean", Reduce{.c = true, .mean = false});
  net.add("together", Binary{BinaryFunction::add}, {net.find("sub"), net.output()});
  const Shape map = net.shapes(net.input).back();
  net.add("flatten", Flatten{});
  net.add("fc", Linear{map.item(), 4, true});
  net.weights = random_weights(net, 1);
  test::make_whole(net, 1);
  Tensor x({1, 2, 15, 13});
  for (int64_t i = 0; i < x.count(); ++i) x[i] = float(i * 7919 % 7 - 3);
  OcclusionOptions options;
  options.fill = filled(Fill::Kind::value, 2);
  for (const std::vector<Box>& boxes : {small_boxes(net.input), large_boxes(net.input)}) {
    options.boxes = boxes;
    const OcclusionMaps full = expect_same_bits(net, x, options);
    EXPECT_TRUE(std::all_of(full.values.values().begin(), full.values.values().end(),
                            [](float v) { return v == std::round(256 * v) / 256 && std::abs(v) < 1 << 16; }))
        << "whole numbers only, of 256ths behind the hardsigmoid";
    EXPECT_TRUE(std::any_of(full.values.values().begin(), full.values.values().end(),
                            [](float v) { return v != std::round(v); }))
        << "nothing comes through the hardsigmoid";
  }
}

// Layers that the random networks lack or seldom have, each between two convolutions.
struct PatchedLayer {
  const char* name;
  std::function<void(Net&)> add;  // behind a convolution of 8 channels; its last node is "layer"
};
const std::vector<PatchedLayer>& patched_layers() {
  const auto one = [](Layer layer) { return [layer](Net& net) { net.add("layer", layer); }; };
  const auto two = [](Layer first, Layer layer) {
    return [=](Net& net) {
      net.add("first", first);
      net.add("layer", layer);
    };
  };
  const auto binary = [](BinaryFunction function, Layer other) {  // of a map and what `other` makes of it
    return [=](Net& net) {
      const int x = net.output(), y = net.add("other", other);
      net.add("layer", Binary{function}, {x, y});
    };
  };
  const auto constant = [](BinaryFunction function, Shape shape, bool reversed) {
    BinaryConstant c{.function = function, .values = {}, .shape = shape, .reversed = reversed};
    for (int64_t i = 0; i < shape.item(); ++i) c.values.push_back(0.25f * float(i % 7 + 1));
    return [c](Net& net) { net.add("layer", c); };
  };
  const auto transposed = [](int64_t kernel, int64_t stride, int64_t pad, int64_t output_pad, int64_t dilation,
                              int64_t groups) {
    return ConvTranspose2d{.in_channels = 8, .out_channels = 8, .kernel_h = kernel, .kernel_w = kernel,
                           .stride_h = stride, .stride_w = stride, .pad_top = pad, .pad_left = pad, .pad_bottom = pad,
                           .pad_right = pad, .output_pad_h = output_pad, .output_pad_w = output_pad,
                           .dilation_h = dilation, .dilation_w = dilation, .groups = groups};
  };
  using F = BinaryFunction;
  static const std::vector<PatchedLayer> rows = {
      {"leaky", one(LeakyReLU{0.2f})},
      {"leaky_that_falls", one(LeakyReLU{-0.5f})},
      {"prelu", one(PReLU{8})},
      {"prelu_of_one_slope", one(PReLU{1})},
      {"clip", one(Clip{-0.3f, 0.4f})},
      {"clip_from_above", one(Clip{.max = 0.2f})},
      {"hardsigmoid", one(Hardsigmoid{})},
      {"sigmoid", one(Smooth{SmoothFunction::sigmoid})},
      {"tanh", one(Smooth{SmoothFunction::tanh})},
      {"hardswish", one(Smooth{SmoothFunction::hardswish})},
      {"silu", one(Smooth{SmoothFunction::silu})},
      {"gelu", one(Smooth{SmoothFunction::gelu})},
      {"relu_then_silu", two(ReLU{}, Smooth{SmoothFunction::silu})},
      {"lrn", one(LocalResponseNorm{})},
      {"layer_norm", one(LayerNorm{.c = 8})},
      {"softmax", one(Softmax{})},
      {"sum_of_channels", one(Reduce{.c = true, .mean = false})},
      {"mean_of_channels", two(ReLU{}, Reduce{.c = true})},
      {"scaled", constant(F::mul, {1, 8, 1, 1}, false)},
      {"scaled_by_one", constant(F::mul, {1, 1, 1, 1}, true)},
      {"divided", constant(F::div, {1, 8, 1, 1}, false)},
      {"subtracted", constant(F::sub, {1, 8, 1, 1}, true)},
      {"plus_a_map", constant(F::add, {1, 8, 16, 15}, false)},
      {"minus_a_map", constant(F::sub, {1, 1, 16, 15}, false)},
      {"one_over", [](Net& net) {
         net.add("first", Smooth{SmoothFunction::sigmoid});
         net.add("layer", by_scalar(F::div, 0.5f, true));
       }},
      {"product", binary(F::mul, conv2d(8, 8, 3, 1, 1))},
      {"gated", binary(F::mul, Smooth{SmoothFunction::sigmoid})},
      {"difference", binary(F::sub, conv2d(8, 8, 1))},
      {"sum_with_relu", binary(F::add, ReLU{})},
      {"quotient", binary(F::div, Hardsigmoid{0.01f, 0.5f})},
      {"one_channel_for_all", binary(F::mul, conv2d(8, 1, 1))},
      {"minus_the_mean_of_channels", binary(F::sub, Reduce{.c = true})},
      {"transposed_k3", one(transposed(3, 1, 1, 0, 1, 1))},
      {"transposed_k4_s2", two(ReLU{}, transposed(4, 2, 1, 0, 1, 1))},
      {"transposed_k3_s2_with_output_pad", one(transposed(3, 2, 1, 1, 1, 2))},
      {"transposed_k2_s3", one(transposed(2, 3, 0, 0, 1, 1))},
      {"transposed_dilated", one(transposed(2, 2, 2, 0, 2, 1))},
      {"transposed_with_batch_norm_residual_and_relu",
       [=](Net& net) {
         const int x = net.output();
         net.add("up", transposed(3, 1, 1, 0, 1, 8));
         net.add("bn", BatchNorm2d{8});
         net.add("sum", Add{}, {net.output(), x});
         net.add("layer", ReLU{});
       }},
      {"shuffle", one(ChannelShuffle{4})},
      {"take_rows", one(Take{.h = {3, 1, 1, 0}})},
      {"slice_channels", two(ReLU{}, Slice{.c = {2, 7}})},
      {"slice_map", one(Slice{.h = {1, 13}, .w = {2, 14}})},
      {"slice_step", one(Slice{.h = {1, 16, 2}})},
      {"zero_pad", two(ReLU{}, Pad{.top = 2, .left = 1, .bottom = 0, .right = 3})},
      {"constant_pad", one(Pad{.top = 1, .left = 1, .bottom = 1, .right = 1, .value = 0.5f})},
      {"edge_pad", one(Pad{.top = 2, .left = 2, .bottom = 2, .right = 2, .mode = Pad::Mode::edge})},
      {"reflect_pad", one(Pad{.top = 2, .left = 2, .bottom = 2, .right = 2, .mode = Pad::Mode::reflect})},
      {"negative_pad", one(Pad{.top = -2, .left = 1, .bottom = -1, .right = -2})},
      {"nearest_x2", one(Resize{.scale_h = 2, .scale_w = 2})},
      {"nearest_down", one(Resize{.out_h = 9, .out_w = 8})},
      {"bilinear_x2", two(ReLU{}, bilinear_by(2))},
      {"bilinear_odd", one(bilinear_to(19, 12))},
      {"linear_at_every_place", one(PlaceLinear{8, 6})},
      {"layer_scale", one(LayerScale{8})},
  };
  return rows;
}

Net network_with(const PatchedLayer& layer) {
  Net net("one", {1, 3, 16, 15});
  net.add("conv1", conv2d(3, 8, 3, 1, 1));
  layer.add(net);
  const Shape map = net.shapes(net.input).back();
  net.add("conv2", conv2d(map.c, 4, 3, 1, 1));
  net.add("relu", ReLU{});
  net.add("max", max_pool2d(2, 2));
  net.add("global", AdaptiveAvgPool2d{2, 2});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{16, 5, true});
  net.weights = random_weights(net, 2);
  return net;
}

TEST_P(VizOcclusion, LayersOnPatches) {
  const std::vector<PatchedLayer>& layers = patched_layers();
  for (size_t i = 0; i < layers.size(); i += device.emulated ? 3 : 1) {
    SCOPED_TRACE(layers[i].name);
    const Net net = network_with(layers[i]);
    const Tensor x = random_input(net, 3);
    OcclusionOptions options;
    options.fill = filled(Fill::Kind::value, 0.7f);
    options.boxes = small_boxes(net.input);
    if (device.emulated) options.boxes.resize(2);
    EXPECT_GT(expect_agreement(net, x, {"all", "", Score::logit}, options), 0);
    if (device.emulated) continue;
    options.boxes = large_boxes(net.input);
    EXPECT_GT(expect_agreement(net, x, {"all", "", Score::logit}, options), 0);
  }
}

// A group's mean changes every place of it: nothing is left to patches, and the map is the same.
TEST_P(VizOcclusion, GroupNormsAreOnWholeMaps) {
  const Net net = network_with({"group_norm", [](Net& to) { to.add("layer", GroupNorm{2, 8}); }});
  OcclusionOptions options;
  options.boxes = small_boxes(net.input);
  if (device.emulated) options.boxes.resize(2);
  expect_agreement(net, random_input(net, 3), {"all", "", Score::logit}, options);
  PatchNetwork shared(ctx, net, net.input, Precision::fp32, net.output());
  const PatchPlan plan(shared, std::vector<Box>{{7, 7, 1, 1}}, 1);
  EXPECT_NE(plan.describe().find("layer                        all of 16x15"), std::string::npos) << plan.describe();
}

// No layer in the table, nor one behind it, is computed on whole maps where one pixel changes.
TEST(VizOcclusionPatches, ArePlannedForEveryLayerThatHasThem) {
  Context ctx;
  for (const PatchedLayer& layer : patched_layers()) {
    SCOPED_TRACE(layer.name);
    const Net net = network_with(layer);
    PatchNetwork shared(ctx, net, net.input, Precision::fp32, net.output());
    const PatchPlan plan(shared, std::vector<Box>{{7, 7, 1, 1}, {0, 0, 1, 1}}, 2);
    for (const char* node : {"layer", "max"}) {
      const std::string text = fmt::format("\n{}", plan.describe());
      const std::string line = text.substr(text.find(fmt::format("\n{} ", node)) + 1);
      EXPECT_EQ(line.rfind(node, 0), 0u) << text;
      EXPECT_EQ(line.substr(0, line.find('\n')).find(" all of "), std::string::npos) << text;
    }
  }
}

// By hand: the image with its pixels replaced, through an ordinary forward pass.
TEST_P(VizOcclusion, FullIsTheScoreOfTheChangedImage) {
  const Net net = random_network(3);
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
    const Net net = random_network(uint64_t(seed));
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

TEST_P(VizOcclusion, IncrementalIsFullOnRandomNetworksOfRareLayers) {
  int moved = 0;
  for (int seed = 0; seed < networks(); ++seed) {
    SCOPED_TRACE("random network " + std::to_string(seed));
    const Net net = random_network(uint64_t(seed), {.rare_layers = true});
    const Tensor x = random_input(net, uint64_t(seed) + 100);
    OcclusionOptions options = masks(1 + seed % 5, 1 + seed % 4, 2 + seed % 3, 1 + seed % 4);
    options.cover = true;
    options.fill = filled(seed % 2 ? Fill::Kind::value : Fill::Kind::zero, -0.5f);
    if (device.emulated) options.boxes = {{0, 0, 1, 1}, {3, 4, 2, 3}, {int32_t(net.input.h) - 2, 1, 2, 1}};
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
    Net net = make_network(name, {.divide_channels = divide, .classes = 6, .side = side});
    net.weights = random_weights(net, 4);
    const Tensor x = wave({1, net.input.c, size, size});
    OcclusionOptions options = masks(9, 7, device.emulated ? 16 : 5, 8);
    EXPECT_GT(expect_agreement(net, x, {"all", "", Score::logit}, options), 0);
  }
}

TEST_P(VizOcclusion, DenseBlocksAndHiddenUnits) {
  Net net("dense", {1, 3, 20, 20});
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
  net.weights = random_weights(net, 3);
  const Tensor x = wave({1, 3, 20, 20});
  const OcclusionOptions options = device.emulated ? masks(5, 5, 5, 5) : masks(3, 3, 4, 5);
  EXPECT_GT(expect_agreement(net, x, {"all", "", Score::logit}, options), 0);
  EXPECT_GT(expect_agreement(net, x, {"1,2", "", Score::probability}, options), 0);
  EXPECT_GT(expect_agreement(net, x, {"max", "layer1.conv:2", Score::logit}, options), 0);  // before what follows it
  EXPECT_GT(expect_agreement(net, x, {"max", "relu:max:max", Score::logit}, options), 0);
  EXPECT_GT(expect_agreement(net, x, {"max", "lrn:3:10,9", Score::logit}, options), 0);
}

TEST_P(VizOcclusion, BatchesAndCompanyDoNotChangeAMap) {
  expect_same_bits_in_any_batch(random_network(11), masks(3, 4, 3, 3));
}
TEST_P(VizOcclusion, BatchesAndCompanyDoNotChangeAMapOfRareLayers) {
  const std::set<std::string> few = {"transposed_k4_s2"};
  const std::set<std::string> more = {"silu",          "product",          "bilinear_x2",       "transposed_k3",
                                      "quotient",      "transposed_k2_s3", "transposed_dilated", "shuffle",
                                      "transposed_k4_s2"};
  for (const PatchedLayer& layer : patched_layers()) {
    if (!(device.emulated ? few : more).contains(layer.name)) continue;
    SCOPED_TRACE(layer.name);
    OcclusionOptions options;
    options.boxes = small_boxes({1, 3, 16, 15});
    if (device.emulated) options.boxes.resize(6);
    expect_same_bits_in_any_batch(network_with(layer), options);
  }
}

TEST_P(VizOcclusion, SharesOfItsPlacesJoinToTheSameBits) {
  const Net net = random_network(11);
  const Tensor x = random_input(net, 9);
  for (const auto algorithm : {OcclusionOptions::Algorithm::incremental, OcclusionOptions::Algorithm::full}) {
    OcclusionOptions options = masks(3, 4, 3, 3);
    options.algorithm = algorithm;
    const OcclusionMaps whole = occlusion(ctx, net, x, {"all", "", Score::logit}, {}, options);
    for (const int64_t shares : {2, 5}) {
      PieceValues all;
      for (int64_t i = 0; i < shares; ++i) {
        PieceValues mine;
        options.pieces = {i, shares, &mine, nullptr};
        occlusion(ctx, net, x, {"all", "", Score::logit}, {}, options);
        all.merge(std::move(mine));
      }
      options.pieces = {0, 1, nullptr, &all};
      const OcclusionMaps joined = occlusion(ctx, net, x, {"all", "", Score::logit}, {}, options);
      EXPECT_EQ(std::memcmp(joined.values.data(), whole.values.data(), size_t(whole.values.count()) * sizeof(float)), 0);
      EXPECT_EQ(joined.groups, whole.groups);
      EXPECT_EQ(joined.flop_ratio, whole.flop_ratio);
    }
  }
}

TEST_P(VizOcclusion, OwnBoxes) {
  const Net net = random_network(7);
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
  Net net("affine", {1, 2, 9, 8});
  net.add("conv", conv2d(2, 3, 3, 1, 1));
  net.add("flatten", Flatten{});
  net.add("fc", Linear{3 * 72, 4, true});
  net.weights = random_weights(net, 2);
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

// Patches cost less: on a deep stack of 3x3 layers the counted arithmetic falls, and no box is lost on the way.
TEST_P(VizOcclusion, GroupsHoldEveryBoxOnce) {
  Net net = make_network("vgg11", {.divide_channels = 16, .classes = 3});
  net.weights = random_weights(net, 1);
  PatchNetwork shared(ctx, net, {1, 3, 64, 64}, Precision::fp32, net.output());
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
  const PatchPlan all(shared, places.boxes, 1), one(shared, std::span(places.boxes).first(1), 1);
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
  const std::vector<float> unknown(a.size(), NAN);
  rank_correlation(a, unknown);  // comes to an end
}

}  // namespace
}  // namespace switchback::test
