#include "engine/fit.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/files/files.h"
#include "engine/weights.h"
#include "engine/zoo/zoo.h"

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
  if (auto* conv = std::get_if<Conv2d>(&layer)) return change(conv->in_channels, conv->out_channels, conv->has_bias);
  auto& linear = std::get<Linear>(layer);
  change(linear.in_features, linear.out_features, linear.has_bias);
}

bool is_weighted(const Layer& layer) { return std::holds_alternative<Conv2d>(layer) || std::holds_alternative<Linear>(layer); }

// The convolutions and linear layers that make the output's channels: one, or those whose sum it is (LR-ASPP).
std::vector<int> ends_of(const Network& network) {
  std::vector<int> ends, open{network.output()};
  while (!open.empty()) {
    const int i = open.back();
    open.pop_back();
    const Node& node = network.nodes[i];
    if (is_weighted(node.layer)) {
      if (std::ranges::find(ends, i) == ends.end()) ends.push_back(i);
    } else if (std::holds_alternative<ResizeLike>(node.layer)) {
      open.push_back(node.inputs[0]);  // the other one gives a size alone
    } else {
      open.insert(open.end(), node.inputs.begin(), node.inputs.end());
    }
  }
  return ends;
}

// Without the nodes [first, end), whose readers read what the first of them did.
Network without(const Network& network, int first, int end) {
  Network out(network.name, network.input);
  out.training_only = network.training_only;
  const int before = network.nodes[first].inputs[0], gone = end - first;
  for (int i = 1; i < network.nodes.count(); ++i) {
    if (i >= first && i < end) continue;
    std::vector<int> inputs = network.nodes[i].inputs;
    for (int& input : inputs) input = input < first ? input : input < end ? before : input - gone;
    out.add(network.nodes[i].name, network.nodes[i].layer, inputs);
  }
  return out;
}

// --- ViTs of other images: as many tokens as the file has positions

void fit_side(Network& network, const StateDict& file, std::vector<std::string>& notes) {
  constexpr const char* kPositions = "encoder.pos_embedding";
  if (!network.name.starts_with("vit_") || !file.has(kPositions) || !file.has("conv_proj.weight")) return;
  const Dims tokens = file.dims(kPositions), patch = file.dims("conv_proj.weight");
  if (tokens.size() != 3 || tokens[1] < 2 || tokens[1] > 1 << 16 || patch.size() != 4) return;
  const int64_t rows = std::llround(std::sqrt(double(tokens[1] - 1))), side = rows * patch[3];
  if (rows * rows != tokens[1] - 1 || patch[3] < 1 || patch[3] > 64 || side == network.input.h) return;
  const std::string name = network.name;
  try {
    network = make_network(base_name(name), {.side = side});
  } catch (const Error&) {  // patches of another size: loading will say so
    return;
  }
  network.name = name;
  notes.push_back(fmt::format("{} has {} positions in {}: for images of {}x{}", kPositions, tokens[1], file.path(), side, side));
}

// --- a head of other layers: fc.1 for fc, as torch.nn.Sequential(Dropout, Linear) calls it

// By their numbers: classifier.10 behind classifier.2.
bool in_order(const std::string& a, const std::string& b) {
  return std::pair(a.size(), a) < std::pair(b.size(), b);
}

// The layers at and below `root` that have weights in the file, in order.
std::vector<std::string> layers_below(const StateDict& file, const std::string& root) {
  constexpr std::string_view kWeight = ".weight";
  std::vector<std::string> found;
  for (const std::string& name : file.names())
    if (name.starts_with(root + ".") && name.ends_with(kWeight)) found.push_back(name.substr(0, name.size() - kWeight.size()));
  std::ranges::sort(found, in_order);
  return found;
}

