// DenseNet (Huang et al. 2017) as in torchvision. A layer reads the concatenation of all maps of its block before it;
// here each concatenation takes the one before and the newest map.
#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

struct DenseNetSize {
  std::string_view name;
  int64_t growth;
  std::array<int, 4> depth;
  int64_t stem;
};
constexpr DenseNetSize kDenseNets[] = {{"densenet121", 32, {6, 12, 24, 16}, 64},
                                       {"densenet161", 48, {6, 12, 36, 24}, 96},
                                       {"densenet169", 32, {6, 12, 32, 32}, 64},
                                       {"densenet201", 32, {6, 12, 48, 32}, 64}};
constexpr int64_t kDenseBottleneck = 4;  // channels of a layer's 1x1 convolution, times the growth

void dense_norm_relu(Network& net, const std::string& name, const std::string& at, int64_t channels) {
  net.add(name + ".norm" + at, BatchNorm2d{channels});
  net.add(name + ".relu" + at, ReLU{});
}

}  // namespace

Network make_densenet(std::string_view name, const ZooOptions& options) {
  const DenseNetSize& v = variant_of(kDenseNets, name);
  const int64_t classes = options.classes ? options.classes : 1000, inner = kDenseBottleneck * v.growth;
  Network net(std::string(name), {1, 3, 224, 224});
  int64_t channels = v.stem;
  net.add("features.conv0", conv2d(3, channels, 7, 2, 3, 1, 1, false));
  net.add("features.norm0", BatchNorm2d{channels});
  net.add("features.relu0", ReLU{});
  net.add("features.pool0", max_pool2d(3, 2, 1));
  for (size_t block = 0; block < 4; ++block) {
    for (int i = 0; i < v.depth[block]; ++i) {
      const std::string layer = fmt::format("features.denseblock{}.denselayer{}", block + 1, i + 1);
      const int before = net.output();
      dense_norm_relu(net, layer, "1", channels);
      net.add(layer + ".conv1", conv2d(channels, inner, 1, 1, 0, 1, 1, false));
      dense_norm_relu(net, layer, "2", inner);
      const int grown = net.add(layer + ".conv2", conv2d(inner, v.growth, 3, 1, 1, 1, 1, false));
      net.add(layer + ".cat", Concat{}, {before, grown});
      channels += v.growth;
    }
    if (block == 3) break;
    const std::string transition = fmt::format("features.transition{}", block + 1);
    dense_norm_relu(net, transition, "", channels);
    net.add(transition + ".conv", conv2d(channels, channels / 2, 1, 1, 0, 1, 1, false));
    net.add(transition + ".pool", AvgPool2d{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2});
    channels /= 2;
  }
  net.add("features.norm5", BatchNorm2d{channels});
  net.add("relu", ReLU{});
  pooled_vector(net);
  net.add("classifier", Linear{channels, classes});
  return divided(net, options.divide_channels, classes);
}

}  // namespace switchback
