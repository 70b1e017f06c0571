// Backward: the gradient at every value is the sum of what its readers send back; the last of them to run also applies
// the rule of the ReLU that made the value. Sums come before the rule because deconv and guided are not linear.
#include <algorithm>
#include <optional>

#include "engine/run/fields.h"
#include "engine/run/plan.h"
#include "engine/run/step.h"
#include "kernels/frozen/frozen.h"
#include "kernels/pointwise/pointwise.h"

namespace switchback {

struct Backward::Op {
  const Step* step;  // backward of its op; null: only the sum and the rule
  int from, to;      // gradient buffers
  int other = -1;    // buffer added
  int value;         // the node whose gradient is written
  int relu = -1;     // ReLU node whose rule is applied at the end
  int64_t channel = 0;  // of a concatenation: where the value's channels begin in it
  int operand = 0;      // which of the step's inputs the value is
  // Where offsets are summed up: what was added to the value that dy belongs to, or null.
  const StepShift* shift = nullptr;
  // The step's convolution where a receptive field changes its padding, or null.
  std::shared_ptr<const ConvWeights> cut = nullptr;
};

namespace {

// Whether a step passes its gradient on unchanged: additions, and ReLUs that stand alone (their rule is already done).
bool passes_through(const Network& network, const Step& step) {
  const Layer& layer = network.nodes[size_t(step.node)].layer;
  return std::holds_alternative<Add>(layer) || std::holds_alternative<ReLU>(layer);
}

std::vector<int> sources(const Step& step) {
  std::vector<int> all = step.inputs;
  if (step.residual >= 0) all.push_back(step.residual);
  return all;
}

// The values on a path from `to` to `from`.
struct Paths {
  std::vector<bool> below, needed;  // depends on `to`; and `from` depends on it
  std::vector<int> pending;         // readers that have not sent their gradient yet
  std::vector<const Step*> maker;   // the step that makes the value

  Paths(const std::vector<Step>& steps, size_t nodes, int from, int to)
      : below(nodes, false), needed(nodes, false), pending(nodes, 0), maker(nodes, nullptr) {
    below[size_t(to)] = true;
    for (const Step& step : steps) {
      maker[size_t(step.output)] = &step;
      for (int value : sources(step))
        if (below[size_t(value)]) below[size_t(step.output)] = true;
    }
    needed[size_t(from)] = true;
    for (size_t i = steps.size(); i-- > 0;) {
      if (!needed[size_t(steps[i].output)] || steps[i].output == to) continue;
      for (int value : sources(steps[i]))
        if (below[size_t(value)]) needed[size_t(value)] = true, ++pending[size_t(value)];
    }
  }
};

}  // namespace

// Lists the ops of a backward pass, step by step from `from` down.
struct Backward::Builder {
  Backward& out;
  const Network& network;
  Paths paths;
  std::vector<int> gradient;      // the newest gradient buffer of each value, -1 before the first
  std::vector<bool> added;        // values whose shift another op sums up
  std::vector<int> buffer_value;  // the node whose shape a buffer has

  explicit Builder(Backward& out)
      : out(out), network(out.plan_->network()),
        paths(out.plan_->steps(), network.nodes.size(), out.from_, out.to_),
        gradient(network.nodes.size(), -1), added(network.nodes.size(), false) {}

  int new_buffer(int value) {
    buffer_value.push_back(value);
    return int(buffer_value.size()) - 1;
  }
  const Step* maker(int value) const { return value == out.to_ ? nullptr : paths.maker[size_t(value)]; }
  int relu_before(int value) const { return maker(value) ? maker(value)->relu : -1; }

