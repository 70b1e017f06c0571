#include "engine/fit.h"

#include <algorithm>
#include <map>

#include "engine/weights.h"

namespace switchback {
namespace {

// The full names of all parameters.
std::vector<std::string> parameter_names(const Network& network) {
  std::vector<std::string> names;
  for (const Node& node : network.nodes)
    for (const ParameterSpec& spec : parameters(node.layer)) names.push_back(full_name(node, spec.name));
  return names;
}

// Names that torchvision gave before: of the layers inside DenseNet's, and of those of a ViT's perceptrons. Its published files
// still have them.
constexpr std::pair<std::string_view, std::string_view> kOldNames[] = {
    {".norm.1.", ".norm1."}, {".conv.1.", ".conv1."}, {".norm.2.", ".norm2."}, {".conv.2.", ".conv2."},
    {".mlp.linear_1.", ".mlp.0."}, {".mlp.linear_2.", ".mlp.3."}};

// How many names became today's.
size_t rename_old(const std::vector<std::string>& wanted, StateDict& file) {
  size_t renamed = 0;
  for (const std::string& name : file.names())
    for (const auto& [before, now] : kOldNames) {
      const size_t at = name.find(before);
      if (at == std::string::npos) continue;
      const std::string today = std::string(name).replace(at, before.size(), now);
      const bool known = std::ranges::any_of(wanted, [&](const std::string& w) { return today == w || today.ends_with("." + w); });
      if (!known || file.has(today)) continue;
      file.rename(name, today);
      ++renamed;
      break;
    }
  return renamed;
}

// A copy that training keeps beside the network: averaged weights, a teacher.
bool is_copy(const std::string& prefix) {
  constexpr std::string_view kCopies[] = {"ema", "averag", "teacher", "momentum", "target", "shadow"};
  return std::ranges::any_of(kCopies, [&](std::string_view word) { return prefix.find(word) != std::string::npos; });
}

// "" where the names are as they should be, or nowhere found.
std::string prefix_of(const std::vector<std::string>& wanted, const StateDict& file) {
  size_t most = 0;  // parameters found under the best so far, at first under none
  for (const std::string& w : wanted) most += file.has(w);
  if (most == wanted.size()) return "";
  std::map<std::string, size_t> found;  // under each prefix
  for (const std::string& name : file.names())
    for (const std::string& w : wanted)
      if (name.size() > w.size() && name.ends_with(w) && name[name.size() - w.size() - 1] == '.')
        ++found[name.substr(0, name.size() - w.size())];
  std::string best;
  for (const auto& [prefix, count] : found) {
    const bool nearer = std::pair(is_copy(prefix), prefix.size()) < std::pair(is_copy(best), best.size());
    if (count > most || (count == most && !best.empty() && nearer)) best = prefix, most = count;
  }
  return best;
}

template <typename Change>
void change(Network& network, int node, const Change& change) {
  Layer& layer = network.nodes.edit(node).layer;
  if (auto* conv = std::get_if<Conv2d>(&layer)) return change(conv->in_channels, conv->out_channels);
  auto& linear = std::get<Linear>(layer);
  change(linear.in_features, linear.out_features);
}

}  // namespace

std::vector<std::string> fit(Network& network, StateDict& file) {
  std::vector<std::string> notes;
  const std::vector<std::string> wanted = parameter_names(network);
  if (const size_t renamed = rename_old(wanted, file); renamed > 0)
    notes.push_back(fmt::format("{} names in {} are of an older torchvision: read as today's", renamed, file.path()));
  const std::string prefix = prefix_of(wanted, file);
  if (!prefix.empty()) {
    const size_t all = file.names().size();
    file.keep_under(prefix);
    notes.push_back(fmt::format("the names in {} begin with '{}': cut off{}", file.path(), printable(prefix),
                                all > file.names().size() ? fmt::format(", {} others left out", all - file.names().size()) : ""));
  }
  std::vector<int> weighted;  // convolutions and linear layers
  for (int i = 0; i < network.nodes.count(); ++i)
    if (std::holds_alternative<Conv2d>(network.nodes[i].layer) || std::holds_alternative<Linear>(network.nodes[i].layer))
      weighted.push_back(i);
  if (weighted.empty()) return notes;
  const auto dims_in_file = [&](int node) {
    const std::string name = network.nodes[node].name + ".weight";
    return file.has(name) ? file.dims(name) : Dims{};
  };
  // Of which size `at` of the weight alone differs from the file's: the file's, else 0.
  const auto other_size = [&](int node, size_t at) -> int64_t {
    Dims there = dims_in_file(node), here = parameters(network.nodes[node].layer)[0].dims;
    if (there.size() != here.size() || there[at] == here[at] || there[at] < 1) return 0;
    const int64_t size = there[at];
    there[at] = here[at];
    return there == here ? size : 0;
  };
  const Network as_it_was = network;
  const int first = weighted.front(), last = weighted.back();
  if (const int64_t outputs = other_size(last, 0)) {
    change(network, last, [&](int64_t&, int64_t& out) {
      notes.push_back(fmt::format("{} has {} outputs in {}, not {}: the network has as many", network.nodes[last].name, outputs,
                                  file.path(), out));
      out = outputs;
    });
  }
  const auto* conv = std::get_if<Conv2d>(&network.nodes[first].layer);
  if (const int64_t channels = conv && conv->groups == 1 && first != last ? other_size(first, 1) : 0) {
    change(network, first, [&](int64_t& in, int64_t&) {
      notes.push_back(fmt::format("{} reads {} channels in {}, not {}: the network does", network.nodes[first].name, channels,
                                  file.path(), in));
      network.input.c = in = channels;
    });
  }
  try {
    network.shapes(network.input);
  } catch (const Error&) {  // other layers need the sizes that were: loading will say what does not fit
    network = as_it_was;
  }
  return notes;
}

}  // namespace switchback
