// The explicit list of layers. A layer is its descriptor, a plain struct; kernels define most of them. What the engine
// knows about one stands in its home, engine/layers/*.h, and what a home must say in home.h.
// To add a layer: its kernels, its home, and its name in `Layer` below.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/tensor.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/matmul.h"
#include "kernels/conv/conv.h"
#include "kernels/conv/conv_transpose.h"
#include "kernels/linear/linear.h"
#include "kernels/move/rearrange.h"
#include "kernels/move/resample.h"
#include "kernels/move/transpose.h"
#include "kernels/normalize/normalize.h"
#include "kernels/normalize/reduce.h"
#include "kernels/pointwise/activation.h"
#include "kernels/pointwise/binary.h"
#include "kernels/pool/pool.h"
#include "kernels/sliding.h"

namespace switchback {

struct Input {  // the network's input, always node 0
  bool operator==(const Input&) const = default;
};
struct ReLU {
  float clip = kNoClip;  // ReLU6: 6
  bool operator==(const ReLU&) const = default;
};
struct BatchNorm2d {
  int64_t features = 0;
  float eps = 1e-5f;
  bool operator==(const BatchNorm2d&) const = default;
};
// torch.nn.LayerNorm: over the axes whose sizes are given, which are the last ones of [C,H,W], or the channels of every place
// alone.
struct LayerNorm {
  int64_t c = 0, h = 0, w = 0;
  float eps = 1e-5f;
  bool has_weight = true, has_bias = true;
  bool operator==(const LayerNorm&) const = default;
};
// torch.nn.GroupNorm: over the channels of a group and all places. InstanceNorm2d has a group for each channel.
struct GroupNorm {
  int64_t groups = 1, channels = 0;
  float eps = 1e-5f;
  bool affine = true;
  bool operator==(const GroupNorm&) const = default;
};
struct Softmax {
  bool operator==(const Softmax&) const = default;
};
struct Dropout {  // the identity at inference
  float rate = 0.5f;      // of what is dropped in training
  bool channels = false;  // torch.nn.Dropout2d: whole channels
  bool operator==(const Dropout&) const = default;
};
struct Flatten {  // to [n, c·h·w] in CHW order
  bool operator==(const Flatten&) const = default;
};
struct Add {  // of two inputs of the same shape; others are a Binary
  bool operator==(const Add&) const = default;
};
struct Concat {  // of two or more inputs along the channels
  bool operator==(const Concat&) const = default;
};
struct GlobalMaxPool {  // torch.nn.AdaptiveMaxPool2d(1)
  bool operator==(const GlobalMaxPool&) const = default;
};
// torch.nn.Linear over the channels of every place: what a 1x1 convolution is, but in files its weight is [out,in]. The bias of
// outputs [silent_begin, silent_end) does not count (the keys of Swin V2).
struct PlaceLinear {
  int64_t in_features = 0, out_features = 0;
  bool has_bias = true;
  int64_t silent_begin = 0, silent_end = 0;
  bool operator==(const PlaceLinear&) const = default;
};
// Each channel times a parameter [C,1,1]: ConvNeXt's layer_scale (Touvron et al. 2021, "Going deeper with image
// transformers", equation 4).
struct LayerScale {
  int64_t features = 0;
  bool operator==(const LayerScale&) const = default;
};
// The first `tokens` tokens of [C,1,T] plus a parameter [1,tokens,C]: embeddings of positions; a class token, where one of
// zeros is there.
struct Embedding {
  int64_t tokens = 1, features = 0;
  bool operator==(const Embedding&) const = default;
};
// Queries [d,groups,T], group g being of head g % heads, times e^s but at most 100, with the parameter s [heads,1,1].
struct HeadScale {
  int64_t heads = 1;
  bool operator==(const HeadScale&) const = default;
};
// Attention inside windows of window² tokens (Liu et al. 2021), of q, k, v [d, rows·columns·heads, window²]: as Attention, with
// biases that are parameters (window_bias.h) and, where the map was shifted cyclically, a mask.
struct WindowAttention {
  static constexpr int64_t kInner = 512;  // of the network that gives Swin V2's biases
  int64_t window = 7, heads = 1, rows = 1, columns = 1;
  int64_t shift_h = 0, shift_w = 0;
  float scale = 1;
  bool continuous = false;  // biases by that network, not by a table
  bool operator==(const WindowAttention&) const = default;
};

// Its first input, enlarged or reduced to the second one's height and width: torch.nn.functional.interpolate(x, size,
// mode="bilinear"). The second one's values do not count.
struct ResizeLike {
  bool operator==(const ResizeLike&) const = default;
};

// x ∘ constant, or constant ∘ x where `reversed`. The constant belongs to the architecture and is no parameter.
struct BinaryConstant {
  BinaryFunction function = BinaryFunction::mul;
  std::vector<float> values;    // in CHW order
  Shape shape = {1, 1, 1, 1};   // n is 1; c, h, w are x's or 1
  bool reversed = false;
  bool operator==(const BinaryConstant&) const = default;
};

// softmax(scale·q·kᵀ + bias)·v of inputs q, k and v (kernels/attention/attention.h). The bias belongs to the architecture and is
// no parameter.
struct Attention {
  float scale = 1;
  std::vector<float> bias;  // [bias_groups, queries, keys], or empty
  int64_t bias_groups = 1;  // group g of an item has bias g % bias_groups
  bool operator==(const Attention&) const = default;
};

using Layer = std::variant<Input, Conv2d, Linear, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, ReLU, BatchNorm2d,
                           LocalResponseNorm, Softmax, Dropout, Flatten, Add, Concat, ConvTranspose2d, GlobalMaxPool,
                           LeakyReLU, PReLU, Clip, Hardsigmoid, Smooth, Binary, BinaryConstant, Reduce, Resize, Pad, Slice,
                           ChannelShuffle, Reshape, Permute, LayerNorm, GroupNorm, Transpose, MatMul, Attention,
                           ResizeLike, PlaceLinear, LayerScale, Embedding, HeadScale, WindowAttention, Roll, Take>;

// min(max(x, min), max): a ReLU where min is 0, since it then is a rectifier and its rule counts, else a Clip.
Layer clip_layer(float min, float max);
// x ∘ value and value ∘ x.
BinaryConstant by_scalar(BinaryFunction function, float value, bool reversed = false);
MaxPool2d whole_map_pool(Shape x);  // what a GlobalMaxPool is on inputs x

// The shapes of a layer's inputs.
using Shapes = std::span<const Shape>;

struct ParameterSpec {
  std::string name;  // "weight", "bias", "running_mean", "running_var"
  Dims dims;
  float scale = 0, offset = 0;  // random weights: offset + scale·v with v uniform in [-1, 1)
  bool trainable = true;        // running statistics are not
};

// What passes of a plan ask about a layer.
struct Facts {
  bool affine = false;           // with its gates and switches fixed, an affine map of its inputs
  bool takes_relu = false;       // its op applies a ReLU that follows (kernels/epilogue/epilogue.h)
  bool takes_sum = false;        // and before it adds another value, after a batch norm folded into its weights
  bool passes_gradient = false;  // backward is the identity for every input, but for a ReLU's rule
  bool backward_in_place = false;  // backward reads dy only where it then writes dx, which may be the same memory
  bool shares_input = false;     // its value is its input's, at inference
  bool selects = false;          // backward sends each gradient to one place of the same channel
  bool writes_in_place = false;  // its op can write into a concatenation, where the device has that
  bool multiplies = false;       // products of weights: what counts as work
  enum class Output { map, vector, as_inputs } output = Output::as_inputs;  // [n,c,h,w] or [n,c]
  // Pixels of its output that are worth preparing its weights for in every call; kWholeBatch: it wants all items at once.
  int64_t pixels_at_a_time = 1;
  static constexpr int64_t kWholeBatch = INT64_MAX;
};

// What a layer leaves on the tape for its backward pass.
struct Keeps {
  std::optional<float> gates = std::nullopt;  // one plane of gate bits, and a second one where this clip is finite
  size_t switch_bytes = 0;     // of each output
  bool inputs = false, output = false;  // values
};

// What a layer does otherwise in training, and what it then needs.
struct Learns {
  bool by_itself = false;  // computed otherwise: it is neither folded into another step nor left out
  bool inputs = false;     // its inputs are kept for the gradients of its parameters
  bool moments = false;    // means and variances over the batch, which are kept and must see all of it
};

// Which inputs one output place depends on, along one axis (the places of a map are its rows and columns).
struct Reach {
  enum class Kind {
    same,    // the input at its place
    window,  // the inputs that `axis` says
    spread,  // a transposed convolution: those that reach it by `axis`
    table,   // as `back` says
    all,     // all of them
  };
  Kind kind = Kind::all;
  SlidingAxis axis = {};  // of window and spread
  std::shared_ptr<const Resampling::Table> back = nullptr;  // of each input its outputs, ascending
  bool cuts = true;  // of same and window: the layer does on a part of its map what it does there on the whole
};

std::string_view type_name(const Layer& layer);                        // "Conv2d"
std::string describe(const Layer& layer);                              // "Conv2d(3, 64, kernel 3x3, padding 1)"
Shape output_shape(const Layer& layer, Shapes inputs);                 // throws where it does not fit
std::vector<ParameterSpec> parameters(const Layer& layer);
int64_t flops(const Layer& layer, Shapes inputs);  // of one forward pass, a multiply-add counts 2
Facts facts(const Layer& layer);
Keeps keeps(const Layer& layer, Shapes inputs);
Learns learns(const Layer& layer);
Reach reach(const Layer& layer, Shapes inputs, bool vertical);  // along rows (vertical) or columns

// Padding of a layer whose reach is a window: top, left, bottom, right. Zeros for others.
using Padding = std::array<int64_t, 4>;
Padding padding(const Layer& layer);
Layer repadded(const Layer& layer, const Padding& padding);  // the layer with it; without ceil mode

template <typename... Fs>
struct overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
overloaded(Fs...) -> overloaded<Fs...>;  // clang before 17 does not find this by itself

}  // namespace switchback
