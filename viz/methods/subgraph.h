// The active subgraph of a small network (Molchanov et al., section 3.2 and figure 2): which units an input switches on,
// and how much each connection between them adds to one unit's value.
#pragma once

#include <string>
#include <vector>

#include "engine/network.h"
#include "kernels/device/context.h"
#include "viz/methods/target.h"
#include "viz/pictures/canvas.h"

namespace switchback {

// A column of the picture: the value of one node of the network. Its vertices are the channels of a map or the units of
// a vector.
struct SubgraphLayer {
  std::string name;
  struct Vertex {
    double active = 0;              // share of its positions whose ReLU is on; 1 where none follows
    double contribution = 0;        // Σ over positions of value · d unit / d value
    std::vector<float> map;         // its values, for maps
  };
  int64_t height = 1, width = 1;  // of a vertex' map
  std::vector<Vertex> vertices;
};

// What vertex `from` of a layer adds to the unit through vertex `to` of the next: Σ over positions of both of value ·
// weight · gradient. Over all connections into a layer that sums to the unit's value less the biases above.
struct SubgraphEdge {
  int64_t from = 0, to = 0;
  double contribution = 0;
};

struct Subgraph {
  std::vector<SubgraphLayer> layers;             // input first, the unit's layer last
  std::vector<std::vector<SubgraphEdge>> edges;  // between layer i and i + 1; only those that add something
  Unit unit;
  double value = 0;  // of the unit
};

// x: [C,H,W]. For chains of convolutions, linear layers, max pools and ReLUs with at most a few thousand connections
// between channels; throws (usage) for other networks, naming the layer, and for larger ones.
Subgraph active_subgraph(Context& ctx, const Model& model, Shape image, const float* x, const Unit& unit);

Canvas subgraph_picture(const Subgraph& graph, const std::string& title);

}  // namespace switchback
