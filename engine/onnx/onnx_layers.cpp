// ONNX operators that compute: convolutions, linear layers, pools, norms, activations, arithmetic. What an operator
// means is https://onnx.ai/onnx/operators; differences between opsets stand where they matter.
#include <algorithm>
#include <cmath>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_graph.h"

namespace switchback {
namespace {

// ---- windows: kernel, stride, dilation and padding of convolutions and pools

struct Window {
  std::vector<int64_t> kernel, strides, dilations;  // rows, columns
  std::vector<int64_t> pads;                        // top, left, bottom, right
  std::string automatic;                            // NOTSET: as said
  bool same() const { return automatic.starts_with("SAME"); }
  bool upper() const { return automatic == "SAME_UPPER"; }  // the odd one out is put behind, not before
};

// What the attributes say; padding that is found automatically is still to be found.
Window read_window(const OnnxNode& n, std::vector<int64_t> kernel) {
  Window w{sizes(n, "kernel_shape", std::move(kernel), 1), sizes(n, "strides", {1, 1}, 1),
           sizes(n, "dilations", {1, 1}, 1), sizes(n, "pads", {0, 0, 0, 0}, 0), n.text("auto_pad", "NOTSET")};
  CHECK(w.automatic == "NOTSET" || w.automatic == "VALID" || w.automatic == "SAME_LOWER" || w.upper(),
        "auto_pad {} is unknown", printable(w.automatic));
  if (w.automatic == "VALID") w.pads = {0, 0, 0, 0};
  return w;
}

// `all` places in direction `axis`, on both sides.
void set_padding(Window& w, size_t axis, int64_t all) {
  w.pads[axis] = w.upper() ? all / 2 : all - all / 2;
  w.pads[axis + 2] = all - w.pads[axis];
}

// Of a layer that goes over x [1,C,H,W]; SAME: as many outputs as strides fit the input.
Window read_window(const OnnxNode& n, std::vector<int64_t> kernel, const Dims& x) {
  Window w = read_window(n, std::move(kernel));
  for (size_t axis = 0; axis < 2 && w.same(); ++axis) {
    const int64_t in = x[axis + 2], out = (in + w.strides[axis] - 1) / w.strides[axis];
    const int64_t reach = (out - 1) * w.strides[axis] + (w.kernel[axis] - 1) * w.dilations[axis] + 1;
    set_padding(w, axis, std::max<int64_t>(reach - in, 0));
  }
  return w;
}

template <typename L>
L with_window(const Window& w) {
  L l;
  l.kernel_h = w.kernel[0], l.kernel_w = w.kernel[1], l.stride_h = w.strides[0], l.stride_w = w.strides[1];
  l.pad_top = w.pads[0], l.pad_left = w.pads[1], l.pad_bottom = w.pads[2], l.pad_right = w.pads[3];
  if constexpr (requires { l.dilation_h; })
    l.dilation_h = w.dilations[0], l.dilation_w = w.dilations[1];
  else
    CHECK(w.dilations == std::vector<int64_t>({1, 1}), "dilations are not supported");
  return l;
}

// ---- layers with weights

void set_weights(OnnxGraph& g, const OnnxNode& n, int node, const OnnxConstant& weight, int bias_input, int64_t out) {
  g.parameter(node, "weight", weight.as_floats(), weight.dims);
  if (n.has_input(bias_input)) g.parameter(node, "bias", g.constant(n, bias_input, "bias").as_floats(), {out});
}

// Weights [a,b,kh,kw].
const OnnxConstant& conv_weights(OnnxGraph& g, const OnnxNode& n) {
  const OnnxConstant& weight = g.constant(n, 1, "weights");
  CHECK(weight.dims.size() == 4, "weights of dimensions {}: only two-dimensional convolutions are supported",
        to_string(weight.dims));
  check_sizes(weight.dims, "weights with a dimension", 1);
  return weight;
}

// Of both kinds: what does not depend on the direction.
template <typename Conv>
Conv any_convolution(const OnnxNode& n, const Window& window, const Dims& weight, int64_t in_channels) {
  CHECK(window.kernel[0] == weight[2] && window.kernel[1] == weight[3], "kernel_shape {} and weights of {}",
        to_string(window.kernel), to_string(weight));
  Conv conv = with_window<Conv>(window);
  conv.groups = n.integer("group", 1);
  check_sizes({conv.groups}, "a group", 1);
  conv.in_channels = in_channels;
  conv.has_bias = n.has_input(2);
  return conv;
}

void convolution(OnnxGraph& g, const OnnxNode& n) {
  const OnnxConstant& weight = conv_weights(g, n);
  const Dims x = g.map_dims(n, 0), &w = weight.dims;
  Conv2d conv = any_convolution<Conv2d>(n, read_window(n, {w[2], w[3]}, x), w, x[1]);
  conv.out_channels = w[0];
  CHECK(w[1] * conv.groups == x[1] && w[0] % conv.groups == 0, "weights of {} with {} groups for {} channels",
        to_string(w), conv.groups, x[1]);
  set_weights(g, n, g.make(n, conv, {g.node(n, 0)}), weight, 2, conv.out_channels);
}

// The padding that leaves `out` places, which may stand in the file or be as many as the input's times the strides.
// Where the kernel does not reach so far, there are `extra` places behind.
void pad_transposed(Window& w, std::vector<int64_t> out, std::vector<int64_t>& extra, const Dims& x) {
  if (w.same() && out.empty()) out = {x[2] * w.strides[0], x[3] * w.strides[1]};
  for (size_t axis = 0; axis < out.size(); ++axis) {
    const int64_t in = x[axis + 2];
    const int64_t all = w.strides[axis] * (in - 1) + extra[axis] + (w.kernel[axis] - 1) * w.dilations[axis] + 1 - out[axis];
    extra[axis] += std::max<int64_t>(-all, 0);
    CHECK(extra[axis] < w.strides[axis], "an output of {} places, {} more than the kernel reaches from {}; less than a "
          "stride, {}, is supported", out[axis], extra[axis], in, w.strides[axis]);
    set_padding(w, axis, std::max<int64_t>(all, 0));
  }
}

void transposed_convolution(OnnxGraph& g, const OnnxNode& n) {
  const OnnxConstant& weight = conv_weights(g, n);
  const Dims x = g.map_dims(n, 0), &w = weight.dims;
  std::vector<int64_t> extra = sizes(n, "output_padding", {0, 0}, 0);
  Window window = read_window(n, {w[2], w[3]});
  pad_transposed(window, n.has("output_shape") ? sizes(n, "output_shape", {0, 0}, 1) : std::vector<int64_t>{}, extra, x);
  ConvTranspose2d conv = any_convolution<ConvTranspose2d>(n, window, w, x[1]);
  conv.output_pad_h = extra[0], conv.output_pad_w = extra[1];
  conv.out_channels = w[1] * conv.groups;
  CHECK(w[0] == x[1] && x[1] % conv.groups == 0, "weights of {} with {} groups for {} channels", to_string(w),
        conv.groups, x[1]);
  set_weights(g, n, g.make(n, conv, {g.node(n, 0)}), weight, 2, conv.out_channels);
}

// B, [in,out] or [out,in] where `transposed_b`, as a Linear's weight: [out,in], times `scale`.
OnnxConstant linear_weight(const OnnxConstant& b, bool transposed_b, float scale) {
  CHECK(b.dims.size() == 2, "weights of dimensions {}", to_string(b.dims));
  OnnxConstant w = converted(transposed_b ? b : transposed(b, {1, 0}), false);
  if (scale != 1.f)
    for (float& v : w.floats) v *= scale;
  return w;
}

int linear(OnnxGraph& g, const OnnxNode& n, const OnnxConstant& weight, bool has_bias) {
  const Dims& x = g.value(n, 0).dims;
  CHECK(x.size() == 2, "an input of dimensions {} where features [N,C] are wanted", to_string(x));
  const int node = g.make(n, Linear{weight.dims[1], weight.dims[0], has_bias}, {g.node(n, 0)});
  g.parameter(node, "weight", weight.floats, weight.dims);
  return node;
}

void gemm(OnnxGraph& g, const OnnxNode& n) {
  CHECK(n.integer("transA", 0) == 0, "transA is not supported");
  const float alpha = n.real("alpha", 1), beta = n.real("beta", 1);
  const OnnxConstant weight = linear_weight(g.constant(n, 1, "weights"), n.integer("transB", 0) != 0, alpha);
  const int node = linear(g, n, weight, n.has_input(2));
  if (!n.has_input(2)) return;
  const int64_t out = weight.dims[0];
  std::vector<float> bias = g.beside({1, out}, g.constant(n, 2, "bias")).as_floats();
  if (bias.size() == 1) bias.assign(size_t(out), bias[0]);
  for (float& v : bias) v *= beta;
  g.parameter(node, "bias", bias, {out});
}

void matmul(OnnxGraph& g, const OnnxNode& n) {
  linear(g, n, linear_weight(g.constant(n, 1, "weights"), false, 1), false);
}

void batch_norm(OnnxGraph& g, const OnnxNode& n) {
  CHECK(n.integer("training_mode", 0) == 0 && n.integer("spatial", 1) == 1, "only batch norms of inference are supported");
  n.ignore({"momentum"});
  const int x = g.node(n, 0);
  const int64_t c = g.shape(x).c;
  const int node = g.make(n, BatchNorm2d{c, n.real("epsilon", 1e-5f)}, {x});
  int input = 1;
  for (const char* which : {"weight", "bias", "running_mean", "running_var"})
    g.parameter(node, which, g.constant(n, input++, "parameters").as_floats(), {c});
}

// Over the last axes of a tensor, from `axis` on.
void layer_norm(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"stash_type"});
  const Dims x = g.value(n, 0).dims;
  const int64_t axis = onnx_axis(n.integer("axis", -1), x.size());
  CHECK(axis > 0, "a norm over the batch");
  LayerNorm norm{.eps = n.real("epsilon", 1e-5f), .has_bias = n.has_input(2)};
  if (axis == 1) norm.c = x[1];
  if (axis <= 2 && x.size() > 2) norm.h = x[2];
  if (x.size() > 2) norm.w = x.size() == 4 ? x[3] : 1;
  const int node = g.make(n, norm, {g.node(n, 0)}, x.size());
  const Dims over(x.begin() + axis, x.end());
  g.parameter(node, "weight", g.constant(n, 1, "scale").as_floats(), over);
  if (norm.has_bias) g.parameter(node, "bias", g.constant(n, 2, "bias").as_floats(), over);
}

