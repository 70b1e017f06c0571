#include "tools/commands/train_run.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>
#include <utility>

#include "engine/files/npy.h"
#include "engine/files/safetensors.h"
#include "kernels/learn/loss_math.h"
#include "tools/cli/resumable.h"

namespace switchback {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kValidationBatch = 256;

// [E,N]: the order of images of each epoch.
std::vector<int64_t> read_order(const TrainRequest& r, int64_t images) {
  if (r.order.empty()) return {};
  Dims dims;
  std::vector<int64_t> order = read_npy_integers(r.order, {2}, dims);
  if (dims[0] < r.epochs || dims[1] != images)
    throw Error(fmt::format("{} is [{},{}], must be [{},{}]: epochs, images", r.order, dims[0], dims[1], r.epochs, images), "");
  for (const int64_t i : order)
    if (i < 0 || i >= images) throw Error(fmt::format("{} names image {} of {}", r.order, i, images), "images count from 0");
  return order;
}

TrainOptions train_options(const TrainRequest& r, int64_t images) {
  return {.batch = std::min(r.batch_size, images), .piece = parse_batch(r.batch), .loss = r.loss, .label_smoothing = float(r.label_smoothing),
          .optimizer = optimizer_of(r), .clip_norm = r.clip_norm, .seed = parse_seed(r.seed), .frozen = r.freeze,
          .no_decay = r.no_decay};
}

}  // namespace

Optimizer optimizer_of(const TrainRequest& r) {
  Optimizer o{.weight_decay = r.weight_decay, .momentum = r.momentum, .nesterov = r.nesterov};
  if (r.optimizer == "sgd") return o;
  using Kind = Optimizer::Kind;
  o.kind = r.optimizer == "adadelta" ? Kind::adadelta : r.optimizer == "nadam" ? Kind::nadam : Kind::adam;
  o.decoupled = r.optimizer == "adamw";
  if (r.optimizer == "adadelta") o.eps = 1e-6;
  return o;
}

TrainingRun::TrainingRun(Job& job, const TrainRequest& request, TrainingData& data, TrainingData* validation, Json settings)
    : job_(job), request_(request), data_(data), validation_(validation), settings_(std::move(settings)),
      schedule_(parse_schedule(request.schedule)), augmentation_(parse_augmentation(request.augment)),
      given_order_(read_order(request, data.size())),
      trainer_(job.ctx, {job.model.network, std::exchange(job.model.weights, {})}, data.item(), train_options(request, data.size())) {
  schedule_.warm_up = request.warm_up;
  if (validation) {
    PlanOptions options;
    options.tape = false;
    validation_plan_ = std::make_unique<Plan>(job.ctx, job.model, data.item().with_n(std::min(kValidationBatch, validation->size())),
                                              options);
  }
  if (trainer_.whole_batches() && data.size() % request.batch_size == 1)
    throw Error(fmt::format("the last batch of an epoch would be one image, which batch norms cannot take ({} images, {} a batch)",
                            data.size(), request.batch_size),
                "choose another --batch-size");
  const bool begun = std::filesystem::exists(path("state.safetensors"));
  if (begun && !request.resume)
    throw Error(path("state.safetensors") + " holds a training run", "--resume goes on with it; another --output begins a new one");
  if (!begun && request.resume) throw Error(fmt::format("there is no run in {} to resume", request.output), "leave out --resume");
  make_directories(request.output);
  for (const char* name : {"run.json", "steps.jsonl", "log.jsonl", "epoch-000.safetensors", "last.safetensors", "state.safetensors", "curves.png"})
    if (std::filesystem::is_directory(path(name)))
      throw Error(fmt::format("cannot write {}: it is a folder", path(name)), "move it away, or name another --output");
  if (begun) {
    resume();
    return;
  }
  write_file_atomically(path("run.json"), settings_.dump(2) + "\n");
  write_file_atomically(path("steps.jsonl"), std::string_view(""));
  write_file_atomically(path("log.jsonl"), std::string_view(""));
  save_weights(trainer_.network(), trainer_.weights(), path("epoch-000.safetensors"));
  save();
}

