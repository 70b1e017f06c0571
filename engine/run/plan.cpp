#include "engine/run/plan.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "engine/run/segments.h"
#include "engine/run/step.h"
#include "kernels/device/device_ops.h"
#include "kernels/pointwise/pointwise.h"

namespace switchback {
namespace {

template <typename L>
bool is(const Network& network, int node) {
  return std::holds_alternative<L>(network.nodes[size_t(node)].layer);
}

bool is_convolution(const Network& network, int node) {
  return is<Conv2d>(network, node) || is<ConvTranspose2d>(network, node);
}

bool takes_relu(const Network& network, const Step& step) {
  return step.relu < 0 && (is_convolution(network, step.node) || is<Linear>(network, step.node) ||
                           is<MaxPool2d>(network, step.node) || is<Add>(network, step.node) ||
                           is<BatchNorm2d>(network, step.node) || is<Binary>(network, step.node) ||
                           is<BinaryConstant>(network, step.node));
}

// Groups nodes into steps, in the order in which they can run. A node joins the step that makes its input where that
// input has no other reader and nobody wants to see it.
std::vector<Step> fuse(const Network& network, const std::vector<int>& holder, const std::vector<bool>& observed) {
  const int count = int(network.nodes.size());
  std::vector<int> readers(size_t(count), 0), maker(size_t(count), -1);
  for (const Node& node : network.nodes)
    for (int i : node.inputs) ++readers[size_t(holder[size_t(i)])];
  for (int i = 0; i < count; ++i)  // a dropout reads its input without being a step
    if (holder[size_t(i)] != i) --readers[size_t(holder[size_t(network.nodes[size_t(i)].inputs[0])])];
  std::vector<Step> steps;
  const auto joinable = [&](int value) -> Step* {
    const int step = maker[size_t(value)];
    return step >= 0 && readers[size_t(value)] == 1 && !observed[size_t(value)] ? &steps[size_t(step)] : nullptr;
  };
  const auto extend = [&](Step& step, int node) {
    step.output = node;
    maker[size_t(node)] = int(&step - steps.data());
  };
  for (int i = 1; i < count; ++i) {
    if (holder[size_t(i)] != i) continue;
    const Node& node = network.nodes[size_t(i)];
    std::vector<int> inputs;
    for (int input : node.inputs) inputs.push_back(holder[size_t(input)]);
    if (is<BatchNorm2d>(network, i)) {
      Step* step = joinable(inputs[0]);
      if (step && step->node == inputs[0] && is_convolution(network, step->node)) {
        step->batch_norm = i;
        extend(*step, i);
        continue;
      }
    } else if (is<Add>(network, i) && inputs[0] != inputs[1]) {
      bool joined = false;
      for (int side = 0; side < 2 && !joined; ++side) {
        Step* step = joinable(inputs[size_t(side)]);
        if (!step || !is_convolution(network, step->node) || step->relu >= 0 || step->residual >= 0) continue;
        step->residual = inputs[size_t(1 - side)];
        extend(*step, i);
        joined = true;
      }
      if (joined) continue;
    } else if (const auto* relu = std::get_if<ReLU>(&node.layer)) {
      Step* step = joinable(inputs[0]);
      if (step && takes_relu(network, *step)) {
        step->relu = i;
        step->clip = relu->clip;
        extend(*step, i);
        continue;
      }
    }
    Step step{.node = i, .output = i, .inputs = std::move(inputs)};
    if (const auto* relu = std::get_if<ReLU>(&node.layer)) step.relu = i, step.clip = relu->clip;
    steps.push_back(std::move(step));
    maker[size_t(i)] = int(steps.size()) - 1;
  }
  // A step runs where its last node stood: its residual may have been made after its convolution's place.
  std::stable_sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return a.output < b.output; });
  return steps;
}

