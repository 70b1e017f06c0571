#include "viz/methods/tsne.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>

#include "kernels/check.h"
#include "kernels/image/fourier.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"
#include "viz/methods/genes.h"

namespace switchback {
namespace {

constexpr double kSpacing = 1. / 3;    // of the grid, where the kernel's width is 1
constexpr int64_t kMostNodes = 1600;   // along a side, before the spacing grows
constexpr int64_t kFewPoints = 2500;   // whose pairs are summed sooner than a grid's transforms
constexpr int kStencil = 4;            // nodes a point and side: cubic B-splines
constexpr int64_t kTaper = 24;         // nodes along which kernels fade out beyond the furthest pair

// Joint probabilities of near pairs, row by row; each pair is there twice.
struct Affinities {
  std::vector<int64_t> begin;  // [n + 1]
  std::vector<int32_t> index;
  std::vector<float> p;  // sums up to 1
};

// exp(−beta d²)/Σ over the neighbours, with beta such that its entropy is log(perplexity).
void conditional(const float* squared, int64_t k, double perplexity, float* p) {
  const double wanted = std::log(perplexity);
  double beta = 1, low = 0, high = INFINITY, scale = 0;
  for (int64_t j = 0; j < k; ++j) scale += double(squared[j]) - double(squared[0]);
  if (scale > 0) beta = double(k) / scale;
  for (int step = 0; step < 100; ++step) {
    double sum = 0, weighted = 0;
    for (int64_t j = 0; j < k; ++j) {
      const double away = double(squared[j]) - double(squared[0]), value = std::exp(-beta * away);
      p[j] = float(value), sum += value, weighted += value * away;
    }
    for (int64_t j = 0; j < k; ++j) p[j] = float(p[j] / sum);
    const double entropy = std::log(sum) + beta * weighted / sum;
    if (!(scale > 0) || std::abs(entropy - wanted) < 1e-6) return;  // equally far ones stay equal
    (entropy > wanted ? low : high) = beta;
    beta = std::isinf(high) ? beta * 2 : (low + high) / 2;
  }
}

Affinities affinities(Context& host, const Neighbours& near, double perplexity) {
  const int64_t n = near.n, k = near.k;
  std::vector<float> one_way(size_t(n * k));
  parallel_ranges(host, n, k * 200, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      conditional(near.squared.data() + i * k, k, perplexity, one_way.data() + i * k);
  });
  // Rows of i's neighbours and of those whose neighbour i is, sorted; what is there twice is added up.
  Affinities all;
  std::vector<int64_t> begin(size_t(n) + 1, 0);
  for (int64_t e = 0; e < n * k; ++e) ++begin[size_t(near.index[size_t(e)]) + 1];
  for (int64_t i = 0; i < n; ++i) begin[size_t(i) + 1] += begin[size_t(i)] + k;
  std::vector<std::pair<int32_t, float>> entries(size_t(2 * n * k));
  std::vector<int64_t> next(begin.begin(), begin.end() - 1);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t r = 0; r < k; ++r) {
      const int32_t j = near.index[size_t(i * k + r)];
      const float p = one_way[size_t(i * k + r)] / float(2 * n);
      entries[size_t(next[size_t(i)]++)] = {j, p};
      entries[size_t(next[size_t(j)]++)] = {int32_t(i), p};
    }
  all.begin.push_back(0);
  for (int64_t i = 0; i < n; ++i) {
    const auto from = entries.begin() + begin[size_t(i)], to = entries.begin() + begin[size_t(i) + 1];
    std::sort(from, to);
    for (auto e = from; e != to; ++e) {
      if (e != from && e->first == all.index.back()) {
        all.p.back() += e->second;
      } else {
        all.index.push_back(e->first), all.p.push_back(e->second);
      }
    }
    all.begin.push_back(int64_t(all.index.size()));
  }
  return all;
}

template <int D>
float away(const float* a, const float* b) {
  float sum = 0;
  for (int c = 0; c < D; ++c) sum += (a[c] - b[c]) * (a[c] - b[c]);
  return sum;
}