int64_t TrainingRun::steps_per_epoch() const { return (data_.size() + request_.batch_size - 1) / request_.batch_size; }
int64_t TrainingRun::all_steps() const {
  const int64_t all = steps_per_epoch() * request_.epochs;
  return request_.steps > 0 ? std::min(request_.steps, all) : all;
}
double TrainingRun::rate(int64_t step) const { return schedule_.rate(request_.rate, step, steps_per_epoch(), request_.epochs); }

std::vector<int64_t> TrainingRun::order(int64_t epoch) const {
  if (given_order_.empty()) return epoch_order(data_.size(), parse_seed(request_.seed), epoch);
  const auto first = given_order_.begin() + epoch * data_.size();
  return {first, first + data_.size()};
}

void TrainingRun::run() {
  can_be_resumed();
  const int64_t first = trainer_.steps();
  int64_t asked = first;
  std::vector<int64_t> images;  // of the epoch that is asked for, in its order
  ReadAhead reader = step_reader(data_, augmentation_, parse_seed(request_.seed), job_.ctx.thread_count(), [&] {
    ReadAhead::Step step;
    if (asked == all_steps()) return step;
    const int64_t at = asked % steps_per_epoch();
    step.epoch = asked / steps_per_epoch();
    if (at == 0 || images.empty()) images = order(step.epoch);
    const auto begin = images.begin() + at * request_.batch_size;
    step.images.assign(begin, begin + std::min<int64_t>(request_.batch_size, images.end() - begin));
    ++asked;
    return step;
  });
  while (trainer_.steps() < all_steps()) {
    step(reader);
    job_.bar.update(trainer_.steps() - first, all_steps() - first, "steps");
    if (request_.save_every > 0 && trainer_.steps() % request_.save_every == 0) save();
    if (trainer_.steps() % steps_per_epoch() == 0) end_epoch(trainer_.steps() / steps_per_epoch() - 1);
  }
  save();
}

void TrainingRun::step(ReadAhead& reader) {
  const auto start = std::chrono::steady_clock::now();
  const ReadAhead::Batch batch = take_step(reader);
  const auto count = int64_t(batch.images.size());
  std::vector<int32_t> labels;
  for (const int64_t i : batch.images)
    if (data_.labelled()) labels.push_back(data_.labels()[i]);
  const Targets targets{labels, data_.labelled() ? std::span<const float>() : std::span<const float>(batch.pixels)};
  const double lr = rate(trainer_.steps());
  const StepResult result = trainer_.step(batch.pixels.data(), count, targets, lr);
  if (!std::isfinite(result.loss)) stop_at(std::isnan(result.loss) ? "the loss is NaN" : "the loss is infinite", lr);
  sums_.loss += result.loss * double(count);
  sums_.right += result.right;
  sums_.images += count;
  sums_.seconds += seconds_since(start);
  step_log_ += Json({{"step", trainer_.steps()}, {"loss", result.loss}, {"learning_rate", lr}}).dump() + "\n";
}

void TrainingRun::stop_at(const std::string& what, double lr) {
  const LargestActivation largest = trainer_.largest_activation();
  const std::string where = largest.not_finite.empty() ? "" : fmt::format(", and not finite from {} on", largest.not_finite);
  throw Error(fmt::format("{} at step {} (learning rate {:g}); the largest activation is {:.3g}, of {}{}", what, trainer_.steps(), lr,
                          largest.value, largest.layer, where),
              fmt::format("{} holds the last good weights; try a smaller --lr, --warm-up or --clip-norm", path("last.safetensors")));
}

// What is not finite is not saved: the last good weights stay.
void TrainingRun::check_weights() {
  const auto finite = [](float v) { return std::isfinite(v); };
  for (const Parameter& p : trainer_.weights().list())
    if (!std::ranges::all_of(trainer_.weights().values(p), finite))
      stop_at(full_name(trainer_.network(), p) + " is not finite", rate(trainer_.steps() - 1));
}

