// ONNX operators that compare and choose. Of data, yes is 1 and no is 0; what the comparison depends on gets no
// gradient through it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
namespace {

// A constant as floats, data as they are.
OnnxValue operand(const OnnxGraph& g, const OnnxNode& n, int input) {
  OnnxValue x = g.value(n, input);
  if (x.constant) x.constant = std::make_shared<OnnxConstant>(converted(*x.constant, false));
  return x;
}
OnnxValue minus(OnnxGraph& g, const OnnxNode& n, const OnnxValue& a, const OnnxValue& b) {
  return binary_value(g, n, BinaryFunction::sub, a, b);
}
OnnxValue times(OnnxGraph& g, const OnnxNode& n, const OnnxValue& a, const OnnxValue& b) {
  return binary_value(g, n, BinaryFunction::mul, a, b);
}
OnnxValue no(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x) { return minus(g, n, constant_number(1), x); }

// 1 where x > 0, else 0: so steep a ramp that every float of full precision lies beside it.
OnnxValue above_zero(OnnxGraph& g, const OnnxNode& n, OnnxValue x) {
  x.node = g.add(n, Hardsigmoid{std::numeric_limits<float>::max(), 0}, {x.node}, n.name() + ".part");
  g.set(n, x);
  return x;
}
OnnxValue greater_of(OnnxGraph& g, const OnnxNode& n, const OnnxValue& a, const OnnxValue& b) {
  return above_zero(g, n, minus(g, n, a, b));
}

void greater(OnnxGraph& g, const OnnxNode& n) { greater_of(g, n, operand(g, n, 0), operand(g, n, 1)); }
void less(OnnxGraph& g, const OnnxNode& n) { greater_of(g, n, operand(g, n, 1), operand(g, n, 0)); }
void greater_or_equal(OnnxGraph& g, const OnnxNode& n) {
  no(g, n, greater_of(g, n, operand(g, n, 1), operand(g, n, 0)));
}
void less_or_equal(OnnxGraph& g, const OnnxNode& n) { no(g, n, greater_of(g, n, operand(g, n, 0), operand(g, n, 1))); }
void equal(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue more = greater_of(g, n, operand(g, n, 0), operand(g, n, 1));
  const OnnxValue less = greater_of(g, n, operand(g, n, 1), operand(g, n, 0));
  minus(g, n, no(g, n, more), less);
}

}  // namespace

void differs_from_zero(OnnxGraph& g, const OnnxNode& n) {
  OnnxValue size = operand(g, n, 0);
  size.node = g.add(n, Smooth{SmoothFunction::abs}, {size.node}, n.name() + ".part");
  above_zero(g, n, size);
}

