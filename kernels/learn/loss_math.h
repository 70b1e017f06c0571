// The arithmetic of the losses, for the CPU and for GPUs: in double, one item after the other.
#pragma once

#include <cmath>

#include "kernels/learn/loss.h"

namespace switchback {

// One item of K values.
SB_HOST_DEVICE inline void cross_entropy_item(const CrossEntropy& l, int64_t k, const float* x, int32_t label, double scale,
                                              float* dx, double* loss, int32_t* best) {
  int32_t most = 0;
  for (int64_t c = 1; c < k; ++c)
    if (x[c] > x[most]) most = int32_t(c);
  double sum = 0, weights = 0, all = 0;  // Σ e^(x − max); Σ w; Σ w·(x − max)
  for (int64_t c = 0; c < k; ++c) {
    const double away = double(x[c]) - double(x[most]), w = l.class_weights ? double(l.class_weights[c]) : 1;
    sum += exp(away);
    weights += w;
    all += w * away;
  }
  const double log_sum = log(sum), spread = double(l.smoothing) / double(k);
  const double own = (1 - double(l.smoothing)) * (l.class_weights ? double(l.class_weights[label]) : 1);
  *loss = scale * (own * (log_sum - (double(x[label]) - double(x[most]))) + spread * (weights * log_sum - all));
  *best = most;
  for (int64_t c = 0; c < k; ++c) {
    const double p = exp(double(x[c]) - double(x[most])) / sum, w = l.class_weights ? double(l.class_weights[c]) : 1;
    dx[c] = float(scale * (own * (p - (c == label ? 1 : 0)) + spread * (p * weights - w)));
  }
}

// One value: adds its loss and writes its gradient.
SB_HOST_DEVICE inline double distance_value(Distance d, double x, double target, double scale, float* dx) {
  if (d == Distance::mse) {
    *dx = float(scale * 2 * (x - target));
    return scale * (x - target) * (x - target);
  }
  const double small = exp(-fabs(x)), sigmoid = (x >= 0 ? 1 : small) / (1 + small);
  *dx = float(scale * (sigmoid - target));
  return scale * ((x > 0 ? x : 0) - x * target + log1p(small));
}

}  // namespace switchback
