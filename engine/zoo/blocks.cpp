#include "engine/zoo/blocks.h"

#include <algorithm>
#include <numeric>

namespace switchback {

Conv2d same_conv(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t groups, int64_t dilation) {
  return conv2d(in, out, kernel, stride, (kernel - 1) / 2 * dilation, dilation, groups, false);
}
Conv2d depthwise(int64_t channels, int64_t kernel, int64_t stride, int64_t dilation) {
  return same_conv(channels, channels, kernel, stride, channels, dilation);
}

int conv_norm_activation(Network& net, const std::string& name, const Conv2d& conv, const Activation& activation,
                         float eps, int input) {
  net.add(name + ".0", conv, {input < 0 ? net.output() : input});
  net.add(name + ".1", BatchNorm2d{conv.out_channels, eps});
  if (activation) net.add(name + ".2", *activation);
  return net.output();
}

int conv_bn_relu(Network& net, const std::string& name, const Conv2d& conv, float eps, int input) {
  net.add(name + ".conv", conv, {input < 0 ? net.output() : input});
  net.add(name + ".bn", BatchNorm2d{conv.out_channels, eps});
  return net.add(name + ".relu", ReLU{});
}

int squeeze_excitation(Network& net, const std::string& name, int64_t channels, int64_t squeezed, Layer activation,
                       Layer gate) {
  const int input = net.output();
  net.add(name + ".avgpool", AdaptiveAvgPool2d{1, 1});
  net.add(name + ".fc1", conv2d(channels, squeezed, 1));
  net.add(name + ".activation", std::move(activation));
  net.add(name + ".fc2", conv2d(squeezed, channels, 1));
  const int scale = net.add(name + ".scale_activation", std::move(gate));
  return net.add(name + ".mul", Binary{BinaryFunction::mul}, {scale, input});
}

void inverted_residual(Network& net, const std::string& block, const std::string& parts, const InvertedResidual& b,
                       const Layer& activation, const Layer& squeeze_activation, const Layer& gate, float eps) {
  const int input = net.output();
  int at = 0;
  const auto part = [&] { return fmt::format("{}.{}", parts, at++); };
  if (b.expanded != b.in) conv_norm_activation(net, part(), same_conv(b.in, b.expanded, 1), activation, eps);
  conv_norm_activation(net, part(), depthwise(b.expanded, b.kernel, b.dilation > 1 ? 1 : b.stride, b.dilation),
                       activation, eps);
  if (b.squeezed > 0) squeeze_excitation(net, part(), b.expanded, b.squeezed, squeeze_activation, gate);
  const int body = conv_norm_activation(net, part(), same_conv(b.expanded, b.out, 1), {}, eps);
  if (b.stride == 1 && b.in == b.out) net.add(block + ".add", Add{}, {body, input});
}

void perceptron(Network& net, const std::string& name, int64_t channels, int64_t inner) {
  net.add(name + ".0", PlaceLinear{channels, inner});
  net.add(name + ".1", gelu());
  net.add(name + ".3", PlaceLinear{inner, channels});
}

void pooled_vector(Network& net) {
  net.add("avgpool", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
}

int64_t make_divisible(double channels, int64_t divisor) {
  const int64_t rounded = std::max(divisor, int64_t(channels + double(divisor) / 2) / divisor * divisor);
  return double(rounded) < 0.9 * channels ? rounded + divisor : rounded;
}

void transform_input(Network& net) {
  const auto by_channel = [](BinaryFunction function, std::vector<float> values) {
    return BinaryConstant{.function = function, .values = std::move(values), .shape = {1, 3, 1, 1}};
  };
  net.add("transform_input.mul", by_channel(BinaryFunction::mul, {0.229f / 0.5f, 0.224f / 0.5f, 0.225f / 0.5f}));
  net.add("cat",
          by_channel(BinaryFunction::add, {(0.485f - 0.5f) / 0.5f, (0.456f - 0.5f) / 0.5f, (0.406f - 0.5f) / 0.5f}));
}

Network divided(const Network& network, int64_t by, int64_t classes) {
  if (by == 1) return network;
  Network small = network;
  const auto width = [&](int64_t& channels) {
    if (channels != network.input.c && channels != classes) channels = (channels + by - 1) / by;
  };
  for (int i = 0; i < small.nodes.count(); ++i) {
    Layer& layer = small.nodes.edit(i).layer;
    if (auto* conv = std::get_if<Conv2d>(&layer)) {
      const bool alone = conv->groups == conv->in_channels;
      width(conv->in_channels), width(conv->out_channels);
      conv->groups =
          alone ? conv->in_channels : std::gcd(std::gcd(conv->groups, conv->in_channels), conv->out_channels);
    } else if (auto* linear = std::get_if<Linear>(&layer)) {
      width(linear->in_features), width(linear->out_features);
    } else if (auto* norm = std::get_if<BatchNorm2d>(&layer)) {
      width(norm->features);
    } else if (auto* place = std::get_if<PlaceLinear>(&layer)) {
      width(place->in_features), width(place->out_features);
    } else if (auto* layer_norm = std::get_if<LayerNorm>(&layer)) {
      width(layer_norm->c);
    } else if (auto* scale = std::get_if<LayerScale>(&layer)) {
      width(scale->features);
    } else if (auto* slice = std::get_if<Slice>(&layer)) {  // halves of channels
      if (slice->c.begin > 0) width(slice->c.begin);
      if (slice->c.end < std::numeric_limits<int64_t>::max()) width(slice->c.end);
    }
  }
  return small;
}

}  // namespace switchback
