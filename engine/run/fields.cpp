#include "engine/run/fields.h"

#include <algorithm>

#include "engine/run/step.h"
#include "kernels/frozen/frozen.h"

namespace switchback {
namespace {

// How a step's layer reaches along one axis, on cut-outs of its maps: there is no cut-out of a value on the tape, nor of
// what is put together from elsewhere.
Reach reach_of(const Plan& plan, const Step& step, bool vertical) {
  std::vector<Shape> x;
  bool same_places = true;
  const Shape y = plan.shapes()[step.output];
  for (int value : step.inputs) {
    x.push_back(plan.shapes()[value].with_n(1));
    same_places = same_places && x.back().h == y.h && x.back().w == y.w;
  }
  const Reach r = reach(plan.layer(step), x, vertical);
  const Keeps kept = keeps(plan.layer(step), x);
  const bool known = r.kind == Reach::Kind::window || (r.kind == Reach::Kind::same && same_places);
  return known && r.cuts && !kept.inputs && !kept.output ? r : Reach{};
}

// The ranges of all values on one axis. They only ever grow, so that they come to rest.
class Axis {
 public:
  Axis(const Plan& plan, bool vertical) : plan_(plan), vertical_(vertical), ranges_(plan.shapes().size()) {
    for (const Step& step : plan.steps()) reaches_.push_back(reach_of(plan, step, vertical));
  }

  List<Interval> solve(int value, int64_t at) {
    ranges_[value] = {at, at + 1};
    do {
      changed_ = false;
      for (int i = int(plan_.steps().size()); i-- > 0;)
        if (!ranges_[plan_.steps()[i].output].empty()) settle(plan_.steps()[i], reaches_[i]);
    } while (changed_);
    return ranges_;
  }

 private:
  int64_t size(int value) const {
    const Shape s = plan_.shapes()[value];
    return vertical_ ? s.h : s.w;
  }
  Interval& range(int value) { return ranges_[value]; }
  void grow(int value, Interval by) {
    Interval& r = range(value);
    const Interval both = hull(r, within(by, size(value)));
    if (both == r) return;
    r = both;
    changed_ = true;
  }
  void agree(int a, int b) {
    grow(a, range(b));
    grow(b, range(a));
  }

  // Lets the ranges around one step fit each other.
  void settle(const Step& step, const Reach& reach) {
    if (step.sum >= 0) agree(step.sum, step.output);
    if (reach.kind == Reach::Kind::window) return fit_windows(reach.axis, step.inputs[0], step.output);
    for (int value : step.inputs) {
      if (reach.kind == Reach::Kind::same) {
        agree(value, step.output);
      } else {
        grow(step.output, {0, size(step.output)});
        grow(value, {0, size(value)});
      }
    }
  }
  void fit_windows(const SlidingAxis& w, int in, int out) {
    grow(in, w.needed(range(out)));
    // Readers of `in` beside this one may want more of it. Then more outputs (with zero gradient) keep it fitting.
    const Interval have = range(in), want = w.needed(range(out));
    if (have.begin < want.begin) grow(out, {range(out).begin - ceil_div(want.begin - have.begin, w.stride), range(out).end});
    if (have.end >= want.end + w.stride) grow(out, {range(out).begin, range(out).end + (have.end - want.end) / w.stride});
  }

