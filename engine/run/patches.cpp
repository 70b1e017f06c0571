#include "engine/run/patches.h"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>

#include "kernels/check.h"

namespace switchback {
namespace {

const Layer& layer_of(const Network& network, int node) { return network.nodes[size_t(node)].layer; }

// How a layer's windows slide along one axis.
struct Slide {
  int64_t kernel, stride, pad, dilation;
};
template <typename L>
Slide slide_of(const L& l, bool vertical) {
  int64_t dilation = 1;
  if constexpr (requires { l.dilation_h; }) dilation = vertical ? l.dilation_h : l.dilation_w;
  return vertical ? Slide{l.kernel_h, l.stride_h, l.pad_top, dilation}
                  : Slide{l.kernel_w, l.stride_w, l.pad_left, dilation};
}

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// Outputs o whose taps o·stride − pad + k·dilation can meet `in`.
Interval through(const Slide& s, Interval in, int64_t outputs) {
  if (in.size() == 0) return {};
  const int64_t reach = (s.kernel - 1) * s.dilation;
  return {std::max<int64_t>(0, -floor_div(reach - in.begin - s.pad, s.stride)),
          std::min(outputs, floor_div(in.end - 1 + s.pad, s.stride) + 1)};
}

Interval both(Interval a, Interval b) {
  if (a.size() == 0) return b;
  if (b.size() == 0) return a;
  return {std::min(a.begin, b.begin), std::max(a.end, b.end)};
}

std::vector<int> sources(const Step& step) {
  std::vector<int> all = step.inputs;
  if (step.residual >= 0) all.push_back(step.residual);
  return all;
}

// Outputs p·stride − pad + k·dilation of a transposed convolution for the inputs p in `in`.
Interval spread(const Slide& s, Interval in, int64_t outputs) {
  if (in.size() == 0) return {};
  return {std::max<int64_t>(0, in.begin * s.stride - s.pad),
          std::min(outputs, (in.end - 1) * s.stride - s.pad + (s.kernel - 1) * s.dilation + 1)};
}

// From the first to the last output that is made of inputs in `in`. `back`: the outputs of each input, ascending.
Interval through(const Resampling::Table& back, Interval in) {
  Interval y{std::numeric_limits<int64_t>::max(), 0};
  for (int64_t i = in.begin; i < in.end; ++i) {
    const int32_t first = back.first[size_t(i)], last = back.first[size_t(i) + 1];
    if (first == last) continue;
    y = {std::min<int64_t>(y.begin, back.taps[size_t(first)].from),
         std::max<int64_t>(y.end, back.taps[size_t(last) - 1].from + 1)};
  }
  return y.size() ? y : Interval{};
}

// Sums and differences with a constant: a change passes through them.
bool passes_changes(const BinaryConstant& l) {
  return l.function == BinaryFunction::add || (l.function == BinaryFunction::sub && !l.reversed);
}
// Products with a constant, and quotients by one, act on a change as on a value.
bool is_linear(const BinaryConstant& l) {
  return l.function == BinaryFunction::mul || (l.function == BinaryFunction::div && !l.reversed);
}
bool is_linear(const Binary& l) { return l.function == BinaryFunction::add || l.function == BinaryFunction::sub; }

template <typename L, typename... Ls>
constexpr bool kOneOf = (std::is_same_v<L, Ls> || ...);
template <typename L>
constexpr bool kResamples = kOneOf<L, Resize, Pad, Slice, ChannelShuffle>;
template <typename L>
constexpr bool kSlides = kOneOf<L, Conv2d, MaxPool2d, AvgPool2d>;

// Whether a step's output at one place depends on its inputs at that place alone.
bool pointwise(const PatchNetwork& shared, const Step& step) {
  const Layer& layer = layer_of(shared.network(), step.node);
  const bool may_be = std::visit(
      []<typename L>(const L&) {
        return kOneOf<L, ReLU, BatchNorm2d, LocalResponseNorm, Softmax, Add, Concat, LeakyReLU, PReLU, Clip,
                      Hardsigmoid, Smooth, Binary, BinaryConstant, Reduce>;
      },
      layer);
  const Shape y = shared.shape(step.output);
  const auto same_places = [&](int value) { return shared.shape(value).h == y.h && shared.shape(value).w == y.w; };
  if (!may_be || !std::all_of(step.inputs.begin(), step.inputs.end(), same_places)) return false;
  const auto* constant = std::get_if<BinaryConstant>(&layer);  // one for each place is not cut into patches
  return !constant || passes_changes(*constant) || constant->shape.h * constant->shape.w == 1;
}

// Whether a step's outputs can be computed where its inputs change. (Others mix all places, and are given whole maps.)
bool keeps_patches(const PatchNetwork& shared, const Step& step) {
  const bool moves = std::visit(
      []<typename L>(const L&) { return kSlides<L> || kResamples<L> || kOneOf<L, ConvTranspose2d>; },
      layer_of(shared.network(), step.node));
  return moves || pointwise(shared, step);
}

// A convolution of changes on patches that hold all it reads.
template <typename C>
C on_patches(C conv) {
  conv.pad_top = conv.pad_left = conv.pad_bottom = conv.pad_right = 0;
  conv.has_bias = false;
  return conv;
}

}  // namespace

PatchNetwork::PatchNetwork(Context& ctx, const Network& network, Shape image, Precision precision, int target)
    : ctx_(&ctx),
      target_(target),
      base_(ctx, network, image.with_n(1), {.precision = precision, .observe = {target}, .tape = false, .given = {0}}),
      clean_plan_(ctx, network, image.with_n(1),
                  {.precision = precision, .observe = observed(), .tape = false, .given = {0}}),
      clean_offsets_(network.nodes.size(), kNowhere),
      memory_(ctx.gpu) {
  size_t bytes = 0;
  for (int node : observed()) {
    clean_offsets_[size_t(node)] = bytes;
    bytes += (size_t(shape(node).count()) * size_of(type()) + 63) / 64 * 64;
  }
  clean_ = ctx.allocate(bytes);
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
  return step.relu == step.node ? step.inputs[0] : base_.holder(network().nodes[size_t(step.relu)].inputs[0]);
}

ConstView PatchNetwork::clean(int node) const {
  CHECK(clean_offsets_[size_t(node)] != kNowhere, "{} is not kept by the clean pass",
        network().nodes[size_t(node)].name);
  return {clean_.as<char>() + clean_offsets_[size_t(node)], shape(node), type()};
}

void PatchNetwork::set_image(const float* image, const float* baseline) {
  write_nchw(*ctx_, baseline, {baseline_.data(), shape(0), type()});
  write_nchw(*ctx_, image, {image_.data(), shape(0), type()});
  const View input = clean_plan_.given(0, 1);
  ctx_->copy(input.data, image_.data(), image_.size());
  clean_plan_.forward();
  for (int node : observed())
    ctx_->copy(clean_.as<char>() + clean_offsets_[size_t(node)], clean_plan_.value(node).data,
               size_t(shape(node).count()) * size_of(type()));
  target_value_ = clean_plan_.read(target_);
}

double PatchNetwork::flops(const Step& step) const {
  const Layer& layer = layer_of(network(), step.node);
  if (!std::visit([]<typename L>(const L&) { return kOneOf<L, Conv2d, ConvTranspose2d, Linear>; }, layer)) return 0;
  const Shape x =
      std::holds_alternative<Linear>(layer) ? Shape{1, shape(step.inputs[0]).item(), 1, 1} : shape(step.inputs[0]);
  return double(switchback::flops(layer, std::span(&x, 1)));
}

std::vector<Interval> PatchNetwork::reach(Interval change, bool vertical) const {
  const auto extent = [&](int node) { return vertical ? shape(node).h : shape(node).w; };
  std::vector<Interval> all(network().nodes.size());
  all[0] = {std::max<int64_t>(0, change.begin), std::min(extent(0), change.end)};
  for (const Step& step : steps()) {
    const Layer& layer = layer_of(network(), step.node);
    const int64_t outputs = extent(step.output);
    Interval& y = all[size_t(step.output)];
    const Interval x = all[size_t(step.inputs[0])];
    std::visit(
        [&]<typename L>(const L& l) {
          if constexpr (kSlides<L>) {
            y = through(slide_of(l, vertical), x, outputs);
          } else if constexpr (kOneOf<L, ConvTranspose2d>) {
            y = spread(slide_of(l, vertical), x, outputs);
          } else if constexpr (kResamples<L>) {
            const Resampling::Tables& back = packed_resampling(network(), step.node, shape(step.inputs[0])).backward();
            y = through(vertical ? back.rows : back.columns, x);
          } else if (pointwise(*this, step)) {
            for (int value : step.inputs) y = both(y, all[size_t(value)]);
          } else {
            y = {0, outputs};
          }
        },
        layer);
    if (step.residual >= 0) y = both(y, all[size_t(step.residual)]);
  }
  return all;
}

// --- one group

struct PatchPlan::Op {
  const Step* step;
  // Buffers: what a layer reads that cannot read x's patches itself, and a binary function's second operand, or what a
  // transposed convolution gives before it is cut.
  int input = -1, other = -1;
  std::unique_ptr<ConvWeights> weights = nullptr;
  std::unique_ptr<ConvTransposeWeights> transposed = nullptr;
};

PatchPlan::PatchPlan(PatchNetwork& shared, std::span<const Box> boxes, int64_t capacity)
    : shared_(&shared), capacity_(capacity) {
  const size_t nodes = shared.network().nodes.size();
  CHECK(!boxes.empty() && capacity > 0, "{} boxes in runs of {}", boxes.size(), capacity);
  makers_.assign(nodes, nullptr);
  for (const Step& step : shared.steps()) makers_[size_t(step.output)] = &step;
  choose_sizes(boxes);
  add_ops();
  place_buffers();
  whole_ = std::make_unique<Plan>(
      shared.context(), shared.network(), shared.shape(0).with_n(capacity),
      PlanOptions{.precision = shared.precision(), .observe = {shared.target()}, .tape = false, .given = cuts_});
  boxes_ = shared.context().allocate(size_t(capacity) * sizeof(Box));
  origins_ = shared.context().allocate(places_.size() * size_t(capacity) * sizeof(Origin));
}

PatchPlan::~PatchPlan() = default;
PatchPlan::PatchPlan(PatchPlan&&) noexcept = default;

void PatchPlan::choose_sizes(std::span<const Box> boxes) {
  const Network& network = shared_->network();
  sizes_.assign(network.nodes.size(), {});
  for (const Box& box : boxes) {
    const std::vector<Interval> rows = shared_->rows({box.row, box.row + box.height});
    const std::vector<Interval> columns = shared_->columns({box.col, box.col + box.width});
    for (size_t i = 0; i < sizes_.size(); ++i)
      sizes_[i] = {std::max(sizes_[i].h, rows[i].size()), std::max(sizes_[i].w, columns[i].size())};
  }
  const auto decide = [&](int node, bool possible) {
    Size& s = sizes_[size_t(node)];
    const Shape map = shared_->shape(node);
    s = {std::max<int64_t>(s.h, 1), std::max<int64_t>(s.w, 1)};  // boxes that nothing sees still have patches
    if (!possible || double(s.h * s.w) > kMostOfMap * double(map.h * map.w)) s = {};
  };
  decide(0, true);
  for (const Step& step : shared_->steps()) {
    bool possible = keeps_patches(*shared_, step);
    for (int value : sources(step)) possible = possible && has_patch(value);
    decide(step.output, possible);
  }
}

int PatchPlan::add_buffer(int64_t channels, Size size, Places places, int op) {
  buffers_.push_back({{capacity_, channels, size.h, size.w}, int(places_.size()), op, op});
  places_.push_back(places);
  return int(buffers_.size()) - 1;
}

void PatchPlan::add_ops() {
  node_buffers_.assign(sizes_.size(), -1);
  if (has_patch(0)) node_buffers_[0] = add_buffer(shared_->shape(0).c, sizes_[0], {.node = 0}, -1);
  std::vector<bool> cut(sizes_.size(), false);
  for (const Step& step : shared_->steps()) {
    if (has_patch(step.output)) {
      add_op(step);
      // A transposed convolution multiplies for each input, others for each output.
      const bool transposed = std::holds_alternative<ConvTranspose2d>(layer_of(shared_->network(), step.node));
      const int node = transposed ? step.inputs[0] : step.output;
      const Shape map = shared_->shape(node);
      const Size size = sizes_[size_t(node)];
      flops_ += shared_->flops(step) * double(size.h * size.w) / double(map.h * map.w);
    } else {
      for (int value : sources(step)) cut[size_t(value)] = cut[size_t(value)] || has_patch(value) || value == 0;
      flops_ += shared_->flops(step);
    }
  }
  if (has_patch(shared_->target())) cut[size_t(shared_->target())] = true;
  for (size_t i = 0; i < cut.size(); ++i)
    if (cut[i]) cuts_.push_back(int(i));
}

void PatchPlan::add_op(const Step& step) {
  const int index = int(ops_.size());
  const Size size = sizes_[size_t(step.output)];
  Op op{.step = &step};
  for (int value : sources(step)) buffers_[size_t(node_buffers_[size_t(value)])].last = index;
  const auto add_input = [&](size_t i) {  // at the output's places
    return add_buffer(shared_->shape(step.inputs[i]).c, size, {.node = step.output}, index);
  };
  std::visit(
      [&]<typename L>(const L& l) {
        if constexpr (kOneOf<L, Conv2d, ConvTranspose2d>) {
          add_convolution(op, l, index);
        } else if constexpr (kOneOf<L, Binary>) {
          op.input = add_input(0);
          op.other = add_input(1);
        } else if constexpr (kOneOf<L, BinaryConstant>) {
          if (!passes_changes(l)) op.input = add_input(0);
        } else if constexpr (!kSlides<L> && !kResamples<L> && !kOneOf<L, ReLU, Add, Concat>) {
          op.input = add_input(0);
        }
      },
      layer_of(shared_->network(), step.node));
  node_buffers_[size_t(step.output)] = add_buffer(shared_->shape(step.output).c, size, {.node = step.output}, index);
  ops_.push_back(std::move(op));
}

// What the patches read, padding included: the convolution itself then has none.
void PatchPlan::add_convolution(Op& op, const Conv2d& conv, int index) {
  const int y = op.step->output;
  const Size size = sizes_[size_t(y)], read{(size.h - 1) * conv.stride_h + (conv.kernel_h - 1) * conv.dilation_h + 1,
                                            (size.w - 1) * conv.stride_w + (conv.kernel_w - 1) * conv.dilation_w + 1};
  op.input = add_buffer(conv.in_channels, read, {y, conv.stride_h, conv.stride_w, conv.pad_top, conv.pad_left}, index);
  op.weights = std::make_unique<ConvWeights>(
      packed_conv(shared_->network(), *op.step).without_bias(on_patches(conv)));
}

// All that the input's patches reach, cut to the output's afterwards: padding of this kind cuts.
void PatchPlan::add_convolution(Op& op, const ConvTranspose2d& conv, int index) {
  const int x = op.step->inputs[0];
  const Size size = sizes_[size_t(x)];
  ConvTranspose2d uncut = on_patches(conv);
  uncut.output_pad_h = uncut.output_pad_w = 0;
  const Shape reached = output_shape(uncut, {capacity_, conv.in_channels, size.h, size.w});
  op.input = add_buffer(conv.in_channels, size, {.node = x}, index);
  op.other = add_buffer(conv.out_channels, {reached.h, reached.w},
                        {x, conv.stride_h, conv.stride_w, conv.pad_top, conv.pad_left}, index);
  op.transposed = std::make_unique<ConvTransposeWeights>(
      packed_conv_transpose(shared_->network(), *op.step).without_bias(uncut));
}

void PatchPlan::place_buffers() {
  std::vector<Lifetime> lives;
  for (const Buffer& b : buffers_)
    lives.push_back({size_t(b.shape.count()) * size_of(shared_->type()), b.first, b.last});
  patch_bytes_ = place(lives, offsets_);
}

void PatchPlan::reserve() const {
  whole_->reserve(nullptr);
  shared_->memory().reserve(patch_bytes_);
}

size_t PatchPlan::bytes() const { return patch_bytes_ + whole_->arena_bytes() + boxes_.size() + origins_.size(); }

// --- running

void PatchPlan::write_origins(std::span<const Box> boxes) {
  std::vector<Origin> all(places_.size() * size_t(capacity_));
  for (size_t i = 0; i < boxes.size(); ++i) {
    const Box& box = boxes[i];
    const std::vector<Interval> rows = shared_->rows({box.row, box.row + box.height});
    const std::vector<Interval> columns = shared_->columns({box.col, box.col + box.width});
    for (size_t p = 0; p < places_.size(); ++p) {
      const Places& place = places_[p];
      const size_t node = size_t(place.node);
      const Shape map = shared_->shape(place.node);
      const Size size = sizes_[node];
      CHECK(rows[node].size() <= size.h && columns[node].size() <= size.w, "a box that is not of the plan's group");
      // Inside the map, so that patches near the border hold more of what does not change rather than what is not
      // there.
      const int64_t row = std::clamp<int64_t>(rows[node].begin, 0, map.h - size.h);
      const int64_t col = std::clamp<int64_t>(columns[node].begin, 0, map.w - size.w);
      all[p * size_t(capacity_) + i] = {int32_t(row * place.stride_h - place.pad_top),
                                        int32_t(col * place.stride_w - place.pad_left)};
    }
  }
  Context& ctx = shared_->context();
  ctx.copy_in(origins_.data(), all.data(), origins_.size());
  ctx.copy_in(boxes_.data(), boxes.data(), boxes.size_bytes());
}

View PatchPlan::view(int buffer, int64_t n) const {
  char* base = static_cast<char*>(shared_->memory().reserve(patch_bytes_));
  return {base + offsets_[size_t(buffer)], buffers_[size_t(buffer)].shape.with_n(n), shared_->type()};
}

const Origin* PatchPlan::origins(int buffer) const {
  return origins_.as<Origin>() + buffers_[size_t(buffer)].places * capacity_;
}

Change PatchPlan::change(int node, int64_t n) const {
  const int buffer = node_buffers_[size_t(node)];
  Change c{.patch = view(buffer, n), .origins = origins(buffer), .clean = shared_->image()};
  if (const Step* step = makers_[size_t(node)]) {
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
  ctx.tf32 = shared_->precision() == Precision::tf32;
  const auto hand_over = [&](int node) {  // to the plan of whole maps
    if (!std::binary_search(cuts_.begin(), cuts_.end(), node)) return;
    const View y = whole_->given(node, n);
    if (node > 0)
      expand_patches(ctx, change(node, n), y);
    else
      occlude_images(ctx, shared_->image(), shared_->baseline(), boxes_.as<Box>(), y);
  };
  if (has_patch(0))
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
  const int out = node_buffers_[size_t(step.output)];
  const View y = view(out, n);
  const Origin* places = origins(out);
  const Change x = change(step.inputs[0], n);
  const ConstView clean = shared_->clean(shared_->before_relu(step));
  const View in = op.input >= 0 ? view(op.input, n) : View(), other = op.other >= 0 ? view(op.other, n) : View();
  const auto gather = [&](bool linear, const Change& from, View to) {
    if (linear) gather_changes(ctx, from, places, to);
    else gather_values(ctx, from, places, to);
  };
  // Linear layers act on Δ; with others the change is f(x + Δ) − f(x).
  const auto act = [&](bool linear, const auto& run) {
    gather(linear, x, in);
    run();
    if (!linear) subtract_clean(ctx, clean, places, y);
  };
  const auto slopes = [&](const Slopes& s) { act(false, [&] { slope_forward(ctx, s, in, y, nullptr); }); };
  const auto ramp = [&](const Ramp& r) { act(false, [&] { ramp_forward(ctx, r, in, y, nullptr); }); };
  const auto resample = [&] {
    resample_changes(ctx, packed_resampling(shared_->network(), step.node, x.clean.shape), x, places, y);
  };
  std::visit(overloaded{
                 [&](const Conv2d&) {
                   gather_changes(ctx, x, origins(op.input), in);
                   conv2d_forward(ctx, *op.weights, in, y);
                 },
                 [&](const ConvTranspose2d&) {
                   gather_changes(ctx, x, origins(op.input), in);
                   conv_transpose2d_forward(ctx, *op.transposed, in, other);
                   gather_changes(ctx, {.patch = other, .origins = origins(op.other), .clean = clean}, places, y);
                 },
                 [&](const MaxPool2d& l) { max_pool2d_changes(ctx, l, x, clean, places, y); },
                 [&](const AvgPool2d& l) { avg_pool2d_changes(ctx, l, x, places, y); },
                 [&](const ReLU&) { gather_changes(ctx, x, places, y); },
                 [&](const BatchNorm2d&) {
                   const AffineWeights& bn = packed_affine(shared_->network(), step.node);
                   act(true, [&] { channel_affine_forward(ctx, in, bn.scale_on(ctx), nullptr, y); });
                 },
                 [&](const LocalResponseNorm& l) { act(false, [&] { lrn_forward(ctx, l, in, y); }); },
                 [&](const Softmax&) { act(false, [&] { softmax_forward(ctx, in, y); }); },
                 [&](const LeakyReLU& l) { slopes({.all = l.slope}); },
                 [&](const PReLU&) { slopes(packed_slopes(ctx, shared_->network(), step.node)); },
                 [&](const Clip& l) { ramp(l); },
                 [&](const Hardsigmoid& l) { ramp(l); },
                 [&](const Smooth& l) { act(false, [&] { smooth_forward(ctx, l, in, y); }); },
                 [&](const Reduce& l) { act(true, [&] { reduce_forward(ctx, l, in, y); }); },
                 [&](const Resize&) { resample(); },
                 [&](const Pad&) { resample(); },
                 [&](const Slice&) { resample(); },
                 [&](const ChannelShuffle&) { resample(); },
                 [&](const Add&) {
                   gather_changes(ctx, x, places, y);
                   add_changes(ctx, change(step.inputs[1], n), places, y);
                 },
                 [&](const Binary& l) {
                   gather(is_linear(l), change(step.inputs[1], n), other);
                   act(is_linear(l), [&] { binary_forward(ctx, l, in, other, y); });
                 },
                 [&](const BinaryConstant& l) {
                   if (passes_changes(l)) return gather_changes(ctx, x, places, y);
                   ConstView a = in, b = packed_constant(ctx, shared_->network(), step.node);
                   if (l.reversed) std::swap(a, b);
                   act(is_linear(l), [&] { binary_forward(ctx, {l.function}, a, b, y); });
                 },
                 [&](const Concat&) {
                   int64_t channel = 0;
                   for (int value : step.inputs) {
                     gather_changes(ctx, change(value, n), places, y, channel);
                     channel += shared_->shape(value).c;
                   }
                 },
                 [&](const auto&) { fail("{} has no patches", type_name(layer_of(shared_->network(), step.node))); },
             },
             layer_of(shared_->network(), step.node));
  if (step.residual >= 0) add_changes(ctx, change(step.residual, n), places, y);
}

std::string PatchPlan::describe() const {
  std::string text;
  for (const Step& step : shared_->steps()) {
    const Size s = sizes_[size_t(step.output)];
    const Shape map = shared_->shape(step.output);
    text += fmt::format("{:<28} {} of {}x{}\n", shared_->network().nodes[size_t(step.output)].name,
                        s.h ? fmt::format("{}x{}", s.h, s.w) : "all", map.h, map.w);
  }
  return text;
}

}  // namespace switchback