// Over all pairs: eight points at once.
template <int D>
double pairs_repulsion(Context& host, const float* places, int64_t n, float* forces) {
  const int64_t padded = (n + 7) / 8 * 8;
  std::vector<float> axes(size_t(D * padded), 1e15f);  // behind the last point some far away from all
  for (int64_t i = 0; i < n; ++i)
    for (int c = 0; c < D; ++c) axes[size_t(c * padded + i)] = places[i * D + c];
  std::vector<double> sums(size_t(n), 0.);
  parallel_ranges(host, n, n * 4, [&, padded, forces](int64_t first, int64_t last) {
    const F8 one = _mm256_set1_ps(1);
    for (int64_t i = first; i < last; ++i) {
      F8 at[D], force[D], sum = _mm256_setzero_ps();
      for (int c = 0; c < D; ++c) at[c] = _mm256_set1_ps(places[i * D + c]), force[c] = _mm256_setzero_ps();
      for (int64_t j = 0; j < padded; j += 8) {
        F8 apart[D], squared = one;
        for (int c = 0; c < D; ++c) {
          apart[c] = _mm256_sub_ps(at[c], load8(axes.data() + c * padded + j));
          squared = _mm256_fmadd_ps(apart[c], apart[c], squared);
        }
        const F8 q = _mm256_div_ps(one, squared), q2 = _mm256_mul_ps(q, q);
        sum = _mm256_add_ps(sum, q);
        for (int c = 0; c < D; ++c) force[c] = _mm256_fmadd_ps(q2, apart[c], force[c]);
      }
      const auto total = [](F8 v) {
        alignas(32) float lanes[8];
        _mm256_store_ps(lanes, v);
        double all = 0;
        for (const float lane : lanes) all += lane;
        return all;
      };
      for (int c = 0; c < D; ++c) forces[i * D + c] = float(total(force[c]));
      sums[size_t(i)] = total(sum) - 1;  // without itself
    }
  });
  double all = 0;
  for (const double s : sums) all += s;
  return all;
}

// The next size from `least` on whose transform is quick.
int64_t quick_size(int64_t least) {
  for (int64_t size = std::max<int64_t>(16, (least + 7) / 8 * 8);; size += 8) {
    int64_t rest = size;
    for (const int64_t radix : {2, 3, 5})
      while (rest % radix == 0) rest /= radix;
    if (rest == 1) return size;
  }
}

// On a grid (Linderman et al. 2019): points are spread over nodes, nodes act on each other by a convolution, and what arrives
// is gathered. Both ways by B-splines, whose transform is divided out of the kernels' spectra: these fall as e^−frequency, so
// that little is lost between nodes. The vector d/(1 + |d|²)² is convolved itself, without differences of large numbers; its
// spectrum is imaginary. Σ 1/(1 + |d|²) is a sum over frequencies.
class GridRepulsion {
 public:
  explicit GridRepulsion(Context& host) : host_(host) {}

  double run(const float* places, int64_t n, float* forces) {
    float low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
    for (int64_t i = 0; i < n; ++i)
      for (int c = 0; c < 2; ++c) {
        low[c] = std::min(low[c], places[2 * i + c]);
        high[c] = std::max(high[c], places[2 * i + c]);
      }
    const double span = std::max(double(high[0]) - low[0], double(high[1]) - low[1]);
    double spacing = kSpacing;
    while (span / spacing + kStencil + 1 > double(kMostNodes)) spacing *= 2;
    const int64_t nodes = int64_t(span / spacing) + kStencil + 1;
    prepare(quick_size(2 * (nodes + kTaper)), spacing);
    spread(places, n, low, nodes);
    one_->backward(nullptr, 1, grid_.data(), spectrum_.data());
    const double sum = convolve();
    two_->forward(nullptr, 1, products_.data(), planes_.data());
    gather(n, forces);
    return sum - double(n);
  }

