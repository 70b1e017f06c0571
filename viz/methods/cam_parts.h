// What methods of class activation maps share. Not part of the public surface.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "viz/methods/cam.h"
#include "viz/methods/tokens.h"

namespace switchback {

// The layers of the options, or the last one; throws (usage) on those that have no maps.
std::vector<int> chosen_layers(const Network& network, Shape input, const CamOptions& options);

// Σ_k weights[k] · maps[k] over C maps of `places` values each.
std::vector<double> weighted_sum(const std::vector<double>& weights, const float* maps, int64_t places);
// ReLU; NaN passes.
void write_positive(const std::vector<double>& sum, float* out);

// Of each layer, where it holds tokens.
using Grids = std::vector<std::optional<TokenGrid>>;
Tensor on_its_grid(const std::optional<TokenGrid>& grid, Tensor values);

// The methods that take no gradients.
Cams forward_maps(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target, const std::vector<std::string>& labels,
                  const CamOptions& options);
Cams rise_maps(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target, const std::vector<std::string>& labels,
               const CamOptions& options);

Cams fullgrad_maps(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target, const std::vector<std::string>& labels,
                   const CamOptions& options);

}  // namespace switchback