void TrainingRun::end_epoch(int64_t epoch) {
  check_weights();
  const double images = double(sums_.images);
  EpochLine line{epoch + 1, sums_.loss / images, data_.labelled() ? double(sums_.right) / images : kNone, kNone, kNone,
                 rate(trainer_.steps() - 1), sums_.seconds, images / sums_.seconds};
  if (validation_) validate(line);
  lines_.push_back(line);
  epoch_log_ += line_json(line).dump() + "\n";
  sums_ = {};
  save_weights(trainer_.network(), trainer_.weights(), path(fmt::format("epoch-{:03}.safetensors", epoch + 1)));
  save();
  write_png(path("curves.png"), curves());
  if (!request_.json && !request_.quiet) job_.bar.clear(), print_epoch(line);
}

// Over the whole validation set, as at inference.
void TrainingRun::validate(EpochLine& line) {
  Plan& plan = *validation_plan_;
  plan.set_weights(trainer_.weights());
  double loss = 0;
  int64_t right = 0, all = 0, asked = 0;
  ReadAhead reader = step_reader(*validation_, {}, 0, job_.ctx.thread_count(), [&] {
    ReadAhead::Step step{std::vector<int64_t>(size_t(std::min(plan.capacity(), validation_->size() - asked)))};
    std::iota(step.images.begin(), step.images.end(), asked);
    asked += int64_t(step.images.size());
    return step;
  });
  for (int64_t first = 0; first < validation_->size(); first += plan.capacity()) {
    const ReadAhead::Batch batch = take_step(reader);
    const std::vector<int64_t>& images = batch.images;
    all += int64_t(images.size());
    plan.write(batch.pixels.data(), int64_t(images.size()));
    plan.forward();
    const Tensor y = plan.read(plan.network().output());
    std::vector<float> gradient(static_cast<size_t>(y.count()));
    const int64_t size = y.count() / int64_t(images.size());
    for (size_t i = 0; i < images.size(); ++i) {
      const float* row = y.data() + int64_t(i) * size;
      if (request_.loss == Loss::cross_entropy) {
        double own = 0;
        int32_t best = 0;
        const int32_t label = validation_->labels()[images[i]];
        cross_entropy_item({.smoothing = float(request_.label_smoothing)}, size, row, label, 1, gradient.data(), &own, &best);
        loss += own;
        right += best == label;
      } else {
        const Distance distance = request_.loss == Loss::mse ? Distance::mse : Distance::bce;
        for (int64_t e = 0; e < size; ++e)
          loss += distance_value(distance, double(row[e]), double(batch.pixels[i * size_t(size) + size_t(e)]), 1 / double(size), gradient.data());
      }
    }
  }
  line.validation_loss = loss / double(all);
  if (validation_->labelled()) line.validation_accuracy = double(right) / double(all);
}

// Logs first and the state last: what is there of an interrupted run then never lags behind its state.
void TrainingRun::save() {
  check_weights();
  write_file_atomically(path("steps.jsonl"), step_log_);
  write_file_atomically(path("log.jsonl"), epoch_log_);
  save_weights(trainer_.network(), trainer_.weights(), path("last.safetensors"));
  trainer_.save_state(path("state.safetensors"), {{"run", settings_.dump()},
                                                  {"epoch_loss", fmt::format("{:.17g}", sums_.loss)},
                                                  {"epoch_right", std::to_string(sums_.right)},
                                                  {"epoch_images", std::to_string(sums_.images)},
                                                  {"epoch_seconds", fmt::format("{:.17g}", sums_.seconds)}});
}