 private:
  // Spectra of the kernels. A transform's coefficients are its sums times `twice`/size², as InverseFourier has them.
  void prepare(int64_t size, double spacing) {
    if (size == size_ && spacing == spacing_) return;
    size_ = size, spacing_ = spacing;
    one_.emplace(host_, size, size, 1), two_.emplace(host_, size, size, 2);
    const int64_t f = size / 2 + 1, all = size * f;
    grid_.assign(size_t(size * size), 0.f), planes_.assign(size_t(2 * size * size), 0.f);
    spectrum_.assign(size_t(2 * all), 0.f), products_.assign(size_t(4 * all), 0.f);
    inverse_.resize(size_t(all)), along_[0].resize(size_t(all)), along_[1].resize(size_t(all));
    const auto folded = [&](int64_t i) { return i <= size / 2 ? i : i - size; };
    std::vector<double> fade, sharpen;
    for (int64_t i = 0; i < size; ++i) {
      const double out = double(std::abs(folded(i)) - (size / 2 - kTaper)) / double(kTaper), angle = M_PI * double(folded(i)) / double(size);
      fade.push_back(out <= 0 ? 1 : std::pow(std::cos(M_PI / 2 * out), 2));
      sharpen.push_back(i == 0 ? 1 : std::pow(angle / std::sin(angle), 2 * kStencil));
    }
    for (int kernel = 0; kernel < 3; ++kernel) {
      for (int64_t r = 0; r < size; ++r)
        for (int64_t c = 0; c < size; ++c) {
          const double y = double(folded(r)) * spacing, x = double(folded(c)) * spacing, q = 1 / (1 + x * x + y * y);
          grid_[size_t(r * size + c)] = float(fade[size_t(r)] * fade[size_t(c)] * (kernel == 0 ? q : (kernel == 1 ? x : y) * q * q));
        }
      one_->backward(nullptr, 1, grid_.data(), spectrum_.data());
      std::vector<float>& to = kernel == 0 ? inverse_ : along_[kernel - 1];
      for (int64_t e = 0; e < all; ++e) {
        const int64_t v = e % f;
        // One factor makes the kernel's sums of its coefficients; the points' own coefficients then only lack their `twice`.
        const double twice = v == 0 || 2 * v == size ? 1 : 2, sums = double(size * size) / twice;
        const double value = spectrum_[size_t((kernel == 0 ? 0 : all) + e)] * sharpen[size_t(e / f)] * sharpen[size_t(v)];
        to[size_t(e)] = float(value * sums * (kernel == 0 ? 1 / twice : double(size * size) / twice));
      }
    }
    std::fill(grid_.begin(), grid_.end(), 0.f);
  }

