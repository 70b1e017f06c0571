// The two algorithms of viz/methods/occlusion.h for one image after the other: set_image, then run. Not part of the public
// surface; benchmarks time groups of places by themselves.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/run/patches.h"
#include "viz/methods/occlusion.h"

namespace switchback {

// Called for runs of up to a batch of places: which of Places::boxes they are, and the target node's values for them,
// one item a place.
using OccludedValues = std::function<void(std::span<const size_t> at, const Tensor& values)>;

// Only what changes, on patches (engine/run/patches.h).
class IncrementalOcclusion {
 public:
  // All that is given must outlive this.
  IncrementalOcclusion(Context& ctx, const Model& model, Shape image, int node, const OcclusionOptions& options,
                       const Places& places);

  // x, filled: [C,H,W]; the target node's value on x.
  const Tensor& set_image(const float* x, const Tensor& filled);
  void run(const OccludedValues& body);  // all groups

  // Groups of places whose patches have one size. A group's plan is made when it runs and dropped after it.
  int64_t groups() const { return int64_t(groups_.size()); }
  const std::vector<size_t>& group(int64_t i) const { return groups_[size_t(i)]; }  // indices into Places::boxes
  double run_group(int64_t i, const OccludedValues& body);                          // FLOPs of one of its places
  double place_flops(int64_t i);                                                    // the same, counted and not run
  double full_flops() const;                                                        // of a place without patches

  int64_t batch = 0;      // places in one run, the largest so far
  double flop_ratio = 1;  // after run(): of full passes' arithmetic to what was computed

 private:
  std::vector<Box> boxes_of(int64_t group) const;
  std::unique_ptr<PatchPlan> make_plan(const std::vector<Box>& boxes, int64_t& n);
  const OcclusionOptions& options_;
  const Places& places_;
  PatchNetwork shared_;
  std::vector<std::vector<size_t>> groups_;
};

// A whole forward pass for every place.
class FullOcclusion {
 public:
  FullOcclusion(Context& ctx, const Model& model, Shape image, int node, const OcclusionOptions& options,
                const Places& places);

  Tensor set_image(const float* x, const Tensor& filled);
  void run(const OccludedValues& body);
  int64_t groups() const { return 0; }

 private:
  DType type() const { return activation_type(plan_options_.precision); }
  size_t bytes() const { return size_t(image_.item()) * size_of(type()); }
  Context& ctx_;
  int node_;
  Shape image_;  // n = 1
  const Places& places_;
  PiecesOfRun pieces_;
  PlanOptions plan_options_;

 public:
  int64_t batch;
  double flop_ratio = 1;

 private:
  Plan plan_;
  Memory pixels_, filled_, boxes_;
};

}  // namespace switchback
