// Backward: the gradient at every value is the sum of what its readers send back; the last of them to run also applies
// the rule of the ReLU that made the value. Sums come before the rule because deconv and guided are not linear.
#include "engine/run/backward.h"

#include <algorithm>

#include "engine/run/fields.h"
#include "kernels/frozen/frozen.h"
#include "kernels/pointwise/pointwise.h"

namespace switchback {

struct Backward::Op {
  const Step* step;    // backward of its op; null: only the sum and the rule
  int from, to;        // gradient buffers; without `to` the op only shows what `from` holds to BackwardRun::at_step
  int other = -1;      // buffer added
  int value;           // the node whose gradient is written
  int relu = -1;       // ReLU node whose rule is applied at the end
  int input = 0;       // which of the step's inputs the value is
  // Where offsets are summed up: what was added to the value that dy belongs to, or null.
  const StepShift* shift = nullptr;
};

namespace {

bool has_parameters(const Network& network, const Step& step) {
  for (int node : {step.node, step.batch_norm})
    if (node >= 0 && !parameters(network.nodes[node].layer).empty()) return true;
  return false;
}

const float* moments_of(const Tape& tape, int node) {
  const Tape::Slot* slot = tape.find(Tape::Kind::moments, node);
  return slot ? reinterpret_cast<const float*>(tape.data(*slot)) : nullptr;
}

// The values on paths from wanted nodes to `from`.
struct Paths {
  List<bool> below, needed;      // something wanted lies at the value or before it; and `from` depends on it
  List<int> pending;             // readers that have not sent their gradient yet
  List<const Step*> maker;       // the step that makes the value, where something wanted lies before it

  Paths(const Plan& plan, int from, const Wanted& wanted)
      : below(plan.shapes().size(), false), needed(below), pending(below.size(), 0), maker(below.size(), nullptr) {
    const Network& network = plan.network();
    for (int node : wanted.nodes) below[plan.holder(node)] = true;
    for (const Step& step : plan.steps()) {
      bool before = wanted.parameters && has_parameters(network, step);
      for (int value : step.sources()) before = before || below[value];
      if (!before) continue;
      maker[step.output] = &step;
      below[step.output] = true;
    }
    needed[from] = true;
    for (auto step = plan.steps().rbegin(); step != plan.steps().rend(); ++step) {
      if (!needed[step->output]) continue;
      for (int value : step->sources())
        if (below[value]) needed[value] = true, ++pending[value];
    }
  }
};

}  // namespace

// Lists the ops of a backward pass, step by step from `from` down.
struct Backward::Builder {
  Backward& out;
  const Network& network;
  Paths paths;
  List<bool> wanted;       // by holder
  List<int> gradient;      // the newest gradient buffer of each value, -1 before the first
  List<bool> added;        // values whose shift another op sums up
  List<int> buffer_value;  // the node whose shape a buffer has

  explicit Builder(Backward& out)
      : out(out), network(out.plan_->network()), paths(*out.plan_, out.from_, out.wanted_),
        wanted(paths.below.size(), false), gradient(wanted.size(), -1), added(wanted.size(), false) {
    for (int node : out.wanted_.nodes) wanted[out.plan_->holder(node)] = true;
  }

  int new_buffer(int value) {
    buffer_value.push_back(value);
    return int(buffer_value.size()) - 1;
  }
  // The ReLU whose rule is applied on the way to what lies before the value; -1 where there is none or the way ends here.
  int relu_before(int value) const { return paths.maker[value] ? paths.maker[value]->relu : -1; }

