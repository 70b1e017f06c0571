// A batch in pieces that fit the cache (CPU). Early layers of a network have maps of megabytes and few weights: a whole
// batch of them, layer by layer, goes out to memory and back. Run for a few items at a time through several layers, it
// stays in the cache; later layers, with small maps and many weights, take the whole batch.
#pragma once

#include "engine/lists.h"
#include "engine/run/memory.h"
#include "engine/run/step.h"

namespace switchback {

struct Segment {
  int first, last;  // steps, both inclusive
  int64_t items;    // that run through all of them at a time, at most
};

// Divides the steps of a plan; `shapes` are of every node at the plan's capacity. A step of `whole` takes whole batches.
List<Segment> cache_segments(const Network& network, const List<Step>& steps, const List<Shape>& shapes, DType type,
                             const List<bool>& whole);

// Which values need memory for their segment's items only: those that nobody reads outside of it. `elsewhere`: values that
// do not lie in the arena, or must outlive the pass. Lifetimes of the others become their whole segment's where that takes
// several passes over a batch of `all`: a pass over its first items must not write over what the next pass reads.
List<bool> confine(const List<Segment>& segments, const List<Step>& steps, const List<bool>& elsewhere, int64_t all,
                   List<Lifetime>& lives);

}  // namespace switchback
