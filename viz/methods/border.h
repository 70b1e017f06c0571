// How far an input lies from the border of its linear region, along the way to another input.
#pragma once

#include <vector>

#include "viz/methods/gradient.h"

namespace switchback {

// x, to: [N,C,H,W]. For each the share t of the way from x to `to` up to which all gates and switches are those of x; 1
// where they stay so all the way. Regions are convex (regions.h), so halving finds t as finely as float32 tells inputs
// apart. Throws (usage) where the network has layers that are not piecewise linear up to its logits.
std::vector<double> border_along(Context& ctx, const Model& model, const Tensor& x, const Tensor& to,
                                 const RunOptions& options);

}  // namespace switchback
