// The formulas of optimizer.h for one value, the same on every device: compiled without contraction.
#pragma once

#include <cmath>

#include "kernels/learn/optimizer.h"

namespace switchback {

// What is the same for all values of a step. PyTorch's scalars are doubles, rounded once where they meet a tensor.
struct OptimizerScalars {
  float decay, shrink, momentum, beta1_left, beta2, beta2_left, eps, root, rate;  // rate: what the update is multiplied by
  float ahead = 0;  // NAdam: what the gradient itself is multiplied by
  OptimizerScalars(const Optimizer& o, double lr, int64_t step) {
    const double beta2_or_rho = o.kind == Optimizer::Kind::adadelta ? o.rho : o.beta2;
    decay = o.decoupled ? 0.f : float(o.weight_decay);
    shrink = o.decoupled ? float(1 - lr * o.weight_decay) : 1.f;
    momentum = float(o.momentum);
    beta1_left = float(1 - o.beta1);
    beta2 = float(beta2_or_rho);
    beta2_left = float(1 - beta2_or_rho);
    eps = float(o.eps);
    const bool nadam = o.kind == Optimizer::Kind::nadam, adam = o.kind == Optimizer::Kind::adam || nadam;
    root = adam ? float(std::sqrt(1 - std::pow(o.beta2, double(step)))) : 1.f;
    rate = float(adam ? lr / (1 - std::pow(o.beta1, double(step))) : lr);
    if (!nadam) return;
    const auto mu = [&](int64_t t) { return o.beta1 * (1 - 0.5 * std::pow(0.96, 0.004 * double(t))); };
    double product = 1;
    for (int64_t t = 1; t <= step && product > 1e-30; ++t) product *= mu(t);
    ahead = float(lr * (1 - mu(step)) / (1 - product));
    rate = float(lr * mu(step + 1) / (1 - product * mu(step + 1)));
  }
};

SB_HOST_DEVICE inline void sgd_value(const OptimizerScalars& s, bool nesterov, float& w, float g, float* v) {
  g = g + s.decay * w;
  if (v) {
    *v = s.momentum * *v + g;
    g = nesterov ? g + s.momentum * *v : *v;
  }
  w = w - s.rate * g;
}
SB_HOST_DEVICE inline void adam_value(const OptimizerScalars& s, float& w, float g, float& m, float& squares) {
  w = w * s.shrink;
  g = g + s.decay * w;
  m = m + s.beta1_left * (g - m);
  squares = s.beta2 * squares + s.beta2_left * g * g;
  w = w - s.rate * (m / (sqrtf(squares) / s.root + s.eps));
}
SB_HOST_DEVICE inline void nadam_value(const OptimizerScalars& s, float& w, float g, float& m, float& squares) {
  w = w * s.shrink;
  g = g + s.decay * w;
  m = m + s.beta1_left * (g - m);
  squares = s.beta2 * squares + s.beta2_left * g * g;
  w = w - (s.ahead * g + s.rate * m) / (sqrtf(squares) / s.root + s.eps);
}
SB_HOST_DEVICE inline void adadelta_value(const OptimizerScalars& s, float& w, float g, float& squares, float& deltas) {
  g = g + s.decay * w;
  squares = s.beta2 * squares + s.beta2_left * g * g;
  const float delta = sqrtf(deltas + s.eps) / sqrtf(squares + s.eps) * g;
  deltas = s.beta2 * deltas + s.beta2_left * delta * delta;
  w = w - s.rate * delta;
}

}  // namespace switchback