  // Points in the order of their rows: each row of nodes is then one thread's, and added up in that order.
  void spread(const float* places, int64_t n, const float* low, int64_t nodes) {
    weights_.resize(size_t(2 * kStencil * n)), base_.resize(size_t(2 * n)), order_.resize(size_t(n));
    parallel_ranges(host_, n, 30, [&, low, places](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        for (int c = 0; c < 2; ++c) {
          const float at = (places[2 * i + c] - low[c]) / float(spacing_), whole = std::floor(at), t = at - whole;
          base_[size_t(2 * i + c)] = int32_t(whole);  // the stencil begins there: its first node lies one before the point's
          float* w = weights_.data() + (2 * i + c) * kStencil;
          const float left = 1 - t;
          w[0] = left * left * left / 6, w[1] = (3 * t * t * t - 6 * t * t + 4) / 6;
          w[2] = (3 * left * left * left - 6 * left * left + 4) / 6, w[3] = t * t * t / 6;
        }
    });
    rows_.assign(size_t(nodes) + 1, 0);
    for (int64_t i = 0; i < n; ++i) ++rows_[size_t(base_[size_t(2 * i + 1)]) + 1];
    for (int64_t r = 0; r < nodes; ++r) rows_[size_t(r) + 1] += rows_[size_t(r)];
    std::vector<int64_t> next(rows_.begin(), rows_.end() - 1);
    for (int64_t i = 0; i < n; ++i) order_[size_t(next[size_t(base_[size_t(2 * i + 1)])]++)] = int32_t(i);
    std::fill(grid_.begin(), grid_.end(), 0.f);
    parallel_ranges(host_, nodes, std::max<int64_t>(1, 20 * n / nodes), [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        float* row = grid_.data() + r * size_;
        for (int64_t k = 0; k < kStencil && k <= r; ++k)  // those whose stencil has this row as its k-th
          for (int64_t e = rows_[size_t(r - k)]; e < rows_[size_t(r - k) + 1]; ++e) {
            const int64_t i = order_[size_t(e)];
            const float* w = weights_.data() + 2 * i * kStencil;
            float* to = row + base_[size_t(2 * i)];
            for (int j = 0; j < kStencil; ++j) to[j] += w[kStencil + k] * w[j];
          }
      }
    });
  }

  double convolve() {
    const int64_t f = size_ / 2 + 1, all = size_ * f;
    std::vector<double> sums(size_t(size_), 0.);
    parallel_ranges(host_, size_, f * 4, [&, f, all](int64_t first, int64_t last) {
      for (int64_t u = first; u < last; ++u) {
        const float *re = spectrum_.data() + u * f, *im = re + all;
        const float *energy = inverse_.data() + u * f, *x = along_[0].data() + u * f, *y = along_[1].data() + u * f;
        float *to = products_.data() + u * 2 * f, *to_im = to + 2 * all;
        double sum = 0;
        for (int64_t v = 0; v < f; ++v) {
          sum += double(energy[v]) * (double(re[v]) * re[v] + double(im[v]) * im[v]);
          to[v] = -x[v] * im[v], to_im[v] = x[v] * re[v];
          to[f + v] = -y[v] * im[v], to_im[f + v] = y[v] * re[v];
        }
        sums[size_t(u)] = sum;
      }
    });
    double sum = 0;
    for (const double s : sums) sum += s;
    return sum * double(size_) * double(size_);
  }

  void gather(int64_t n, float* forces) {
    parallel_ranges(host_, n, 40, [&, forces](int64_t first, int64_t last) {
      for (int64_t e = first; e < last; ++e) {
        const int64_t i = order_[size_t(e)], x = base_[size_t(2 * i)], y = base_[size_t(2 * i + 1)];
        const float* w = weights_.data() + 2 * i * kStencil;
        float force[2] = {0, 0};
        for (int64_t k = 0; k < kStencil; ++k)
          for (int c = 0; c < 2; ++c) {
            const float* row = planes_.data() + (2 * (y + k) + c) * size_ + x;
            float sum = 0;
            for (int j = 0; j < kStencil; ++j) sum += w[j] * row[j];
            force[c] += w[kStencil + k] * sum;
          }
        forces[2 * i] = force[0], forces[2 * i + 1] = force[1];
      }
    });
  }

  Context& host_;
  int64_t size_ = 0;
  double spacing_ = 0;
  std::optional<InverseFourier> one_, two_;
  // [size,size], [size,2,size]; coefficients [2,size,f], [2,size,2,f]; spectra of the kernels [size,f].
  std::vector<float> grid_, planes_, spectrum_, products_, inverse_, along_[2];
  std::vector<float> weights_;            // [n, x and y, kStencil]
  std::vector<int32_t> base_, order_;     // [n, x and y]: the stencil's first node; points by row
  std::vector<int64_t> rows_;             // where each row's points begin in order_
};

double repulsion(Context& host, const float* places, int64_t n, int64_t dims, GridRepulsion* grid, float* forces) {
  if (grid) return grid->run(places, n, forces);
  return dims == 2 ? pairs_repulsion<2>(host, places, n, forces) : pairs_repulsion<3>(host, places, n, forces);
}

bool on_grid(int64_t n, int64_t dims, TsneOptions::Repulsion how) {
  CHECK(dims == 2 || how != TsneOptions::Repulsion::grid, "repulsion on a grid has two dimensions, not {}", dims);
  return how == TsneOptions::Repulsion::grid || (how == TsneOptions::Repulsion::automatic && dims == 2 && n > kFewPoints);
}

