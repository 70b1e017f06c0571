// ONNX operators on tokens: products of matrices, and softmax attention, which exporters write as MatMul, scale, mask, Softmax
// and MatMul, or as one operator.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
namespace {

// ---- attention, found where its last product is

// x·scale behind products and quotients with numbers.
struct Scaled {
  int node;
  double scale = 1;
};
Scaled without_scale(const OnnxGraph& g, int node) {
  Scaled s{node};
  while (const auto* c = std::get_if<BinaryConstant>(&g.at(s.node).layer)) {
    const bool product = c->function == BinaryFunction::mul, quotient = c->function == BinaryFunction::div && !c->reversed;
    if (c->values.size() != 1 || (!product && !quotient) || c->values[0] == 0) break;
    s.scale = product ? s.scale * double(c->values[0]) : s.scale / double(c->values[0]);
    s.node = g.at(s.node).inputs[0];
  }
  return s;
}

// Behind changes of shape that leave memory and its channels as they are.
int ungrouped(const OnnxGraph& g, int node) {
  while (const auto* t = std::get_if<Transpose>(&g.at(node).layer)) {
    if (t->sizes.size() > 1 || g.shape(g.at(node).inputs[0]).c != t->c) break;
    node = g.at(node).inputs[0];
  }
  return node;
}

// What stands before a Softmax: scale·rows∘(q·kᵀ) + bias.
struct Scores {
  int queries = -1, keys = -1;  // the keys turned: [groups, d, S]
  double scale = 1;
  std::vector<double> rows;  // a factor for each row of scores [groups·T], or empty: Swin V2 has one a head
  std::vector<double> bias;  // [groups·T, S] as memory has it, or empty
};
// Element i, as memory has it, of a constant that meets maps s.
double element(const BinaryConstant& c, Shape s, int64_t i) {
  const int64_t channel = i % s.c, column = i / s.c % s.w, row = i / s.c / s.w;
  const int64_t at = ((c.shape.c > 1 ? channel : 0) * c.shape.h + (c.shape.h > 1 ? row : 0)) * c.shape.w + (c.shape.w > 1 ? column : 0);
  return double(c.values[at]);
}
// A factor that all scores of a row share; false where they differ.
bool multiply_rows(const BinaryConstant& c, Shape s, std::vector<double>& rows) {
  for (int64_t i = 0; i < s.item(); ++i)
    if (element(c, s, i) != element(c, s, i / s.c * s.c)) return false;
  rows.resize(s.item() / s.c, 1);
  for (size_t row = 0; row < rows.size(); ++row) rows[row] *= element(c, s, int64_t(row) * s.c);
  return true;
}
std::optional<Scores> find_scores(const OnnxGraph& g, int node) {
  Scores found;
  for (;;) {
    const Scaled inner = without_scale(g, ungrouped(g, node));
    found.scale *= inner.scale, node = ungrouped(g, inner.node);
    const Shape s = g.shape(node);
    const auto* c = std::get_if<BinaryConstant>(&g.at(node).layer);
    if (!c || g.shape(g.at(node).inputs[0]) != s) break;
    if (c->function == BinaryFunction::add || (c->function == BinaryFunction::sub && !c->reversed)) {
      found.bias.resize(s.item(), 0);
      for (int64_t i = 0; i < s.item(); ++i) {
        const double by = found.scale * (found.rows.empty() ? 1 : found.rows[i / s.c]);
        found.bias[i] += (c->function == BinaryFunction::sub ? -by : by) * element(*c, s, i);
      }
    } else if (c->function != BinaryFunction::mul || !multiply_rows(*c, s, found.rows)) {
      break;
    }
    node = g.at(node).inputs[0];
  }
  if (!std::holds_alternative<MatMul>(g.at(node).layer)) return std::nullopt;
  const Scaled q = without_scale(g, g.at(node).inputs[0]), k = without_scale(g, g.at(node).inputs[1]);
  found.queries = q.node, found.keys = k.node, found.scale *= q.scale * k.scale;
  return found;
}

// The fewest groups of biases that repeat.
void set_bias(Attention& layer, const std::vector<double>& bias, int64_t groups) {
  if (bias.empty()) return;
  const int64_t group = int64_t(bias.size()) / groups;
  for (layer.bias_groups = 1; layer.bias_groups < groups; ++layer.bias_groups)
    if (groups % layer.bias_groups == 0 &&
        std::equal(bias.begin() + layer.bias_groups * group, bias.end(), bias.begin()))
      break;
  layer.bias.assign(bias.begin(), bias.begin() + layer.bias_groups * group);
}

}  // namespace