// groups 0: one for each channel. by_group: scale and bias have a value for each group, not for each channel.
void group_norm(OnnxGraph& g, const OnnxNode& n, int64_t groups, bool by_group) {
  const size_t rank = g.value(n, 0).dims.size();
  const int x = g.node(n, 0);
  const int64_t c = g.shape(x).c;
  if (groups == 0) groups = c;
  CHECK(groups > 0 && c % groups == 0, "{} groups of {} channels", groups, c);
  const int node = g.make(n, GroupNorm{groups, c, n.real("epsilon", 1e-5f)}, {x}, rank);
  int input = 1;
  for (const char* which : {"weight", "bias"}) {
    std::vector<float> values = g.constant(n, input++, "scale and bias").as_floats();
    if (by_group) {
      CHECK(int64_t(values.size()) == groups, "{} with {} values for {} groups", which, values.size(), groups);
      std::vector<float> spread;
      for (float v : values) spread.insert(spread.end(), size_t(c / groups), v);
      values = std::move(spread);
    }
    g.parameter(node, which, std::move(values), {c});
  }
}

void group_normalization(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"stash_type"});
  group_norm(g, n, n.integer("num_groups", -1), n.opset() < 21);
}

void instance_norm(OnnxGraph& g, const OnnxNode& n) { group_norm(g, n, 0, false); }