namespace {

void negation(OnnxGraph& g, const OnnxNode& n) { no(g, n, operand(g, n, 0)); }
void both(OnnxGraph& g, const OnnxNode& n) { times(g, n, operand(g, n, 0), operand(g, n, 1)); }
void either(OnnxGraph& g, const OnnxNode& n) {  // not (not a and not b)
  no(g, n, times(g, n, no(g, n, operand(g, n, 0)), no(g, n, operand(g, n, 1))));
}

// condition·x, or (1 − condition)·x where `where` is false; 0 where the other one is chosen, whatever x is there.
OnnxValue part(OnnxGraph& g, const OnnxNode& n, const OnnxValue& condition, const OnnxValue& x, bool where) {
  if (condition.constant && x.constant) {
    auto c = std::make_shared<OnnxConstant>(chosen(*condition.constant, *x.constant, where));
    const Dims dims = c->dims;
    return {std::move(c), -1, dims};
  }
  if (x.constant)
    for (float v : x.constant->floats) CHECK(std::isfinite(v), "{} is chosen by data; finite numbers are supported", v);
  return times(g, n, where ? condition : no(g, n, condition), x);
}

void where(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue condition = operand(g, n, 0);
  if (condition.constant)  // everywhere the same one
    for (const bool first : {true, false}) {
      const OnnxValue x = operand(g, n, first ? 1 : 2), other = operand(g, n, first ? 2 : 1);
      const bool all = std::ranges::all_of(condition.constant->floats, [&](float v) { return (v != 0) == first; });
      const auto inside = [&](const OnnxValue& v) {  // it spreads x over no more places
        const Dims dims = padded(v.dims, std::max(v.dims.size(), x.dims.size()));
        return dims.size() == x.dims.size() && std::equal(dims.begin(), dims.end(), x.dims.begin(), [](int64_t a, int64_t b) { return a == 1 || a == b; });
      };
      if (all && !x.constant && inside(condition) && inside(other)) return g.set(n, x);
    }
  const OnnxValue yes = part(g, n, condition, operand(g, n, 1), true),
                  otherwise = part(g, n, condition, operand(g, n, 2), false);
  binary_value(g, n, BinaryFunction::add, yes, otherwise);
}

// The larger or the smaller one: of a value and a number a clip; of a value and other constants, each where it is chosen; of
// two values (a + b ± |a − b|) / 2, whose gradient at a tie goes to both by halves, as PyTorch's.
OnnxValue extreme_of(OnnxGraph& g, const OnnxNode& n, bool larger, const OnnxValue& a, const OnnxValue& b) {
  if (a.constant && b.constant) {
    OnnxValue y{std::make_shared<OnnxConstant>(extreme_constant(*a.constant, *b.constant, larger)), -1, {}};
    y.dims = y.constant->dims;
    return y;
  }
  const OnnxValue &x = a.constant ? b : a, &other = a.constant ? a : b;
  if (other.constant && other.constant->count() == 1) {
    OnnxValue y = x;
    const float limit = other.constant->floats[0];
    y.dims = padded(y.dims, std::max(y.dims.size(), other.dims.size()));
    y.batch.axis += int64_t(y.dims.size() - x.dims.size());
    y.node = g.add(n, larger ? clip_layer(limit, kNoClip) : clip_layer(-kNoClip, limit), {y.node});
    return y;
  }
  if (other.constant) {
    OnnxConstant limits = *other.constant;
    constexpr float kLargest = std::numeric_limits<float>::max();
    for (float& v : limits.floats) v = std::clamp(v, -kLargest, kLargest);  // 0·∞ is no number
    const OnnxValue c{std::make_shared<OnnxConstant>(limits), -1, other.dims};
    const OnnxValue takes = larger ? greater_of(g, n, x, c) : greater_of(g, n, c, x);
    const OnnxValue first = times(g, n, takes, x), second = times(g, n, no(g, n, takes), c);
    return binary_value(g, n, BinaryFunction::add, first, second);
  }
  OnnxValue apart = minus(g, n, a, b);
  apart.node = g.add(n, Smooth{SmoothFunction::abs}, {apart.node}, n.name() + ".part");
  const OnnxValue both = binary_value(g, n, BinaryFunction::add, a, b);
  OnnxValue y = binary_value(g, n, larger ? BinaryFunction::add : BinaryFunction::sub, both, apart);
  y.node = g.add(n, by_scalar(BinaryFunction::mul, 0.5f), {y.node});
  return y;
}

void extreme(OnnxGraph& g, const OnnxNode& n, bool larger) {
  CHECK(n.inputs() >= 1, "no inputs");
  n.ignore({"consumed_inputs"});  // opset 1
  OnnxValue y = operand(g, n, 0);
  for (int i = 1; i < n.inputs(); ++i) y = extreme_of(g, n, larger, y, operand(g, n, i));
  g.set(n, y);
}
void largest(OnnxGraph& g, const OnnxNode& n) { extreme(g, n, true); }
void smallest(OnnxGraph& g, const OnnxNode& n) { extreme(g, n, false); }

// What lies below, or above, a diagonal of the last two axes becomes zero.
void triangle(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = operand(g, n, 0);
  const std::vector<int64_t> given = n.has_input(1) ? g.ints(n, 1, "diagonal") : std::vector<int64_t>{0};
  CHECK(given.size() == 1, "{} diagonals", given.size());
  const int64_t shift = given[0];
  const bool upper = n.integer("upper", 1) != 0;
  CHECK(x.dims.size() >= 2, "of {}", to_string(x.dims));
  const int64_t rows = x.dims[x.dims.size() - 2], columns = x.dims.back();
  CHECK(double(rows) * double(columns) <= double(1 << 24), "of {}", to_string(x.dims));
  OnnxConstant mask{.dims = {rows, columns}, .whole = false, .floats = std::vector<float>(size_t(rows * columns)), .ints = {}};
  for (int64_t i = 0; i < mask.count(); ++i) {
    const int64_t right = i % columns - i / columns;
    mask.floats[i] = upper ? right >= shift : right <= shift;
  }
  const bool whole = g.value(n, 0).constant && g.value(n, 0).constant->whole;
  if (x.constant) return g.set(n, converted(chosen(mask, *x.constant, true), whole));
  const Dims dims = mask.dims;
  times(g, n, x, {std::make_shared<OnnxConstant>(std::move(mask)), -1, dims});
}

void thresholded_relu(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = operand(g, n, 0);
  times(g, n, x, greater_of(g, n, x, constant_number(n.real("alpha", 1))));
}

}  // namespace

const OnnxOperators& onnx_choices() {
  static const OnnxOperators operators = {{"And", both},
                                          {"Equal", equal},
                                          {"Greater", greater},
                                          {"GreaterOrEqual", greater_or_equal},
                                          {"Less", less},
                                          {"LessOrEqual", less_or_equal},
                                          {"Max", largest},
                                          {"Min", smallest},
                                          {"Not", negation},
                                          {"Or", either},
                                          {"ThresholdedRelu", thresholded_relu},
                                          {"Trilu", triangle},
                                          {"Where", where}};
  return operators;
}

}  // namespace switchback
