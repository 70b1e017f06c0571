// Losses, with the gradient that a backward pass starts from. Each item's loss is written on its own: their sum in order
// does not depend on how a batch is split. All f32, arrays are the context's device's.
//
//   cross entropy  scale·( (1 − ε)·w[y]·(−log p[y]) + ε/K·Σ_c w[c]·(−log p[c]) ),  p = softmax(x)    torch.nn.CrossEntropyLoss
//   mse            scale·Σ (x − target)²                                                              torch.nn.MSELoss
//   bce            scale·Σ max(x, 0) − x·target + log(1 + e^−|x|)                                     BCEWithLogitsLoss
//
// `scale` is one over what PyTorch's mean divides by: Σ w[y] over the whole batch; the number of values.
#pragma once

#include "kernels/device/context.h"
#include "kernels/types.h"

namespace switchback {

struct CrossEntropy {
  float smoothing = 0;                   // ε
  const float* class_weights = nullptr;  // w [K], or null: 1
};
// x [n,K,1,1], labels [n] in 0..K−1 -> dx, losses [n], best [n]: the class with the largest x (the first of equals).
void cross_entropy(Context& ctx, const CrossEntropy& loss, ConstView x, const int32_t* labels, double scale, View dx,
                   double* losses, int32_t* best);

enum class Distance { mse, bce };
// x and target of the same shape -> dx, losses [n].
void distance_loss(Context& ctx, Distance distance, ConstView x, ConstView target, double scale, View dx, double* losses);

}  // namespace switchback
