#include "kernels/attention/attention.h"

#include "kernels/attention/matrices.h"
#include "kernels/device/device_ops.h"
#include "kernels/exp8.h"
#include "kernels/view_check.h"

namespace switchback {

Shape attention_shape(Shape q, Shape k, Shape v) {
  CHECK(q.n == k.n && q.n == v.n && q.h == k.h && q.h == v.h && q.c == k.c && k.w == v.w,
        "attention: {} queries of {} numbers in {} groups, {} keys of {} in {}, {} values in {}", q.w, q.c, q.h, k.w, k.c, k.h,
        v.w, v.h);
  return {q.n, v.c, q.h, q.w};
}

namespace {

constexpr int64_t kQueries = 48;  // whose scores are there at a time: 8 register tiles

struct Sizes {
  int64_t groups, t, s, d, e;  // of an item
  Sizes(Shape q, Shape v) : groups(q.h), t(q.w), s(v.w), d(q.c), e(v.c) {}
  int64_t work() const { return t * s * (d + e); }
};

// Of queries [t0, t0 + scores.rows): their scores become probabilities.
void softmax_rows(const AttentionScores& how, const Sizes& sizes, int64_t group, int64_t t0, Matrix& scores) {
  const F8 scale = _mm256_set1_ps(how.scale), lowest = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < scores.rows; ++i) {
    float* row = scores.row(i);
    const float* bias = how.bias ? how.bias + (group % how.bias_groups * sizes.t + t0 + i) * sizes.s : nullptr;
    const auto each = [&](const auto& body) SB_LAMBDA {
      for (int64_t j = 0; j < sizes.s; j += 8) {
        const int lanes = int(std::min<int64_t>(8, sizes.s - j));
        body(j, lanes, lanes == 8 ? all_ones(true) : _mm256_castsi256_ps(first_lanes(lanes)));
      }
    };
    F8 most = lowest;
    each([&](int64_t j, int lanes, F8 live) SB_LAMBDA {
      F8 v = _mm256_mul_ps(scale, _mm256_loadu_ps(row + j));
      if (bias) v = _mm256_add_ps(v, load8(bias + j, lanes));
      _mm256_storeu_ps(row + j, v);
      most = _mm256_max_ps(_mm256_blendv_ps(lowest, v, live), most);
    });
    alignas(32) float lane[8];
    _mm256_store_ps(lane, most);
    const F8 top = _mm256_set1_ps(*std::max_element(lane, lane + 8));
    F8 sum = _mm256_setzero_ps();
    each([&](int64_t j, int, F8 live) SB_LAMBDA {
      const F8 p = _mm256_and_ps(exp8(_mm256_sub_ps(_mm256_loadu_ps(row + j), top)), live);  // the padding stays 0
      _mm256_storeu_ps(row + j, p);
      sum = _mm256_add_ps(sum, p);
    });
    _mm256_store_ps(lane, sum);
    const float all = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
    const F8 share = _mm256_set1_ps(1.f / all);
    each([&](int64_t j, int, F8) SB_LAMBDA { _mm256_storeu_ps(row + j, _mm256_mul_ps(_mm256_loadu_ps(row + j), share)); });
  }
}

// g becomes ds: p·(g − Σ p·g).
void softmax_gradient(const Matrix& p, Matrix& g) {
  for (int64_t i = 0; i < p.rows; ++i) {
    double along = 0;
    for (int64_t j = 0; j < p.columns; ++j) along += double(p.row(i)[j]) * double(g.row(i)[j]);
    const F8 sum = _mm256_set1_ps(float(along));
    for (int64_t j = 0; j < p.stride; j += 8)
      _mm256_storeu_ps(g.row(i) + j,
                       _mm256_mul_ps(_mm256_loadu_ps(p.row(i) + j), _mm256_sub_ps(_mm256_loadu_ps(g.row(i) + j), sum)));
  }
}

void scale_all(Matrix& m, float by) {
  for (float& v : m.values) v *= by;
}

template <typename T>
void forward(Context& ctx, const AttentionScores& how, ConstView q, ConstView k, ConstView v, View y) {
  const Sizes z(q.shape, v.shape);
  const ForwardTarget<T> target(y, {});
  parallel_ranges(ctx, q.shape.n * z.groups, z.work(), [&](int64_t first, int64_t last) {
    Matrix keys, values, queries, scores, out;
    for (int64_t g = first; g < last; ++g) {
      read_transposed(k.as<T>() + g * z.s * z.d, z.s, z.d, keys);
      read_rows(v.as<T>() + g * z.s * z.e, z.s, z.e, values);
      for (int64_t t0 = 0; t0 < z.t; t0 += kQueries) {
        read_rows(q.as<T>() + (g * z.t + t0) * z.d, std::min(kQueries, z.t - t0), z.d, queries);
        multiply(queries, keys, scores);
        softmax_rows(how, z, g % z.groups, t0, scores);
        multiply(scores, values, out);
        write_rows(target, out, g * z.t + t0);
      }
    }
  });
}

template <typename T>
void backward(Context& ctx, const AttentionScores& how, int operand, ConstView dy, ConstView q, ConstView k, ConstView v, View dx,
              const BackwardEpilogue& epilogue) {
  const Sizes z(q.shape, v.shape);
  const BackwardTarget<T> target(dx, epilogue);
  parallel_ranges(ctx, dx.shape.n * z.groups, 2 * z.work(), [&](int64_t first, int64_t last) {
    Matrix keys, keys_by_row, values, queries, scores, pulls, given, turned, sum;
    for (int64_t g = first; g < last; ++g) {
      const int64_t kept = g / z.groups / epilogue.seeds_per_item * z.groups + g % z.groups;
      read_transposed(k.as<T>() + kept * z.s * z.d, z.s, z.d, keys);
      if (operand == 0) read_rows(k.as<T>() + kept * z.s * z.d, z.s, z.d, keys_by_row);
      if (operand != 2) read_transposed(v.as<T>() + kept * z.s * z.e, z.s, z.e, values);
      if (operand != 0) sum.resize(z.s, operand == 1 ? z.d : z.e);
      for (int64_t t0 = 0; t0 < z.t; t0 += kQueries) {
        const int64_t rows = std::min(kQueries, z.t - t0);
        read_rows(q.as<T>() + (kept * z.t + t0) * z.d, rows, z.d, queries);
        read_rows(dy.as<T>() + (g * z.t + t0) * z.e, rows, z.e, given);
        multiply(queries, keys, scores);
        softmax_rows(how, z, g % z.groups, t0, scores);
        if (operand == 2) {
          transpose_rows(scores, turned);
          multiply(turned, given, sum, true);
          continue;
        }
        multiply(given, values, pulls);
        softmax_gradient(scores, pulls);
        if (operand == 0) {
          multiply(pulls, keys_by_row, sum);
          scale_all(sum, how.scale);
          write_rows(target, sum, g * z.t + t0, kept * z.t + t0);
        } else {
          transpose_rows(pulls, turned);
          multiply(turned, queries, sum, true);
        }
      }
      if (operand == 1) scale_all(sum, how.scale);
      if (operand != 0) write_rows(target, sum, g * z.s, kept * z.s);
    }
  });
}

}  // namespace

