#include "engine/run/patches.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/check.h"

namespace switchback {
namespace {

// From the first to the last output that is made of inputs in `in`.
Interval through(const Resampling::Table& back, Interval in) {
  Interval y{std::numeric_limits<int64_t>::max(), 0};
  for (int64_t i = in.begin; i < in.end; ++i) {
    const int32_t first = back.first[i], last = back.first[size_t(i) + 1];
    if (first == last) continue;
    y = {std::min<int64_t>(y.begin, back.taps[first].from),
         std::max<int64_t>(y.end, back.taps[size_t(last) - 1].from + 1)};
  }
  return y.empty() ? Interval{} : y;
}

Interval outputs_of(const Reach& r, Interval in, int64_t outputs) {
  if (r.kind == Reach::Kind::all) return {0, outputs};
  if (in.empty()) return {};
  switch (r.kind) {
    case Reach::Kind::same: return in;
    case Reach::Kind::window: return r.axis.through(in, outputs);
    case Reach::Kind::spread: return r.axis.spread(in, outputs);
    case Reach::Kind::table: return through(*r.back, in);
    case Reach::Kind::all: break;
  }
  return {0, outputs};
}

}  // namespace

PatchNetwork::PatchNetwork(Context& ctx, const Model& model, Shape image, Precision precision, int target)
    : ctx_(&ctx),
      model_(model),
      target_(target),
      base_(ctx, model, image.with_n(1), {.precision = precision, .observe = {target}, .tape = false, .given = {0}}),
      rows_(reaches(true)),
      columns_(reaches(false)),
      clean_plan_(ctx, model, image.with_n(1), {.precision = precision, .observe = observed(), .tape = false, .given = {0}}),
      memory_(ctx.gpu) {
  const size_t image_bytes = size_t(shape(0).count()) * size_of(type());
  image_ = ctx.allocate(image_bytes);
  baseline_ = ctx.allocate(image_bytes);
}

// What the clean pass keeps: every map before its ReLU, and the target.
std::vector<int> PatchNetwork::observed() const {
  std::vector<int> nodes{target_};
  for (const Step& step : steps()) nodes.push_back(before_relu(step));
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  return nodes;
}

int PatchNetwork::before_relu(const Step& step) const {
  if (step.relu < 0) return step.output;
  return step.relu == step.node ? step.inputs[0] : base_.holder(network().nodes[step.relu].inputs[0]);
}

ConstView PatchNetwork::clean(int node) const { return clean_plan_.value(node); }

void PatchNetwork::set_image(const float* image, const float* baseline) {
  write_nchw(*ctx_, baseline, {baseline_.data(), shape(0), type()});
  write_nchw(*ctx_, image, {image_.data(), shape(0), type()});
  const View input = clean_plan_.given(0, 1);
  ctx_->copy(input.data, image_.data(), image_.size());
  clean_plan_.forward();
  target_value_ = clean_plan_.read(target_);
}

double PatchNetwork::flops(const Step& step) const {
  const Layer& layer = base_.layer(step);
  if (!facts(layer).multiplies) return 0;
  Shape x = shape(step.inputs[0]);
  if (facts(layer).output == Facts::Output::vector) x = {1, x.item(), 1, 1};  // a linear layer that reads a map
  return double(switchback::flops(layer, {&x, 1}));
}

List<Reach> PatchNetwork::reaches(bool vertical) const {
  List<Reach> all;
  for (const Step& step : steps()) {
    std::vector<Shape> x;
    for (int value : step.inputs) x.push_back(shape(value));
    all.push_back(switchback::reach(base_.layer(step), x, vertical));
    const auto elsewhere = [y = shape(step.output)](Shape s) { return s.h != y.h || s.w != y.w; };
    if (all.back().kind == Reach::Kind::same && std::any_of(x.begin(), x.end(), elsewhere)) all.back() = {};
  }
  return all;
}

List<Interval> PatchNetwork::spread(Interval change, bool vertical) const {
  const auto extent = [&](int node) { return vertical ? shape(node).h : shape(node).w; };
  List<Interval> all(network().nodes.size());
  all[0] = within(change, extent(0));
  for (const Step& step : steps()) {
    Interval& y = all[step.output];
    for (int value : step.inputs) y = hull(y, outputs_of(reach(step, vertical), all[value], extent(step.output)));
    if (step.sum >= 0) y = hull(y, all[step.sum]);
  }
  return all;
}

// --- one group

struct PatchPlan::Op {
  const Step* step;
  std::vector<int> scratch;  // buffers
};

PatchPlan::PatchPlan(PatchNetwork& shared, std::span<const Box> boxes, int64_t capacity)
    : shared_(&shared), capacity_(capacity) {
  const size_t nodes = shared.network().nodes.size();
  CHECK(!boxes.empty() && capacity > 0, "{} boxes in runs of {}", boxes.size(), capacity);
  makers_.assign(nodes, nullptr);
  for (const Step& step : shared.steps()) makers_[step.output] = &step;
  choose_sizes(boxes);
  add_ops();
  place_buffers();
  whole_ = std::make_unique<Plan>(
      shared.context(), shared.model(), shared.shape(0).with_n(capacity),
      PlanOptions{.precision = shared.precision(), .observe = {shared.target()}, .tape = false, .given = cuts_});
  boxes_ = shared.context().allocate(size_t(capacity) * sizeof(Box));
  origins_ = shared.context().allocate(places_.size() * size_t(capacity) * sizeof(Origin));
}

PatchPlan::~PatchPlan() = default;
PatchPlan::PatchPlan(PatchPlan&&) noexcept = default;

void PatchPlan::choose_sizes(std::span<const Box> boxes) {
  sizes_.assign(shared_->network().nodes.size(), {});
  for (const Box& box : boxes) {
    const List<Interval> rows = shared_->rows({box.row, box.row + box.height});
    const List<Interval> columns = shared_->columns({box.col, box.col + box.width});
    for (int i = 0; i < sizes_.count(); ++i)
      sizes_[i] = {std::max(sizes_[i].h, rows[i].size()), std::max(sizes_[i].w, columns[i].size())};
  }
  const auto decide = [&](int node, bool possible) {
    PatchSize& s = sizes_[node];
    const Shape map = shared_->shape(node);
    s = {std::max<int64_t>(s.h, 1), std::max<int64_t>(s.w, 1)};  // boxes that nothing sees still have patches
    if (!possible || double(s.h * s.w) > kMostOfMap * double(map.h * map.w)) s = {};
  };
  decide(0, true);
  for (const Step& step : shared_->steps()) {
    bool possible = shared_->reach(step, true).kind != Reach::Kind::all;
    for (int value : step.sources()) possible = possible && patched(value);
    decide(step.output, possible);
  }
}

int PatchPlan::add_buffer(int64_t channels, PatchSize size, Places places, int op) {
  buffers_.push_back({{capacity_, channels, size.h, size.w}, int(places_.size()), op, op});
  places_.push_back(places);
  return int(buffers_.size()) - 1;
}

void PatchPlan::add_ops() {
  node_buffers_.assign(sizes_.size(), -1);
  if (patched(0)) node_buffers_[0] = add_buffer(shared_->shape(0).c, sizes_[0], {.node = 0}, -1);
  List<bool> cut(sizes_.size(), false);
  for (const Step& step : shared_->steps()) {
    if (patched(step.output)) {
      add_op(step);
      // A transposed convolution multiplies for each input, others for each output.
      const bool transposed = shared_->reach(step, true).kind == Reach::Kind::spread;
      const int node = transposed ? step.inputs[0] : step.output;
      const Shape map = shared_->shape(node);
      flops_ += shared_->flops(step) * double(sizes_[node].h * sizes_[node].w) / double(map.h * map.w);
    } else {
      for (int value : step.sources()) cut[value] = cut[value] || patched(value) || value == 0;
      flops_ += shared_->flops(step);
    }
  }
  if (patched(shared_->target())) cut[shared_->target()] = true;
  for (int i = 0; i < cut.count(); ++i)
    if (cut[i]) cuts_.push_back(i);
}

void PatchPlan::add_op(const Step& step) {
  const int index = int(ops_.size());
  const PatchSize size = sizes_[step.output];
  for (int value : step.sources()) buffers_[node_buffers_[value]].last = index;
  std::vector<Shape> x;
  for (int value : step.inputs) x.push_back(shared_->shape(value));
  Op op{.step = &step, .scratch = {}};
  for (const PatchScratch& s : scratch(shared_->plan().layer(step), x, sizes_[step.inputs[0]], size))
    op.scratch.push_back(add_buffer(s.channels, s.size, {s.at_input ? step.inputs[0] : step.output, s.stride_h, s.stride_w,
                                                         s.pad_top, s.pad_left}, index));
  node_buffers_[step.output] = add_buffer(shared_->shape(step.output).c, size, {.node = step.output}, index);
  ops_.push_back(std::move(op));
}

void PatchPlan::place_buffers() {
  List<Lifetime> lives;
  for (const Buffer& b : buffers_)
    lives.push_back({size_t(b.shape.count()) * size_of(shared_->type()), b.first, b.last});
  patch_bytes_ = place(lives, offsets_);
}

void PatchPlan::reserve() const {
  whole_->reserve(nullptr);
  shared_->memory().reserve(patch_bytes_);
}

size_t PatchPlan::bytes() const {
  return patch_bytes_ + whole_->arena_bytes() + whole_->own_bytes() + boxes_.size() + origins_.size();
}

// --- running

void PatchPlan::write_origins(std::span<const Box> boxes) {
  std::vector<Origin> all(places_.size() * size_t(capacity_));
  for (size_t i = 0; i < boxes.size(); ++i) {
    const Box& box = boxes[i];
    const List<Interval> rows = shared_->rows({box.row, box.row + box.height});
    const List<Interval> columns = shared_->columns({box.col, box.col + box.width});
    for (int p = 0; p < places_.count(); ++p) {
      const Places& place = places_[p];
      const int node = place.node;
      const Shape map = shared_->shape(place.node);
      const PatchSize size = sizes_[node];
      CHECK(rows[node].size() <= size.h && columns[node].size() <= size.w, "a box that is not of the plan's group");
      // Inside the map, so that patches near the border hold more of what does not change rather than what is not
      // there.
      const int64_t row = std::clamp<int64_t>(rows[node].begin, 0, map.h - size.h);
      const int64_t col = std::clamp<int64_t>(columns[node].begin, 0, map.w - size.w);
      all[size_t(p) * size_t(capacity_) + i] = {int32_t(row * place.stride_h - place.pad_top),
                                        int32_t(col * place.stride_w - place.pad_left)};
    }
  }
  Context& ctx = shared_->context();
  ctx.copy_in(origins_.data(), all.data(), origins_.size());
  ctx.copy_in(boxes_.data(), boxes.data(), boxes.size_bytes());
}

View PatchPlan::view(int buffer, int64_t n) const {
  char* base = static_cast<char*>(shared_->memory().reserve(patch_bytes_));
  return {base + offsets_[buffer], buffers_[buffer].shape.with_n(n), shared_->type()};
}

const Origin* PatchPlan::origins(int buffer) const {
  return origins_.as<Origin>() + buffers_[buffer].places * capacity_;
}

Change PatchPlan::change(int node, int64_t n) const {
  const int buffer = node_buffers_[node];
  Change c{.patch = view(buffer, n), .origins = origins(buffer), .clean = shared_->image()};
  if (const Step* step = makers_[node]) {
    c.clean = shared_->clean(shared_->before_relu(*step));
    c.relu = step->relu >= 0;
    c.clip = step->clip;
  }
  return c;
}

Tensor PatchPlan::run(std::span<const Box> boxes) {
  const int64_t n = int64_t(boxes.size());
  CHECK(n > 0 && n <= capacity_, "{} boxes for a plan of {}", n, capacity_);
  Context& ctx = shared_->context();
  write_origins(boxes);
  reserve();
  const void* memory = shared_->memory().data();
  for (int node : cuts_) whole_->given(node, n);  // a replayed run does not say how many items there are
  if (n < capacity_) {
    run_ops(n);
  } else {
    if (memory != recorded_on_) recording_ = Recording();
    recorded_on_ = memory;
    recording_.run(ctx, [&] { run_ops(n); });
  }
  return whole_->read(shared_->target());
}

void PatchPlan::run_ops(int64_t n) {
  Context& ctx = shared_->context();
  const auto hand_over = [&](int node) {  // to the plan of whole maps
    if (!std::binary_search(cuts_.begin(), cuts_.end(), node)) return;
    const View y = whole_->given(node, n);
    if (node > 0)
      expand_patches(ctx, change(node, n), y);
    else
      occlude_images(ctx, shared_->image(), shared_->baseline(), boxes_.as<Box>(), y);
  };
  if (patched(0))
    occlude_patches(ctx, shared_->image(), shared_->baseline(), boxes_.as<Box>(), origins(node_buffers_[0]),
                    view(node_buffers_[0], n));
  hand_over(0);
  for (const Op& op : ops_) {
    run_op(op, n);
    hand_over(op.step->output);
  }
  if (!whole_->steps().empty()) whole_->forward();
}

void PatchPlan::run_op(const Op& op, int64_t n) {
  Context& ctx = shared_->context();
  const Step& step = *op.step;
  std::vector<Change> x;
  for (int value : step.inputs) x.push_back(change(value, n));
  std::vector<View> scratch;
  std::vector<const Origin*> scratch_places;
  for (int buffer : op.scratch) {
    scratch.push_back(view(buffer, n));
    scratch_places.push_back(origins(buffer));
  }
  const std::vector<ConstView> read(scratch.begin(), scratch.end());
  const int out = node_buffers_[step.output];
  const View y = view(out, n);
  switchback::change(shared_->plan().layer(step),
                     {.ctx = ctx, .x = x, .y = y, .places = origins(out), .clean = shared_->clean(shared_->before_relu(step)),
                      .scratch = scratch, .read = read, .scratch_places = scratch_places,
                      .tf32 = shared_->plan().tf32(), .weights = shared_->plan().weights(step)});
  if (step.sum >= 0) add_changes(ctx, change(step.sum, n), origins(out), y);
}

std::string PatchPlan::describe() const {
  std::string text;
  for (const Step& step : shared_->steps()) {
    const PatchSize s = sizes_[step.output];
    const Shape map = shared_->shape(step.output);
    text += fmt::format("{:<28} {} of {}x{}\n", shared_->network().nodes[step.output].name,
                        s.h ? fmt::format("{}x{}", s.h, s.w) : "all", map.h, map.w);
  }
  return text;
}

}  // namespace switchback
