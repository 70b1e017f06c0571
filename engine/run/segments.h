// A batch in pieces that fit the cache (CPU). Early layers of a network have maps of megabytes and few weights: a whole
// batch of them, layer by layer, goes out to memory and back. Run for a few items at a time through several layers, it
// stays in the cache; later layers, with small maps and many weights, take the whole batch.
#pragma once

#include <vector>

#include "engine/run/step.h"

namespace switchback {

struct Segment {
  int first, last;  // steps, both inclusive
  int64_t items;    // that run through all of them at a time, at most
};

// Divides the steps of a plan; `shapes` are of every node at the plan's capacity. A step of `whole` takes whole batches.
std::vector<Segment> cache_segments(const Network& network, const std::vector<Step>& steps,
                                    const std::vector<Shape>& shapes, DType type, const std::vector<bool>& whole);

// For every node, whether nobody needs its value outside of its segment, so that memory for the segment's items will do.
// Where a segment takes several passes over a batch of `all`, the lifetimes of all others become the whole segment: a
// pass over the first items must not write over what the pass over the next ones reads.
std::vector<bool> confine(const std::vector<Segment>& segments, const std::vector<Step>& steps,
                          const std::vector<bool>& observed, int64_t all, std::vector<Lifetime>& lives);

}  // namespace switchback
