// The gradient at a node is that at the next bottleneck behind it, taken back through what lies between. So all nodes
// together cost little more than one backward pass, and each gets what a pass from the output to it alone would give.
#include "viz/methods/dump.h"

#include <algorithm>
#include <numeric>

namespace switchback {
namespace {

PlanOptions all_observed(const Network& network, Precision precision, bool tape) {
  PlanOptions options{.precision = precision, .observe = std::vector<int>(network.nodes.size()), .tape = tape};
  std::iota(options.observe.begin(), options.observe.end(), 0);
  return options;
}

}  // namespace

std::vector<int> next_bottlenecks(const Network& network, int from) {
  std::vector<int> next(network.nodes.size(), -1);
  next[size_t(from)] = from;
  for (int reader = from; reader > 0; --reader) {  // a node's readers stand behind it, so theirs are known
    if (next[size_t(reader)] < 0) continue;
    for (int node : network.nodes[size_t(reader)].inputs) {
      // Where the way from this reader meets the way from those before.
      int here = reader, known = next[size_t(node)];
      while (known >= 0 && here != known) {
        int& behind = here < known ? here : known;
        behind = next[size_t(behind)];
      }
      next[size_t(node)] = here;
    }
  }
  return next;
}

NodeDump::NodeDump(Context& ctx, const Network& network, Shape image, Precision precision, bool with_gradients)
    : plan_(ctx, network, image.with_n(1), all_observed(network, precision, with_gradients)) {}

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
  const std::vector<int> next = next_bottlenecks(plan_.network(), unit.node);
  std::vector<bool> wanted(next.size(), false);
  for (int node : nodes) wanted[size_t(node)] = next[size_t(node)] >= 0 && !shares_gradient(node);
  std::vector<bool> needed = wanted;
  std::vector<int> waiting(next.size(), 0);  // gradients that are still to be made of this one
  needed[size_t(unit.node)] = true;
  for (int node = 0; node < unit.node; ++node)
    if (needed[size_t(node)]) {
      needed[size_t(next[size_t(node)])] = true;
      ++waiting[size_t(next[size_t(node)])];
    }
  std::vector<Tensor> gradient(next.size());
  for (int node = unit.node; node >= 0; --node) {
    if (!needed[size_t(node)]) continue;
    const size_t start = size_t(next[size_t(node)]);
    Backward backward(plan_, int(start), node, 1);
    if (node == unit.node)
      write_seeds(ctx, {&unit, 1}, scoring, values, 1, backward.seed(1));
    else
      write_nchw(ctx, gradient[start].data(), backward.seed(1));
    Tensor& own = gradient[size_t(node)] = Tensor(plan_.dims(node));
    read_nchw(ctx, backward.run(tape_, kGradient), own.data());
    if (wanted[size_t(node)]) sink(node, own);
    if (waiting[size_t(node)] == 0) own = Tensor();
    if (node != unit.node && --waiting[start] == 0) gradient[start] = Tensor();
  }
}

}  // namespace switchback
