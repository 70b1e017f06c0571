// The operator Attention of opsets 23 to 28: heads, groups of queries that share keys, masks, a causal order, windows
// along the sequence, keys and values of the past, and scores that are capped.
#include <algorithm>
#include <cmath>
#include <optional>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
namespace {

// [1,T,heads·d] as [1,heads,T,d].
OnnxConstant in_heads(const OnnxConstant& c, int64_t heads) {
  if (c.dims.size() == 4) return c;
  CHECK(c.dims.size() == 3 && heads > 0 && c.dims[2] % heads == 0, "{} heads for an input of {}", heads,
        to_string(c.dims));
  OnnxConstant cut = c;
  cut.dims = {c.dims[0], c.dims[1], heads, c.dims[2] / heads};
  return transposed(cut, {0, 2, 1, 3});
}

// Places [heads,T,d] behind those of the past [1,heads,P,d]: room by padding, and a sum.
int behind_past(OnnxGraph& g, const OnnxNode& n, int node, const OnnxConstant& before) {
  const Shape s = g.shape(node);
  CHECK(before.dims.size() == 4 && before.dims[0] == 1 && before.dims[1] == s.h && before.dims[3] == s.c,
        "past keys and values of {} before {} heads of {}", to_string(before.dims), s.h, s.c);
  const int64_t past = before.dims[2];
  if (past == 0) return node;
  const int padded = g.add(n, Pad{.left = past}, {node}, n.name() + ".part");
  BinaryConstant sum{BinaryFunction::add, std::vector<float>(size_t(g.shape(padded).item())), g.shape(padded)};
  for (int64_t i = 0; i < before.count(); ++i)
    sum.values[(i % s.c * s.h + i / s.c / past) * (past + s.w) + i / s.c % past] = before.floats[i];
  return g.add(n, sum, {padded}, n.name() + ".part");
}

// [N,heads,T,d] as it is, or [N,T,heads·d] cut into heads: as groups [heads,T,d]. Constants are known for all images;
// `past` of them stand in front.
int heads_of(OnnxGraph& g, const OnnxNode& n, int input, int64_t heads, int past) {
  OnnxValue x = g.value(n, input);
  OnnxConstant before;
  if (n.has_input(past)) before = converted(in_heads(g.constant(n, past, "past keys and values"), heads), false);
  const bool constant = x.constant != nullptr;
  if (constant) {
    OnnxConstant all = converted(in_heads(*x.constant, heads), false);
    if (n.has_input(past)) all = concatenated({&before, &all}, 2);
    x = g.constant_value(n, all, n.name() + ".constant");
  }
  CHECK(x.batch == OnnxValue::Batch{} && x.dims[0] == 1, "its input {} does not begin with the batch", input);
  const auto with_past = [&](int node) { return constant || !n.has_input(past) ? node : behind_past(g, n, node, before); };
  if (x.dims.size() == 4) return with_past(g.memory_shaped(n, x, {1, x.dims[3], x.dims[1], x.dims[2]}));
  CHECK(x.dims.size() == 3 && heads > 0 && x.dims[2] % heads == 0, "{} heads for an input of {}", heads,
        g.text(x.dims));
  const int64_t width = x.dims[2] / heads, t = x.dims[1];
  return with_past(g.transposed(n, g.rows(n, x), {{t, heads, width}, {1, 0, 2}, width, heads, t}));
}

struct Sizes {
  int64_t heads, t, s, past;  // of queries; queries, keys, and those of the keys that are past
  int64_t scores() const { return heads * t * s; }
};

void add_mask(OnnxGraph& g, const OnnxNode& n, const Sizes& z, std::vector<double>& bias) {
  const OnnxConstant& mask = g.constant(n, 3, "mask");
  CHECK(!mask.dims.empty() && mask.dims.size() <= 4, "a mask of {}", to_string(mask.dims));
  const Dims dims = padded(mask.dims, 4), wanted{1, z.heads, z.t, z.s};
  for (size_t i = 0; i < 4; ++i)
    CHECK(dims[i] == 1 || dims[i] == wanted[i] || (i == 3 && dims[i] < wanted[i]), "a mask of {} for scores of {}",
          to_string(mask.dims), g.text(wanted));
  const std::vector<float> values = mask.as_floats();
  for (int64_t i = 0; i < z.scores(); ++i) {
    const int64_t key = dims[3] > 1 ? i % z.s : 0;
    if (key >= dims[3]) {  // a mask may be shorter than the keys
      bias[i] = -INFINITY;
      continue;
    }
    const int64_t at =
        ((dims[1] > 1 ? i / z.s / z.t : 0) * dims[2] + (dims[2] > 1 ? i / z.s % z.t : 0)) * dims[3] + key;
    const double value = double(values[at]);
    bias[i] += !mask.whole ? value : value != 0 ? 0 : -INFINITY;  // booleans: who takes part
  }
}

// [heads,T,S] that are added to the scores, or nothing.
std::vector<double> biases(OnnxGraph& g, const OnnxNode& n, const Sizes& z) {
  const bool causal = n.integer("is_causal", 0) != 0, some = n.has_input(6);
  const int64_t left = n.integer("left_window_size", -1), right = n.integer("right_window_size", -1);
  if (!n.has_input(3) && !causal && !some && left < 0 && right < 0) return {};
  std::vector<double> bias(z.scores(), 0);
  if (n.has_input(3)) add_mask(g, n, z, bias);
  int64_t there = z.s, offset = z.past;  // keys that count, and those before the first query
  if (some) {
    const std::vector<int64_t> counts = g.ints(n, 6, "numbers of keys");
    CHECK(!counts.empty() && std::ranges::all_of(counts, [&](int64_t c) { return c == counts[0]; }),
          "numbers of keys that differ with the image");
    there = counts[0];
    if (!n.has_input(4)) offset = there - z.t;
  }
  for (int64_t i = 0; i < z.scores(); ++i) {
    const int64_t key = i % z.s, place = i / z.s % z.t + offset;
    if (key >= there || (causal && key > place) || (left >= 0 && key < place - left) ||
        (right >= 0 && key > place + right))
      bias[i] = -INFINITY;
  }
  return bias;
}

// cap·tanh(scale·q·kᵀ / cap) + bias, softmax, ·v: no layer of attention has that, so it is written out.
int capped(OnnxGraph& g, const OnnxNode& n, int q, int k, int v, double scale, double cap,
           const std::vector<double>& bias) {
  const std::string part = n.name() + ".part";
  const Shape qs = g.shape(q), ks = g.shape(k);
  const int turned = g.transposed(n, k, {{ks.h, ks.w, ks.c}, {0, 2, 1}, ks.w, ks.h, ks.c});
  int node = g.add(n, MatMul{}, {q, turned}, part);
  node = g.add(n, by_scalar(BinaryFunction::mul, float(scale / cap)), {node}, part);
  node = g.add(n, Smooth{SmoothFunction::tanh}, {node}, part);
  node = g.add(n, by_scalar(BinaryFunction::mul, float(cap)), {node}, part);
  if (!bias.empty()) {
    BinaryConstant sum{BinaryFunction::add, std::vector<float>(bias.size()), {1, ks.w, qs.h, qs.w}};
    const int64_t rows = qs.h * qs.w;
    for (int64_t i = 0; i < int64_t(bias.size()); ++i)
      sum.values[i % ks.w * rows + i / ks.w] = float(bias[i]);
    node = g.add(n, sum, {node}, part);
  }
  return g.add(n, MatMul{}, {g.add(n, Softmax{}, {node}, part), v});
}

}  // namespace

