#include "tools/bench/sweep.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <set>

#include "kernels/device/device_ops.h"
#include "tools/bench/bench_values.h"

namespace switchback {
namespace {

using Json = nlohmann::ordered_json;

// A challenger must be that much faster than the model's choice: less is noise.
constexpr double kWorthIt = 1.02;
constexpr double kHopeless = 1.5;  // times as slow as the best: out after the first runs

// The layer without its bias, if it is one that can be a product.
std::optional<Layer> product_layer(const Layer& layer) {
  if (const auto* conv = std::get_if<Conv2d>(&layer)) {
    Conv2d plain = *conv;
    plain.has_bias = false;
    return plain;
  }
  if (const auto* linear = std::get_if<Linear>(&layer)) return Linear{linear->in_features, linear->out_features, false};
  return {};
}

bool same(const SweepLayer& a, const Layer& layer, Shape in) {
  if (a.in != in || a.layer.index() != layer.index()) return false;
  if (const auto* conv = std::get_if<Conv2d>(&layer)) return std::get<Conv2d>(a.layer) == *conv;
  return std::get<Linear>(a.layer) == std::get<Linear>(layer);
}

int64_t weight_count(const Layer& layer) {
  if (const auto* linear = std::get_if<Linear>(&layer)) return linear->in_features * linear->out_features;
  const Conv2d& c = std::get<Conv2d>(layer);
  return c.out_channels * (c.in_channels / c.groups) * c.kernel_h * c.kernel_w;
}

struct Cost {
  double flops = 0, elements = 0;
};
Cost cost_of(const Layer& layer, Shape in) {
  const Shape inputs[] = {in};
  return {double(flops(layer, inputs)), double(in.count() + output_shape(layer, inputs).count() + weight_count(layer))};
}

// --- one product

// A layer's weights, for all batches and precisions.
struct Operand {
  std::vector<float> values;
  std::unique_ptr<ConvWeights> conv;
  LinearWeights linear;

  explicit Operand(const Layer& layer) : values(random_values(weight_count(layer), 1)) {
    const Dims dims = parameters(layer)[0].dims;
    int64_t fan_in = 1;
    for (size_t i = 1; i < dims.size(); ++i) fan_in *= dims[i];
    const float scale = std::sqrt(3.f / float(fan_in));  // so that sums stay in the range of f16
    for (float& v : values) v *= scale;
    if (const auto* c = std::get_if<Conv2d>(&layer)) {
      conv = std::make_unique<ConvWeights>(*c, values.data());
    } else {
      linear.linear = std::get<Linear>(layer);
      linear.weight = values.data();
    }
  }
};

// One direction of a layer at one batch.
struct Product {
  Context& ctx;
  const Operand& operand;
  Shape x, y;
  DType dtype;
  bool backward, tf32;

  std::optional<GemmOffer> offer() const {
    const DeviceOps& ops = *ctx.gpu->ops;
    return operand.conv ? ops.conv2d_gemm(ctx, operand.conv->conv(), x, dtype, backward, tf32)
                        : ops.linear_gemm(ctx, operand.linear.linear, x.n, dtype, backward, tf32);
  }
  Shape in() const { return backward ? y : x; }
  Shape out() const { return backward ? x : y; }
  void run(ConstView from, View to) const {
    if (operand.conv)
      backward ? conv2d_backward_data(ctx, *operand.conv, from, to, {.tf32 = tf32})
               : conv2d_forward(ctx, *operand.conv, from, to, {.tf32 = tf32});
    else
      backward ? linear_backward_data(ctx, operand.linear, from, to, {.tf32 = tf32})
               : linear_forward(ctx, operand.linear, from, to, {.tf32 = tf32});
  }
};

struct Candidate {
  GemmVariant variant;
  std::vector<double> ms;
};

// Runs a product by one kernel after another.
class Bench {
 public:
  Bench(Context& ctx, size_t flush_bytes) : ctx_(ctx), flush_(ctx.allocate(flush_bytes / 32 * 32)) {
    count_ = ctx.allocate(16);
    ctx.zero(flush_.data(), flush_.size());
  }

  // Whether all kernels leave the bits of the first; the names of those that do not.
  std::vector<std::string> differing(const Product& product, const std::vector<Candidate>& candidates) {
    open(product);
    const auto other = activation(ctx_, product.out(), product.dtype, 3);
    std::vector<std::string> wrong;
    for (size_t i = 0; i < candidates.size(); ++i) {
      use(product, candidates[i].variant);
      const Activation& to = i == 0 ? *out_ : *other;
      ctx_.zero(to.memory.data(), to.memory.size());
      product.run(in_->view, to.view);
      if (i > 0 && differences(*out_, *other) != 0) wrong.push_back(name_of(candidates[i].variant));
    }
    return wrong;
  }

