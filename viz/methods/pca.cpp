#include "viz/methods/pca.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/attention/matmul.h"
#include "kernels/check.h"
#include "kernels/parallel.h"
#include "viz/methods/genes.h"
#include "viz/methods/neighbours.h"

namespace switchback {
namespace {

constexpr int64_t kChunk = 1024;      // of sums over rows: their order is fixed
constexpr double kStill = 2e-5;       // of the subspace
constexpr double kLeastShare = 1e-6;  // of the first variance: less is rounding
constexpr int64_t kBlockValues = int64_t(1) << 22;  // of the rows that are multiplied at once

// Eigenvectors as columns of `vectors`, largest value first (Jacobi's rotations). a [n,n], symmetric.
void eigen(std::vector<double> a, int64_t n, std::vector<double>& values, std::vector<double>& vectors) {
  std::vector<double> v(size_t(n * n), 0.);
  for (int64_t i = 0; i < n; ++i) v[size_t(i * n + i)] = 1;
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0, all = 0;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) (i == j ? all : off) += a[size_t(i * n + j)] * a[size_t(i * n + j)];
    if (off <= 1e-28 * all) break;
    for (int64_t p = 0; p < n; ++p)
      for (int64_t q = p + 1; q < n; ++q) {
        const double apq = a[size_t(p * n + q)];
        if (apq == 0) continue;
        const double theta = (a[size_t(q * n + q)] - a[size_t(p * n + p)]) / (2 * apq);
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        const auto turn = [&](double& x, double& y) {
          const double was = x;
          x = c * was - s * y, y = s * was + c * y;
        };
        for (int64_t i = 0; i < n; ++i) turn(a[size_t(i * n + p)], a[size_t(i * n + q)]);
        for (int64_t i = 0; i < n; ++i) turn(a[size_t(p * n + i)], a[size_t(q * n + i)]);
        for (int64_t i = 0; i < n; ++i) turn(v[size_t(i * n + p)], v[size_t(i * n + q)]);
      }
  }
  std::vector<int64_t> order(size_t(n), 0);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t i, int64_t j) { return a[size_t(i * n + i)] > a[size_t(j * n + j)]; });
  values.resize(size_t(n)), vectors.resize(size_t(n * n));
  for (int64_t k = 0; k < n; ++k) {
    values[size_t(k)] = a[size_t(order[size_t(k)] * (n + 1))];
    for (int64_t i = 0; i < n; ++i) vectors[size_t(i * n + k)] = v[size_t(i * n + order[size_t(k)])];
  }
}

// aᵀ·b of a [rows,m] and b [rows,l], in double and in the order of rows.
std::vector<double> inner(Context& host, const std::vector<float>& a, int64_t m, const std::vector<float>& b, int64_t l) {
  const int64_t rows = int64_t(a.size()) / m, chunks = (rows + kChunk - 1) / kChunk, group = 64;
  std::vector<double> sum(size_t(m * l), 0.), parts(size_t(std::min(group, chunks) * m * l));
  for (int64_t begin = 0; begin < chunks; begin += group) {
    const int64_t count = std::min(group, chunks - begin);
    parallel_ranges(host, count, kChunk * m * l, [&, begin](int64_t first, int64_t last) {
      for (int64_t c = first; c < last; ++c) {
        double* part = parts.data() + c * m * l;
        std::fill(part, part + m * l, 0.);
        for (int64_t r = (begin + c) * kChunk; r < std::min(rows, (begin + c + 1) * kChunk); ++r)
          for (int64_t i = 0; i < m; ++i) {
            const double by = a[size_t(r * m + i)];
            for (int64_t j = 0; j < l; ++j) part[i * l + j] += by * double(b[size_t(r * l + j)]);
          }
      }
    });
    for (int64_t c = 0; c < count; ++c)
      for (int64_t e = 0; e < m * l; ++e) sum[size_t(e)] += parts[size_t(c * m * l + e)];
  }
  return sum;
}

