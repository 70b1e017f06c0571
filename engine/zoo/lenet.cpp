// LeNet for 28x28 grey digits: 24x24 after conv1, 8x8 after pool1, 4x4 after conv2, 2x2 after pool2.
#include "engine/zoo/zoo.h"

namespace switchback {

Network make_lenet(const ZooOptions& options) {
  const int64_t d = options.divide_channels, classes = options.classes ? options.classes : 10;
  Network net("lenet", {1, 1, 28, 28});
  net.add("conv1", conv2d(1, 32 / d, 5));
  net.add("pool1", max_pool2d(3, 3));
  net.add("relu1", ReLU{});
  net.add("conv2", conv2d(32 / d, 64 / d, 5));
  net.add("pool2", max_pool2d(2, 2));
  net.add("relu2", ReLU{});
  net.add("flatten", Flatten{});
  net.add("fc1", Linear{256 / d, 200});
  net.add("relu3", ReLU{});
  net.add("fc2", Linear{200, classes});
  return net;
}

}  // namespace switchback
