#include "engine/frozen.h"

#include "kernels/frozen.h"
#include "kernels/pointwise.h"

namespace switchback {
namespace {

// The explicit list: a layer that is not on it is refused.
bool is_piecewise_affine(const Layer& layer) {
  return std::visit(overloaded{
                        [](const Input&) { return true; },
                        [](const Conv2d&) { return true; },
                        [](const Linear&) { return true; },
                        [](const MaxPool2d&) { return true; },
                        [](const AvgPool2d&) { return true; },
                        [](const AdaptiveAvgPool2d&) { return true; },
                        [](const ReLU&) { return true; },
                        [](const BatchNorm2d&) { return true; },
                        [](const Dropout&) { return true; },
                        [](const Flatten&) { return true; },
                        [](const Add&) { return true; },
                        [](const Concat&) { return true; },
                        [](const auto&) { return false; },
                    },
                    layer);
}

PlanOptions single_layers(const Network& network, int target, Precision precision) {
  PlanOptions options;
  options.precision = precision;
  options.given = {0};
  std::vector<bool> needed(network.nodes.size(), false);
  needed[size_t(target)] = true;
  for (int i = target; i >= 0; --i) {
    if (!needed[size_t(i)]) continue;
    options.observe.push_back(i);  // what is observed is not fused away
    for (int input : network.nodes[size_t(i)].inputs) needed[size_t(input)] = true;
  }
  return options;
}

}  // namespace

void check_piecewise_affine(const Network& network, int node) {
  std::vector<bool> before(network.nodes.size(), false);
  before[size_t(node)] = true;
  for (int i = node; i >= 0; --i)
    if (before[size_t(i)])
      for (int input : network.nodes[size_t(i)].inputs) before[size_t(input)] = true;
  for (size_t i = 0; i <= size_t(node); ++i) {
    const Node& n = network.nodes[i];
    if (!before[i] || is_piecewise_affine(n.layer)) continue;
    throw Error(fmt::format("{} ({}) is not piecewise affine: beyond it {} has no etalons", n.name, type_name(n.layer),
                            network.name),
                fmt::format("choose a unit before it: --layer {}", network.nodes[size_t(n.inputs[0])].name), true);
  }
}

FrozenForward::FrozenForward(Context& ctx, const Network& network, Shape input, int target, Precision precision)
    : ctx_(ctx), plan_(ctx, network, input, single_layers(network, target, precision)), target_(plan_.holder(target)) {
  std::vector<Lifetime> lives(network.nodes.size());
  const std::vector<Step>& steps = plan_.steps();
  const auto bytes = [&](int value) {
    return size_t(plan_.shapes()[size_t(value)].count()) * size_of(activation_type(precision));
  };
  const int end = int(steps.size());
  lives[0] = {bytes(0), -1, -1};
  for (int i = 0; i < end; ++i) {
    CHECK(steps[size_t(i)].node == steps[size_t(i)].output, "{} was fused", network.nodes[size_t(steps[size_t(i)].node)].name);
    lives[size_t(steps[size_t(i)].output)] = {bytes(steps[size_t(i)].output), i, i};
    for (int value : steps[size_t(i)].inputs) lives[size_t(value)].last = i;
  }
  lives[size_t(target_)].last = end;
  bytes_ = place(lives, offsets_);
}

View FrozenForward::view(int value) const {
  return {memory_.as<char>() + offsets_[size_t(value)], plan_.shapes()[size_t(value)].with_n(n_),
          activation_type(plan_.options().precision)};
}

View FrozenForward::input(int64_t n) {
  CHECK(n > 0 && n <= plan_.capacity(), "{} items for a pass of {}", n, plan_.capacity());
  if (memory_.size() == 0) memory_ = ctx_.allocate(bytes_);
  n_ = n;
  return view(0);
}

const ConvWeights& FrozenForward::conv(const Step& step, bool biases) {
  const ConvWeights& whole = packed_conv(plan_.network(), step);
  if (biases) return whole;
  const auto found = convs_.find(step.node);
  return found != convs_.end() ? found->second : convs_.emplace(step.node, whole.without_bias(whole.conv())).first->second;
}

const LinearWeights& FrozenForward::linear(const Step& step, bool biases) {
  const LinearWeights& whole = packed_linear(plan_.network(), step.node);
  if (biases) return whole;
  const auto [place, fresh] = linears_.try_emplace(step.node);
  if (fresh) place->second.linear = whole.linear, place->second.weight = whole.weight;
  return place->second;
}

ConstView FrozenForward::run(const Tape& tape, bool biases) {
  CHECK(n_ > 0, "run() before input()");
  CHECK(tape.n == 1, "a frozen network has the tape of one item, not of {}", tape.n);
  ctx_.tf32 = plan_.options().precision == Precision::tf32;
  for (const Step& step : plan_.steps()) run_step(step, tape, biases);
  return view(target_);
}

void FrozenForward::run_step(const Step& step, const Tape& tape, bool biases) {
  const View y = view(step.output);
  const ConstView x = view(step.inputs[0]);
  const Network& network = plan_.network();
  std::visit(overloaded{
                 [&](const Conv2d&) { conv2d_forward(ctx_, conv(step, biases), x, y); },
                 [&](const Linear&) { linear_forward(ctx_, linear(step, biases), x, y); },
                 [&](const MaxPool2d& l) { frozen_max_pool2d_forward(ctx_, l, x, tape.data(step.node), n_, y); },
                 [&](const AvgPool2d& l) { avg_pool2d_forward(ctx_, l, x, y); },
                 [&](const AdaptiveAvgPool2d& l) { adaptive_avg_pool2d_forward(ctx_, l, x, y); },
                 [&](const ReLU& l) {
                   const auto* gates = static_cast<const uint32_t*>(tape.data(step.node));
                   const bool clips = biases && l.clip != kNoClip;
                   frozen_relu_forward(ctx_, x, gates, clips ? gates + gate_words(y.shape.with_n(1)) : nullptr, l.clip,
                                       n_, y);
                 },
                 [&](const BatchNorm2d&) {
                   const AffineWeights& bn = packed_affine(network, step.node);
                   channel_affine_forward(ctx_, x, bn.scale_on(ctx_), biases ? bn.shift_on(ctx_) : nullptr, y);
                 },
                 [&](const Flatten&) { flatten_forward(ctx_, x, y); },
                 [&](const Add&) { add_forward(ctx_, x, view(step.inputs[1]), y); },
                 [&](const Concat&) {
                   int64_t channel = 0;
                   for (int value : step.inputs) {
                     concat_forward(ctx_, view(value), y, channel);
                     channel += plan_.shapes()[size_t(value)].c;
                   }
                 },
                 [&](const auto&) { fail("{} cannot be frozen", network.nodes[size_t(step.node)].name); },
             },
             network.nodes[size_t(step.node)].layer);
}

}  // namespace switchback
