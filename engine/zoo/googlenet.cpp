// GoogLeNet (Szegedy et al. 2014) with batch norm, as in torchvision, without the two heads that only help training:
// their tensors (aux1.*, aux2.*) are passed over in a state dict that holds them.
//
// torchvision's published weights come from TensorFlow and want inputs (p - 0.5) / 0.5 of pixels p in [0,1]. Its
// pretrained model therefore has transform_input = True: it takes inputs (p - mean) / std with ImageNet's usual mean
// and std, as all other models, and changes them to these. So does this network, always: by `transform_input.mul`, then
// `cat`, whose value is that of torchvision's node `cat`. A model that was trained with transform_input = False on (p -
// m) / s gets the same from --preprocess with mean m + 2s(m - 0.5) and std 2s².
#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

constexpr float kEps = 1e-3f;  // of all its batch norms

Conv2d square(int64_t in, int64_t out, int64_t kernel, int64_t stride = 1) {
  return conv2d(in, out, kernel, stride, kernel / 2, 1, 1, false);
}

// Channels of an inception module's four branches: 1x1; 1x1 then 3x3; 1x1 then "5x5"; max pool then 1x1.
struct Inception {
  const char* name;
  int64_t one, three_in, three, five_in, five, pool;
};

int64_t inception(Network& net, const Inception& m, int64_t in, int64_t d) {
  const int input = net.output();
  const std::string name = m.name;
  std::vector<int> branches;
  conv_bn_relu(net, name + ".branch1", square(in, m.one / d, 1), kEps, input);
  branches.push_back(net.output());
  conv_bn_relu(net, name + ".branch2.0", square(in, m.three_in / d, 1), kEps, input);
  conv_bn_relu(net, name + ".branch2.1", square(m.three_in / d, m.three / d, 3), kEps, net.output());
  branches.push_back(net.output());
  // The paper's 5x5 convolution is a 3x3 one in torchvision, and in its weights.
  conv_bn_relu(net, name + ".branch3.0", square(in, m.five_in / d, 1), kEps, input);
  conv_bn_relu(net, name + ".branch3.1", square(m.five_in / d, m.five / d, 3), kEps, net.output());
  branches.push_back(net.output());
  const int pooled = net.add(name + ".branch4.0", max_pool2d(3, 1, 1, 1, true), {input});
  conv_bn_relu(net, name + ".branch4.1", square(in, m.pool / d, 1), kEps, pooled);
  branches.push_back(net.output());
  net.add(name + ".cat", Concat{}, branches);
  return (m.one + m.three + m.five + m.pool) / d;
}

}  // namespace

Network make_googlenet(const ZooOptions& options) {
  const int64_t d = options.divide_channels, classes = options.classes ? options.classes : 1000;
  Network net("googlenet", {1, 3, 224, 224});
  net.training_only = {"aux1.", "aux2."};
  transform_input(net);
  conv_bn_relu(net, "conv1", square(3, 64 / d, 7, 2), kEps, net.output());
  net.add("maxpool1", max_pool2d(3, 2, 0, 1, true));
  conv_bn_relu(net, "conv2", square(64 / d, 64 / d, 1), kEps, net.output());
  conv_bn_relu(net, "conv3", square(64 / d, 192 / d, 3), kEps, net.output());
  net.add("maxpool2", max_pool2d(3, 2, 0, 1, true));
  int64_t channels = 192 / d;
  const auto modules = [&](const std::vector<Inception>& list) {
    for (const Inception& m : list) channels = inception(net, m, channels, d);
  };
  modules({{"inception3a", 64, 96, 128, 16, 32, 32}, {"inception3b", 128, 128, 192, 32, 96, 64}});
  net.add("maxpool3", max_pool2d(3, 2, 0, 1, true));
  modules({{"inception4a", 192, 96, 208, 16, 48, 64},
           {"inception4b", 160, 112, 224, 24, 64, 64},
           {"inception4c", 128, 128, 256, 24, 64, 64},
           {"inception4d", 112, 144, 288, 32, 64, 64},
           {"inception4e", 256, 160, 320, 32, 128, 128}});
  net.add("maxpool4", max_pool2d(2, 2, 0, 1, true));
  modules({{"inception5a", 256, 160, 320, 32, 128, 128}, {"inception5b", 384, 192, 384, 48, 128, 128}});
  net.add("avgpool", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  net.add("dropout", Dropout{0.2f});
  net.add("fc", Linear{channels, classes});
  return net;
}

}  // namespace switchback
