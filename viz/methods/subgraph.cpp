#include "viz/methods/subgraph.h"

#include <algorithm>
#include <cmath>

#include "kernels/pointwise/pointwise.h"
#include "viz/methods/batches.h"

namespace switchback {
namespace {

constexpr int64_t kMostVertices = 3000, kMostConnections = 200000;
constexpr double kMostWork = 2e9;  // multiply-adds

[[noreturn]] void refuse(const std::string& what) {
  throw Error(what, "subgraphs are drawn of small chains of convolutions, linear layers, max pools and ReLUs", true);
}

// The nodes from the input to the unit's, which must follow each other.
std::vector<int> chain_to(const Network& network, int node) {
  std::vector<int> chain;
  for (int at = node; at != 0; at = network.nodes[size_t(at)].inputs[0]) {
    const Node& n = network.nodes[size_t(at)];
    const bool known = std::visit(overloaded{
                                      [](const Conv2d&) { return true; },
                                      [](const Linear&) { return true; },
                                      [](const MaxPool2d&) { return true; },
                                      [](const ReLU&) { return true; },
                                      [](const BatchNorm2d&) { return true; },
                                      [](const Dropout&) { return true; },
                                      [](const Flatten&) { return true; },
                                      [](const auto&) { return false; },
                                  },
                                  n.layer);
    if (!known || n.inputs.size() != 1)
      refuse(fmt::format("{} ({}) has no place in a subgraph", n.name, type_name(n.layer)));
    chain.push_back(at);
  }
  std::reverse(chain.begin(), chain.end());
  return chain;
}

// A convolution or linear layer of the chain, and the value that it reads as a map (flattened or not).
struct Connection {
  int node;
  int source;           // whose value is read, before a flatten
  Shape in, out;        // n = 1
  bool relu_before = false;
};

std::vector<Connection> connections(const Network& network, Shape image, int node) {
  const List<Shape> shapes = network.shapes(image.with_n(1));
  std::vector<Connection> out;
  int source = 0;
  bool relu = false;
  int64_t vertices = 0, edges = 0;
  double work = 0;
  for (int at : chain_to(network, node)) {
    const Layer& layer = network.nodes[size_t(at)].layer;
    if (std::holds_alternative<Conv2d>(layer) || std::holds_alternative<Linear>(layer)) {
      const Connection c{at, source, shapes[size_t(source)], shapes[size_t(at)], relu};
      vertices += c.in.c;
      edges += c.in.c * c.out.c;
      const auto* conv = std::get_if<Conv2d>(&layer);
      work += conv ? double(c.out.item()) * double(c.in.c * conv->kernel_h * conv->kernel_w) : double(c.in.item() * c.out.c);
      out.push_back(c);
      relu = false;
    }
    relu = relu || std::holds_alternative<ReLU>(layer);
    if (!std::holds_alternative<Flatten>(layer)) source = at;
  }
  if (out.empty() || out.back().node != node) refuse("the unit is no convolution's and no linear layer's");
  if (vertices > kMostVertices || edges > kMostConnections || work > kMostWork)
    refuse(fmt::format("{} is too large for a picture of its subgraph: {} units, {} connections between them", network.name,
                       vertices, edges));
  return out;
}

// Σ over positions of value · weight · gradient, from channel i of the input to channel o of the output.
double conv_edge(const Conv2d& l, const float* weight, Shape in, const float* value, Shape out, const float* gradient,
                 int64_t i, int64_t o) {
  const int64_t group_in = l.in_channels / l.groups, group_out = l.out_channels / l.groups;
  if (i / group_in != o / group_out) return 0;
  const float* w = weight + (o * group_in + i % group_in) * l.kernel_h * l.kernel_w;
  double sum = 0;
  for (int64_t p = 0; p < out.h; ++p)
    for (int64_t q = 0; q < out.w; ++q) {
      const double g = gradient[(o * out.h + p) * out.w + q];
      if (g == 0) continue;
      for (int64_t r = 0; r < l.kernel_h; ++r)
        for (int64_t s = 0; s < l.kernel_w; ++s) {
          const int64_t y = p * l.stride_h - l.pad_top + r * l.dilation_h, x = q * l.stride_w - l.pad_left + s * l.dilation_w;
          if (y < 0 || y >= in.h || x < 0 || x >= in.w) continue;
          sum += g * double(w[r * l.kernel_w + s]) * double(value[(i * in.h + y) * in.w + x]);
        }
    }
  return sum;
}

double linear_edge(const float* weight, Shape in, const float* value, const float* gradient, int64_t i, int64_t o) {
  if (gradient[o] == 0) return 0;
  double sum = 0;
  for (int64_t p = i * in.h * in.w; p < (i + 1) * in.h * in.w; ++p) sum += double(weight[o * in.item() + p]) * double(value[p]);
  return sum * double(gradient[o]);
}

std::vector<SubgraphEdge> edges_of(const Model& model, const Connection& c, const float* value, const float* gradient) {
  std::vector<SubgraphEdge> edges;
  const auto* conv = std::get_if<Conv2d>(&model.network.nodes[c.node].layer);
  const float* weight = model.weights.values(c.node, "weight").data();
  for (int64_t i = 0; i < c.in.c; ++i)
    for (int64_t o = 0; o < c.out.c; ++o) {
      const double sum = conv ? conv_edge(*conv, weight, c.in, value, c.out, gradient, i, o)
                              : linear_edge(weight, c.in, value, gradient, i, o);
      if (sum != 0) edges.push_back({i, o, sum});
    }
  return edges;
}

// The vertices of one value [C,h,w].
SubgraphLayer layer_of(const std::string& name, Shape s, const float* values, bool relu_before) {
  SubgraphLayer layer{.name = name, .height = s.h, .width = s.w, .vertices = {}};
  for (int64_t c = 0; c < s.c; ++c) {
    SubgraphLayer::Vertex v;
    v.map.assign(values + c * s.h * s.w, values + (c + 1) * s.h * s.w);
    const auto on = std::count_if(v.map.begin(), v.map.end(), [](float a) { return a != 0; });
    v.active = relu_before ? double(on) / double(s.h * s.w) : 1;
    layer.vertices.push_back(std::move(v));
  }
  return layer;
}

}  // namespace

Subgraph active_subgraph(Context& ctx, const Model& model, Shape image, const float* x, const Unit& unit) {
  const Network& network = model.network;
  const std::vector<Connection> all = connections(network, image, unit.node);
  PlanOptions options;
  options.observe = {0, unit.node};
  for (const Connection& c : all) options.observe.insert(options.observe.end(), {c.node, c.source});
  options.given = {0};
  Plan plan(ctx, model, image.with_n(1), options);
  Tape tape;
  plan.write(x, 1);
  plan.forward(&tape);
  Subgraph graph;
  graph.unit = unit;
  std::vector<Tensor> values;
  for (const Connection& c : all) values.push_back(plan.read(c.source));
  const Tensor target = plan.read(unit.node);
  graph.value = score_of(unit, Score::logit, target);
  Wanted wanted;
  for (const Connection& c : all) wanted.nodes.push_back(c.node);
  Backward backward(plan, unit.node, wanted, 1);
  one_hot(ctx, backward.seed(1), {{unit.channel, unit.row, unit.col}});
  backward.run(tape);
  for (size_t k = 0; k < all.size(); ++k) {
    const Connection& c = all[k];
    Tensor gradient({1, c.out.c, c.out.h, c.out.w});
    read_nchw(ctx, backward.gradient(c.node), gradient.data());
    graph.layers.push_back(layer_of(network.nodes[size_t(c.source)].name, c.in, values[k].data(), c.relu_before));
    graph.edges.push_back(edges_of(model, c, values[k].data(), gradient.data()));
    for (const SubgraphEdge& e : graph.edges.back()) graph.layers.back().vertices[size_t(e.from)].contribution += e.contribution;
  }
  const Shape last = all.back().out;
  graph.layers.push_back(layer_of(network.nodes[size_t(unit.node)].name, last, target.data(), false));
  for (SubgraphLayer::Vertex& v : graph.layers.back().vertices) v.active = 0;
  SubgraphLayer::Vertex& end = graph.layers.back().vertices[size_t(unit.channel)];
  end.active = 1;
  end.contribution = graph.value;
  return graph;
}

}  // namespace switchback
