// ONNX operators that compare and choose. Of data, yes is 1 and no is 0; what the comparison depends on gets no
// gradient through it.
#include <cmath>
#include <limits>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
namespace {

OnnxValue constant(float value) {
  auto c = std::make_shared<OnnxConstant>(OnnxConstant{.dims = {}, .whole = false, .floats = {value}, .ints = {}});
  return {std::move(c), -1, {}};
}
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
OnnxValue no(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x) { return minus(g, n, constant(1), x); }

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
  const OnnxValue yes = part(g, n, condition, operand(g, n, 1), true),
                  otherwise = part(g, n, condition, operand(g, n, 2), false);
  binary_value(g, n, BinaryFunction::add, yes, otherwise);
}

void thresholded_relu(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = operand(g, n, 0);
  times(g, n, x, greater_of(g, n, x, constant(n.real("alpha", 1))));
}

}  // namespace

const OnnxOperators& onnx_choices() {
  static const OnnxOperators operators = {{"And", both},
                                          {"Equal", equal},
                                          {"Greater", greater},
                                          {"GreaterOrEqual", greater_or_equal},
                                          {"Less", less},
                                          {"LessOrEqual", less_or_equal},
                                          {"Not", negation},
                                          {"Or", either},
                                          {"ThresholdedRelu", thresholded_relu},
                                          {"Where", where}};
  return operators;
}

}  // namespace switchback
