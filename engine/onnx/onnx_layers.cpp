// ONNX operators with windows and weights: convolutions, linear layers, pools. What an operator
// means is https://onnx.ai/onnx/operators; differences between opsets stand where they matter.
#include <algorithm>
#include <cmath>

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
  if (w.same() && out.empty())
    for (size_t axis = 0; axis + 2 < x.size(); ++axis) out.push_back(x[axis + 2] * w.strides[axis]);
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
  const Dims x = places_of(g, n), &w = weight.dims;
  const std::vector<int64_t> none(x.size() - 2, 0);
  std::vector<int64_t> extra = sizes(n, "output_padding", none, 0);
  extra.resize(2, 0);
  Window window = read_window(n, kernel_of(x, {w[2], w[3]}));
  pad_transposed(window, n.has("output_shape") ? sizes(n, "output_shape", none, 1) : std::vector<int64_t>{}, extra, x);
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
  if (bias.size() == 1) bias.assign(out, bias[0]);
  for (float& v : bias) v *= beta;
  g.parameter(node, "bias", bias, {out});
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

// (sum of |x|^p)^(1/p) over windows; padding adds nothing.
void lp_pool(OnnxGraph& g, const OnnxNode& n) {
  const Dims x = places_of(g, n);
  AvgPool2d pool = with_window<AvgPool2d>(read_window(n, kernel_of(x, {0, 0}), x));
  CHECK(n.integer("ceil_mode", 0) == 0, "ceil_mode is not supported");
  pool.count_include_pad = true;
  const int64_t p = n.integer("p", 2);
  CHECK(p == 1 || p == 2, "a norm of order {} (1 and 2 are supported)", p);
  int node = g.node(n, 0);
  node = g.add(n, p == 1 ? Layer(Smooth{SmoothFunction::abs}) : Binary{BinaryFunction::mul}, p == 1 ? std::vector{node} : std::vector{node, node},
               n.name() + ".part");
  node = g.add(n, pool, {node}, n.name() + ".part");
  node = g.add(n, by_scalar(BinaryFunction::mul, float(pool.kernel_h * pool.kernel_w)), {node}, p == 1 ? "" : n.name() + ".part");
  if (p == 2) node = g.add(n, Smooth{SmoothFunction::sqrt}, {node});
  Dims dims = x;
  for (size_t axis = 2; axis < x.size(); ++axis) dims[axis] = axis == 2 ? g.shape(node).h : g.shape(node).w;
  g.set(n, OnnxValue{nullptr, node, dims});
}

void global_average_pool(OnnxGraph& g, const OnnxNode& n) { g.make(n, AdaptiveAvgPool2d{}, {g.node(n, 0)}); }
void global_max_pool(OnnxGraph& g, const OnnxNode& n) { g.make(n, GlobalMaxPool{}, {g.node(n, 0)}); }

}  // namespace

const OnnxOperators& onnx_layers() {
  static const OnnxOperators operators = {
      {"AveragePool", average_pool}, {"Conv", convolution}, {"ConvTranspose", transposed_convolution}, {"Gemm", gemm},
      {"GlobalAveragePool", global_average_pool}, {"GlobalMaxPool", global_max_pool}, {"LpPool", lp_pool}, {"MaxPool", max_pool}};
  return operators;
}

}  // namespace switchback
