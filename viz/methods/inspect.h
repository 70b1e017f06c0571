// Looking at what the network itself holds: outputs of a batch, a layer's activations, a layer's weights.
#pragma once

#include <string>
#include <vector>

#include "engine/run/plan.h"
#include "viz/methods/gradient.h"

namespace switchback {

// Logits [N,K] of x [N,C,H,W] (the output before a final softmax), in batches; [N,K,H,W] where outputs are maps.
Tensor logits(Context& ctx, const Model& model, const Tensor& x, const RunOptions& options = {});

// Value of one node: [N,C,H,W] (or [N,C]). A conv's value is the one before its batch norm and ReLU.
Tensor activations(Context& ctx, const Model& model, const Tensor& x, int node, const RunOptions& options = {});
// Channels by the mean of their activation in one image, strongest first. maps: [N,C,H,W] or [N,C].
std::vector<int64_t> strongest_channels(const Tensor& activations, int64_t image);

// A map's energy at the frequencies of a stride s, Σ |F(u,v)|² over u, v that are multiples of h/s and w/s, but not
// both 0: what repeats every s pixels, the checkerboard of a transposed convolution whose kernel its stride does not
// divide (Odena et al. 2016). By Parseval that is the variance of the means of the s·s phases, which also serves where
// s does not divide h and w: rows and columns beyond the last whole period are left out.
struct StrideEnergy {
  double periodic = 0, total = 0;  // mean squares around the mean of the map
  double chance = 0;               // periodic / total of white noise: (s² − 1) / (places − 1)
};
StrideEnergy stride_energy(const float* map, int h, int w, int stride);

// Weights of a conv layer, [O,I,kh,kw], as loaded; throws (usage) naming the conv layers for another node.
Tensor filters(const Model& model, int node);
int first_conv(const Network& network);  // throws where there is none

// Runs x in batches through a network that stays planned between calls of the same image shape: for data sets that do
// not fit into memory at once.
class Forward {
 public:
  Forward(Context& ctx, const Model& model, Shape image, int node, const RunOptions& options, int64_t most);
  Tensor run(const float* images, int64_t n);  // n <= batch(); the node's value
  int64_t batch() const { return batch_; }

 private:
  Context& ctx_;
  int node_;
  int64_t batch_;
  Plan plan_;
};

}  // namespace switchback