  const Plan& plan_;
  bool vertical_;
  List<Reach> reaches_;  // of every step
  List<Interval> ranges_;
  bool changed_ = false;
};

// What padding is left before and after a part of a map.
std::pair<int64_t, int64_t> padding_left(const SlidingAxis& w, Interval in, Interval out) {
  const Interval want = w.needed(out);
  return {in.begin - want.begin, std::max<int64_t>(0, want.end - in.end)};
}

Interval rows(const FieldBox& b) { return {b.top, b.top + b.height}; }
Interval columns(const FieldBox& b) { return {b.left, b.left + b.width}; }

// The layer of a step with what padding is left between its boxes; checked against the sizes of the boxes.
Layer layer_between(const Plan& plan, const Step& step, const FieldBox& from, const FieldBox& to) {
  const Layer& layer = plan.layer(step);
  const Reach vertical = reach_of(plan, step, true), horizontal = reach_of(plan, step, false);
  if (vertical.kind != Reach::Kind::window) return layer;
  const auto [top, bottom] = padding_left(vertical.axis, rows(from), rows(to));
  const auto [left, right] = padding_left(horizontal.axis, columns(from), columns(to));
  const Layer out = repadded(layer, {top, left, bottom, right});
  const Shape x{1, plan.shapes()[step.inputs[0]].c, from.height, from.width}, y = output_shape(out, {&x, 1});
  CHECK(y.h == to.height && y.w == to.width, "receptive field of {}: {}x{} gives {}x{}, not {}x{}", describe(layer),
        from.height, from.width, y.h, y.w, to.height, to.width);
  return out;
}

}  // namespace

std::vector<int64_t> Field::form() const {
  std::vector<int64_t> out;
  for (const FieldBox& box : boxes) out.insert(out.end(), {box.height, box.width});
  for (const Layer& layer : layers) {
    const Padding p = padding(layer);
    out.insert(out.end(), p.begin(), p.end());
  }
  return out;
}

Field receptive_field(const Plan& plan, int node, int64_t row, int64_t column) {
  const Network& network = plan.network();
  const int value = plan.holder(node);
  const Shape shape = plan.shapes()[value];
  CHECK(row >= 0 && row < shape.h && column >= 0 && column < shape.w, "{} has no place {},{}", network.nodes[node].name, row,
        column);
  const List<Interval> rows = Axis(plan, true).solve(value, row), columns = Axis(plan, false).solve(value, column);
  Field field;
  for (int i = 0; i < rows.count(); ++i) {
    field.boxes.push_back({rows[i].begin, columns[i].begin, rows[i].size(), columns[i].size()});
    field.layers.push_back(network.nodes[i].layer);
  }
  for (const Step& step : plan.steps()) {
    const FieldBox box = field.boxes[step.output];
    if (box.height == 0) continue;
    for (int inner : {step.node, step.batch_norm, step.relu})  // what the step made on the way
      if (inner >= 0) field.boxes[inner] = box;
    field.layers[step.node] = layer_between(plan, step, field.boxes[step.inputs[0]], box);
  }
  return field;
}

namespace {

// The slots of a cut tape for n items; those outside of the field are left out.
List<Tape::Slot> cut_slots(const Plan& plan, const Field& field, int64_t n, size_t& bytes) {
  List<Tape::Slot> slots;
  bytes = 0;
  for (Tape::Slot slot : plan.slots()) {
    const FieldBox& box = field.boxes[slot.node];
    if (box.height == 0) continue;
    slot.shape = {n, slot.shape.c, box.height, box.width};
    slot.offset = bytes;
    slot.bytes = size_t(n) * slot.item_bytes() * size_t(slot.planes());
    bytes += aligned(slot.bytes);
    slots.push_back(slot);
  }
  return slots;
}

}  // namespace

size_t cut_tape_bytes(const Plan& plan, const Field& field) {
  size_t bytes = 0;
  cut_slots(plan, field, 1, bytes);
  return bytes;
}

void cut_tape(Context& ctx, const Plan& plan, const Tape& tape, std::span<const Field* const> fields,
              std::span<const int64_t> items, Tape& out) {
  CHECK(!fields.empty() && fields.size() == items.size(), "{} fields for {} items", fields.size(), items.size());
  const int64_t n = int64_t(fields.size());
  size_t bytes = 0;
  out.slots = cut_slots(plan, *fields[0], n, bytes);
  out.n = n;
  const size_t corners_at = bytes;  // behind the slots
  bytes += size_t(n) * out.slots.size() * sizeof(Corner);
  if (out.memory.size() < bytes || out.memory.gpu() != ctx.gpu) {
    out.memory = Memory();  // first give back
    out.memory = ctx.allocate(bytes);
  }
  std::vector<Corner> corners;
  for (const Tape::Slot& slot : out.slots)
    for (int64_t p = 0; p < n; ++p) {
      const FieldBox& box = fields[p]->boxes[slot.node];
      corners.push_back({int32_t(items[p]), int32_t(box.top), int32_t(box.left)});
    }
  ctx.copy_in(out.memory.as<char>() + corners_at, corners.data(), corners.size() * sizeof(Corner));
  const auto* on_device = reinterpret_cast<const Corner*>(out.memory.as<char>() + corners_at);
  for (const Tape::Slot& slot : out.slots) {
    const Tape::Slot& from = tape.slot(slot.kind, slot.node);
    const Shape map = from.shape;
    const CutOut shape{map.h, map.w, slot.shape.h, slot.shape.w, int64_t(slot.pixel_bytes())};
    for (int plane = 0; plane < slot.planes(); ++plane)
      cut_out(ctx, shape, tape.data(from) + size_t(plane * tape.n) * from.item_bytes(), on_device, n,
              out.data(slot) + size_t(plane * n) * slot.item_bytes());
    on_device += n;
  }
}

}  // namespace switchback
