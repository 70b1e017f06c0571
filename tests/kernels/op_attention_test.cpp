// Attention and products of matrices against their formulas in double, both directions; the formulas by finite differences.
#include <algorithm>
#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/attention/matmul.h"
#include "kernels/check.h"
#include "tests/support/epilogue_check.h"
#include "tests/support/reference_layers.h"

namespace switchback::test {
namespace {

struct MatMulCase {
  const char* name;
  int64_t groups, m, k, n;
};
constexpr MatMulCase kMatMulCases[] = {
    {"one", 1, 1, 1, 1}, {"odd", 3, 7, 5, 9}, {"rows", 2, 101, 3, 4}, {"columns", 1, 3, 6, 70}, {"deep", 2, 4, 40, 33}, {"words", 2, 5, 32, 64},
};
struct AttentionCase {
  const char* name;
  int64_t groups, queries, keys, d, e, bias_groups;  // 0: none
  float scale = 0.5f;
};
constexpr AttentionCase kAttentionCases[] = {
    {"tokens", 3, 17, 17, 8, 8, 0},       {"across", 2, 5, 33, 4, 9, 0},     {"one_key", 2, 3, 1, 5, 4, 0, 1.f},
    {"many_queries", 1, 50, 7, 3, 2, 1},  {"windows", 6, 4, 4, 32, 33, 3, -0.25f},
};

// dims [n, c, groups, rows] of a matrix [rows, c] a group.
Shape matrices(int64_t n, int64_t groups, int64_t rows, int64_t columns) { return {n, columns, groups, rows}; }

// --- products

Ref matmul(const Nchw& a, const Nchw& b) {
  Ref y(output_shape(MatMul{}, a.shape, b.shape));
  for (int64_t p = 0; p < y.value.shape.n; ++p)
    for (int64_t g = 0; g < a.shape.h; ++g)
      for (int64_t i = 0; i < a.shape.w; ++i)
        for (int64_t j = 0; j < b.shape.c; ++j)
          for (int64_t k = 0; k < a.shape.c; ++k) {
            const double term = a(p, k, g, i) * b(p, j, g, k);
            y.value(p, j, g, i) += term, y.terms(p, j, g, i) += std::abs(term);
          }
  return y;
}
Nchw turned(const Nchw& a) {
  Nchw t({a.shape.n, a.shape.w, a.shape.h, a.shape.c});
  for (int64_t p = 0; p < a.shape.n; ++p)
    for (int64_t c = 0; c < a.shape.c; ++c)
      for (int64_t g = 0; g < a.shape.h; ++g)
        for (int64_t r = 0; r < a.shape.w; ++r) t(p, r, g, c) = a(p, c, g, r);
  return t;
}
Nchw repeated(const Nchw& kept, int64_t seeds) {
  Nchw all(kept.shape.with_n(kept.shape.n * seeds));
  const size_t item = size_t(kept.shape.item());
  for (size_t i = 0; i < all.v.size(); ++i) all.v[i] = kept.v[i / item / size_t(seeds) * item + i % item];
  return all;
}

void check_matmul(OpRun& run, const MatMulCase& c, DType dtype) {
  const Shape sa = matrices(2, c.groups, c.m, c.k), sb = matrices(2, c.groups, c.k, c.n);
  const Nchw a = run.integers(sa, 3), b = run.integers(sb, 3);
  const Activation a_in = run.input(a, dtype), b_in = run.input(b, dtype);
  const Ref want = matmul(a, b);
  const Activation y = run.output(want.value.shape, dtype);
  matmul_forward(run.ctx, a_in, b_in, y);
  EXPECT_EQ(compare_exact(y.read(), round_to(dtype, want.value), Zeros::many_allowed), "");
  Accuracy accuracy = exact(dtype);
  accuracy.zeros = Zeros::many_allowed;
  for (const int64_t seeds : {1, 3}) {
    const Nchw dy = run.integers(want.value.shape.with_n(2 * seeds), 3);
    const Activation dy_in = run.input(dy, dtype);
    check_backward(run, matmul(dy, turned(repeated(b, seeds))), accuracy, seeds, [&](View dx, const BackwardEpilogue& e) {
      matmul_backward(run.ctx, 0, dy_in, a_in, b_in, dx, e);
    });
    check_backward(run, matmul(turned(repeated(a, seeds)), dy), accuracy, seeds, [&](View dx, const BackwardEpilogue& e) {
      matmul_backward(run.ctx, 1, dy_in, a_in, b_in, dx, e);
    });
  }
}

// --- attention

struct AttentionInputs {
  Nchw q, k, v;
  double scale;
  std::vector<double> bias;  // [bias_groups, T, S]
  int64_t bias_groups;
};
// y and its gradients for q, k and v where dy is given. Scores are sums of d products: what rounding does to them does to
// the probabilities, so that every term counts 1 + 2·the largest sum of absolute products.
struct AttentionResults {
  Ref y, dx[3];
};
AttentionResults attention(const AttentionInputs& in, const Nchw& dy) {
  const Nchw &q = in.q, &k = in.k, &v = in.v;
  AttentionResults r{Ref(dy.shape), {Ref(q.shape), Ref(k.shape), Ref(v.shape)}};
  const int64_t t = q.shape.w, s = k.shape.w, d = q.shape.c, e = v.shape.c;
  for (int64_t n = 0; n < q.shape.n; ++n)
    for (int64_t g = 0; g < q.shape.h; ++g)
      for (int64_t i = 0; i < t; ++i) {
        std::vector<double> p, pull, rough;
        double most = -INFINITY, wide = 0, sum = 0;
        for (int64_t j = 0; j < s; ++j) {
          double score = 0, size = 0;
          for (int64_t c = 0; c < d; ++c) score += q(n, c, g, i) * k(n, c, g, j), size += std::abs(q(n, c, g, i) * k(n, c, g, j));
          const double bias = in.bias.empty() ? 0 : in.bias[size_t((g % in.bias_groups * t + i) * s + j)];
          p.push_back(in.scale * score + bias);
          wide = std::max(wide, std::abs(in.scale) * size + std::abs(bias));
          most = std::max(most, p.back());
        }
        for (double& score : p) sum += score = std::exp(score - most);
        double along = 0, rough_along = 0;
        for (int64_t j = 0; j < s; ++j) {
          p[size_t(j)] /= sum;
          double pulled = 0, size = 0;
          for (int64_t c = 0; c < e; ++c) pulled += dy(n, c, g, i) * v(n, c, g, j), size += std::abs(dy(n, c, g, i) * v(n, c, g, j));
          pull.push_back(pulled), rough.push_back(size);
          along += p[size_t(j)] * pulled, rough_along += p[size_t(j)] * size;
        }
        const double more = 1 + 2 * wide;
        const auto add = [](Ref& to, int64_t item, int64_t c, int64_t group, int64_t at, double value, double terms) {
          to.value(item, c, group, at) += value, to.terms(item, c, group, at) += terms;
        };
        for (int64_t j = 0; j < s; ++j) {
          const double ds = in.scale * p[size_t(j)] * (pull[size_t(j)] - along);
          const double terms = std::abs(in.scale) * p[size_t(j)] * (rough[size_t(j)] + rough_along) * more;
          for (int64_t c = 0; c < e; ++c) {
            add(r.y, n, c, g, i, p[size_t(j)] * v(n, c, g, j), p[size_t(j)] * std::abs(v(n, c, g, j)) * more);
            add(r.dx[2], n, c, g, j, p[size_t(j)] * dy(n, c, g, i), p[size_t(j)] * std::abs(dy(n, c, g, i)) * more);
          }
          for (int64_t c = 0; c < d; ++c) {
            add(r.dx[0], n, c, g, i, ds * k(n, c, g, j), terms * std::abs(k(n, c, g, j)));
            add(r.dx[1], n, c, g, j, ds * q(n, c, g, i), terms * std::abs(q(n, c, g, i)));
          }
        }
      }
  return r;
}

AttentionInputs inputs_of(OpRun& run, const AttentionCase& c, DType dtype, std::vector<float>* bias) {
  *bias = c.bias_groups ? run.reals(c.bias_groups * c.queries * c.keys, DType::f32) : std::vector<float>();
  return {run.reals(matrices(2, c.groups, c.queries, c.d), dtype), run.reals(matrices(2, c.groups, c.keys, c.d), dtype),
          run.reals(matrices(2, c.groups, c.keys, c.e), dtype), double(c.scale), {bias->begin(), bias->end()},
          std::max<int64_t>(c.bias_groups, 1)};
}

void check_attention(OpRun& run, const AttentionCase& c, DType dtype) {
  std::vector<float> bias;
  const AttentionInputs in = inputs_of(run, c, dtype, &bias);
  const AttentionScores scores{c.scale, bias.empty() ? nullptr : run.input_of(bias).as<float>(), in.bias_groups};
  const Activation q = run.input(in.q, dtype), k = run.input(in.k, dtype), v = run.input(in.v, dtype);
  const Shape shape = attention_shape(in.q.shape, in.k.shape, in.v.shape);
  const double steps = rounding_steps(c.d) + rounding_steps(c.e) + rounding_steps(std::max(c.keys, c.queries)) + 8;
  const Activation y = run.output(shape, dtype);
  attention_forward(run.ctx, scores, q, k, v, y);
  const Ref want = attention(in, Nchw(shape)).y;
  EXPECT_EQ(compare(y.read(), want.value, tolerance(want, steps, dtype)), "");
  for (const int64_t seeds : {1, 2}) {
    const Nchw dy = run.reals(shape.with_n(2 * seeds), dtype);
    const Activation dy_in = run.input(dy, dtype);
    AttentionInputs all = in;
    all.q = repeated(in.q, seeds), all.k = repeated(in.k, seeds), all.v = repeated(in.v, seeds);
    const AttentionResults r = attention(all, dy);
    Accuracy accuracy = within(dtype, steps);
    accuracy.zeros = Zeros::many_allowed;
    for (int operand = c.keys == 1 ? 2 : 0; operand < 3; ++operand)  // one key's probability is 1: q and k get nothing
      check_backward(run, r.dx[operand], accuracy, seeds, [&](View dx, const BackwardEpilogue& e) {
        attention_backward(run.ctx, scores, operand, dy_in, q, k, v, dx, e);
      });
  }
}

// A key that a bias of -∞ hides takes no part, and gets nothing.
void check_hidden_keys(OpRun& run) {
  const AttentionCase c{"hidden", 2, 9, 12, 4, 5, 1};
  std::vector<float> bias;
  AttentionInputs in = inputs_of(run, c, DType::f32, &bias);
  for (size_t i = 0; i < bias.size(); ++i)
    if (i % 12 >= 7) bias[i] = -std::numeric_limits<float>::infinity();
  const AttentionScores scores{c.scale, run.input_of(bias).as<float>(), 1};
  const auto results = [&] {
    const Activation q = run.input(in.q, DType::f32), k = run.input(in.k, DType::f32), v = run.input(in.v, DType::f32);
    const Activation y = run.output(matrices(2, 2, 9, 5), DType::f32), dk = run.output(in.k.shape, DType::f32);
    attention_forward(run.ctx, scores, q, k, v, y);
    attention_backward(run.ctx, scores, 1, run.input(Nchw(y.shape, 1), DType::f32), q, k, v, dk);
    return std::pair(y.read(), dk.read());
  };
  const auto [y, dk] = results();
  for (int64_t j = 7; j < 12; ++j)
    for (int64_t e = 0; e < 5; ++e) in.v(0, e, 1, j) = 100;
  EXPECT_EQ(results().first.v, y.v);
  for (int64_t j = 7; j < 12; ++j) EXPECT_EQ(dk(1, 2, 1, j), 0) << j;
  EXPECT_NE(dk(1, 2, 1, 3), 0);
}

void check_errors(OpRun& run) {
  const Activation a = run.input(Nchw({1, 4, 2, 3}, 1), DType::f32), b = run.input(Nchw({1, 4, 3, 3}, 1), DType::f32);
  const Activation y = run.output({1, 4, 2, 3}, DType::f32);
  EXPECT_THROW(attention_forward(run.ctx, {}, a, b, b, y), Error);
  EXPECT_THROW(matmul_forward(run.ctx, a, b, y), Error);
}

TEST(FiniteDifferences, Attention) {
  OpRun run(devices().front(), "attention");
  std::vector<float> bias;
  const AttentionCase c{"small", 2, 3, 4, 3, 2, 2};
  const AttentionInputs in = inputs_of(run, c, DType::f32, &bias);
  const Nchw dy = run.reals(matrices(2, 2, 3, 2), DType::f32);
  const AttentionResults r = attention(in, dy);
  constexpr double kStep = 1e-5;
  for (int operand = 0; operand < 3; ++operand)
    for (size_t i = 0; i < r.dx[operand].value.v.size(); ++i) {
      const auto value = [&](double by) {
        AttentionInputs moved = in;
        (operand == 0 ? moved.q : operand == 1 ? moved.k : moved.v).v[i] += by;
        const Nchw y = attention(moved, dy).y.value;
        double sum = 0;
        for (size_t j = 0; j < y.v.size(); ++j) sum += dy.v[j] * y.v[j];
        return sum;
      };
      EXPECT_NEAR((value(kStep) - value(-kStep)) / (2 * kStep), r.dx[operand].value.v[i], 1e-8) << operand << ", " << i;
    }
}

}  // namespace

void register_attention_tests() {
  const auto add = [](const char* suite, const auto& cases, auto check) {
    for_each_device(suite, [&](const DeviceRow& device) {
      for (const auto& c : cases)
        for (const DType dtype : device.types)
          add_test(suite, c.name, device, short_name(dtype), [&c, dtype, check](OpRun& run) { check(run, c, dtype); });
    });
  };
  add("Op/MatMul", kMatMulCases, check_matmul);
  add("Op/Attention", kAttentionCases, check_attention);
  for_each_device("Op/Attention", [](const DeviceRow& device) {
    add_test("Op/Attention", "hidden_keys", device, "f32", check_hidden_keys);
    add_test("Op/Attention", "errors", device, "", check_errors);
  });
}

}  // namespace switchback::test
