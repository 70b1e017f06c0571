// The encoder and decoder of Zhang ("Visualization of encoder-decoder structure of deep convolutional neural network",
// section 3), made to show what it looks at: a ResNet-18 down to its last maps (512x2x2 for the 64x64 images of Tiny
// ImageNet, 200 classes), a 1x1 convolution to one map for each class, and two transposed convolutions that double the
// maps. The last one has a group for each class, so that its 8x8 maps do not mix classes; their means are the logits.
//
// The encoder has the names of torchvision's resnet18, so that its weights fit. The kernel of 4x4 with padding 1 is
// that of the author's program. As in the paper, batch norm and dropout stand between the three convolutions and not
// behind the last one, which has a bias instead. The program (zxh009123/visualization-DCNNs-CSE261-W19-UCSC,
// resnet_groupconv.py) differs: form=code has an instance norm behind `expand`, and a batch norm behind the last
// convolution, which has no bias.
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

ConvTranspose2d doubling(int64_t channels, int64_t groups, bool has_bias) {
  return conv_transpose2d(channels, channels, 4, 2, 1, 0, groups, has_bias);
}

void relu_dropout(Network& net, const std::string& name) {
  net.add(name + "_relu", ReLU{});
  net.add(name + "_drop", Dropout{0.3f, true});
}

}  // namespace

Network make_encoder_decoder(const ZooOptions& options) {
  const int64_t classes = options.classes ? options.classes : 200;
  Network net = make_resnet_body("resnet18", options);
  net.name = "encoder_decoder";
  net.input = {1, 3, 64, 64};
  net.add("expand", conv2d(512 / options.divide_channels, classes, 1, 1, 0, 1, 1, false));
  if (options.published)
    net.add("expand_in", GroupNorm{classes, classes});
  else
    net.add("expand_bn", BatchNorm2d{classes});
  relu_dropout(net, "expand");
  net.add("up1", doubling(classes, 1, false));
  net.add("up1_bn", BatchNorm2d{classes});
  relu_dropout(net, "up1");
  net.add("up2", doubling(classes, classes, !options.published));
  if (options.published) net.add("up2_bn", BatchNorm2d{classes});
  net.add("up2_relu", ReLU{});  // the maps of the classes
  net.add("avgpool", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  return net;
}

}  // namespace switchback