void attention_forward(Context& ctx, const AttentionScores& scores, ConstView q, ConstView k, ConstView v, View y) {
  check_view("attention_forward", "the output", y, attention_shape(q.shape, k.shape, v.shape), q.dtype);
  CHECK(k.dtype == q.dtype && v.dtype == q.dtype, "attention_forward: q, k and v differ in type");
  if (ctx.gpu) return ctx.gpu->ops->attention_forward(ctx, scores, q, k, v, y);
  with_type(y.dtype, "attention_forward", [&](auto type) { forward<decltype(type)>(ctx, scores, q, k, v, y); });
}

void attention_backward(Context& ctx, const AttentionScores& scores, int operand, ConstView dy, ConstView q, ConstView k,
                        ConstView v, View dx, const BackwardEpilogue& epilogue) {
  const ConstView operands[] = {q, k, v};
  check_view("attention_backward", "dy", dy, attention_shape(q.shape, k.shape, v.shape).with_n(dx.shape.n), dx.dtype);
  check_kept("attention_backward", dx, operands[operand], epilogue.seeds_per_item);
  check_epilogue(epilogue, "attention_backward");
  if (ctx.gpu) return ctx.gpu->ops->attention_backward(ctx, scores, operand, dy, q, k, v, dx, epilogue);
  with_type(dx.dtype, "attention_backward",
            [&](auto type) { backward<decltype(type)>(ctx, scores, operand, dy, q, k, v, dx, epilogue); });
}

}  // namespace switchback