void fit_head(Network& network, const StateDict& file, const std::optional<Layer>& between, std::vector<std::string>& notes) {
  const std::vector<int> ends = ends_of(network);
  if (ends.size() != 1 || !std::holds_alternative<Linear>(network.nodes[ends[0]].layer)) return;
  const std::string last = network.nodes[ends[0]].name;
  // vit_b_16's heads.head may have been replaced, or heads.
  const std::string above = last.substr(0, std::min(last.size(), last.rfind('.')));
  const std::string root = layers_below(file, above).empty() ? last : above;
  std::vector<std::string> theirs = layers_below(file, root);
  std::vector<int> ours;  // nodes
  for (int i = 0; i < network.nodes.count(); ++i)
    if (const std::string& name = network.nodes[i].name; name == root || name.starts_with(root + "."))
      if (!parameters(network.nodes[i].layer).empty()) ours.push_back(i);
  while (!theirs.empty() && !ours.empty()) {  // what is as it was: ConvNeXt's norm
    const Node& node = network.nodes[ours[0]];
    if (node.name != theirs[0] || file.dims(theirs[0] + ".weight") != parameters(node.layer)[0].dims) break;
    theirs.erase(theirs.begin()), ours.erase(ours.begin());
  }
  if (theirs.empty() || ours.empty()) return;
  std::vector<Dims> dims;
  for (const std::string& name : theirs) dims.push_back(file.dims(name + ".weight"));
  const bool same_names = std::ranges::equal(theirs, ours, {}, {}, [&](int i) { return network.nodes[i].name; });
  bool linear = std::ranges::all_of(ours, [&](int i) { return std::holds_alternative<Linear>(network.nodes[i].layer); });
  if (!linear || dims[0].size() != 2 || dims[0][1] != std::get<Linear>(network.nodes[ours[0]].layer).in_features) return;
  for (size_t i = 1; i < dims.size(); ++i) linear = linear && dims[i].size() == 2 && dims[i][1] == dims[i - 1][0];
  for (const Dims& d : dims) linear = linear && d.size() == 2 && d[0] > 0;
  for (const std::string& name : file.names())
    if (name.starts_with(theirs[0] + ".") || std::ranges::any_of(theirs, [&](const std::string& t) { return name.starts_with(t + "."); }))
      linear = linear && (name.ends_with(".weight") || name.ends_with(".bias"));
  const auto names = [&] { return fmt::format("{}", fmt::join(theirs, ", ")); };
  const auto refuse = [&](const std::string& why, const std::string& what) {
    throw Error(fmt::format("{}: its head is {}, where {} has {}: {}", file.path(), printable(names()), network.name, last, why), what);
  };
  constexpr const char* kExport = "export the whole network with torch.onnx.export, and give that as --model FILE.onnx";
  if (same_names && theirs.size() == 1) return;  // as many outputs as it has: below
  if (!linear) refuse("no row of linear layers", kExport);
  if (same_names) {  // of other sizes inside: the network's own functions stand between them
    for (size_t i = 0; i < ours.size(); ++i)
      change(network, ours[i], [&](int64_t& in, int64_t& out, bool& bias) {
        in = dims[i][1], out = dims[i][0], bias = file.has(theirs[i] + ".bias");
      });
    notes.push_back(fmt::format("{} have other sizes in {}: the network's are these", names(), file.path()));
    return;
  }
  if (theirs.size() > 1 && !between)
    refuse("weights do not say which function stands between its layers",
           fmt::format("name it, --model {0}:head=relu (or gelu, tanh, silu, hardswish, none), or {1}", base_name(network.name), kExport));
  int begin = ours[0];  // the head's own dropout goes, too
  while (std::holds_alternative<Dropout>(network.nodes[begin - 1].layer) && network.nodes[begin - 1].name.starts_with(root + ".")) --begin;
  network = without(network, begin, network.nodes.count());
  for (size_t i = 0; i < theirs.size(); ++i) {
    if (i > 0 && !std::holds_alternative<Dropout>(*between)) network.add(theirs[i] + ".before", *between);
    network.add(theirs[i], Linear{dims[i][1], dims[i][0], file.has(theirs[i] + ".bias")});
  }
  notes.push_back(fmt::format("the head is {} in {}, not {}: the network's is, with {} outputs; what stands beside without weights "
                              "is taken for dropout", names(), file.path(), last, dims.back()[0]));
}

}  // namespace

std::vector<std::string> fit(Network& network, StateDict& file, const std::optional<Layer>& between) {
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
  const Network as_it_was = network;
  fit_side(network, file, notes);
  fit_head(network, file, between, notes);
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
  const auto fit_bias = [&](int node) {
    const bool bias = file.has(network.nodes[node].name + ".bias");
    if (dims_in_file(node).empty()) return;
    change(network, node, [&](int64_t&, int64_t&, bool& has) {
      if (has != bias) notes.push_back(fmt::format("{} has {} in {}: the network's too", network.nodes[node].name,
                                              bias ? "a bias" : "no bias", file.path()));
      has = bias;
    });
  };
  const std::vector<int> ends = ends_of(network);
  int64_t outputs = ends.empty() ? 0 : other_size(ends[0], 0);
  for (const int end : ends)
    if (other_size(end, 0) != outputs) outputs = 0;
  if (outputs > 0)
    for (const int end : ends)
      change(network, end, [&](int64_t&, int64_t& out, bool&) {
        notes.push_back(fmt::format("{} has {} outputs in {}, not {}: the network has as many", network.nodes[end].name, outputs,
                                    file.path(), out));
        out = outputs;
      });
  for (const int end : ends) fit_bias(end);
  int first = 0;
  const auto weighted_at = [&](int node) { return is_weighted(network.nodes[node].layer); };
  while (first < network.nodes.count() && !weighted_at(first)) ++first;
  if (first == network.nodes.count()) return notes;
  const auto* conv = std::get_if<Conv2d>(&network.nodes[first].layer);
  if (conv && conv->groups == 1 && std::ranges::find(ends, first) == ends.end()) {
    if (const int64_t channels = other_size(first, 1)) {
      change(network, first, [&](int64_t& in, int64_t&, bool&) {
        notes.push_back(fmt::format("{} reads {} channels in {}, not {}: the network does", network.nodes[first].name, channels,
                                    file.path(), in));
        network.input.c = in = channels;
      });
      if (network.nodes[1].name == "transform_input.mul") {
        network = without(network, 1, 3), first -= 2;
        notes.push_back("torchvision's transform_input is for three channels: left out");
      }
    }
    fit_bias(first);
  }
  try {
    network.shapes(network.input);
  } catch (const Error&) {  // other layers need the sizes that were: loading will say what does not fit
    network = as_it_was;
  }
  return notes;
}

}  // namespace switchback
