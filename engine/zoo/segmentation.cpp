// FCN (Long et al. 2015) and DeepLabV3 (Chen et al. 2017) on dilated ResNets, as in torchvision: a score for every
// class at every place of the image, without the head that only helps training.
#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

constexpr int64_t kChannels = 2048;  // of the backbone's maps

// The backbone's nodes and parameters have `backbone.` before them.
Network on_resnet(std::string_view name, std::string_view backbone) {
  Network body = make_resnet_body(backbone, {.replace_stride_with_dilation = {false, true, true}});
  Network net(std::string(name), {1, 3, 520, 520});
  for (int i = 1; i < body.nodes.count(); ++i)
    net.add("backbone." + body.nodes[i].name, body.nodes[i].layer, body.nodes[i].inputs);
  net.training_only = {"aux_classifier."};
  return net;
}

void conv_norm_relu(Network& net, const std::string& name, int first, const Conv2d& conv) {
  net.add(fmt::format("{}.{}", name, first), conv);
  net.add(fmt::format("{}.{}", name, first + 1), BatchNorm2d{conv.out_channels});
  net.add(fmt::format("{}.{}", name, first + 2), ReLU{});
}

// Atrous spatial pyramid pooling: section 3.3 of DeepLabV3's paper.
void pyramid(Network& net, const std::string& name, int64_t channels) {
  const int maps = net.output();
  std::vector<int> all;
  all.push_back(conv_norm_activation(net, name + ".convs.0", same_conv(kChannels, channels, 1), ReLU{}, 1e-5f, maps));
  for (const int64_t rate : {12, 24, 36})
    all.push_back(conv_norm_activation(net, fmt::format("{}.convs.{}", name, all.size()),
                                       same_conv(kChannels, channels, 3, 1, 1, rate), ReLU{}, 1e-5f, maps));
  const std::string pooling = name + ".convs.4";
  net.add(pooling + ".0", AdaptiveAvgPool2d{1, 1}, {maps});
  conv_norm_relu(net, pooling, 1, same_conv(kChannels, channels, 1));
  all.push_back(net.add(pooling + ".interpolate", ResizeLike{}, {net.output(), maps}));
  net.add(name + ".cat", Concat{}, all);
  conv_norm_relu(net, name + ".project", 0, same_conv(5 * channels, channels, 1));
  net.add(name + ".project.3", Dropout{0.5f});
}

}  // namespace

Network make_segmentation(std::string_view name, const ZooOptions& options) {
  const int64_t classes = options.classes ? options.classes : 21;
  Network net = on_resnet(name, name.substr(name.rfind('_') + 1));
  if (name.starts_with("fcn")) {
    const int64_t inner = kChannels / 4;
    conv_norm_relu(net, "classifier", 0, same_conv(kChannels, inner, 3));
    net.add("classifier.3", Dropout{0.1f});
    net.add("classifier.4", conv2d(inner, classes, 1));
  } else {
    constexpr int64_t kInner = 256;
    pyramid(net, "classifier.0", kInner);
    conv_norm_relu(net, "classifier", 1, same_conv(kInner, kInner, 3));
    net.add("classifier.4", conv2d(kInner, classes, 1));
  }
  net.add("interpolate", ResizeLike{}, {net.output(), 0});
  return divided(net, options.divide_channels, classes);
}

}  // namespace switchback
