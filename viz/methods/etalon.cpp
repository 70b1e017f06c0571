#include "viz/methods/etalon.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/parallel.h"
#include "kernels/pointwise/pointwise.h"
#include "viz/methods/batches.h"
#include "viz/methods/etalon_group.h"

namespace switchback {

double EtalonCheck::residual() const { return std::abs(dot + bias - score); }
double EtalonCheck::relative() const { return magnitude > 0 ? residual() / magnitude : residual(); }

void add_products(const float* w, const float* x, int64_t count, EtalonCheck& check) {
  double sum = 0, size = 0;
#pragma omp simd reduction(+ : sum, size)
  for (int64_t i = 0; i < count; ++i) {
    const double product = double(w[i]) * double(x[i]);
    sum += product;
    size += std::fabs(product);
  }
  check.dot += sum;
  check.votes_for += (size + sum) / 2;
  check.votes_against += (sum - size) / 2;
  check.magnitude += size;
}

namespace {

// How many units there are, once it is sure that they have etalons.
int64_t checked_units(const Network& network, Shape image, const TargetSpec& target,
                      const std::vector<std::string>& labels) {
  if (target.score != Score::logit)
    throw Error("etalons are of logits: a probability is no affine map of the input", "leave out --score", true);
  const int64_t units = check_target(network, image, target, labels);
  check_piecewise_affine(network, target_node(network, target));
  return units;
}

}  // namespace

Etalons::Etalons(Context& ctx, const Model& model, Shape image, const TargetSpec& target,
                 const std::vector<std::string>& labels, const EtalonOptions& options, int64_t inputs)
    : ctx_(ctx), model_(model), image_(image.with_n(1)), target_(target), labels_(labels), options_(options),
      node_(target_node(model.network, target)), units_(checked_units(model.network, image_, target, labels)),
      limit_(options.memory ? options.memory : free_memory(ctx) / 2) {
  const Network& network = model.network;
  const Shape maps = network.shapes(image_)[size_t(node_)];
  const bool coordinate = options.algorithm == EtalonAlgorithm::coordinate;
  fields_ = options.fields && !coordinate && maps.h * maps.w > 1 && targets_places(network, target);
  const int64_t wanted = options.batch > 0 ? options.batch : useful_batch(ctx, image_);
  if (!fields_ && !coordinate) {
    const int64_t rounds = (units_ + wanted - 1) / wanted;
    seeds_ = (units_ + rounds - 1) / rounds;  // rounds of nearly equal size
    items_ = std::clamp<int64_t>(wanted / seeds_, 1, std::max<int64_t>(1, inputs));
  }
  fit_memory();
  device_sums_ = ctx.allocate(size_t(items_ * seeds_) * sizeof(OffsetSum));
  for (int64_t n = std::min(wanted, image_.item()); coordinate; n = n * 3 / 4) {
    frozen_.emplace(ctx, model, image_.with_n(n), node_, options.precision);
    if (n == 1 || frozen_->bytes() <= limit_) break;
  }
}

Etalons::~Etalons() = default;

// Plans for as many inputs and units at a time as fit into the memory that is allowed and there.
void Etalons::fit_memory() {
  const auto make = [&] {
    plan_.emplace(ctx_, model_, image_.with_n(items_),
                  PlanOptions{.precision = options_.precision, .observe = {0, node_}, .tape = true, .given = {0}});
    backward_.emplace(*plan_, node_, Wanted{.nodes = {0}}, items_ * seeds_, BackwardOptions{.offsets = true});
    const size_t maps = size_t(items_ * seeds_ * image_.item()) * sizeof(float);
    size_t bytes = std::max(plan_->arena_bytes(), backward_->arena_bytes()) + plan_->own_bytes() + plan_->tape_bytes() + maps;
    // A CPU is faster where several small inputs stay in its cache.
    constexpr size_t kCache = 8 << 20;
    if (!ctx_.gpu && options_.batch == 0 && items_ > 1 && items_ * seeds_ > 64 && bytes > kCache) bytes = SIZE_MAX;
    return Trial{bytes, [&] {
                   plan_->reserve(&tape_);
                   if (!fields_) backward_->reserve();
                 }};
  };
  const auto smaller = [&](bool) {
    if (items_ * seeds_ == 1) return false;
    int64_t& fewer = items_ > 1 ? items_ : seeds_;
    fewer = std::max<int64_t>(1, fewer * 3 / 4);
    return true;
  };
  fit(limit_, fmt::format("an etalon of {} on {}x{}x{}", model_.network.name, image_.c, image_.h, image_.w), make, smaller);
}

std::vector<EtalonInput> Etalons::run(const float* x, int64_t n, const Sink& sink) {
  CHECK(n > 0 && n <= items_, "{} inputs for etalons of {}", n, items_);
  plan_->write(x, n);
  plan_->forward(&tape_);
  if (!options_.load_tape.empty()) load_tape(ctx_, model_.network, tape_, options_.load_tape);
  values_ = plan_->read(node_);
  std::vector<EtalonInput> inputs(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    EtalonInput& input = inputs[size_t(i)];
    const Tensor one = n == 1 ? Tensor() : batch_item(values_, i);
    input.explained = explain(model_.network, target_, n == 1 ? values_ : one, labels_);
    input.checks.resize(input.explained.units.size());
    for (size_t p = 0; p < input.checks.size(); ++p) input.checks[p].score = input.explained.scores[p];
  }
  if (fields_)
    run_fields(x, inputs[0], sink);
  else if (options_.algorithm == EtalonAlgorithm::coordinate)
    run_coordinates(x, inputs[0], sink);
  else
    run_whole(x, inputs, sink);
  return inputs;
}

void Etalons::run_whole(const float* x, std::vector<EtalonInput>& inputs, const Sink& sink) {
  const int64_t n = int64_t(inputs.size()), item = image_.item();
  maps_.resize(size_t(items_ * seeds_ * item));
  sums_.resize(size_t(items_ * seeds_));
  std::vector<Unit> units;
  for (int64_t t = 0; t < units_; t += seeds_) {
    const int64_t seeds = std::min(seeds_, units_ - t);
    units.clear();
    for (const EtalonInput& input : inputs)
      units.insert(units.end(), input.explained.units.begin() + t, input.explained.units.begin() + t + seeds);
    write_seeds(ctx_, units, Score::logit, values_, seeds, backward_->seed(n * seeds));
    ctx_.zero(device_sums_.data(), device_sums_.size());
    const ConstView g = backward_->run(tape_, {.seeds_per_item = seeds, .offsets = device_sums_.as<OffsetSum>()});
    read_nchw(ctx_, g, maps_.data());
    ctx_.copy_out(sums_.data(), device_sums_.data(), size_t(n * seeds) * sizeof(OffsetSum));
    parallel_ranges(ctx_, n * seeds, item, [&](int64_t first, int64_t last) {
      for (int64_t p = first; p < last; ++p) {
        EtalonCheck& check = inputs[size_t(p / seeds)].checks[size_t(t + p % seeds)];
        check.bias = sums_[size_t(p)].sum;
        check.magnitude = sums_[size_t(p)].magnitude;
        add_products(maps_.data() + p * item, x + p / seeds * item, item, check);
      }
    });
    for (int64_t i = 0; i < n; ++i) sink(i, t, seeds, maps_.data() + i * seeds * item);
  }
}

namespace {

// The unit's value in one item's values [C,H,W], as score_of gives it for the logit.
double unit_value(const Unit& unit, const float* values, Shape s) {
  const float* channel = values + unit.channel * s.h * s.w;
  if (unit.row >= 0) return double(channel[unit.row * s.w + unit.col]);
  double sum = 0;
  for (int64_t i = 0; i < s.h * s.w; ++i) sum += double(channel[i]);
  return sum;
}

}  // namespace

// Algorithm 1 of the paper, coordinate images in batches: component i of W_p is unit p's answer to the i-th of them in
// the frozen network without biases; its answer to the zero image, biases on, is b_p.
void Etalons::run_coordinates(const float* x, EtalonInput& input, const Sink& sink) {
  const int64_t item = image_.item(), batch = std::min(frozen_->capacity(), item);
  const std::vector<Unit>& units = input.explained.units;
  maps_.resize(size_t(units_ * item));
  std::vector<float> answers;
  const auto ask = [&](int64_t n, bool biases) {
    const ConstView y = frozen_->run(tape_, biases);
    answers.resize(size_t(y.shape.count()));
    read_nchw(ctx_, y, answers.data());
    CHECK(y.shape.n == n, "{} answers to {} coordinate images", y.shape.n, n);
    return y.shape;
  };
  for (int64_t first = 0; first < item; first += batch) {
    const int64_t n = std::min(batch, item - first), plane = image_.h * image_.w;
    std::vector<SeedUnit> coordinates;
    for (int64_t i = first; i < first + n; ++i)
      coordinates.push_back({i / plane, i % plane / image_.w, i % image_.w});
    one_hot(ctx_, frozen_->input(n), coordinates);
    const Shape s = ask(n, false);
    for (int64_t p = 0; p < units_; ++p)
      for (int64_t i = 0; i < n; ++i)
        maps_[size_t(p * item + first + i)] = float(unit_value(units[size_t(p)], answers.data() + i * s.item(), s));
    if (options_.progress) options_.progress(first + n, item);
  }
  const View zero = frozen_->input(1);
  ctx_.zero(zero.data, size_t(zero.shape.count()) * size_of(zero.dtype));
  const Shape s = ask(1, true);
  for (int64_t p = 0; p < units_; ++p) {
    EtalonCheck& check = input.checks[size_t(p)];
    check.bias = unit_value(units[size_t(p)], answers.data(), s);
    check.magnitude = std::abs(check.bias);
    add_products(maps_.data() + p * item, x, item, check);
  }
  sink(0, 0, units_, maps_.data());
}

EtalonMaps etalons(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                   const std::vector<std::string>& labels, const EtalonOptions& options) {
  const Network& network = model.network;
  const Shape image = image_shape(network, x);
  const int64_t inputs = x.dim(0), item = image.item();
  Etalons run(ctx, model, image, target, labels, options, inputs);
  EtalonMaps out;
  out.maps = allocate_maps({inputs, run.units(), image.c, image.h, image.w});
  out.biases = Tensor({inputs, run.units()});
  for (int64_t first = 0; first < inputs; first += run.batch()) {
    const int64_t n = std::min(run.batch(), inputs - first);
    std::vector<EtalonInput> results =
        run.run(x.data() + first * item, n, [&](int64_t i, int64_t unit, int64_t count, const float* maps) {
          std::memcpy(out.maps.data() + ((first + i) * run.units() + unit) * item, maps, size_t(count * item) * sizeof(float));
        });
    for (EtalonInput& result : results) {
      float* bias = out.biases.data() + int64_t(out.inputs.size()) * run.units();
      for (const EtalonCheck& check : result.checks) *bias++ = float(check.bias);
      out.inputs.push_back(std::move(result));
    }
    if (options.progress) options.progress(first + n, inputs);
  }
  return out;
}

}  // namespace switchback
