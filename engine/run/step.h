// Steps: what a plan runs one after the other, and how it comes to them.
#pragma once

#include <array>
#include <vector>

#include "engine/layers/calls.h"
#include "engine/lists.h"
#include "engine/network.h"

namespace switchback {

// One call of a layer's op, with what is fused behind it: value(output) = relu( bn( op(inputs) ) + sum ), each part optional.
struct Step {
  int node;                 // the op that runs; for a ReLU that stands alone, the ReLU
  int output;               // the last node of the group, whose value this is
  std::vector<int> inputs;  // nodes whose values the op reads
  int batch_norm = -1;      // folded into a convolution
  int sum = -1;             // node whose value is added before the ReLU
  int relu = -1;            // ReLU node, whose gates are stored
  float clip = kNoClip;
  // A max pool that the convolution's kernel does as well (forward only; backward sees two steps as ever): the step of
  // the convolution knows that the next one is done with it, and that one that it is not to run.
  bool with_next_pool = false, done_with_previous = false;

  std::vector<int> sources() const;  // all nodes whose values it reads
};

// What fusing wants to know: which nodes somebody wants to see, and which values the caller gives.
struct Wishes {
  std::vector<int> observed, given;
  bool training = false;  // layers that then are computed otherwise are steps of their own
};

// For each node, the one that holds its value: dropouts and flattens of 1x1 maps have none of their own. With
// `linear_reads_maps` neither has a flatten that only linear layers read (they then read the map itself) and nobody wants.
List<int> holders(const Network& network, const List<Shape>& shapes, const Wishes& wishes, bool linear_reads_maps);

// Groups nodes into steps, in the order in which they can run, up to the observed nodes and from the given ones on.
List<Step> fuse(const Network& network, const List<int>& holders, const Wishes& wishes);
// Marks max pools that the kernel of the convolution before them does as well.
void fuse_pools(Context& ctx, const Network& network, const List<Shape>& shapes, const List<bool>& observed, DType type,
                List<Step>& steps);

// Where a node's value is a part of a concatenation's and written there: from channel `channel` on of node `whole`.
struct Part {
  int whole = -1;
  int64_t channel = 0;
};
// The parts that kernels write in place: of layers that can, and that nobody else reads, since other readers want whole maps.
List<Part> parts_in_place(const Network& network, const List<Shape>& shapes, const List<bool>& observed,
                          const List<Step>& steps);

}  // namespace switchback
