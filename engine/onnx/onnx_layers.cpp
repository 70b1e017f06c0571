// ONNX operators that compute: convolutions, linear layers, pools, norms, activations, arithmetic. What an operator
// means is https://onnx.ai/onnx/operators; differences between opsets stand where they matter.
#include <algorithm>
#include <cmath>
#include <optional>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

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

// What the attributes say; padding that is found automatically is still to be found. One dimension is that of rows: places
// [N,C,L] are a map of one column.
Window read_window(const OnnxNode& n, std::vector<int64_t> kernel) {
  const size_t axes = kernel.size();
  const auto both = [](std::vector<int64_t> given, int64_t otherwise) {
    if (given.size() == 1) given.push_back(otherwise);
    return given;
  };
  std::vector<int64_t> pads = sizes(n, "pads", std::vector<int64_t>(2 * axes, 0), 0);
  if (axes == 1) pads = {pads[0], 0, pads[1], 0};
  Window w{both(sizes(n, "kernel_shape", std::move(kernel), 1), 1), both(sizes(n, "strides", std::vector<int64_t>(axes, 1), 1), 1),
           both(sizes(n, "dilations", std::vector<int64_t>(axes, 1), 1), 1), std::move(pads), n.text("auto_pad", "NOTSET")};
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
  for (size_t axis = 0; axis + 2 < x.size() && w.same(); ++axis) {
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

// Maps [1,C,H,W], or [1,C,L] for layers of one dimension.
Dims places_of(OnnxGraph& g, const OnnxNode& n) {
  const Dims& x = g.value(n, 0).dims;
  return x.size() == 3 ? x : g.map_dims(n, 0);
}
std::vector<int64_t> kernel_of(const Dims& x, std::vector<int64_t> kernel) {
  kernel.resize(x.size() - 2);
  return kernel;
}

// Weights [a,b,kh,kw]; those of one dimension get a second one.
OnnxConstant conv_weights(OnnxGraph& g, const OnnxNode& n) {
  OnnxConstant weight = g.constant(n, 1, "weights");
  CHECK(weight.dims.size() == g.value(n, 0).dims.size(), "weights of {} for an input of {}", to_string(weight.dims),
        g.text(g.value(n, 0).dims));
  if (weight.dims.size() == 3) weight.dims.push_back(1);
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
  const OnnxConstant weight = conv_weights(g, n);
  const Dims x = places_of(g, n), &w = weight.dims;
  Conv2d conv = any_convolution<Conv2d>(n, read_window(n, kernel_of(x, {w[2], w[3]}), x), w, x[1]);
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
  const OnnxConstant weight = conv_weights(g, n);
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

}  // namespace

// Over the last axis. Features take a Linear, tokens and NHWC a convolution of 1x1.
int linear_over_last(OnnxGraph& g, const OnnxNode& n, int input, const OnnxConstant& weight, bool has_bias) {
  CHECK(!g.is_constant(n, input), "its input {} is constant", input);
  return linear_over_last(g, n, g.value(n, input), weight, has_bias);
}

int linear_over_last(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const OnnxConstant& weight, bool has_bias) {
  const int64_t in = weight.dims[1], out = weight.dims[0];
  CHECK(!x.dims.empty() && x.dims.back() == in, "an input of {} and weights for {}{}", to_string(x.dims), in,
        x.dims.size() == 2 && x.dims[0] > 1 ? ": a reshape before it mixes the images of a batch" : "");
  OnnxValue y{nullptr, -1, x.dims, OnnxValue::Order::maps, x.batch};
  y.dims.back() = out;
  if (x.dims.size() == 2 && x.dims[0] == 1 && x.batch == OnnxValue::Batch{}) {
    y.node = g.add(n, Linear{in, out, has_bias}, {g.node_shaped(n, x, x.dims)});
    g.parameter(y.node, "weight", weight.floats, weight.dims);
  } else {
    const int rows = g.rows(n, x);
    y.node = g.add(n, Conv2d{.in_channels = in, .out_channels = out, .kernel_h = 1, .kernel_w = 1, .has_bias = has_bias}, {rows});
    y.order = OnnxValue::Order::memory;
    g.parameter(y.node, "weight", weight.floats, {out, in, 1, 1});
  }
  g.set(n, y);
  return y.node;
}

namespace {

void gemm(OnnxGraph& g, const OnnxNode& n) {
  CHECK(n.integer("transA", 0) == 0, "transA is not supported");
  n.ignore({"broadcast"});  // before opset 7
  const float alpha = n.real("alpha", 1), beta = n.real("beta", 1);
  const OnnxConstant weight = linear_weight(g.constant(n, 1, "weights"), n.integer("transB", 0) != 0, alpha);
  const int node = linear_over_last(g, n, 0, weight, n.has_input(2));
  if (!n.has_input(2)) return;
  const int64_t out = weight.dims[0];
  std::vector<float> bias = g.beside({1, out}, g.constant(n, 2, "bias")).as_floats();
  if (bias.size() == 1) bias.assign(size_t(out), bias[0]);
  for (float& v : bias) v *= beta;
  g.parameter(node, "bias", bias, {out});
}

void batch_norm(OnnxGraph& g, const OnnxNode& n) {
  const bool inference = n.opset() < 7 ? n.integer("is_test", 0) == 1 : n.integer("training_mode", 0) == 0;
  CHECK(inference && n.integer("spatial", 1) == 1, "only batch norms of inference are supported");
  n.ignore({"momentum"});
  const int x = g.node(n, 0);
  const int64_t c = g.shape(x).c;
  const int node = g.make(n, BatchNorm2d{c, n.real("epsilon", 1e-5f)}, {x});
  int input = 1;
  for (const char* which : {"weight", "bias", "running_mean", "running_var"})
    g.parameter(node, which, g.constant(n, input++, "parameters").as_floats(), {c});
}

// Over the last axes of a tensor, from `axis` on.
void any_layer_norm(OnnxGraph& g, const OnnxNode& n, LayerNorm norm) {
  n.ignore({"stash_type"});
  const OnnxValue x = g.value(n, 0);
  CHECK(!x.constant, "its input is constant");
  const int64_t axis = onnx_axis(n.integer("axis", -1), x.dims.size());
  CHECK(axis > x.batch.axis, "a norm over the batch");
  Dims over(x.dims.begin() + axis, x.dims.end());
  // One place of all channels, as a pooled map that is read as NHWC, is as good as tokens.
  const bool one_place = x.dims.size() > 2 && over.size() == 1 && g.shape(x.node).c == over[0] && g.alike(x.node);
  int node;
  if (one_place || g.in_memory_order(x) || x.dims.size() > 4 || x.batch != OnnxValue::Batch{} || x.dims[0] != 1) {
    norm.c = count(over);
    const int from = over.size() == 1 ? g.rows(n, x) : g.memory_shaped(n, x, {1, norm.c, count(x.dims) / norm.c, 1});
    node = g.add(n, norm, {from});
    g.set_rows(n, x, node, x.dims);
    over = {norm.c};
  } else {
    if (axis == 1) norm.c = x.dims[1];
    if (axis <= 2 && x.dims.size() > 2) norm.h = x.dims[2];
    if (x.dims.size() > 2) norm.w = x.dims.size() == 4 ? x.dims[3] : 1;
    node = g.make(n, norm, {g.node(n, 0)}, x.dims.size());
  }
  g.parameter(node, "weight", g.constant(n, 1, "scale").as_floats(), over);
  if (norm.has_bias) g.parameter(node, "bias", g.constant(n, 2, "bias").as_floats(), over);
}

void layer_norm(OnnxGraph& g, const OnnxNode& n) {
  any_layer_norm(g, n, {.eps = n.real("epsilon", 1e-5f), .has_bias = n.has_input(2)});
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
  const Dims x = places_of(g, n);
  MaxPool2d pool = with_window<MaxPool2d>(read_window(n, kernel_of(x, {0, 0}), x));
  pool.ceil_mode = n.integer("ceil_mode", 0) != 0;
  g.make(n, pool, {g.node(n, 0)});
}

void average_pool(OnnxGraph& g, const OnnxNode& n) {
  const Dims x = places_of(g, n);
  AvgPool2d pool = with_window<AvgPool2d>(read_window(n, kernel_of(x, {0, 0}), x));
  pool.ceil_mode = n.integer("ceil_mode", 0) != 0;
  pool.count_include_pad = n.integer("count_include_pad", 0) != 0;
  g.make(n, pool, {g.node(n, 0)});
}

void global_average_pool(OnnxGraph& g, const OnnxNode& n) { g.make(n, AdaptiveAvgPool2d{}, {g.node(n, 0)}); }
void global_max_pool(OnnxGraph& g, const OnnxNode& n) { g.make(n, GlobalMaxPool{}, {g.node(n, 0)}); }

// Of x, over axes that are in order; their sizes become 1.
OnnxValue reduced(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const std::set<int64_t>& axes, bool mean) {
  OnnxValue y = x;
  for (int64_t axis : axes) y.dims[size_t(axis)] = 1;
  const bool neighbours = *axes.rbegin() - *axes.begin() + 1 == int64_t(axes.size());
  if (neighbours && (g.in_memory_order(x) || x.dims.size() > 4 || x.batch != OnnxValue::Batch{} || x.dims[0] != 1)) {
    const int64_t before = product(x.dims, 0, size_t(*axes.begin())), all = count(x.dims) / count(y.dims);
    const int64_t behind = count(y.dims) / before;
    const bool last = behind == 1;
    const int from = last ? g.memory_shaped(n, x, {1, all, before, 1}) : g.memory_shaped(n, x, {1, behind, before, all});
    y.node = g.add(n, Reduce{.c = last, .w = !last, .mean = mean}, {from});
    y.order = OnnxValue::Order::memory;
    return y;
  }
  Reduce layer{.mean = mean};
  for (int64_t axis : axes) (axis == 1 ? layer.c : axis == 2 ? layer.h : layer.w) = true;
  y.node = g.add(n, layer, {g.node_shaped(n, x, x.dims)});
  y.order = OnnxValue::Order::maps;
  return y;
}

// The largest value over axes side by side, with its switch: a pool of one window.
OnnxValue largest(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const std::set<int64_t>& axes) {
  CHECK(*axes.rbegin() - *axes.begin() + 1 == int64_t(axes.size()), "a largest value over axes that do not lie side by side");
  OnnxValue y = x;
  for (int64_t axis : axes) y.dims[size_t(axis)] = 1;
  const int64_t before = product(x.dims, 0, size_t(*axes.begin())), all = count(x.dims) / count(y.dims);
  const int from = g.memory_shaped(n, x, {1, count(y.dims) / before, before, all});
  y.node = g.add(n, MaxPool2d{.kernel_h = 1, .kernel_w = all, .stride_h = 1, .stride_w = all}, {from});
  y.order = OnnxValue::Order::memory;
  return y;
}

// What is reduced is first passed through one function, and the result through another.
struct Reduction {
  enum class Kind { sum, mean, largest } kind = Kind::sum;
  std::optional<Layer> first = std::nullopt, last = std::nullopt;
  bool square = false;
};

void reduce(OnnxGraph& g, const OnnxNode& n, const Reduction& how) {
  OnnxValue x = g.value(n, 0);
  CHECK(!x.constant, "its input is constant");
  if (how.square) x.node = g.add(n, Binary{BinaryFunction::mul}, {x.node, x.node}, n.name() + ".square");
  if (how.first) x.node = g.add(n, *how.first, {x.node}, n.name() + ".input");
  const size_t rank = x.dims.size();
  // The axes became an input with opset 13 (sums) and 18 (means).
  std::vector<int64_t> axes = n.has_input(1) ? g.ints(n, 1, "axes") : n.integers("axes", {});
  const bool keep = n.integer("keepdims", 1) != 0;
  if (n.integer("noop_with_empty_axes", 0) != 0 && axes.empty()) {
    if (how.last) x.node = g.add(n, *how.last, {x.node}, n.name() + ".output");
    return g.set(n, x);
  }
  CHECK(!axes.empty(), "a reduction over all axes, the batch too");
  std::set<int64_t> gone;
  for (int64_t axis : axes) {
    gone.insert(onnx_axis(axis, rank));
    CHECK(!gone.contains(x.batch.axis), "a reduction over the batch");
  }
  OnnxValue y = how.kind == Reduction::Kind::largest ? largest(g, n, x, gone)
                                                      : reduced(g, n, x, gone, how.kind == Reduction::Kind::mean);
  if (how.last) y.node = g.add(n, *how.last, {y.node}, n.name() + ".output");
  if (keep) return g.set(n, y);
  Dims dims;
  OnnxValue::Batch batch = x.batch;
  for (size_t i = 0; i < rank; ++i) {
    if (int64_t(i) == x.batch.axis) batch.axis = int64_t(dims.size());
    if (!gone.contains(int64_t(i))) dims.push_back(y.dims[i]);
  }
  g.regroup(n, y, dims, batch);
}

using Kind = Reduction::Kind;
void reduce_mean(OnnxGraph& g, const OnnxNode& n) { reduce(g, n, {.kind = Kind::mean}); }
void reduce_sum(OnnxGraph& g, const OnnxNode& n) { reduce(g, n, {}); }
void reduce_max(OnnxGraph& g, const OnnxNode& n) { reduce(g, n, {.kind = Kind::largest}); }
void reduce_min(OnnxGraph& g, const OnnxNode& n) {
  const Layer minus = by_scalar(BinaryFunction::mul, -1.f);
  reduce(g, n, {.kind = Kind::largest, .first = minus, .last = minus});
}
void reduce_l1(OnnxGraph& g, const OnnxNode& n) { reduce(g, n, {.first = Smooth{SmoothFunction::abs}}); }
void reduce_l2(OnnxGraph& g, const OnnxNode& n) { reduce(g, n, {.last = Smooth{SmoothFunction::sqrt}, .square = true}); }
void reduce_sum_square(OnnxGraph& g, const OnnxNode& n) { reduce(g, n, {.square = true}); }
void reduce_log_sum(OnnxGraph& g, const OnnxNode& n) { reduce(g, n, {.last = Smooth{SmoothFunction::log}}); }
void reduce_log_sum_exp(OnnxGraph& g, const OnnxNode& n) {
  reduce(g, n, {.first = Smooth{SmoothFunction::exp}, .last = Smooth{SmoothFunction::log}});
}

// ---- activations. Those that see one element at a time leave a tensor's dims as they are, whatever the node's shape.

void pointwise(OnnxGraph& g, const OnnxNode& n, Layer layer) {
  const OnnxValue x = g.value(n, 0);
  CHECK(!x.constant, "its input is constant");
  OnnxValue y = x;
  y.node = g.add(n, std::move(layer), {x.node});
  g.set(n, y);
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

template <SmoothFunction F>
void smooth(OnnxGraph& g, const OnnxNode& n) { pointwise(g, n, Smooth{F}); }
void elu(OnnxGraph& g, const OnnxNode& n) { pointwise(g, n, Smooth{SmoothFunction::elu, n.real("alpha", 1)}); }
void celu(OnnxGraph& g, const OnnxNode& n) { pointwise(g, n, Smooth{SmoothFunction::celu, n.real("alpha", 1)}); }
void selu(OnnxGraph& g, const OnnxNode& n) {  // gamma·elu
  OnnxValue y = g.value(n, 0);
  const float gamma = n.real("gamma", 1.05070102f), alpha = n.real("alpha", 1.67326319f);
  y.node = g.add(n, Smooth{SmoothFunction::elu, alpha}, {y.node}, n.name() + ".elu");
  y.node = g.add(n, by_scalar(BinaryFunction::mul, gamma), {y.node});
  g.set(n, y);
}
// By a number; squares and roots have layers of their own.
void power(OnnxGraph& g, const OnnxNode& n) {
  const float exponent = g.scalar(n, 1, "exponent");
  const OnnxValue x = g.value(n, 0);
  if (exponent == 1) return g.set(n, x);
  if (exponent == 0.5f) return pointwise(g, n, Smooth{SmoothFunction::sqrt});
  if (exponent == -1) return pointwise(g, n, Smooth{SmoothFunction::reciprocal});
  if (exponent != 2) return pointwise(g, n, Smooth{SmoothFunction::pow, exponent});
  OnnxValue y = x;
  y.node = g.add(n, Binary{BinaryFunction::mul}, {x.node, x.node});
  g.set(n, y);
}

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
  const bool by_channel = slope.dims == per_channel || slope.dims == with_batch || (n.opset() < 7 && slope.dims == Dims{count});
  if (count != 1 && (count != x[1] || !by_channel)) {  // relu(x) − slope·relu(−x)
    OnnxValue up = g.value(n, 0), down = up;
    up.node = g.add(n, ReLU{}, {up.node}, n.name() + ".part");
    down.node = g.add(n, by_scalar(BinaryFunction::mul, -1.f), {down.node}, n.name() + ".part");
    down.node = g.add(n, ReLU{}, {down.node}, n.name() + ".part");
    down = binary_value(g, n, BinaryFunction::mul, down, g.value(n, 1));
    binary_value(g, n, BinaryFunction::sub, up, down);
    return;
  }
  g.parameter(g.make(n, PReLU{count}, {g.node(n, 0)}), "weight", slope.as_floats(), {count});
}

// Scores that a mask takes away altogether have no softmax: a row of -inf. What chooses among rows afterwards, as the operator
// Attention does by its text, must not meet NaN: such rows lose their mask.
int without_empty_rows(OnnxGraph& g, const OnnxNode& n, int scores) {
  const auto* sum = std::get_if<BinaryConstant>(&g.at(scores).layer);
  const int from = sum ? g.at(scores).inputs[0] : 0;
  if (!sum || sum->function != BinaryFunction::add || g.shape(from) != g.shape(scores)) return scores;
  BinaryConstant mended = *sum;
  const int64_t rows = mended.shape.h * mended.shape.w;
  for (int64_t row = 0; row < rows && int64_t(mended.values.size()) == mended.shape.c * rows; ++row) {
    bool empty = true;
    for (int64_t c = 0; c < mended.shape.c; ++c) empty = empty && mended.values[size_t(c * rows + row)] == -INFINITY;
    for (int64_t c = 0; empty && c < mended.shape.c; ++c) mended.values[size_t(c * rows + row)] = 0;
  }
  return mended.values == sum->values ? scores : g.add(n, mended, {from}, n.name() + ".input");
}

// Returns the Softmax; where it is over other axes than the channels, they are turned to its place and back.
int any_softmax(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = g.value(n, 0);
  CHECK(!x.constant, "its input is constant");
  Dims dims = x.dims;
  size_t axis = size_t(onnx_axis(n.integer("axis", n.opset() < 13 ? 1 : -1), dims.size()));
  CHECK(int64_t(axis) != x.batch.axis, "over the images of a batch");
  if (axis + 1 == dims.size() && (g.in_memory_order(x) || dims.size() > 4 || x.batch != OnnxValue::Batch{} || dims[0] != 1)) {
    const int node = g.add(n, Softmax{}, {without_empty_rows(g, n, g.rows(n, x))});
    g.set_rows(n, x, node, x.dims);
    return node;
  }
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

// A constant of all of `dims`, in the order of memory, as a map of this shape holds it: channels first.
std::vector<float> spread(const OnnxConstant& c, const Dims& dims, Shape s) {
  std::vector<float> values(size_t(count(dims)));
  const std::vector<float> floats = c.as_floats();
  for (int64_t i = 0; i < count(dims); ++i) {
    int64_t from = 0, stride = 1, rest = i;
    for (size_t k = dims.size(); k-- > 0; rest /= dims[k]) {
      if (c.dims[k] > 1) from += rest % dims[k] * stride;
      stride *= c.dims[k];
    }
    values[size_t(i % s.c * s.h * s.w + i / s.c)] = floats[size_t(from)];
  }
  return values;
}

// x ∘ constant, or constant ∘ x where `reversed`, as n's output.
void with_constant(OnnxGraph& g, const OnnxNode& n, BinaryFunction function, const OnnxValue& x, const OnnxConstant& given,
                   bool reversed) {
  const size_t rank = std::max(x.dims.size(), given.dims.size());
  CHECK(x.dims.size() == rank || g.batch == 1, "inputs of {} and {}: {}", g.text(x.dims), to_string(given.dims), kMixes);
  OnnxValue y = x;
  y.dims = padded(x.dims, rank);
  y.batch.axis += int64_t(rank - x.dims.size());
  const OnnxConstant constant = g.beside(y.dims, given);
  if (constant.count() == 1) {
    y.node = g.add(n, by_scalar(function, constant.as_floats()[0], reversed), {x.node});
    return g.set(n, y);
  }
  if (g.in_memory_order(x) || rank > 4 || y.batch != OnnxValue::Batch{} || y.dims[0] != 1) {
    const int from = g.rows(n, x);
    const bool by_channel = constant.dims.back() == constant.count();
    const Shape s = by_channel ? Shape{1, constant.count(), 1, 1} : g.shape(from);
    y.node = g.add(n, BinaryConstant{function, by_channel ? constant.as_floats() : spread(constant, y.dims, s), s, reversed}, {from});
    y.order = OnnxValue::Order::memory;
    return g.set(n, y);
  }
  const BinaryConstant layer{function, constant.as_floats(), shape_of(constant.dims), reversed};
  y.node = g.add(n, layer, {g.node_shaped(n, x, y.dims)});
  y.order = OnnxValue::Order::maps;
  g.set(n, y);
}

// Two values of which one at least is in the order of memory. Their axes are put together to three at most, which a layer
// can broadcast.
void binary_rows(OnnxGraph& g, const OnnxNode& n, const Layer& layer, const OnnxValue& a, const OnnxValue& b) {
  if (a.dims == b.dims) {
    const int left = g.rows(n, a);
    const int made = g.add(n, layer, {left, g.memory_shaped(n, b, g.shape(left))});
    return g.set_rows(n, a, made, a.dims);
  }
  const size_t rank = std::max(a.dims.size(), b.dims.size());
  const Dims da = padded(a.dims, rank), db = padded(b.dims, rank);
  Dims all(rank), size_a, size_b;
  for (size_t i = 0; i < rank; ++i) {
    CHECK(da[i] == db[i] || da[i] == 1 || db[i] == 1, "inputs of {} and {}", g.text(a.dims), g.text(b.dims));
    all[i] = std::max(da[i], db[i]);
    if (all[i] == 1) continue;
    const bool same = !size_a.empty() && (size_a.back() == 1) == (da[i] == 1) && (size_b.back() == 1) == (db[i] == 1);
    if (!same) size_a.push_back(1), size_b.push_back(1);
    size_a.back() *= da[i], size_b.back() *= db[i];
  }
  CHECK(size_a.size() <= 3, "inputs of {} and {}: broadcast along more than three groups of axes", g.text(a.dims), g.text(b.dims));
  const Dims sa = padded(size_a, 3), sb = padded(size_b, 3);
  const int left = g.memory_shaped(n, a, {1, sa[2], sa[0], sa[1]}), right = g.memory_shaped(n, b, {1, sb[2], sb[0], sb[1]});
  g.set_rows(n, a.dims.size() == rank ? a : b, g.add(n, layer, {left, right}), all);
}

// a ∘ b, neither constant, as n's output.
void of_values(OnnxGraph& g, const OnnxNode& n, BinaryFunction function, const OnnxValue& a, const OnnxValue& b) {
  CHECK((a.dims.size() == b.dims.size() && a.batch.axis == b.batch.axis) || g.batch == 1, "inputs of {} and {}: {}",
        g.text(a.dims), g.text(b.dims), kMixes);
  const bool plain_sum = function == BinaryFunction::add && a.dims == b.dims;
  const Layer layer = plain_sum ? Layer(Add{}) : Binary{function};
  const bool memory_a = g.in_memory_order(a), memory_b = g.in_memory_order(b);
  if (a.dims == b.dims && g.shape(a.node) == g.shape(b.node) && memory_a == memory_b) {  // however they are grouped
    OnnxValue y = a;
    y.node = g.add(n, layer, {a.node, b.node});
    return g.set(n, y);
  }
  const size_t rank = std::max(a.dims.size(), b.dims.size());
  if (memory_a || memory_b || rank > 4 || a.batch != OnnxValue::Batch{} || a.dims[0] != 1 || b.dims[0] != 1)
    return binary_rows(g, n, layer, a, b);
  const int left = g.node_shaped(n, a, padded(a.dims, rank)), right = g.node_shaped(n, b, padded(b.dims, rank));
  g.make(n, layer, {left, right}, rank);
}

}  // namespace

OnnxValue binary_value(OnnxGraph& g, const OnnxNode& n, BinaryFunction function, const OnnxValue& a, const OnnxValue& b) {
  if (a.constant && b.constant)
    g.set(n, combined(function, *a.constant, *b.constant));
  else if (a.constant || b.constant)
    with_constant(g, n, function, a.constant ? b : a, a.constant ? *a.constant : *b.constant, a.constant != nullptr);
  else
    of_values(g, n, function, a, b);
  return g.value(n.output(0));
}

namespace {

// Before opset 7 the second operand is lined up with the first from `axis` on, where it is broadcast.
OnnxValue lined_up(OnnxGraph& g, const OnnxNode& n, const OnnxValue& a, OnnxValue b) {
  n.ignore({"broadcast", "axis"});
  if (n.opset() >= 7 || !n.has("axis") || b.dims.size() >= a.dims.size()) return b;
  const int64_t axis = onnx_axis(n.integer("axis", 0), a.dims.size());
  CHECK(size_t(axis) + b.dims.size() <= a.dims.size(), "axis {} for inputs of {} and {}", axis, g.text(a.dims), to_string(b.dims));
  CHECK(b.constant, "data that are broadcast along axis {}; only constants are supported there", axis);
  OnnxConstant c = *b.constant;
  c.dims.resize(a.dims.size() - size_t(axis), 1);
  b.dims = c.dims;
  b.constant = std::make_shared<OnnxConstant>(std::move(c));
  return b;
}

void binary(OnnxGraph& g, const OnnxNode& n, BinaryFunction function) {
  const OnnxValue a = g.value(n, 0);
  binary_value(g, n, function, a, lined_up(g, n, a, g.value(n, 1)));
}

// ---- norms without a mean: x / sqrt(mean or sum of squares)

OnnxValue squares(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const std::set<int64_t>& axes, bool mean) {
  CHECK(!axes.contains(x.batch.axis), "a norm over the batch");
  OnnxValue square = x;
  square.node = g.add(n, Binary{BinaryFunction::mul}, {x.node, x.node}, n.name() + ".square");
  return reduced(g, n, square, axes, mean);
}

// x·(squares + eps)^-½ as n's output.
void over_root(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, OnnxValue squares, float eps) {
  if (eps != 0) squares.node = g.add(n, by_scalar(BinaryFunction::add, eps), {squares.node}, n.name() + ".part");
  squares.node = g.add(n, Smooth{SmoothFunction::pow, -0.5f}, {squares.node}, n.name() + ".part");
  of_values(g, n, BinaryFunction::mul, x, squares);
}

void rms_norm(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"stash_type"});
  const OnnxValue x = g.value(n, 0);
  std::set<int64_t> axes;
  for (int64_t axis = onnx_axis(n.integer("axis", -1), x.dims.size()); axis < int64_t(x.dims.size()); ++axis) axes.insert(axis);
  over_root(g, n, x, squares(g, n, x, axes, true), n.real("epsilon", 1e-5f));
  const OnnxConstant& scale = g.constant(n, 1, "scale");
  const OnnxValue y = g.value(n.output(0));
  with_constant(g, n, BinaryFunction::mul, y, scale, false);
}

void lp_norm(OnnxGraph& g, const OnnxNode& n) {
  const int64_t p = n.integer("p", 2);
  CHECK(p == 1 || p == 2, "a norm of order {} (1 and 2 are supported)", p);
  const OnnxValue x = g.value(n, 0);
  const std::set<int64_t> axes = {onnx_axis(n.integer("axis", -1), x.dims.size())};
  if (p == 2) return over_root(g, n, x, squares(g, n, x, axes, false), 0);
  CHECK(!axes.contains(x.batch.axis), "a norm over the batch");
  OnnxValue size = x;
  size.node = g.add(n, Smooth{SmoothFunction::abs}, {x.node}, n.name() + ".part");
  of_values(g, n, BinaryFunction::div, x, reduced(g, n, size, axes, false));
}

void add(OnnxGraph& g, const OnnxNode& n) { binary(g, n, BinaryFunction::add); }
void subtract(OnnxGraph& g, const OnnxNode& n) { binary(g, n, BinaryFunction::sub); }
void multiply(OnnxGraph& g, const OnnxNode& n) {
  binary(g, n, BinaryFunction::mul);
  fold_gelu(g, n);
}
void divide(OnnxGraph& g, const OnnxNode& n) { binary(g, n, BinaryFunction::div); }

// The larger or the smaller one: of a value and a number a clip, of two values (a + b ± |a − b|) / 2, whose gradient at a tie
// goes to both by halves, as PyTorch's.
void extreme(OnnxGraph& g, const OnnxNode& n, bool larger) {
  CHECK(n.inputs() == 2, "{} inputs (two are supported)", n.inputs());
  const OnnxValue a = g.value(n, 0), b = g.value(n, 1);
  if (a.constant || b.constant) {
    const OnnxConstant& c = a.constant ? *a.constant : *b.constant;
    CHECK(c.count() == 1, "a constant of {} (one number is supported)", to_string(c.dims));
    OnnxValue y = a.constant ? b : a;
    const float limit = c.as_floats()[0];
    y.dims = padded(y.dims, std::max(y.dims.size(), c.dims.size()));
    y.node = g.add(n, larger ? clip_layer(limit, kNoClip) : clip_layer(-kNoClip, limit), {y.node});
    return g.set(n, y);
  }
  of_values(g, n, BinaryFunction::sub, a, b);
  OnnxValue apart = g.value(n.output(0));
  apart.node = g.add(n, Smooth{SmoothFunction::abs}, {apart.node}, n.name() + ".part");
  of_values(g, n, BinaryFunction::add, a, b);
  const OnnxValue both = g.value(n.output(0));
  of_values(g, n, larger ? BinaryFunction::add : BinaryFunction::sub, both, apart);
  OnnxValue y = g.value(n.output(0));
  y.node = g.add(n, by_scalar(BinaryFunction::mul, 0.5f), {y.node});
  g.set(n, y);
}
void larger(OnnxGraph& g, const OnnxNode& n) { extreme(g, n, true); }
void smaller(OnnxGraph& g, const OnnxNode& n) { extreme(g, n, false); }

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
      {"LpNormalization", lp_norm}, {"RMSNormalization", rms_norm}, {"ReduceL2", reduce_l2},
      {"ReduceL1", reduce_l1}, {"ReduceLogSum", reduce_log_sum},
      {"ReduceLogSumExp", reduce_log_sum_exp}, {"ReduceMax", reduce_max}, {"ReduceMin", reduce_min},
      {"ReduceSumSquare", reduce_sum_square}, {"Abs", smooth<SmoothFunction::abs>}, {"Celu", celu}, {"Elu", elu}, {"Erf", smooth<SmoothFunction::erf>},
      {"Exp", smooth<SmoothFunction::exp>}, {"Log", smooth<SmoothFunction::log>}, {"Mish", smooth<SmoothFunction::mish>},
      {"Pow", power}, {"Reciprocal", smooth<SmoothFunction::reciprocal>}, {"Selu", selu},
      {"Softplus", smooth<SmoothFunction::softplus>}, {"Sqrt", smooth<SmoothFunction::sqrt>},
      {"Add", add}, {"AveragePool", average_pool}, {"BatchNormalization", batch_norm}, {"Clip", clip},
      {"Conv", convolution}, {"ConvTranspose", transposed_convolution}, {"Div", divide}, {"Gelu", gelu}, {"Gemm", gemm},
      {"GlobalAveragePool", global_average_pool}, {"GlobalMaxPool", global_max_pool},
      {"GroupNormalization", group_normalization}, {"HardSigmoid", hard_sigmoid}, {"HardSwish", hard_swish},
      {"InstanceNormalization", instance_norm}, {"LRN", local_response_norm}, {"LayerNormalization", layer_norm},
      {"LeakyRelu", leaky_relu}, {"LogSoftmax", log_softmax},
      {"Max", larger}, {"MaxPool", max_pool}, {"Min", smaller}, {"Mul", multiply}, {"Neg", negative}, {"PRelu", prelu},
      {"ReduceMean", reduce_mean}, {"ReduceSum", reduce_sum}, {"Relu", relu}, {"Sigmoid", sigmoid},
      {"Softmax", softmax}, {"Sub", subtract}, {"Sum", sum}, {"Tanh", hyperbolic_tangent}};
  return operators;
}

}  // namespace switchback
