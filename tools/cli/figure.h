// From maps to figures: panels whose colours are settled once it is known what stands beside them, and the words above
// and below them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tools/cli/job.h"
#include "viz/pictures/color_scale.h"
#include "viz/pictures/grid.h"

namespace switchback {

// One map and what it belongs to, for drawing. What `values` points to outlives the panels made of it.
struct MapView {
  const float* values;
  Dims dims;    // of the map: [C,H,W] or [rows,cols]
  Image photo;  // what the network saw
};

// A map, and how it is drawn in given colours.
struct MapPanel {
  std::string label = {};  // beside others of the same map: "conv1"
  ColorScale colors = {};  // over its own range
  std::function<Image(const ColorScale&)> draw = {};
  Image image() const { return draw(colors); }
};

// Maps [C,H,W]. The sum over channels of |v|, from its least value to its 99th percentile.
MapPanel saliency_panel(const Options& o, const MapView& view);
// Signed: three channels as red, green and blue around grey, one as grey, others (and with --colormap all) by the mean
// over channels; ± the 99.5th percentile of |v|.
MapPanel signed_panel(const Options& o, const MapView& view, ChannelOrder order);

// One range for all: from the least to the largest of their ends.
void share_scale(std::vector<MapPanel>& panels);

Json colors_json(const MapPanel& panel);

// "Grad-CAM, lenet, layer conv2": `what`, the model, `where`, and what is explained where it is no class of the input's
// own.
std::string figure_title(const Job& job, const std::string& what, const std::string& where = "");
std::string weights_text(const Job& job);  // "weights: lenet.safetensors"

// A picture at its own size below a title.
Canvas titled(const Canvas& picture, GridOptions words);

// Small pictures by whole factors; of a figure with few panels.
int large_side(int longest);

}  // namespace switchback
