// `switchback fool`: images that are read as each class with confidence, and in which nobody sees anything.
#include "viz/methods/fool.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>

#include "engine/files/safetensors.h"
#include "tools/cli/figure.h"
#include "tools/cli/inputs.h"
#include "tools/cli/job.h"
#include "tools/cli/maps.h"
#include "tools/cli/resumable.h"
#include "tools/commands/commands.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

using Encoding = FoolOptions::Encoding;
constexpr Choice<Encoding> kEncodings[] = {
    {"cppn", Encoding::cppn}, {"direct", Encoding::direct}, {"gradient", Encoding::gradient}};
constexpr size_t kMostPlaces = 250;  // of the chart of progress
constexpr int64_t kMostGenerations = 10'000'000, kMostChildren = 100'000;

struct FoolCommand : Options {
  Encoding encoding = Encoding::cppn;
  std::string generations = "200", children = "200", save_every = "100", render;
  bool resume = false;
};

// What a state is of: all that a run's bits depend on, but for its length.
Json settings_of(const Job& job, const FoolCommand& o) {
  const Json about = job.provenance();
  return {{"model", job.model_name()},
          {"weights", about["weights_sha256"].is_null() ? about["weights"] : about["weights_sha256"]},
          {"encoding", word_of(kEncodings, o.encoding)},
          {"children", o.encoding == Encoding::gradient ? Json(nullptr) : Json(o.children)},
          {"seed", o.seed},
          {"precision", job.precision}};
}

Elites resumed(const Job& job, const FoolCommand& o, const std::string& path, const Json& settings) {
  if (!std::filesystem::exists(path))
    throw Error(fmt::format("there is no run to resume: {} is not there", path), "leave out --resume");
  std::map<std::string, std::string> about;
  const Safetensors file(path);
  const auto run = file.metadata().find("run");
  const Json before = run == file.metadata().end() ? Json() : Json::parse(run->second, nullptr, false);
  if (!before.is_object()) throw Error(path + " is no state of switchback fool", "leave out --resume");
  if (before != settings)
    throw Error(fmt::format("{} belongs to another run: they differ in {}", path, differences(before, settings)),
                "ask for the same again");
  return load_elites(path, job.model, o.encoding, about);
}

// The confidences after each generation, as many of them as a chart can hold.
Canvas progress_chart(const Elites& elites) {
  std::vector<std::string> places;
  Series median{.name = "median", .values = {}, .bold = true},
      mean{.name = "mean", .values = {}, .color = {222, 110, 30}};
  const size_t all = elites.median.size(), step = (all + kMostPlaces - 1) / kMostPlaces;
  for (size_t g = 0; g < all; g += step) {
    places.push_back(std::to_string(g));
    median.values.push_back(double(elites.median[g]));
    mean.values.push_back(double(elites.mean[g]));
  }
  return line_chart(places, std::vector<Series>{median, mean},
                    {.title = "confidence of all classes' elites, by generation", .least = 0, .most = 1});
}

