// AlexNet as in torchvision ("One weird trick for parallelizing convolutional neural networks", 2014).
#include "engine/zoo/zoo.h"

namespace switchback {

Network make_alexnet(const ZooOptions& options) {
  const int64_t d = options.divide_channels, classes = options.classes ? options.classes : 1000;
  Network net("alexnet", {1, 3, 224, 224});
  net.add("features.0", conv2d(3, 64 / d, 11, 4, 2));
  net.add("features.1", ReLU{});
  net.add("features.2", max_pool2d(3, 2));
  net.add("features.3", conv2d(64 / d, 192 / d, 5, 1, 2));
  net.add("features.4", ReLU{});
  net.add("features.5", max_pool2d(3, 2));
  net.add("features.6", conv2d(192 / d, 384 / d, 3, 1, 1));
  net.add("features.7", ReLU{});
  net.add("features.8", conv2d(384 / d, 256 / d, 3, 1, 1));
  net.add("features.9", ReLU{});
  net.add("features.10", conv2d(256 / d, 256 / d, 3, 1, 1));
  net.add("features.11", ReLU{});
  net.add("features.12", max_pool2d(3, 2));
  net.add("avgpool", AdaptiveAvgPool2d{6, 6});
  net.add("flatten", Flatten{});
  net.add("classifier.0", Dropout{});
  net.add("classifier.1", Linear{256 / d * 36, 4096 / d});
  net.add("classifier.2", ReLU{});
  net.add("classifier.3", Dropout{});
  net.add("classifier.4", Linear{4096 / d, 4096 / d});
  net.add("classifier.5", ReLU{});
  net.add("classifier.6", Linear{4096 / d, classes});
  return net;
}

}  // namespace switchback
