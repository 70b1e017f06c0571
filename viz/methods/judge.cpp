#include "viz/methods/judge.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/noise/noise.h"
#include "viz/methods/occlusion.h"
#include "viz/methods/pixels.h"

namespace switchback {
namespace {

// Samples of Philox's counter, apart from those of noise (0) and of salt and pepper (1).
constexpr uint32_t kSubsetSample = 2, kRandomMapSample = 6, kBootstrapSample = 4, kOtherClassSample = 5;
// From here on those of copies with noise, apart from SmoothGrad's, which count from 0.
constexpr uint32_t kRoadSamples = 1u << 29, kInfidelitySamples = 1u << 30, kSensitivitySamples = 3u << 29;

std::array<uint32_t, 4> words_of(uint64_t block, uint32_t sample, uint32_t number, uint64_t seed) {
  return philox4x32({uint32_t(block), uint32_t(block >> 32), sample, number}, {uint32_t(seed), uint32_t(seed >> 32)});
}

// Places by falling strength, equal ones as they lie. Sorted as whole numbers, the strength's bits above the place's: several
// times as fast as comparing through indices.
std::vector<int64_t> strongest_first(std::span<const float> map) {
  std::vector<uint64_t> keys(map.size());
  for (size_t i = 0; i < map.size(); ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(map[i] + 0.f);  // −0 as 0
    const uint32_t rising = bits >> 31 ? ~bits : bits | 0x80000000u;
    keys[i] = uint64_t(~rising) << 32 | uint64_t(i);
  }
  std::ranges::sort(keys);
  std::vector<int64_t> order(map.size());
  for (size_t k = 0; k < keys.size(); ++k) order[k] = int64_t(keys[k] & 0xffffffffu);
  return order;
}

// Scores of `count` images, as many at once as the plan takes: make(k, to) writes image k, [C,H,W]; on several threads, so it
// throws nothing.
std::vector<double> scores(Forward& forward, const Judged& judged, int64_t count,
                           const std::function<void(int64_t k, float* to)>& make) {
  const int64_t item = judged.image.item();
  std::vector<float> images(size_t(std::min(count, forward.batch()) * item));
  std::vector<double> all;
  for (int64_t first = 0; first < count; first += forward.batch()) {
    const int64_t n = std::min(forward.batch(), count - first);
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < n; ++i) make(first + i, images.data() + i * item);
    const Tensor values = forward.run(images.data(), n);
    for (int64_t i = 0; i < n; ++i) all.push_back(score_of(judged.unit, judged.scoring, batch_item(values, i)));
  }
  return all;
}

// Pixels go from `from` to `to` in the map's order; both ends are known.
Curve curve(Forward& forward, const Judged& judged, std::span<const float> map, const float* from, const float* to, double first,
            double last, int64_t steps) {
  check_map(map, judged.image);
  CHECK(steps >= 1, "{} steps", steps);
  const std::vector<int64_t> order = strongest_first(map);
  const int64_t plane = judged.image.h * judged.image.w;
  std::vector<int32_t> rank(static_cast<size_t>(plane));
  for (size_t k = 0; k < order.size(); ++k) rank[size_t(order[k])] = int32_t(k);
  Curve result{scores(forward, judged, steps - 1, [&](int64_t k, float* image) {
    const int32_t gone = int32_t((k + 1) * plane / steps);
    for (int64_t c = 0; c < judged.image.c; ++c)
      for (int64_t i = 0; i < plane; ++i) image[c * plane + i] = rank[size_t(i)] < gone ? to[c * plane + i] : from[c * plane + i];
  })};
  result.scores.insert(result.scores.begin(), first);
  result.scores.push_back(last);
  return result;
}

// sigma · normal noise of n values: that of kernels/noise/noise.h.
std::vector<float> normal_noise(int64_t n, double sigma, uint64_t seed, uint32_t number, uint32_t sample) {
  Context host;
  const std::vector<float> nothing(size_t(n), 0.f);
  std::vector<float> noise(static_cast<size_t>(n));
  write_noisy_input(host, nothing.data(), {.sigma = float(sigma), .seed = seed, .image = number, .first_sample = sample},
                    {noise.data(), {1, 1, 1, n}, DType::f32});
  return noise;
}

bool inside(const Box& b, int64_t row, int64_t col) {
  return row >= b.row && row < b.row + b.height && col >= b.col && col < b.col + b.width;
}

}  // namespace

