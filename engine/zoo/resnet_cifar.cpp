// The small ResNet of He et al. 2015, section 4.2, for 32x32 images: three stages of 16, 32 and 64 channels, three blocks
// each, 20 weight layers. Shortcuts have no parameters (option A): where a stage halves the map, every second row and column
// is taken and the new channels are zeros, half of them before and half behind, as in akamaster/pytorch_resnet_cifar10,
// whose names these are.
#include "engine/zoo/zoo.h"

namespace switchback {

Network make_resnet20(const ZooOptions& options) {
  const int64_t d = options.divide_channels, classes = options.classes ? options.classes : 10;
  Network net("resnet20", {1, 3, 32, 32});
  int64_t in = 16 / d;
  net.add("conv1", conv2d(3, in, 3, 1, 1, 1, 1, false));
  net.add("bn1", BatchNorm2d{in});
  net.add("relu", ReLU{});
  for (int stage = 1; stage <= 3; ++stage)
    for (int i = 0; i < 3; ++i) {
      const std::string name = fmt::format("layer{}.{}", stage, i);
      const int64_t out = (16 << (stage - 1)) / d;
      const int input = net.output();
      net.add(name + ".conv1", conv2d(in, out, 3, in == out ? 1 : 2, 1, 1, 1, false));
      net.add(name + ".bn1", BatchNorm2d{out});
      net.add(name + ".relu", ReLU{});
      net.add(name + ".conv2", conv2d(out, out, 3, 1, 1, 1, 1, false));
      const int body = net.add(name + ".bn2", BatchNorm2d{out});
      int shortcut = input;
      if (in != out) {
        const int64_t more = out - in;
        net.add(name + ".shortcut.rows", Slice{.h = {.step = 2}, .w = {.step = 2}}, {input});
        shortcut = net.add(name + ".shortcut", Pad{.front = more / 2, .back = more - more / 2});
      }
      net.add(name + ".add", Add{}, {body, shortcut});
      net.add(name + ".relu_1", ReLU{});
      in = out;
    }
  net.add("avgpool", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  net.add("linear", Linear{in, classes});
  return net;
}

}  // namespace switchback