// a [rows,m] · t [m,k], the first k of t's `columns`.
std::vector<float> turned(Context& host, const std::vector<float>& a, int64_t m, const std::vector<double>& t, int64_t columns,
                          int64_t k) {
  const int64_t rows = int64_t(a.size()) / m;
  std::vector<float> out(size_t(rows * k));
  parallel_ranges(host, rows, m * k, [&](int64_t first, int64_t last) {
    std::vector<double> row(size_t(k), 0.);
    for (int64_t r = first; r < last; ++r) {
      std::fill(row.begin(), row.end(), 0.);
      for (int64_t i = 0; i < m; ++i) {
        const double by = a[size_t(r * m + i)];
        for (int64_t j = 0; j < k; ++j) row[size_t(j)] += by * t[size_t(i * columns + j)];
      }
      for (int64_t j = 0; j < k; ++j) out[size_t(r * k + j)] = float(row[size_t(j)]);
    }
  });
  return out;
}

// Columns of a [rows,l] made orthonormal; those without a direction of their own are dropped. Twice: once leaves an error
// that grows with how unlike their lengths are.
std::vector<float> orthonormal(Context& host, std::vector<float> a, int64_t& l) {
  for (int round = 0; round < 2; ++round) {
    std::vector<double> values, vectors;
    eigen(inner(host, a, l, a, l), l, values, vectors);
    int64_t kept = 0;
    while (kept < l && values[size_t(kept)] > 1e-13 * values[0] && values[0] > 0) ++kept;
    for (int64_t i = 0; i < l; ++i)
      for (int64_t j = 0; j < kept; ++j) vectors[size_t(i * l + j)] /= std::sqrt(values[size_t(j)]);
    a = turned(host, a, l, vectors, l, kept);
    l = kept;
    if (l == 0) break;
  }
  return a;
}

// Rows of any pieces as centred blocks of `most` rows.
void centred_blocks(const RowPass& pass, const std::vector<double>& mean, int64_t most,
                    const std::function<void(const float* rows, int64_t first, int64_t n)>& work) {
  const int64_t d = int64_t(mean.size());
  std::vector<float> block(size_t(most * d));
  int64_t held = 0, done = 0;
  const auto flush = [&] {
    if (held > 0) work(block.data(), done, held);
    done += held, held = 0;
  };
  pass([&](const float* rows, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t k = 0; k < d; ++k) block[size_t(held * d + k)] = float(double(rows[i * d + k]) - mean[size_t(k)]);
      if (++held == most) flush();
    }
  });
  flush();
}

}  // namespace

RowPass rows_in_memory(const float* rows, int64_t n, int64_t d) {
  return [=](const auto& take) {
    for (int64_t i = 0; i < n; i += 256) take(rows + i * d, std::min<int64_t>(256, n - i));
  };
}

