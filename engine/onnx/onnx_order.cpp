// The two orders that a value's node may hold it in (engine/README.md, Tokens): from one to the other, and axes moved.
#include <algorithm>

#include "engine/files/files.h"
#include "engine/onnx/onnx_graph.h"

namespace switchback {
namespace {

// Cuts both lists of sizes into common ones; false where they do not have any.
bool refine(const std::vector<int64_t>& a, const std::vector<int64_t>& b, std::vector<std::vector<int64_t>>& parts_a,
            std::vector<std::vector<int64_t>>& parts_b, std::vector<int64_t>& sizes) {
  parts_a.assign(a.size(), {}), parts_b.assign(b.size(), {});
  size_t i = 0, j = 0;
  int64_t left_a = a.empty() ? 1 : a[0], left_b = b.empty() ? 1 : b[0];
  while (i < a.size() || j < b.size()) {
    if (i < a.size() && left_a == 1) {
      left_a = ++i < a.size() ? a[i] : 1;
      continue;
    }
    if (j < b.size() && left_b == 1) {
      left_b = ++j < b.size() ? b[j] : 1;
      continue;
    }
    if (i == a.size() || j == b.size()) return false;
    const int64_t part = std::min(left_a, left_b);
    if (left_a % part != 0 || left_b % part != 0) return false;
    parts_a[i].push_back(int64_t(sizes.size())), parts_b[j].push_back(int64_t(sizes.size()));
    sizes.push_back(part);
    left_a /= part, left_b /= part;
  }
  return true;
}

// first, then second; false where that is not one transpose.
bool compose(const Transpose& first, const Transpose& second, Transpose& both) {
  std::vector<int64_t> between, sizes;
  for (int64_t axis : first.axes) between.push_back(first.sizes[axis]);
  std::vector<std::vector<int64_t>> parts_first, parts_second;
  if (!refine(between, second.sizes, parts_first, parts_second, sizes)) return false;
  std::vector<int64_t> place(sizes.size());  // of each part among x's
  both = second;
  both.sizes.clear(), both.axes.clear();
  for (size_t axis = 0; axis < first.sizes.size(); ++axis) {
    const size_t moved = size_t(std::ranges::find(first.axes, int64_t(axis)) - first.axes.begin());
    for (int64_t part : parts_first[moved]) {
      place[part] = int64_t(both.sizes.size());
      both.sizes.push_back(sizes[part]);
    }
  }
  for (int64_t axis : second.axes)
    for (int64_t part : parts_second[axis]) both.axes.push_back(place[part]);
  return true;
}

// Axes of one place go, and neighbours that stay neighbours become one.
Transpose simplified(Transpose t) {
  std::vector<int64_t> axes, sizes, first_of(t.sizes.size());
  for (int64_t axis : t.axes)
    if (t.sizes[axis] > 1) axes.push_back(axis);
  std::vector<int64_t> kept;  // leading axes of groups, in the order of the result
  std::vector<int64_t> group_size(t.sizes.size(), 1);
  const auto next = [&](int64_t axis) {  // behind it in x, without axes of one place
    for (++axis; axis < int64_t(t.sizes.size()) && t.sizes[axis] == 1;) ++axis;
    return axis;
  };
  int64_t last = -2;
  for (int64_t axis : axes) {
    if (!kept.empty() && next(last) == axis) {
      group_size[kept.back()] *= t.sizes[axis];
    } else {
      kept.push_back(axis);
      group_size[axis] = t.sizes[axis];
    }
    last = axis;
  }
  std::vector<int64_t> in_x = kept;
  std::ranges::sort(in_x);
  t.sizes.clear(), t.axes.clear();
  for (int64_t axis : in_x) t.sizes.push_back(group_size[axis]);
  for (int64_t axis : kept) t.axes.push_back(std::ranges::find(in_x, axis) - in_x.begin());
  return t;
}

}  // namespace

int OnnxGraph::transposed(const OnnxNode& n, int node, const Transpose& transpose) {
  Transpose t = simplified(transpose);
  if (const auto* before = std::get_if<Transpose>(&at(node).layer)) {
    Transpose both;
    if (compose(*before, t, both)) {
      both = simplified(both);
      if (both.sizes.size() <= size_t(TransposedFrom::kMost)) t = both, node = at(node).inputs[0];
    }
  }
  if (t.sizes.size() <= 1 && shape(node) == Shape{1, t.c, t.h, t.w}) return node;
  return add(n, t, {node}, n.name() + ".input");
}

int OnnxGraph::cut_before_transpose(const OnnxNode& n, int node, const Dims& memory, const SliceRange& part,
                                    const std::string& name) {
  const auto* t = std::get_if<Transpose>(&at(node).layer);
  if (!t || t->sizes.size() < 2 || part.step != 1) return -1;
  Transpose whole;  // the same in parts of which one or some are the axis
  if (!compose(*t, {memory, {0, 1, 2}, 0, 0, 0}, whole)) return -1;
  std::vector<std::vector<int64_t>> parts, cut;
  std::vector<int64_t> moved, sizes;
  for (int64_t axis : whole.axes) moved.push_back(whole.sizes[axis]);
  if (!refine(moved, memory, parts, cut, sizes) || cut[1].empty() || sizes.size() != moved.size()) return -1;
  const size_t first = size_t(cut[1].front()), count = cut[1].size();  // of the axis, in the result's order
  const int64_t from = whole.axes[first];                               // and in x
  for (size_t i = 0; i < count; ++i)
    if (whole.axes[first + i] != from + int64_t(i)) return -1;
  const int source = at(node).inputs[0];
  int64_t behind = 1;
  for (size_t i = size_t(from) + count; i < whole.sizes.size(); ++i) behind *= whole.sizes[i];
  const Shape s = shape(source);
  if (s.c != memory[1] * behind) return -1;
  const int64_t kept = part.end - part.begin;
  const int sliced = add(n, Slice{.c = {part.begin * behind, part.end * behind, 1}}, {source}, name);
  Transpose rest{{}, {}, memory[2], memory[0], kept};
  for (int64_t i = 0; i < int64_t(whole.sizes.size()); ++i)
    if (i <= from || i >= from + int64_t(count)) rest.sizes.push_back(i == from ? kept : whole.sizes[i]);
  for (size_t i = 0; i < whole.axes.size(); ++i)
    if (i <= first || i >= first + count) rest.axes.push_back(whole.axes[i] > from ? whole.axes[i] - int64_t(count) + 1 : whole.axes[i]);
  return simplified(rest).sizes.size() < 2 ? sliced : transposed(n, sliced, rest);
}

int OnnxGraph::memory_shaped(const OnnxNode& n, const OnnxValue& value, Shape wanted) {
  const Shape has = shape(value.node);
  CHECK(has.item() == wanted.item(), "{} elements as [{},{},{}]", has.item(), wanted.c, wanted.h, wanted.w);
  if (value.order == OnnxValue::Order::maps && !alike(value.node))  // channels go in front
    return transposed(n, value.node, {{has.h * has.w, has.c}, {1, 0}, wanted.c, wanted.h, wanted.w});
  return transposed(n, value.node, {{has.item()}, {0}, wanted.c, wanted.h, wanted.w});
}

int OnnxGraph::rows(const OnnxNode& n, const OnnxValue& value) {
  const int64_t channels = value.dims.back(), places = count(value.dims) / channels;
  const bool memory = value.order == OnnxValue::Order::memory || alike(value.node);
  if (memory && shape(value.node).c == channels) return value.node;
  const int64_t columns = value.dims.size() == 4 ? value.dims[2] : 1;
  return memory_shaped(n, value, {1, channels, places / columns, columns});
}

void OnnxGraph::set_rows(const OnnxNode& n, const OnnxValue& x, int node, Dims dims) {
  set(n, OnnxValue{nullptr, node, std::move(dims), OnnxValue::Order::memory, x.batch});
}

}  // namespace switchback
