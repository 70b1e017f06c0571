#include "viz/methods/target.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>

#include "engine/text.h"
#include "kernels/pointwise/pointwise.h"

namespace switchback {
namespace {

[[noreturn]] void usage(const std::string& what, const std::string& hint) { throw Error(what, hint, true); }

std::optional<int> node_index(const Network& network, std::string_view name) {
  for (size_t i = 0; i < network.nodes.size(); ++i)
    if (network.nodes[i].name == name) return int(i);
  return std::nullopt;
}

std::optional<int64_t> number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
  return out;
}

// NAME[:C[,C…]|max|all[:ROW,COL|max|all]], taken apart. Names may hold colons themselves, so the longest that exists wins.
struct LayerSpec {
  int node = 0;
  enum class Channel { some, max, all } channel = Channel::max;
  enum class Place { sum, max, all, at } place = Place::sum;
  std::vector<int64_t> channels = {};  // some
  int64_t row = 0, col = 0;
};

LayerSpec parse_layer(const Network& network, const std::string& text) {
  LayerSpec spec;
  std::string_view name = text, rest;
  std::optional<int> node;
  while (!(node = node_index(network, name))) {
    const size_t colon = name.rfind(':');
    if (colon == std::string_view::npos) network.find(split(text, ':')[0]);  // throws naming the nearest
    name = name.substr(0, colon);
    rest = std::string_view(text).substr(colon + 1);
  }
  spec.node = *node;
  if (name.size() == text.size()) return spec;
  const std::string form = "NAME[:C[,C…]|max|all[:ROW,COL|max|all]], for example features.28:151:6,6";
  const std::vector<std::string> parts = split(rest, ':');
  if (parts.size() > 2) usage(fmt::format("--layer '{}' has too many parts", text), form);
  if (parts[0] == "all") {
    spec.channel = LayerSpec::Channel::all;
  } else if (parts[0] != "max") {
    spec.channel = LayerSpec::Channel::some;
    for (const std::string_view part : split(parts[0], ',')) {
      const auto channel = number(part);
      if (!channel) usage(fmt::format("--layer '{}': '{}' is no channel number", text, part), form);
      spec.channels.push_back(*channel);
    }
  }
  if (parts.size() < 2) return spec;
  if (parts[1] == "max" || parts[1] == "all") {
    spec.place = parts[1] == "max" ? LayerSpec::Place::max : LayerSpec::Place::all;
    return spec;
  }
  const std::vector<std::string> place = split(parts[1], ',');
  const auto row = number(place[0]), col = place.size() == 2 ? number(place[1]) : std::nullopt;
  if (!row || !col) usage(fmt::format("--layer '{}': '{}' is no position ROW,COL", text, parts[1]), form);
  spec.place = LayerSpec::Place::at;
  spec.row = *row;
  spec.col = *col;
  return spec;
}

void check_layer(const Network& network, const LayerSpec& spec, Shape shape) {
  const std::string& name = network.nodes[size_t(spec.node)].name;
  for (const int64_t channel : spec.channels)
    if (channel < 0 || channel >= shape.c)
      usage(fmt::format("layer {} has no channel {}", name, channel), fmt::format("its {} channels are 0 to {}", shape.c, shape.c - 1));
  if (spec.place == LayerSpec::Place::at &&
      (spec.row < 0 || spec.row >= shape.h || spec.col < 0 || spec.col >= shape.w))
    usage(fmt::format("layer {} has no position {},{}", name, spec.row, spec.col),
          fmt::format("its maps have {} rows and {} columns, counted from 0", shape.h, shape.w));
}

// ImageNet's labels hold synonyms: "tabby, tabby cat" is found by the whole or by either of them.
std::optional<int64_t> find_label(std::string_view wanted, const std::vector<std::string>& labels) {
  const std::string word = lower(trimmed(wanted));
  for (size_t i = 0; i < labels.size(); ++i)
    if (lower(labels[i]) == word) return int64_t(i);
  for (size_t i = 0; i < labels.size(); ++i)
    for (std::string_view synonym : split(labels[i], ','))
      if (lower(trimmed(synonym)) == word) return int64_t(i);
  return std::nullopt;
}

int64_t class_of(std::string_view text, const Network& network, int64_t classes,
                 const std::vector<std::string>& labels) {
  text = trimmed(text);
  if (const auto index = number(text)) {
    if (*index < 0 || *index >= classes)
      usage(fmt::format("class {} does not exist", *index),
            fmt::format("{} has the {} outputs 0 to {}", network.name, classes, classes - 1));
    return *index;
  }
  if (const auto index = find_label(text, labels); index && *index < classes) return *index;
  if (labels.empty())
    usage(fmt::format("unknown target '{}'", text),
          fmt::format("{} has no labels: give max, all or class numbers 0 to {}", network.name, classes - 1));
  std::vector<std::string> words;
  for (const std::string& label : labels) {
    words.push_back(label);
    for (std::string_view synonym : split(label, ',')) words.push_back(std::string(trimmed(synonym)));
  }
  usage(fmt::format("unknown class '{}'", text),
        fmt::format("nearest label: '{}'; or max, all, or class numbers 0 to {}", nearest(text, words), classes - 1));
}

std::vector<int64_t> parse_classes(const std::string& text, const Network& network, int64_t classes,
                                   const std::vector<std::string>& labels) {
  if (const auto index = find_label(text, labels); index && *index < classes && !number(text)) return {*index};
  std::vector<int64_t> chosen;
  for (std::string_view part : split(text, ',')) chosen.push_back(class_of(part, network, classes, labels));
  return chosen;
}

Shape item_shape(const Tensor& values) {
  const Dims& d = values.dims();
  CHECK(d.size() == 2 || d.size() == 4, "target values have shape {}", to_string(d));
  return d.size() == 4 ? Shape{d[0], d[1], d[2], d[3]} : Shape{d[0], d[1], 1, 1};
}

double channel_sum(const Tensor& values, Shape s, int64_t channel) {
  double sum = 0;
  for (int64_t i = 0; i < s.h * s.w; ++i) sum += values[channel * s.h * s.w + i];
  return sum;
}

int64_t strongest_place(const Tensor& values, Shape s, int64_t channel) {
  const float* map = values.data() + channel * s.h * s.w;
  return std::max_element(map, map + s.h * s.w) - map;
}

// The unit that the spec's place names in one channel.
Unit unit_in(const LayerSpec& spec, const Tensor& values, Shape s, int64_t channel) {
  Unit unit{spec.node, channel};
  if (spec.place == LayerSpec::Place::at) unit.row = spec.row, unit.col = spec.col;
  if (spec.place == LayerSpec::Place::max) {
    const int64_t place = strongest_place(values, s, channel);
    unit.row = place / s.w, unit.col = place % s.w;
  }
  return unit;
}

// All units that the spec's place names in one channel: one, or each position's.
void add_units(const LayerSpec& spec, const Tensor& values, Shape s, int64_t channel, std::vector<Unit>& units) {
  if (spec.place != LayerSpec::Place::all) return units.push_back(unit_in(spec, values, s, channel));
  for (int64_t i = 0; i < s.h * s.w; ++i) units.push_back({spec.node, channel, i / s.w, i % s.w});
}

double unit_value(const Unit& unit, const Tensor& values, Shape s) {
  if (unit.row < 0) return channel_sum(values, s, unit.channel);
  return values[(unit.channel * s.h + unit.row) * s.w + unit.col];
}

}  // namespace