void check_map(std::span<const float> map, Shape image, std::string_view what) {
  const int64_t plane = image.h * image.w;
  if (int64_t(map.size()) != plane)
    throw Error(fmt::format("{} has {} values for an image of {}x{}", what, map.size(), image.h, image.w));
  for (int64_t i = 0; i < plane; ++i)
    if (!std::isfinite(map[size_t(i)]))
      throw Error(fmt::format("{} is not finite at row {}, column {}", what, i / image.w, i % image.w));
}

double Curve::area() const {
  const double sum = std::accumulate(scores.begin(), scores.end(), 0.);
  return (sum - (scores.front() + scores.back()) / 2) / double(scores.size() - 1);
}

CurveEnds curve_ends(Forward& forward, const Judged& judged, const Tensor& other) {
  const std::vector<double> both = scores(forward, judged, 2, [&](int64_t k, float* image) {
    std::copy_n(k == 0 ? judged.x : other.data(), judged.image.item(), image);
  });
  return {both[0], both[1]};
}

Curve deletion(Forward& forward, const Judged& judged, std::span<const float> map, const Tensor& other, CurveEnds ends, int64_t steps) {
  return curve(forward, judged, map, judged.x, other.data(), ends.image, ends.other, steps);
}

Curve insertion(Forward& forward, const Judged& judged, std::span<const float> map, const Tensor& other, CurveEnds ends, int64_t steps) {
  return curve(forward, judged, map, other.data(), judged.x, ends.other, ends.image, steps);
}

double fidelity(Forward& forward, const Judged& judged, std::span<const float> map, const Tensor& other,
                const FidelityOptions& o) {
  check_map(map, judged.image);
  const int64_t h = judged.image.h, w = judged.image.w, plane = h * w, cells = o.grid * o.grid;
  const int64_t taken = int64_t(o.share * double(cells));
  CHECK(o.grid >= 1 && taken >= 1 && taken < cells && o.subsets >= 2, "{} subsets of {} of {} cells", o.subsets, taken, cells);
  const auto cell = [&](int64_t i) { return i / w * o.grid / h * o.grid + i % w * o.grid / w; };
  // The first places of a shuffle, for every subset by itself.
  const auto subset = [&](int64_t s) {
    std::vector<int64_t> all(static_cast<size_t>(cells));
    std::iota(all.begin(), all.end(), int64_t(0));
    std::vector<char> chosen(size_t(cells), char(0));
    for (int64_t k = 0; k < taken; ++k) {
      const uint32_t word = words_of(uint64_t(s * cells + k), kSubsetSample, o.number, o.seed)[0];
      std::swap(all[size_t(k)], all[size_t(k + int64_t(unit_uniform(word) * double(cells - k)))]);
      chosen[size_t(all[size_t(k)])] = 1;
    }
    return chosen;
  };
  std::vector<double> of_cells(size_t(cells), 0.);
  for (int64_t i = 0; i < plane; ++i) of_cells[size_t(cell(i))] += double(map[size_t(i)]);
  std::vector<float> sums(static_cast<size_t>(o.subsets)), drops;
  const std::vector<double> values = scores(forward, judged, o.subsets + 1, [&](int64_t k, float* image) {
    std::copy_n(judged.x, judged.image.item(), image);
    if (k == 0) return;  // x itself
    const std::vector<char> chosen = subset(k - 1);
    double sum = 0;
    for (size_t c = 0; c < chosen.size(); ++c)
      if (chosen[c]) sum += of_cells[c];
    sums[size_t(k - 1)] = float(sum);
    for (int64_t i = 0; i < plane; ++i)
      if (chosen[size_t(cell(i))])
        for (int64_t c = 0; c < judged.image.c; ++c) image[c * plane + i] = other[c * plane + i];
  });
  for (size_t k = 1; k < values.size(); ++k) drops.push_back(float(values[0] - values[k]));
  return rank_correlation(sums, drops);
}