void run_fool(const FoolCommand& o) {
  if (!o.inputs.empty())
    throw Error(fmt::format("fool makes its images itself; {} is given", o.inputs[0]), "leave it out", true);
  FoolOptions options;
  options.encoding = o.encoding;
  options.generations = parse_whole("--generations", o.generations, 1, kMostGenerations);
  options.children = parse_whole("--children", o.children, 1, kMostChildren);
  options.save_every = parse_whole("--save-every", o.save_every, 0, kMostGenerations);
  if (!o.render.empty() && o.encoding != Encoding::cppn)
    throw Error("--render is of --encoding cppn; pixels have one size alone", "leave it out", true);
  const std::pair<int64_t, int64_t> size =
      o.render.empty() ? std::pair<int64_t, int64_t>{0, 0} : parse_size("--render", o.render);
  if (size.first * size.second > 4096 * 4096)
    throw Error(fmt::format("--render {} is too large", o.render), "at most 4096x4096", true);
  Job job("fool", o);
  options.seed = parse_seed(o.seed);
  Output output(job);
  const bool kept = output.pictures() || output.npy();
  if (!kept) job.sum_weights();
  const Json settings = settings_of(job, o);
  const std::string state = fmt::format("{}/{}.fool-{}-seed{}.state.safetensors", job.options.output, name_part(job.model_name()),
                                        word_of(kEncodings, o.encoding), name_part(o.seed));
  Elites elites = o.resume ? resumed(job, o, state, settings) : Elites{};
  const int64_t before = elites.generation;
  static_cast<RunOptions&>(options) = job.run;
  options.progress = [&](int64_t done, int64_t total) {
    job.bar.update(done - before, std::max<int64_t>(1, total - before), "generations");
  };
  const auto save = [&](const Elites& e) {
    save_elites(state, e, {{"run", settings.dump()}});
    can_be_resumed();
  };
  if (kept) options.save = save;
  fool(job.ctx, job.model, elites, options);
  if (kept) save(elites);

  const int64_t classes = int64_t(elites.confidence.size());
  const ResultOf of(job.model_name());
  const auto name_of_class = [&](size_t k) { return unit_name(job, {logit_node(job.model.network), int64_t(k)}); };
  Json files = Json::array();
  Report report;
  std::vector<Panel> panels;
  ItemLines lines;
  for (size_t k = 0; k < size_t(classes); ++k) {
    const double p = double(elites.confidence[k]);
    if (output.pictures() && panels.size() < kMostGridPanels)
      panels.push_back({input_picture(elite_image(job.model, elites, o.encoding, int64_t(k), {size.first, size.second}),
                                      0, job.model, false),
                        o.plain ? "" : fmt::format("{}\n{:.2f} %", name_of_class(k), 100 * p)});
    report.inputs.push_back({{"path", nullptr},
                             {"index", k},
                             {"target", k},
                             {"class", job.class_json(int64_t(k))},
                             {"probability", p},
                             {"generation", elites.born[k]}});
    lines.add(fmt::format("  {:<36} {:6.2f} %", name_of_class(k), 100 * p));
  }
  const std::string how =
      fmt::format("{}, {}", word_of(kEncodings, o.encoding),
                  counted(options.generations, o.encoding == Encoding::gradient ? "step" : "generation"));
  if (output.pictures()) {
    GridOptions grid_options{.columns = o.columns,
                             .title = figure_title(job, "Fooling images"),
                             .subtitle = fmt::format("{}; median confidence {:.2f} %; {}", how,
                                                     100 * double(elites.median.back()), weights_text(job))};
    if (classes > int64_t(panels.size())) {
      grid_options.note = fmt::format("the first {} of {} classes", panels.size(), classes);
      output.note("the picture shows " + grid_options.note);
    }
    output.add_picture(files, of, o.plain ? arrange(panels, {.columns = o.columns}) : grid(panels, grid_options),
                       {{"encoding", word_of(kEncodings, o.encoding)}});
    output.add_picture(files, {job.model_name(), "progress"},
                       titled(progress_chart(elites), {.title = figure_title(job, "Fooling images"),
                                                       .subtitle = fmt::format("{}; {}", how, weights_text(job))}));
  }
  if (output.npy()) {
    Tensor all;
    for (int64_t k = 0; k < classes; ++k) {
      const Tensor one = elite_image(job.model, elites, o.encoding, k);
      if (all.empty()) all = Tensor({classes, one.dim(1), one.dim(2), one.dim(3)});
      std::copy_n(one.data(), one.count(), all.data() + k * one.count());
    }
    files.push_back(output.add_npy(of, all, {"K", "C", "H", "W"}));
  }
  for (Json& entry : report.inputs) entry["files"] = files;
  report.details = {{"encoding", word_of(kEncodings, o.encoding)},
                    {"generations", options.generations},
                    {"children", options.children},
                    {"resumed", o.resume ? Json(before - 1) : Json(nullptr)},
                    {"state", kept ? Json(state) : Json(nullptr)},
                    {"median", elites.median.back()},
                    {"medians", elites.median},
                    {"means", elites.mean}};
  report.summary = [&] {
    print_line(job.summary_title(fmt::format("fool ({})", how)));
    lines.print();
    print_line(fmt::format("  median confidence {:.2f} %, mean {:.2f} %", 100 * double(elites.median.back()),
                           100 * double(elites.mean.back())));
    print_written(job, output.paths());
    if (kept) print_line(fmt::format("state in {}: --resume with more --generations goes on", state));
    print_line(job.summary_times(options.generations + 1 - before, "generation"));
  };
  finish_run(job, output, std::move(report));
}

}  // namespace

std::function<void()> setup_fool(CLI::App& app) {
  auto o = std::make_shared<FoolCommand>();
  app.add_option("INPUT", o->inputs, "none: fool makes its images itself");
  add_choice(app, *o, "--encoding", kEncodings, o->encoding, Changes::kind,
             "what evolves: small networks that draw the image, or its pixels; gradient: no evolution, but the way up "
             "the class's probability");
  add_setting(app, *o, "--generations", o->generations, Changes::values,
              "after the first one, which is drawn at random; of gradient, steps (default 200)", "N");
  add_setting(app, *o, "--children", o->children, Changes::values,
              "of a generation; each tries every class (default 200)", "N");
  add_setting(app, *o, "--render", o->render, Changes::pictures,
              "size at which the networks draw the picture (default: the model's own)", "S|HxW");
  add_switch(app, *o, "--resume", o->resume, Changes::nothing,
             "go on from the state in the output folder, to the same bits");
  add_setting(app, *o, "--save-every", o->save_every, Changes::nothing,
              "generations between two states (default 100; 0: at the end alone)", "N");
  add_model(app, *o);
  add_output(app, *o);
  add_drawing(app, *o, Drawing::plain | Drawing::columns);
  add_run(app, *o, true);
  add_report(app, *o);
  return [o] { run_fool(*o); };
}

}  // namespace switchback
