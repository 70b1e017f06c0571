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