  // `runs` runs of each, in turn.
  void time(const Product& product, const std::vector<Candidate*>& candidates, int runs) {
    for (int r = 0; r < runs; ++r)
      for (Candidate* c : candidates) {
        use(product, c->variant);
        // Reading leaves no lines that would have to be written back during the run.
        const char* flush = flush_.as<char>();
        ctx_.gpu->ops->count_differences(ctx_, flush, flush + flush_.size() / 2, flush_.size() / 2,
                                         count_.as<uint32_t>());
        c->ms.push_back(ctx_.gpu->ops->milliseconds(*ctx_.gpu, [&] { product.run(in_->view, out_->view); }));
      }
  }

 private:
  void open(const Product& product) {
    in_.reset(), out_.reset();  // first give back, then ask for more
    in_ = activation(ctx_, product.in(), product.dtype, 2);
    out_ = activation(ctx_, product.out(), product.dtype, 3);
  }

  void use(const Product& product, const GemmVariant& variant) {
    auto table = std::make_shared<GemmTable>(ctx_.gpu->name);
    table->set(product.offer()->key, variant);
    ctx_.gemm_table = std::move(table);
    CHECK(product.offer()->chosen == variant, "the kernel {} was asked for, and {} would run", name_of(variant),
          name_of(product.offer()->chosen));
  }

  uint32_t differences(const Activation& a, const Activation& b) {
    uint32_t count = 0;
    ctx_.zero(count_.data(), count_.size());
    ctx_.gpu->ops->count_differences(ctx_, a.memory.data(), b.memory.data(), a.memory.size(), count_.as<uint32_t>());
    ctx_.copy_out(&count, count_.data(), sizeof count);
    return count;
  }

  Context& ctx_;
  Memory flush_, count_;
  std::shared_ptr<Activation> in_, out_;
};

// --- halving

// from[0], the model's choice, always; of the others the faster half, if they are not hopeless.
std::vector<Candidate*> better_half(const std::vector<Candidate*>& from) {
  std::vector<Candidate*> others(from.begin() + 1, from.end()), kept = {from[0]};
  std::stable_sort(others.begin(), others.end(),
                   [](const Candidate* a, const Candidate* b) { return median(a->ms) < median(b->ms); });
  const double best = std::min(median(from[0]->ms), median(others[0]->ms));
  others.resize(std::max<size_t>(others.size() / 2, 1));
  for (Candidate* c : others)
    if (median(c->ms) <= kHopeless * best) kept.push_back(c);
  return kept;
}

// The fastest; candidates[0] where no other is faster by more than noise. Both end with the times of the last runs
// alone.
const Candidate& winner_of(Bench& bench, const Product& product, std::vector<Candidate>& candidates,
                           const SweepOptions& o) {
  std::vector<Candidate*> live;
  for (Candidate& c : candidates) live.push_back(&c);
  for (int runs = o.first_runs; live.size() > 2; runs *= 2) {
    bench.time(product, live, runs);
    live = better_half(live);
  }
  for (Candidate* c : live) c->ms.clear();
  bench.time(product, live, o.last_runs);
  return kWorthIt * median(live.back()->ms) <= median(live[0]->ms) ? *live.back() : *live[0];
}

std::vector<Candidate> candidates_of(const GemmOffer& offer) {
  std::vector<Candidate> all = {{offer.chosen, {}}};
  for (const GemmVariant& v : offer.fitting)
    if (v != offer.chosen) all.push_back({v, {}});
  return all;
}

Json document_of(const SweepLayer& layer, const Product& product, const GemmKey& key) {
  Json uses = Json::array();
  for (const SweepLayer::Use& u : layer.uses)
    uses.push_back({{"network", u.network}, {"count", u.count}, {"share", u.share}});
  const Cost cost = cost_of(layer.layer, layer.in);
  const Json shape = {{"rows", key.rows}, {"columns", key.columns}, {"depth", key.depth},
                      {"taps", key.taps}, {"phases", key.phases},   {"groups", key.groups}};
  const double elements = cost.elements * double(product.x.n) - double((product.x.n - 1) * weight_count(layer.layer));
  return {{"layer", describe(layer.layer)},
          {"input", {layer.in.c, layer.in.h, layer.in.w}},
          {"batch", product.x.n},
          {"precision", kArithmetics[int(key.arithmetic)]},
          {"backward", product.backward},
          {"flops", cost.flops * double(product.x.n)},
          {"bytes", elements * double(size_of(product.dtype))},
          {"product", shape},
          {"uses", uses}};
}

// Measures one product and enters its winner into the table. Gives its document.
Json measure(Bench& bench, const SweepLayer& layer, const Product& product, const GemmOffer& offer,
             const SweepOptions& o, GemmTable& table) {
  Json document = document_of(layer, product, offer.key);
  std::vector<Candidate> candidates = candidates_of(offer);
  const std::vector<std::string> wrong = bench.differing(product, candidates);
  if (!wrong.empty()) {
    std::string names;
    for (const std::string& name : wrong) names += " " + name;
    document["error"] = fmt::format("other bits than {} leaves:{}", name_of(offer.chosen), names);
    return document;
  }
  const Candidate& winner = winner_of(bench, product, candidates, o);
  const double model_ms = median(candidates[0].ms), winner_ms = median(winner.ms);
  table.set(offer.key, winner.variant);
  document["same_bits"] = true;
  document["model"] = name_of(offer.chosen);
  document["model_ms"] = model_ms;
  document["winner"] = name_of(winner.variant);
  document["winner_ms"] = winner_ms;
  document["gain"] = model_ms / winner_ms;
  Json kernels = Json::array();
  for (const Candidate& c : candidates)
    kernels.push_back({{"kernel", name_of(c.variant)}, {"ms", median(c.ms)}, {"runs", c.ms.size()}});
  document["kernels"] = kernels;
  return document;
}

}  // namespace

double SweepLayer::share() const {
  double most = 0;
  for (const Use& u : uses) most = std::max(most, u.share);
  return most;
}

std::vector<SweepLayer> sweep_layers(const std::vector<Network>& networks) {
  std::vector<SweepLayer> all;
  for (const Network& network : networks) {
    const List<Shape> shapes = network.shapes(network.input);
    Cost total;
    for (const bool counting : {true, false})
      for (const Node& node : network.nodes) {
        const auto layer = product_layer(node.layer);
        if (!layer) continue;
        const Shape in = shapes[size_t(node.inputs[0])];
        const Cost cost = cost_of(*layer, in);
        if (counting) {
          total.flops += cost.flops, total.elements += cost.elements;
          continue;
        }
        const double share = std::max(cost.flops / total.flops, cost.elements / total.elements);
        auto known = std::find_if(all.begin(), all.end(), [&](const SweepLayer& l) { return same(l, *layer, in); });
        if (known == all.end()) known = all.insert(all.end(), SweepLayer{*layer, in, {}});
        if (known->uses.empty() || known->uses.back().network != network.name)
          known->uses.push_back({network.name, 0, 0});
        ++known->uses.back().count;
        known->uses.back().share += share;
      }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const SweepLayer& a, const SweepLayer& b) { return a.share() > b.share(); });
  return all;
}