  void apply_rule(int value) {  // as a pass of its own
    const int buffer = new_buffer(value);
    out.ops_.push_back({nullptr, gradient[size_t(value)], buffer, -1, value, relu_before(value)});
    gradient[size_t(value)] = buffer;
  }
  // A reader of `value` sends back what `step` makes of `from_buffer`; `step` null: `from_buffer` itself.
  void contribute(int value, const Step* step, int from_buffer, int64_t channel = 0, int operand = 0) {
    const bool last = --paths.pending[size_t(value)] == 0;
    const int rule = last ? relu_before(value) : -1, other = gradient[size_t(value)];
    const bool alone = rule >= 0 && out.with_offsets_ && maker(value)->clip != kNoClip;
    const int relu = alone ? -1 : rule;
    if (!step && other < 0 && relu < 0) {
      gradient[size_t(value)] = from_buffer;
    } else {
      const int buffer = new_buffer(value);
      out.ops_.push_back({step, from_buffer, buffer, other, value, relu, channel, operand});
      gradient[size_t(value)] = buffer;
      if (step) out.ops_.back().cut = out.cut_weights(*step);
      if (step && out.with_offsets_) note_shift(out.ops_.back(), last && rule < 0 && other < 0);
    }
    if (alone) apply_rule(value);
  }
  // Which shift an op sums up: that of its own step, or `alone` (its result is the value's whole gradient) that of the
  // step below it. A max pool sends every gradient to one place of the same channel, so that what its input's biases add
  // can be summed up over the pooled map already, which is smaller.
  void note_shift(Op& op, bool alone) {
    const auto shift_of = [&](const Step& step) {
      return packed_shift(network, step, out.plan_->shapes()[size_t(step.inputs[0])]);
    };
    if (!added[size_t(op.step->output)]) op.shift = shift_of(*op.step);
    if (!alone || !maker(op.value) || !std::holds_alternative<MaxPool2d>(network.nodes[size_t(op.step->node)].layer)) return;
    const StepShift* below = shift_of(*maker(op.value));
    if (!below || below->shape.h * below->shape.w > 1) return;
    op.shift = below;
    added[size_t(op.value)] = true;
  }
  void add_step(const Step& step) {
    const int g = gradient[size_t(step.output)];
    if (step.residual >= 0 && paths.below[size_t(step.residual)]) contribute(step.residual, nullptr, g);
    int64_t channel = 0;  // counts in concatenations only
    for (size_t i = 0; i < step.inputs.size(); ++i) {
      const int value = step.inputs[i];
      if (paths.below[size_t(value)])
        contribute(value, passes_through(network, step) ? nullptr : &step, g, channel, int(i));
      channel += out.plan_->shapes()[size_t(value)].c;
    }
  }
  void build() {
    const std::vector<Step>& steps = out.plan_->steps();
    out.seed_buffer_ = gradient[size_t(out.from_)] = new_buffer(out.from_);
    if (relu_before(out.from_) >= 0) apply_rule(out.from_);
    for (size_t i = steps.size(); i-- > 0;)
      if (paths.needed[size_t(steps[i].output)] && steps[i].output != out.to_) add_step(steps[i]);
    out.result_buffer_ = gradient[size_t(out.to_)];
  }
};

Backward::Backward(const Plan& plan, int from, int to, int64_t capacity, const BackwardOptions& options)
    : plan_(&plan), from_(plan.holder(from)), to_(plan.holder(to)), capacity_(capacity), with_offsets_(options.offsets),
      field_(options.field ? std::make_unique<Field>(*options.field) : nullptr) {
  const Network& network = plan.network();
  CHECK(plan.options().tape, "backward needs a plan with a tape");
  CHECK(plan.observed(from) && plan.observed(to), "backward from {} to {}: both must be observed by the plan",
        network.nodes[size_t(from)].name, network.nodes[size_t(to)].name);
  Builder builder(*this);
  if (!builder.paths.below[size_t(from_)])
    throw Error(fmt::format("{} does not depend on {}", network.nodes[size_t(from)].name, network.nodes[size_t(to)].name),
                "choose a layer that lies before it");
  builder.build();
  place_buffers(builder.buffer_value);
}

void Backward::place_buffers(const std::vector<int>& values) {
  std::vector<Lifetime> lives(values.size());
  const int end = int(ops_.size());
  for (size_t b = 0; b < lives.size(); ++b)
    lives[b] = {size_t(shape(values[b]).with_n(capacity_).count()) * size_of(activation_type(plan_->options().precision)),
                end, end};
  lives[size_t(seed_buffer_)].first = -1;
  lives[size_t(seed_buffer_)].last = -1;
  for (int i = 0; i < end; ++i) {
    const Op& op = ops_[size_t(i)];
    lives[size_t(op.to)].first = lives[size_t(op.to)].last = i;
    for (int read : {op.from, op.other})
      if (read >= 0) lives[size_t(read)].last = i;
  }
  lives[size_t(result_buffer_)].last = end;
  arena_bytes_ = place(lives, offsets_);
}

Backward::~Backward() = default;
Backward::Backward(Backward&&) noexcept = default;

Shape Backward::shape(int value) const {
  const Shape s = plan_->shapes()[size_t(value)].with_n(1);
  if (!field_) return s;
  const FieldBox& box = field_->boxes[size_t(value)];
  return {1, s.c, box.height, box.width};
}

const Layer& Backward::layer(const Step& step) const {
  return field_ ? field_->layers[size_t(step.node)] : plan_->network().nodes[size_t(step.node)].layer;
}

// A step's convolution with the padding that the field leaves; null where there is none.
std::shared_ptr<const ConvWeights> Backward::cut_weights(const Step& step) const {
  const auto* conv = std::get_if<Conv2d>(&layer(step));
  if (!field_ || !conv) return nullptr;
  return std::make_shared<const ConvWeights>(packed_conv(plan_->network(), step).without_bias(*conv));
}

void Backward::reserve() const { plan_->context().arena.reserve(arena_bytes_); }

View Backward::seed(int64_t n) {
  CHECK(n > 0 && n <= capacity_, "{} seeds for a backward of {}", n, capacity_);
  n_ = n;
  char* base = static_cast<char*>(plan_->context().arena.reserve(arena_bytes_));
  return {base + offsets_[size_t(seed_buffer_)], shape(from_).with_n(n),
          activation_type(plan_->options().precision)};
}

ConstView Backward::run(const Tape& tape, ReluRule rule, int64_t seeds_per_item, OffsetSum* offsets) {
  CHECK(n_ > 0, "run() before seed()");
  CHECK(seeds_per_item > 0 && tape.n * seeds_per_item == n_, "{} seeds on a tape of {} items with {} for each", n_, tape.n,
        seeds_per_item);
  CHECK(!offsets || (with_offsets_ && rule == kGradient && to_ == 0),
        "offsets belong to gradients at the input, by a Backward that was made for them");
  Context& ctx = plan_->context();
  ctx.tf32 = plan_->options().precision == Precision::tf32;
  const DType type = activation_type(plan_->options().precision);
  char* base = static_cast<char*>(ctx.arena.reserve(arena_bytes_));
  const auto view = [&](int buffer, int value) {
    return View{base + offsets_[size_t(buffer)], shape(value).with_n(n_), type};
  };
  for (const Op& op : ops_) {
    const View dx = view(op.to, op.value);
    const ConstView dy = view(op.from, op.step ? op.step->output : op.value);
    const BackwardEpilogue epilogue{
        .other = op.other >= 0 ? base + offsets_[size_t(op.other)] : nullptr,
        .relu = op.relu >= 0,
        .gates = op.relu >= 0 ? static_cast<const uint32_t*>(tape.data(op.relu)) : nullptr,
        .seeds_per_item = seeds_per_item,
        .rule = rule};
    if (offsets) add_offset(op, tape, dy, seeds_per_item, offsets);
    if (op.step)
      run_op(op, tape, dy, dx, epilogue);
    else
      combine_backward(ctx, dy, dx, epilogue);
  }
  return view(result_buffer_, to_);
}

namespace {

// What a layer with gates of its own adds in each of their states; none for other layers, and for slopes: they add nothing.
std::optional<GateConstants> gate_constants(const Layer& layer) {
  if (const auto* clip = std::get_if<Clip>(&layer)) return switchback::gate_constants(Ramp(*clip));
  if (const auto* hard = std::get_if<Hardsigmoid>(&layer)) return switchback::gate_constants(Ramp(*hard));
  return std::nullopt;
}

}  // namespace

// dy of a step is the gradient at its op's result, to which shifts are added. A saturated unit is a constant.
void Backward::add_offset(const Op& op, const Tape& tape, ConstView dy, int64_t seeds_per_item, OffsetSum* offsets) const {
  Context& ctx = plan_->context();
  if (op.shift) add_constant_offset(ctx, dy, {op.shift->array.on(ctx), op.shift->shape, DType::f32}, offsets);
  const auto add_gates = [&](int node, const GateConstants& constants) {
    const auto [gates, above] = gate_planes(tape, node);
    add_gate_offset(ctx, dy, gates, above, seeds_per_item, constants, offsets);
  };
  if (op.step) {
    if (const auto constants = gate_constants(layer(*op.step))) add_gates(op.step->node, *constants);
  } else if (op.relu >= 0 && tape.slot(op.relu).clip != kNoClip) {
    add_gates(op.relu, {.above = tape.slot(op.relu).clip});
  }
}

void Backward::run_op(const Op& op, const Tape& tape, ConstView dy, View dx, const BackwardEpilogue& epilogue) const {
  Context& ctx = plan_->context();
  const Network& network = plan_->network();
  const Step& step = *op.step;
  const auto kept = [&] {
    return ConstView{tape.data(step.node), plan_->shapes()[size_t(step.node)].with_n(tape.n), dy.dtype};
  };
  const auto gates = [&] { return static_cast<const uint32_t*>(tape.data(step.node)); };
  // An input's value, as the tape has it where it `keeps` them.
  const auto operand = [&](int i, bool keeps) {
    const auto shape = [&](int input) { return plan_->shapes()[size_t(step.inputs[size_t(input)])]; };
    const size_t offset = i == 0 ? 0 : second_operand(shape(0), dy.dtype);
    const char* data = keeps ? static_cast<const char*>(tape.data(step.node)) + offset : nullptr;
    return ConstView{data, this->shape(step.inputs[size_t(i)]).with_n(tape.n), dy.dtype};
  };
  const auto resample = [&] {
    resample_backward(ctx, packed_resampling(network, step.node, dx.shape), dy, dx, epilogue);
  };
  std::visit(overloaded{
                 [&](const Conv2d&) {
                   conv2d_backward_data(ctx, op.cut ? *op.cut : packed_conv(network, step), dy, dx, epilogue);
                 },
                 [&](const Linear&) {
                   if (dx.shape.h * dx.shape.w > 1)
                     conv2d_backward_data(ctx, packed_map_linear(network, step.node, dx.shape), dy, dx, epilogue);
                   else
                     linear_backward_data(ctx, packed_linear(network, step.node), dy, dx, epilogue);
                 },
                 [&](const MaxPool2d& l) { max_pool2d_backward(ctx, l, dy, tape.data(step.node), dx, epilogue); },
                 [&](const AvgPool2d& l) { avg_pool2d_backward(ctx, l, dy, dx, epilogue); },
                 [&](const AdaptiveAvgPool2d& l) { adaptive_avg_pool2d_backward(ctx, l, dy, dx, epilogue); },
                 [&](const BatchNorm2d&) {
                   channel_affine_backward(ctx, dy, packed_affine(network, step.node).scale_on(ctx), dx, epilogue);
                 },
                 [&](const LocalResponseNorm& l) { lrn_backward(ctx, l, dy, kept(), dx, epilogue); },
                 [&](const Softmax&) { softmax_backward(ctx, dy, kept(), dx, epilogue); },
                 [&](const Flatten&) { flatten_backward(ctx, dy, dx, epilogue); },
                 [&](const Concat&) { concat_backward(ctx, dy, op.channel, dx, epilogue); },
                 [&](const ConvTranspose2d&) {
                   conv_transpose2d_backward_data(ctx, packed_conv_transpose(network, step), dy, dx, epilogue);
                 },
                 [&](const GlobalMaxPool&) {
                   max_pool2d_backward(ctx, whole_map_pool(dx.shape), dy, tape.data(step.node), dx, epilogue);
                 },
                 [&](const LeakyReLU& l) {
                   slope_backward(ctx, {.all = l.slope}, dy, gates(), epilogue.rule, dx, epilogue);
                 },
                 [&](const PReLU&) {
                   slope_backward(ctx, packed_slopes(ctx, network, step.node), dy, gates(), epilogue.rule, dx, epilogue);
                 },
                 [&](const Clip& l) { ramp_backward(ctx, l, dy, gates(), dx, epilogue); },
                 [&](const Hardsigmoid& l) { ramp_backward(ctx, l, dy, gates(), dx, epilogue); },
                 [&](const Smooth& l) { smooth_backward(ctx, l, dy, kept(), dx, epilogue); },
                 [&](const Binary& l) {
                   binary_backward(ctx, l, op.operand, dy, operand(0, keeps_operands(l)), operand(1, keeps_operands(l)), dx,
                                   epilogue);
                 },
                 [&](const BinaryConstant& l) {
                   const ConstView constant = packed_constant(ctx, network, step.node), x = operand(0, keeps_operand(l));
                   binary_backward(ctx, {l.function}, l.reversed ? 1 : 0, dy, l.reversed ? constant : x,
                                   l.reversed ? x : constant, dx, epilogue);
                 },
                 [&](const Reduce& l) { reduce_backward(ctx, l, dy, dx, epilogue); },
                 [&](const Resize&) { resample(); },
                 [&](const Pad&) { resample(); },
                 [&](const Slice&) { resample(); },
                 [&](const ChannelShuffle&) { resample(); },
                 [&](const Reshape& l) { rearrange_backward(ctx, {l, dx.shape}, dy, dx, epilogue); },
                 [&](const Permute& l) { rearrange_backward(ctx, {l, dx.shape}, dy, dx, epilogue); },
                 [&](const auto&) { fail("{} has no backward op", type_name(network.nodes[size_t(step.node)].layer)); },
             },
             layer(step));
}

}  // namespace switchback