Tensor linear_imputation(const float* x, Shape image, std::span<const char> missing) {
  const int64_t h = image.h, w = image.w, plane = h * w, channels = image.c;
  constexpr struct { int64_t row, col; double weight; } kNeighbours[] = {
      {0, 1, 1. / 6}, {0, -1, 1. / 6}, {1, 0, 1. / 6}, {-1, 0, 1. / 6}, {1, 1, 1. / 12}, {-1, 1, 1. / 12}, {1, -1, 1. / 12}, {-1, -1, 1. / 12}};
  constexpr size_t kAround = std::size(kNeighbours);
  std::vector<int64_t> place(size_t(plane), -1), at;  // of a pixel among the unknowns, and back
  for (int64_t i = 0; i < plane; ++i)
    if (missing[size_t(i)]) place[size_t(i)] = int64_t(at.size()), at.push_back(i);
  const int64_t n = int64_t(at.size());
  CHECK(n < plane, "all {} pixels are missing", n);
  Tensor y({channels, h, w});
  std::copy_n(x, image.item(), y.data());
  if (n == 0) return y;
  // For unknown u: sum of weights · u − Σ weight · unknown neighbours = Σ weight · known neighbours. Symmetric, and positive
  // definite, since every missing region has a known neighbour: conjugate gradients, preconditioned by the diagonal.
  std::vector<std::array<int64_t, kAround>> around(static_cast<size_t>(n));
  std::vector<double> diagonal(size_t(n), 0.);
  std::vector<std::vector<double>> right(size_t(channels), std::vector<double>(size_t(n), 0.));
  for (int64_t k = 0; k < n; ++k)
    for (size_t d = 0; d < kAround; ++d) {
      const int64_t row = at[size_t(k)] / w + kNeighbours[d].row, col = at[size_t(k)] % w + kNeighbours[d].col;
      around[size_t(k)][d] = -1;
      if (row < 0 || row >= h || col < 0 || col >= w) continue;
      diagonal[size_t(k)] += kNeighbours[d].weight;
      around[size_t(k)][d] = place[size_t(row * w + col)];
      if (around[size_t(k)][d] < 0)
        for (int64_t c = 0; c < channels; ++c)
          right[size_t(c)][size_t(k)] += kNeighbours[d].weight * double(x[c * plane + row * w + col]);
    }
  const auto product = [&](const std::vector<double>& u) {
    double sum = 0;
    for (size_t k = 0; k < u.size(); ++k) sum += u[k] * u[k] / diagonal[k];
    return sum;
  };
#pragma omp parallel for schedule(dynamic)
  for (int64_t c = 0; c < channels; ++c) {
    std::vector<double> solution(size_t(n), 0.), &rest = right[size_t(c)], step(static_cast<size_t>(n)), of_step(static_cast<size_t>(n));
    for (size_t k = 0; k < size_t(n); ++k) step[k] = rest[k] / diagonal[k];
    double left = product(rest);
    const double enough = left * 1e-16;
    for (int64_t round = 0; left > enough && round < 4 * n; ++round) {
      double along = 0;
      for (size_t k = 0; k < size_t(n); ++k) {
        double sum = diagonal[k] * step[k];
        for (size_t d = 0; d < kAround; ++d)
          if (around[k][d] >= 0) sum -= kNeighbours[d].weight * step[size_t(around[k][d])];
        of_step[k] = sum;
        along += sum * step[k];
      }
      const double length = left / along;
      for (size_t k = 0; k < size_t(n); ++k) solution[k] += length * step[k], rest[k] -= length * of_step[k];
      const double before = std::exchange(left, product(rest));
      for (size_t k = 0; k < size_t(n); ++k) step[k] = rest[k] / diagonal[k] + left / before * step[k];
    }
    for (size_t k = 0; k < size_t(n); ++k) y[c * plane + at[k]] = float(solution[k]);
  }
  return y;
}

