// What the families of networks have in common. Names of nodes are those of torchvision's modules; where a module is no
// layer of its own (a sum, a product), its block's name with `.add` or `.mul` behind it.
#pragma once

#include <optional>
#include <string>

#include "engine/network.h"

namespace switchback {

using Activation = std::optional<Layer>;  // or none

inline Layer silu() { return Smooth{SmoothFunction::silu}; }
inline Layer hardswish() { return Smooth{SmoothFunction::hardswish}; }
inline Layer gelu() { return Smooth{SmoothFunction::gelu}; }
inline Layer sigmoid() { return Smooth{SmoothFunction::sigmoid}; }

// A convolution without bias that keeps the size of its map, but for the stride.
Conv2d same_conv(int64_t in, int64_t out, int64_t kernel, int64_t stride = 1, int64_t groups = 1, int64_t dilation = 1);
Conv2d depthwise(int64_t channels, int64_t kernel, int64_t stride = 1, int64_t dilation = 1);

// A convolution, its batch norm and an activation under the names NAME.0, NAME.1, NAME.2 (torchvision's
// Conv2dNormActivation). input < 0: the newest node.
int conv_norm_activation(Network& net, const std::string& name, const Conv2d& conv, const Activation& activation,
                         float eps = 1e-5f, int input = -1);
// The same as NAME.conv, NAME.bn, NAME.relu, as the Inceptions have it.
int conv_bn_relu(Network& net, const std::string& name, const Conv2d& conv, float eps, int input = -1);

// Squeeze-and-excitation (Hu et al. 2018, equations 2 to 4): the newest node times gate(fc2(activation(fc1(its
// means)))).
int squeeze_excitation(Network& net, const std::string& name, int64_t channels, int64_t squeezed, Layer activation,
                       Layer gate);

// Inverted residual (Sandler et al. 2018): 1x1 to `expanded` channels where these are more, a convolution of each
// channel by itself, squeeze-and-excitation where squeezed > 0, 1x1 to `out` without activation; plus its input where
// shapes agree. Its parts are NAME.0, NAME.1 and so on.
struct InvertedResidual {
  int64_t in, expanded, out, kernel, stride, squeezed;
  int64_t dilation = 1;
};
void inverted_residual(Network& net, const std::string& block, const std::string& parts, const InvertedResidual& b,
                       const Layer& activation, const Layer& squeeze_activation, const Layer& gate, float eps);

// Two linear layers over tokens with GELU between them: NAME.0, NAME.1 and NAME.3.
void perceptron(Network& net, const std::string& name, int64_t channels, int64_t inner);

// avgpool and flatten: what classifiers begin with.
void pooled_vector(Network& net);

// The row of a family's table that has this name.
template <typename Rows>
const auto& variant_of(const Rows& rows, std::string_view name) {
  for (const auto& row : rows)
    if (row.name == name) return row;
  fail("{} is none of this family", name);
}

int64_t make_divisible(double channels, int64_t divisor);  // torchvision's: rounded, but never below 90 %

// torchvision's transform_input of networks whose published weights come from TensorFlow: of inputs (p - mean) / std
// with ImageNet's mean and std to (p - 0.5) / 0.5.
void transform_input(Network& net);

// The network with every width divided by `by` and rounded up, but for the channels of its input and its classes. Small
// copies for tests: depth, kernels and names are those of the whole network. What is concatenated or cut in halves must have widths that
// `by` divides.
Network divided(const Network& network, int64_t by, int64_t classes);

}  // namespace switchback
