// ONNX operators of two values and more, element by element.
#include <algorithm>
#include <cmath>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
namespace {

// Of two ranks, the batch of the one meets another axis of the other.
constexpr const char* kMixes = "their last axes are lined up, which mixes the images of a batch";

// A constant of all of `dims`, in the order of memory, as a map of this shape holds it: channels first.
std::vector<float> spread(const OnnxConstant& c, const Dims& dims, Shape s) {
  std::vector<float> values(count(dims));
  const std::vector<float> floats = c.as_floats();
  for (int64_t i = 0; i < count(dims); ++i) {
    int64_t from = 0, stride = 1, rest = i;
    for (size_t k = dims.size(); k-- > 0; rest /= dims[k]) {
      if (c.dims[k] > 1) from += rest % dims[k] * stride;
      stride *= c.dims[k];
    }
    values[i % s.c * s.h * s.w + i / s.c] = floats[from];
  }
  return values;
}

// Whether v is so many times an open batch, by a float's precision. (What no size can be is not asked.)
bool counts_images(float v) {
  const double batches = std::round(double(v) / double(kOpenBatch)), size = std::abs(double(v));
  return batches != 0 && size < 1e11 && std::abs(double(v) - batches * double(kOpenBatch)) <= 1.2e-7 * size;
}

// x ∘ constant, or constant ∘ x where `reversed`, as n's output.
void with_constant(OnnxGraph& g, const OnnxNode& n, BinaryFunction function, const OnnxValue& x, const OnnxConstant& given,
                   bool reversed) {
  const size_t rank = std::max(x.dims.size(), given.dims.size());
  CHECK(x.dims.size() == rank || g.batch == 1, "inputs of {} and {}: {}", g.text(x.dims), to_string(given.dims), kMixes);
  OnnxValue y = x;
  y.dims = padded(x.dims, rank);
  y.batch.axis += int64_t(rank - x.dims.size());
  const Dims beside = padded(given.dims, rank);
  Dims wide = y.dims;  // the constant may have more places than x
  for (size_t i = 0; i < rank; ++i)
    if (int64_t(i) != y.batch.axis && y.dims[i] == 1) wide[i] = beside[i];
  const bool wider = wide != y.dims;
  wide[y.batch.axis] = 1;  // as many images as there are
  if (wider) return with_constant(g, n, function, expanded(g, n, y, wide, n.name() + ".input"), given, reversed);
  const OnnxConstant constant = g.beside(y.dims, given);
  if (g.batch == kOpenBatch)  // sizes may be computed with it, data may not
    for (float v : constant.as_floats())
      CHECK(!counts_images(v), "data with a number that depends on how many images there are: it mixes the images of a batch");
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

OnnxValue constant_number(float value) {
  auto c = std::make_shared<OnnxConstant>(OnnxConstant{.dims = {}, .whole = false, .floats = {value}, .ints = {}});
  return {std::move(c), -1, {}};
}

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

void add(OnnxGraph& g, const OnnxNode& n) { binary(g, n, BinaryFunction::add); }
void subtract(OnnxGraph& g, const OnnxNode& n) { binary(g, n, BinaryFunction::sub); }
void multiply(OnnxGraph& g, const OnnxNode& n) {
  binary(g, n, BinaryFunction::mul);
  fold_gelu(g, n);
}
void divide(OnnxGraph& g, const OnnxNode& n) { binary(g, n, BinaryFunction::div); }

// Of any number of values, broadcast.
OnnxValue sum_of(OnnxGraph& g, const OnnxNode& n) {
  CHECK(n.inputs() >= 1, "a sum of nothing");
  n.ignore({"consumed_inputs"});  // opset 1
  OnnxValue total = g.value(n, 0);
  g.set(n, total);
  for (int i = 1; i < n.inputs(); ++i) total = binary_value(g, n, BinaryFunction::add, total, g.value(n, i));
  return total;
}
void sum(OnnxGraph& g, const OnnxNode& n) { sum_of(g, n); }
void mean(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue total = sum_of(g, n);
  if (n.inputs() > 1) binary_value(g, n, BinaryFunction::mul, total, constant_number(1.f / float(n.inputs())));
}

// By a number; squares and roots have layers of their own. Or of a positive number: e^(x·ln c).
void power(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = g.value(n, 0), by = lined_up(g, n, x, g.value(n, 1));
  if (x.constant && !by.constant) {
    OnnxConstant logs = converted(*x.constant, false);
    for (float& v : logs.floats) {
      CHECK(v > 0, "{} to a power that depends on the network's input; positive numbers are supported", v);
      v = std::log(v);
    }
    const Dims dims = logs.dims;
    OnnxValue y = binary_value(g, n, BinaryFunction::mul, by, {std::make_shared<OnnxConstant>(std::move(logs)), -1, dims});
    y.node = g.add(n, Smooth{SmoothFunction::exp}, {y.node});
    return g.set(n, y);
  }
  const std::vector<float> exponents = g.constant(n, 1, "exponent").as_floats();
  CHECK(!exponents.empty() && std::ranges::all_of(exponents, [&](float e) { return e == exponents[0]; }),
        "its exponent has {} values; one number is supported", exponents.size());
  const float exponent = exponents[0];
  OnnxValue y = x;
  if (exponents.size() > 1 || by.dims.size() > x.dims.size()) {  // it may spread x over more places
    auto ones = std::make_shared<OnnxConstant>(filled(*constant_number(1).constant, by.dims));
    y = binary_value(g, n, BinaryFunction::mul, x, {std::move(ones), -1, by.dims});
  }
  if (exponent == 1) return g.set(n, y);
  if (exponent == 2) y.node = g.add(n, Binary{BinaryFunction::mul}, {y.node, y.node});
  else if (exponent == 0.5f) y.node = g.add(n, Smooth{SmoothFunction::sqrt}, {y.node});
  else if (exponent == -1) y.node = g.add(n, Smooth{SmoothFunction::reciprocal}, {y.node});
  else y.node = g.add(n, Smooth{SmoothFunction::pow, exponent}, {y.node});
  g.set(n, y);
}

}  // namespace

const OnnxOperators& onnx_arithmetic() {
  static const OnnxOperators operators = {
      {"Add", add}, {"Div", divide}, {"Mean", mean}, {"Mul", multiply}, {"Pow", power},
      {"Sub", subtract}, {"Sum", sum}};
  return operators;
}

}  // namespace switchback
