#include "viz/methods/kmeans.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "kernels/parallel.h"
#include "viz/methods/genes.h"

namespace switchback {
namespace {

constexpr int64_t kMostSteps = 300;

// Each centre is the draw, of several by the squared distance to the centres so far, that leaves the least.
std::vector<float> first_centres(Context& host, PointSet points, int64_t k, Draws& draws) {
  const int64_t n = points.n, d = points.d, trials = 2 + int64_t(std::log(double(k)));
  std::vector<float> centres(points.row(0), points.row(0));
  std::vector<float> nearest(size_t(n), INFINITY), tried(size_t(n), 0.f), best;
  const auto take = [&](int64_t chosen, std::vector<float>& to) {
    parallel_ranges(host, n, d, [&, chosen](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        to[size_t(i)] = std::min(nearest[size_t(i)], squared_distance(points.row(i), points.row(chosen), d));
    });
    double sum = 0;
    for (const float v : to) sum += v;
    return sum;
  };
  double sum = 0;
  for (int64_t c = 0; c < k; ++c) {
    int64_t chosen = -1;
    if (c == 0) {
      chosen = draws.below(n);
      sum = take(chosen, tried), best = tried;
    } else {
      double least = INFINITY;
      for (int64_t t = 0; t < trials; ++t) {
        double left = draws.uniform() * sum;
        int64_t i = 0;
        while (i + 1 < n && (left -= nearest[size_t(i)]) > 0) ++i;
        const double after = take(i, tried);
        if (after < least) least = after, chosen = i, best.swap(tried);
        tried.resize(size_t(n));
      }
      sum = least;
    }
    nearest = best;
    centres.insert(centres.end(), points.row(chosen), points.row(chosen) + d);
  }
  return centres;
}

// The nearest centre of each point; whether any point has another one than before.
bool assign(Context& host, PointSet points, const std::vector<float>& centres, int64_t k, std::vector<int32_t>& labels) {
  const int64_t d = points.d, at_once = 4096;
  std::vector<float> columns(size_t(d * k)), half(size_t(k), 0.f), close(size_t(std::min(at_once, points.n) * k));
  for (int64_t c = 0; c < k; ++c) {
    for (int64_t e = 0; e < d; ++e) columns[size_t(e * k + c)] = centres[size_t(c * d + e)];
    double sum = 0;
    for (int64_t e = 0; e < d; ++e) sum += double(centres[size_t(c * d + e)]) * centres[size_t(c * d + e)];
    half[size_t(c)] = float(sum / 2);
  }
  bool moved = false;
  for (int64_t first = 0; first < points.n; first += at_once) {
    const int64_t count = std::min(at_once, points.n - first);
    product_of_rows(host, {points.row(first), count, d}, columns.data(), k, close.data());
    for (int64_t i = 0; i < count; ++i) {
      int32_t best = 0;
      for (int64_t c = 1; c < k; ++c)
        if (half[size_t(c)] - close[size_t(i * k + c)] < half[size_t(best)] - close[size_t(i * k + best)]) best = int32_t(c);
      moved |= labels[size_t(first + i)] != best;
      labels[size_t(first + i)] = best;
    }
  }
  return moved;
}

// Means of their points; a cluster without any takes the point that is furthest from its own centre.
void move_centres(Context& host, PointSet points, int64_t k, std::vector<int32_t>& labels, std::vector<float>& centres) {
  const int64_t d = points.d;
  std::vector<int64_t> counts(size_t(k), 0);
  for (const int32_t label : labels) ++counts[size_t(label)];
  for (int64_t c = 0; c < k; ++c) {
    if (counts[size_t(c)] > 0) continue;
    int64_t furthest = -1;
    float most = -1;
    for (int64_t i = 0; i < points.n; ++i) {
      if (counts[size_t(labels[size_t(i)])] < 2) continue;
      const float away = squared_distance(points.row(i), centres.data() + labels[size_t(i)] * d, d);
      if (away > most) most = away, furthest = i;
    }
    if (furthest < 0) continue;
    --counts[size_t(labels[size_t(furthest)])];
    labels[size_t(furthest)] = int32_t(c), counts[size_t(c)] = 1;
  }
  parallel_ranges(host, d, points.n, [&](int64_t first, int64_t last) {
    std::vector<double> sums(size_t(k * (last - first)), 0.);
    for (int64_t i = 0; i < points.n; ++i)
      for (int64_t e = first; e < last; ++e)
        sums[size_t(labels[size_t(i)] * (last - first) + e - first)] += points.row(i)[e];
    for (int64_t c = 0; c < k; ++c)
      for (int64_t e = first; e < last; ++e)
        if (counts[size_t(c)] > 0)
          centres[size_t(c * d + e)] = float(sums[size_t(c * (last - first) + e - first)] / double(counts[size_t(c)]));
  });
}

}  // namespace

Clusters k_means(Context& host, PointSet points, int64_t k, int64_t restarts, uint64_t seed) {
  CHECK(!host.gpu && k >= 1 && k <= points.n && restarts >= 1, "{} clusters of {} points", k, points.n);
  Clusters best;
  for (int64_t r = 0; r < restarts; ++r) {
    Draws draws(seed, uint32_t(r), 0x3ea5);
    Clusters now{.centres = first_centres(host, points, k, draws), .labels = std::vector<int32_t>(size_t(points.n), -1)};
    while (assign(host, points, now.centres, k, now.labels) && ++now.iterations < kMostSteps)
      move_centres(host, points, k, now.labels, now.centres);
    std::vector<double> away(size_t(points.n), 0.);
    parallel_ranges(host, points.n, points.d, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        away[size_t(i)] = squared_distance(points.row(i), now.centres.data() + now.labels[size_t(i)] * points.d, points.d);
    });
    for (const double a : away) now.inertia += a;
    if (r == 0 || now.inertia < best.inertia) best = std::move(now);
  }
  return best;
}

}  // namespace switchback
