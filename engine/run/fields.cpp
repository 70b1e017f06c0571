#include "engine/run/fields.h"

#include <algorithm>

#include "engine/run/step.h"
#include "kernels/frozen/frozen.h"

namespace switchback {
namespace {

// One axis of a layer whose outputs see windows of its input: output o reads inputs o·stride − pad … of `span`.
struct Windows {
  int64_t span, stride, pad;
};
struct Range {
  int64_t begin = 0, end = 0;  // none where begin >= end
  bool empty() const { return begin >= end; }
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

enum class Reach { same, windows, all };  // which inputs an output depends on: those at its place, in its window, all

template <typename L>
Windows rows_of(const L& l, int64_t dilation) { return {dilation * (l.kernel_h - 1) + 1, l.stride_h, l.pad_top}; }
template <typename L>
Windows columns_of(const L& l, int64_t dilation) { return {dilation * (l.kernel_w - 1) + 1, l.stride_w, l.pad_left}; }

Reach reach_of(const Layer& layer) {
  return std::visit(overloaded{
                        [](const Conv2d&) { return Reach::windows; },
                        [](const MaxPool2d&) { return Reach::windows; },
                        // Where windows reach beyond the padding, the divisor depends on how far.
                        [](const AvgPool2d& l) { return l.ceil_mode && l.count_include_pad ? Reach::all : Reach::windows; },
                        [](const ReLU&) { return Reach::same; },
                        [](const BatchNorm2d&) { return Reach::same; },
                        [](const Dropout&) { return Reach::same; },
                        [](const Add&) { return Reach::same; },
                        [](const Concat&) { return Reach::same; },
                        [](const LeakyReLU&) { return Reach::same; },
                        [](const PReLU&) { return Reach::same; },
                        [](const Clip&) { return Reach::same; },
                        [](const Hardsigmoid&) { return Reach::same; },
                        [](const ChannelShuffle&) { return Reach::same; },
                        [](const BinaryConstant& l) { return l.shape.h * l.shape.w == 1 ? Reach::same : Reach::all; },
                        [](const auto&) { return Reach::all; },
                    },
                    layer);
}

Windows windows_of(const Layer& layer, bool vertical) {
  return std::visit(overloaded{
                        [&](const Conv2d& l) { return vertical ? rows_of(l, l.dilation_h) : columns_of(l, l.dilation_w); },
                        [&](const MaxPool2d& l) { return vertical ? rows_of(l, l.dilation_h) : columns_of(l, l.dilation_w); },
                        [&](const AvgPool2d& l) { return vertical ? rows_of(l, 1) : columns_of(l, 1); },
                        [](const auto&) -> Windows { fail("this layer has no windows"); },
                    },
                    layer);
}

Range needed(const Windows& w, Range out) {  // padding included
  return {out.begin * w.stride - w.pad, (out.end - 1) * w.stride - w.pad + w.span};
}

// The ranges of all values on one axis. They only ever grow, so that they come to rest.
class Axis {
 public:
  Axis(const Plan& plan, bool vertical) : plan_(plan), vertical_(vertical), ranges_(plan.shapes().size()) {}

  std::vector<Range> solve(int value, int64_t at) {
    ranges_[size_t(value)] = {at, at + 1};
    do {
      changed_ = false;
      for (size_t i = plan_.steps().size(); i-- > 0;)
        if (!ranges_[size_t(plan_.steps()[i].output)].empty()) settle(plan_.steps()[i]);
    } while (changed_);
    return ranges_;
  }

 private:
  int64_t size(int value) const {
    const Shape s = plan_.shapes()[size_t(value)];
    return vertical_ ? s.h : s.w;
  }
  Range& range(int value) { return ranges_[size_t(value)]; }
  void grow(int value, Range by) {
    by = {std::max<int64_t>(by.begin, 0), std::min(by.end, size(value))};
    Range& r = range(value);
    const Range both = r.empty() ? by : by.empty() ? r : Range{std::min(r.begin, by.begin), std::max(r.end, by.end)};
    if (both == r) return;
    r = both;
    changed_ = true;
  }
  void agree(int a, int b) {
    grow(a, range(b));
    grow(b, range(a));
  }

