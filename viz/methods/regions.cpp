#include "viz/methods/regions.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/parallel.h"
#include "viz/methods/batches.h"
#include "viz/methods/target.h"

namespace switchback {
namespace {

uint64_t pairs(uint64_t n) { return n * (n - (n > 0)) / 2; }

double mean(uint64_t sum, uint64_t count) {
  return count ? double(sum) / double(count) : std::numeric_limits<double>::quiet_NaN();
}

// One layer of the census. Its pattern of one input is `length` words: of gates the tape's own words, pixel by pixel (a
// clipped ReLU's second plane behind the first), their padding bits cleared; of switches one word for each unit, NHWC.
struct LayerCensus {
  Tape::Slot slot;
  RegionLayerCounts counts;  // until they move to the census's
  int gate = -1;             // of switches: index of the layer whose closed gates hide them, or -1
  int64_t length = 0;
  std::vector<uint32_t> pattern;  // [n, length], of the batch

  bool clipped() const { return slot.clip != kNoClip; }
  int64_t pixels() const { return slot.shape.h * slot.shape.w; }
};

// The ReLU that alone reads a pool, so that closed gates hide its switches; -1 where there is none.
int only_relu_of(const Network& network, int pool) {
  int relu = -1, readers = 0;
  for (size_t i = 0; i < network.nodes.size(); ++i)
    for (int input : network.nodes[i].inputs) {
      if (input != pool) continue;
      ++readers;
      if (std::holds_alternative<ReLU>(network.nodes[i].layer)) relu = int(i);
    }
  return readers == 1 ? relu : -1;
}

LayerCensus make_layer(const Network& network, const Plan& plan, const Tape::Slot& slot, int64_t classes) {
  LayerCensus l{.slot = slot, .counts = {}, .pattern = {}};
  RegionLayerCounts& counts = l.counts;
  const Node& node = network.nodes[size_t(slot.node)];
  counts.about.name = node.name;
  counts.about.units = slot.shape.item();
  if (slot.kind == Tape::Kind::switches) {
    counts.about.switches = true;
    const auto* pool = std::get_if<MaxPool2d>(&node.layer);  // else a GlobalMaxPool
    counts.about.states = (pool ? *pool : whole_map_pool(plan.shapes()[size_t(node.inputs[0])])).window();
    l.length = counts.places = slot.shape.item();
  } else {
    counts.about.states = l.clipped() ? 3 : 2;
    l.length = gate_words(slot.shape.with_n(1)) * (counts.about.states - 1);
    counts.places = gate_words(slot.shape.with_n(1)) * 32;
  }
  counts.of_class.assign(size_t(counts.places * (counts.about.states - 1)), 0);
  counts.of_all = counts.of_class;
  counts.differing.assign(size_t(classes), 0);
  return l;
}

// In the order of their nodes, whatever order a device's plan has them in.
std::vector<LayerCensus> make_layers(const Network& network, const Plan& plan, int64_t classes) {
  std::vector<LayerCensus> layers;
  for (const Tape::Slot& slot : plan.slots())
    if (slot.kind != Tape::Kind::value) layers.push_back(make_layer(network, plan, slot, classes));
  std::sort(layers.begin(), layers.end(),
            [](const LayerCensus& a, const LayerCensus& b) { return a.slot.node < b.slot.node; });
  for (LayerCensus& l : layers) {
    if (!l.counts.about.switches) continue;
    const int relu = only_relu_of(network, l.slot.node);
    for (size_t i = 0; i < layers.size(); ++i)
      if (layers[i].slot.node == relu) l.gate = int(i);
  }
  return layers;
}

// ---- patterns: from the tape, in canonical form

// `tape`: the slot's memory, of `n` inputs; input i becomes pattern i.
void take_gates(LayerCensus& l, const uint32_t* tape, int64_t n, int64_t i) {
  const int64_t words = gate_words_per_pixel(l.slot.shape.c), item = l.pixels() * words;
  const int64_t rest = l.slot.shape.c % 32;
  const uint32_t mask = rest ? (1u << rest) - 1 : ~0u;
  for (int64_t plane = 0; plane < l.counts.about.states - 1; ++plane) {
    const uint32_t* from = tape + (plane * n + i) * item;
    uint32_t* to = l.pattern.data() + i * l.length + plane * item;
    std::copy(from, from + item, to);
    for (int64_t last = words - 1; last < item; last += words) to[last] &= mask;
  }
}

template <typename T>
void take_switches(LayerCensus& l, const LayerCensus* gate, const T* tape, int64_t i) {
  const int64_t channels = l.slot.shape.c, words = gate_words_per_pixel(channels);
  const uint32_t* gates = gate ? gate->pattern.data() + i * gate->length : nullptr;
  uint32_t* to = l.pattern.data() + i * l.length;
  for (int64_t p = 0; p < l.pixels(); ++p)
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t at = p * channels + c;
      const bool open = !gates || (gates[p * words + c / 32] >> (c % 32) & 1u);
      to[at] = open ? uint32_t(tape[i * l.length + at]) : 0u;
    }
}

// ---- counts

// Adds inputs [first, last) of the batch to the counts of the class.
void count_states(const Context& ctx, const LayerCensus& l, RegionLayerCounts& c, int64_t first, int64_t last) {
  const int64_t states = c.about.states - 1, words = l.length / (c.about.switches ? 1 : states);
  const auto count = [&](int64_t begin, int64_t end) {
    for (int64_t i = first; i < last; ++i) {
      const uint32_t* pattern = l.pattern.data() + i * l.length;
      if (c.about.switches) {
        for (int64_t u = begin; u < end; ++u)
          if (pattern[u]) ++c.of_class[size_t((pattern[u] - 1) * uint64_t(c.places) + uint64_t(u))];
        continue;
      }
      for (int64_t plane = 0; plane < states; ++plane)
        for (int64_t w = begin; w < end; ++w) {
          const uint32_t word = pattern[plane * words + w];
          uint32_t* to = c.of_class.data() + plane * c.places + w * 32;
          for (int bit = 0; bit < 32; ++bit) to[bit] += word >> bit & 1u;
        }
    }
  };
  parallel_ranges(ctx, words, (last - first) * (c.about.switches ? 4 : 16), count);
}

// Units that differ, summed over all pairs of n inputs, without looking at pairs: of the n(n-1)/2 pairs, those where
// both have state v of a unit, c_v(c_v - 1)/2 for each v, agree on it. (For gates this is n^2 p(1 - p), p = the share
// of inputs with the gate open.) All in integers, so exact, and the same in whatever order; 64 bits hold it for 10^6
// inputs and 10^7 units.
uint64_t differing_units(const RegionLayerCounts& l, const std::vector<uint32_t>& counts, uint64_t n, int most_threads) {
  uint64_t sum = 0;
  const int threads = l.places * l.about.states < kSerialWork ? 1 : std::max(1, most_threads);
#pragma omp parallel for schedule(static) reduction(+ : sum) num_threads(threads)
  for (int64_t place = 0; place < l.places; ++place) {
    uint64_t rest = n, agree = 0;
    for (int64_t v = 0; v < l.about.states - 1; ++v) {
      const uint64_t c = counts[size_t(v * l.places + place)];
      agree += pairs(c);
      rest -= c;
    }
    sum += pairs(n) - agree - pairs(rest);
  }
  return sum;
}

// Units that never change their state over n inputs.
int64_t constant_units(const RegionLayerCounts& l, uint64_t n) {
  int64_t constant = 0;
  for (int64_t place = 0; place < l.places; ++place) {
    uint64_t rest = n, largest = 0;
    for (int64_t v = 0; v < l.about.states - 1; ++v) {
      const uint64_t c = l.of_all[size_t(v * l.places + place)];
      largest = std::max(largest, c);
      rest -= c;
    }
    constant += std::max(largest, rest) == n;
  }
  return constant - (l.places - l.about.units);  // padding bits are no units
}

// ---- statistics

// distinct, largest, mixed and distinct_of_class, from the inputs' hashes and their classes.
PatternStatistics count_patterns(const std::vector<Hash128>& hashes, const std::vector<int>& labels, int64_t classes) {
  std::vector<std::pair<Hash128, int>> sorted;
  for (size_t i = 0; i < hashes.size(); ++i) sorted.emplace_back(hashes[i], labels[i]);
  std::sort(sorted.begin(), sorted.end());
  PatternStatistics s;
  s.distinct_of_class.assign(size_t(classes), 0);
  for (size_t first = 0, last; first < sorted.size(); first = last) {
    int64_t met_by = 0;
    for (last = first; last < sorted.size() && sorted[last].first == sorted[first].first; ++last)
      if (last == first || sorted[last].second != sorted[last - 1].second) {
        ++s.distinct_of_class[size_t(sorted[last].second)];
        ++met_by;
      }
    ++s.distinct;
    s.mixed += met_by > 1;
    s.largest = std::max(s.largest, int64_t(last - first));
  }
  return s;
}

// within, between and within_class, from sums over pairs.
void add_distances(PatternStatistics& s, const std::vector<uint64_t>& of_class, uint64_t of_all,
                   const std::vector<int64_t>& inputs) {
  uint64_t differing = 0, within = 0, all = 0;
  for (size_t k = 0; k < inputs.size(); ++k) {
    s.within_class.push_back(mean(of_class[k], pairs(uint64_t(inputs[k]))));
    differing += of_class[k];
    within += pairs(uint64_t(inputs[k]));
    all += uint64_t(inputs[k]);
  }
  s.within = mean(differing, within);
  s.between = mean(of_all - differing, pairs(all) - within);
}

std::vector<std::string> smooth_layers(const Network& network, const Plan& plan) {
  std::vector<std::string> names;
  for (const Step& step : plan.steps()) {
    std::vector<Shape> x;
    for (int value : step.inputs) x.push_back(plan.shapes()[value]);
    const Node& node = network.nodes[step.node];
    if (const Keeps kept = keeps(node.layer, x); kept.inputs || kept.output)
      names.push_back(fmt::format("{} ({})", node.name, type_name(node.layer)));
  }
  return names;
}

PlanOptions plan_options(const Network& network, const RunOptions& options) {
  return {.precision = options.precision, .observe = {logit_node(network)}};
}

// A limit on memory holds for the census's own counts and patterns too: what it leaves to the plan.
RunOptions without_census(Context& ctx, const Model& model, Shape image, RunOptions options) {
  const Network& network = model.network;
  if (options.memory == 0) return options;
  const PlanOptions plan = plan_options(network, options);
  size_t counts = 0, patterns = 0;
  for (const LayerCensus& l : make_layers(network, Plan(ctx, model, image, plan), 1)) {
    counts += 3 * l.counts.of_class.size() * sizeof(uint32_t);
    patterns += size_t(l.length) * sizeof(uint32_t);
  }
  const size_t one = run_bytes(ctx, model, image, plan, 1);
  if (options.memory < counts + patterns + one)
    throw Error(fmt::format("counting the regions of {} takes {} MiB, {} MiB are allowed", network.name,
                            ((counts + patterns + one) >> 20) + 1, options.memory >> 20),
                "allow more with --memory");
  options.memory = size_t(double(options.memory - counts) * double(one) / double(one + patterns));
  return options;
}

}  // namespace

