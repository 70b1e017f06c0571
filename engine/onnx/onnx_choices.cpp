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
OnnxValue no(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x) {
  return binary_value(g, n, BinaryFunction::sub, constant_number(1), x);
}

// Of the inputs as they stand, or the second one first.
void compared(OnnxGraph& g, const OnnxNode& n, BinaryFunction function, bool turned) {
  binary_value(g, n, function, operand(g, n, turned ? 1 : 0), operand(g, n, turned ? 0 : 1));
}
void greater(OnnxGraph& g, const OnnxNode& n) { compared(g, n, BinaryFunction::greater, false); }
void less(OnnxGraph& g, const OnnxNode& n) { compared(g, n, BinaryFunction::greater, true); }
void greater_or_equal(OnnxGraph& g, const OnnxNode& n) { compared(g, n, BinaryFunction::greater_equal, false); }
void less_or_equal(OnnxGraph& g, const OnnxNode& n) { compared(g, n, BinaryFunction::greater_equal, true); }
void equal(OnnxGraph& g, const OnnxNode& n) { compared(g, n, BinaryFunction::equal, false); }

}  // namespace

void differs_from_zero(OnnxGraph& g, const OnnxNode& n) {
  binary_value(g, n, BinaryFunction::where_not, constant_number(1), operand(g, n, 0));
  no(g, n, g.value(n.output(0)));
}

namespace {

void negation(OnnxGraph& g, const OnnxNode& n) { no(g, n, operand(g, n, 0)); }
void both(OnnxGraph& g, const OnnxNode& n) {
  binary_value(g, n, BinaryFunction::mul, operand(g, n, 0), operand(g, n, 1));
}
void either(OnnxGraph& g, const OnnxNode& n) {
  binary_value(g, n, BinaryFunction::max, operand(g, n, 0), operand(g, n, 1));
}
void one_of_both(OnnxGraph& g, const OnnxNode& n) {
  no(g, n, binary_value(g, n, BinaryFunction::equal, operand(g, n, 0), operand(g, n, 1)));
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
  const OnnxValue yes = binary_value(g, n, BinaryFunction::where, operand(g, n, 1), condition),
                  otherwise = binary_value(g, n, BinaryFunction::where_not, operand(g, n, 2), condition);
  binary_value(g, n, BinaryFunction::add, yes, otherwise);
}

// The larger or the smaller one: of a value and a number a clip, whose gates etalons know.
OnnxValue extreme_of(OnnxGraph& g, const OnnxNode& n, bool larger, const OnnxValue& a, const OnnxValue& b) {
  const OnnxValue &x = a.constant ? b : a, &other = a.constant ? a : b;
  if (!x.constant && other.constant && other.constant->count() == 1 && !std::isnan(other.constant->floats[0])) {
    OnnxValue y = x;
    const float limit = other.constant->floats[0];
    y.dims = padded(y.dims, std::max(y.dims.size(), other.dims.size()));
    y.batch.axis += int64_t(y.dims.size() - x.dims.size());
    y.node = g.add(n, larger ? clip_layer(limit, kNoClip) : clip_layer(-kNoClip, limit), {y.node});
    return y;
  }
  return binary_value(g, n, larger ? BinaryFunction::max : BinaryFunction::min, a, b);
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
  check_size(double(rows) * double(columns), kMostComputed);
  OnnxConstant mask{.dims = {rows, columns}, .whole = false, .floats = std::vector<float>(size_t(rows * columns)), .ints = {}};
  for (int64_t i = 0; i < mask.count(); ++i) {
    const int64_t right = i % columns - i / columns;
    mask.floats[i] = upper ? right >= shift : right <= shift;
  }
  const bool whole = g.value(n, 0).constant && g.value(n, 0).constant->whole;
  const Dims dims = mask.dims;
  const OnnxValue kept = binary_value(g, n, BinaryFunction::where, x, {std::make_shared<OnnxConstant>(std::move(mask)), -1, dims});
  if (kept.constant) g.set(n, converted(*kept.constant, whole));
}

void thresholded_relu(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = operand(g, n, 0);
  const OnnxValue above = binary_value(g, n, BinaryFunction::greater, x, constant_number(n.real("alpha", 1)));
  binary_value(g, n, BinaryFunction::where, x, above);
}

// x ± bias beyond ±lambd, 0 between.
void shrink(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = operand(g, n, 0);
  const float limit = n.real("lambd", 0.5f), bias = n.real("bias", 0);
  const auto part = [&](bool up) {
    const BinaryFunction by = up ? BinaryFunction::sub : BinaryFunction::add;
    const OnnxValue moved = bias == 0 ? x : binary_value(g, n, by, x, constant_number(bias));
    const OnnxValue limits = constant_number(up ? limit : -limit);
    const OnnxValue beyond = binary_value(g, n, BinaryFunction::greater, up ? x : limits, up ? limits : x);
    return binary_value(g, n, BinaryFunction::where, moved, beyond);
  };
  const OnnxValue above = part(true), below = part(false);
  binary_value(g, n, BinaryFunction::add, above, below);
}

void infinite(OnnxGraph& g, const OnnxNode& n) {
  const bool below = n.integer("detect_negative", 1) != 0, above = n.integer("detect_positive", 1) != 0;
  OnnxValue x = operand(g, n, 0);
  if (below && above) x.node = g.add(n, Smooth{SmoothFunction::abs}, {x.node}, n.name() + ".part");
  const float which = above ? 1.f : below ? -1.f : std::numeric_limits<float>::quiet_NaN();  // NaN equals nothing
  binary_value(g, n, BinaryFunction::equal, x, constant_number(which * std::numeric_limits<float>::infinity()));
}

}  // namespace

// It alone differs from itself.
void is_no_number(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = operand(g, n, 0);
  no(g, n, binary_value(g, n, BinaryFunction::equal, x, x));
}

const OnnxOperators& onnx_choices() {
  static const OnnxOperators operators = {{"And", both},
                                          {"Equal", equal},
                                          {"Greater", greater},
                                          {"GreaterOrEqual", greater_or_equal},
                                          {"IsInf", infinite},
                                          {"Less", less},
                                          {"LessOrEqual", less_or_equal},
                                          {"Max", largest},
                                          {"Min", smallest},
                                          {"Not", negation},
                                          {"Or", either},
                                          {"Shrink", shrink},
                                          {"ThresholdedRelu", thresholded_relu},
                                          {"Trilu", triangle},
                                          {"Where", where},
                                          {"Xor", one_of_both}};
  return operators;
}

}  // namespace switchback
