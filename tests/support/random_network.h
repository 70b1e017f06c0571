// Random small networks for tests: directed acyclic graphs of every piecewise-affine layer, with random weights.
#pragma once

#include <cstdint>

#include "engine/network.h"
#include "tests/support/net.h"

namespace switchback::test {

struct RandomNetworkOptions {
  Shape input{1, 3, 0, 0};    // 0: drawn, 12x12 to 24x20
  int blocks = 6;             // a block: one layer, a residual block, or branches that are concatenated
  int64_t most_channels = 12;
  int64_t classes = 5;        // of the head
  bool head = true;           // false: the output is a map
  // Each kind can be left out.
  bool strides = true, dilation = true, groups = true, asymmetric_padding = true;
  bool max_pools = true, average_pools = true, batch_norm = true, clips = true, residuals = true, concats = true;
  // Other piecewise-affine layers too: slopes, ramps, constants, paddings, resizing, transposed convolutions, …
  bool rare_layers = false;
};

// The same network for the same seed on every machine. Its node names say what they are ("b2.conv", "b3.add"); every
// ReLU gates some units on usual inputs (values of about 1), and clips are low enough that some saturate.
Net random_network(uint64_t seed, const RandomNetworkOptions& options = {});

// Makes all weights and biases whole numbers in [-range, range]: with whole inputs, every sum is exact.
void make_whole(Net& net, int64_t range);

// An input for it: values in [-1, 1), another image for another seed. [n,C,H,W]
Tensor random_input(const Net& network, uint64_t seed, int64_t n = 1);

}  // namespace switchback::test
