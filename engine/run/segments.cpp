#include "engine/run/segments.h"

#include <algorithm>

namespace switchback {
namespace {

// What the maps of one pass through a layer may take: L2 caches, or a share of the L3 cache that others leave us.
constexpr int64_t kCacheBytes = int64_t(8) << 20;

// Output pixels that a convolution wants at a time: it prepares its weights in every call (kernels/conv/winograd.h).
constexpr int64_t kPixels = 3000;

// Items that a step should run on: at most as many as have their maps in the cache, at least as many as are worth its
// weights. The second counts more.
struct Wish {
  int64_t most, least;
};

Wish wish(const Network& network, const Step& step, const std::vector<Shape>& shapes, DType type) {
  const Shape y = shapes[size_t(step.output)];
  int64_t elements = y.item();
  for (int value : step.inputs) elements += shapes[size_t(value)].item();
  if (step.residual >= 0) elements += shapes[size_t(step.residual)].item();
  const int64_t all = shapes[0].n, most = std::clamp<int64_t>(kCacheBytes / (elements * int64_t(size_of(type))), 1, all);
  const Layer& layer = network.nodes[size_t(step.node)].layer;
  if (std::holds_alternative<Linear>(layer)) return {all, all};
  const auto* conv = std::get_if<Conv2d>(&layer);
  if (!conv || conv->groups > 1 || conv->kernel_h * conv->kernel_w == 1) return {most, 1};
  return {most, std::min(all, (kPixels + y.h * y.w - 1) / (y.h * y.w))};
}

}  // namespace

std::vector<Segment> cache_segments(const Network& network, const std::vector<Step>& steps,
                                    const std::vector<Shape>& shapes, DType type, const std::vector<bool>& whole) {
  const int count = int(steps.size());
  const int64_t all = shapes[0].n;
  std::vector<Wish> wishes(steps.size());
  std::vector<int64_t> most_from(steps.size() + 1, all);  // the least `most` of this step and all later ones
  for (size_t i = steps.size(); i-- > 0;) {
    wishes[i] = whole[i] ? Wish{all, all} : wish(network, steps[i], shapes, type);
    most_from[i] = std::min(most_from[i + 1], wishes[i].most);
  }
  std::vector<Segment> segments;
  for (int first = 0; first < count;) {
    int last = first;
    Wish items = wishes[size_t(first)];
    // Until all steps to come allow twice as many items: between segments, maps go out to memory.
    for (; last + 1 < count && !whole[size_t(first)] && !whole[size_t(last + 1)]; ++last) {
      const int64_t next = most_from[size_t(last + 1)];
      if (next >= 2 * items.most || (next == all && items.most < all)) break;
      items.most = std::min(items.most, wishes[size_t(last + 1)].most);
      items.least = std::max(items.least, wishes[size_t(last + 1)].least);
    }
    segments.push_back({first, last, first == last ? all : std::max(items.most, items.least)});
    first = last + 1;
  }
  return segments;
}

std::vector<bool> confine(const std::vector<Segment>& segments, const std::vector<Step>& steps,
                          const std::vector<bool>& observed, int64_t all, std::vector<Lifetime>& lives) {
  std::vector<int> segment_of(steps.size()), made(lives.size(), -1);
  for (size_t s = 0; s < segments.size(); ++s)
    for (int i = segments[s].first; i <= segments[s].last; ++i) segment_of[size_t(i)] = int(s);
  std::vector<bool> local(lives.size(), false);
  for (size_t i = 0; i < steps.size(); ++i) {
    const size_t value = size_t(steps[i].output);
    made[value] = segment_of[i];
    local[value] = !observed[value];
  }
  const auto read = [&](int value, size_t step) {
    if (made[size_t(value)] != segment_of[step]) local[size_t(value)] = false;
  };
  for (size_t i = 0; i < steps.size(); ++i) {
    for (int value : steps[i].inputs) read(value, i);
    if (steps[i].residual >= 0) read(steps[i].residual, i);
  }
  const auto in_passes = [&](int step) -> const Segment* {  // the segment of a step, if it takes several passes
    if (step < 0 || step >= int(steps.size())) return nullptr;
    const Segment& segment = segments[size_t(segment_of[size_t(step)])];
    return segment.items < all ? &segment : nullptr;
  };
  for (size_t v = 0; v < lives.size(); ++v) {
    if (local[v]) continue;
    if (const Segment* s = in_passes(lives[v].first)) lives[v].first = s->first;
    if (const Segment* s = in_passes(lives[v].last)) lives[v].last = s->last;
  }
  return local;
}

}  // namespace switchback
