// Optimisers: one step of gradient descent on any f32 array, weights and pixels alike. Exactly PyTorch's formulas (torch
// 2.x, `foreach=False`), each operation rounded on its own.
//
//   SGD       g += λ·w;  v = μ·v + g;  w −= lr·(nesterov ? g + μ·v : v)                      (without momentum: w −= lr·g)
//   Adam      g += λ·w (decoupled, AdamW: w −= lr·λ·w);  m += (1 − β1)·(g − m);  s = β2·s + (1 − β2)·g²
//             w −= lr/(1 − β1^t) · m / (√s/√(1 − β2^t) + ε)
//   NAdam     m and s as Adam's;  μ_t = β1·(1 − 0.96^(0.004·t)/2),  Π_t = μ_1·…·μ_t
//             w −= lr·((1 − μ_t)/(1 − Π_t)·g + μ_{t+1}/(1 − Π_{t+1})·m) / (√s/√(1 − β2^t) + ε)       (Dozat 2016)
//   Adadelta  g += λ·w;  s = ρ·s + (1 − ρ)·g²;  Δ = g·√(d + ε)/√(s + ε);  d = ρ·d + (1 − ρ)·Δ²;  w −= lr·Δ
#pragma once

#include <cstdint>

#include "kernels/device/context.h"

namespace switchback {

struct Optimizer {
  enum class Kind { sgd, adam, adadelta, nadam } kind = Kind::sgd;
  double weight_decay = 0;                                 // λ
  bool decoupled = false;                                  // Adam: AdamW
  double momentum = 0;                                     // SGD: μ
  bool nesterov = false;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;           // Adam, NAdam; Adadelta's eps is 1e-6 by default
  double rho = 0.9;                                        // Adadelta
  int states() const { return kind == Kind::sgd ? (momentum != 0 ? 1 : 0) : 2; }  // arrays that it keeps, zeros at first
  bool operator==(const Optimizer&) const = default;
};

// On the context's device, [count] each; states that the optimiser does not keep are null.
struct OptimizedArray {
  float* w = nullptr;
  const float* gradient = nullptr;
  float *state0 = nullptr, *state1 = nullptr;  // v; m, s; s, d
  int64_t count = 0;
};
// step: 1 for the first one. Ascends where lr < 0.
void optimizer_step(Context& ctx, const Optimizer& optimizer, double lr, int64_t step, const OptimizedArray& array);

// *sum += Σ v², in blocks of fixed size and in their order.
void add_squares(Context& ctx, const float* v, int64_t count, double* sum);
void scale_array(Context& ctx, float* v, int64_t count, float by);

}  // namespace switchback