void TrainingRun::resume() {
  const Safetensors state(path("state.safetensors"));
  const auto& about = state.metadata();
  const auto text = [&](const char* key) {
    const auto found = about.find(key);
    if (found == about.end()) throw Error(state.path() + " is no state of a training run", "name the folder of one with --output");
    return found->second;
  };
  Json before = Json::parse(text("run"), nullptr, false);
  // A longer run begins with the same steps, unless its rates depend on its length.
  if (before.is_object() && !schedule_.looks_ahead()) before["epochs"] = settings_["epochs"];
  if (before != settings_)
    throw Error(fmt::format("{} belongs to another run: they differ in {}", state.path(), differences(before, settings_)),
                "ask for the same again");
  trainer_.load_state(state.path());
  write_file_atomically(path("run.json"), settings_.dump(2) + "\n");
  const auto number = [&](const char* key) {
    const std::string digits = text(key);
    double value = 0;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), value).ec != std::errc())
      throw Error(fmt::format("{}: {} is \"{}\", which is no number", state.path(), key, printable(digits)), "begin a new run");
    return value;
  };
  sums_ = {number("epoch_loss"), int64_t(number("epoch_right")), int64_t(number("epoch_images")), number("epoch_seconds")};
  // Lines of steps that the state does not know are taken again.
  const auto kept = [&](const char* name, const char* key, int64_t last, const auto& take) {
    std::string log;
    std::string_view rest;
    const std::string all = read_file(path(name), int64_t(1) << 32);
    for (rest = all; !rest.empty();) {
      const size_t end = std::min(rest.find('\n'), rest.size() - 1);
      const Json line = Json::parse(rest.substr(0, end), nullptr, false);
      rest.remove_prefix(end + 1);
      if (line.is_discarded() || line.value(key, last + 1) > last) continue;
      log += line.dump() + "\n";
      take(line);
    }
    return log;
  };
  step_log_ = kept("steps.jsonl", "step", trainer_.steps(), [](const Json&) {});
  epoch_log_ = kept("log.jsonl", "epoch", trainer_.steps() / steps_per_epoch(), [&](const Json& l) {
    const auto value = [&](const char* key) { return l.contains(key) && l[key].is_number() ? l[key].get<double>() : kNone; };
    lines_.push_back({l["epoch"].get<int64_t>(), value("loss"), value("accuracy"), value("validation_loss"),
                      value("validation_accuracy"), value("learning_rate"), value("seconds"), value("images_per_second")});
  });
}

Json TrainingRun::line_json(const EpochLine& l) const {
  return {{"epoch", l.epoch}, {"loss", l.loss}, {"accuracy", l.accuracy}, {"validation_loss", l.validation_loss},
          {"validation_accuracy", l.validation_accuracy}, {"learning_rate", l.rate}, {"seconds", l.seconds},
          {"images_per_second", l.images_per_second}};  // what is not a number is null
}

void TrainingRun::print_epoch(const EpochLine& l) const {
  std::string text = fmt::format("epoch {}/{}: loss {:.4f}", l.epoch, request_.epochs, l.loss);
  if (std::isfinite(l.accuracy)) text += fmt::format(", accuracy {:.2f} %", 100 * l.accuracy);
  if (std::isfinite(l.validation_loss)) text += fmt::format("; validation: loss {:.4f}", l.validation_loss);
  if (std::isfinite(l.validation_accuracy)) text += fmt::format(", accuracy {:.2f} %", 100 * l.validation_accuracy);
  print_line(text + fmt::format("; lr {:g}, {:.1f} s, {:.0f} images/s", l.rate, l.seconds, l.images_per_second));
}

Image TrainingRun::curves() const {
  std::vector<std::string> places;
  const Rgb blue{49, 104, 142}, orange{222, 110, 30};
  Series loss{.name = "training", .values = {}, .color = blue}, validation{.name = "validation", .values = {}, .color = orange};
  Series accuracy = loss, validation_accuracy = validation;
  for (const EpochLine& l : lines_) {
    places.push_back(std::to_string(l.epoch));
    loss.values.push_back(l.loss), validation.values.push_back(l.validation_loss);
    accuracy.values.push_back(100 * l.accuracy), validation_accuracy.values.push_back(100 * l.validation_accuracy);
  }
  const auto chart = [&](const char* title, Series training, const Series& other) {
    std::vector<Series> all{std::move(training)};
    if (validation_) all.push_back(other);
    return line_chart(places, all, {.title = title});
  };
  std::vector<Canvas> charts{chart("loss", loss, validation)};
  if (data_.labelled()) charts.push_back(chart("accuracy, %", accuracy, validation_accuracy));
  return pixels(one_below_other(charts));
}

}  // namespace switchback
