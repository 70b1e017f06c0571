// SqueezeNet (Iandola et al. 2016), versions 1.0 and 1.1, with torchvision's names. Its logits are means over one map
// for each class, so that these maps are exact class activation maps.
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

// A 1x1 convolution to `squeeze` channels, then `expand` channels by 1x1 and as many by 3x3 convolutions, side by side.
void fire(Network& net, const std::string& name, int64_t in, int64_t squeeze, int64_t expand) {
  net.add(name + ".squeeze", conv2d(in, squeeze, 1));
  const int squeezed = net.add(name + ".squeeze_activation", ReLU{});
  net.add(name + ".expand1x1", conv2d(squeeze, expand, 1), {squeezed});
  const int one = net.add(name + ".expand1x1_activation", ReLU{});
  net.add(name + ".expand3x3", conv2d(squeeze, expand, 3, 1, 1), {squeezed});
  const int three = net.add(name + ".expand3x3_activation", ReLU{});
  net.add(name + ".cat", Concat{}, {one, three});
}

}  // namespace

Network make_squeezenet(std::string_view name, const ZooOptions& options) {
  const bool first_version = name == "squeezenet1_0";
  const int64_t d = options.divide_channels, classes = options.classes ? options.classes : 1000;
  Network net(std::string(name), {1, 3, 224, 224});
  int64_t channels = (first_version ? 96 : 64) / d;
  net.add("features.0", conv2d(3, channels, first_version ? 7 : 3, 2));
  net.add("features.1", ReLU{});
  // In order: a max pool (0), or a fire module by the channels that it squeezes to; it expands to eight times as many.
  const std::vector<int64_t> plan = first_version ? std::vector<int64_t>{0, 16, 16, 32, 0, 32, 48, 48, 64, 0, 64}
                                                  : std::vector<int64_t>{0, 16, 16, 0, 32, 32, 0, 48, 48, 64, 64};
  for (size_t i = 0; i < plan.size(); ++i) {
    const std::string module = fmt::format("features.{}", i + 2);
    if (plan[i] == 0) {
      net.add(module, max_pool2d(3, 2, 0, 1, true));
    } else {
      fire(net, module, channels, plan[i] / d, 4 * plan[i] / d);
      channels = 8 * plan[i] / d;
    }
  }
  net.add("classifier.0", Dropout{});
  net.add("classifier.1", conv2d(channels, classes, 1));
  net.add("classifier.2", ReLU{});
  net.add("classifier.3", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  return net;
}

}  // namespace switchback