// Marks max pools that the kernel of the convolution before them does as well.
void fuse_pools(Context& ctx, const Network& network, const std::vector<Shape>& shapes, const std::vector<bool>& observed,
                DType type, std::vector<Step>& steps) {
  std::vector<int> readers(network.nodes.size(), 0);
  for (const Step& step : steps) {
    for (int value : step.inputs) ++readers[size_t(value)];
    if (step.residual >= 0) ++readers[size_t(step.residual)];
  }
  for (size_t i = 0; i + 1 < steps.size(); ++i) {
    Step &step = steps[i], &next = steps[i + 1];
    const auto* conv = std::get_if<Conv2d>(&network.nodes[size_t(step.node)].layer);
    const auto* pool = std::get_if<MaxPool2d>(&network.nodes[size_t(next.node)].layer);
    if (!conv || !pool || next.inputs[0] != step.output || readers[size_t(step.output)] != 1 ||
        observed[size_t(step.output)] || step.residual >= 0 || (step.relu >= 0 && next.relu >= 0))
      continue;
    if (!conv2d_fuses_pool(ctx, *conv, shapes[size_t(step.inputs[0])], type, *pool)) continue;
    step.with_next_pool = next.done_with_previous = true;
  }
}

size_t value_bytes(Shape s, Precision p) { return size_t(s.count()) * size_of(activation_type(p)); }

// What a step leaves on the tape.
void add_slots(const Network& network, const std::vector<Shape>& shapes, const Step& step, Precision precision,
               std::vector<Tape::Slot>& slots, size_t& bytes) {
  const auto add = [&](Tape::Kind kind, int node, Shape shape, size_t size, int element, float clip) {
    slots.push_back({kind, node, shape, bytes, size, element, clip});
    bytes += (size + 63) / 64 * 64;
  };
  const DType type = activation_type(precision);
  const auto gates = [&](int node, float clip) {
    const Shape s = shapes[size_t(node)];
    add(Tape::Kind::gate, node, s, size_t(gate_words(s)) * 4 * (clip == kNoClip ? 1 : 2), 0, clip);
  };
  const auto switches = [&](const MaxPool2d& pool) {
    const Shape y = shapes[size_t(step.node)];
    add(Tape::Kind::switches, step.node, y, size_t(y.count()) * pool.switch_bytes(), int(pool.switch_bytes()), kNoClip);
  };
  const auto value = [&](int node, size_t bytes_before = 0) {
    const Shape s = shapes[size_t(node)];
    add(Tape::Kind::value, step.node, s, bytes_before + value_bytes(s, precision), int(size_of(type)), kNoClip);
  };
  const Shape x = shapes[size_t(step.inputs[0])];
  std::visit(overloaded{
                 [&](const MaxPool2d& l) { switches(l); },
                 [&](const GlobalMaxPool&) { switches(whole_map_pool(x)); },
                 [&](const LocalResponseNorm&) { value(step.node); },
                 [&](const Softmax&) { value(step.node); },
                 [&](const Smooth&) { value(step.node); },
                 [&](const LeakyReLU&) { gates(step.node, kNoClip); },
                 [&](const PReLU&) { gates(step.node, kNoClip); },
                 [&](const Clip& l) { gates(step.node, l.max); },
                 [&](const Hardsigmoid&) { gates(step.node, 1.f); },
                 [&](const Binary& l) {
                   if (keeps_operands(l)) value(step.inputs[1], second_operand(x, type));
                 },
                 [&](const BinaryConstant& l) {
                   if (keeps_operand(l)) value(step.inputs[0]);
                 },
                 [](const auto&) {},
             },
             network.nodes[size_t(step.node)].layer);
  if (step.relu >= 0) gates(step.relu, step.clip);
}

}  // namespace

void check_precision(const Context& ctx, Precision precision) {
  if (ctx.gpu || precision == Precision::fp32) return;
  if (precision != Precision::bf16)
    throw Error(fmt::format("{} runs on GPUs only", precision == Precision::tf32 ? "tf32" : "fp16"),
                "use --device cuda, or fp32 or bf16 on the CPU");
  if (!cpu_features().fast_bf16())
    throw Error(fmt::format("bf16 on the CPU needs AVX512-BF16 or AMX; this processor ({}) has neither", cpu_features().name),
                "use fp32");
}