struct RegionCensus::State {
  State(Context& ctx, const Model& model, Shape image, int64_t classes, const RunOptions& options, int64_t most)
      : ctx(ctx),
        classes(classes),
        batch(batch_size(ctx, model, image, plan_options(model.network, options),
                         without_census(ctx, model, image, options), most)),
        plan(ctx, model, image.with_n(batch), plan_options(model.network, options)),
        layers(make_layers(model.network, plan, classes)) {
    counts.inputs.assign(size_t(classes), 0);
    counts.smooth = smooth_layers(model.network, plan);
    counts.threads = ctx.thread_count();
    for (LayerCensus& l : layers) counts.layers.push_back(std::move(l.counts));
  }

  // Patterns of the tape's n inputs, and their hashes.
  void take(int64_t n) {
    std::vector<char> host;
    const auto on_host = [&](const LayerCensus& l) -> const void* {
      const char* data = tape.data(tape.slot(l.slot.kind, l.slot.node));
      if (!ctx.gpu) return data;
      host.resize(l.slot.bytes);
      ctx.copy_out(host.data(), data, l.slot.bytes);
      return host.data();
    };
    for (const bool switches : {false, true})  // gates first: they hide switches
      for (size_t at = 0; at < layers.size(); ++at) {
        LayerCensus& l = layers[at];
        std::vector<Hash128>& hashes = counts.layers[at].hashes;
        if (counts.layers[at].about.switches != switches) continue;
        const void* from = on_host(l);
        const LayerCensus* gate = l.gate >= 0 ? &layers[size_t(l.gate)] : nullptr;
        const size_t before = hashes.size();
        l.pattern.resize(size_t(n * l.length));
        hashes.resize(before + size_t(n));
        parallel_ranges(ctx, n, l.length, [&](int64_t first, int64_t last) {
          for (int64_t i = first; i < last; ++i) {
            if (!switches)
              take_gates(l, static_cast<const uint32_t*>(from), n, i);
            else if (l.slot.element_bytes == 2)
              take_switches(l, gate, static_cast<const uint16_t*>(from), i);
            else
              take_switches(l, gate, static_cast<const uint8_t*>(from), i);
            hashes[before + size_t(i)] =
                hash128(l.pattern.data() + i * l.length, size_t(l.length) * sizeof(uint32_t));
          }
        });
      }
  }