void local_response_norm(OnnxGraph& g, const OnnxNode& n) {
  LocalResponseNorm norm{n.integer("size", 0), n.real("alpha", 1e-4f), n.real("beta", 0.75f), n.real("bias", 1)};
  // Even windows reach one channel further to the other side than PyTorch's, which are ours.
  CHECK(norm.size > 0 && norm.size % 2 == 1 && norm.size <= kMostOnnxSize, "a window of {} channels (odd ones are supported)",
        norm.size);
  g.make(n, norm, {g.node(n, 0)});
}

// ---- pools

void max_pool(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"storage_order"});
  MaxPool2d pool = with_window<MaxPool2d>(read_window(n, {0, 0}, g.map_dims(n, 0)));
  pool.ceil_mode = n.integer("ceil_mode", 0) != 0;
  g.make(n, pool, {g.node(n, 0)});
}

void average_pool(OnnxGraph& g, const OnnxNode& n) {
  AvgPool2d pool = with_window<AvgPool2d>(read_window(n, {0, 0}, g.map_dims(n, 0)));
  pool.ceil_mode = n.integer("ceil_mode", 0) != 0;
  pool.count_include_pad = n.integer("count_include_pad", 0) != 0;
  g.make(n, pool, {g.node(n, 0)});
}

void global_average_pool(OnnxGraph& g, const OnnxNode& n) { g.make(n, AdaptiveAvgPool2d{}, {g.node(n, 0)}); }
void global_max_pool(OnnxGraph& g, const OnnxNode& n) { g.make(n, GlobalMaxPool{}, {g.node(n, 0)}); }

