// VGG (Simonyan & Zisserman 2014), with and without batch norm, layers numbered as in torchvision.
#include "engine/zoo/zoo.h"

namespace switchback {

Network make_vgg(std::string_view name, const ZooOptions& options) {
  const bool batch_norm = name.ends_with("_bn");
  const std::string_view base = name.substr(0, name.find('_'));
  // Convolutions in each of the five blocks.
  const std::vector<int> depth = base == "vgg11"   ? std::vector{1, 1, 2, 2, 2}
                                 : base == "vgg13" ? std::vector{2, 2, 2, 2, 2}
                                 : base == "vgg16" ? std::vector{2, 2, 3, 3, 3}
                                                   : std::vector{2, 2, 4, 4, 4};
  const int64_t width[5] = {64, 128, 256, 512, 512};
  const int64_t d = options.divide_channels, classes = options.classes ? options.classes : 1000;
  Network net(std::string(name), {1, 3, 224, 224});
  int index = 0;
  const auto feature = [&](Layer layer) { net.add(fmt::format("features.{}", index++), std::move(layer)); };
  int64_t channels = 3;
  for (size_t block = 0; block < 5; ++block) {
    for (int i = 0; i < depth[block]; ++i) {
      feature(conv2d(channels, width[block] / d, 3, 1, 1));
      channels = width[block] / d;
      if (batch_norm) feature(BatchNorm2d{channels});
      feature(ReLU{});
    }
    feature(max_pool2d(2, 2));
  }
  net.add("avgpool", AdaptiveAvgPool2d{7, 7});
  net.add("flatten", Flatten{});
  net.add("classifier.0", Linear{channels * 49, 4096 / d});
  net.add("classifier.1", ReLU{});
  net.add("classifier.2", Dropout{});
  net.add("classifier.3", Linear{4096 / d, 4096 / d});
  net.add("classifier.4", ReLU{});
  net.add("classifier.5", Dropout{});
  net.add("classifier.6", Linear{4096 / d, classes});
  return net;
}

}  // namespace switchback
