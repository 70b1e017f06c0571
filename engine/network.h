// Network: layers as a directed acyclic graph in topological order. Architecture alone, a value: its parameters are
// Weights (engine/weights.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/layers/layers.h"
#include "engine/lists.h"

namespace switchback {

struct Node {
  std::string name;         // torchvision's feature-extraction name: "features.28", "layer1.0.add"
  Layer layer;
  std::vector<int> inputs;  // indices of earlier nodes
  bool operator==(const Node&) const = default;
};

struct Network {
  std::string name;
  Shape input{1, 3, 224, 224};  // default input, n = 1
  SharedList<Node> nodes;       // node 0 is the input "x"; the last one is the output
  // Beginnings of names of tensors that published state dicts hold for training only: "aux1." of GoogLeNet.
  std::vector<std::string> training_only;

  Network() = default;
  Network(std::string name, Shape input);
  bool operator==(const Network&) const = default;
  int add(std::string node_name, Layer layer, std::vector<int> inputs);
  int add(std::string node_name, Layer layer) { return add(std::move(node_name), std::move(layer), {output()}); }
  int output() const { return int(nodes.size()) - 1; }
  int find(std::string_view node_name) const;  // throws naming the nearest
  List<Shape> shapes(Shape in) const;          // of every node; throws where the input does not fit
  int64_t parameter_count() const;             // of those that are trained
  int64_t flops(Shape in) const;
};

// The candidate nearest to `word` by edit distance, for error hints.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace switchback
