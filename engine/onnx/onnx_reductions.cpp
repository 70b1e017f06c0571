// ONNX operators that reduce some axes to one place.
#include <algorithm>
#include <cmath>
#include <optional>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
OnnxValue reduced(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const std::set<int64_t>& axes, bool mean) {
  OnnxValue y = x;
  for (int64_t axis : axes) y.dims[axis] = 1;
  const bool neighbours = *axes.rbegin() - *axes.begin() + 1 == int64_t(axes.size());
  const bool tokens = g.in_memory_order(x) || x.dims.size() > 4 || x.batch != OnnxValue::Batch{} || x.dims[0] != 1;
  if (!neighbours && tokens) {  // one after another
    y = x;
    for (int64_t axis : axes) y = reduced(g, n, y, {axis}, mean);
    return y;
  }
  if (neighbours && tokens) {
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

namespace {

// The largest value, with its switch: a pool of one window over axes side by side, or one after another.
OnnxValue largest(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const std::set<int64_t>& axes) {
  OnnxValue y = x;
  if (*axes.rbegin() - *axes.begin() + 1 != int64_t(axes.size())) {
    for (int64_t axis : axes) y = largest(g, n, y, {axis});
    return y;
  }
  for (int64_t axis : axes) y.dims[axis] = 1;
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

}  // namespace

const OnnxOperators& onnx_reductions() {
  static const OnnxOperators operators = {
      {"ReduceL1", reduce_l1}, {"ReduceL2", reduce_l2}, {"ReduceLogSum", reduce_log_sum},
      {"ReduceLogSumExp", reduce_log_sum_exp}, {"ReduceMax", reduce_max}, {"ReduceMean", reduce_mean},
      {"ReduceMin", reduce_min}, {"ReduceSum", reduce_sum}, {"ReduceSumSquare", reduce_sum_square}};
  return operators;
}

}  // namespace switchback
