// ONNX operators that see one element at a time, and softmax.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
// One element at a time leaves a tensor's dims as they are, whatever the node's shape.
void pointwise(OnnxGraph& g, const OnnxNode& n, Layer layer) {
  const OnnxValue x = g.value(n, 0);
  CHECK(!x.constant, "its input is constant");
  OnnxValue y = x;
  y.node = g.add(n, std::move(layer), {x.node});
  g.set(n, y);
}

namespace {

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
// x·sigmoid(α·x)
void swish(OnnxGraph& g, const OnnxNode& n) {
  const float alpha = n.real("alpha", 1);
  if (alpha == 1) return pointwise(g, n, Smooth{SmoothFunction::silu});
  const OnnxValue x = g.value(n, 0);
  OnnxValue gate = x;
  gate.node = g.add(n, by_scalar(BinaryFunction::mul, alpha), {x.node}, n.name() + ".part");
  gate.node = g.add(n, Smooth{SmoothFunction::sigmoid}, {gate.node}, n.name() + ".part");
  binary_value(g, n, BinaryFunction::mul, x, gate);
}
// x / (1 + |x|)
void softsign(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = g.value(n, 0);
  OnnxValue size = x;
  size.node = g.add(n, Smooth{SmoothFunction::abs}, {x.node}, n.name() + ".part");
  size.node = g.add(n, by_scalar(BinaryFunction::add, 1.f), {size.node}, n.name() + ".part");
  binary_value(g, n, BinaryFunction::div, x, size);
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
  if (count != 1 && (count != x[1] || !by_channel || x.size() > 4)) {  // relu(x) − slope·relu(−x)
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
  std::vector<float> gone(rows, 0.f);
  for (int64_t row = 0; row < rows && int64_t(mended.values.size()) == mended.shape.c * rows; ++row) {
    bool empty = true;
    for (int64_t c = 0; c < mended.shape.c; ++c) empty = empty && mended.values[c * rows + row] == -INFINITY;
    for (int64_t c = 0; empty && c < mended.shape.c; ++c) mended.values[c * rows + row] = 0;
    gone[row] = empty;
  }
  if (mended.values == sum->values) return scores;
  const int made = g.add(n, mended, {from}, n.name() + ".input");
  g.empty_rows[made] = std::move(gone);
  return made;
}

// Exporters ask it of a Softmax: there a mask that takes away all scores of a row makes it so, and nothing else.
void is_nan(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = g.value(n, 0);
  int node = x.node;
  while (std::holds_alternative<Transpose>(g.at(node).layer) && std::get<Transpose>(g.at(node).layer).sizes.size() <= 1)
    node = g.at(node).inputs[0];
  if (!std::holds_alternative<Softmax>(g.at(node).layer)) return is_no_number(g, n);
  const auto found = g.empty_rows.find(g.at(node).inputs[0]);
  OnnxConstant y{.dims = {}, .whole = false, .floats = {0}, .ints = {}};
  if (found != g.empty_rows.end()) {
    y.dims = x.dims, y.dims.back() = 1, y.floats = found->second;
    CHECK(y.count() == count(y.dims), "{} rows of {}", y.count(), g.text(x.dims));
  }
  g.set(n, std::move(y));
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
  if (axis + 1 < dims.size() && n.opset() >= 13 && (dims.size() > 4 || x.batch != OnnxValue::Batch{} || dims[0] != 1)) {
    std::vector<int64_t> order(dims.size());  // its axis last, and back
    std::iota(order.begin(), order.end(), 0);
    std::rotate(order.begin() + long(axis), order.begin() + long(axis) + 1, order.end());
    OnnxValue y = with_axes(g, n, x, order);
    y.node = g.add(n, Softmax{}, {without_empty_rows(g, n, g.rows(n, y))}, n.name() + ".channels");
    y.order = OnnxValue::Order::memory;
    std::iota(order.begin(), order.end(), 0);
    std::rotate(order.begin() + long(axis), order.end() - 1, order.end());
    g.set(n, with_axes(g, n, y, order));
    return y.node;
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

}  // namespace

const OnnxOperators& onnx_activations() {
  static const OnnxOperators operators = {
      {"Abs", smooth<SmoothFunction::abs>}, {"Ceil", smooth<SmoothFunction::ceil>}, {"Celu", celu}, {"Clip", clip}, {"Cos", smooth<SmoothFunction::cos>}, {"Elu", elu},
      {"Erf", smooth<SmoothFunction::erf>}, {"Exp", smooth<SmoothFunction::exp>}, {"Floor", smooth<SmoothFunction::floor>}, {"Gelu", gelu},
      {"HardSigmoid", hard_sigmoid}, {"IsNaN", is_nan}, {"HardSwish", hard_swish}, {"LeakyRelu", leaky_relu},
      {"Log", smooth<SmoothFunction::log>}, {"LogSoftmax", log_softmax}, {"Mish", smooth<SmoothFunction::mish>},
      {"Neg", negative}, {"PRelu", prelu}, {"Reciprocal", smooth<SmoothFunction::reciprocal>}, {"Relu", relu},
      {"Round", smooth<SmoothFunction::round>}, {"Sign", smooth<SmoothFunction::sign>}, {"Sin", smooth<SmoothFunction::sin>},
      {"Selu", selu}, {"Sigmoid", sigmoid}, {"Softmax", softmax}, {"Softsign", softsign}, {"Swish", swish}, {"Softplus", smooth<SmoothFunction::softplus>},
      {"Sqrt", smooth<SmoothFunction::sqrt>}, {"Tanh", hyperbolic_tangent}};
  return operators;
}

}  // namespace switchback
