// Occlusion sensitivity (Zeiler and Fergus 2014, section 4.2; as Captum's Occlusion): by how much the target's score
// falls when a rectangle of the image is replaced, for every place of the rectangle.
#pragma once

#include <vector>

#include "kernels/patch/patch.h"
#include "viz/methods/fill.h"
#include "viz/methods/gradient.h"

namespace switchback {

struct OcclusionOptions : RunOptions {
  int64_t mask_h = 32, mask_w = 32;  // pixels of the network's input
  int64_t stride_h = 8, stride_w = 8;
  bool cover = false;      // a last row and column of places, flush with the border
  std::vector<Box> boxes;  // these instead of a grid
  Fill fill;               // what stands under the mask, in input units
  enum class Algorithm {
    incremental,  // only what changes is computed (engine/run/patches.h)
    full,         // a whole forward pass for every place
  } algorithm = Algorithm::incremental;
};

// The places of a mask: row r, column c of a map belong to boxes[r·cols + c]. Own boxes: one row.
struct Places {
  std::vector<Box> boxes;
  int64_t rows = 0, cols = 0;
  template <typename A>
  void fields(A& a) {
    a(boxes, rows, cols);
  }
};
// Throws (usage) where the mask does not fit the image.
Places occlusion_places(const OcclusionOptions& options, Shape image);

struct OcclusionMaps {
  Tensor values;  // [N,T,rows,cols]: score(x) − score(x occluded)
  std::vector<Explained> explained;
  Places places;
  int64_t batch = 0;      // places in one run
  int64_t groups = 0;     // of patch sizes; 0 for the full algorithm
  double flop_ratio = 1;  // of full passes' arithmetic to what was computed, convolutions and linear layers
};

// x: [N,C,H,W]. The target is fixed on the clean image. Both algorithms give the same maps but for rounding, and each
// the same bits for any batch. progress counts places, over all images.
OcclusionMaps occlusion(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                        const std::vector<std::string>& labels, const OcclusionOptions& options = {});

// To first order, from one backward pass: Σ over the mask of gradient · (x − fill). Exact for an affine network.
OcclusionMaps occlusion_preview(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                                const std::vector<std::string>& labels, const OcclusionOptions& options = {});

// Spearman's rank correlation; equal values share their mean rank. NaN where one side is constant.
double rank_correlation(std::span<const float> a, std::span<const float> b);

// map [rows·cols] -> [h,w]: each pixel's mean over the masks that cover it, NaN where none does.
std::vector<float> pixel_average(const Places& places, const float* map, int64_t h, int64_t w);

}  // namespace switchback