namespace {

bool is_softmax(const Layer& layer) { return std::holds_alternative<Softmax>(layer); }
bool is_sigmoid(const Layer& layer) {
  const auto* smooth = std::get_if<Smooth>(&layer);
  return smooth && smooth->function == SmoothFunction::sigmoid;
}

// The last node that changes an element, and whether its channels are the output's.
struct End {
  const Node* node;
  bool same_channels;
};

End end_of(const Network& network) {
  const auto changes_nothing = [](const Layer& layer) {
    return std::holds_alternative<Flatten>(layer) || std::holds_alternative<Reshape>(layer) ||
           std::holds_alternative<Dropout>(layer);
  };
  int node = network.output();
  while (changes_nothing(network.nodes[size_t(node)].layer)) node = network.nodes[size_t(node)].inputs[0];
  bool same = node == network.output();
  if (!same) {
    const std::vector<Shape> shapes = network.shapes(network.input);
    same = shapes[size_t(node)].c == shapes.back().c;
  }
  return {&network.nodes[size_t(node)], same};
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

int logit_node(const Network& network) {
  const End end = end_of(network);
  const bool seen_through = end.same_channels && (is_softmax(end.node->layer) || is_sigmoid(end.node->layer));
  return seen_through ? end.node->inputs[0] : network.output();
}

Outputs outputs_of(const Network& network, bool output_is_probability) {
  const End end = end_of(network);
  const Layer& last = end.node->layer;
  if (end.same_channels && is_softmax(last)) return Outputs::classes;
  if (end.same_channels && is_sigmoid(last)) return Outputs::labels;
  if (output_is_probability || is_softmax(last) || is_sigmoid(last) || std::holds_alternative<Hardsigmoid>(last))
    return Outputs::probabilities;
  return network.shapes(network.input).back().c == 1 ? Outputs::value : Outputs::classes;
}

std::string_view name_of(Outputs outputs) {
  switch (outputs) {
    case Outputs::classes: return "classes";
    case Outputs::labels: return "labels";
    case Outputs::value: return "value";
    case Outputs::probabilities: return "probabilities";
  }
  return "";
}

Scoring scoring_of(const Network& network, const TargetSpec& spec) {
  return {spec.score, outputs_of(network, spec.output_is_probability)};
}

std::string_view score_word(const Network& network, const TargetSpec& spec) {
  if (spec.score != Score::logit) return spec.score == Score::nll ? "nll" : "probability";
  if (!spec.layer.empty()) return "value";
  const Outputs outputs = outputs_of(network, spec.output_is_probability);
  return outputs == Outputs::value ? "value" : outputs == Outputs::probabilities ? "output" : "logit";
}

int target_node(const Network& network, const TargetSpec& spec) {
  return spec.layer.empty() ? logit_node(network) : parse_layer(network, spec.layer).node;
}

int64_t check_target(const Network& network, Shape input, const TargetSpec& spec,
                     const std::vector<std::string>& labels) {
  const int node = target_node(network, spec);
  const Shape shape = network.shapes(input)[size_t(node)];
  if (spec.score != Score::logit) {
    if (node != logit_node(network))
      usage("--score probability and nll are about classes, not hidden units",
            "leave out --layer, or use --score logit");
    if (shape.h * shape.w != 1)
      usage(fmt::format("--score probability and nll need a vector of outputs; {} gives {}x{} maps", network.name,
                        shape.h, shape.w),
            "use --score logit");
    if (outputs_of(network, spec.output_is_probability) == Outputs::value)
      usage(fmt::format("--score probability and nll need probabilities; {} gives one value and ends without a sigmoid",
                        network.name),
            "use --score logit, which explains the value itself; where it is a probability all the same, say "
            "\"output_is_probability\": true in --preprocess FILE.json");
  }
  if (!spec.layer.empty()) {
    if (spec.target != "max")
      usage("--target and --layer exclude each other", "write the channel behind the layer: --layer NAME:CHANNEL");
    const LayerSpec layer = parse_layer(network, spec.layer);
    check_layer(network, layer, shape);
    const int64_t places = layer.place == LayerSpec::Place::all ? shape.h * shape.w : 1;
    const int64_t channels = layer.channel == LayerSpec::Channel::all    ? shape.c
                             : layer.channel == LayerSpec::Channel::some ? int64_t(layer.channels.size())
                                                                         : 1;
    return channels * places;
  }
  if (spec.target == "max") return 1;
  if (spec.target == "all") return shape.c;
  return int64_t(parse_classes(spec.target, network, shape.c, labels).size());
}

std::vector<Unit> resolve_target(const Network& network, const TargetSpec& spec, const Tensor& values,
                                 const std::vector<std::string>& labels) {
  const Shape s = item_shape(values);
  for (float v : values.values())
    if (!std::isfinite(v))
      throw Error(
          fmt::format("the values of {} are not finite", network.nodes[size_t(target_node(network, spec))].name),
          "do weights and preprocessing belong to this model? --precision fp32 has the widest range");
  LayerSpec layer;
  if (!spec.layer.empty()) {
    layer = parse_layer(network, spec.layer);
  } else {
    layer.node = logit_node(network);
    if (spec.target != "max" && spec.target != "all") {
      std::vector<Unit> units;
      for (int64_t c : parse_classes(spec.target, network, s.c, labels)) units.push_back({layer.node, c});
      return units;
    }
    if (spec.target == "all") layer.channel = LayerSpec::Channel::all;
  }
  check_layer(network, layer, s);
  std::vector<Unit> units;
  if (layer.channel == LayerSpec::Channel::some) {
    for (const int64_t c : layer.channels) add_units(layer, values, s, c, units);
    return units;
  }
  if (layer.channel == LayerSpec::Channel::all) {
    for (int64_t c = 0; c < s.c; ++c) add_units(layer, values, s, c, units);
    return units;
  }
  int64_t best = 0;
  double best_value = unit_value(unit_in(layer, values, s, 0), values, s);
  for (int64_t c = 1; c < s.c; ++c)
    if (const double value = unit_value(unit_in(layer, values, s, c), values, s); value > best_value)
      best = c, best_value = value;
  add_units(layer, values, s, best, units);
  return units;
}

bool targets_places(const Network& network, const TargetSpec& spec) {
  return !spec.layer.empty() && parse_layer(network, spec.layer).place != LayerSpec::Place::sum;
}

std::vector<double> softmax(std::span<const float> logits) {
  const double most = logits.empty() ? 0 : *std::max_element(logits.begin(), logits.end());
  std::vector<double> p(logits.size());
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] = std::exp(double(logits[i]) - most);
  for (double& v : p) v /= sum;
  return p;
}

std::vector<double> probabilities(std::span<const float> values, Outputs outputs) {
  if (outputs == Outputs::classes) return softmax(values);
  std::vector<double> p(values.begin(), values.end());
  for (const double v : p)
    if (outputs == Outputs::probabilities && (v < -1e-3 || v > 1 + 1e-3))
      throw Error(fmt::format("the outputs are said to be probabilities, and one is {:.4g}", v),
                  "leave \"output_is_probability\" out of the --preprocess file");
  for (double& v : p)
    v = outputs == Outputs::labels ? sigmoid(v) : outputs == Outputs::value ? std::nan("") : v;
  return p;
}

double score_of(const Unit& unit, Scoring scoring, const Tensor& values) {
  if (scoring.score == Score::logit) return unit_value(unit, values, item_shape(values));
  if (scoring.score == Score::probability)
    return probabilities(values.values(), scoring.outputs)[size_t(unit.channel)];
  const double value = values[unit.channel];
  if (scoring.outputs == Outputs::labels)  // −log σ(v) = log(1 + e^−v)
    return std::max(-value, 0.0) + std::log1p(std::exp(-std::abs(value)));
  if (scoring.outputs != Outputs::classes) return -std::log(value);
  // −log p = log Σ exp(v − m) − (v_t − m), which stays finite where p underflows.
  const double most = *std::max_element(values.data(), values.data() + values.count());
  double sum = 0;
  for (float v : values.values()) sum += std::exp(double(v) - most);
  return std::log(sum) - (value - most);
}

std::vector<float> seed_values(const Unit& unit, Scoring scoring, const Tensor& values) {
  const Shape s = item_shape(values);
  std::vector<float> seed(size_t(s.item()), 0.f);
  if (scoring.score == Score::logit) {
    for (int64_t i = 0; i < s.h * s.w; ++i)
      if (unit.row < 0 || i == unit.row * s.w + unit.col) seed[size_t(unit.channel * s.h * s.w + i)] = 1;
    return seed;
  }
  CHECK(s.h * s.w == 1, "probability and nll need a vector of outputs, not {}x{} maps", s.h, s.w);
  const bool nll = scoring.score == Score::nll;
  const double value = values[unit.channel];
  if (scoring.outputs != Outputs::classes) {
    float& own = seed[size_t(unit.channel)];
    if (scoring.outputs == Outputs::labels)
      own = float(nll ? -sigmoid(-value) : sigmoid(value) * sigmoid(-value));
    else
      own = float(nll ? -1 / value : 1);
    return seed;
  }
  const std::vector<double> p = softmax(values.values());
  const double scale = nll ? -1 : p[size_t(unit.channel)];
  for (int64_t c = 0; c < s.c; ++c) {
    // 1 − p_t as the sum of the others: no cancellation where p_t is nearly 1.
    double delta_minus_p = -p[size_t(c)];
    if (c == unit.channel) {
      delta_minus_p = 0;
      for (int64_t k = 0; k < s.c; ++k)
        if (k != c) delta_minus_p += p[size_t(k)];
    }
    seed[size_t(c)] = float(scale * delta_minus_p);
  }
  return seed;
}

void write_seeds(Context& ctx, std::span<const Unit> units, Scoring scoring, const Tensor& values, int64_t seeds_per_item,
                 View seed) {
  CHECK(int64_t(units.size()) == seed.shape.n, "{} units for {} seeds", units.size(), seed.shape.n);
  if (scoring.score == Score::logit) {
    std::vector<SeedUnit> seeds;
    for (const Unit& unit : units) seeds.push_back({unit.channel, unit.row, unit.col});
    one_hot(ctx, seed, seeds);
    return;
  }
  std::vector<float> all;  // [n, C], which is NHWC and NCHW alike
  for (size_t p = 0; p < units.size(); ++p) {
    const std::vector<float> one = seed_values(units[p], scoring, batch_item(values, int64_t(p) / seeds_per_item));
    all.insert(all.end(), one.begin(), one.end());
  }
  write_nchw(ctx, all.data(), seed);
}

Tensor batch_item(const Tensor& batch, int64_t i) {
  Dims dims = batch.dims();
  CHECK(!dims.empty() && i >= 0 && i < dims[0], "item {} of {}", i, to_string(dims));
  dims[0] = 1;
  Tensor item(dims);
  if (item.count()) std::memcpy(item.data(), batch.data() + i * item.count(), size_t(item.count()) * sizeof(float));
  return item;
}

}  // namespace switchback