template <int D>
Tsne descend(Context& host, const Affinities& near, std::vector<float> y, const TsneOptions& o) {
  const int64_t n = int64_t(y.size()) / D;
  std::optional<GridRepulsion> grid;
  if (on_grid(n, D, o.repulsion)) grid.emplace(host);
  std::vector<float> forces(y.size()), step(y.size(), 0.f), gains(y.size(), 1.f);
  for (int64_t t = 0; t < o.iterations; ++t) {
    const double exaggeration = t < o.early ? o.exaggeration : 1;
    const float momentum = t < o.early ? 0.5f : 0.8f, rate = float(std::max(200., double(n) / exaggeration));
    const double z = repulsion(host, y.data(), n, D, grid ? &*grid : nullptr, forces.data());
    parallel_ranges(host, n, 200, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        float pull[D] = {};
        for (int64_t e = near.begin[size_t(i)]; e < near.begin[size_t(i) + 1]; ++e) {
          const float* other = y.data() + int64_t(near.index[size_t(e)]) * D;
          const float by = near.p[size_t(e)] / (1 + away<D>(y.data() + i * D, other));
          for (int c = 0; c < D; ++c) pull[c] += by * (y[size_t(i * D + c)] - other[c]);
        }
        for (int c = 0; c < D; ++c) {
          const size_t at = size_t(i * D + c);
          forces[at] = float(exaggeration) * pull[c] - float(double(forces[at]) / z);
        }
      }
    });
    parallel_ranges(host, n, 10, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        float length = 0;
        for (int c = 0; c < D; ++c) {
          const size_t at = size_t(i * D + c);
          const bool turns = (forces[at] > 0) == (step[at] > 0);  // against the way so far
          gains[at] = std::max(0.01f, turns ? gains[at] * 0.8f : gains[at] + 0.2f);
          step[at] = momentum * step[at] - rate * gains[at] * forces[at];
          length += step[at] * step[at];
        }
        length = std::sqrt(length);
        if (length > 5)
          for (int c = 0; c < D; ++c) step[size_t(i * D + c)] *= 5 / length;
      }
    });
    double mean[D] = {};
    for (size_t e = 0; e < y.size(); ++e) y[e] += step[e], mean[e % D] += y[e];
    for (size_t e = 0; e < y.size(); ++e) y[e] -= float(mean[e % D] / double(n));
    if (o.progress && (t % 10 == 9 || t + 1 == o.iterations)) o.progress(t + 1, o.iterations);
  }
  Tsne out{std::move(y), 0};
  const double z = pairs_repulsion<D>(host, out.places.data(), n, forces.data());
  std::vector<double> parts(size_t(n), 0.);
  parallel_ranges(host, n, 2000, [&, z](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      for (int64_t e = near.begin[size_t(i)]; e < near.begin[size_t(i) + 1]; ++e) {
        const double p = near.p[size_t(e)];
        const double between = away<D>(out.places.data() + i * D, out.places.data() + int64_t(near.index[size_t(e)]) * D);
        if (p > 0) parts[size_t(i)] += p * (std::log(p) + std::log1p(between) + std::log(z));
      }
  });
  for (const double part : parts) out.kl += part;
  return out;
}

}  // namespace

double tsne_repulsion(Context& host, const float* places, int64_t n, int64_t dims, TsneOptions::Repulsion how, float* forces) {
  std::optional<GridRepulsion> grid;
  if (on_grid(n, dims, how)) grid.emplace(host);
  return repulsion(host, places, n, dims, grid ? &*grid : nullptr, forces);
}

Tsne tsne(Context& host, const Neighbours& neighbours, const float* start, const TsneOptions& o) {
  CHECK(!host.gpu && (o.dims == 2 || o.dims == 3), "t-SNE runs on the CPU, in two or three dimensions, not {}", o.dims);
  CHECK(o.perplexity >= 1 && 3 * o.perplexity <= double(neighbours.k), "a perplexity of {} wants {} neighbours, not {}",
        o.perplexity, std::ceil(3 * o.perplexity), neighbours.k);
  const int64_t n = neighbours.n;
  double squares = 0, mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += double(start[i * o.dims]) / double(n);
  for (int64_t i = 0; i < n; ++i) squares += std::pow(double(start[i * o.dims]) - mean, 2);
  const double deviation = std::sqrt(squares / double(n)), scale = deviation > 0 ? 1e-4 / deviation : 0;
  std::vector<float> y(size_t(n * o.dims));
  Draws draws(o.seed, 0, 0x75e0);
  for (size_t e = 0; e < y.size(); ++e) y[e] = float(double(start[e]) * scale + 1e-5 * (draws.uniform() - 0.5));
  const Affinities near = affinities(host, neighbours, o.perplexity);
  return o.dims == 2 ? descend<2>(host, near, std::move(y), o) : descend<3>(host, near, std::move(y), o);
}

}  // namespace switchback
