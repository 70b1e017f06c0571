// Weights in the forms that kernels want, made when a step first needs them and kept beside the weights they are made of.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <typeindex>
#include <vector>

#include "engine/network.h"
#include "engine/weights.h"

namespace switchback {

// One entry for each step, type, and size or padding that it was made for.
class Packed {
 public:
  using At = std::array<int64_t, 6>;
  static constexpr At kAnywhere = {-1, -1, -1, -1, -1, -1};
  template <typename T, typename Make>
  const T& get(int node, int batch_norm, const At& at, const Make& make) {
    std::shared_ptr<void>& entry = entries_[{node, batch_norm, at, std::type_index(typeid(T))}];
    if (!entry) entry = std::make_shared<T>(make());
    return *static_cast<const T*>(entry.get());
  }
  // The entries that values of `node` are not in.
  Packed without(int node) const {
    Packed kept;
    for (const auto& [key, entry] : entries_)
      if (std::get<0>(key) != node && std::get<1>(key) != node) kept.entries_.emplace(key, entry);
    return kept;
  }

 private:
  std::map<std::tuple<int, int, At, std::type_index>, std::shared_ptr<void>> entries_;
};

// Values that kernels read: slopes, constants, scales.
struct DeviceArray {
  explicit DeviceArray(std::vector<float> values) : values(std::move(values)) {}
  const float* on(Context& ctx) const;  // where ctx's kernels can read them
  std::vector<float> values;
  std::shared_ptr<DeviceCache> device = std::make_shared<DeviceCache>();
};

// What a step adds to its op's result, the same for all items: biases, shifts of batch norms, constants.
struct StepShift {
  DeviceArray array{{}};  // NHWC; empty: nothing is added
  Shape shape;            // n = 1; each of c, h, w is the result's or 1
};

// The weights of one step of a plan: a node's, and those of a batch norm that is folded into it.
struct StepWeights {
  const Network* network;
  const Weights* weights;
  int node;
  int batch_norm = -1;

  // A parameter of the node; empty where it has none of that name. Throws where there are no weights.
  std::span<const float> parameter(std::string_view name) const { return of(node, name); }
  std::span<const float> of(int other, std::string_view name) const;
  // Where ctx's kernels can read it; null where the node has none of that name.
  const float* on(Context& ctx, std::string_view name) const;
  // Where it lies in an array that is laid out as the weights; null likewise.
  template <typename T>
  T* place(std::string_view name, T* all) const {
    const Parameter* p = weights->find(node, name);
    return p ? all + p->offset : nullptr;
  }
  template <typename T, typename Make>
  const T& packed(const Make& make, const Packed::At& at = Packed::kAnywhere) const {
    return weights->packed().get<T>(node, batch_norm, at, make);
  }
  template <typename L>
  const L& layer_of(int other) const { return std::get<L>(network->nodes[other].layer); }
  StepWeights alone(int other) const { return {network, weights, other}; }
};

}  // namespace switchback
