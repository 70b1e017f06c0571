// Points of a data set, one row each, and which of them lie near each other: distances by blocked matrix products.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device/context.h"
#include "viz/methods/gradient.h"

namespace switchback {

// Rows [n,d], f32, in host memory. Their mean should be near 0: f32 products of far-off points tell little of distances.
struct PointSet {
  const float* values = nullptr;
  int64_t n = 0, d = 0;
  const float* row(int64_t i) const { return values + i * d; }
};

// |a − b|², in eight lanes and an order that d alone fixes.
float squared_distance(const float* a, const float* b, int64_t d);

// Of every point the k others that are nearest, nearest first; of equally near ones the first in the set.
struct Neighbours {
  int64_t n = 0, k = 0;
  std::vector<int32_t> index;  // [n,k]
  std::vector<float> squared;  // [n,k], distances
};

// Exact, whatever n: candidates come of products (on the context's device), with some to spare; their distances are then
// worked out from differences. k < n.
Neighbours nearest_neighbours(Context& ctx, PointSet points, int64_t k, const Progress& progress = {});

// Trustworthiness (Venna and Kaski 2001): 1 − 2/(n k (2n − 3k − 1)) · Σ_i Σ_j (rank_i(j) − k) over those j of the k nearest
// of i in the embedding whose rank among the points is above k. Of more than `most` points, over so many of them, evenly
// taken. 2k < n.
double trustworthiness(Context& ctx, PointSet points, PointSet embedding, int64_t k, int64_t most = 2000);

// x·b of x [n,d] and b [d,m], on the host.
void product_of_rows(Context& host, PointSet x, const float* b, int64_t m, float* y);

}  // namespace switchback
