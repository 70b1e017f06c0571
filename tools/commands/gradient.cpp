// `switchback gradient`, `smoothgrad` and `integrated`.
#include <CLI/CLI.hpp>
#include <memory>

#include "tools/commands/commands.h"
#include "tools/cli/maps.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

struct MapOptions : Options {
  std::string rule = "gradient", moment = "mean", baseline = "0", save_tape, load_tape;
  bool times_input = false;
  int64_t samples = 50, steps = 50;
  double noise = 0.15;
};

std::shared_ptr<MapOptions> map_options(CLI::App& app) {
  auto o = std::make_shared<MapOptions>();
  add_inputs(app, *o, "images, folders of images, .npy arrays [N,C,H,W]");
  add_model(app, *o);
  add_target(app, *o);
  add_output(app, *o);
  add_run(app, *o);
  add_report(app, *o);
  return o;
}

void add_rule(CLI::App& app, MapOptions& o) {
  app.add_option("--rule", o.rule, "what ReLUs let through on the way back (default gradient)")
      ->type_name("gradient|deconv|guided");
}

// Signed maps as RGB around grey, others as their absolute sum over channels.
std::function<Image(const MapView&)> picture_of_maps(const Job& job, bool is_signed) {
  return [order = job.model.preprocess.order, is_signed](const MapView& map) {
    const int c = int(map.dims[0]), h = int(map.dims[1]), w = int(map.dims[2]);
    return is_signed ? signed_rgb(map.values, c, h, w, order) : saliency_picture(map.values, c, h, w);
  };
}

void run_gradient(const MapOptions& o) {
  const ReluRule rule = parse_rule(o.rule);
  if (!o.save_tape.empty() && !o.load_tape.empty() && o.save_tape == o.load_tape)
    throw Error("--save-tape and --load-tape name the same file", "", true);
  Job job("gradient", o);
  MapMethod method;
  method.suffix = o.rule;
  method.picture = picture_of_maps(job, !(rule == kGradient));
  method.one_chunk = !o.save_tape.empty() || !o.load_tape.empty();
  method.details = {{"rule", o.rule}, {"times_input", o.times_input}};
  method.run = [&](const Tensor& x, const std::vector<uint32_t>&, const Progress& progress) {
    GradientOptions options{job.run, rule, o.times_input, o.save_tape, o.load_tape};
    options.progress = progress;
    return gradient(job.ctx, job.model, x, job.target, job.model.labels, options);
  };
  run_maps(job, method);
}

SmoothGradOptions::Moment parse_moment(const std::string& text) {
  check_choice("--moment", text, {"mean", "square", "variance"});
  using Moment = SmoothGradOptions::Moment;
  return text == "mean" ? Moment::mean : text == "square" ? Moment::square : Moment::variance;
}

void run_smoothgrad(const MapOptions& o) {
  const ReluRule rule = parse_rule(o.rule);
  const SmoothGradOptions::Moment moment = parse_moment(o.moment);
  if (o.samples < 1) throw Error(fmt::format("--samples {} is less than 1", o.samples), "", true);
  if (!(o.noise >= 0 && o.noise <= 1e6))
    throw Error(fmt::format("--noise {} is no share of the value range", o.noise), "0.1 to 0.2 is usual", true);
  Job job("smoothgrad", o);
  MapMethod method;
  method.suffix = o.rule == "gradient" ? "smoothgrad" : "smoothgrad-" + o.rule;
  method.noun = "samples";
  method.picture = picture_of_maps(job, !(rule == kGradient) && moment == SmoothGradOptions::Moment::mean);
  method.details = {{"rule", o.rule}, {"samples", o.samples}, {"noise", o.noise}, {"moment", o.moment}};
  method.run = [&](const Tensor& x, const std::vector<uint32_t>& index, const Progress& progress) {
    SmoothGradOptions options{job.run, rule, o.samples, o.noise, parse_seed(o.seed), moment, index};
    options.progress = progress;
    return smoothgrad(job.ctx, job.model, x, job.target, job.model.labels, options);
  };
  run_maps(job, method);
}

void run_integrated(const MapOptions& o) {
  if (o.steps < 1) throw Error(fmt::format("--steps {} is less than 1", o.steps), "", true);
  Job job("integrated", o);
  using Baseline = IntegratedOptions::Baseline;
  const Baseline baseline = o.baseline == "0"      ? Baseline::zero
                            : o.baseline == "mean" ? Baseline::mean
                                                   : Baseline::given;
  const Tensor given = baseline == Baseline::given ? load_single(o.baseline, job.model) : Tensor();
  MapMethod method;
  method.suffix = "integrated";
  method.noun = "steps";
  method.picture = picture_of_maps(job, false);
  method.details = {{"steps", o.steps}, {"baseline", o.baseline}};
  method.run = [&](const Tensor& x, const std::vector<uint32_t>&, const Progress& progress) {
    IntegratedOptions options{job.run, kGradient, o.steps, baseline, given.empty() ? Tensor() : given.clone()};
    options.progress = progress;
    return integrated(job.ctx, job.model, x, job.target, job.model.labels, options);
  };
  run_maps(job, method);
}

}  // namespace

std::function<void()> setup_gradient(CLI::App& app) {
  auto o = map_options(app);
  add_rule(app, *o);
  app.add_flag("--times-input", o->times_input, "multiply the map with the input");
  app.add_option("--save-tape", o->save_tape, "write the gates and switches of the forward pass")
      ->type_name("FILE.safetensors");
  app.add_option("--load-tape", o->load_tape, "use another program's gates and switches")
      ->type_name("FILE.safetensors");
  return [o] { run_gradient(*o); };
}

std::function<void()> setup_smoothgrad(CLI::App& app) {
  auto o = map_options(app);
  add_rule(app, *o);
  app.add_option("--samples", o->samples, "noisy copies of each image (default 50)")->type_name("N");
  app.add_option("--noise", o->noise, "sigma as a share of the image's value range (default 0.15)")->type_name("S");
  app.add_option("--moment", o->moment, "what is kept of the gradients (default mean)")
      ->type_name("mean|square|variance");
  return [o] { run_smoothgrad(*o); };
}

std::function<void()> setup_integrated(CLI::App& app) {
  auto o = map_options(app);
  app.add_option("--steps", o->steps, "of the integral, midpoint rule (default 50)")->type_name("N");
  app.add_option("--baseline", o->baseline,
                 "where the path starts: 0, each channel's mean over the image, or a file "
                 "(default 0)")
      ->type_name("0|mean|FILE");
  return [o] { run_integrated(*o); };
}

}  // namespace switchback
