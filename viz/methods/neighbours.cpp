#include "viz/methods/neighbours.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/attention/matmul.h"
#include "kernels/check.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"

namespace switchback {
namespace {

constexpr int64_t kQueries = 256;  // columns of a block of products: d of them fit a core's cache
constexpr int64_t kRowsAtOnce = 3072;

ConstView matrix(const float* values, int64_t rows, int64_t columns) {
  return {values, {1, columns, 1, rows}, DType::f32};
}

// Calls visit(first, rows, values) for pieces of the points: values[p − first][q] = |x_p|²/2 − ⟨x_p, x_q⟩, which grows with
// the distance of p and q; q counts the chosen points, kQueries in a row.
class Closeness {
 public:
  Closeness(Context& ctx, PointSet points) : ctx_(ctx), points_(points), half_(size_t(points.n)) {
    const int64_t d = points.d;
    parallel_ranges(ctx, points.n, d, [&, d](int64_t first, int64_t last) {
      const std::vector<float> zero(size_t(d), 0.f);
      for (int64_t i = first; i < last; ++i) half_[size_t(i)] = 0.5f * squared_distance(points_.row(i), zero.data(), d);
    });
    block_.resize(size_t(d * kQueries));
    values_.resize(size_t(std::min(kRowsAtOnce, points.n) * kQueries));
    if (!ctx.gpu) return;
    device_points_ = ctx.allocate(size_t(points.n * d) * sizeof(float));
    ctx.copy_in(device_points_.data(), points.values, device_points_.size());
    device_block_ = ctx.allocate(block_.size() * sizeof(float));
    device_values_ = ctx.allocate(values_.size() * sizeof(float));
  }

  void run(std::span<const int64_t> queries, const std::function<void(int64_t first, int64_t rows, const float* values)>& visit) {
    const int64_t d = points_.d, count = int64_t(queries.size());
    std::fill(block_.begin(), block_.end(), 0.f);
    for (int64_t q = 0; q < count; ++q)
      for (int64_t k = 0; k < d; ++k) block_[size_t(k * kQueries + q)] = points_.row(queries[size_t(q)])[k];
    if (ctx_.gpu) ctx_.copy_in(device_block_.data(), block_.data(), device_block_.size());
    for (int64_t first = 0; first < points_.n; first += kRowsAtOnce) {
      const int64_t rows = std::min(kRowsAtOnce, points_.n - first);
      const float* from = ctx_.gpu ? device_points_.as<float>() : points_.values;
      float* to = ctx_.gpu ? device_values_.as<float>() : values_.data();
      matmul_forward(ctx_, matrix(from + first * d, rows, d), matrix(ctx_.gpu ? device_block_.as<float>() : block_.data(), d, kQueries),
                     {to, {1, kQueries, 1, rows}, DType::f32});
      if (ctx_.gpu) ctx_.copy_out(values_.data(), to, size_t(rows * kQueries) * sizeof(float));
      parallel_ranges(ctx_, rows, kQueries, [&, first](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; ++p) {
          const float half = half_[size_t(first + p)];
          float* row = values_.data() + p * kQueries;
          for (int64_t q = 0; q < kQueries; ++q) row[q] = half - row[q];
        }
      });
      visit(first, rows, values_.data());
    }
  }

 private:
  Context& ctx_;
  PointSet points_;
  std::vector<float> half_, block_, values_;  // block_ [d,kQueries]
  Memory device_points_, device_block_, device_values_;
};

// The nearest that were seen, and as many again before the furthest half is dropped.
struct Candidates {
  std::vector<std::pair<float, int32_t>> list;
  float limit = INFINITY;  // none at or above it is wanted
  void add(float value, int32_t index, size_t wanted) {
    list.emplace_back(value, index);
    if (list.size() < 2 * wanted) return;
    std::nth_element(list.begin(), list.begin() + int64_t(wanted) - 1, list.end());
    list.resize(wanted);
    limit = std::max_element(list.begin(), list.end())->first;
  }
};

}  // namespace

float squared_distance(const float* a, const float* b, int64_t d) {
  F8 sum = _mm256_setzero_ps(), more = sum;
  int64_t k = 0;
  for (; k + 16 <= d; k += 16) {
    const F8 u = _mm256_sub_ps(load8(a + k), load8(b + k)), v = _mm256_sub_ps(load8(a + k + 8), load8(b + k + 8));
    sum = _mm256_fmadd_ps(u, u, sum), more = _mm256_fmadd_ps(v, v, more);
  }
  for (; k < d; k += 8) {
    const int lanes = int(std::min<int64_t>(8, d - k));
    const F8 u = _mm256_sub_ps(load8(a + k, lanes), load8(b + k, lanes));
    sum = _mm256_fmadd_ps(u, u, sum);
  }
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, _mm256_add_ps(sum, more));
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

void product_of_rows(Context& host, PointSet x, const float* b, int64_t m, float* y) {
  matmul_forward(host, matrix(x.values, x.n, x.d), matrix(b, x.d, m), {y, {1, m, 1, x.n}, DType::f32});
}