Plan::Plan(Context& ctx, const Network& network, Shape input, const PlanOptions& options)
    : ctx_(&ctx), network_(&network), options_(options), shapes_(network.shapes(input)) {
  CHECK(input.n > 0, "a plan for a batch of {}", input.n);
  check_precision(ctx, options.precision);
  std::vector<bool> seen(network.nodes.size(), false);
  if (options.given.empty()) {
    options_.observe.push_back(0);
    options_.observe.push_back(network.output());
  }
  std::vector<int> wanted = options_.observe;
  wanted.insert(wanted.end(), options.given.begin(), options.given.end());
  holders_ = holders(network, shapes_, wanted, ctx.gpu != nullptr);
  for (int node : wanted) seen[size_t(holder(node))] = true;
  steps_ = fuse(network, holders_, seen);
  if (!options.given.empty()) drop_steps();
  if (ctx.gpu) fuse_pools(ctx, network, shapes_, seen, activation_type(options.precision), steps_);

  parts_.resize(network.nodes.size());
  if (ctx.gpu) find_parts(seen);

  std::vector<Lifetime> lives(network.nodes.size());
  const int end = int(steps_.size());
  lives[0] = {options.given.empty() ? value_bytes(shapes_[0], options.precision) : 0, -1, seen[0] ? end : -1};
  for (int node : options.given)
    lives[size_t(node)] = {value_bytes(shapes_[size_t(node)], options.precision), -1, observed(node) ? end : -1};
  for (int i = 0; i < end; ++i) {
    const Step& step = steps_[size_t(i)];
    // Where the next step's pool is done with this one, only the pooled map is ever written, and already here.
    lives[size_t(step.output)] = {step.with_next_pool ? 0 : value_bytes(shapes_[size_t(step.output)], options.precision),
                                  i - (step.done_with_previous ? 1 : 0), seen[size_t(step.output)] ? end : i};
    if (is<Concat>(network, step.node))  // parts written in place are there earlier
      for (int value : step.inputs)
        if (parts_[size_t(value)].whole == step.output) {
          lives[size_t(step.output)].first = std::min(lives[size_t(step.output)].first, lives[size_t(value)].first);
          lives[size_t(value)].bytes = 0;
        }
    for (int value : step.inputs) lives[size_t(value)].last = std::max(lives[size_t(value)].last, i);
    if (step.residual >= 0) lives[size_t(step.residual)].last = std::max(lives[size_t(step.residual)].last, i);
    if (options.tape) add_slots(network, shapes_, step, options.precision, slots_, tape_bytes_);
  }
  divide(seen, lives);
  arena_bytes_ = place(lives, offsets_);
}

// Into segments that run on a few items at a time, and the memory that their values then need.
void Plan::divide(const std::vector<bool>& seen, std::vector<Lifetime>& lives) {
  const int64_t all = capacity();
  local_.assign(lives.size(), false);
  segments_ = {{0, int(steps_.size()) - 1, all}};
  if (ctx_->gpu || all == 1) return;
  std::vector<bool> whole(steps_.size(), false);
  for (size_t i = 0; i < steps_.size(); ++i)  // the second plane of their gates lies behind all items' first ones
    whole[i] = options_.tape && (is<Clip>(*network_, steps_[i].node) || is<Hardsigmoid>(*network_, steps_[i].node));
  segments_ = cache_segments(*network_, steps_, shapes_, activation_type(options_.precision), whole);
  local_ = confine(segments_, steps_, seen, all, lives);
  for (const Segment& segment : segments_)
    for (int i = segment.first; i <= segment.last; ++i)
      if (const size_t value = size_t(steps_[size_t(i)].output); local_[value])
        lives[value].bytes = lives[value].bytes / size_t(all) * size_t(segment.items);
}

Plan::~Plan() = default;
Plan::Plan(Plan&&) noexcept = default;
const std::vector<Step>& Plan::steps() const { return steps_; }

bool Plan::observed(int node) const {
  return std::any_of(options_.observe.begin(), options_.observe.end(), [&](int o) { return holder(o) == holder(node); });
}

View Plan::input(int64_t n) {
  CHECK(n > 0 && n <= capacity(), "{} items for a plan of {}", n, capacity());
  n_ = count_ = n;
  char* base = static_cast<char*>(ctx_->arena.reserve(arena_bytes_));
  return {base + offsets_[0], shapes_[0].with_n(n), activation_type(options_.precision)};
}

View Plan::given(int node, int64_t n) {
  const std::vector<int>& all = options_.given;
  CHECK(std::find(all.begin(), all.end(), node) != all.end(), "{} is not given to this plan",
        network_->nodes[size_t(node)].name);
  CHECK(n > 0 && n <= capacity(), "{} items for a plan of {}", n, capacity());
  n_ = count_ = n;
  return view(node);
}

void Plan::write(const float* x, int64_t n) { write_nchw(*ctx_, x, input(n)); }

