// `switchback gradient`, `smoothgrad` and `integrated`.
#include <CLI/CLI.hpp>
#include <memory>

#include "tools/cli/shares.h"
#include "tools/commands/commands.h"
#include "tools/commands/map_methods.h"

namespace switchback {
namespace {

using Moment = SmoothGradOptions::Moment;
constexpr Choice<Moment> kMoments[] = {{"mean", Moment::mean}, {"square", Moment::square}, {"variance", Moment::variance}};

std::shared_ptr<MapOptions> map_options(CLI::App& app) {
  auto o = std::make_shared<MapOptions>();
  add_inputs(app, *o, kInputs);
  return o;
}

// The options behind a command's own.
void add_shared(CLI::App& app, MapOptions& o, bool random = false) {
  add_target(app, o);
  add_checkpoints(app, o);
  add_output(app, o);
  add_drawing(app, o, kMapDrawing,
              {.colormap = "gray; red, green and blue around grey for deconv and guided",
               .clip = "99; deconv and guided 99.5"});
  add_run(app, o, random);
  add_shard(app, o);
  add_report(app, o);
}

// `changes`: how the rule shows in names; gradient's results are called by it.
void add_rule(CLI::App& app, MapOptions& o, Changes changes) {
  add_choice(app, o, "--rule", kRules, o.rule, changes, "what ReLUs let through on the way back");
}

// Signed maps as RGB around grey, others as their absolute sum over channels.
std::function<std::vector<MapPanel>(const MapView&)> panels_of_maps(const Job& job, bool is_signed) {
  return [&job, is_signed](const MapView& view) -> std::vector<MapPanel> {
    if (is_signed) return {signed_panel(job.options, view, job.model.preprocess.order)};
    return {saliency_panel(job.options, view)};
  };
}

// "Gradient", "Guided backpropagation"
std::string rule_title(const ReluRule& rule) {
  return rule == kGradient ? "Gradient" : rule == kDeconv ? "Deconvolution" : "Guided backpropagation";
}

void run_gradient(const MapOptions& o) {
  if (!o.save_tape.empty() && !o.load_tape.empty() && o.save_tape == o.load_tape)
    throw Error("--save-tape and --load-tape name the same file", "", true);
  if (!o.along.empty()) {
    if (shares().divided()) throw Error("--along is not divided", "leave out --shard and mpirun", true);
    return run_along(o);
  }
  if (o.points != "500" || !o.pixel.empty() || o.along_noise != 0.01)
    throw Error("--points, --pixel and --noise are of --along", "--along seed", true);
  Job job("gradient", o);
  run_maps(job, gradient_method(job, o));
}

void run_smoothgrad(const MapOptions& o) {
  check_maps(o);
  Job job("smoothgrad", o);
  run_maps(job, smoothgrad_method(job, o));
}

void run_integrated(const MapOptions& o) {
  check_maps(o);
  Job job("integrated", o);
  run_maps(job, integrated_method(job, o));
}

}  // namespace

void check_maps(const MapOptions& o) {
  if (o.samples < 1) throw Error(fmt::format("--samples {} is less than 1", o.samples), "", true);
  if (!(o.noise >= 0 && o.noise <= 1e6))
    throw Error(fmt::format("--noise {} is no share of the value range", o.noise), "0.1 to 0.2 is usual", true);
  if (o.steps < 1) throw Error(fmt::format("--steps {} is less than 1", o.steps), "", true);
  if (o.noise > 1)
    warn(fmt::format(
        "--noise {} is a share of the image's value range: more than 1 drowns the image (0.1 to 0.2 is usual)",
        o.noise));
}

MapMethod gradient_method(Job& job, const MapOptions& o) {
  MapMethod method;
  method.name = method.command = word_of(kRules, o.rule);
  method.title = rule_title(o.rule) + (o.times_input ? " times input" : "");
  method.panels = panels_of_maps(job, !(o.rule == kGradient));
  method.one_chunk = !o.save_tape.empty() || !o.load_tape.empty();
  method.details = {{"rule", word_of(kRules, o.rule)}, {"times_input", o.times_input}};
  method.run = [&job, &o](const Tensor& x, const std::vector<uint32_t>&, const Progress& progress) {
    GradientOptions options{job.run, o.rule, o.times_input, o.save_tape, o.load_tape};
    options.progress = progress;
    return gradient(job.ctx, job.model, x, job.target, job.model.labels, options);
  };
  return method;
}

MapMethod smoothgrad_method(Job& job, const MapOptions& o) {
  MapMethod method;
  method.name = o.rule == kGradient ? "smoothgrad" : fmt::format("smoothgrad-{}", word_of(kRules, o.rule));
  method.noun = "samples";
  method.pieces = true;
  method.title =
      fmt::format("SmoothGrad{}{}{} ({} samples, noise {})", o.times_input ? " times input" : "", o.rule == kGradient ? "" : ", " + rule_title(o.rule),
                  o.moment == Moment::mean ? "" : fmt::format(", {}", word_of(kMoments, o.moment)), o.samples, o.noise);
  method.panels = panels_of_maps(job, !(o.rule == kGradient) && o.moment == Moment::mean);
  method.details = {{"rule", word_of(kRules, o.rule)},
                    {"samples", o.samples},
                    {"noise", o.noise},
                    {"moment", word_of(kMoments, o.moment)},
                    {"times_input", o.times_input}};
  method.run = [&job, &o](const Tensor& x, const std::vector<uint32_t>& index, const Progress& progress) {
    SmoothGradOptions options{job.run, o.rule, o.samples, o.noise, parse_seed(o.seed), o.moment, index, o.times_input};
    options.progress = progress;
    return smoothgrad(job.ctx, job.model, x, job.target, job.model.labels, options);
  };
  return method;
}

MapMethod integrated_method(Job& job, const MapOptions& o) {
  using Baseline = IntegratedOptions::Baseline;
  const Baseline baseline = o.baseline == "0"      ? Baseline::zero
                            : o.baseline == "mean" ? Baseline::mean
                                                   : Baseline::given;
  const auto given =
      std::make_shared<const Tensor>(baseline == Baseline::given ? load_single(o.baseline, job) : Tensor());
  MapMethod method;
  method.name = "integrated";
  method.noun = "steps";
  method.title = fmt::format("Integrated gradients ({} steps)", o.steps);
  method.panels = panels_of_maps(job, false);
  method.details = {{"steps", o.steps}, {"baseline", o.baseline}};
  method.run = [&job, &o, baseline, given](const Tensor& x, const std::vector<uint32_t>&, const Progress& progress) {
    IntegratedOptions options{job.run, kGradient, o.steps, baseline, given->empty() ? Tensor() : given->clone()};
    options.progress = progress;
    return integrated(job.ctx, job.model, x, job.target, job.model.labels, options);
  };
  return method;
}

void add_smoothgrad_samples(CLI::App& app, Options& all, MapOptions& o) {
  add_setting(app, all, "--samples", o.samples, Changes::values, "SmoothGrad's noisy copies of each image (default 50)",
              "N");
  add_setting(app, all, "--noise", o.noise, Changes::values,
              "SmoothGrad's sigma as a share of the image's value range (default 0.15)", "S");
}

std::function<void()> setup_gradient(CLI::App& app) {
  auto o = map_options(app);
  add_rule(app, *o, Changes::nothing);
  add_switch(app, *o, "--times-input", o->times_input, Changes::values, "multiply the map with the input");
  add_setting(app, *o, "--load-tape", o->load_tape, Changes::values, "use another program's gates and switches",
              "FILE.safetensors");
  add_setting(app, *o, "--save-tape", o->save_tape, Changes::nothing, "write the gates and switches of the forward pass",
              "FILE.safetensors");
  add_setting(app, *o, "--along", o->along, Changes::values,
              "no map, but one pixel's derivative along the line from the input to a noisy copy (of --seed) or to FILE", "seed|FILE");
  add_setting(app, *o, "--points", o->points, Changes::values, "of that line (default 500)", "N");
  add_setting(app, *o, "--pixel", o->pixel, Changes::values, "column and row (default: the middle)", "X,Y");
  add_setting(app, *o, "--noise", o->along_noise, Changes::values,
              "sigma of the noisy copy as a share of the image's value range (default 0.01)", "S");
  add_shared(app, *o, true);
  return [o] { run_gradient(*o); };
}

std::function<void()> setup_smoothgrad(CLI::App& app) {
  auto o = map_options(app);
  add_rule(app, *o, Changes::kind);
  add_choice(app, *o, "--moment", kMoments, o->moment, Changes::kind, "what is kept of the gradients");
  add_smoothgrad_samples(app, *o, *o);
  add_switch(app, *o, "--times-input", o->times_input, Changes::values, "multiply the mean map with the input");
  add_shared(app, *o, true);
  return [o] { run_smoothgrad(*o); };
}

std::function<void()> setup_integrated(CLI::App& app) {
  auto o = map_options(app);
  add_setting(app, *o, "--steps", o->steps, Changes::values, "of the integral, midpoint rule (default 50)", "N");
  add_setting(app, *o, "--baseline", o->baseline, Changes::values,
              "where the path starts: 0, each channel's mean over the image, or a file (default 0)", "0|mean|FILE");
  add_shared(app, *o);
  return [o] { run_integrated(*o); };
}

}  // namespace switchback