int add_attention(OnnxGraph& g, const OnnxNode& n, int q, int k, int v, double scale, const std::vector<double>& bias) {
  Attention layer{.scale = float(scale), .bias = {}};
  set_bias(layer, bias, g.shape(q).h);
  return g.add(n, layer, {q, k, v});
}

namespace {

// Where a is the Softmax of scores, a·b is attention; -1 where it is not.
int fused_attention(OnnxGraph& g, const OnnxNode& n, const OnnxValue& a, int values) {
  const int softmax = ungrouped(g, a.node);
  if (!std::holds_alternative<Softmax>(g.at(softmax).layer) || g.shape(softmax).c != a.dims.back()) return -1;
  const std::optional<Scores> scores = find_scores(g, g.at(softmax).inputs[0]);
  if (!scores) return -1;
  const Shape q = g.shape(scores->queries), turned = g.shape(scores->keys), v = g.shape(values);
  if (q.h != v.h || turned.c != v.w) return -1;
  const int keys = g.transposed(n, scores->keys, {{turned.h, turned.w, turned.c}, {0, 2, 1}, turned.w, turned.h, turned.c});
  int queries = scores->queries;
  if (!scores->rows.empty()) {
    const BinaryConstant factors{BinaryFunction::mul, {scores->rows.begin(), scores->rows.end()}, {1, 1, q.h, q.w}};
    queries = g.add(n, factors, {queries}, n.name() + ".scaled");
  }
  return add_attention(g, n, queries, keys, values, scores->scale, scores->bias);
}

// ---- products

}  // namespace

// a [batch…, M, K] · b [batch…, K, N].
OnnxValue matrix_product(OnnxGraph& g, const OnnxNode& n, const OnnxValue& a, const OnnxValue& b) {
  const size_t rank = a.dims.size();
  CHECK(rank >= 3 && b.dims.size() == rank && std::equal(a.dims.begin(), a.dims.end() - 2, b.dims.begin()) &&
            a.batch == b.batch && a.batch.axis + 2 < int64_t(rank) && a.dims[rank - 1] == b.dims[rank - 2],
        "a product of {} and {}: matrices with the same axes before them are supported, the batch's among these", g.text(a.dims),
        g.text(b.dims));
  const int64_t groups = product(a.dims, 0, rank - 2), m = a.dims[rank - 2], k = a.dims[rank - 1], columns = b.dims[rank - 1];
  const int right = g.memory_shaped(n, b, {1, columns, groups, k});
  OnnxValue y = a;
  y.dims.back() = columns;
  y.order = OnnxValue::Order::memory;
  y.node = fused_attention(g, n, a, right);
  if (y.node < 0) y.node = g.add(n, MatMul{}, {g.memory_shaped(n, a, {1, k, groups, m}), right});
  return y;
}