void attention_operator(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"softmax_precision", "qk_matmul_output_mode"});  // the latter: what an output is that nobody reads
  const bool flat = g.value(n, 0).dims.size() == 3;
  int64_t heads = n.integer("q_num_heads", 0);
  const int64_t shared = n.integer("kv_num_heads", 0);
  const int k = heads_of(g, n, 1, shared, 4), v = heads_of(g, n, 2, shared, 5);
  int q = heads_of(g, n, 0, heads, 7);
  const Shape qs = g.shape(q), ks = g.shape(k), vs = g.shape(v);
  heads = qs.h;
  CHECK(ks.h == vs.h && ks.w == vs.w && ks.h > 0 && heads % ks.h == 0,
        "{} heads of queries, {} of keys and {} of values", heads, ks.h, vs.h);
  const Sizes z{heads, qs.w, ks.w,
                n.has_input(4) ? g.value(n, 4).dims[flat && g.value(n, 4).dims.size() == 3 ? 1 : 2] : 0};
  CHECK(double(z.scores()) <= 0x1p31, "scores of {} heads, {} queries and {} keys", heads, z.t, z.s);
  std::vector<double> bias = biases(g, n, z);
  std::vector<float> alive(heads * z.t, 1);  // queries that see no key give 0
  for (int64_t row = 0; !bias.empty() && row < heads * z.t; ++row) {
    const auto first = bias.begin() + row * z.s;
    if (!std::all_of(first, first + z.s, [](double b) { return b == -INFINITY; })) continue;
    std::fill(first, first + z.s, 0);
    alive[row] = 0;
  }
  // Heads that share keys are further queries of these.
  q = g.transposed(n, q, {{qs.item()}, {0}, qs.c, ks.h, heads / ks.h * z.t});
  const double scale = n.has("scale") ? double(n.real("scale", 1)) : 1 / std::sqrt(double(qs.c)),
               cap = double(n.real("softcap", 0));
  CHECK(cap >= 0, "softcap {}", cap);
  int made = cap > 0 ? capped(g, n, q, k, v, scale, cap, bias) : add_attention(g, n, q, k, v, scale, bias);
  if (std::ranges::count(alive, 0.f) > 0)
    made = g.add(n, BinaryConstant{BinaryFunction::mul, alive, {1, 1, ks.h, heads / ks.h * z.t}}, {made},
                 n.name() + ".masked");
  Dims dims{1, heads, z.t, vs.c};
  if (flat) {
    made = g.transposed(n, made, {{heads, z.t, vs.c}, {1, 0, 2}, heads * vs.c, z.t, 1});
    dims = {1, z.t, heads * vs.c};
  } else if (heads != ks.h) {
    made = g.transposed(n, made, {{heads * z.t * vs.c}, {0}, vs.c, heads, z.t});
  }
  OnnxValue y = g.value(n, 0);
  y.constant = nullptr, y.node = made, y.dims = dims, y.order = OnnxValue::Order::memory;
  g.set(n, y);
}

}  // namespace switchback