double Road::combined() const {
  double sum = 0;
  for (size_t k = 0; k < most_first.size(); ++k) sum += (least_first[k] - most_first[k]) / 2;
  return sum / double(most_first.size());
}

Road road(Forward& forward, const Judged& judged, std::span<const float> map, const RoadOptions& o) {
  check_map(map, judged.image);
  const int64_t plane = judged.image.h * judged.image.w, shares = int64_t(o.shares.size());
  for (const double share : o.shares) CHECK(share > 0 && share < 1, "a share of {} of the pixels", share);
  const std::vector<int64_t> order = strongest_first(map);
  const std::vector<double> all = scores(forward, judged, 2 * shares, [&](int64_t k, float* image) {
    const bool most = k < shares;
    const int64_t removed = int64_t(o.shares[size_t(k % shares)] * double(plane));
    std::vector<char> missing(size_t(plane), char(0));
    for (int64_t i = 0; i < removed; ++i) missing[size_t(order[size_t(most ? i : plane - 1 - i)])] = 1;
    const Tensor imputed = linear_imputation(judged.x, judged.image, missing);
    const std::vector<float> noise = normal_noise(judged.image.item(), o.noise, o.seed, o.number, kRoadSamples + uint32_t(k));
    for (int64_t e = 0; e < judged.image.item(); ++e) image[e] = missing[size_t(e % plane)] ? imputed[e] + noise[size_t(e)] : judged.x[e];
  });
  return {{all.begin(), all.begin() + shares}, {all.begin() + shares, all.end()}};
}

double infidelity(Forward& forward, const Judged& judged, std::span<const float> map, const NoiseOptions& o) {
  const int64_t item = judged.image.item(), plane = judged.image.h * judged.image.w;
  CHECK(int64_t(map.size()) == item || int64_t(map.size()) == plane, "a map of {} values for {} of an image", map.size(), item);
  CHECK(o.samples >= 1, "{} samples", o.samples);
  std::vector<double> told(static_cast<size_t>(o.samples));
  const std::vector<double> values = scores(forward, judged, o.samples + 1, [&](int64_t k, float* image) {
    std::copy_n(judged.x, item, image);
    if (k == 0) return;  // x itself
    const std::vector<float> noise = normal_noise(item, o.size, o.seed, o.number, kInfidelitySamples + uint32_t(k - 1));
    double sum = 0;
    for (int64_t e = 0; e < item; ++e) image[e] -= noise[size_t(e)], sum += double(noise[size_t(e)]) * double(map[size_t(e) % map.size()]);
    told[size_t(k - 1)] = sum;
  });
  double square = 0, both = 0, drops = 0;
  for (size_t k = 0; k < told.size(); ++k) {
    const double drop = values[0] - values[k + 1];
    square += told[k] * told[k], both += told[k] * drop, drops += drop * drop;
  }
  const double scale = square > 0 ? both / square : 0;
  double sum = 0;
  for (size_t k = 0; k < told.size(); ++k) {
    const double error = scale * told[k] - (values[0] - values[k + 1]);
    sum += error * error;
  }
  return sum / double(told.size());
}

