#include "engine/run/segments.h"

#include <algorithm>

namespace switchback {
namespace {

// What the maps of one pass through a layer may take: L2 caches, or a share of the L3 cache that others leave us.
constexpr int64_t kCacheBytes = int64_t(8) << 20;

// Items that a step should run on: at most as many as have their maps in the cache, at least as many as are worth its
// weights. The second counts more.
struct Wish {
  int64_t most, least;
};

Wish wish(const Network& network, const Step& step, const List<Shape>& shapes, DType type) {
  const Shape y = shapes[step.output];
  int64_t elements = y.item();
  for (int value : step.sources()) elements += shapes[value].item();
  const int64_t all = shapes[0].n, most = std::clamp<int64_t>(kCacheBytes / (elements * int64_t(size_of(type))), 1, all);
  const int64_t pixels = facts(network.nodes[step.node].layer).pixels_at_a_time;
  if (pixels == Facts::kWholeBatch) return {all, all};
  return {most, std::min(all, (pixels + y.h * y.w - 1) / (y.h * y.w))};
}

}  // namespace

List<Segment> cache_segments(const Network& network, const List<Step>& steps, const List<Shape>& shapes, DType type,
                             const List<bool>& whole) {
  const int count = int(steps.size());
  const int64_t all = shapes[0].n;
  List<Wish> wishes(steps.size());
  List<int64_t> most_from(steps.size() + 1, all);  // the least `most` of this step and all later ones
  for (int i = count; i-- > 0;) {
    wishes[i] = whole[i] ? Wish{all, all} : wish(network, steps[i], shapes, type);
    most_from[i] = std::min(most_from[i + 1], wishes[i].most);
  }
  List<Segment> segments;
  for (int first = 0; first < count;) {
    int last = first;
    Wish items = wishes[first];
    // Until all steps to come allow twice as many items: between segments, maps go out to memory.
    for (; last + 1 < count && !whole[first] && !whole[last + 1]; ++last) {
      const int64_t next = most_from[last + 1];
      if (next >= 2 * items.most || (next == all && items.most < all)) break;
      items.most = std::min(items.most, wishes[last + 1].most);
      items.least = std::max(items.least, wishes[last + 1].least);
    }
    segments.push_back({first, last, first == last ? all : std::max(items.most, items.least)});
    first = last + 1;
  }
  return segments;
}

List<bool> confine(const List<Segment>& segments, const List<Step>& steps, const List<bool>& elsewhere, int64_t all,
                   List<Lifetime>& lives) {
  List<int> segment_of(steps.size()), made(lives.size(), -1);
  for (int s = 0; s < segments.count(); ++s)
    for (int i = segments[s].first; i <= segments[s].last; ++i) segment_of[i] = s;
  List<bool> local(lives.size(), false);
  for (int i = 0; i < steps.count(); ++i) {
    made[steps[i].output] = segment_of[i];
    local[steps[i].output] = !elsewhere[steps[i].output];
  }
  for (int i = 0; i < steps.count(); ++i)
    for (int value : steps[i].sources())
      if (made[value] != segment_of[i]) local[value] = false;
  const auto in_passes = [&](int step) -> const Segment* {  // the segment of a step, if it takes several passes
    if (step < 0 || step >= steps.count()) return nullptr;
    const Segment& segment = segments[segment_of[step]];
    return segment.items < all ? &segment : nullptr;
  };
  for (int v = 0; v < lives.count(); ++v) {
    if (local[v]) continue;
    if (const Segment* s = in_passes(lives[v].first)) lives[v].first = s->first;
    if (const Segment* s = in_passes(lives[v].last)) lives[v].last = s->last;
  }
  return local;
}

}  // namespace switchback
