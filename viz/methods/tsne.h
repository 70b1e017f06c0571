// t-SNE (van der Maaten and Hinton 2008): places in two or three dimensions whose neighbourhoods, measured by a Student-t
// kernel, are those of the points.
#pragma once

#include <cstdint>
#include <vector>

#include "viz/methods/gradient.h"
#include "viz/methods/neighbours.h"

namespace switchback {

struct TsneOptions {
  int64_t dims = 2;  // or 3
  double perplexity = 30;
  int64_t iterations = 750, early = 250;  // early: those of exaggerated attraction, of all
  double exaggeration = 12;
  uint64_t seed = 0;
  // How repulsion is summed: over all pairs, or on a grid by Fourier transforms (two dimensions alone). Automatic: the
  // faster one.
  enum class Repulsion { automatic, pairs, grid } repulsion = Repulsion::automatic;
  Progress progress = {};
};

struct Tsne {
  std::vector<float> places;  // [n,dims]
  double kl = 0;              // Σ p log(p/q), exact
};

// p of a pair is the mean of both conditional ones, which have the perplexity over the k neighbours; perplexity ≤ k/3.
// start [n,dims]: scaled to a standard deviation of 1e-4 along its first axis, with a little noise, so that equal points
// can part. Descent with momentum and gains, learning rate n / exaggeration (at least 200), steps of 5 at most. Threads
// change nothing. On the host.
Tsne tsne(Context& host, const Neighbours& neighbours, const float* start, const TsneOptions& options);

// What tsne() sums: forces Σ_j (y_i − y_j)/(1 + |y_i − y_j|²)² [n,dims], and the sum over pairs of 1/(1 + |y_i − y_j|²).
double tsne_repulsion(Context& host, const float* places, int64_t n, int64_t dims, TsneOptions::Repulsion how, float* forces);

}  // namespace switchback