SweepResult sweep(Context& ctx, const std::vector<SweepLayer>& layers, const SweepOptions& o,
                  const SweepReport& report) {
  CHECK(ctx.gpu, "a sweep over GEMM kernels on the CPU");
  const double start = clock_seconds(), end = start + o.seconds;
  const auto given = ctx.gemm_table;
  const int64_t all = int64_t(layers.size() * o.batches.size() * o.precisions.size()) * 2;
  SweepResult result{GemmTable(ctx.gpu->name)};
  Bench bench(ctx, o.flush_bytes);
  std::set<GemmKey> seen;
  int64_t done = 0;
  const auto one = [&](const SweepLayer& layer, const Operand& operand, int64_t batch, Precision precision,
                       bool backward) {
    ++done;
    if (clock_seconds() > end) return void(++result.left_out);
    ctx.gemm_table = given;
    const Shape x = layer.in.with_n(batch), inputs[] = {x};
    const Product product{ctx, operand, x, output_shape(layer.layer, inputs), activation_type(precision), backward,
                          precision == Precision::tf32};
    const auto offer = product.offer();
    if (!offer || !seen.insert(offer->key).second) return;  // no product, or one that another layer is as well
    Json document;
    try {
      document = measure(bench, layer, product, *offer, o, result.table);
    } catch (const Error& why) {
      document = document_of(layer, product, offer->key);
      document["error"] = why.what();
    }
    ++(document.contains("error") ? result.failed : result.measured);
    report(document, done, all);
  };
  for (const SweepLayer& layer : layers) {
    if (clock_seconds() > end) {
      result.left_out += all / int64_t(layers.size());
      continue;
    }
    const Operand operand(layer.layer);
    for (const int64_t batch : o.batches)
      for (const Precision precision : o.precisions)
        for (const bool backward : {false, true}) one(layer, operand, batch, precision, backward);
  }
  ctx.gemm_table = given;
  result.seconds = clock_seconds() - start;
  return result;
}

Json summary_of(const Context& ctx, const SweepResult& result) {
  return {{"gpu", ctx.gpu->name},    {"measured", result.measured}, {"left_out", result.left_out},
          {"failed", result.failed}, {"seconds", result.seconds},   {"table", result.table.text()}};
}

}  // namespace switchback
