// Backward: gradients of (linear functionals of) one node with respect to a set of others, under any ReLU rule.
//
//   Backward backward(plan, network.output(), {.nodes = {0}}, 16);
//   one_hot(ctx, backward.seed(16), classes);
//   ConstView gradient = backward.run(tape, {.rule = kGuided});
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/run/plan.h"
#include "engine/run/tape.h"

namespace switchback {

struct Field;  // a receptive field, engine/run/fields.h

// What a pass is to find.
struct Wanted {
  std::vector<int> nodes = {};  // gradients at their values; observed by the plan
  bool parameters = false;      // and the gradient at every step that has parameters (BackwardRun::at_step)
};

struct BackwardOptions {
  // run() can also sum up what biases add to the functional. Clipped ReLUs are then no longer fused: what a saturated
  // unit adds depends on the gradient before its gate.
  bool offsets = false;
  // Confines the pass to a unit's receptive field (copied): seeds and results then have the sizes of its boxes, and run()
  // takes cut tapes.
  const Field* field = nullptr;
};

struct BackwardRun {
  ReluRule rule = kGradient;
  std::span<const ReluRule> rules = {};  // a node's own, instead
  int64_t seeds_per_item = 1;  // seed p belongs to item p / seeds_per_item of the tape
  // With the weights that the plan had when this was made. On the device, [n], not cleared: <gradient p at the input, input> + offsets[p].sum is the value of seed p's functional,
  // where the rule is the gradient and all layers are piecewise affine.
  OffsetSum* offsets = nullptr;
  // Called where Wanted::parameters is set, once for each step that has parameters: dy is the gradient at the step's
  // pre-activation, which is what gradients of its parameters are made of. Valid during the call.
  std::function<void(const Step& step, ConstView dy)> at_step = {};
  // Where at_step has put them by add_gradients, or null: batch norms then need not make their sums again.
  const float* gradients = nullptr;
};

class Backward {
 public:
  // capacity: seeds in one run. Throws where `from` does not depend on a wanted node. `plan` must outlive this.
  Backward(const Plan& plan, int from, Wanted wanted, int64_t capacity, const BackwardOptions& options = {});
  ~Backward();
  Backward(Backward&&) noexcept;

  // Where n seeds go: [n, c, h, w] of `from`, NHWC, activation type; not cleared.
  View seed(int64_t n);
  // The gradient at the first wanted node. All of them lie in the context's arena, until its next use.
  ConstView run(const Tape& tape, const BackwardRun& options = {});
  ConstView gradient(int node) const;  // at any wanted node, after run()
  void reserve() const;                // all memory that run needs, now
  size_t arena_bytes() const { return arena_bytes_; }

 private:
  struct Op;
  struct Builder;
  void place_buffers(const List<int>& values);  // values: of each buffer
  Shape shape(int value) const;                 // n = 1
  View view(int buffer, int value) const;
  const Layer& layer(const Step& step) const;
  void run_op(const Op& op, const Tape& tape, ConstView dy, View dx, const BackwardEpilogue& end, const float* gradients) const;
  void add_offset(const Op& op, const Tape& tape, ConstView dy, int64_t seeds_per_item, OffsetSum* offsets) const;
  const Plan* plan_;
  int from_;
  Wanted wanted_;
  int64_t capacity_ = 0, n_ = 0;
  bool with_offsets_ = false;
  Weights weights_;  // with offsets: that they were made for
  std::unique_ptr<Field> field_;  // null: whole maps
  std::vector<Op> ops_;
  List<size_t> offsets_;  // of gradient buffers
  List<int> results_;     // of every node's value the buffer with its gradient, where it is wanted
  int seed_buffer_ = -1;
  size_t arena_bytes_ = 0;
};

// For BackwardRun::at_step of a plan for training: adds the gradients of a step's parameters to `gradients` (on the device,
// laid out as the weights; in the place of running statistics stand those of the batch).
void add_gradients(const Plan& plan, const Tape& tape, const Step& step, ConstView dy, float* gradients);

// Whether `node` depends on `on`.
bool depends(const Network& network, int node, int on);

}  // namespace switchback