void reduce(OnnxGraph& g, const OnnxNode& n, bool mean) {
  const OnnxValue x = g.value(n, 0);
  const size_t rank = x.dims.size();
  // The axes became an input with opset 13 (sums) and 18 (means).
  std::vector<int64_t> axes = n.has_input(1) ? g.ints(n, 1, "axes") : n.integers("axes", {});
  CHECK(!axes.empty(), "a reduction over all axes, the batch too");
  const bool keep = n.integer("keepdims", 1) != 0;
  n.ignore({"noop_with_empty_axes"});
  Reduce layer{.mean = mean};
  std::set<int64_t> gone;
  for (int64_t axis : axes) {
    axis = onnx_axis(axis, rank);
    CHECK(axis > 0, "a reduction over the batch");
    (axis == 1 ? layer.c : axis == 2 ? layer.h : layer.w) = true;
    gone.insert(axis);
  }
  const int made = g.make(n, layer, {g.node(n, 0)}, rank);
  if (keep) return;
  const OnnxValue reduced{nullptr, made, x.dims};
  Dims dims;
  for (size_t i = 0; i < rank; ++i)
    if (!gone.contains(int64_t(i))) dims.push_back(x.dims[i]);
  g.regroup(n, reduced, dims);
}

void reduce_mean(OnnxGraph& g, const OnnxNode& n) { reduce(g, n, true); }
void reduce_sum(OnnxGraph& g, const OnnxNode& n) { reduce(g, n, false); }

// ---- activations. Those that see one element at a time leave a tensor's dims as they are, whatever the node's shape.

void pointwise(OnnxGraph& g, const OnnxNode& n, Layer layer) {
  const OnnxValue x = g.value(n, 0);
  CHECK(!x.constant, "its input is constant");
  const int made = g.add(n, std::move(layer), {x.node});
  g.set(n, OnnxValue{nullptr, made, x.dims});
}

void relu(OnnxGraph& g, const OnnxNode& n) { pointwise(g, n, ReLU{}); }
void leaky_relu(OnnxGraph& g, const OnnxNode& n) { pointwise(g, n, LeakyReLU{n.real("alpha", 0.01f)}); }
void sigmoid(OnnxGraph& g, const OnnxNode& n) { pointwise(g, n, Smooth{SmoothFunction::sigmoid}); }
void hyperbolic_tangent(OnnxGraph& g, const OnnxNode& n) { pointwise(g, n, Smooth{SmoothFunction::tanh}); }
void hard_swish(OnnxGraph& g, const OnnxNode& n) { pointwise(g, n, Smooth{SmoothFunction::hardswish}); }
void hard_sigmoid(OnnxGraph& g, const OnnxNode& n) {
  pointwise(g, n, Hardsigmoid{n.real("alpha", 0.2f), n.real("beta", 0.5f)});
}
void gelu(OnnxGraph& g, const OnnxNode& n) {
  const std::string approximate = n.text("approximate", "none");
  CHECK(approximate == "none" || approximate == "tanh", "approximate {} is unknown", printable(approximate));
  pointwise(g, n, Smooth{approximate == "tanh" ? SmoothFunction::gelu_tanh : SmoothFunction::gelu});
}
void negative(OnnxGraph& g, const OnnxNode& n) { pointwise(g, n, by_scalar(BinaryFunction::mul, -1.f)); }

