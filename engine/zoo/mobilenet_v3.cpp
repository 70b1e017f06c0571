// MobileNetV3 (Howard et al. 2019) as in torchvision, and LR-ASPP, the segmentation network of the same paper.
#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

constexpr float kV3Eps = 1e-3f;  // of all its batch norms

struct V3Row {  // tables 1 and 2 of the paper
  int64_t kernel, expanded, out;
  bool squeeze, hardswish;
  int64_t stride;
};
constexpr V3Row kV3Large[] = {{3, 16, 16, false, false, 1}, {3, 64, 24, false, false, 2}, {3, 72, 24, false, false, 1},
                              {5, 72, 40, true, false, 2},  {5, 120, 40, true, false, 1}, {5, 120, 40, true, false, 1},
                              {3, 240, 80, false, true, 2}, {3, 200, 80, false, true, 1}, {3, 184, 80, false, true, 1},
                              {3, 184, 80, false, true, 1}, {3, 480, 112, true, true, 1}, {3, 672, 112, true, true, 1},
                              {5, 672, 160, true, true, 2}, {5, 960, 160, true, true, 1}, {5, 960, 160, true, true, 1}};
constexpr V3Row kV3Small[] = {{3, 16, 16, true, false, 2}, {3, 72, 24, false, false, 2}, {3, 88, 24, false, false, 1},
                              {5, 96, 40, true, true, 2},  {5, 240, 40, true, true, 1},  {5, 240, 40, true, true, 1},
                              {5, 120, 48, true, true, 1}, {5, 144, 48, true, true, 1},  {5, 288, 96, true, true, 2},
                              {5, 576, 96, true, true, 1}, {5, 576, 96, true, true, 1}};

// dilated: the last halving of the map is a dilation instead. Gives the channels of the last layer.
int64_t v3_features(Network& net, const std::string& features, std::span<const V3Row> rows, bool dilated) {
  int64_t channels = 16;
  int at = 0;
  conv_norm_activation(net, fmt::format("{}.{}", features, at++), same_conv(3, channels, 3, 2), hardswish(), kV3Eps);
  const size_t c4 = rows.size() - 3;  // where the maps are halved for the last time
  for (size_t i = 0; i < rows.size(); ++i) {
    const V3Row& r = rows[i];
    const std::string name = fmt::format("{}.{}", features, at++);
    const InvertedResidual block{.in = channels,
                                 .expanded = r.expanded,
                                 .out = r.out,
                                 .kernel = r.kernel,
                                 .stride = r.stride,
                                 .squeezed = r.squeeze ? make_divisible(double(r.expanded / 4), 8) : 0,
                                 .dilation = dilated && i >= c4 ? 2 : 1};
    inverted_residual(net, name, name + ".block", block, r.hardswish ? hardswish() : ReLU{}, ReLU{}, Hardsigmoid{},
                      kV3Eps);
    channels = r.out;
  }
  conv_norm_activation(net, fmt::format("{}.{}", features, at++), same_conv(channels, 6 * channels, 1), hardswish(),
                       kV3Eps);
  return 6 * channels;
}

}  // namespace

Network make_mobilenet_v3(std::string_view name, const ZooOptions& options) {
  const bool large = name == "mobilenet_v3_large";
  const int64_t classes = options.classes ? options.classes : 1000, last = large ? 1280 : 1024;
  Network net(std::string(name), {1, 3, 224, 224});
  const int64_t channels = v3_features(net, "features", large ? std::span<const V3Row>(kV3Large) : kV3Small, false);
  pooled_vector(net);
  net.add("classifier.0", Linear{channels, last});
  net.add("classifier.1", hardswish());
  net.add("classifier.2", Dropout{0.2f});
  net.add("classifier.3", Linear{last, classes});
  return divided(net, options.divide_channels, classes);
}

Network make_lraspp(const ZooOptions& options) {
  constexpr int64_t kInner = 128, kLowChannels = 40;
  const int64_t classes = options.classes ? options.classes : 21;
  Network net("lraspp_mobilenet_v3_large", {1, 3, 520, 520});
  const int64_t channels = v3_features(net, "backbone", kV3Large, true);
  const int high = net.output(), low = net.find("backbone.4.block.3.1");  // the latter an eighth of the image's size
  net.add("classifier.cbr.0", same_conv(channels, kInner, 1), {high});
  net.add("classifier.cbr.1", BatchNorm2d{kInner});
  const int maps = net.add("classifier.cbr.2", ReLU{});
  net.add("classifier.scale.0", AdaptiveAvgPool2d{1, 1}, {high});
  net.add("classifier.scale.1", same_conv(channels, kInner, 1));
  const int scale = net.add("classifier.scale.2", sigmoid());
  net.add("classifier.mul", Binary{BinaryFunction::mul}, {maps, scale});
  const int larger = net.add("classifier.interpolate", ResizeLike{}, {net.output(), low});
  const int of_low = net.add("classifier.low_classifier", conv2d(kLowChannels, classes, 1), {low});
  const int of_high = net.add("classifier.high_classifier", conv2d(kInner, classes, 1), {larger});
  net.add("classifier.add", Add{}, {of_low, of_high});
  net.add("interpolate", ResizeLike{}, {net.output(), 0});
  return divided(net, options.divide_channels, classes);
}

}  // namespace switchback