ConstView Plan::value(int node) const {
  CHECK(observed(node), "{} was not observed by this plan", network_->nodes[size_t(node)].name);
  const char* base = static_cast<const char*>(ctx_->arena.reserve(arena_bytes_));
  return {base + offsets_[size_t(holder(node))], shapes_[size_t(node)].with_n(n_), activation_type(options_.precision)};
}

void Plan::reserve(Tape* tape) const {
  ctx_->arena.reserve(arena_bytes_);
  if (!tape || (tape->memory.size() >= tape_bytes_ && tape->memory.gpu() == ctx_->gpu)) return;
  tape->memory = Memory();  // first give back
  tape->memory = ctx_->allocate(tape_bytes_);
}

namespace {

// Features rather than maps: what comes out of flatten or a linear layer, and what keeps its shape behind that.
bool is_vector(const Network& network, int node) {
  std::vector<bool> vector(size_t(node) + 1, false);
  for (size_t i = 0; i < vector.size(); ++i) {
    const Node& n = network.nodes[i];
    const bool makes = std::holds_alternative<Linear>(n.layer) || std::holds_alternative<Flatten>(n.layer);
    const bool keeps = std::holds_alternative<ReLU>(n.layer) || std::holds_alternative<Dropout>(n.layer) ||
                       std::holds_alternative<Softmax>(n.layer) || std::holds_alternative<Add>(n.layer) ||
                       std::holds_alternative<Concat>(n.layer) ||
                       std::holds_alternative<BatchNorm2d>(n.layer) || std::holds_alternative<LeakyReLU>(n.layer) ||
                       std::holds_alternative<PReLU>(n.layer) || std::holds_alternative<Clip>(n.layer) ||
                       std::holds_alternative<Hardsigmoid>(n.layer) || std::holds_alternative<Smooth>(n.layer) ||
                       std::holds_alternative<Binary>(n.layer) || std::holds_alternative<BinaryConstant>(n.layer) ||
                       std::holds_alternative<Slice>(n.layer);
    const auto is_vector = [&](int input) { return vector[size_t(input)]; };  // a map with a vector is a map
    vector[i] = makes || (keeps && std::all_of(n.inputs.begin(), n.inputs.end(), is_vector));
  }
  return vector[size_t(node)];
}

}  // namespace

Dims Plan::dims(int node) const {
  const Shape s = shapes_[size_t(node)].with_n(n_);
  return is_vector(*network_, node) ? Dims{s.n, s.c} : Dims{s.n, s.c, s.h, s.w};
}

Tensor Plan::read(int node) const {
  const ConstView v = value(node);
  Tensor out(dims(node));
  read_nchw(*ctx_, v, out.data());
  return out;
}

void read_nchw(Context& ctx, ConstView x, float* host) {
  if (!ctx.gpu) return nhwc_to_nchw(ctx, x, host);
  const size_t bytes = size_t(x.shape.count()) * sizeof(float);
  float* on_device = static_cast<float*>(ctx.scratch.reserve(bytes));
  nhwc_to_nchw(ctx, x, on_device);
  ctx.copy_out(host, on_device, bytes);
}

void Plan::forward(Tape* tape) {
  CHECK(n_ > 0, "forward() before input()");
  CHECK(!tape || options_.tape, "this plan was made without a tape");
  reserve(tape);
  if (tape) {
    tape->slots = slots_;
    tape->n = n_;
  }
  ctx_->tf32 = options_.precision == Precision::tf32;
  for (const Segment& segment : segments_) {
    const int64_t rounds = (n_ + segment.items - 1) / segment.items, items = (n_ + rounds - 1) / rounds;
    for (first_ = 0; first_ < n_; first_ += items) {
      count_ = std::min(items, n_ - first_);
      for (int i = segment.first; i <= segment.last; ++i)
        if (const Step& step = steps_[size_t(i)]; !step.done_with_previous) run(step, tape);
    }
  }
  first_ = 0, count_ = n_;
}

// Where the items that run now have their gates or switches.
char* Plan::on_tape(Tape* tape, int node) const {
  const Tape::Slot& slot = tape->slot(node);
  const int64_t item = slot.kind == Tape::Kind::gate ? gate_words(slot.shape.with_n(1)) * int64_t(sizeof(uint32_t))
                                                     : slot.shape.item() * slot.element_bytes;
  return tape->memory.as<char>() + slot.offset + first_ * item;
}

