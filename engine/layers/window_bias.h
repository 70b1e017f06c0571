// What attention in windows adds to its scores for the places of queries and keys.
//
//   Swin (Liu et al. 2021, equation 4)       a table [(2w−1)²,heads] of relative positions
//   Swin V2 (Liu et al. 2022, equation 4)    16·sigmoid(W₂·relu(W₁·d + b)) of their logarithms d, 2 numbers to 512 to
//   heads
//
// and, in windows that a cyclic shift made of places that are no neighbours, −100 between these (section 3.2 of the
// first).
#pragma once

#include <vector>

#include "engine/layers/calls.h"

namespace switchback {

// [groups,w²,w²], groups counted as the layer's are: one for each head, and for each window where windows are shifted.
std::vector<float> window_bias(const WindowAttention& layer, const StepWeights& weights);
// The gradients of table or network, added to what is there.
void learn_window_bias(const WindowAttention& layer, const LearnCall& call);

}  // namespace switchback
