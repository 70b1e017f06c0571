// k-means: k-means++ (Arthur and Vassilvitskii 2007), several draws a centre, then Lloyd's steps until no point moves.
#pragma once

#include <cstdint>
#include <vector>

#include "viz/methods/neighbours.h"

namespace switchback {

struct Clusters {
  std::vector<float> centres;   // [k,d]
  std::vector<int32_t> labels;  // [n]
  double inertia = 0;           // Σ of the points' squared distances to their centres
  int64_t iterations = 0;       // of the best start
};

// The best of `restarts`. k ≤ n. Threads change nothing. On the host.
Clusters k_means(Context& host, PointSet points, int64_t k, int64_t restarts, uint64_t seed);

}  // namespace switchback