// What is fused behind a step: its ReLU, its residual, and a max pool that is the next step.
Epilogue Plan::epilogue(const Step& step, Tape* tape) const {
  const Step* pool = step.with_next_pool ? &step + 1 : nullptr;
  const Step& with_relu = pool && pool->relu >= 0 ? *pool : step;
  Epilogue e{.residual = step.residual >= 0 ? view(step.residual).data : nullptr,
             .relu = with_relu.relu >= 0,
             .clip = with_relu.clip,
             .gates = with_relu.relu >= 0 && tape ? reinterpret_cast<uint32_t*>(on_tape(tape, with_relu.relu)) : nullptr,
             .gate_items = n_};
  if (const Part& part = parts_[size_t(pool ? pool->output : step.output)]; part.whole >= 0)
    e.pitch = shapes_[size_t(part.whole)].c;
  if (pool) {
    e.pool = &std::get<MaxPool2d>(network_->nodes[size_t(pool->node)].layer);
    e.switches = tape ? on_tape(tape, pool->node) : nullptr;
    e.pool_before_relu = pool->relu >= 0;
  }
  return e;
}

View Plan::view(int node) const {
  char* base = static_cast<char*>(ctx_->arena.reserve(arena_bytes_));
  const DType type = activation_type(options_.precision);
  const Part& part = parts_[size_t(node)];
  size_t offset = part.whole < 0 ? offsets_[size_t(node)]
                                 : offsets_[size_t(part.whole)] + size_t(part.channel) * size_of(type);
  if (!local_[size_t(node)]) offset += size_t(first_ * shapes_[size_t(node)].item()) * size_of(type);
  return {base + offset, shapes_[size_t(node)].with_n(count_), type};
}

// Leaves only the steps between the given and the observed nodes.
void Plan::drop_steps() {
  std::vector<bool> needed(shapes_.size(), false), given(shapes_.size(), false);
  for (int node : options_.given) {
    CHECK(holder(node) == node, "{} shares its value with {}; give that", network_->nodes[size_t(node)].name,
          network_->nodes[size_t(holder(node))].name);
    given[size_t(node)] = true;
  }
  for (int node : options_.observe) needed[size_t(holder(node))] = true;
  std::vector<Step> kept;
  for (size_t i = steps_.size(); i-- > 0;) {
    Step& step = steps_[i];
    if (!needed[size_t(step.output)] || given[size_t(step.output)]) continue;
    for (int value : step.inputs) needed[size_t(value)] = true;
    if (step.residual >= 0) needed[size_t(step.residual)] = true;
    kept.insert(kept.begin(), std::move(step));
  }
  CHECK(!needed[0] || given[0], "what is given to the plan does not suffice: it needs the input too");
  steps_ = std::move(kept);
}

// The parts of concatenations that the kernels of convolutions and max pools write in place: those that nobody else
// reads, since other readers want whole maps.
void Plan::find_parts(const std::vector<bool>& seen) {
  std::vector<int> readers(shapes_.size(), 0);
  std::vector<const Step*> maker(shapes_.size(), nullptr);
  for (const Step& step : steps_) {
    maker[size_t(step.output)] = &step;
    for (int value : step.inputs) ++readers[size_t(value)];
    if (step.residual >= 0) ++readers[size_t(step.residual)];
  }
  for (const Step& step : steps_) {
    if (!is<Concat>(*network_, step.node)) continue;
    int64_t channel = 0;
    for (int value : step.inputs) {
      const Step* by = maker[size_t(value)];
      if (by && readers[size_t(value)] == 1 && !seen[size_t(value)] &&
          (is<Conv2d>(*network_, by->node) || is<MaxPool2d>(*network_, by->node)))
        parts_[size_t(value)] = {step.output, channel};
      channel += shapes_[size_t(value)].c;
    }
  }
}

