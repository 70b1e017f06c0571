// MNASNet (Tan et al. 2019) as in torchvision.
#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

struct MnasNetSize {
  std::string_view name;
  double alpha;  // of the widths
};
constexpr MnasNetSize kMnasNets[] = {
    {"mnasnet0_5", 0.5}, {"mnasnet0_75", 0.75}, {"mnasnet1_0", 1}, {"mnasnet1_3", 1.3}};

// Convolution, batch norm and ReLU as layers.AT and so on.
void mnas_conv(Network& net, const std::string& layers, int& at, const Conv2d& conv, bool relu = true) {
  net.add(fmt::format("{}.{}", layers, at++), conv);
  net.add(fmt::format("{}.{}", layers, at++), BatchNorm2d{conv.out_channels});
  if (relu) net.add(fmt::format("{}.{}", layers, at++), ReLU{});
}

void mnas_block(Network& net, const std::string& name, int64_t in, int64_t out, int64_t kernel, int64_t stride,
                int64_t expand) {
  const int input = net.output();
  const int64_t inner = in * expand;
  int at = 0;
  mnas_conv(net, name + ".layers", at, same_conv(in, inner, 1));
  mnas_conv(net, name + ".layers", at, depthwise(inner, kernel, stride));
  mnas_conv(net, name + ".layers", at, same_conv(inner, out, 1), false);
  if (in == out && stride == 1) net.add(name + ".add", Add{}, {net.output(), input});
}

}  // namespace

Network make_mnasnet(std::string_view name, const ZooOptions& options) {
  const double alpha = variant_of(kMnasNets, name).alpha;
  const int64_t classes = options.classes ? options.classes : 1000;
  const auto width = [&](int64_t channels) { return make_divisible(double(channels) * alpha, 8); };
  const struct {
    int64_t channels, kernel, stride, expand;
    int blocks;
  } stages[] = {{24, 3, 2, 3, 3}, {40, 5, 2, 3, 3},  {80, 5, 2, 6, 3},
                {96, 3, 1, 6, 2}, {192, 5, 2, 6, 4}, {320, 3, 1, 6, 1}};
  Network net(std::string(name), {1, 3, 224, 224});
  int at = 0;
  mnas_conv(net, "layers", at, same_conv(3, width(32), 3, 2));
  mnas_conv(net, "layers", at, depthwise(width(32), 3));
  mnas_conv(net, "layers", at, same_conv(width(32), width(16), 1), false);
  int64_t channels = width(16);
  for (const auto& stage : stages) {
    for (int i = 0; i < stage.blocks; ++i) {
      mnas_block(net, fmt::format("layers.{}.{}", at, i), channels, width(stage.channels), stage.kernel,
                 i == 0 ? stage.stride : 1, stage.expand);
      channels = width(stage.channels);
    }
    ++at;
  }
  mnas_conv(net, "layers", at, same_conv(channels, 1280, 1));
  net.add("mean", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  net.add("classifier.0", Dropout{0.2f});
  net.add("classifier.1", Linear{1280, classes});
  return divided(net, options.divide_channels, classes);
}

}  // namespace switchback
