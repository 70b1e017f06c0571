// Inside of Plan and Backward: fused steps, packed weights, and the layout of an arena.
#pragma once

#include <limits>
#include <map>
#include <span>
#include <vector>

#include "engine/plan.h"

namespace switchback {

inline constexpr size_t kNowhere = std::numeric_limits<size_t>::max();

// One kernel call of the forward pass: value(output) = relu( bn( op(inputs) ) + residual ), each part optional.
struct Step {
  int node;                 // the op that runs; for a ReLU that stands alone, the ReLU
  int output;               // the last node of the group, whose value this is
  std::vector<int> inputs;  // nodes whose values the op reads
  int batch_norm = -1;      // folded into a convolution
  int residual = -1;        // node whose value is added before the ReLU
  int relu = -1;            // ReLU node, whose gates are stored
  float clip = kNoClip;
};

// Weights in the form that kernels take, made when a plan first needs them.
struct PackedWeights {
  std::map<std::pair<int, int>, ConvWeights> convs;  // (conv node, folded batch norm node or -1)
  std::map<int, LinearWeights> linears;
  std::map<int, std::pair<std::vector<float>, std::vector<float>>> affines;  // batch norm node -> scale, shift
};
PackedWeights& packed_weights(const Network& network);
const ConvWeights& packed_conv(const Network& network, const Step& step);
const LinearWeights& packed_linear(const Network& network, int node);
const std::pair<std::vector<float>, std::vector<float>>& packed_affine(const Network& network, int node);

// Offsets for buffers with lifetimes [first, last] (inclusive, in steps): largest first, each at the lowest place that
// is free while it lives. Returns the size of the whole.
struct Lifetime {
  size_t bytes = 0;
  int first = 0, last = 0;
};
size_t place(std::span<const Lifetime> buffers, std::vector<size_t>& offsets);

// The node that holds this node's value: dropout and flatten of 1x1 maps have none of their own.
int holder(const Network& network, const std::vector<Shape>& shapes, int node);

}  // namespace switchback
