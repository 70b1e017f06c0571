// ResNet (He et al. 2015), Wide ResNet (Zagoruyko & Komodakis 2016) and ResNeXt (Xie et al. 2016) as in torchvision,
// nodes named as its feature extraction names them: a block's one ReLU module is called several times, its second call
// is `relu_1`. Bottlenecks have their stride on the 3x3 convolution ("V1.5"), not on the first 1x1 one of the paper.
#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

struct Variant {
  std::string_view name;
  std::array<int, 4> depth;  // blocks of each stage
  bool bottleneck;
  int64_t groups = 1, width = 64;  // of the 3x3 convolutions; the width is that of one group in layer1
};

constexpr Variant kVariants[] = {
    {"resnet18", {2, 2, 2, 2}, false},
    {"resnet34", {3, 4, 6, 3}, false},
    {"resnet50", {3, 4, 6, 3}, true},
    {"resnet101", {3, 4, 23, 3}, true},
    {"resnet152", {3, 8, 36, 3}, true},
    {"wide_resnet50_2", {3, 4, 6, 3}, true, 1, 128},
    {"resnext50_32x4d", {3, 4, 6, 3}, true, 32, 4},
};

// A block's place: channels in and out, and those of its 3x3 convolutions.
struct Block {
  int64_t in, width, out, stride, dilation, groups;
};

// What is added to a block's result: its input, or a strided 1x1 convolution of that if shapes differ.
int shortcut(Network& net, const std::string& name, const Block& b, int input) {
  if (b.stride == 1 && b.in == b.out) return input;
  net.add(name + ".downsample.0", conv2d(b.in, b.out, 1, b.stride, 0, 1, 1, false), {input});
  return net.add(name + ".downsample.1", BatchNorm2d{b.out});
}

// relu( bn2(conv2( relu(bn1(conv1(x))) )) + shortcut(x) )
void basic_block(Network& net, const std::string& name, const Block& b) {
  const int input = net.output();
  net.add(name + ".conv1", conv2d(b.in, b.out, 3, b.stride, 1, 1, 1, false));
  net.add(name + ".bn1", BatchNorm2d{b.out});
  net.add(name + ".relu", ReLU{});
  net.add(name + ".conv2", conv2d(b.out, b.out, 3, 1, 1, 1, 1, false));
  const int body = net.add(name + ".bn2", BatchNorm2d{b.out});
  net.add(name + ".add", Add{}, {body, shortcut(net, name, b, input)});
  net.add(name + ".relu_1", ReLU{});
}

// relu( bn3(conv3( relu(bn2(conv2( relu(bn1(conv1(x))) ))) )) + shortcut(x) ), conv1 and conv3 being 1x1
void bottleneck(Network& net, const std::string& name, const Block& b) {
  const int input = net.output();
  net.add(name + ".conv1", conv2d(b.in, b.width, 1, 1, 0, 1, 1, false));
  net.add(name + ".bn1", BatchNorm2d{b.width});
  net.add(name + ".relu", ReLU{});
  net.add(name + ".conv2", conv2d(b.width, b.width, 3, b.stride, b.dilation, b.dilation, b.groups, false));
  net.add(name + ".bn2", BatchNorm2d{b.width});
  net.add(name + ".relu_1", ReLU{});
  net.add(name + ".conv3", conv2d(b.width, b.out, 1, 1, 0, 1, 1, false));
  const int body = net.add(name + ".bn3", BatchNorm2d{b.out});
  net.add(name + ".add", Add{}, {body, shortcut(net, name, b, input)});
  net.add(name + ".relu_2", ReLU{});
}

}  // namespace

Network make_resnet_body(std::string_view name, const ZooOptions& options) {
  const Variant& variant = variant_of(kVariants, name);
  const int64_t d = options.divide_channels, groups = std::max<int64_t>(1, variant.groups / d);
  Network net(std::string(name), {1, 3, 224, 224});
  Block b{.in = 64 / d, .width = 0, .out = 0, .stride = 1, .dilation = 1, .groups = groups};
  net.add("conv1", conv2d(3, b.in, 7, 2, 3, 1, 1, false));
  net.add("bn1", BatchNorm2d{b.in});
  net.add("relu", ReLU{});
  net.add("maxpool", max_pool2d(3, 2, 1));
  int64_t dilation = 1;  // of the stage; a stage's first block still has that of the stage before
  for (size_t stage = 0; stage < 4; ++stage) {
    const int64_t planes = 64 << stage;
    const bool dilate = stage > 0 && options.replace_stride_with_dilation[stage - 1];
    if (dilate && !variant.bottleneck)
      throw Error(fmt::format("{} cannot be dilated, since it has no bottleneck blocks", name),
                  "resnet50, resnet101 and resnet152 can", true);
    b.width = planes * variant.width / 64 * variant.groups / d;
    b.out = planes * (variant.bottleneck ? 4 : 1) / d;
    for (int i = 0; i < variant.depth[stage]; ++i) {
      b.stride = i == 0 && stage > 0 && !dilate ? 2 : 1;
      b.dilation = dilation;
      if (i == 0 && dilate) dilation *= 2;
      (variant.bottleneck ? bottleneck : basic_block)(net, fmt::format("layer{}.{}", stage + 1, i), b);
      b.in = b.out;
    }
  }
  return net;
}

Network make_resnet(std::string_view name, const ZooOptions& options) {
  Network net = make_resnet_body(name, options);
  const int64_t channels = net.shapes(net.input).back().c;
  net.add("avgpool", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{channels, options.classes ? options.classes : 1000});
  return net;
}

}  // namespace switchback