Neighbours nearest_neighbours(Context& ctx, PointSet points, int64_t k, const Progress& progress) {
  CHECK(k >= 1 && k < points.n, "{} neighbours of {} points", k, points.n);
  const size_t wanted = size_t(std::min(points.n - 1, k + 8 + k / 8));
  Neighbours out{points.n, k, std::vector<int32_t>(size_t(points.n * k)), std::vector<float>(size_t(points.n * k))};
  Closeness closeness(ctx, points);
  std::vector<Candidates> candidates(kQueries);
  std::vector<int64_t> queries;
  for (int64_t begin = 0; begin < points.n; begin += kQueries) {
    queries.clear();
    for (int64_t q = begin; q < std::min(begin + kQueries, points.n); ++q) queries.push_back(q);
    const int64_t count = int64_t(queries.size());
    for (Candidates& c : candidates) c.list.clear(), c.limit = INFINITY;
    closeness.run(queries, [&](int64_t first, int64_t rows, const float* values) {
      parallel_ranges(ctx, (count + 7) / 8, rows * 8, [&, first, rows, values](int64_t from, int64_t to) {
        for (int64_t g = from; g < to; ++g) {
          alignas(32) float limits[8];
          for (int64_t l = 0; l < 8; ++l) limits[l] = g * 8 + l < count ? candidates[size_t(g * 8 + l)].limit : -INFINITY;
          F8 limit = _mm256_load_ps(limits);
          for (int64_t p = 0; p < rows; ++p) {
            const float* row = values + p * kQueries + g * 8;
            int hits = _mm256_movemask_ps(_mm256_cmp_ps(load8(row), limit, _CMP_LT_OQ));
            if (hits == 0) continue;
            for (; hits != 0; hits &= hits - 1) {
              const int lane = __builtin_ctz(unsigned(hits));
              Candidates& of = candidates[size_t(g * 8 + lane)];
              if (first + p == begin + g * 8 + lane) continue;
              of.add(row[lane], int32_t(first + p), wanted);
              limits[lane] = of.limit;
            }
            limit = _mm256_load_ps(limits);
          }
        }
      });
    });
    parallel_ranges(ctx, count, int64_t(wanted) * points.d, [&, begin](int64_t from, int64_t to) {
      for (int64_t q = from; q < to; ++q) {
        std::vector<std::pair<float, int32_t>>& list = candidates[size_t(q)].list;
        for (auto& [value, index] : list) value = squared_distance(points.row(begin + q), points.row(index), points.d);
        std::sort(list.begin(), list.end());
        for (int64_t r = 0; r < k; ++r) {
          out.squared[size_t((begin + q) * k + r)] = list[size_t(r)].first;
          out.index[size_t((begin + q) * k + r)] = list[size_t(r)].second;
        }
      }
    });
    if (progress) progress(begin + count, points.n);
  }
  return out;
}

double trustworthiness(Context& ctx, PointSet points, PointSet embedding, int64_t k, int64_t most) {
  CHECK(points.n == embedding.n && k >= 1 && 2 * k < points.n, "trustworthiness of {} neighbours among {} points", k, points.n);
  const int64_t n = points.n, taken = std::min(most, n);
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < taken; ++i) chosen.push_back(i * n / taken);
  // Those near in the embedding, by plain distances: it has two or three dimensions.
  std::vector<int32_t> near(size_t(taken * k));
  parallel_ranges(ctx, taken, n * 4, [&](int64_t first, int64_t last) {
    std::vector<std::pair<float, int32_t>> all;
    for (int64_t s = first; s < last; ++s) {
      all.clear();
      for (int64_t p = 0; p < n; ++p)
        if (p != chosen[size_t(s)])
          all.emplace_back(squared_distance(embedding.row(p), embedding.row(chosen[size_t(s)]), embedding.d), int32_t(p));
      std::partial_sort(all.begin(), all.begin() + k, all.end());
      for (int64_t r = 0; r < k; ++r) near[size_t(s * k + r)] = all[size_t(r)].second;
    }
  });
  Closeness closeness(ctx, points);
  int64_t penalty = 0;
  for (int64_t begin = 0; begin < taken; begin += kQueries) {
    const int64_t count = std::min(kQueries, taken - begin);
    const std::span<const int64_t> queries(chosen.data() + begin, size_t(count));
    std::vector<float> values(size_t(count * k));
    std::vector<int64_t> before(size_t(count * k), 0);
    closeness.run(queries, [&](int64_t first, int64_t rows, const float* close) {
      for (int64_t e = 0; e < count * k; ++e) {
        const int64_t p = near[size_t(begin * k + e)] - first;
        if (p >= 0 && p < rows) values[size_t(e)] = close[p * kQueries + e / k];
      }
    });
    closeness.run(queries, [&](int64_t first, int64_t rows, const float* close) {
      parallel_ranges(ctx, count, rows * k, [&, first, rows, close](int64_t from, int64_t to) {
        for (int64_t q = from; q < to; ++q)
          for (int64_t p = 0; p < rows; ++p) {
            if (first + p == queries[size_t(q)]) continue;
            const float value = close[p * kQueries + q];
            for (int64_t r = 0; r < k; ++r) before[size_t(q * k + r)] += value < values[size_t(q * k + r)];
          }
      });
    });
    for (const int64_t b : before) penalty += std::max<int64_t>(0, b + 1 - k);
  }
  return 1 - 2 * double(penalty) / (double(taken) * double(k) * double(2 * n - 3 * k - 1));
}

}  // namespace switchback
