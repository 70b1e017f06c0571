// ONNX operators that norm: over batches seen in training, layers, groups of channels, and neighbours.
#include <algorithm>
#include <cmath>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
namespace {

void batch_norm(OnnxGraph& g, const OnnxNode& n) {
  const bool inference = n.opset() < 7 ? n.integer("is_test", 0) == 1 : n.integer("training_mode", 0) == 0;
  CHECK(inference && n.integer("spatial", 1) == 1, "only batch norms of inference are supported");
  n.ignore({"momentum"});
  if (g.value(n, 0).dims.size() > 4) {  // no map: x·scale + shift
    const float eps = n.real("epsilon", 1e-5f);
    OnnxConstant scale = converted(g.constant(n, 1, "parameters"), false), shift = converted(g.constant(n, 2, "parameters"), false);
    const std::vector<float> mean = g.constant(n, 3, "parameters").as_floats(), var = g.constant(n, 4, "parameters").as_floats();
    const size_t c = scale.floats.size();
    CHECK(shift.floats.size() == c && mean.size() == c && var.size() == c, "parameters of {}, {}, {} and {} channels", c,
          shift.floats.size(), mean.size(), var.size());
    for (size_t i = 0; i < c; ++i) {
      scale.floats[i] = float(double(scale.floats[i]) / std::sqrt(double(var[i]) + double(eps)));
      shift.floats[i] = float(double(shift.floats[i]) - double(mean[i]) * double(scale.floats[i]));
    }
    scale.dims = shift.dims = Dims(g.value(n, 0).dims.size() - 1, 1);
    scale.dims[0] = shift.dims[0] = int64_t(c);
    const auto constant = [](OnnxConstant v) { return OnnxValue{std::make_shared<OnnxConstant>(v), -1, v.dims}; };
    const OnnxValue scaled = binary_value(g, n, BinaryFunction::mul, g.value(n, 0), constant(scale));
    binary_value(g, n, BinaryFunction::add, scaled, constant(shift));
    return;
  }
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
  binary_value(g, n, BinaryFunction::mul, x, squares);
}

void rms_norm(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"stash_type"});
  const OnnxValue x = g.value(n, 0);
  std::set<int64_t> axes;
  for (int64_t axis = onnx_axis(n.integer("axis", -1), x.dims.size()); axis < int64_t(x.dims.size()); ++axis) axes.insert(axis);
  over_root(g, n, x, squares(g, n, x, axes, true), n.real("epsilon", 1e-5f));
  g.constant(n, 1, "scale");
  const OnnxValue y = g.value(n.output(0));
  binary_value(g, n, BinaryFunction::mul, y, g.value(n, 1));
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
  binary_value(g, n, BinaryFunction::div, x, reduced(g, n, size, axes, false));
}

}  // namespace

const OnnxOperators& onnx_norms() {
  static const OnnxOperators operators = {
      {"BatchNormalization", batch_norm}, {"GroupNormalization", group_normalization},
      {"InstanceNormalization", instance_norm}, {"LRN", local_response_norm}, {"LayerNormalization", layer_norm},
      {"LpNormalization", lp_norm}, {"RMSNormalization", rms_norm}};
  return operators;
}

}  // namespace switchback
