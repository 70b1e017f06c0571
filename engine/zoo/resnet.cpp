// ResNet (He et al. 2015) of basic blocks, nodes named as torchvision's feature extraction names them: the block's one
// ReLU module is called twice, its second call is `relu_1`.
#include "engine/zoo.h"

namespace switchback {
namespace {

// relu( bn2(conv2( relu(bn1(conv1(x))) )) + identity ), where the identity is a strided 1x1 convolution if shapes differ.
void basic_block(Network& net, const std::string& name, int64_t in, int64_t out, int64_t stride) {
  const int input = net.output();
  net.add(name + ".conv1", conv2d(in, out, 3, stride, 1, 1, 1, false));
  net.add(name + ".bn1", BatchNorm2d{out});
  net.add(name + ".relu", ReLU{});
  net.add(name + ".conv2", conv2d(out, out, 3, 1, 1, 1, 1, false));
  const int body = net.add(name + ".bn2", BatchNorm2d{out});
  int identity = input;
  if (stride != 1 || in != out) {
    net.add(name + ".downsample.0", conv2d(in, out, 1, stride, 0, 1, 1, false), {input});
    identity = net.add(name + ".downsample.1", BatchNorm2d{out});
  }
  net.add(name + ".add", Add{}, {body, identity});
  net.add(name + ".relu_1", ReLU{});
}

}  // namespace

Network make_resnet(std::string_view name, const ZooOptions& options) {
  const std::vector<int> depth = name == "resnet18" ? std::vector{2, 2, 2, 2} : std::vector{3, 4, 6, 3};
  const int64_t d = options.divide_channels, classes = options.classes ? options.classes : 1000;
  Network net(std::string(name), {1, 3, 224, 224});
  int64_t channels = 64 / d;
  net.add("conv1", conv2d(3, channels, 7, 2, 3, 1, 1, false));
  net.add("bn1", BatchNorm2d{channels});
  net.add("relu", ReLU{});
  net.add("maxpool", max_pool2d(3, 2, 1));
  for (int stage = 0; stage < 4; ++stage)
    for (int i = 0; i < depth[size_t(stage)]; ++i) {
      const int64_t width = (64 << stage) / d;
      basic_block(net, fmt::format("layer{}.{}", stage + 1, i), channels, width, stage > 0 && i == 0 ? 2 : 1);
      channels = width;
    }
  net.add("avgpool", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{channels, classes});
  return net;
}

}  // namespace switchback
