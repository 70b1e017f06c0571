// Weights: the parameters of a network, a value beside it. Copies share their memory until one of them is changed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/lists.h"
#include "engine/network.h"
#include "engine/tensor.h"
#include "kernels/device/context.h"

namespace switchback {

class StateDict;
class Packed;  // engine/run/packed.h: weights in the layouts that kernels want

struct Parameter {
  int node = 0;
  std::string name;       // "weight"; full_name in files
  Dims dims;
  int64_t offset = 0;     // of its first value
  bool trainable = true;  // running statistics are not
  int64_t count() const { return switchback::count(dims); }
  bool operator==(const Parameter&) const = default;
};
// As state dicts have it: NODE.name; the node's name alone where the parameter has none; NODE_name where the node is the joint
// projection of torch.nn.MultiheadAttention (in_proj_weight).
std::string full_name(const Node& node, std::string_view parameter);
std::string full_name(const Network& network, const Parameter& p);

class Weights {
 public:
  Weights();                                // of nothing
  explicit Weights(const Network& network);  // room for all its parameters, not initialised

  const std::vector<Parameter>& list() const { return state_->list; }
  bool empty() const { return state_->list.empty(); }
  int64_t count() const { return state_->count; }  // values in all
  const Parameter* find(int node, std::string_view name) const;  // null where the node has none

  // A parameter's values: f32, laid out as in files. Those that a node lacks are empty.
  std::span<const float> values(const Parameter& p) const { return {data() + p.offset, size_t(p.count())}; }
  std::span<const float> values(int node, std::string_view name) const;
  std::span<const float> values() const { return {data(), size_t(count())}; }
  Tensor tensor(int node, std::string_view name) const;  // a copy
  // To be written at once: other copies of these weights keep theirs, and what was packed of these is dropped (of one
  // parameter: what its node's values are in).
  std::span<float> edit(const Parameter& p);
  std::span<float> edit(int node, std::string_view name);  // throws where the node has none
  std::span<float> edit();  // all of them

  // All values on the context's device, where its kernels can read them.
  const float* on(Context& ctx) const;
  // Another number after every change, and for any other weights.
  uint64_t version() const { return state_->version; }
  Packed& packed() const;  // of this version

 private:
  struct State {
    std::vector<Parameter> list;
    List<int> first;    // of each node its first parameter in the list; one more behind the last node
    int64_t count = 0;
    Memory values;      // the host's
    uint64_t version = 0;
    DeviceCache device;
    std::shared_ptr<Packed> packed;
  };
  const float* data() const { return state_->values.as<float>(); }
  std::shared_ptr<State> state_;
};

// State dict: NODE.weight and so on, names and shapes as in torchvision. Missing, surplus and misshapen tensors are all
// named in one error. (num_batches_tracked, Swin's tables of places and what Network::training_only names are ignored.)
Weights load_weights(const Network& network, const StateDict& file);
// `random:SEED`: element i of parameter NAME draws word i%4 of Philox block (i/4, crc32(NAME), 2^31), v = 2u − 1:
// conv and linear weights v·sqrt(6/fan_in), their biases 0.1·v; batch norm weight 1 + v/4, bias and mean 0.1·v,
// variance 1 + v/2; slopes of PReLU (1 + v)/4. fan_in: a weight's elements over its first size. So that others can draw
// the same network.
Weights random_weights(const Network& network, uint64_t seed);
// What training starts from: conv and linear weights as random_weights draws them (Kaiming, uniform), biases 0, norms that
// change nothing.
Weights initial_weights(const Network& network, uint64_t seed);
void save_weights(const Network& network, const Weights& weights, const std::string& path);

}  // namespace switchback
