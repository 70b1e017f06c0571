// Patches: a network's outputs for many copies of one image that differ from it in one box each, at the price of what
// changes. Exact: only a rectangle of every map depends on the box, and its change Δ is carried from layer to layer on
// patches of that size (kernels/patch/patch.h), down to where a patch covers most of its map; from there on whole maps
// are computed as ever. (That only parts of maps change under an occluding patch is used by Nakandala, Kumar and
// Papakonstantinou, SIGMOD 2019, "Incremental and approximate inference for faster occlusion-based deep CNN
// explanations". Nothing here is approximate.)
//
//   PatchNetwork shared(ctx, model, {1, 3, 224, 224}, Precision::fp32, target);
//   shared.set_image(pixels, baseline);
//   for (const std::vector<size_t>& group : group_boxes(shared, boxes, 24)) {
//     PatchPlan plan(shared, its boxes, 16);
//     Tensor values = plan.run(up to 16 of them);  // the target node's values, one item a box
//   }
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/run/plan.h"
#include "engine/run/recording.h"
#include "engine/run/step.h"
#include "kernels/patch/patch.h"

namespace switchback {

// What all patches of one network, image shape and target share: the fused steps up to the target, how far changes
// reach, and what the image's maps are without any change.
class PatchNetwork {
 public:
  // image.n is not looked at; `ctx` must outlive this.
  PatchNetwork(Context& ctx, const Model& model, Shape image, Precision precision, int target);

  // The image, and what boxes of it are replaced by: both [C,H,W] on the host. Runs the clean pass.
  void set_image(const float* image, const float* baseline);
  const Tensor& clean_target() const { return target_value_; }  // [1,…], as Plan::read

  // For each node that a step writes, and the input: the rows (columns) that a change of the input's rows can reach.
  // Where a layer mixes all positions, that is all of them.
  List<Interval> rows(Interval change) const { return spread(change, true); }
  List<Interval> columns(Interval change) const { return spread(change, false); }
  // How a step's layer reaches along one axis; `all` where its outputs can't be computed where its inputs change.
  const Reach& reach(const Step& step, bool vertical) const {
    return (vertical ? rows_ : columns_)[&step - steps().data()];
  }

  Context& context() const { return *ctx_; }
  const Model& model() const { return model_; }
  const Network& network() const { return model_.network; }
  Precision precision() const { return base_.options().precision; }
  DType type() const { return activation_type(precision()); }
  const Plan& plan() const { return base_; }
  const List<Step>& steps() const { return base_.steps(); }  // up to the target, in order
  int target() const { return target_; }
  Shape shape(int node) const { return base_.shapes()[node]; }  // n = 1
  double flops(const Step& step) const;     // of its convolution or linear layer on whole maps
  int before_relu(const Step& step) const;  // the node that is a step's value without its ReLU
  ConstView clean(int node) const;          // [1,H,W,C]; nodes that before_relu gives
  ConstView image() const { return {image_.data(), shape(0), type()}; }
  ConstView baseline() const { return {baseline_.data(), shape(0), type()}; }
  Scratch& memory() { return memory_; }  // for patches; one plan at a time runs

 private:
  List<Interval> spread(Interval change, bool vertical) const;
  List<Reach> reaches(bool vertical) const;
  std::vector<int> observed() const;
  Context* ctx_;
  Model model_;
  int target_;
  Plan base_;
  List<Reach> rows_, columns_;  // of every step
  Plan clean_plan_;             // which holds the clean maps
  Memory image_, baseline_;
  Tensor target_value_;
  Scratch memory_;
};

// Boxes sorted into groups whose patches have one size. Rows of boxes that reach equally many rows in every layer form
// a class, so do columns; the classes that cost least together are joined until there are at most `most` on each axis.
// A group: indices into `boxes`.
std::vector<std::vector<size_t>> group_boxes(const PatchNetwork& shared, std::span<const Box> boxes, int most);

// Runs boxes of one group.
class PatchPlan {
 public:
  // All patches have the sizes that the largest of `boxes` needs. capacity: boxes in one run.
  PatchPlan(PatchNetwork& shared, std::span<const Box> boxes, int64_t capacity);
  ~PatchPlan();
  PatchPlan(PatchPlan&&) noexcept;

  Tensor run(std::span<const Box> boxes);  // the target's values, [n,…] as Plan::read
  void reserve() const;                    // all memory that run needs, now; throws OutOfMemory
  size_t bytes() const;                    // that a run takes beyond weights and clean maps
  double flops() const { return flops_; }  // of convolutions and linear layers, for one box
  std::string describe() const;            // the steps with their patches' sizes, one a line

  // Where a patch would cover more of its map than this, the whole map is computed.
  static constexpr double kMostOfMap = 0.75;

 private:
  struct Op;
  // Where the patches of a buffer begin: those of `node`, or what a convolution with this stride and padding reads for
  // them.
  struct Places {
    int node = 0;
    int64_t stride_h = 1, stride_w = 1, pad_top = 0, pad_left = 0;
  };
  struct Buffer {
    Shape shape;  // n = capacity
    int places;
    int first, last;  // ops that use it
  };
  bool patched(int node) const { return sizes_[node].h > 0; }
  void choose_sizes(std::span<const Box> boxes);
  int add_buffer(int64_t channels, PatchSize size, Places places, int op);
  void add_ops();
  void add_op(const Step& step);
  void place_buffers();
  void write_origins(std::span<const Box> boxes);
  void run_ops(int64_t n);
  void run_op(const Op& op, int64_t n);
  View view(int buffer, int64_t n) const;
  const Origin* origins(int buffer) const;
  Change change(int node, int64_t n) const;

  PatchNetwork* shared_;
  int64_t capacity_;
  List<PatchSize> sizes_;          // of every node's patches; 0 where it has none
  List<const Step*> makers_;  // of every node
  std::vector<int> cuts_;            // nodes with patches that whole maps are made of
  List<int> node_buffers_;    // of every node, -1 where it has none
  List<Buffer> buffers_;
  List<Places> places_;
  List<size_t> offsets_;  // of buffers, in shared_->memory()
  std::vector<Op> ops_;
  std::unique_ptr<Plan> whole_;  // from the cuts to the target
  size_t patch_bytes_ = 0;
  double flops_ = 0;
  Memory boxes_, origins_;  // Box [capacity], Origin [places][capacity], on the device
  Recording recording_;
  const void* recorded_on_ = nullptr;
};

}  // namespace switchback
