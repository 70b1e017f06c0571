// ConvNeXt (Liu et al. 2022) as in torchvision. Its permutations move nothing here: maps lie in memory with channels
// last.
#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

constexpr float kConvNextEps = 1e-6f;

struct ConvNextSize {
  std::string_view name;
  std::array<int, 4> depth;
  int64_t width;  // of the first stage; each further one has twice that of the one before
};
constexpr ConvNextSize kConvNexts[] = {{"convnext_tiny", {3, 3, 9, 3}, 96},
                                       {"convnext_small", {3, 3, 27, 3}, 96},
                                       {"convnext_base", {3, 3, 27, 3}, 128},
                                       {"convnext_large", {3, 3, 27, 3}, 192}};

void convnext_block(Network& net, const std::string& name, int64_t channels) {
  const int input = net.output();
  net.add(name + ".block.0", conv2d(channels, channels, 7, 1, 3, 1, channels));
  net.add(name + ".block.2", LayerNorm{.c = channels, .eps = kConvNextEps});
  net.add(name + ".block.3", PlaceLinear{channels, 4 * channels});
  net.add(name + ".block.4", gelu());
  net.add(name + ".block.5", PlaceLinear{4 * channels, channels});
  const int body = net.add(name + ".layer_scale", LayerScale{channels});
  net.add(name + ".add", Add{}, {body, input});
}

}  // namespace

Network make_convnext(std::string_view name, const ZooOptions& options) {
  const ConvNextSize& v = variant_of(kConvNexts, name);
  const int64_t classes = options.classes ? options.classes : 1000;
  Network net(std::string(name), {1, 3, 224, 224});
  int64_t channels = v.width;
  net.add("features.0.0", conv2d(3, channels, 4, 4));
  net.add("features.0.1", LayerNorm{.c = channels, .eps = kConvNextEps});
  for (size_t stage = 0; stage < 4; ++stage) {
    for (int i = 0; i < v.depth[stage]; ++i)
      convnext_block(net, fmt::format("features.{}.{}", 2 * stage + 1, i), channels);
    if (stage == 3) break;
    const std::string down = fmt::format("features.{}", 2 * stage + 2);
    net.add(down + ".0", LayerNorm{.c = channels, .eps = kConvNextEps});
    net.add(down + ".1", conv2d(channels, 2 * channels, 2, 2));
    channels *= 2;
  }
  net.add("avgpool", AdaptiveAvgPool2d{1, 1});
  net.add("classifier.0", LayerNorm{.c = channels, .eps = kConvNextEps});
  net.add("classifier.1", Flatten{});
  net.add("classifier.2", Linear{channels, classes});
  return divided(net, options.divide_channels, classes);
}

}  // namespace switchback