void clip(OnnxGraph& g, const OnnxNode& n) {
  // Limits became inputs with opset 11.
  const float low = n.has_input(1) ? g.scalar(n, 1, "minimum") : n.real("min", -kNoClip);
  const float high = n.has_input(2) ? g.scalar(n, 2, "maximum") : n.real("max", kNoClip);
  CHECK(low <= high, "limits {} and {}", low, high);
  constexpr float kLargest = std::numeric_limits<float>::max();  // what exporters write for no limit
  pointwise(g, n, clip_layer(low <= -kLargest ? -kNoClip : low, high >= kLargest ? kNoClip : high));
}

void prelu(OnnxGraph& g, const OnnxNode& n) {
  const OnnxConstant& slope = g.constant(n, 1, "slopes");
  const Dims& x = g.value(n, 0).dims;
  const int64_t count = slope.count();
  // Broadcast from behind: one for each channel is [C,1,1] for maps and [C] for features.
  Dims per_channel(x.size() - 1, 1);
  if (!per_channel.empty()) per_channel[0] = count;
  Dims with_batch = per_channel;
  with_batch.insert(with_batch.begin(), 1);
  CHECK(count == 1 || (count == x[1] && (slope.dims == per_channel || slope.dims == with_batch)),
        "slopes of dimensions {} for {}; one in all or one a channel is supported", to_string(slope.dims), to_string(x));
  g.parameter(g.make(n, PReLU{count}, {g.node(n, 0)}), "weight", slope.as_floats(), {count});
}

// Returns the Softmax; where it is over other axes than the channels, they are turned to its place and back.
int any_softmax(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = g.value(n, 0);
  CHECK(!x.constant, "its input is constant");
  Dims dims = x.dims;
  size_t axis = size_t(onnx_axis(n.integer("axis", n.opset() < 13 ? 1 : -1), dims.size()));
  CHECK(axis > 0, "over the images of a batch");
  const auto places = [&](size_t from, size_t to) {
    int64_t product = 1;
    for (size_t i = from; i < to; ++i) product *= dims[i];
    return product;
  };
  if (n.opset() < 13 && places(axis + 1, dims.size()) > 1)  // all axes from this one on count as one
    dims = {1, places(1, axis), places(axis, dims.size())}, axis = 2;
  if (places(1, axis) == 1) dims.erase(dims.begin() + 1, dims.begin() + long(axis)), axis = 1;
  int node = g.node_shaped(n, x, dims);
  if (axis == 1) {
    node = g.add(n, Softmax{}, {node});
    g.set(n, OnnxValue{nullptr, node, x.dims});
    return node;
  }
  Permute there, back;
  std::rotate(there.axes.begin(), there.axes.begin() + long(axis) - 1, there.axes.begin() + long(axis));
  for (size_t i = 0; i < 3; ++i) back.axes[size_t(there.axes[i]) - 1] = int64_t(i) + 1;
  node = g.add(n, there, {node}, n.name() + ".input");
  const int softmax = g.add(n, Softmax{}, {node}, n.name() + ".channels");
  g.set(n, OnnxValue{nullptr, g.add(n, back, {softmax}), x.dims});
  return softmax;
}

void softmax(OnnxGraph& g, const OnnxNode& n) { any_softmax(g, n); }
void log_softmax(OnnxGraph& g, const OnnxNode& n) { g.set_log_softmax(n, any_softmax(g, n)); }

// ---- arithmetic

// Of two ranks, the batch of the one meets another axis of the other.
constexpr const char* kMixes = "their last axes are lined up, which mixes the images of a batch";

void with_constant(OnnxGraph& g, const OnnxNode& n, BinaryFunction function, int x_input) {
  const OnnxValue x = g.value(n, x_input);
  const OnnxConstant& given = *g.value(n, 1 - x_input).constant;
  const bool reversed = x_input == 1;
  const size_t rank = std::max(x.dims.size(), given.dims.size());
  CHECK(x.dims.size() == rank || g.batch == 1, "inputs of {} and {}: {}", g.text(x.dims), to_string(given.dims), kMixes);
  const OnnxConstant constant = g.beside(padded(x.dims, rank), given);
  if (constant.count() == 1) {
    const int made = g.add(n, by_scalar(function, constant.as_floats()[0], reversed), {x.node});
    return g.set(n, OnnxValue{nullptr, made, padded(x.dims, rank)});
  }
  const BinaryConstant layer{function, constant.as_floats(), shape_of(constant.dims), reversed};
  const int made = g.add(n, layer, {g.node_shaped(n, x, padded(x.dims, rank))});
  g.set(n, OnnxValue{nullptr, made, padded(x.dims, rank)});
}

