// The explicit list of layers. A layer is its descriptor: a plain struct; kernels define most of them.
// To add one: its kernel neighbourhood, its struct in `Layer`, its rows in layers.cpp (name, shape, parameters, FLOPs)
// and its steps in plan.cpp (forward) and backward.cpp.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/tensor.h"
#include "kernels/pointwise/activation.h"
#include "kernels/pointwise/binary.h"
#include "kernels/conv/conv.h"
#include "kernels/conv/conv_transpose.h"
#include "kernels/linear/linear.h"
#include "kernels/normalize/normalize.h"
#include "kernels/pool/pool.h"
#include "kernels/move/rearrange.h"
#include "kernels/normalize/reduce.h"
#include "kernels/move/resample.h"

namespace switchback {

struct Input {};  // the network's input, always node 0
struct ReLU {
  float clip = kNoClip;  // ReLU6: 6
};
struct BatchNorm2d {
  int64_t features = 0;
  float eps = 1e-5f;
};
struct Softmax {};
struct Dropout {};  // the identity at inference
struct Flatten {};  // to [n, c·h·w] in CHW order
struct Add {};      // of two inputs of the same shape; others are a Binary
struct Concat {};   // of two or more inputs along the channels
struct GlobalMaxPool {};  // torch.nn.AdaptiveMaxPool2d(1)

// x ∘ constant, or constant ∘ x where `reversed`. The constant belongs to the architecture and is no parameter.
struct BinaryConstant {
  BinaryFunction function = BinaryFunction::mul;
  std::vector<float> values;    // in CHW order
  Shape shape = {1, 1, 1, 1};   // n is 1; c, h, w are x's or 1
  bool reversed = false;
  bool operator==(const BinaryConstant&) const = default;
};

using Layer = std::variant<Input, Conv2d, Linear, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, ReLU, BatchNorm2d,
                           LocalResponseNorm, Softmax, Dropout, Flatten, Add, Concat, ConvTranspose2d, GlobalMaxPool,
                           LeakyReLU, PReLU, Clip, Hardsigmoid, Smooth, Binary, BinaryConstant, Reduce, Resize, Pad, Slice,
                           ChannelShuffle, Reshape, Permute>;

// min(max(x, min), max): a ReLU where min is 0, since it then is a rectifier and its rule counts, else a Clip.
Layer clip_layer(float min, float max);
// x ∘ value and value ∘ x.
BinaryConstant by_scalar(BinaryFunction function, float value, bool reversed = false);
MaxPool2d whole_map_pool(Shape x);  // what a GlobalMaxPool is on inputs x

struct ParameterSpec {
  std::string name;  // "weight", "bias", "running_mean", "running_var"
  Dims dims;
};

std::string_view type_name(const Layer& layer);                        // "Conv2d"
std::string describe(const Layer& layer);                              // "Conv2d(3, 64, kernel 3x3, padding 1)"
Shape output_shape(const Layer& layer, std::span<const Shape> inputs);  // throws where it does not fit
std::vector<ParameterSpec> parameters(const Layer& layer);
int64_t flops(const Layer& layer, std::span<const Shape> inputs);  // of one forward pass, a multiply-add counts 2

template <typename... Fs>
struct overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
overloaded(Fs...) -> overloaded<Fs...>;  // clang before 17 does not find this by itself

}  // namespace switchback
