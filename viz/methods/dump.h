// Every node of a network on one image: its value, and the gradient of a score with respect to it. For comparing with
// another program layer by layer.
#pragma once

#include <functional>
#include <vector>

#include "engine/model.h"
#include "engine/run/backward.h"
#include "viz/methods/target.h"

namespace switchback {

class NodeDump {
 public:
  using Sink = std::function<void(int node, const Tensor& value)>;

  // image: n = 1. No node is fused or folded away: each has the value that its own layer gives.
  NodeDump(Context& ctx, const Model& model, Shape image, Precision precision, bool with_gradients);

  void forward(const float* image);                          // NCHW
  Tensor value(int node) const { return plan_.read(node); }
  // Of the unit's score, for each of `nodes` that it depends on, the last first. values: of the unit's node.
  void gradients(const Unit& unit, Scoring scoring, const Tensor& values, const std::vector<int>& nodes, const Sink& sink);
  // A dropout whose input others read too: both are one piece of memory, whose gradient is the sum over all readers.
  // Such a node has no gradient of its own here, and gradients() leaves it out.
  bool shares_gradient(int node) const;

 private:
  Plan plan_;
  Tape tape_;
};

}  // namespace switchback
