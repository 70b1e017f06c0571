// The first pass of a plan: which nodes become one step.
#include <algorithm>

#include "engine/run/step.h"

namespace switchback {
namespace {

template <typename L>
const L* layer_as(const Network& network, int node) {
  return std::get_if<L>(&network.nodes[node].layer);
}

// Leaves only the steps between the given and the observed nodes.
void drop_steps(const Network& network, const List<int>& holders, const Wishes& wishes, List<Step>& steps) {
  List<bool> needed(network.nodes.size(), false), given(network.nodes.size(), false);
  for (int node : wishes.given) {
    CHECK(holders[node] == node, "{} shares its value with {}; give that", network.nodes[node].name,
          network.nodes[holders[node]].name);
    given[node] = true;
  }
  for (int node : wishes.observed) needed[holders[node]] = true;
  List<Step> kept;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    if (!needed[step->output] || given[step->output]) continue;
    for (int value : step->sources()) needed[value] = true;
    kept.push_back(std::move(*step));
  }
  CHECK(!needed[0] || given[0], "what is given to the plan does not suffice: it needs the input too");
  std::reverse(kept.begin(), kept.end());
  steps = std::move(kept);
}

// How many steps read each value.
List<int> count_readers(const List<Step>& steps, size_t nodes) {
  List<int> readers(nodes, 0);
  for (const Step& step : steps)
    for (int value : step.sources()) ++readers[value];
  return readers;
}

class Fusion {
 public:
  Fusion(const Network& network, const List<int>& holders, const Wishes& wishes)
      : network_(network), holders_(holders), wanted_(network.nodes.size(), false), readers_(network.nodes.size(), 0),
        maker_(network.nodes.size(), -1), training_(wishes.training) {
    for (const std::vector<int>* nodes : {&wishes.observed, &wishes.given})
      for (int node : *nodes) wanted_[holders[node]] = true;
    for (const Node& node : network.nodes)
      for (int i : node.inputs) ++readers_[holders[i]];
    for (int i = 0; i < network.nodes.count(); ++i)  // a dropout reads its input without being a step
      if (holders[i] != i) --readers_[holders[network.nodes[i].inputs[0]]];
  }

  List<Step> run() {
    for (int i = 1; i < network_.nodes.count(); ++i)
      if (holders_[i] == i && !joins_batch_norm(i) && !joins_sum(i) && !joins_relu(i)) add(i);
    // A step runs where its last node stood: what it adds may have been made after its convolution's place.
    std::stable_sort(steps_.begin(), steps_.end(), [](const Step& a, const Step& b) { return a.output < b.output; });
    return std::move(steps_);
  }

 private:
  int input(int node, size_t i) const { return holders_[network_.nodes[node].inputs[i]]; }
  Facts facts(int node) const { return switchback::facts(network_.nodes[node].layer); }

  // In training a batch norm is no part of the convolution before it, and adds what follows by itself.
  bool takes_sum(int node) const { return facts(node).takes_sum || (training_ && layer_as<BatchNorm2d>(network_, node)); }

  // The step that makes a value, where nobody else wants to see that.
  Step* joinable(int value) {
    const int step = maker_[value];
    return step >= 0 && readers_[value] == 1 && !wanted_[value] ? &steps_[step] : nullptr;
  }
  bool extend(Step& step, int node) {
    step.output = node;
    maker_[node] = int(&step - steps_.data());
    return true;
  }
  bool joins_batch_norm(int node) {
    if (training_ || !layer_as<BatchNorm2d>(network_, node)) return false;
    Step* step = joinable(input(node, 0));
    if (!step || step->node != input(node, 0) || !facts(step->node).takes_sum) return false;
    step->batch_norm = node;
    return extend(*step, node);
  }
  bool joins_sum(int node) {
    if (!layer_as<Add>(network_, node) || input(node, 0) == input(node, 1)) return false;
    for (size_t side = 0; side < 2; ++side) {
      Step* step = joinable(input(node, side));
      if (!step || !takes_sum(step->node) || step->relu >= 0 || step->sum >= 0) continue;
      step->sum = input(node, 1 - side);
      return extend(*step, node);
    }
    return false;
  }
  bool joins_relu(int node) {
    const auto* relu = layer_as<ReLU>(network_, node);
    Step* step = relu ? joinable(input(node, 0)) : nullptr;
    if (!step || step->relu >= 0 || !facts(step->node).takes_relu) return false;
    step->relu = node;
    step->clip = relu->clip;
    return extend(*step, node);
  }
  void add(int node) {
    Step step{.node = node, .output = node, .inputs = {}};
    for (size_t i = 0; i < network_.nodes[node].inputs.size(); ++i) step.inputs.push_back(input(node, i));
    if (const auto* relu = layer_as<ReLU>(network_, node)) step.relu = node, step.clip = relu->clip;
    steps_.push_back(std::move(step));
    maker_[node] = int(steps_.size()) - 1;
  }

