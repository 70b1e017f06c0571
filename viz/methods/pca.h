// Principal components of rows that need not be in memory at once: a randomised SVD (Halko, Martinsson and Tropp 2011) whose
// products with the covariance are sums over one pass of the rows each, repeated until its subspace stands still.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/device/context.h"

namespace switchback {

// One pass: calls `take` with all rows in their order, a few at a time.
using RowPass = std::function<void(const std::function<void(const float* rows, int64_t n)>& take)>;

struct Components {
  int64_t n = 0, d = 0, k = 0;     // k: those asked for, or as many as have a millionth of the first variance
  std::vector<double> mean;        // [d]
  std::vector<float> components;   // [k,d], of norm 1; each one's largest number is positive
  std::vector<float> scores;       // [n,k]: of the rows less their mean
  std::vector<double> variances;   // [k], with n − 1
  double total = 0;                // variance of all d
  int64_t passes = 0;
  double change = 0;               // sine of the angle by which the last pass turned the subspace
};

// Random directions are drawn by `seed`; neither threads nor how rows come in pieces change the result. most_passes: after
// so many it stops anyway. On the host, which holds d·(2k + 10) numbers and n·(2k + 10).
Components principal_components(Context& host, int64_t n, int64_t d, int64_t k, uint64_t seed, const RowPass& pass,
                                int64_t most_passes = 60);

// The same of rows in memory.
RowPass rows_in_memory(const float* rows, int64_t n, int64_t d);

}  // namespace switchback