  Context& ctx;
  int64_t classes, batch;
  Plan plan;
  Tape tape;
  std::vector<LayerCensus> layers;
  RegionCounts counts;  // of the same layers
};

RegionCensus::RegionCensus(Context& ctx, const Model& model, Shape image, int64_t classes,
                           const RunOptions& options, int64_t most) {
  const Network& network = model.network;
  check_image_shape(network, image);
  state_ = std::make_unique<State>(ctx, model, image, classes, options, most);
  if (state_->layers.empty())
    throw Error(fmt::format("{} has neither ReLUs nor max pools, so no linear regions", network.name),
                "it is one affine map, or smooth");
}

RegionCensus::~RegionCensus() = default;
RegionCensus::RegionCensus(RegionCensus&&) noexcept = default;

int64_t RegionCensus::batch() const { return state_->batch; }

Tensor RegionCensus::add(const float* images, std::span<const int> labels) {
  State& s = *state_;
  const int64_t n = int64_t(labels.size());
  s.plan.write(images, n);
  s.plan.forward(&s.tape);
  s.take(n);
  RegionCounts& all = s.counts;
  for (int64_t first = 0, last; first < n; first = last) {
    const int label = labels[size_t(first)], before = all.labels.empty() ? label : all.labels.back();
    CHECK(label >= before && label < s.classes, "class {} of {} after class {}", label, s.classes, before);
    if (label != before) all.close_class();
    for (last = first; last < n && labels[size_t(last)] == label; ++last) all.labels.push_back(label);
    all.inputs[size_t(label)] += last - first;
    all.open_ = true;
    for (size_t l = 0; l < s.layers.size(); ++l) count_states(s.ctx, s.layers[l], all.layers[l], first, last);
  }
  return s.plan.read(logit_node(s.plan.network()));
}

