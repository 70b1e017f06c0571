// Plan: how one network runs on inputs of one shape. Made once: fusion (conv + batch norm + residual add + ReLU with
// gate bits become one step), liveness of every value, offsets into one arena. Then forward() fills a Tape and a
// Backward turns seeds at any node into gradients at the input or any other node, under any ReLU rule.
//
//   Plan plan(ctx, network, {16, 3, 224, 224}, {});
//   plan.write(images, 16);
//   Tape tape;
//   plan.forward(&tape);
//   Tensor logits = plan.read(network.output());
//   Backward backward(plan, network.output(), 0, 16);
//   one_hot(ctx, backward.seed(16), classes);
//   ConstView gradient = backward.run(tape, kGuided);
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/network.h"
#include "engine/tensor.h"
#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/frozen/frozen.h"
#include "kernels/pointwise/pointwise.h"

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
  // Nodes whose values the caller writes (Plan::given) rather than the plan's steps. Where there are any, only what lies
  // between them and the observed nodes is computed, and the input and the output are not observed by themselves.
  std::vector<int> given = {};
};

// What backward needs of a forward pass: gate bits of every ReLU (types.h), switches of every max pool, and the values
// that smooth layers keep. A value: forward fills it, backward takes it const; its memory (on the device that forward
// ran on) is reused by the next forward.
struct Tape {
  enum class Kind { gate, switches, value };
  struct Slot {
    Kind kind;
    int node;       // the ReLU, max pool, LRN or softmax node
    Shape shape;    // of that node's output, n = the plan's capacity
    size_t offset, bytes;
    int element_bytes;  // of a switch (1 or 2) or a value (4 or 2)
    float clip;     // of a ReLU
  };
  std::vector<Slot> slots;
  int64_t n = 0;  // items of the forward pass that filled it
  Memory memory;

  const Slot& slot(int node) const;
  void* data(int node) { return memory.as<char>() + slot(node).offset; }
  const void* data(int node) const { return memory.as<char>() + slot(node).offset; }
};

// Tapes as safetensors files (NODE.gate U8 [N,C,H,W], NODE.switch U8 or I16), so that maps can be computed with
// another program's gates and switches. load_tape replaces the contents of a tape that a forward pass has filled.
void save_tape(Context& ctx, const Network& network, const Tape& tape, const std::string& path);
void load_tape(Context& ctx, const Network& network, Tape& tape, const std::string& path);

struct Step;   // one fused group of nodes, plan.cpp
struct Segment;  // some steps that run on a few items at a time, engine/run/segments.h
struct Lifetime;
struct Field;  // a receptive field, engine/run/fields.h

class Plan {
 public:
  // `input.n` is the capacity: forward runs on up to that many items. `network` and `ctx` must outlive the plan.
  Plan(Context& ctx, const Network& network, Shape input, const PlanOptions& options);
  ~Plan();
  Plan(Plan&&) noexcept;

  View input(int64_t n);               // where n items go (NHWC, activation type) before forward()
  void write(const float* x, int64_t n);  // n items from the host, NCHW f32, to input(n)
  View given(int node, int64_t n);     // where n items of a given node go before forward()
  void forward(Tape* tape = nullptr);  // on the items of the last input(n)
  ConstView value(int node) const;     // an observed node's value, on the device; valid until the arena's next use
  Tensor read(int node) const;         // the same as NCHW f32 [n,c,h,w], or [n,c] after a flatten or linear layer
  Dims dims(int node) const;           // of read(node)
  void reserve(Tape* tape) const;      // all memory that forward needs, now rather than at the first forward

  Context& context() const { return *ctx_; }
  const Network& network() const { return *network_; }
  const PlanOptions& options() const { return options_; }
  const std::vector<Shape>& shapes() const { return shapes_; }  // of every node at capacity
  const std::vector<Step>& steps() const;
  const std::vector<Tape::Slot>& slots() const { return slots_; }  // of the tapes that forward fills
  int64_t capacity() const { return shapes_[0].n; }
  size_t arena_bytes() const { return arena_bytes_; }
  size_t tape_bytes() const { return tape_bytes_; }
  bool observed(int node) const;
  int holder(int node) const { return holders_[size_t(node)]; }  // the node whose value it shares (engine/run/step.h)
  std::string describe() const;  // the fused steps, one a line

