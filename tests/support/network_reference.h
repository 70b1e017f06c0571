// Whole networks in double, node by node, by the naive references: an independent judge of plans and of their gradients
// (by finite differences).
#pragma once

#include <vector>

#include "engine/network.h"
#include "tests/support/net.h"
#include "tests/support/reference_layers.h"

namespace switchback::test {

// The value of every node for x. Vectors are [n,c,1,1].
std::vector<Nchw> evaluate(const Net& network, const Nchw& x);

// The derivative of sum over the positions of channel `channel` of node `node` (n = 1) with respect to every element of
// x, by central differences.
Nchw numeric_gradient(const Net& network, const Nchw& x, int node, int64_t channel, double step = 1e-6);

}  // namespace switchback::test
