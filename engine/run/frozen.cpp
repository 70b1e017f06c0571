#include "engine/run/frozen.h"

#include <algorithm>

namespace switchback {
namespace {

// The nodes that `node` depends on, and itself.
List<bool> nodes_before(const Network& network, int node) {
  List<bool> before(network.nodes.size(), false);
  before[node] = true;
  for (int i = node; i >= 0; --i)
    if (before[i])
      for (int input : network.nodes[i].inputs) before[input] = true;
  return before;
}

PlanOptions single_layers(const Network& network, int target, Precision precision) {
  PlanOptions options{.precision = precision, .observe = {}, .tape = false, .given = {0}};
  const List<bool> needed = nodes_before(network, target);
  for (int i = target; i >= 0; --i)
    if (needed[i]) options.observe.push_back(i);  // what is observed is not fused away
  return options;
}

}  // namespace

void check_piecewise_affine(const Network& network, int node) {
  const List<bool> before = nodes_before(network, node);
  for (int i = 0; i <= node; ++i) {
    const Node& n = network.nodes[i];
    if (!before[i] || facts(n.layer).affine) continue;
    throw Error(fmt::format("{} ({}) is not piecewise affine: beyond it {} has no etalons", n.name, type_name(n.layer),
                            network.name),
                fmt::format("choose a unit before it: --layer {}", network.nodes[n.inputs[0]].name), true);
  }
}

FrozenForward::FrozenForward(Context& ctx, const Model& model, Shape input, int target, Precision precision)
    : ctx_(ctx), plan_(ctx, model, input, single_layers(model.network, target, precision)), target_(plan_.holder(target)) {
  List<Lifetime> lives(model.network.nodes.size());
  const auto bytes = [&](int value) { return size_t(plan_.shapes()[value].count()) * size_of(plan_.type()); };
  const int end = int(plan_.steps().size());
  lives[0] = {bytes(0), -1, -1};
  for (int i = 0; i < end; ++i) {
    const Step& step = plan_.steps()[i];
    CHECK(step.node == step.output, "{} was fused", model.network.nodes[step.node].name);
    lives[step.output] = {bytes(step.output), i, i};
    for (int value : step.inputs) lives[value].last = i;
  }
  lives[target_].last = end;
  bytes_ = place(lives, offsets_);
}

View FrozenForward::view(int value) const {
  return {memory_.as<char>() + offsets_[value], plan_.shapes()[value].with_n(n_), plan_.type()};
}

View FrozenForward::input(int64_t n) {
  CHECK(n > 0 && n <= plan_.capacity(), "{} items for a pass of {}", n, plan_.capacity());
  if (memory_.size() == 0) memory_ = ctx_.allocate(bytes_);
  n_ = n;
  return view(0);
}

ConstView FrozenForward::run(const Tape& tape, bool biases) {
  CHECK(n_ > 0, "run() before input()");
  CHECK(tape.n == 1, "a frozen network has the tape of one item, not of {}", tape.n);
  for (const Step& step : plan_.steps()) {
    std::vector<ConstView> x;
    for (int value : step.inputs) x.push_back(view(value));
    FrozenCall call{.ctx = ctx_, .x = x, .y = view(step.output), .biases = biases, .tf32 = plan_.tf32(), .weights = plan_.weights(step)};
    if (tape.find(Tape::Kind::gate, step.node)) {
      const GatePlanes planes = gate_planes(tape, step.node);
      call.gates = planes.gates, call.above = planes.above;
    }
    if (const Tape::Slot* slot = tape.find(Tape::Kind::switches, step.node)) call.switches = tape.data(*slot);
    frozen(plan_.layer(step), call);
  }
  return view(target_);
}

}  // namespace switchback