namespace {

void matmul(OnnxGraph& g, const OnnxNode& n) {
  OnnxValue a = g.value(n, 0), b = g.value(n, 1);
  if (!a.constant && b.constant) {
    OnnxConstant weight = *b.constant;
    while (weight.dims.size() > 2 && weight.dims[0] == 1) weight.dims.erase(weight.dims.begin());
    const bool vector = weight.dims.size() == 1;
    if (vector) weight.dims.push_back(1);
    if (weight.dims.size() == 2) {
      linear_over_last(g, n, 0, converted(transposed(weight, {1, 0}), false), false);
      if (!vector) return;
      const OnnxValue y = g.value(n.output(0));
      return g.regroup(n, y, {y.dims.begin(), y.dims.end() - 1}, y.batch);
    }
  }
  if (a.constant && !b.constant) {  // one matrix W for all of b: (bᵀ·Wᵀ)ᵀ
    OnnxConstant weight = *a.constant;
    while (weight.dims.size() > 2 && weight.dims[0] == 1) weight.dims.erase(weight.dims.begin());
    const size_t rank = b.dims.size();
    if (weight.dims.size() == 2 && rank >= 3 && size_t(b.batch.axis) + 2 < rank) {
      std::vector<int64_t> turned(rank);
      std::iota(turned.begin(), turned.end(), 0);
      std::swap(turned[rank - 2], turned[rank - 1]);
      linear_over_last(g, n, with_axes(g, n, b, turned), converted(weight, false), false);
      return g.set(n, with_axes(g, n, g.value(n.output(0)), turned));
    }
  }
  for (OnnxValue* x : {&a, &b})
    if (x->constant) {
      const Dims& other = (x == &a ? b : a).dims;
      OnnxConstant c = *x->constant;
      c.dims = padded(c.dims, other.size());
      for (size_t axis = 1; axis + 2 < c.dims.size(); ++axis)  // the same matrix for all places of this axis
        if (c.dims[axis] == 1 && other[axis] > 1)
          c = take(c, int64_t(axis), std::vector<int64_t>(size_t(std::min<int64_t>(other[axis], kMostOnnxSize)), 0));
      *x = g.constant_value(n, c, n.name() + ".constant");
    }
  g.set(n, matrix_product(g, n, a, b));
}

}  // namespace

OnnxValue with_axes(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const std::vector<int64_t>& axes) {
  if (std::is_sorted(axes.begin(), axes.end())) return x;
  OnnxValue y = x;
  y.order = OnnxValue::Order::memory;
  y.dims.clear();
  for (size_t i = 0; i < axes.size(); ++i) {
    y.dims.push_back(x.dims[axes[i]]);
    if (axes[i] == x.batch.axis) y.batch.axis = int64_t(i);
  }
  const int from = g.rows(n, x);
  const int64_t c = y.dims.back();
  y.node = g.transposed(n, from, {x.dims, axes, c, count(y.dims) / c, 1});
  return y;
}

namespace {

// ---- GELU

struct Factors {
  double scale = 1;
  std::vector<int> others;
};
void collect(const OnnxGraph& g, int node, Factors& f) {
  const Scaled s = without_scale(g, node);
  f.scale *= s.scale;
  const auto* product = std::get_if<Binary>(&g.at(s.node).layer);
  if (!product || product->function != BinaryFunction::mul || f.others.size() > 2) return f.others.push_back(s.node);
  for (int input : g.at(s.node).inputs) collect(g, input, f);
}

}  // namespace

void fold_gelu(OnnxGraph& g, const OnnxNode& n) {
  OnnxValue y = g.value(n.output(0));
  if (y.constant) return;
  Factors f;
  collect(g, y.node, f);
  if (f.others.size() != 2 || std::abs(f.scale - 0.5) > 1e-6) return;
  for (size_t side : {0, 1}) {
    const int x = f.others[side], sum = f.others[1 - side];
    const auto* one = std::get_if<BinaryConstant>(&g.at(sum).layer);
    if (!one || one->function != BinaryFunction::add || one->values != std::vector<float>{1}) continue;
    const int erf = g.at(sum).inputs[0];
    const auto* smooth = std::get_if<Smooth>(&g.at(erf).layer);
    if (!smooth || smooth->function != SmoothFunction::erf) continue;
    const Scaled inside = without_scale(g, g.at(erf).inputs[0]);
    if (inside.node != x || std::abs(inside.scale - M_SQRT1_2) > 1e-6) continue;
    y.node = g.add(n, Smooth{SmoothFunction::gelu}, {x});
    g.set(n, y);
    return;
  }
}

const OnnxOperators& onnx_tokens() {
  static const OnnxOperators operators = {{"Attention", attention_operator}, {"Einsum", einsum}, {"MatMul", matmul}};
  return operators;
}

}  // namespace switchback
