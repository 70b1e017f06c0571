// Plan: how one network runs on inputs of one shape. Made once, in passes: what is fused (step.h), what batches are cut
// into (segments.h), where every value lies (memory.h). Then forward() fills a Tape, and a Backward (backward.h) turns
// seeds at any node into gradients at others, under any ReLU rule.
//
//   Plan plan(ctx, model, {16, 3, 224, 224}, {});
//   plan.write(images, 16);
//   Tape tape;
//   plan.forward(&tape);
//   Tensor logits = plan.read(network.output());
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/run/memory.h"
#include "engine/run/segments.h"
#include "engine/run/step.h"
#include "engine/run/tape.h"
#include "engine/tensor.h"
#include "kernels/device/context.h"

namespace switchback {

enum class Precision { fp32, tf32, bf16, fp16 };  // tf32 and fp16 on GPUs only
constexpr DType activation_type(Precision p) {
  return p == Precision::bf16 ? DType::bf16 : p == Precision::fp16 ? DType::f16 : DType::f32;
}

// Throws where the context's device does not have this precision.
void check_precision(const Context& ctx, Precision precision);

struct PlanOptions {
  Precision precision = Precision::fp32;
  // Nodes whose value is wanted, or that a Backward starts from or ends at: fusion does not swallow them. A conv
  // observed before its batch norm is computed unfolded. The input and the output are always observed.
  std::vector<int> observe;
  bool tape = true;  // false: no gates and switches are stored
  // What layers do in training: batch norms by the batch's own moments, dropouts; inputs are kept for add_gradients
  // (backward.h). fp32.
  bool training = false;
  // Nodes whose values the caller writes (Plan::given) rather than the plan's steps. Where there are any, only what lies
  // between them and the observed nodes is computed, and the input and the output are not observed by themselves.
  std::vector<int> given = {};
};

class Plan {
 public:
  // `input.n` is the capacity: forward runs on up to that many items. `ctx` must outlive the plan.
  Plan(Context& ctx, const Model& model, Shape input, const PlanOptions& options);

  View input(int64_t n);               // where n items go (NHWC, activation type) before forward()
  void write(const float* x, int64_t n);  // n items from the host, NCHW f32, to input(n)
  View given(int node, int64_t n);     // where n items of a given node go before forward()
  void forward(Tape* tape = nullptr);  // on the items of the last input(n)
  // An observed node's value, on the device, until the next forward(): observed values share no memory with others.
  ConstView value(int node) const;
  Tensor read(int node) const;         // the same as NCHW f32 [n,c,h,w], or [n,c] after a flatten or linear layer
  Dims dims(int node) const;           // of read(node)
  // For the runs to come. Throws where they are weights of another network.
  void set_weights(const Weights& weights);
  Weights take_weights();  // leaves none: whoever changes them then need not copy them, and gives them back by set_weights
  void set_training(const Training& training) { training_ = training; }  // for the passes to come, by options().training
  const Training* training() const { return options_.training ? &training_ : nullptr; }
  bool whole_batches() const { return whole_batches_; }  // in training: a layer takes its moments over the batch
  void reserve(Tape* tape);            // all memory that forward needs, now rather than at the first forward

  Context& context() const { return *ctx_; }
  const Network& network() const { return network_; }
  const Weights& weights() const { return weights_; }
  const PlanOptions& options() const { return options_; }
  DType type() const { return activation_type(options_.precision); }
  bool tf32() const { return options_.precision == Precision::tf32; }
  const List<Shape>& shapes() const { return shapes_; }  // of every node at capacity
  const List<Step>& steps() const { return steps_; }
  const Layer& layer(const Step& step) const { return network_.nodes[step.node].layer; }
  StepWeights weights(const Step& step) const { return {&network_, &weights_, step.node, step.batch_norm}; }
  const List<Tape::Slot>& slots() const { return slots_; }  // of the tapes that forward fills
  int64_t capacity() const { return shapes_[0].n; }
  size_t arena_bytes() const { return arena_bytes_; }  // that it shares with other plans and passes of the context
  size_t own_bytes() const { return own_bytes_; }      // of observed values
  size_t tape_bytes() const { return tape_bytes_; }
  bool observed(int node) const { return observed_[holder(node)]; }
  int holder(int node) const { return holders_[node]; }  // the node whose value it shares (step.h)
  std::string describe() const;  // the fused steps, one a line

 private:
  // Where a node's value lies: in the arena, in the plan's own memory, on the tape (an index into slots_), or as a part
  // of another node's.
  struct Place {
    enum class Where { nowhere, arena, own, tape } where = Where::nowhere;
    size_t offset = 0;
    int slot = -1;
    Part part;
    bool local = false;  // it holds no more than the items that its segment runs on
  };
  void add_slots(const Step& step);
  void keep(int value);
  void place_values(const List<bool>& wanted);
  void run(const Step& step, Tape* tape);
  Epilogue epilogue(const Step& step, Tape* tape) const;
  char* base(int node, const Tape* tape) const;
  View view(int node, const Tape* tape) const;  // of the items that run now
  View whole(int node, const Tape* tape, int64_t n) const;
  char* on_tape(const Tape* tape, Tape::Kind kind, int node) const;
  View write_to(int node, int64_t n);

  Context* ctx_;
  Network network_;
  Weights weights_;
  PlanOptions options_;
  List<Shape> shapes_;
  List<int> holders_;
  List<bool> observed_;  // by holder
  List<Step> steps_;
  List<Segment> segments_;
  List<Place> places_;  // of every node's value
  List<Keeps> keeps_;  // of every step, where there is a tape
  List<Tape::Slot> slots_;
  size_t arena_bytes_ = 0, own_bytes_ = 0, tape_bytes_ = 0;
  Memory own_;
  Training training_;
  bool whole_batches_ = false;
  Tape spare_;  // for forward() without a tape where values lie on one
  int64_t n_ = 0;                  // items of this run
  int64_t first_ = 0, count_ = 0;  // those of them that run now
};

// Between maps on the device (NHWC, any type) and the host's NCHW f32.
void read_nchw(Context& ctx, ConstView x, float* host);
void write_nchw(Context& ctx, const float* host, View y);

// Bytes that running n items takes beyond the weights: plan, tape, and a backward pass from the output.
size_t run_bytes(Context& ctx, const Model& model, Shape item, const PlanOptions& options, int64_t n);
// The most items, up to n, that can run at a time within `limit` bytes (0: half of the memory that is free).
int64_t batch_within(Context& ctx, const Model& model, Shape item, const PlanOptions& options, size_t limit, int64_t n);
// The largest of n, n/2, n/4, … for which all memory of such a run can be had now; throws OutOfMemory where not even one
// image fits.
int64_t batch_to_be_had(Context& ctx, const Model& model, Shape item, const PlanOptions& options, int64_t n);

}  // namespace switchback
