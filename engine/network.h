// Network: layers as a directed acyclic graph in topological order, with their parameters.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/layers/layers.h"
#include "engine/tensor.h"

namespace switchback {

class Safetensors;
struct PackedWeights;  // plan.cpp: weights in the layouts that kernels want, shared by all plans of a network

struct Node {
  std::string name;         // torchvision's feature-extraction name: "features.28", "layer1.0.add"
  Layer layer;
  std::vector<int> inputs;  // indices of earlier nodes
  Tensor weight, bias, running_mean, running_var;
  std::vector<std::pair<ParameterSpec, Tensor*>> parameters();
};

struct Network {
  std::string name;
  Shape input{1, 3, 224, 224};  // default input, n = 1
  std::vector<Node> nodes;      // node 0 is the input "x"; the last one is the output
  // Beginnings of names of tensors that published state dicts hold for training only: "aux1." of GoogLeNet.
  std::vector<std::string> training_only;

  Network() = default;
  Network(std::string name, Shape input);
  int add(std::string node_name, Layer layer, std::vector<int> inputs);
  int add(std::string node_name, Layer layer) { return add(std::move(node_name), std::move(layer), {output()}); }
  int output() const { return int(nodes.size()) - 1; }
  int find(std::string_view node_name) const;  // throws naming the nearest
  std::vector<Shape> shapes(Shape in) const;   // of every node; throws where the input does not fit
  int64_t parameter_count() const;
  int64_t flops(Shape in) const;

  mutable std::shared_ptr<PackedWeights> packed;  // dropped whenever parameters change
};

// State dict: NODE.weight and so on, names and shapes as in torchvision. Missing, surplus and misshapen tensors are all
// named in one error. (num_batches_tracked and what Network::training_only names are ignored.)
void load_weights(Network& network, const Safetensors& file);
// `random:SEED`: element i of parameter NAME draws word i%4 of Philox block (i/4, crc32(NAME), 2^31), v = 2u − 1:
// conv and linear weights v·sqrt(6/fan_in), their biases 0.1·v; batch norm weight 1 + v/4, bias and mean 0.1·v,
// variance 1 + v/2; slopes of PReLU (1 + v)/4. fan_in: a weight's elements over its first size. So that others can draw
// the same network.
void random_weights(Network& network, uint64_t seed);
void save_weights(const Network& network, const std::string& path);

// The candidate nearest to `word` by edit distance, for error hints.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace switchback
