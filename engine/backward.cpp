// Backward: the gradient at every value is the sum of what its readers send back; the last of them to run also applies
// the rule of the ReLU that made the value. Sums come before the rule because deconv and guided are not linear.
#include <algorithm>

#include "engine/plan.h"
#include "engine/step.h"
#include "kernels/pointwise.h"

namespace switchback {

struct Backward::Op {
  const Step* step;  // backward of its op; null: only the sum and the rule
  int from, to;      // gradient buffers
  int other = -1;    // buffer added
  int value;         // the node whose gradient is written
  int relu = -1;     // ReLU node whose rule is applied at the end
  int64_t channel = 0;  // of a concatenation: where the value's channels begin in it
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

}  // namespace

Backward::Backward(const Plan& plan, int from, int to, int64_t capacity)
    : plan_(&plan), capacity_(capacity) {
  const Network& network = plan.network();
  CHECK(plan.options().tape, "backward needs a plan with a tape");
  CHECK(plan.observed(from) && plan.observed(to), "backward from {} to {}: both must be observed by the plan",
        network.nodes[size_t(from)].name, network.nodes[size_t(to)].name);
  from_ = plan.holder(from);
  to_ = plan.holder(to);
  const std::vector<Step>& steps = plan.steps();
  const size_t nodes = network.nodes.size();

  // Values on a path from `to` to `from`, and how many of their readers are.
  std::vector<bool> below(nodes, false), needed(nodes, false);
  std::vector<int> pending(nodes, 0);
  std::vector<const Step*> maker(nodes, nullptr);
  below[size_t(to_)] = true;
  for (const Step& step : steps) {
    maker[size_t(step.output)] = &step;
    for (int value : sources(step))
      if (below[size_t(value)]) below[size_t(step.output)] = true;
  }
  if (!below[size_t(from_)])
    throw Error(fmt::format("{} does not depend on {}", network.nodes[size_t(from)].name, network.nodes[size_t(to)].name),
                "choose a layer that lies before it");
  needed[size_t(from_)] = true;
  for (size_t i = steps.size(); i-- > 0;) {
    if (!needed[size_t(steps[i].output)] || steps[i].output == to_) continue;
    for (int value : sources(steps[i]))
      if (below[size_t(value)]) needed[size_t(value)] = true, ++pending[size_t(value)];
  }

  std::vector<int> buffer_value;  // the node whose shape a buffer has
  const auto new_buffer = [&](int value) {
    buffer_value.push_back(value);
    return int(buffer_value.size()) - 1;
  };
  std::vector<int> gradient(nodes, -1);
  const auto relu_before = [&](int value) {
    return value != to_ && maker[size_t(value)] ? maker[size_t(value)]->relu : -1;
  };
  seed_buffer_ = gradient[size_t(from_)] = new_buffer(from_);
  if (relu_before(from_) >= 0) {
    const int buffer = new_buffer(from_);
    ops_.push_back({nullptr, seed_buffer_, buffer, -1, from_, relu_before(from_)});
    gradient[size_t(from_)] = buffer;
  }
  // `step` null: `from` itself is what the reader sends back.
  const auto contribute = [&](int value, const Step* step, int from_buffer, int64_t channel = 0) {
    const bool last = --pending[size_t(value)] == 0;
    const int relu = last ? relu_before(value) : -1, other = gradient[size_t(value)];
    if (!step && other < 0 && relu < 0) {
      gradient[size_t(value)] = from_buffer;
      return;
    }
    const int buffer = new_buffer(value);
    ops_.push_back({step, from_buffer, buffer, other, value, relu, channel});
    gradient[size_t(value)] = buffer;
  };
  for (size_t i = steps.size(); i-- > 0;) {
    const Step& step = steps[i];
    if (!needed[size_t(step.output)] || step.output == to_) continue;
    const int g = gradient[size_t(step.output)];
    if (step.residual >= 0 && below[size_t(step.residual)]) contribute(step.residual, nullptr, g);
    int64_t channel = 0;  // counts in concatenations only
    for (int value : step.inputs) {
      if (below[size_t(value)]) contribute(value, passes_through(network, step) ? nullptr : &step, g, channel);
      channel += plan.shapes()[size_t(value)].c;
    }
  }
  result_buffer_ = gradient[size_t(to_)];

  std::vector<Lifetime> lives(buffer_value.size());
  const int end = int(ops_.size());
  for (size_t b = 0; b < lives.size(); ++b)
    lives[b] = {size_t(plan.shapes()[size_t(buffer_value[b])].with_n(capacity).count()) *
                    size_of(activation_type(plan.options().precision)), end, end};
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

void Backward::reserve() const { plan_->context().arena.reserve(arena_bytes_); }

View Backward::seed(int64_t n) {
  CHECK(n > 0 && n <= capacity_, "{} seeds for a backward of {}", n, capacity_);
  n_ = n;
  char* base = static_cast<char*>(plan_->context().arena.reserve(arena_bytes_));
  return {base + offsets_[size_t(seed_buffer_)], plan_->shapes()[size_t(from_)].with_n(n),
          activation_type(plan_->options().precision)};
}

ConstView Backward::run(const Tape& tape, ReluRule rule, int64_t seeds_per_item) {
  CHECK(n_ > 0, "run() before seed()");
  CHECK(seeds_per_item > 0 && tape.n * seeds_per_item == n_, "{} seeds on a tape of {} items with {} for each", n_, tape.n,
        seeds_per_item);
  Context& ctx = plan_->context();
  ctx.tf32 = plan_->options().precision == Precision::tf32;
  const Network& network = plan_->network();
  const DType type = activation_type(plan_->options().precision);
  char* base = static_cast<char*>(ctx.arena.reserve(arena_bytes_));
  const auto view = [&](int buffer, int value) {
    return View{base + offsets_[size_t(buffer)], plan_->shapes()[size_t(value)].with_n(n_), type};
  };
  for (const Op& op : ops_) {
    const View dx = view(op.to, op.value);
    const BackwardEpilogue epilogue{
        .other = op.other >= 0 ? base + offsets_[size_t(op.other)] : nullptr,
        .relu = op.relu >= 0,
        .gates = op.relu >= 0 ? static_cast<const uint32_t*>(tape.data(op.relu)) : nullptr,
        .seeds_per_item = seeds_per_item,
        .rule = rule};
    if (!op.step) {
      combine_backward(ctx, view(op.from, op.value), dx, epilogue);
      continue;
    }
    const Step& step = *op.step;
    const ConstView dy = view(op.from, step.output);
    const auto kept = [&] {
      return ConstView{tape.data(step.node), plan_->shapes()[size_t(step.node)].with_n(tape.n), type};
    };
    std::visit(overloaded{
                   [&](const Conv2d&) { conv2d_backward_data(ctx, packed_conv(network, step), dy, dx, epilogue); },
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
                   [&](const auto&) { fail("{} has no backward op", type_name(network.nodes[size_t(step.node)].layer)); },
               },
               network.nodes[size_t(step.node)].layer);
  }
  return view(result_buffer_, to_);
}

}  // namespace switchback
