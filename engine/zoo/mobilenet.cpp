// MobileNetV2 (Sandler et al. 2018) as in torchvision. torchvision's feature extraction shows a convolution with its
// batch norm and ReLU6 as one node (`features.0`); here its three parts are nodes, named as their modules and
// parameters: `features.0.0`, `features.0.1`, `features.0.2`.
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

void conv_bn_relu6(Network& net, const std::string& name, const Conv2d& conv) {
  net.add(name + ".0", conv);
  net.add(name + ".1", BatchNorm2d{conv.out_channels});
  net.add(name + ".2", clip_layer(0, 6));
}

// A 1x1 convolution to `expand` times as many channels, a 3x3 one of each channel by itself, a 1x1 one without ReLU.
void inverted_residual(Network& net, const std::string& name, int64_t in, int64_t out, int64_t stride, int64_t expand) {
  const int input = net.output();
  const int64_t hidden = in * expand;
  int at = 0;
  const auto part = [&] { return fmt::format("{}.conv.{}", name, at++); };
  if (expand != 1) conv_bn_relu6(net, part(), conv2d(in, hidden, 1, 1, 0, 1, 1, false));
  conv_bn_relu6(net, part(), conv2d(hidden, hidden, 3, stride, 1, 1, hidden, false));
  net.add(part(), conv2d(hidden, out, 1, 1, 0, 1, 1, false));
  const int body = net.add(part(), BatchNorm2d{out});
  if (stride == 1 && in == out) net.add(name + ".add", Add{}, {input, body});
}

}  // namespace

Network make_mobilenet_v2(const ZooOptions& options) {
  const int64_t d = options.divide_channels, classes = options.classes ? options.classes : 1000;
  const struct {
    int64_t expand, channels;
    int blocks;
    int64_t stride;
  } stages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
  Network net("mobilenet_v2", {1, 3, 224, 224});
  int64_t channels = 32 / d;
  conv_bn_relu6(net, "features.0", conv2d(3, channels, 3, 2, 1, 1, 1, false));
  int at = 1;
  for (const auto& stage : stages)
    for (int i = 0; i < stage.blocks; ++i) {
      inverted_residual(net, fmt::format("features.{}", at++), channels, stage.channels / d, i == 0 ? stage.stride : 1,
                        stage.expand);
      channels = stage.channels / d;
    }
  conv_bn_relu6(net, fmt::format("features.{}", at), conv2d(channels, 1280 / d, 1, 1, 0, 1, 1, false));
  net.add("adaptive_avg_pool2d", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  net.add("classifier.0", Dropout{0.2f});
  net.add("classifier.1", Linear{1280 / d, classes});
  return net;
}

}  // namespace switchback
