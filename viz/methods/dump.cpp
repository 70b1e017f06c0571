#include "viz/methods/dump.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace switchback {
namespace {

PlanOptions all_observed(const Network& network, Precision precision, bool tape) {
  PlanOptions options{.precision = precision, .observe = std::vector<int>(network.nodes.size()), .tape = tape};
  std::iota(options.observe.begin(), options.observe.end(), 0);
  return options;
}

}  // namespace

NodeDump::NodeDump(Context& ctx, const Model& model, Shape image, Precision precision, bool with_gradients)
    : plan_(ctx, model, image.with_n(1), all_observed(model.network, precision, with_gradients)) {}

void NodeDump::forward(const float* image) {
  plan_.write(image, 1);
  plan_.forward(plan_.options().tape ? &tape_ : nullptr);
}

bool NodeDump::shares_gradient(int node) const {
  const Network& network = plan_.network();
  const int holder = plan_.holder(node);
  while (node != holder) {
    node = network.nodes[size_t(node)].inputs[0];
    int64_t readers = 0;
    for (const Node& n : network.nodes) readers += std::count(n.inputs.begin(), n.inputs.end(), node);
    if (readers > 1) return true;
  }
  return false;
}

void NodeDump::gradients(const Unit& unit, Scoring scoring, const Tensor& values, const std::vector<int>& nodes,
                         const Sink& sink) {
  Context& ctx = plan_.context();
  Wanted wanted;
  for (int node : nodes)
    if (depends(plan_.network(), unit.node, node) && !shares_gradient(node)) wanted.nodes.push_back(node);
  std::ranges::sort(wanted.nodes, std::greater());
  if (wanted.nodes.empty()) return;
  Backward backward(plan_, unit.node, wanted, 1);
  write_seeds(ctx, {&unit, 1}, scoring, values, 1, backward.seed(1));
  backward.run(tape_);
  for (int node : wanted.nodes) {
    Tensor gradient(plan_.dims(node));
    read_nchw(ctx, backward.gradient(node), gradient.data());
    sink(node, gradient);
  }
}

}  // namespace switchback
