#include "engine/network.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

namespace switchback {

Network::Network(std::string name, Shape input) : name(std::move(name)), input(input) {
  nodes.push_back({"x", Input{}, {}});
}

int Network::add(std::string node_name, Layer layer, std::vector<int> inputs) {
  for (int i : inputs)
    CHECK(i >= 0 && i < int(nodes.size()), "node {} reads node {}, which is not there yet", node_name, i);
  for (const Node& n : nodes) CHECK(n.name != node_name, "two nodes are called {}", node_name);
  nodes.push_back({std::move(node_name), std::move(layer), std::move(inputs)});
  return output();
}

namespace {

// Levenshtein's.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t keep = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, keep});
    }
  }
  return row.back();
}

}  // namespace

int Network::find(std::string_view node_name) const {
  std::vector<std::string> names;
  for (const Node& node : nodes) {
    if (node.name == node_name) return int(names.size());
    names.push_back(node.name);
  }
  const std::string near = nearest(node_name, names);
  const bool alike = edit_distance(node_name, near) <= std::max<size_t>(2, near.size() / 2);
  const std::string hint =
      names.size() <= 16 ? fmt::format("layers: {}", fmt::join(names, ", "))
                         : fmt::format("{}; `switchback info --model {}` lists all",
                                       alike ? "the nearest is " + near : fmt::format("for example {}", names[names.size() / 2]),
                                       name);
  throw Error(fmt::format("{} has no layer '{}'", name, node_name), hint, true);
}

List<Shape> Network::shapes(Shape in) const {
  List<Shape> all;
  for (const Node& node : nodes) {
    std::vector<Shape> inputs;
    if (all.empty()) inputs.push_back(in);
    for (int i : node.inputs) inputs.push_back(all[i]);
    try {
      all.push_back(output_shape(node.layer, inputs));
    } catch (const Error& e) {
      throw Error(fmt::format("{} cannot take an input of {}x{}x{}: {}: {}", name, in.c, in.h, in.w, node.name, e.what()),
                  fmt::format("its default input is {}x{}x{}", input.c, input.h, input.w));
    }
  }
  return all;
}

int64_t Network::parameter_count() const {
  int64_t sum = 0;
  for (const Node& node : nodes)
    for (const ParameterSpec& p : parameters(node.layer))
      if (p.trainable) sum += count(p.dims);
  return sum;
}

int64_t Network::flops(Shape in) const {
  const List<Shape> all = shapes(in);
  int64_t sum = 0;
  for (const Node& node : nodes) {
    std::vector<Shape> inputs;
    for (int i : node.inputs) inputs.push_back(all[i]);
    if (!inputs.empty()) sum += switchback::flops(node.layer, inputs);
  }
  return sum;
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  double least = 2;  // of the distance for each letter: a short word is not near to all others
  for (const std::string& candidate : candidates) {
    const double longest = double(std::max<size_t>({word.size(), candidate.size(), 1}));
    const double distance = double(edit_distance(word, candidate)) / longest;
    if (distance < least) least = distance, best = candidate;
  }
  return best;
}

}  // namespace switchback