 private:
  friend class Backward;
  void run(const Step& step, Tape* tape) const;
  Epilogue epilogue(const Step& step, Tape* tape) const;
  void drop_steps();
  void find_parts(const std::vector<bool>& seen);
  void divide(const std::vector<bool>& seen, std::vector<Lifetime>& lives);
  View view(int node) const;
  char* on_tape(Tape* tape, int node) const;
  Context* ctx_;
  const Network* network_;
  PlanOptions options_;
  std::vector<Shape> shapes_;
  std::vector<int> holders_;
  std::vector<Step> steps_;
  std::vector<Segment> segments_;
  std::vector<bool> local_;  // of every node: its memory holds no more than the items that its segment runs on
  int64_t first_ = 0, count_ = 0;  // those items, of n_; all of them outside of forward()
  // Where a node's value is part of a concatenation's and written there: from channel `channel` on of node `whole`.
  struct Part {
    int whole = -1;
    int64_t channel = 0;
  };
  std::vector<Part> parts_;      // of every node
  std::vector<size_t> offsets_;  // of every node's value in the arena; npos where fused away
  std::vector<Tape::Slot> slots_;
  size_t arena_bytes_ = 0, tape_bytes_ = 0;
  int64_t n_ = 0;
};

struct BackwardOptions {
  // run() can also sum up what biases add to the functional. Clipped ReLUs are then no longer fused: what a saturated
  // unit adds depends on the gradient before its gate.
  bool offsets = false;
  // Confines the pass to a unit's receptive field (engine/run/fields.h; copied): seeds and results then have the sizes of
  // its boxes, and run() takes cut tapes.
  const Field* field = nullptr;
};

// Gradients of (linear functionals of) node `from` with respect to node `to`, both observed by the plan.
class Backward {
 public:
  // capacity: seeds in one run
  Backward(const Plan& plan, int from, int to, int64_t capacity, const BackwardOptions& options = {});
  ~Backward();
  Backward(Backward&&) noexcept;

  // Where n seeds go: [n, c, h, w] of `from`, NHWC, activation type; not cleared. Reuses the arena of the forward pass:
  // read values before writing here.
  View seed(int64_t n);
  // Seed p belongs to item p / seeds_per_item of the tape. The result lives in the arena until its next use.
  // With `offsets` (on the device, [n], not cleared), <result p, value of `to`> + offsets[p].sum is the value of seed p's
  // functional of `from`, where the rule is the gradient, `to` the input, and all layers are piecewise affine.
  ConstView run(const Tape& tape, ReluRule rule, int64_t seeds_per_item = 1, OffsetSum* offsets = nullptr);
  void reserve() const;  // all memory that run needs, now
  size_t arena_bytes() const { return arena_bytes_; }

 private:
  struct Op;
  struct Builder;
  void place_buffers(const std::vector<int>& values);  // values: of each buffer
  Shape shape(int value) const;                        // n = 1
  const Layer& layer(const Step& step) const;
  std::shared_ptr<const ConvWeights> cut_weights(const Step& step) const;
  void run_op(const Op& op, const Tape& tape, ConstView dy, View dx, const BackwardEpilogue& epilogue) const;
  void add_offset(const Op& op, const Tape& tape, ConstView dy, int64_t seeds_per_item, OffsetSum* offsets) const;
  const Plan* plan_;
  int from_, to_;
  int64_t capacity_ = 0, n_ = 0;
  bool with_offsets_ = false;
  std::unique_ptr<Field> field_;  // null: whole maps
  std::vector<Op> ops_;
  std::vector<size_t> offsets_;  // of gradient buffers
  int seed_buffer_ = -1, result_buffer_ = -1;
  size_t arena_bytes_ = 0;
};

// Between maps on the device (NHWC, any type) and the host's NCHW f32.
void read_nchw(Context& ctx, ConstView x, float* host);
void write_nchw(Context& ctx, const float* host, View y);

// Bytes that running n items takes beyond the weights (arena and tape), and the largest n within `limit` bytes (0: half
// of the memory that is free), at most `most`.
size_t run_bytes(Context& ctx, const Network& network, Shape item, const PlanOptions& options, int64_t n,
                 int64_t seeds_per_item);
int64_t choose_batch(Context& ctx, const Network& network, Shape item, const PlanOptions& options, size_t limit,
                     int64_t seeds_per_item, int64_t most);
// The largest of n, n/2, n/4, … for which all memory of such a run can be had now; throws OutOfMemory where not even one
// image fits.
int64_t batch_that_fits(Context& ctx, const Network& network, Shape item, const PlanOptions& options, int64_t n);
size_t free_memory();                // of the host: bytes to be had without swapping, within the control group's limit
size_t free_memory(Context& ctx);    // of the context's device, what its arenas already hold included

}  // namespace switchback