RegionCounts& RegionCensus::counts() { return state_->counts; }
RegionReport RegionCensus::report() { return state_->counts.report(); }

// Its pairs are summed up, and its counts join those of all; but for the first class, of which another run may have more.
void RegionCounts::close_class() {
  if (!open_) return;
  open_ = false;
  const int label = labels.back();
  for (RegionLayerCounts& l : layers) {
    if (label == labels.front()) {
      l.head = std::exchange(l.of_class, std::vector<uint32_t>(l.of_class.size(), 0));
      continue;
    }
    l.differing[size_t(label)] = differing_units(l, l.of_class, uint64_t(inputs[size_t(label)]), threads);
    for (size_t i = 0; i < l.of_class.size(); ++i) l.of_all[i] += std::exchange(l.of_class[i], 0u);
  }
}

void RegionCounts::merge(RegionCounts&& next) {
  if (next.labels.empty()) return;
  if (labels.empty()) {
    const int own = threads;
    *this = std::move(next);
    threads = own;
    return;
  }
  CHECK(layers.size() == next.layers.size() && inputs.size() == next.inputs.size(), "counts of different networks");
  const int label = next.labels.front();
  const bool more = next.labels.back() != label;
  const auto add = [](std::vector<uint32_t>& to, const std::vector<uint32_t>& from) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
  };
  if (labels.back() != label) close_class();
  for (size_t k = 0; k < inputs.size(); ++k) inputs[k] += next.inputs[k];
  labels.push_back(label);  // the class that close_class() is about
  open_ = true;
  for (size_t l = 0; l < layers.size(); ++l) add(layers[l].of_class, more ? next.layers[l].head : next.layers[l].of_class);
  if (more) close_class();
  for (size_t l = 0; l < layers.size(); ++l) {
    RegionLayerCounts &to = layers[l], &from = next.layers[l];
    to.hashes.insert(to.hashes.end(), from.hashes.begin(), from.hashes.end());
    if (!more) continue;
    add(to.of_all, from.of_all);
    to.of_class = std::move(from.of_class);
    for (size_t k = 0; k < to.differing.size(); ++k) to.differing[k] += from.differing[k];
  }
  labels.insert(labels.end(), next.labels.begin() + 1, next.labels.end());
  open_ = true;
}