  const Network& network_;
  const List<int>& holders_;
  List<bool> wanted_;
  List<int> readers_, maker_;  // of each value: its readers, and the step that makes it
  List<Step> steps_;
  bool training_;
};

}  // namespace

std::vector<int> Step::sources() const {
  std::vector<int> all = inputs;
  if (sum >= 0) all.push_back(sum);
  return all;
}

List<int> holders(const Network& network, const List<Shape>& shapes, const Wishes& wishes, bool linear_reads_maps) {
  const int count = int(network.nodes.size());
  List<int> holder(network.nodes.size());
  for (int i = 0; i < count; ++i) {
    const Node& n = network.nodes[i];
    const bool flat = layer_as<Flatten>(network, i) && shapes[n.inputs[0]].h == 1 && shapes[n.inputs[0]].w == 1;
    const bool computed = wishes.training && learns(n.layer).by_itself;
    holder[i] = (facts(n.layer).shares_input && !computed) || flat ? holder[n.inputs[0]] : i;
  }
  if (!linear_reads_maps) return holder;
  List<bool> needed(network.nodes.size(), false);  // flattens whose own value somebody wants
  for (const std::vector<int>* nodes : {&wishes.observed, &wishes.given})
    for (int i : *nodes) needed[holder[i]] = true;
  for (int i = 0; i < count; ++i)
    if (!layer_as<Linear>(network, i) && holder[i] == i)
      for (int input : network.nodes[i].inputs) needed[holder[input]] = true;
  for (int i = 0; i < count; ++i)
    if (const int flat = holder[i]; layer_as<Flatten>(network, flat) && !needed[flat])
      holder[i] = holder[network.nodes[flat].inputs[0]];
  return holder;
}

List<Step> fuse(const Network& network, const List<int>& holders, const Wishes& wishes) {
  List<Step> steps = Fusion(network, holders, wishes).run();
  if (!wishes.given.empty()) drop_steps(network, holders, wishes, steps);
  return steps;
}

void fuse_pools(Context& ctx, const Network& network, const List<Shape>& shapes, const List<bool>& observed, DType type,
                List<Step>& steps) {
  const List<int> readers = count_readers(steps, network.nodes.size());
  for (int i = 0; i + 1 < steps.count(); ++i) {
    Step &step = steps[i], &next = steps[i + 1];
    const auto* conv = layer_as<Conv2d>(network, step.node);
    const auto* pool = layer_as<MaxPool2d>(network, next.node);
    if (!conv || !pool || next.inputs[0] != step.output || readers[step.output] != 1 || observed[step.output] ||
        step.sum >= 0 || (step.relu >= 0 && next.relu >= 0))
      continue;
    if (!conv2d_fuses_pool(ctx, *conv, shapes[step.inputs[0]], type, *pool)) continue;
    step.with_next_pool = next.done_with_previous = true;
  }
}

List<Part> parts_in_place(const Network& network, const List<Shape>& shapes, const List<bool>& observed,
                          const List<Step>& steps) {
  const List<int> readers = count_readers(steps, network.nodes.size());
  List<const Step*> maker(network.nodes.size(), nullptr);
  for (const Step& step : steps) maker[step.output] = &step;
  List<Part> parts(network.nodes.size());
  for (const Step& step : steps) {
    if (!layer_as<Concat>(network, step.node)) continue;
    int64_t channel = 0;
    for (int value : step.inputs) {
      const Step* by = maker[value];
      if (by && readers[value] == 1 && !observed[value] && facts(network.nodes[by->node].layer).writes_in_place)
        parts[value] = {step.output, channel};
      channel += shapes[value].c;
    }
  }
  return parts;
}

}  // namespace switchback
