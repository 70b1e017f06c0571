#include "engine/train/trainer.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/files/safetensors.h"
#include "kernels/normalize/batch_norm.h"

namespace switchback {
namespace {

bool begins(const std::string& name, const std::vector<std::string>& beginnings) {
  return std::ranges::any_of(beginnings, [&](const std::string& b) { return name.starts_with(b); });
}

PlanOptions for_training() {
  PlanOptions options;
  options.training = true;
  return options;
}

int64_t piece_of(const TrainOptions& o) { return o.piece > 0 ? std::min(o.piece, o.batch) : o.batch; }

}  // namespace

Trainer::Trainer(Context& ctx, Model model, Shape item, TrainOptions options)
    : ctx_(ctx), options_(std::move(options)), plan_(ctx, model, item.with_n(piece_of(options_)), for_training()),
      backward_(plan_, model.network.output(), {.parameters = true}, piece_of(options_)), count_(model.weights.count()) {
  check_output();
  for (const Step& s : plan_.steps())
    if (piece_of(options_) < options_.batch && learns(plan_.layer(s)).moments)
      throw Error(fmt::format("{} takes its mean over the whole batch of {}, not over {} at a time",
                              network().nodes[s.node].name, options_.batch, piece_of(options_)),
                  "choose a batch that fits the memory");
  const size_t bytes = size_t(count_) * sizeof(float), batch = size_t(options_.batch);
  const auto zeros = [&] {
    Memory m = ctx_.allocate(bytes);
    ctx_.zero(m.data(), bytes);
    return m;
  };
  gradients_ = zeros();
  for (int i = 0; i < options_.optimizer.states(); ++i) states_[i] = zeros();
  if (ctx_.gpu) {
    weights_ = ctx_.allocate(bytes);
    ctx_.copy_in(weights_.data(), model.weights.values().data(), bytes);
  }
  labels_ = ctx_.allocate(batch * sizeof(int32_t));
  best_ = ctx_.allocate(batch * sizeof(int32_t));
  losses_ = ctx_.allocate(batch * sizeof(double));
  sum_ = ctx_.allocate(sizeof(double));
  if (options_.class_weights.empty()) return;
  class_weights_ = ctx_.allocate(options_.class_weights.size() * sizeof(float));
  ctx_.copy_in(class_weights_.data(), options_.class_weights.data(), class_weights_.size());
}

void Trainer::check_output() const {
  const Shape y = plan_.shapes()[network().output()];
  if (std::holds_alternative<Softmax>(network().nodes[network().output()].layer))
    throw Error("the network ends with a softmax, and losses take what comes before it", "train it without");
  if (options_.loss != Loss::cross_entropy) return;
  if (y.h * y.w != 1 || y.c < 2)
    throw Error(fmt::format("the output is [{},{},{}]: a cross entropy takes a vector of two or more classes", y.c, y.h, y.w),
                "take mse or bce");
  CHECK(options_.class_weights.empty() || int64_t(options_.class_weights.size()) == y.c, "{} class weights for {} classes",
        options_.class_weights.size(), y.c);
}

// One over what PyTorch's mean divides by.
double Trainer::scale(const Targets& t, int64_t n) const {
  const Shape y = plan_.shapes()[network().output()];
  if (options_.loss != Loss::cross_entropy) {
    CHECK(int64_t(t.values.size()) == n * y.item(), "{} target values for {} outputs", t.values.size(), n * y.item());
    return 1 / double(n * y.item());
  }
  CHECK(int64_t(t.labels.size()) == n, "{} labels for {} items", t.labels.size(), n);
  double all = 0;
  for (const int32_t label : t.labels) {
    CHECK(label >= 0 && label < y.c, "label {} of a network with {} outputs", label, y.c);
    all += options_.class_weights.empty() ? 1 : double(options_.class_weights[label]);
  }
  return 1 / all;
}

StepResult Trainer::step(const float* x, int64_t n, const Targets& targets, double rate) {
  CHECK(n > 0 && n <= options_.batch, "{} items for batches of {}", n, options_.batch);
  StepResult result;
  const double by = scale(targets, n);
  ctx_.zero(gradients_.data(), gradients_.size());
  const int64_t piece = piece_of(options_), item = plan_.shapes()[0].item();
  for (int64_t first = 0; first < n; first += piece)
    add_piece(x + first * item, first, std::min(piece, n - first), targets, by, result);
  if (options_.clip_norm > 0) result.gradient_norm = clip();
  ++steps_;
  update(rate);
  return result;
}

// Forward, loss and backward of some items; adds to the gradients.
void Trainer::add_piece(const float* x, int64_t first, int64_t n, const Targets& targets, double scale, StepResult& result) {
  plan_.set_training({options_.seed, steps_, first});
  plan_.write(x, n);
  plan_.forward(&tape_);
  const ConstView y = plan_.value(network().output());
  const View dy = backward_.seed(n);
  const std::span<const int32_t> labels = targets.labels.empty() ? targets.labels : targets.labels.subspan(first, n);
  if (options_.loss == Loss::cross_entropy) {
    ctx_.copy_in(labels_.data(), labels.data(), labels.size_bytes());
    cross_entropy(ctx_, {options_.label_smoothing, class_weights_.as<float>()}, y, labels_.as<int32_t>(), scale, dy,
                  losses_.as<double>(), best_.as<int32_t>());
  } else {
    const size_t bytes = size_t(y.shape.count()) * sizeof(float);
    if (targets_.size() < bytes) targets_ = ctx_.allocate(bytes);
    const View target{targets_.data(), y.shape, DType::f32};
    write_nchw(ctx_, targets.values.data() + first * y.shape.item(), target);
    distance_loss(ctx_, options_.loss == Loss::mse ? Distance::mse : Distance::bce, y, target, scale, dy, losses_.as<double>());
  }
  backward_.run(tape_, {.at_step = [&](const Step& s, ConstView at) {
                  add_gradients(plan_, tape_, s, at, gradients_.as<float>());
                }, .gradients = gradients_.as<float>()});
  std::vector<double> losses(static_cast<size_t>(n));
  ctx_.copy_out(losses.data(), losses_.data(), losses.size() * sizeof(double));
  for (const double loss : losses) result.loss += loss;
  if (labels.empty()) return;
  std::vector<int32_t> best(static_cast<size_t>(n));
  ctx_.copy_out(best.data(), best_.data(), best.size() * sizeof(int32_t));
  for (size_t i = 0; i < best.size(); ++i) result.right += best[i] == labels[i];
}

LargestActivation Trainer::largest_activation() {
  LargestActivation out;
  int first = network().nodes.count();
  const auto look = [&](int node, std::span<const float> values) {
    for (const float v : values)
      if (!std::isfinite(v)) first = std::min(first, node);
      else if (double(std::abs(v)) >= out.value) out.value = double(std::abs(v)), out.layer = network().nodes[node].name;
  };
  std::vector<float> host;
  for (const Tape::Slot& slot : tape_.slots) {
    if (slot.kind != Tape::Kind::value || tape_.n == 0) continue;
    host.resize(tape_.n * slot.shape.item());
    ctx_.copy_out(host.data(), tape_.data(slot), host.size() * sizeof(float));
    look(slot.node, host);
  }
  if (tape_.n > 0) look(network().output(), plan_.read(network().output()).values());
  if (first < network().nodes.count()) out.not_finite = network().nodes[first].name;
  return out;
}

bool Trainer::trained(const Parameter& p) const { return p.trainable && !begins(full_name(network(), p), options_.frozen); }

// As torch.nn.utils.clip_grad_norm_; returns the norm.
double Trainer::clip() {
  ctx_.zero(sum_.data(), sizeof(double));
  for (const Parameter& p : weights().list())
    if (trained(p)) add_squares(ctx_, gradients_.as<float>() + p.offset, p.count(), sum_.as<double>());
  double sum = 0;
  ctx_.copy_out(&sum, sum_.data(), sizeof(double));
  const double norm = std::sqrt(sum), by = options_.clip_norm / (norm + 1e-6);
  for (const Parameter& p : weights().list())
    if (by < 1 && trained(p)) scale_array(ctx_, gradients_.as<float>() + p.offset, p.count(), float(by));
  return norm;
}

void Trainer::update(double rate) {
  Weights weights = plan_.take_weights();
  const std::span<float> values = weights.edit();
  float* w = ctx_.gpu ? weights_.as<float>() : values.data();
  const auto at = [](const Memory& m, const Parameter& p) { return m.size() > 0 ? m.as<float>() + p.offset : nullptr; };
  for (const Parameter& p : weights.list()) {
    if (begins(full_name(network(), p), options_.frozen)) continue;
    const float* gradient = at(gradients_, p);
    if (!p.trainable) {
      update_running(ctx_, p.count(), options_.running_momentum, 1, gradient, w + p.offset);
      continue;
    }
    Optimizer optimizer = options_.optimizer;
    if (begins(full_name(network(), p), options_.no_decay)) optimizer.weight_decay = 0;
    optimizer_step(ctx_, optimizer, rate, steps_, {w + p.offset, gradient, at(states_[0], p), at(states_[1], p), p.count()});
  }
  if (ctx_.gpu) ctx_.copy_out(values.data(), w, values.size_bytes());
  plan_.set_weights(weights);
}

// --- state files

void Trainer::save_state(const std::string& path, const std::map<std::string, std::string>& more) {
  std::vector<float> host[2];
  std::vector<NamedTensor> list;
  for (const Parameter& p : weights().list()) list.emplace_back(full_name(network(), p), p.dims, weights().values(p));
  for (size_t i = 0; i < 2; ++i) {
    if (states_[i].size() == 0) continue;
    host[i].resize(count_);
    ctx_.copy_out(host[i].data(), states_[i].data(), states_[i].size());
    for (const Parameter& p : weights().list())
      if (trained(p))
        list.emplace_back(fmt::format("{}.{}", full_name(network(), p), i), p.dims,
                          std::span<const float>(host[i]).subspan(p.offset, p.count()));
  }
  std::map<std::string, std::string> metadata = more;
  metadata["steps"] = std::to_string(steps_);
  write_safetensors(path, list, metadata);
}

void Trainer::load_state(const std::string& path) {
  const Safetensors file(path);
  const auto found = file.metadata().find("steps");
  int64_t steps = -1;
  if (found != file.metadata().end()) std::from_chars(found->second.data(), found->second.data() + found->second.size(), steps);
  if (steps < 0) throw Error(path + " is no state of a training run", "name RUN/state.safetensors");
  const auto load = [&](const Parameter& p, const std::string& name, std::span<float> all) {
    if (!file.has(name) || file.dims(name) != p.dims)
      throw Error(fmt::format("{} holds no {}: it belongs to another run", path, name),
                  "resume with the model and the optimiser that the run began with");
    file.load(name, all.subspan(p.offset, p.count()));
  };
  std::vector<float> host[2];
  for (size_t i = 0; i < 2; ++i) {
    host[i].resize(states_[i].size() / sizeof(float));
    for (const Parameter& p : weights().list())
      if (trained(p) && !host[i].empty()) load(p, fmt::format("{}.{}", full_name(network(), p), i), host[i]);
  }
  Weights loaded(network());
  for (const Parameter& p : loaded.list()) load(p, full_name(network(), p), loaded.edit());
  for (size_t i = 0; i < 2; ++i)
    if (!host[i].empty()) ctx_.copy_in(states_[i].data(), host[i].data(), states_[i].size());
  if (ctx_.gpu) ctx_.copy_in(weights_.data(), loaded.values().data(), weights_.size());
  plan_.set_weights(loaded);
  steps_ = steps;
}

}  // namespace switchback