RegionReport RegionCounts::report() {
  close_class();
  const size_t classes = inputs.size();
  RegionReport report;
  report.inputs = inputs;
  report.not_counted = smooth;
  std::vector<uint64_t> of_class(classes, 0);
  uint64_t of_all = 0;
  int64_t constant = 0;
  std::vector<Hash128> chain(layers.size());
  for (RegionLayerCounts& l : layers) {
    if (!labels.empty()) l.differing[size_t(labels.front())] = differing_units(l, l.head, uint64_t(inputs[size_t(labels.front())]), threads);
    for (size_t i = 0; i < l.head.size(); ++i) l.of_all[i] += std::exchange(l.head[i], 0u);
    PatternStatistics& p = report.of_layer.emplace_back(count_patterns(l.hashes, labels, int64_t(classes)));
    p.constant = constant_units(l, labels.size());
    constant += p.constant;
    const uint64_t differing = differing_units(l, l.of_all, labels.size(), threads);
    add_distances(p, l.differing, differing, inputs);
    for (size_t k = 0; k < classes; ++k) of_class[k] += l.differing[k];
    of_all += differing;
    report.layers.push_back(l.about);
  }
  for (size_t i = 0; i < labels.size(); ++i) {
    for (size_t l = 0; l < layers.size(); ++l) chain[l] = layers[l].hashes[i];
    report.hashes.push_back(hash128(chain.data(), chain.size() * sizeof(Hash128)));
  }
  report.total = count_patterns(report.hashes, labels, int64_t(classes));
  report.total.constant = constant;
  add_distances(report.total, of_class, of_all, inputs);
  return report;
}

}  // namespace switchback