void binary(OnnxGraph& g, const OnnxNode& n, BinaryFunction function) {
  const OnnxValue a = g.value(n, 0), b = g.value(n, 1);
  if (a.constant && b.constant) return g.set(n, combined(function, *a.constant, *b.constant));
  if (a.constant || b.constant) return with_constant(g, n, function, a.constant ? 1 : 0);
  CHECK(a.dims.size() == b.dims.size() || g.batch == 1, "inputs of {} and {}: {}", g.text(a.dims), g.text(b.dims), kMixes);
  const bool plain_sum = function == BinaryFunction::add && a.dims == b.dims;
  const Layer layer = plain_sum ? Layer(Add{}) : Binary{function};
  if (a.dims == b.dims && g.shape(a.node) == g.shape(b.node)) {  // element by element, however they are grouped
    const int made = g.add(n, layer, {a.node, b.node});
    return g.set(n, OnnxValue{nullptr, made, a.dims});
  }
  const size_t rank = std::max(a.dims.size(), b.dims.size());
  const auto side = [&](int input, const OnnxValue& v) {
    return v.dims.size() == rank ? g.node(n, input) : g.node_shaped(n, v, padded(v.dims, rank));
  };
  const int left = side(0, a), right = side(1, b);
  g.make(n, layer, {left, right}, rank);
}

void add(OnnxGraph& g, const OnnxNode& n) { binary(g, n, BinaryFunction::add); }
void subtract(OnnxGraph& g, const OnnxNode& n) { binary(g, n, BinaryFunction::sub); }
void multiply(OnnxGraph& g, const OnnxNode& n) { binary(g, n, BinaryFunction::mul); }
void divide(OnnxGraph& g, const OnnxNode& n) { binary(g, n, BinaryFunction::div); }

void sum(OnnxGraph& g, const OnnxNode& n) {
  CHECK(n.inputs() >= 1, "a sum of nothing");
  int total = g.node(n, 0);
  for (int i = 1; i < n.inputs(); ++i) {
    CHECK(g.value(n, i).dims == g.value(n, 0).dims, "a sum of {} and {}", to_string(g.value(n, 0).dims),
          to_string(g.value(n, i).dims));
    total = g.add(n, Add{}, {total, g.node(n, i)}, i + 1 < n.inputs() ? n.name() + ".partial" : "");
  }
  g.set(n, OnnxValue{nullptr, total, g.value(n, 0).dims});
}

}  // namespace

const OnnxOperators& onnx_layers() {
  static const OnnxOperators operators = {
      {"Add", add}, {"AveragePool", average_pool}, {"BatchNormalization", batch_norm}, {"Clip", clip},
      {"Conv", convolution}, {"ConvTranspose", transposed_convolution}, {"Div", divide}, {"Gelu", gelu}, {"Gemm", gemm},
      {"GlobalAveragePool", global_average_pool}, {"GlobalMaxPool", global_max_pool},
      {"GroupNormalization", group_normalization}, {"HardSigmoid", hard_sigmoid}, {"HardSwish", hard_swish},
      {"InstanceNormalization", instance_norm}, {"LRN", local_response_norm}, {"LayerNormalization", layer_norm},
      {"LeakyRelu", leaky_relu}, {"LogSoftmax", log_softmax},
      {"MatMul", matmul}, {"MaxPool", max_pool}, {"Mul", multiply}, {"Neg", negative}, {"PRelu", prelu},
      {"ReduceMean", reduce_mean}, {"ReduceSum", reduce_sum}, {"Relu", relu}, {"Sigmoid", sigmoid},
      {"Softmax", softmax}, {"Sub", subtract}, {"Sum", sum}, {"Tanh", hyperbolic_tangent}};
  return operators;
}

}  // namespace switchback
