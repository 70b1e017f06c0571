// A network and its weights under one name, for tests that build both: methods take it as a Model.
#pragma once

#include "engine/model.h"

namespace switchback::test {

struct Net : Network {
  Weights weights;
  using Network::Network;
  Net(Network network, Weights weights = {}) : Network(std::move(network)), weights(std::move(weights)) {}  // NOLINT
  operator Model() const { return {*this, weights}; }                                                      // NOLINT
  // Sets every value of every parameter: f(parameter, index).
  template <typename F>
  void fill(const F& f) {
    if (weights.empty()) weights = Weights(*this);
    for (const Parameter& p : std::vector(weights.list())) {
      const std::span<float> values = weights.edit(p);
      for (size_t i = 0; i < values.size(); ++i) values[i] = f(p, int64_t(i));
    }
  }
};

}  // namespace switchback::test
