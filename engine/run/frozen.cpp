#include "engine/run/frozen.h"

#include "kernels/frozen/frozen.h"
#include "kernels/pointwise/pointwise.h"

namespace switchback {
namespace {

// The explicit list: a layer that is not on it is refused.
bool is_piecewise_affine(const Layer& layer) {
  return std::visit(overloaded{
                        [](const Binary& l) { return l.function == BinaryFunction::add || l.function == BinaryFunction::sub; },
                        [](const BinaryConstant& l) { return l.function != BinaryFunction::div || !l.reversed; },
                        []<typename L>(const L&) {
                          using std::is_same_v;
                          return is_same_v<L, Input> || is_same_v<L, Conv2d> || is_same_v<L, ConvTranspose2d> ||
                                 is_same_v<L, Linear> || is_same_v<L, MaxPool2d> || is_same_v<L, GlobalMaxPool> ||
                                 is_same_v<L, AvgPool2d> || is_same_v<L, AdaptiveAvgPool2d> || is_same_v<L, Reduce> ||
                                 is_same_v<L, ReLU> || is_same_v<L, LeakyReLU> || is_same_v<L, PReLU> ||
                                 is_same_v<L, Clip> || is_same_v<L, Hardsigmoid> || is_same_v<L, BatchNorm2d> ||
                                 is_same_v<L, Dropout> || is_same_v<L, Flatten> || is_same_v<L, Add> ||
                                 is_same_v<L, Concat> || is_same_v<L, Resize> || is_same_v<L, Pad> ||
                                 is_same_v<L, Slice> || is_same_v<L, ChannelShuffle> || is_same_v<L, Reshape> ||
                                 is_same_v<L, Permute>;
                        },
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

const ConvTransposeWeights& FrozenForward::conv_transpose(const Step& step, bool biases) {
  const ConvTransposeWeights& whole = packed_conv_transpose(plan_.network(), step);
  if (biases) return whole;
  const float* weight = plan_.network().nodes[size_t(step.node)].weight.data();
  return conv_transposes_.try_emplace(step.node, whole.conv(), weight).first->second;
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

// Gated layers: scale·x where the gate is on, and constants where biases count.
void FrozenForward::run_gates(const Step& step, const Tape& tape, float scale, const GateConstants& constants, bool biases) {
  const auto [gates, above] = gate_planes(tape, step.node);
  frozen_gates_forward(ctx_, view(step.inputs[0]), gates, above, scale, biases ? constants : GateConstants{}, n_,
                       view(step.output));
}

// x where the gate is on, else slope·x: what comes back through it, too.
void FrozenForward::run_slopes(const Step& step, const Tape& tape, const Slopes& slopes) {
  slope_backward(ctx_, slopes, view(step.inputs[0]), static_cast<const uint32_t*>(tape.data(step.node)), kGradient,
                 view(step.output), {.seeds_per_item = n_, .rule = kGradient});
}

void FrozenForward::run_constant(const Step& step, const BinaryConstant& l, bool biases) {
  ConstView constant = packed_constant(ctx_, plan_.network(), step.node);
  const bool adds = l.function == BinaryFunction::add || l.function == BinaryFunction::sub;
  if (adds && !biases) {
    auto [place, fresh] = zeros_.try_emplace(step.node);
    if (fresh) place->second.values.assign(size_t(constant.shape.item()), 0.f);
    constant.data = place->second.on(ctx_);
  }
  const ConstView x = view(step.inputs[0]);
  binary_forward(ctx_, {l.function}, l.reversed ? constant : x, l.reversed ? x : constant, view(step.output));
}

void FrozenForward::run_pad(const Step& step, Pad pad, bool biases) {
  const ConstView x = view(step.inputs[0]);
  if (biases || pad.value == 0)
    return resample_forward(ctx_, packed_resampling(plan_.network(), step.node, x.shape), x, view(step.output));
  pad.value = 0;
  const auto place = pads_.try_emplace(step.node, pad, x.shape.with_n(1)).first;
  resample_forward(ctx_, place->second, x, view(step.output));
}

void FrozenForward::run_step(const Step& step, const Tape& tape, bool biases) {
  const View y = view(step.output);
  const ConstView x = view(step.inputs[0]);
  const Network& network = plan_.network();
  const auto pool = [&](const MaxPool2d& l) { frozen_max_pool2d_forward(ctx_, l, x, tape.data(step.node), n_, y); };
  const auto ramp = [&](const Ramp& r) { run_gates(step, tape, r.scale, gate_constants(r), biases); };
  const auto resample = [&] { resample_forward(ctx_, packed_resampling(network, step.node, x.shape), x, y); };
  std::visit(overloaded{
                 [&](const Conv2d&) { conv2d_forward(ctx_, conv(step, biases), x, y); },
                 [&](const ConvTranspose2d&) { conv_transpose2d_forward(ctx_, conv_transpose(step, biases), x, y); },
                 [&](const Linear&) { linear_forward(ctx_, linear(step, biases), x, y); },
                 [&](const MaxPool2d& l) { pool(l); },
                 [&](const GlobalMaxPool&) { pool(whole_map_pool(x.shape)); },
                 [&](const AvgPool2d& l) { avg_pool2d_forward(ctx_, l, x, y); },
                 [&](const AdaptiveAvgPool2d& l) { adaptive_avg_pool2d_forward(ctx_, l, x, y); },
                 [&](const Reduce& l) { reduce_forward(ctx_, l, x, y); },
                 [&](const ReLU& l) { run_gates(step, tape, 1, {.above = l.clip}, biases); },
                 [&](const LeakyReLU& l) { run_slopes(step, tape, {.all = l.slope}); },
                 [&](const PReLU&) { run_slopes(step, tape, packed_slopes(ctx_, network, step.node)); },
                 [&](const Clip& l) { ramp(l); },
                 [&](const Hardsigmoid& l) { ramp(l); },
                 [&](const BatchNorm2d&) {
                   const AffineWeights& bn = packed_affine(network, step.node);
                   channel_affine_forward(ctx_, x, bn.scale_on(ctx_), biases ? bn.shift_on(ctx_) : nullptr, y);
                 },
                 [&](const Flatten&) { flatten_forward(ctx_, x, y); },
                 [&](const Add&) { add_forward(ctx_, x, view(step.inputs[1]), y); },
                 [&](const Binary& l) { binary_forward(ctx_, l, x, view(step.inputs[1]), y); },
                 [&](const BinaryConstant& l) { run_constant(step, l, biases); },
                 [&](const Concat&) {
                   int64_t channel = 0;
                   for (int value : step.inputs) {
                     concat_forward(ctx_, view(value), y, channel);
                     channel += plan_.shapes()[size_t(value)].c;
                   }
                 },
                 [&](const Pad& l) { run_pad(step, l, biases); },
                 [&](const Resize&) { resample(); },
                 [&](const Slice&) { resample(); },
                 [&](const ChannelShuffle&) { resample(); },
                 [&](const Reshape& l) { rearrange_forward(ctx_, {l, x.shape}, x, y); },
                 [&](const Permute& l) { rearrange_forward(ctx_, {l, x.shape}, x, y); },
                 [&](const auto&) { fail("{} cannot be frozen", network.nodes[size_t(step.node)].name); },
             },
             network.nodes[size_t(step.node)].layer);
}

}  // namespace switchback