  // Lets the ranges around one step fit each other.
  void settle(const Step& step) {
    const Layer& layer = plan_.network().nodes[size_t(step.node)].layer;
    if (step.residual >= 0) agree(step.residual, step.output);
    switch (reach_of(layer)) {
      case Reach::same:
        for (int value : step.inputs) agree(value, step.output);
        return;
      case Reach::all:
        grow(step.output, {0, size(step.output)});
        for (int value : step.inputs) grow(value, {0, size(value)});
        return;
      case Reach::windows: fit_windows(windows_of(layer, vertical_), step.inputs[0], step.output);
    }
  }
  void fit_windows(const Windows& w, int in, int out) {
    grow(in, needed(w, range(out)));
    // Readers of `in` beside this one may want more of it. Then more outputs (with zero gradient) keep it fitting.
    const Range have = range(in), want = needed(w, range(out));
    const auto up = [&](int64_t n) { return (n + w.stride - 1) / w.stride; };
    if (have.begin < want.begin) grow(out, {range(out).begin - up(want.begin - have.begin), range(out).end});
    if (have.end >= want.end + w.stride) grow(out, {range(out).begin, range(out).end + (have.end - want.end) / w.stride});
  }

  const Plan& plan_;
  bool vertical_;
  std::vector<Range> ranges_;
  bool changed_ = false;
};

struct Padding {
  int64_t before, after;
};
Padding padding(const Windows& w, Range in, Range out) {
  const Range want = needed(w, out);
  return {in.begin - want.begin, std::max<int64_t>(0, want.end - in.end)};
}

template <typename L>
void set_padding(L& l, Padding rows, Padding columns) {
  l.pad_top = rows.before;
  l.pad_bottom = rows.after;
  l.pad_left = columns.before;
  l.pad_right = columns.after;
  if constexpr (requires { l.ceil_mode; }) l.ceil_mode = false;
}

Range rows(const FieldBox& b) { return {b.top, b.top + b.height}; }
Range columns(const FieldBox& b) { return {b.left, b.left + b.width}; }

// The layer of a step with what padding is left between its boxes; checked against the sizes of the boxes.
Layer layer_between(const Layer& layer, Shape in, const FieldBox& from, const FieldBox& to) {
  if (reach_of(layer) != Reach::windows) return layer;
  const Padding vertical = padding(windows_of(layer, true), rows(from), rows(to));
  const Padding horizontal = padding(windows_of(layer, false), columns(from), columns(to));
  Layer out = layer;
  std::visit(overloaded{
                 [&](Conv2d& l) { set_padding(l, vertical, horizontal); },
                 [&](MaxPool2d& l) { set_padding(l, vertical, horizontal); },
                 [&](AvgPool2d& l) { set_padding(l, vertical, horizontal); },
                 [](auto&) {},
             },
             out);
  const Shape x{1, in.c, from.height, from.width}, y = output_shape(out, {&x, 1});
  CHECK(y.h == to.height && y.w == to.width, "receptive field of {}: {}x{} gives {}x{}, not {}x{}", describe(layer),
        from.height, from.width, y.h, y.w, to.height, to.width);
  return out;
}

}  // namespace

std::vector<int64_t> Field::form() const {
  std::vector<int64_t> out;
  for (const FieldBox& box : boxes) out.insert(out.end(), {box.height, box.width});
  const auto add = [&](const auto& l) { out.insert(out.end(), {l.pad_top, l.pad_left, l.pad_bottom, l.pad_right}); };
  for (const Layer& layer : layers)
    std::visit(overloaded{
                   [&](const Conv2d& l) { add(l); },
                   [&](const MaxPool2d& l) { add(l); },
                   [&](const AvgPool2d& l) { add(l); },
                   [](const auto&) {},
               },
               layer);
  return out;
}

Field receptive_field(const Plan& plan, int node, int64_t row, int64_t column) {
  const Network& network = plan.network();
  const int value = plan.holder(node);
  const Shape shape = plan.shapes()[size_t(value)];
  CHECK(row >= 0 && row < shape.h && column >= 0 && column < shape.w, "{} has no place {},{}",
        network.nodes[size_t(node)].name, row, column);
  const std::vector<Range> rows = Axis(plan, true).solve(value, row), columns = Axis(plan, false).solve(value, column);
  Field field;
  for (size_t i = 0; i < rows.size(); ++i) {
    field.boxes.push_back({rows[i].begin, columns[i].begin, rows[i].size(), columns[i].size()});
    field.layers.push_back(network.nodes[i].layer);
  }
  for (const Step& step : plan.steps()) {
    const FieldBox box = field.boxes[size_t(step.output)];
    if (box.height == 0) continue;
    for (int inner : {step.node, step.batch_norm, step.relu})  // what the step made on the way
      if (inner >= 0) field.boxes[size_t(inner)] = box;
    field.layers[size_t(step.node)] = layer_between(network.nodes[size_t(step.node)].layer,
                                                    plan.shapes()[size_t(step.inputs[0])],
                                                    field.boxes[size_t(step.inputs[0])], box);
  }
  return field;
}

namespace {

// Bytes of one pixel of a slot, and of its planes: a clipped ReLU's gates have two.
int64_t pixel_bytes(const Tape::Slot& slot) {
  CHECK(slot.kind != Tape::Kind::value, "values of smooth layers cannot be cut out of a tape");
  return slot.kind == Tape::Kind::gate ? 4 * gate_words_per_pixel(slot.shape.c) : slot.shape.c * slot.element_bytes;
}
int64_t planes(const Tape::Slot& slot) { return slot.kind == Tape::Kind::gate && slot.clip != kNoClip ? 2 : 1; }

// The slots of a cut tape for n items; those outside of the field are left out.
std::vector<Tape::Slot> cut_slots(const Plan& plan, const Field& field, int64_t n, size_t& bytes) {
  std::vector<Tape::Slot> slots;
  bytes = 0;
  for (Tape::Slot slot : plan.slots()) {
    const FieldBox& box = field.boxes[size_t(slot.node)];
    if (box.height == 0) continue;
    slot.shape = {n, slot.shape.c, box.height, box.width};
    slot.offset = bytes;
    slot.bytes = size_t(slot.shape.pixels() * pixel_bytes(slot) * planes(slot));
    bytes += (slot.bytes + 63) / 64 * 64;
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
      const FieldBox& box = fields[size_t(p)]->boxes[size_t(slot.node)];
      corners.push_back({int32_t(items[size_t(p)]), int32_t(box.top), int32_t(box.left)});
    }
  ctx.copy_in(out.memory.as<char>() + corners_at, corners.data(), corners.size() * sizeof(Corner));
  const auto* on_device = reinterpret_cast<const Corner*>(out.memory.as<char>() + corners_at);
  for (const Tape::Slot& slot : out.slots) {
    const Shape map = tape.slot(slot.node).shape;
    const CutOut shape{map.h, map.w, slot.shape.h, slot.shape.w, pixel_bytes(slot)};
    for (int64_t plane = 0; plane < planes(slot); ++plane)
      cut_out(ctx, shape, static_cast<const char*>(tape.data(slot.node)) + plane * map.with_n(tape.n).pixels() * shape.pixel_bytes,
              on_device, n, static_cast<char*>(out.data(slot.node)) + plane * slot.shape.pixels() * shape.pixel_bytes);
    on_device += n;
  }
}

}  // namespace switchback
