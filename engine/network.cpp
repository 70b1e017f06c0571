#include "engine/network.h"

#include <fmt/ranges.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "engine/files/safetensors.h"
#include "kernels/noise/noise.h"

namespace switchback {

std::vector<std::pair<ParameterSpec, Tensor*>> Node::parameters() {
  std::vector<std::pair<ParameterSpec, Tensor*>> list;
  for (ParameterSpec& spec : switchback::parameters(layer)) {
    Tensor* tensor = spec.name == "weight" ? &weight : spec.name == "bias" ? &bias
                     : spec.name == "running_mean" ? &running_mean : &running_var;
    list.emplace_back(std::move(spec), tensor);
  }
  return list;
}

Network::Network(std::string name, Shape input) : name(std::move(name)), input(input) {
  nodes.push_back({.name = "x", .layer = Input{}, .inputs = {}, .weight = {}, .bias = {}, .running_mean = {}, .running_var = {}});
}

int Network::add(std::string node_name, Layer layer, std::vector<int> inputs) {
  for (int i : inputs)
    CHECK(i >= 0 && i < int(nodes.size()), "node {} reads node {}, which is not there yet", node_name, i);
  for (const Node& n : nodes) CHECK(n.name != node_name, "two nodes are called {}", node_name);
  nodes.push_back({.name = std::move(node_name), .layer = std::move(layer), .inputs = std::move(inputs), .weight = {},
                   .bias = {}, .running_mean = {}, .running_var = {}});
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
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].name == node_name) return int(i);
    names.push_back(nodes[i].name);
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

std::vector<Shape> Network::shapes(Shape in) const {
  std::vector<Shape> all;
  for (const Node& node : nodes) {
    std::vector<Shape> inputs;
    if (all.empty()) inputs.push_back(in);
    for (int i : node.inputs) inputs.push_back(all[size_t(i)]);
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
      if (!p.name.starts_with("running_")) sum += count(p.dims);
  return sum;
}

int64_t Network::flops(Shape in) const {
  const std::vector<Shape> all = shapes(in);
  int64_t sum = 0;
  for (const Node& node : nodes) {
    std::vector<Shape> inputs;
    for (int i : node.inputs) inputs.push_back(all[size_t(i)]);
    if (!inputs.empty()) sum += switchback::flops(node.layer, inputs);
  }
  return sum;
}

void load_weights(Network& network, const Safetensors& file) {
  network.packed.reset();
  std::vector<std::string> missing, misshapen, known;
  for (Node& node : network.nodes)
    for (auto& [spec, tensor] : node.parameters()) {
      const std::string name = node.name + "." + spec.name;
      known.push_back(name);
      if (!file.has(name)) {
        missing.push_back(name);
      } else if (file.dims(name) != spec.dims) {
        misshapen.push_back(fmt::format("{} is {}, should be {}", name, to_string(file.dims(name)), to_string(spec.dims)));
      }
    }
  const auto ignored = [&](const std::string& name) {
    return name.ends_with(".num_batches_tracked") ||
           std::any_of(network.training_only.begin(), network.training_only.end(),
                       [&](const std::string& prefix) { return name.starts_with(prefix); });
  };
  std::vector<std::string> surplus;
  for (const std::string& name : file.names())
    if (!ignored(name) && std::find(known.begin(), known.end(), name) == known.end()) surplus.push_back(name);
  if (!missing.empty() || !misshapen.empty() || !surplus.empty()) {
    std::vector<std::string> parts;
    const auto say = [&](const char* what, std::vector<std::string>& list) {
      if (list.empty()) return;
      const size_t all = list.size();
      if (all > 8) list.resize(8);
      parts.push_back(fmt::format("{} {}: {}{}", all, what, fmt::join(list, ", "), all > 8 ? ", …" : ""));
    };
    say("missing", missing);
    say("misshapen", misshapen);
    say("surplus", surplus);
    throw Error(fmt::format("these are not weights of {}: {}", network.name, fmt::join(parts, "; ")),
                "--model must name the architecture that the weights were made for");
  }
  for (Node& node : network.nodes)
    for (auto& [spec, tensor] : node.parameters()) *tensor = file.load(node.name + "." + spec.name);
}

namespace {

// Scale and offset of v in [-1, 1) for one parameter.
std::pair<float, float> random_range(const Layer& layer, const ParameterSpec& spec) {
  if (std::holds_alternative<BatchNorm2d>(layer)) {
    if (spec.name == "weight") return {0.25f, 1.f};
    if (spec.name == "running_var") return {0.5f, 1.f};
    return {0.1f, 0.f};
  }
  if (std::holds_alternative<PReLU>(layer)) return {0.25f, 0.25f};
  if (spec.name == "bias") return {0.1f, 0.f};
  const int64_t fan_in = count(spec.dims) / spec.dims[0];
  return {float(std::sqrt(6.0 / double(fan_in))), 0.f};
}

}  // namespace

void random_weights(Network& network, uint64_t seed) {
  network.packed.reset();
  const std::array<uint32_t, 2> key{uint32_t(seed), uint32_t(seed >> 32)};
  for (Node& node : network.nodes)
    for (auto& [spec, tensor] : node.parameters()) {
      const std::string name = node.name + "." + spec.name;
      const uint32_t stream = uint32_t(crc32(0, reinterpret_cast<const Bytef*>(name.data()), uInt(name.size())));
      const auto [scale, offset] = random_range(node.layer, spec);
      *tensor = Tensor(spec.dims);
      const int64_t n = tensor->count();
      float* to = tensor->data();
#pragma omp parallel for schedule(static)
      for (int64_t block = 0; block < (n + 3) / 4; ++block) {
        const auto words = philox4x32({uint32_t(block), uint32_t(uint64_t(block) >> 32), stream, 0x80000000u}, key);
        for (int64_t i = 4 * block; i < std::min(n, 4 * block + 4); ++i) {
          const float u = float(words[size_t(i % 4)] >> 8) * 0x1p-24f;
          const float v = 2.f * u - 1.f;
          const float scaled = v * scale;  // rounded before the offset is added, as NumPy does
          to[i] = offset == 0.f ? scaled : offset + scaled;
        }
      }
    }
}

void save_weights(const Network& network, const std::string& path) {
  std::vector<NamedTensor> list;
  for (const Node& node : network.nodes)
    for (auto& [spec, tensor] : const_cast<Node&>(node).parameters()) {
      CHECK(!tensor->empty(), "{}.{} has no value to save", node.name, spec.name);
      list.emplace_back(node.name + "." + spec.name, *tensor);
    }
  write_safetensors(path, list, {{"model", network.name}, {"format", "pt"}});
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