Sensitivity sensitivity(const Mapper& mapper, const Judged& judged, std::span<const float> map, const NoiseOptions& o) {
  constexpr int64_t kAtOnce = 16;
  const int64_t item = judged.image.item();
  double length = 0;
  for (const float v : map) length += double(v) * double(v);
  Sensitivity result;
  for (int64_t first = 0; first < o.samples; first += kAtOnce) {
    const int64_t n = std::min(kAtOnce, o.samples - first);
    Tensor copies({n, judged.image.c, judged.image.h, judged.image.w});
    for (int64_t i = 0; i < n; ++i)
      for (int64_t e = 0; e < item; ++e) {
        const uint32_t word = words_of(uint64_t(e / 4), kSensitivitySamples + uint32_t(first + i), o.number, o.seed)[size_t(e % 4)];
        copies[i * item + e] = judged.x[e] + float(o.size * (2 * unit_uniform(word) - 1));
      }
    const Tensor maps = mapper(copies);
    CHECK(maps.count() == n * int64_t(map.size()), "maps of {} values, {} of the image itself", maps.count() / n, map.size());
    for (int64_t i = 0; i < n; ++i) {
      double sum = 0;
      for (size_t e = 0; e < map.size(); ++e) {
        const double d = double(maps[i * int64_t(map.size()) + int64_t(e)]) - double(map[e]);
        sum += d * d;
      }
      const double moved = length > 0 ? std::sqrt(sum / length) : std::numeric_limits<double>::quiet_NaN();
      result.most = std::isnan(moved) ? moved : std::max(result.most, moved);
      result.mean += moved / double(o.samples);
    }
  }
  return result;
}

