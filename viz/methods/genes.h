// How genes in 0 … 1 vary: polynomial mutation and simulated binary crossover (Deb and Agrawal 1995; Deb 2001), from a
// stream of random numbers that each child has of its own.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>

#include "kernels/noise/noise.h"
#include "viz/methods/pixels.h"

namespace switchback {

// Numbers of (0, 1), one after the other. counter = (block, 2, generation, child), so that none is a noise's.
class Draws {
 public:
  Draws(uint64_t seed, uint32_t generation, uint32_t child) : seed_(seed), generation_(generation), child_(child) {}
  double uniform() {
    if (next_ % 4 == 0)
      words_ = philox4x32({next_ / 4, 2, generation_, child_}, {uint32_t(seed_), uint32_t(seed_ >> 32)});
    return unit_uniform(words_[next_++ % 4]);
  }
  bool chance(double p) { return uniform() < p; }
  int64_t below(int64_t n) { return std::min(n - 1, int64_t(uniform() * double(n))); }

 private:
  uint64_t seed_;
  uint32_t generation_, child_, next_ = 0;
  std::array<uint32_t, 4> words_{};
};

// Polynomial mutation: a change of −1 … 1, the nearer to 0 the larger η is.
inline double polynomial_change(Draws& draws, double eta) {
  const double u = draws.uniform();
  return u < 0.5 ? std::pow(2 * u, 1 / (eta + 1)) - 1 : 1 - std::pow(2 * (1 - u), 1 / (eta + 1));
}
inline float mutated_gene(Draws& draws, float gene, double eta) {
  return float(std::clamp(double(gene) + polynomial_change(draws, eta), 0.0, 1.0));
}

// One of the two children of genes a and b: they lie on both sides of the parents' mean, β times as far apart, and
// within 0 … 1.
inline float crossed_gene(Draws& draws, float a, float b, double eta) {
  const double low = double(std::min(a, b)), high = double(std::max(a, b)), apart = high - low;
  if (apart < 1e-9) return a;
  const double u = draws.uniform();
  const bool lower = draws.chance(0.5);
  const double beta = 1 + 2 * (lower ? low : 1 - high) / apart, alpha = 2 - std::pow(beta, -(eta + 1));
  const double spread = std::pow(u <= 1 / alpha ? u * alpha : 1 / (2 - u * alpha), 1 / (eta + 1));
  return float(std::clamp(0.5 * (low + high + (lower ? -spread : spread) * apart), 0.0, 1.0));
}

}  // namespace switchback