Components principal_components(Context& host, int64_t n, int64_t d, int64_t k, uint64_t seed, const RowPass& pass,
                                int64_t most_passes) {
  CHECK(!host.gpu && n >= 2 && d >= 1 && k >= 1, "principal components of {} rows of {}", n, d);
  Components out{.n = n, .d = d, .k = 0, .mean = std::vector<double>(size_t(d), 0.), .components = {}, .scores = {},
                 .variances = {}};
  std::vector<double> squares(size_t(d), 0.);
  int64_t seen = 0;
  pass([&](const float* rows, int64_t count) {
    parallel_ranges(host, d, count, [&](int64_t first, int64_t last) {
      for (int64_t i = 0; i < count; ++i)
        for (int64_t c = first; c < last; ++c) {  // Welford's
          const double apart = double(rows[i * d + c]) - out.mean[size_t(c)];
          out.mean[size_t(c)] += apart / double(seen + i + 1);
          squares[size_t(c)] += apart * (double(rows[i * d + c]) - out.mean[size_t(c)]);
        }
    });
    seen += count;
  });
  CHECK(seen == n, "{} rows instead of {}", seen, n);
  for (const double s : squares) out.total += s / double(n - 1);
  out.passes = 1;
  if (out.total <= 0) return out;

  int64_t l = std::min({d, n, k + std::max<int64_t>(10, k)});
  std::vector<float> z(size_t(d * l));
  Draws draws(seed, 0, 0x9ca0);
  for (float& v : z) v = float(draws.uniform() - 0.5);
  z = orthonormal(host, std::move(z), l);
  const int64_t block = std::clamp<int64_t>(kBlockValues / d, 16, 256);
  std::vector<float> before;
  for (double last_change = 1; out.passes < most_passes;) {
    // With Y = X Z: W = Xᵀ Y, and Zᵀ W is the covariance within the subspace.
    std::vector<float> y(size_t(n * l)), w(size_t(d * l), 0.f), part(w.size());
    centred_blocks(pass, out.mean, block, [&](const float* rows, int64_t first, int64_t count) {
      float* to = y.data() + first * l;
      product_of_rows(host, {rows, count, d}, z.data(), l, to);
      const Shape a{1, d, 1, count}, b{1, l, 1, d}, product{1, l, 1, count};
      matmul_backward(host, 1, {to, product, DType::f32}, {rows, a, DType::f32}, {z.data(), b, DType::f32},
                      {part.data(), b, DType::f32});
      parallel_ranges(host, d * l, 1, [&](int64_t begin, int64_t end) {
        for (int64_t e = begin; e < end; ++e) w[size_t(e)] += part[size_t(e)];
      });
    });
    ++out.passes;
    std::vector<double> within = inner(host, z, l, w, l), values, vectors;
    for (int64_t i = 0; i < l; ++i)
      for (int64_t j = 0; j < i; ++j)
        within[size_t(i * l + j)] = within[size_t(j * l + i)] = (within[size_t(i * l + j)] + within[size_t(j * l + i)]) / 2;
    eigen(within, l, values, vectors);
    out.k = 0;
    while (out.k < std::min(k, l) && values[size_t(out.k)] > kLeastShare * values[0]) ++out.k;
    const std::vector<float> now = turned(host, z, l, vectors, l, out.k);
    if (int64_t(before.size()) == d * out.k) {
      // What of the new directions the old ones do not hold.
      std::vector<float> rest = turned(host, before, out.k, inner(host, before, out.k, now, out.k), out.k, out.k);
      for (size_t e = 0; e < rest.size(); ++e) rest[e] = now[e] - rest[e];
      std::vector<double> sines, unused;
      eigen(inner(host, rest, out.k, rest, out.k), out.k, sines, unused);
      out.change = std::sqrt(std::max(0., sines[0]));
    } else {
      out.change = 1;
    }
    // Changes shrink by a constant factor: those to come add up to about as much again.
    const double shrinks = std::clamp(out.change / last_change, 0., 0.99);
    const bool still = out.change * std::max(1., shrinks / (1 - shrinks)) < kStill || l == d;
    last_change = std::max(out.change, 1e-30);
    before = now;
    if (still || out.passes >= most_passes) {
      out.scores = turned(host, y, l, vectors, l, out.k);
      out.components.resize(size_t(out.k * d));
      for (int64_t c = 0; c < out.k; ++c) {
        out.variances.push_back(values[size_t(c)] / double(n - 1));
        int64_t largest = 0;
        for (int64_t e = 0; e < d; ++e)
          if (std::abs(now[size_t(e * out.k + c)]) > std::abs(now[size_t(largest * out.k + c)])) largest = e;
        const float sign = now[size_t(largest * out.k + c)] < 0 ? -1 : 1;
        for (int64_t e = 0; e < d; ++e) out.components[size_t(c * d + e)] = sign * now[size_t(e * out.k + c)];
        for (int64_t i = 0; i < n; ++i) out.scores[size_t(i * out.k + c)] *= sign;
      }
      if (l == d) out.change = 0;
      break;
    }
    z = orthonormal(host, std::move(w), l);
  }
  return out;
}

}  // namespace switchback