void Plan::run(const Step& step, Tape* tape) const {
  const View y = view(step.with_next_pool ? (&step + 1)->output : step.output);
  const ConstView x = view(step.inputs[0]);
  const Epilogue end = epilogue(step, tape);
  const auto keep = [&](ConstView v, size_t offset = 0) {
    if (!tape) return;
    const size_t item = size_t(v.shape.item()) * size_of(v.dtype);
    ctx_->copy(static_cast<char*>(tape->data(step.node)) + offset + size_t(first_) * item, v.data, size_t(count_) * item);
  };
  const auto gates = [&] { return tape ? reinterpret_cast<uint32_t*>(on_tape(tape, step.node)) : nullptr; };
  void* switches = tape && (is<MaxPool2d>(*network_, step.node) || is<GlobalMaxPool>(*network_, step.node))
                       ? on_tape(tape, step.node) : nullptr;
  const auto resample = [&] { resample_forward(*ctx_, packed_resampling(*network_, step.node, x.shape), x, y); };
  std::visit(overloaded{
                 [&](const Input&) {},
                 [&](const Dropout&) {},
                 [&](const Conv2d&) { conv2d_forward(*ctx_, packed_conv(*network_, step), x, y, end); },
                 [&](const Linear&) {
                   if (x.shape.h * x.shape.w > 1)
                     conv2d_forward(*ctx_, packed_map_linear(*network_, step.node, x.shape), x, y, end);
                   else
                     linear_forward(*ctx_, packed_linear(*network_, step.node), x, y, end);
                 },
                 [&](const MaxPool2d& l) { max_pool2d_forward(*ctx_, l, x, y, switches, end); },
                 [&](const AvgPool2d& l) { avg_pool2d_forward(*ctx_, l, x, y); },
                 [&](const AdaptiveAvgPool2d& l) { adaptive_avg_pool2d_forward(*ctx_, l, x, y); },
                 [&](const ReLU&) { relu_forward(*ctx_, x, y, end); },
                 [&](const BatchNorm2d&) {
                   const AffineWeights& bn = packed_affine(*network_, step.node);
                   channel_affine_forward(*ctx_, x, bn.scale_on(*ctx_), bn.shift_on(*ctx_), y, end);
                 },
                 [&](const LocalResponseNorm& l) {
                   keep(x);
                   lrn_forward(*ctx_, l, x, y);
                 },
                 [&](const Softmax&) {
                   softmax_forward(*ctx_, x, y);
                   keep(y);
                 },
                 [&](const Flatten&) { flatten_forward(*ctx_, x, y); },
                 [&](const Add&) { add_forward(*ctx_, x, view(step.inputs[1]), y, end); },
                 [&](const Concat&) {
                   int64_t channel = 0;
                   for (int value : step.inputs) {
                     if (parts_[size_t(value)].whole < 0) concat_forward(*ctx_, view(value), y, channel);
                     channel += shapes_[size_t(value)].c;
                   }
                 },
                 [&](const ConvTranspose2d&) {
                   conv_transpose2d_forward(*ctx_, packed_conv_transpose(*network_, step), x, y, end);
                 },
                 [&](const GlobalMaxPool&) {
                   max_pool2d_forward(*ctx_, whole_map_pool(x.shape), x, y, switches, end);
                 },
                 [&](const LeakyReLU& l) { slope_forward(*ctx_, {.all = l.slope}, x, y, gates()); },
                 [&](const PReLU&) { slope_forward(*ctx_, packed_slopes(*ctx_, *network_, step.node), x, y, gates()); },
                 [&](const Clip& l) { ramp_forward(*ctx_, l, x, y, gates()); },
                 [&](const Hardsigmoid& l) { ramp_forward(*ctx_, l, x, y, gates()); },
                 [&](const Smooth& l) {
                   keep(x);
                   smooth_forward(*ctx_, l, x, y);
                 },
                 [&](const Binary& l) {
                   const ConstView other = view(step.inputs[1]);
                   if (keeps_operands(l)) {
                     keep(x);
                     keep(other, second_operand(shapes_[size_t(step.inputs[0])], x.dtype));
                   }
                   binary_forward(*ctx_, l, x, other, y, end);
                 },
                 [&](const BinaryConstant& l) {
                   const ConstView constant = packed_constant(*ctx_, *network_, step.node);
                   if (keeps_operand(l)) keep(x);
                   binary_forward(*ctx_, {l.function}, l.reversed ? constant : x, l.reversed ? x : constant, y, end);
                 },
                 [&](const Reduce& l) { reduce_forward(*ctx_, l, x, y); },
                 [&](const Resize&) { resample(); },
                 [&](const Pad&) { resample(); },
                 [&](const Slice&) { resample(); },
                 [&](const ChannelShuffle&) { resample(); },
                 [&](const Reshape& l) { rearrange_forward(*ctx_, {l, x.shape}, x, y); },
                 [&](const Permute& l) { rearrange_forward(*ctx_, {l, x.shape}, x, y); },
             },
             network_->nodes[size_t(step.node)].layer);
}