double structural_similarity(std::span<const float> a, std::span<const float> b, int64_t h, int64_t w) {
  CHECK(int64_t(a.size()) == h * w && a.size() == b.size(), "maps of {} and {} values, not {}x{}", a.size(), b.size(), h, w);
  const auto [a_least, a_most] = std::ranges::minmax(a);
  const auto [b_least, b_most] = std::ranges::minmax(b);
  const double range = double(std::max(a_most, b_most)) - double(std::min(a_least, b_least));
  if (range == 0) return std::numeric_limits<double>::quiet_NaN();
  const int64_t side = std::min<int64_t>({7, h - (h + 1) % 2, w - (w + 1) % 2});
  // Sums over windows, by rows and then by columns, of a, b, a², b² and ab (of numbers with the range 1, so that no square
  // is too small).
  const double count = double(side * side), sample = count > 1 ? count / (count - 1) : 0, c1 = 0.01 * 0.01, c2 = 0.03 * 0.03;
  using Sums = std::array<double, 5>;
  std::vector<Sums> rows(size_t(h * (w - side + 1)));
  const double least = std::min(a_least, b_least);
  // Means enter as they are, not from `least` on: (2 μa μb + c1) is no function of differences.
  const double shift = least / range;
  for (int64_t r = 0; r < h; ++r)
    for (int64_t q = 0; q + side <= w; ++q) {
      Sums& sums = rows[size_t(r * (w - side + 1) + q)];
      sums = {};
      for (int64_t k = 0; k < side; ++k) {
        const double u = (double(a[size_t(r * w + q + k)]) - least) / range, v = (double(b[size_t(r * w + q + k)]) - least) / range;
        sums[0] += u, sums[1] += v, sums[2] += u * u, sums[3] += v * v, sums[4] += u * v;
      }
    }
  double total = 0;
  for (int64_t r = 0; r + side <= h; ++r)
    for (int64_t q = 0; q + side <= w; ++q) {
      Sums s = {};
      for (int64_t k = 0; k < side; ++k)
        for (size_t j = 0; j < s.size(); ++j) s[j] += rows[size_t((r + k) * (w - side + 1) + q)][j] / count;
      const double va = sample * (s[2] - s[0] * s[0]), vb = sample * (s[3] - s[1] * s[1]), vab = sample * (s[4] - s[0] * s[1]);
      const double ma = s[0] + shift, mb = s[1] + shift;
      total += (2 * ma * mb + c1) * (2 * vab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
    }
  return total / double((h - side + 1) * (w - side + 1));
}

std::vector<int> layers_from_top(const Weights& weights) {
  std::vector<int> nodes;
  for (const Parameter& p : weights.list())
    if (std::ranges::find(nodes, p.node) == nodes.end()) nodes.push_back(p.node);
  std::ranges::sort(nodes, std::greater());
  return nodes;
}

void take_layer(Weights& weights, const Weights& from, int node) {
  for (const Parameter& p : from.list())
    if (p.node == node) std::ranges::copy(from.values(p), weights.edit(node, p.name).begin());
}

int64_t other_class(int64_t target, int64_t classes, uint64_t seed, uint32_t number) {
  CHECK(classes >= 2 && target >= 0 && target < classes, "class {} of {}", target, classes);
  const int64_t drawn = int64_t(unit_uniform(words_of(0, kOtherClassSample, number, seed)[0]) * double(classes - 1));
  return drawn + (drawn >= target);
}

double gini(std::span<const float> map) {
  std::vector<double> m;
  for (const float v : map) m.push_back(std::abs(double(v)));
  std::ranges::sort(m);
  double weighted = 0, sum = 0;
  for (size_t i = 0; i < m.size(); ++i) weighted += (2 * double(i + 1) - double(m.size()) - 1) * m[i], sum += m[i];
  return sum > 0 ? weighted / (double(m.size()) * sum) : std::numeric_limits<double>::quiet_NaN();
}

double pointing(std::span<const float> map, Shape image, std::span<const Box> boxes) {
  const int64_t at = std::max_element(map.begin(), map.end()) - map.begin();
  return std::ranges::any_of(boxes, [&](const Box& b) { return inside(b, at / image.w, at % image.w); }) ? 1 : 0;
}

double energy(std::span<const float> map, Shape image, std::span<const Box> boxes) {
  double in = 0, all = 0;
  for (int64_t i = 0; i < int64_t(map.size()); ++i) {
    const double v = std::max(0., double(map[size_t(i)]));
    all += v;
    if (std::ranges::any_of(boxes, [&](const Box& b) { return inside(b, i / image.w, i % image.w); })) in += v;
  }
  return all > 0 ? in / all : std::numeric_limits<double>::quiet_NaN();
}

std::vector<float> random_map(Shape image, uint64_t seed, uint32_t number) {
  std::vector<float> map(size_t(image.h * image.w));
  for (size_t i = 0; i < map.size(); ++i) map[i] = float(unit_uniform(words_of(i / 4, kRandomMapSample, number, seed)[i % 4]));
  return map;
}

std::vector<float> edge_map(const float* x, Shape image) {
  const int64_t h = image.h, w = image.w;
  std::vector<float> map(size_t(h * w));
  for (int64_t c = 0; c < image.c; ++c)
    for (int64_t r = 0; r < h; ++r)
      for (int64_t q = 0; q < w; ++q) {
        const auto at = [&](int64_t dr, int64_t dq) {
          return double(x[(c * h + std::clamp<int64_t>(r + dr, 0, h - 1)) * w + std::clamp<int64_t>(q + dq, 0, w - 1)]);
        };
        const double across = at(-1, 1) + 2 * at(0, 1) + at(1, 1) - at(-1, -1) - 2 * at(0, -1) - at(1, -1);
        const double down = at(1, -1) + 2 * at(1, 0) + at(1, 1) - at(-1, -1) - 2 * at(-1, 0) - at(-1, 1);
        map[size_t(r * w + q)] += float(std::hypot(across, down));
      }
  return map;
}

PairedDifference paired_bootstrap(std::span<const double> a, std::span<const double> b, uint64_t seed, int64_t draws) {
  CHECK(a.size() == b.size() && !a.empty() && draws >= 40, "{} and {} values, {} draws", a.size(), b.size(), draws);
  const int64_t n = int64_t(a.size());
  PairedDifference result;
  for (int64_t i = 0; i < n; ++i) result.mean += (a[size_t(i)] - b[size_t(i)]) / double(n);
  std::vector<double> means;
  std::array<uint32_t, 4> words{};
  int64_t drawn = 0;
  for (int64_t d = 0; d < draws; ++d) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (drawn % 4 == 0) words = words_of(uint64_t(drawn / 4), kBootstrapSample, 0, seed);
      const uint32_t word = words[size_t(drawn++ % 4)];
      const size_t k = size_t(unit_uniform(word) * double(n));
      sum += a[k] - b[k];
    }
    means.push_back(sum / double(n));
  }
  std::ranges::sort(means);
  result.low = means[size_t(double(draws) * 0.025)], result.high = means[size_t(double(draws) * 0.975)];
  return result;
}

}  // namespace switchback