  void apply_rule(int value) {  // as a pass of its own
    const int buffer = new_buffer(value);
    out.ops_.push_back({.step = nullptr, .from = gradient[value], .to = buffer, .value = value, .relu = relu_before(value)});
    gradient[value] = buffer;
  }
  // All readers of the value have sent their gradient.
  void complete(int value, bool rule_applied) {
    if (wanted[value]) out.results_[value] = gradient[value];
    if (!rule_applied && relu_before(value) >= 0) apply_rule(value);
  }
  // A reader of `value` sends back what `step` makes of `from_buffer`; `step` null: `from_buffer` itself.
  void contribute(int value, const Step* step, int from_buffer, int input = 0) {
    const bool last = --paths.pending[value] == 0;
    const int rule = last ? relu_before(value) : -1, other = gradient[value];
    const bool alone = wanted[value] || (out.with_offsets_ && rule >= 0 && paths.maker[value]->clip != kNoClip);
    const int relu = alone ? -1 : rule;
    if (!step && other < 0 && relu < 0) {
      gradient[value] = from_buffer;
    } else {
      const int buffer = new_buffer(value);
      out.ops_.push_back({step, from_buffer, buffer, other, value, relu, input});
      gradient[value] = buffer;
      if (step && out.with_offsets_) note_shift(out.ops_.back(), last && rule < 0 && other < 0);
    }
    if (last) complete(value, relu >= 0);
  }
  // Which shift an op sums up: that of its own step, or `alone` (its result is the value's whole gradient) that of the
  // step below it. A max pool sends every gradient to one place of the same channel, so that what its input's biases add
  // can be summed up over the pooled map already, which is smaller.
  void note_shift(Op& op, bool alone) {
    const auto shift_of = [&](const Step& step) {
      const Shape x = out.plan_->shapes()[step.inputs[0]];
      return step_shift(out.plan_->layer(step), out.plan_->weights(step), {&x, 1});
    };
    if (!added[op.step->output]) op.shift = shift_of(*op.step);
    const Step* before = paths.maker[op.value];
    if (!alone || !before || !facts(out.plan_->layer(*op.step)).selects) return;
    const StepShift* below = shift_of(*before);
    if (!below || below->shape.h * below->shape.w > 1) return;
    op.shift = below;
    added[op.value] = true;
  }
  void add_step(const Step& step) {
    const int g = gradient[step.output];
    if (out.wanted_.parameters && has_parameters(network, step))
      out.ops_.push_back({.step = &step, .from = g, .to = -1, .value = step.output});
    if (step.sum >= 0 && paths.below[step.sum]) contribute(step.sum, nullptr, g);
    const bool passes = facts(out.plan_->layer(step)).passes_gradient;
    for (size_t i = 0; i < step.inputs.size(); ++i)
      if (paths.below[step.inputs[i]]) contribute(step.inputs[i], passes ? nullptr : &step, g, int(i));
  }
  void build() {
    out.results_.assign(wanted.size(), -1);
    out.seed_buffer_ = gradient[out.from_] = new_buffer(out.from_);
    complete(out.from_, false);
    const List<Step>& steps = out.plan_->steps();
    for (auto step = steps.rbegin(); step != steps.rend(); ++step)
      if (paths.needed[step->output] && paths.maker[step->output]) add_step(*step);
  }
};

Backward::Backward(const Plan& plan, int from, Wanted wanted, int64_t capacity, const BackwardOptions& options)
    : plan_(&plan), from_(plan.holder(from)), wanted_(std::move(wanted)), capacity_(capacity),
      with_offsets_(options.offsets), weights_(options.offsets ? plan.weights() : Weights()),
      field_(options.field ? std::make_unique<Field>(*options.field) : nullptr) {
  const Network& network = plan.network();
  CHECK(plan.options().tape, "backward needs a plan with a tape");
  CHECK(!wanted_.nodes.empty() || wanted_.parameters, "a backward pass to nothing");
  for (int node : wanted_.nodes) {
    CHECK(plan.observed(from) && plan.observed(node), "backward from {} to {}: both must be observed by the plan",
          network.nodes[from].name, network.nodes[node].name);
    if (!depends(network, from, node))
      throw Error(fmt::format("{} does not depend on {}", network.nodes[from].name, network.nodes[node].name),
                  "choose a layer that lies before it");
  }
  Builder builder(*this);
  builder.build();
  place_buffers(builder.buffer_value);
}

void Backward::place_buffers(const List<int>& values) {
  List<Lifetime> lives(values.size());
  const int end = int(ops_.size());
  for (int b = 0; b < lives.count(); ++b)
    lives[b] = {size_t(shape(values[b]).with_n(capacity_).count()) * size_of(plan_->type()), end, end};
  lives[seed_buffer_].first = lives[seed_buffer_].last = -1;
  for (int i = 0; i < end; ++i) {
    const Op& op = ops_[i];
    if (op.to >= 0) lives[op.to].first = lives[op.to].last = i;
    for (int read : {op.from, op.other})
      if (read >= 0) lives[read].last = i;
  }
  for (int buffer : results_)
    if (buffer >= 0) lives[buffer].last = end;
  // A gradient that nobody reads afterwards gives its memory to what is made of it place by place.
  List<int> first(values.size());  // of the buffers that lie at one place
  for (int b = 0; b < first.count(); ++b) first[b] = b;
  for (int i = 0; i < end; ++i) {
    const Op& op = ops_[i];
    if (op.to < 0 || lives[op.from].last != i || (op.step && !facts(layer(*op.step)).backward_in_place)) continue;
    first[op.to] = first[op.from];
  }
  List<Lifetime> merged = lives;
  for (int b = 0; b < first.count(); ++b) {
    if (first[b] == b) continue;
    merged[first[b]].last = std::max(merged[first[b]].last, lives[b].last);
    merged[b].bytes = 0;
  }
  arena_bytes_ = place(merged, offsets_);
  for (int b = 0; b < first.count(); ++b) offsets_[b] = offsets_[first[b]];
}

Backward::~Backward() = default;
Backward::Backward(Backward&&) noexcept = default;

Shape Backward::shape(int value) const {
  const Shape s = plan_->shapes()[value].with_n(1);
  if (!field_) return s;
  const FieldBox& box = field_->boxes[value];
  return {1, s.c, box.height, box.width};
}

const Layer& Backward::layer(const Step& step) const { return field_ ? field_->layers[step.node] : plan_->layer(step); }

void Backward::reserve() const { plan_->context().arena.reserve(arena_bytes_); }

View Backward::view(int buffer, int value) const {
  char* base = static_cast<char*>(plan_->context().arena.reserve(arena_bytes_));
  return {base + offsets_[buffer], shape(value).with_n(n_), plan_->type()};
}

View Backward::seed(int64_t n) {
  CHECK(n > 0 && n <= capacity_, "{} seeds for a backward of {}", n, capacity_);
  n_ = n;
  return view(seed_buffer_, from_);
}

ConstView Backward::run(const Tape& tape, const BackwardRun& options) {
  CHECK(n_ > 0, "run() before seed()");
  CHECK(options.seeds_per_item > 0 && tape.n * options.seeds_per_item == n_,
        "{} seeds on a tape of {} items with {} for each", n_, tape.n, options.seeds_per_item);
  CHECK(!options.offsets || (with_offsets_ && options.rule == kGradient && wanted_.nodes == std::vector<int>{0}),
        "offsets belong to gradients at the input, by a Backward that was made for them");
  CHECK(!options.offsets || weights_.version() == plan_->weights().version(),
        "the plan's weights are not those that the offsets were made for");
  CHECK(options.rules.empty() || options.rules.size() == size_t(plan_->network().nodes.size()), "{} rules", options.rules.size());
  CHECK(!wanted_.parameters || options.at_step, "nobody takes the gradients of parameters");
  Context& ctx = plan_->context();
  for (const Op& op : ops_) {
    const ConstView dy = view(op.from, op.step ? op.step->output : op.value);
    if (op.to < 0) {
      options.at_step(*op.step, dy);
      continue;
    }
    const View dx = view(op.to, op.value);
    const BackwardEpilogue end{.other = op.other >= 0 ? view(op.other, op.value).data : nullptr,
                               .relu = op.relu >= 0,
                               .gates = op.relu >= 0 ? gate_planes(tape, op.relu).gates : nullptr,
                               .seeds_per_item = options.seeds_per_item,
                               .rule = op.relu >= 0 && !options.rules.empty() ? options.rules[op.relu] : options.rule,
                               .tf32 = plan_->tf32()};
    if (options.offsets) add_offset(op, tape, dy, options.seeds_per_item, options.offsets);
    if (op.step)
      run_op(op, tape, dy, dx, end, options.gradients);
    else
      combine_backward(ctx, dy, dx, end);
  }
  return wanted_.nodes.empty() ? ConstView() : gradient(wanted_.nodes[0]);
}

ConstView Backward::gradient(int node) const {
  const int value = plan_->holder(node);
  CHECK(results_[value] >= 0, "the gradient at {} was not wanted", plan_->network().nodes[node].name);
  ConstView g = view(results_[value], value);
  if (!field_) g.shape = plan_->shapes()[node].with_n(n_);
  return g;
}

// dy of a step is the gradient at its op's result, to which shifts are added. A saturated unit is a constant.
void Backward::add_offset(const Op& op, const Tape& tape, ConstView dy, int64_t seeds_per_item, OffsetSum* offsets) const {
  Context& ctx = plan_->context();
  if (op.shift) add_constant_offset(ctx, dy, {op.shift->array.on(ctx), op.shift->shape, DType::f32}, offsets);
  // Of a layer with gates of its own, or of a clipped ReLU, where its rule is a pass by itself.
  const int node = op.step ? op.step->node : op.relu;
  if (node < 0) return;
  const std::optional<GateConstants> constants = gate_constants(op.step ? layer(*op.step) : plan_->network().nodes[node].layer);
  const auto [gates, above] = constants ? gate_planes(tape, node) : GatePlanes{};
  if (constants && (op.step || above)) add_gate_offset(ctx, dy, gates, above, seeds_per_item, *constants, offsets);
}

void Backward::run_op(const Op& op, const Tape& tape, ConstView dy, View dx, const BackwardEpilogue& end,
                      const float* gradients) const {
  const Step& step = *op.step;
  const auto kept = [&](int value) {  // as the tape has it
    const Tape::Slot* slot = tape.find(Tape::Kind::value, value);
    return ConstView{slot ? tape.data(*slot) : nullptr, shape(value).with_n(tape.n), dy.dtype};
  };
  std::vector<ConstView> x;
  for (int value : step.inputs) x.push_back(kept(value));
  BackwardCall call{.ctx = plan_->context(), .dy = dy, .dx = dx, .input = op.input, .end = end, .x = x,
                    .y = kept(step.output), .weights = plan_->weights(step), .training = plan_->training(), .gradients = gradients};
  if (const Tape::Slot* slot = tape.find(Tape::Kind::gate, step.node))
    call.gates = reinterpret_cast<const uint32_t*>(tape.data(*slot));
  if (const Tape::Slot* slot = tape.find(Tape::Kind::switches, step.node)) call.switches = tape.data(*slot);
  call.moments = moments_of(tape, step.node);
  backward(layer(step), call);
}

void add_gradients(const Plan& plan, const Tape& tape, const Step& step, ConstView dy, float* gradients) {
  CHECK(plan.options().training, "gradients of parameters need a plan for training");
  std::vector<ConstView> x;
  for (int value : step.inputs) {
    const Tape::Slot* slot = tape.find(Tape::Kind::value, value);
    x.push_back({slot ? tape.data(*slot) : nullptr, plan.shapes()[value].with_n(tape.n), DType::f32});
  }
  learn(plan.layer(step), {.ctx = plan.context(), .dy = dy, .x = x, .moments = moments_of(tape, step.node),
                           .whole = plan.whole_batches(), .weights = plan.weights(step), .gradients = gradients});
}

bool depends(const Network& network, int node, int on) {
  List<bool> before(network.nodes.size(), false);
  before[node] = true;
  for (int i = node; i > on; --i)
    if (before[i])
      for (int input : network.nodes[i].inputs) before[input] = true;
  return before[on];
}

}  // namespace switchback
