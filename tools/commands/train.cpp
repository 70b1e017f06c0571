// `switchback train`: trains a model on a data set.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include "tools/cli/inputs.h"
#include "tools/cli/labelled.h"
#include "tools/commands/commands.h"
#include "tools/commands/train_run.h"

namespace switchback {
namespace {

constexpr Choice<Loss> kLosses[] = {{"cross-entropy", Loss::cross_entropy}, {"mse", Loss::mse}, {"bce", Loss::bce}};
const std::vector<std::string> kOptimizerNames{"sgd", "adam", "adamw", "nadam", "adadelta"};

double default_rate(const std::string& optimizer) { return optimizer == "sgd" ? 0.1 : optimizer == "adadelta" ? 1 : 1e-3; }

// What needs no model, before anything is opened.
void check_request(TrainRequest& r, bool rate_given) {
  if (r.inputs.empty()) usage("train takes a data set, but none is given", fmt::format("{}; or a .npy of images with --labels", kDatasets));
  for (const std::string& input : r.inputs)
    if (r.inputs.size() > 1 && is_array(input)) usage(fmt::format("{} must be the only input", printable(input)), "join the arrays in one file");
  check_choice("--optimizer", r.optimizer, kOptimizerNames);
  if (!rate_given) r.rate = default_rate(r.optimizer);
  if (!(r.rate > 0) || !std::isfinite(r.rate)) usage(fmt::format("--lr {} is not above 0", r.rate), "for example --lr 0.001");
  if (r.epochs < 1) usage(fmt::format("--epochs {}: must be at least 1", r.epochs), "how often all images are seen");
  if (r.batch_size < 1) usage(fmt::format("--batch-size {}: must be at least 1", r.batch_size), "64 is the default");
  if (r.steps < 0 || r.save_every < 0 || r.warm_up < 0) usage("--steps, --save-every and --warm-up are not below 0", "");
  const auto share = [](const char* name, double v) {
    if (!(v >= 0 && v < 1)) usage(fmt::format("{} {}: must be at least 0 and below 1", name, v), "");
  };
  share("--momentum", r.momentum), share("--label-smoothing", r.label_smoothing);
  if (!(r.weight_decay >= 0) || !(r.clip_norm >= 0)) usage("--weight-decay and --clip-norm are not below 0", "");
  if (r.optimizer != "sgd" && (r.momentum != 0 || r.nesterov))
    usage("--momentum and --nesterov belong to --optimizer sgd", "Adam has its own");
  if (r.nesterov && r.momentum == 0) usage("--nesterov needs --momentum", "for example --momentum 0.9");
  if (r.precision != Precision::fp32) usage("training runs in fp32", "leave out --precision");
  parse_schedule(r.schedule), parse_augmentation(r.augment), parse_seed(r.seed);
}

// All that a run's results depend on: a resumed one must ask for the same.
Json settings_json(const TrainRequest& r) {
  return {{"data", fmt::format("{}", fmt::join(r.inputs, " "))}, {"validate", r.validate}, {"labels", r.image_labels}, {"model", r.model},
          {"weights", r.weights}, {"preprocess", r.preprocess}, {"loss", word_of(kLosses, r.loss)},
          {"label_smoothing", r.label_smoothing}, {"optimizer", r.optimizer}, {"learning_rate", r.rate},
          {"momentum", r.momentum}, {"nesterov", r.nesterov}, {"weight_decay", r.weight_decay}, {"no_decay", r.no_decay},
          {"schedule", r.schedule}, {"warm_up", r.warm_up}, {"epochs", r.epochs}, {"batch_size", r.batch_size},
          {"augment", r.augment}, {"freeze", r.freeze}, {"clip_norm", r.clip_norm}, {"seed", r.seed}, {"order", r.order}};
}

void check_names(const Network& network, const Weights& weights, const char* option, const std::vector<std::string>& beginnings) {
  for (const std::string& b : beginnings) {
    const bool any = std::ranges::any_of(weights.list(), [&](const Parameter& p) { return full_name(network, p).starts_with(b); });
    if (!any) usage(fmt::format("{} {}: no parameter's name begins so", option, b), "`switchback info --model M` lists the layers");
  }
}

void check_loss(const TrainRequest& r, const Model& model) {
  const Shape y = model.network.shapes(model.network.input)[model.network.output()];
  if (r.loss == Loss::cross_entropy && y.h * y.w > 1)
    throw Error(fmt::format("{} makes maps of [{},{},{}], and a cross entropy takes a vector of classes", model.network.name, y.c, y.h, y.w),
                y == model.network.input ? "--loss mse holds them against the image" : "take a network that ends in classes");
  if (r.loss == Loss::cross_entropy) return;
  if (y != model.network.input)
    throw Error(fmt::format("--loss {} holds the output against the image, but {} makes [{},{},{}] of [{},{},{}]",
                            word_of(kLosses, r.loss), model.network.name, y.c, y.h, y.w, model.network.input.c,
                            model.network.input.h, model.network.input.w),
                "take cross-entropy");
}

// A last linear layer of as many outputs as the data set has classes, drawn anew where the model's are others.
void fit_head(Job& job, const TrainRequest& r, const Dataset& data) {
  const auto classes = int64_t(data.classes.size());
  Model& model = job.model;
  Network network = model.network;
  int head = network.output();
  while (head > 0 && parameters(network.nodes[head].layer).empty()) --head;
  const auto* linear = std::get_if<Linear>(&network.nodes[head].layer);
  if (!linear || linear->out_features == classes || classes < 2) return;
  const int64_t before = linear->out_features;
  try {
    class_map(data, model, before, r.inputs[0]);
    return;  // by their names they are some of the model's
  } catch (const Error&) {
  }
  std::vector<int64_t> images(size_t(classes), 0);
  for (int64_t i = 0; i < data.size(); ++i) ++images[size_t(data.label(i))];
  if (classes > before)  // a data set of more classes has images of them: this is a label that went wrong
    if (const auto none = std::find(images.begin() + before, images.end(), 0); none != images.end())
      throw Error(fmt::format("{} has labels up to {}, but none is {}, and {} has outputs 0 to {}", printable(r.inputs[0]), classes - 1,
                              none - images.begin(), model.network.name, before - 1),
                  "look at its labels: a last layer of more outputs is drawn where every class has images");
  std::get<Linear>(network.nodes.edit(head).layer).out_features = classes;
  Weights weights = initial_weights(network, parse_seed(r.seed));
  for (const Parameter& p : model.weights.list())
    if (p.node != head) std::ranges::copy(model.weights.values(p), weights.edit(p.node, p.name).begin());
  model.network = network, model.weights = weights, model.labels = data.classes;
  warn(fmt::format("{} is drawn anew: {} outputs instead of {}, as {} has classes", network.nodes[head].name, classes, before,
                   printable(r.inputs[0])));
}

// One array, or data sets one behind the other.
std::unique_ptr<TrainingData> open_training(Job& job, const TrainRequest& r, bool classes) {
  if (is_array(r.inputs[0])) return std::make_unique<TrainingData>(r.inputs[0], r.image_labels, job.model, classes);
  if (!r.image_labels.empty()) usage("--labels FILE.npy belong to a .npy of images", "data sets have labels of their own");
  Dataset data = open_dataset(r.inputs[0], r.exif);
  for (size_t i = 1; i < r.inputs.size(); ++i) data.append(open_dataset(r.inputs[i], r.exif));
  if (classes) fit_head(job, r, data);
  return std::make_unique<TrainingData>(std::move(data), r.inputs[0], job.model, classes);
}

void run_train(TrainRequest r, bool rate_given) {
  if (is_array(r.labels)) r.image_labels = std::exchange(r.labels, "");  // of a .npy of images, not names of outputs
  check_request(r, rate_given);
  const Json settings = settings_json(r);
  const bool anew = r.weights.empty();
  Options options = r;
  if (anew) options.weights = "random:" + r.seed;
  Job job("train", options);
  r.output = job.options.output;
  if (anew) job.model.weights = initial_weights(job.model.network, parse_seed(r.seed));
  check_names(job.model.network, job.model.weights, "--freeze", r.freeze);
  check_names(job.model.network, job.model.weights, "--no-decay", r.no_decay);
  check_loss(r, job.model);
  const bool classes = r.loss == Loss::cross_entropy;
  const std::unique_ptr<TrainingData> training = open_training(job, r, classes);
  TrainingData& data = *training;
  if (data.as_it_is() && parse_augmentation(r.augment).jitter.any())
    usage("--augment jitter needs to know what is black and white, and arrays are used as they are", "take a data set of images");
  std::unique_ptr<TrainingData> validation;
  if (is_array(r.validate)) validation = std::make_unique<TrainingData>(r.validate, "", job.model, classes);
  else if (!r.validate.empty())
    validation = std::make_unique<TrainingData>(open_dataset(r.validate, r.exif), r.validate, job.model, classes);
  if (classes && std::ranges::adjacent_find(data.labels(), std::not_equal_to()) == data.labels().end())
    throw Error(fmt::format("all images of {} are of one class", r.inputs[0]), "there is nothing to learn from them");
  TrainingRun run(job, r, data, validation.get(), settings);
  job.bar.start();
  run.run();
  job.bar.clear();
  if (r.json) {
    Report report;
    report.inputs.push_back({{"path", r.inputs[0]}, {"index", 0}, {"images", data.size()}});
    report.details = {{"run", settings}, {"steps", run.steps()}, {"unreadable", Json::array()}, {"epochs", Json::array()}};
    for (const auto& [image, why] : data.unreadable()) report.details["unreadable"].push_back({{"image", image}, {"error", why}});
    for (const EpochLine& l : run.epochs())
      report.details["epochs"].push_back({{"epoch", l.epoch}, {"loss", l.loss}, {"accuracy", l.accuracy},
                                          {"validation_loss", l.validation_loss}, {"validation_accuracy", l.validation_accuracy},
                                          {"seconds", l.seconds}});
    Json document = document_of(job, report);
    job.add_footer(document);
    print_json(document);
  } else if (!r.quiet) {
    print_line(fmt::format("{} steps; wrote {}/last.safetensors, a checkpoint an epoch, log.jsonl and curves.png", run.steps(), r.output));
    print_line(job.summary_times(run.steps(), "step"));
  }
}

}  // namespace

std::function<void()> setup_train(CLI::App& app) {
  auto o = std::make_shared<TrainRequest>();
  app.add_option("DATASET", o->inputs, fmt::format("{}; several are joined; or a .npy of images", kDatasets));
  add_switch(app, *o, "--exif", o->exif, Changes::values, "turn image files as their EXIF orientation says");
  add_model(app, *o);
  app.get_option("--labels")->description("FILE.npy: the labels of a .npy of images, [N] whole numbers; else names of the outputs, one a line");
  const auto text = [&](const char* flag, std::string& value, const char* about, const char* type) {
    app.add_option(flag, value, about)->type_name(type);
  };
  const auto number = [&](const char* flag, auto& value, const char* about, const char* type) {
    return app.add_option(flag, value, about)->type_name(type);
  };
  text("--validate", o->validate, "data set that is looked at after each epoch", "DATASET");
  number("--epochs", o->epochs, "how often all images are seen", "N")->required();
  number("--batch-size", o->batch_size, "images of a step (default 64)", "N");
  text("--optimizer", o->optimizer, "sgd, adam (default), adamw or adadelta", "NAME");
  CLI::Option* rate = number("--lr", o->rate, "learning rate (default: sgd 0.1, adam and adamw 0.001, adadelta 1)", "X");
  number("--momentum", o->momentum, "of sgd (default 0)", "X");
  app.add_flag("--nesterov", o->nesterov, "Nesterov's momentum");
  number("--weight-decay", o->weight_decay, "default 0", "X");
  app.add_option("--no-decay", o->no_decay, "parameters without weight decay, by the beginning of their names (may be repeated)")
      ->type_name("PREFIX");
  text("--schedule", o->schedule, "constant, step:E,E…:F, exponential:F, cosine[:MIN] or one-cycle", "SCHEDULE");
  number("--warm-up", o->warm_up, "steps over which the learning rate rises", "N");
  add_choice(app, *o, "--loss", kLosses, o->loss, Changes::nothing, "mse and bce hold the output against the image itself");
  number("--label-smoothing", o->label_smoothing, "of the cross entropy (default 0)", "X");
  text("--augment", o->augment, "crop:PADDING, flip, rotate:DEGREES, jitter:B[:C[:S[:H]]], erase[:P], with commas between", "LIST");
  app.add_option("--freeze", o->freeze, "parameters that stay as they are, by the beginning of their names (may be repeated)")
      ->type_name("PREFIX");
  number("--clip-norm", o->clip_norm, "largest norm of all gradients together (default: none)", "X");
  number("--steps", o->steps, "end after so many steps", "N");
  number("--save-every", o->save_every, "also save the state every so many steps", "N");
  text("--order", o->order, "the order of images of each epoch, [E,N]; nothing is shuffled", "FILE.npy");
  app.add_flag("--resume", o->resume, "go on with the run in the output folder");
  add_folder(app, *o);
  add_run(app, *o, true);
  add_report(app, *o);
  return [o, rate] { run_train(*o, rate->count() > 0); };
}

}  // namespace switchback
