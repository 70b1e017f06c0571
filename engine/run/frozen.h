// Forward passes of a frozen network: the gates and switches of a tape are obeyed, not decided, so that what is computed
// is the affine map that the network is around the tape's input (Molchanov et al., "Etalon images", algorithm 1).
#pragma once

#include "engine/run/plan.h"

namespace switchback {

// Throws (usage) where a layer before `node`, or the node itself, is not piecewise affine, naming it and the last
// layer before it.
void check_piecewise_affine(const Network& network, int node);

class FrozenForward {
 public:
  // input.n: the most items in one run; `target`: the node whose value is wanted. Layers are run one by one, as the
  // network has them: nothing is fused or folded.
  FrozenForward(Context& ctx, const Model& model, Shape input, int target, Precision precision);

  View input(int64_t n);  // where n items go (NHWC, activation type) before run()
  // The target's value [n,c,h,w] (NHWC) under the tape of one item, which any forward pass of the network filled.
  // Without biases: the linear part alone. Valid until the next run.
  ConstView run(const Tape& tape, bool biases);
  size_t bytes() const { return bytes_; }
  int64_t capacity() const { return plan_.capacity(); }

 private:
  View view(int value) const;
  Context& ctx_;
  Plan plan_;  // of single layers; only its steps and shapes are used
  int target_;
  int64_t n_ = 0;
  List<size_t> offsets_;
  size_t bytes_ = 0;
  Memory memory_;
};

}  // namespace switchback