void write_nchw(Context& ctx, const float* host, View y) {
  if (!ctx.gpu) return nchw_to_nhwc(ctx, host, y);
  const size_t bytes = size_t(y.shape.count()) * sizeof(float);
  float* on_device = static_cast<float*>(ctx.scratch.reserve(bytes));
  ctx.copy_in(on_device, host, bytes);
  nchw_to_nhwc(ctx, on_device, y);
}

std::string Plan::describe() const {
  std::string text;
  const auto name = [&](int node) { return network_->nodes[size_t(node)].name; };
  for (const Step& step : steps_) {
    text += fmt::format("{:<28} {}", name(step.output), switchback::describe(network_->nodes[size_t(step.node)].layer));
    if (step.batch_norm >= 0) text += " + batch norm";
    if (step.residual >= 0) text += " + " + name(step.residual);
    if (step.relu >= 0 && step.relu != step.node) text += " + ReLU";
    if (step.with_next_pool) text += " + the pool that follows";
    text += "\n";
  }
  return text;
}

size_t run_bytes(Context& ctx, const Network& network, Shape item, const PlanOptions& options, int64_t n,
                 int64_t seeds_per_item) {
  const Plan plan(ctx, network, item.with_n(n), options);
  size_t arena = plan.arena_bytes();
  if (options.tape && seeds_per_item > 0)
    arena = std::max(arena, Backward(plan, network.output(), 0, n * seeds_per_item).arena_bytes());
  return arena + plan.tape_bytes();
}

size_t free_memory() {
  std::ifstream info("/proc/meminfo");
  std::string word;
  size_t available = size_t(2) << 30;
  while (info >> word)
    if (word == "MemAvailable:" && info >> available) available *= 1024;
  std::ifstream limit_file("/sys/fs/cgroup/memory.max"), used_file("/sys/fs/cgroup/memory.current");
  size_t limit = 0, used = 0;
  if (limit_file >> limit && used_file >> used) available = std::min(available, limit > used ? limit - used : 0);
  return available;
}

size_t free_memory(Context& ctx) {
  return (ctx.gpu ? ctx.gpu->ops->free_memory(*ctx.gpu) : free_memory()) + ctx.arena.capacity() + ctx.scratch.capacity();
}

namespace {

// Weights that a GPU may have to take up besides a run, in both directions' layouts.
size_t weight_bytes(const Context& ctx, const Network& network, Precision precision) {
  return ctx.gpu ? 2 * size_t(network.parameter_count()) * size_of(activation_type(precision)) : 0;
}

}  // namespace

int64_t choose_batch(Context& ctx, const Network& network, Shape item, const PlanOptions& options, size_t limit,
                     int64_t seeds_per_item, int64_t most) {
  if (limit == 0) {
    const size_t free = free_memory(ctx), weights = weight_bytes(ctx, network, options.precision);
    limit = free > weights ? (free - weights) / 2 : 0;
  }
  const size_t one = run_bytes(ctx, network, item, options, 1, seeds_per_item);
  if (one > limit)
    throw Error(fmt::format("{} on {}x{}x{} needs {} MiB for one image, {} MiB are allowed", network.name, item.c, item.h,
                            item.w, (one >> 20) + 1, limit >> 20),
                "allow more with --memory, or use a smaller input");
  // Bytes grow in proportion to the batch, up to alignment.
  int64_t n = std::clamp<int64_t>(int64_t(limit / one), 1, std::max<int64_t>(1, most));
  while (n > 1 && run_bytes(ctx, network, item, options, n, seeds_per_item) > limit) n = n * 7 / 8;
  return n;
}

int64_t batch_that_fits(Context& ctx, const Network& network, Shape item, const PlanOptions& options, int64_t n) {
  for (;; n /= 2) {
    try {
      const Plan plan(ctx, network, item.with_n(n), options);
      Tape tape;
      plan.reserve(options.tape ? &tape : nullptr);
      if (options.tape) Backward(plan, network.output(), 0, n).reserve();
      return n;
    } catch (const OutOfMemory&) {
      if (n == 1) throw;
    }
  }
}

}  // namespace switchback
