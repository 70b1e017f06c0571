// `switchback maximize`: images that drive units up, by the recipes of the literature. `switchback invert`: images that a
// layer can't tell from a photo.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <span>

#include "engine/files/apng.h"
#include "engine/files/npy.h"
#include "tools/cli/figure.h"
#include "tools/cli/inputs.h"
#include "tools/cli/job.h"
#include "tools/cli/maps.h"
#include "tools/commands/commands.h"
#include "viz/methods/batches.h"
#include "viz/methods/inspect.h"
#include "viz/methods/maximize.h"
#include "viz/methods/pixels.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

using Parts = MaximizeOptions::Parts;
constexpr Choice<Parts> kParts[] = {{"input", Parts::input}, {"pixels", Parts::pixels}, {"bytes", Parts::bytes}, {"fourier", Parts::fourier}, {"phase", Parts::phase}};
enum class Sum { sum, mean };
constexpr Choice<Sum> kSums[] = {{"sum", Sum::sum}, {"mean", Sum::mean}};
constexpr Choice<Optimizer::Kind> kOptimizers[] = {
    {"sgd", Optimizer::Kind::sgd}, {"adam", Optimizer::Kind::adam}, {"nadam", Optimizer::Kind::nadam}, {"adadelta", Optimizer::Kind::adadelta}};
constexpr int64_t kMostImages = 4096;

struct DreamCommand : Options {
  std::string recipe, size, start, objective, optimizer, parametrisation, colours, direction;
  std::string steps, lr, weight, edges, decay, blur, blur_every, clip_norm, clip_contribution, variation, range, jitter,
      rotate, zoom, scales, growth, clip_exact, diversity, reference, crops, noise, spectrum;
  int64_t copies = 1, frames = 0;
  bool caricature = false;
  std::vector<std::string> layers;
  std::string weights_of;
};

// The recipe, and what the options change of it.
MaximizeOptions options_of(const Job& job, const DreamCommand& o) {
  MaximizeOptions m = recipe(o.recipe);
  const RunOptions run = job.run;
  static_cast<RunOptions&>(m) = run;
  const auto number = [](const char* option, const std::string& text, auto& to) {
    if (!text.empty()) to = std::remove_reference_t<decltype(to)>(parse_number(option, text));
  };
  const auto whole = [](const char* option, const std::string& text, int64_t& to, int64_t least = 0) {
    if (!text.empty()) to = parse_whole(option, text, least, 1'000'000);
  };
  if (!o.steps.empty()) m.late_steps = 0, m.more_steps = 0;
  whole("--steps", o.steps, m.steps, 1);
  number("--lr", o.lr, m.lr);
  if (!o.lr.empty() && !(m.lr > 0)) throw Error(fmt::format("--lr {} is not above 0", o.lr), "", true);
  number("--weight", o.weight, m.weight);
  number("--edges", o.edges, m.edges);
  number("--decay", o.decay, m.decay);
  number("--blur", o.blur, m.blur);
  whole("--blur-every", o.blur_every, m.blur_every, 1);
  number("--tv", o.variation, m.natural.tv_weight);
  number("--range-weight", o.range, m.natural.range_weight);
  whole("--jitter", o.jitter, m.jitter);
  number("--rotate", o.rotate, m.rotate);
  number("--zoom", o.zoom, m.zoom);
  whole("--crops", o.crops, m.crops);
  number("--noise", o.noise, m.noise);
  whole("--scales", o.scales, m.scales, 1);
  number("--growth", o.growth, m.growth);
  if (int(!o.clip_norm.empty()) + int(!o.clip_contribution.empty()) + int(!o.clip_exact.empty()) > 1)
    throw Error("--clip-norm, --clip-contribution and --clip-exact exclude each other", "", true);
  if (!o.clip_norm.empty()) m.small = {SmallPixels::By::norm, parse_number("--clip-norm", o.clip_norm)};
  if (!o.clip_contribution.empty())
    m.small = {SmallPixels::By::contribution, parse_number("--clip-contribution", o.clip_contribution)};
  if (!o.clip_exact.empty()) m.small = {}, m.exact = parse_number("--clip-exact", o.clip_exact);
  number("--diversity", o.diversity, m.diversity);
  m.copies = o.copies;
  if (m.diversity > 0 && o.copies == 1) throw Error("--diversity keeps copies apart, and there is one", "--copies 4", true);
  if (!o.optimizer.empty()) {
    m.update = MaximizeOptions::Update::optimizer;
    m.optimizer = {.kind = parse_choice("--optimizer", o.optimizer, kOptimizers), .weight_decay = m.optimizer.weight_decay};
    if (m.optimizer.kind == Optimizer::Kind::adadelta) m.optimizer.eps = 1e-6;
    if (m.lr == 0) m.lr = 0.1;
  }
  if (!o.parametrisation.empty()) {
    m.parts = parse_choice("--parametrisation", o.parametrisation, kParts);
    const bool fourier = m.parts == Parts::fourier || m.parts == Parts::phase;
    if (!fourier) m.decorrelated = false;
    if (m.parts != Parts::bytes) m.clip_pixels = false;
    if (fourier) m.start_mean = m.start_span = 0, m.start_noise = m.parts == Parts::phase ? 1 : 0.01, m.small = {}, m.blur = 0;
  }
  if (!o.colours.empty()) {
    check_choice("--colours", o.colours, {"plain", "decorrelated"});
    m.decorrelated = o.colours == "decorrelated";
  }
  if (!o.objective.empty()) m.mean = parse_choice("--objective", o.objective, kSums) == Sum::mean;
  if (!o.size.empty()) {
    const auto [h, w] = parse_size("--size", o.size);
    m.size = {h, w};
  }
  if (!o.spectrum.empty() && m.parts != Parts::phase)
    throw Error("--spectrum is of phases", "--recipe maco, or --parametrisation phase", true);
  if (!o.start.empty() && o.start != "noise" && (m.parts == Parts::fourier || m.parts == Parts::phase))
    throw Error(fmt::format("--start {} wants an image of pixels", printable(o.start)), "--parametrisation pixels", true);
  if (o.start == "gray" || o.start == "grey") {
    m.start_noise = 0, m.start_span = 1e-12;
    m.start_mean = m.parts == Parts::pixels ? 0.5 : 0;
  } else if (o.start == "noise" || o.start.empty()) {
    if (m.start_noise == 0 && m.start_span == 0) m.start_noise = 0.01;
  }
  m.frames = o.frames;
  m.seed = parse_seed(o.seed);
  return m;
}

// How images are shown: as they are; or, where what is optimised need not look like an image, by the authors' stretching:
// of the input driven freely 0.5 + 0.1·(x − mean) / std (Fleuret's lecture), of bytes around the mean colour, which few of
// them leave by much, 0.5 + x / (2·max|x|) (Yosinski's program). A pixel less the mean colour is x / scale.
enum class Shown { as_it_is, deviations, around_mean };

Image dream_picture(const Tensor& x, int64_t item, const Job& job, Shown how) {
  if (how == Shown::as_it_is) return input_picture(x, item, job.model, false);
  Tensor shown = batch_item(x, item);
  const PixelUnits units = pixel_units(job.model, x.dim(1));
  const int64_t map = x.dim(2) * x.dim(3);
  double mean = 0, squares = 0, most = 1e-12;
  for (const float v : shown.values()) mean += double(v) / double(shown.count());
  for (const float v : shown.values()) squares += std::pow(double(v) - mean, 2) / double(shown.count());
  for (int64_t i = 0; i < shown.count(); ++i) most = std::max(most, std::abs(double(shown[i]) / double(units.scale[size_t(i / map)])));
  const double std = std::max(1e-12, std::sqrt(squares));
  for (int64_t i = 0; i < shown.count(); ++i) {
    const double v = double(shown[i]), scale = double(units.scale[size_t(i / map)]);
    const double pixel = how == Shown::deviations ? 0.5 + 0.1 * (v - mean) / std : 0.5 + v / scale / (2 * most);
    shown[i] = float(pixel * scale + double(units.offset[size_t(i / map)]));
  }
  return input_picture(shown, 0, job.model, false);
}

// Vectors as a plot of their values.
Canvas dream_panel(const Tensor& x, int64_t item, const Job& job, Shown how) {
  if (x.dim(2) * x.dim(3) > 1) return dream_picture(x, item, job, how);
  const int64_t n = x.dim(1);
  std::vector<std::string> places;
  Series line{.name = "", .values = {}};
  for (int64_t c = 0; c < n; ++c) {
    places.push_back(std::to_string(c));
    line.values.push_back(double(x[item * n + c]));
  }
  return line_chart(places, std::vector<Series>{line}, {.title = "input"});
}

// A path of an array or image as a start, [C,H,W].
Tensor start_of(const Job& job, const DreamCommand& o, const MaximizeOptions& m) {
  if (o.start.empty() || o.start == "noise" || o.start == "gray" || o.start == "grey") return {};
  Tensor x = load_single(o.start, job);
  const int64_t h = m.size[0] > 0 ? m.size[0] : job.model.network.input.h, w = m.size[0] > 0 ? m.size[1] : job.model.network.input.w;
  if (x.dim(x.dims().size() - 2) != h || x.dim(x.dims().size() - 1) != w)
    throw Error(fmt::format("--start {} is of shape {}, but images of {}x{} are made", printable(o.start), to_string(x.dims()), h, w),
                "--size chooses another", true);
  return x;
}

// The units of --target or --layer; `max` is of no use here: there is no image yet.
std::vector<Unit> units_of(const Job& job, const DreamCommand& o, Shape image) {
  const Network& network = job.model.network;
  TargetSpec spec = job.target;
  if (!o.layer.empty() && o.layer.find(':') == std::string::npos) {
    if (o.direction.empty()) spec.layer += ":0";  // its channels are counted below
  } else if (o.layer.empty() && o.target == "max") {
    throw Error("maximize wants a unit", "--target C,C or a label, or --layer NAME:CHANNEL", true);
  }
  const int node = target_node(network, spec);
  const Shape out = network.shapes(image)[size_t(node)];
  if (!o.direction.empty()) return {{node, 0, -1, -1}};
  if (!o.layer.empty() && o.layer.find(':') == std::string::npos)
    throw Error(fmt::format("--layer {} names no channel", printable(o.layer)),
                fmt::format("{}:CHANNEL, 0 to {}, or {}:all", o.layer, out.c - 1, o.layer), true);
  check_target(network, image, spec, job.model.labels);
  return resolve_target(network, spec, Tensor::zeros(out.h * out.w == 1 ? Dims{1, out.c} : Dims{1, out.c, out.h, out.w}),
                        job.model.labels);
}

// The largest value of each drive over the --reference images, NaN where none is given.
std::vector<double> reference_values(Job& job, const DreamCommand& o, Output& output, const std::vector<Drive>& drives, bool mean) {
  std::vector<double> largest(drives.size(), std::numeric_limits<double>::quiet_NaN());
  if (o.reference.empty()) return largest;
  job.options.inputs = {o.reference};
  Inputs inputs(job, output);
  const int64_t all = inputs.count();
  int64_t done = 0;
  inputs.for_each_chunk([](Shape) { return 32; }, [&](const Chunk& chunk) {
    const Tensor values = activations(job.ctx, job.model, chunk.x, drives[0].unit.node, job.run);
    for (int64_t i = 0; i < values.dim(0); ++i) {
      Dims dims = values.dims();
      dims[0] = int64_t(drives.size());
      Tensor repeated(dims);  // every drive looks at this image
      const int64_t item = values.count() / values.dim(0);
      for (size_t d = 0; d < drives.size(); ++d) std::copy_n(values.data() + i * item, item, repeated.data() + int64_t(d) * item);
      const std::vector<double> now = drive_values(drives, repeated, mean);
      for (size_t d = 0; d < drives.size(); ++d)
        if (!(largest[d] >= now[d])) largest[d] = now[d];
    }
    job.bar.update(done += chunk.x.dim(0), all, "reference images");
  });
  return largest;
}

// The mean spectrum of the --spectrum images, as they come to the network.
std::shared_ptr<const Tensor> spectrum_of(Job& job, const DreamCommand& o, Output& output, bool decorrelated) {
  if (o.spectrum.empty()) return {};
  job.options.inputs = {o.spectrum};
  Inputs inputs(job, output);
  const int64_t all = inputs.count();
  int64_t done = 0;
  Tensor sum;
  inputs.for_each_chunk([](Shape) { return 32; }, [&](const Chunk& chunk) {
    const Tensor mean = mean_spectrum(job.ctx, job.model, chunk.x, decorrelated);
    if (sum.empty()) sum = Tensor::zeros(mean.dims());
    if (sum.dims() != mean.dims())
      throw Error("the images of --spectrum have several sizes", "take images that the network resizes, or arrays of one size", true);
    const int64_t now = chunk.x.dim(0);
    for (int64_t i = 0; i < sum.count(); ++i) sum[i] += mean[i] * float(now) / float(all);
    job.bar.update(done += now, all, "images");
  });
  if (sum.empty()) throw Error(fmt::format("--spectrum {} holds no image", printable(o.spectrum)), "", true);
  return std::make_shared<const Tensor>(std::move(sum));
}

// Where the image never mattered it fades to white: everything above the 80th percentile of its weight shows (Fel et al. 2023).
void fade(Image& picture, const float* weight, int64_t count) {
  std::vector<float> sorted(weight, weight + count);
  const auto at = sorted.begin() + (count - 1) * 8 / 10;
  std::nth_element(sorted.begin(), at, sorted.end());
  if (!(*at > 0) || int64_t(picture.width) * picture.height != count) return;
  for (size_t i = 0; i < picture.pixels.size(); ++i) {
    const double alpha = std::min(1.0, double(weight[i / size_t(picture.channels)]) / double(*at));
    picture.pixels[i] = uint8_t(std::lround(alpha * picture.pixels[i] + (1 - alpha) * 255));
  }
}

// ", 3.2 times the largest of the reference images"
std::string share_text(double value, double largest) {
  return largest > 0 ? fmt::format(", {:.3g} times the reference's {:.4g}", value / largest, largest) : "";
}

// The way of all images as an animation; pictures of one frame have the sizes of the last one's.
std::vector<Image> animation(const Maximized& made, const Job& job, Shown how, int columns) {
  std::vector<Image> all;
  for (size_t f = made.frames.size(); f-- > 0;) {
    std::vector<Panel> panels;
    for (int64_t i = 0; i < std::min<int64_t>(made.frames[f].dim(0), 12); ++i) panels.push_back({dream_picture(made.frames[f], i, job, how), ""});
    const Image frame = pixels(grid(panels, {.columns = columns, .panel_side = large_side(int(std::max(made.x.dim(2), made.x.dim(3)))),
                                             .title = fmt::format("step {}", made.frame_steps[f])}),
                               job.options.scale);
    all.push_back(all.empty() || (frame.width == all[0].width && frame.height == all[0].height) ? frame : resized(frame, all[0].width, all[0].height));
  }
  std::ranges::reverse(all);
  return all;
}

std::string layers_note(const Driven& d) {
  if (d.stopped == 0) return "; not finite from the start";
  if (d.stopped >= 0) return fmt::format("; not finite after step {}: the image of the step before", d.stopped);
  return d.dead ? "; dead there: its gradient is 0 throughout" : "";
}

void run_maximize(DreamCommand o) {
  if (!o.inputs.empty()) throw Error(fmt::format("maximize makes its images itself; {} is given", o.inputs[0]), "--start FILE begins from one", true);
  if (o.copies < 1 || o.copies > kMostImages) throw Error(fmt::format("--copies {} is not from 1 to {}", o.copies, kMostImages), "", true);
  if (!o.direction.empty() && (o.layer.empty() || o.layer.find(':') != std::string::npos))
    throw Error("--direction wants --layer NAME, whose channels it weighs", "", true);
  if (o.score != Score::logit) throw Error("maximize drives values themselves", "leave out --score", true);
  if (!o.recipe.empty()) recipe(o.recipe);
  Job job("maximize", o);
  o.recipe = !o.recipe.empty() ? o.recipe : job.model.network.input.h * job.model.network.input.w > 1 ? "lucid" : "fleuret";
  MaximizeOptions m = [&] {
    MaximizeOptions all = options_of(job, o);
    all.progress = [&](int64_t done, int64_t total) { job.bar.update(done, total, "steps"); };
    return all;
  }();
  const Network& network = job.model.network;
  const std::vector<Unit> units = units_of(job, o, network.input);
  std::vector<float> direction;
  if (!o.direction.empty()) {
    const Tensor v = read_npy(o.direction, {1, 2});
    direction.assign(v.values().begin(), v.values().end());
    const int64_t channels = network.shapes(network.input)[size_t(units[0].node)].c;
    if (int64_t(direction.size()) != channels)
      throw Error(fmt::format("--direction {} holds {} numbers, but {} has {} channels", printable(o.direction), direction.size(), o.layer, channels), "", true);
  }
  if (int64_t(units.size()) * o.copies > kMostImages)
    throw Error(fmt::format("{} units times {} copies are more than {} images", units.size(), o.copies, kMostImages), "", true);
  std::vector<Drive> drives;
  for (const Unit& unit : units)
    for (int64_t c = 0; c < o.copies; ++c) drives.push_back({unit, uint32_t(c), direction});
  const Tensor start = start_of(job, o, m);
  Output output(job);
  const std::vector<double> reference = reference_values(job, o, output, drives, m.mean);
  m.spectrum = spectrum_of(job, o, output, m.decorrelated);
  const Maximized made = maximize(job.ctx, job.model, drives, start, m);

  const Shown how = m.parts == Parts::input              ? Shown::deviations
                    : m.parts == Parts::bytes && m.clip_pixels ? Shown::around_mean
                                                               : Shown::as_it_is;
  const ResultOf of(job.model_name());
  const std::string steps = fmt::format("{}, {}", o.recipe, counted(made.steps, "step"));
  Json files = Json::array();
  Report report;
  std::vector<Panel> panels, strip;
  for (size_t i = 0; i < drives.size(); ++i) {
    const Driven& d = made.items[i];
    const std::string name = direction.empty() ? unit_name(job, drives[i].unit) : fmt::format("{} along {}", o.layer, o.direction);
    if (output.pictures() && panels.size() < kMostGridPanels) {
      const int64_t map = made.x.dim(2) * made.x.dim(3);
      Image picture = dream_picture(made.x, int64_t(i), job, how);
      if (!made.weight.empty()) fade(picture, made.weight.data() + int64_t(i) * map, map);
      panels.push_back({map > 1 ? Canvas(picture) : dream_panel(made.x, int64_t(i), job, how),
                        o.plain ? "" : fmt::format("{}\n{:.4g}, from {:.3g}{}{}", name, d.value, d.start, share_text(d.value, reference[i]), d.dead ? "; dead" : "")});
    }
    const Unit& u = drives[i].unit;
    report.inputs.push_back({{"path", nullptr}, {"index", i}, {"target", u.channel},
                             {"class", o.layer.empty() ? job.class_json(u.channel) : Json(nullptr)},
                             {"unit", {{"layer", network.nodes[size_t(u.node)].name}, {"channel", direction.empty() ? Json(u.channel) : Json(nullptr)},
                                       {"row", u.row < 0 ? Json(nullptr) : Json(u.row)}, {"column", u.row < 0 ? Json(nullptr) : Json(u.col)}}},
                             {"copy", int64_t(i) % o.copies}, {"start_value", d.start}, {"value", d.value}, {"dead", d.dead},
                             {"stopped", d.stopped < 0 ? Json(nullptr) : Json(d.stopped)}});
    const ImageMeasures measures = measure_image(job.model, made.x.data() + int64_t(i) * made.x.count() / made.x.dim(0),
                                                 {1, made.x.dim(1), made.x.dim(2), made.x.dim(3)});
    report.inputs.back()["edges"] = measures.edges;
    report.inputs.back()["variation"] = measures.variation;
    report.inputs.back()["norm"] = measures.norm;
    report.inputs.back()["reference"] = std::isnan(reference[i]) ? Json(nullptr) : Json(reference[i]);
    if (d.stopped == 0) warn(fmt::format("{} is not finite from the start; its image is the one that it started from", name));
    else if (d.stopped > 0) warn(fmt::format("{} is not finite after step {}; its image is the one before", name, d.stopped));
    else if (d.dead) warn(fmt::format("{} could not be driven: its gradient was 0 throughout, its value is {:.4g}", name, d.value));
  }
  if (output.pictures()) {
    GridOptions grid_options{.columns = o.columns, .title = figure_title(job, "Activation maximisation"),
                             .subtitle = fmt::format("{}; {}", steps, weights_text(job))};
    if (drives.size() > panels.size()) {
      grid_options.note = fmt::format("the first {} of {} images", panels.size(), drives.size());
      output.note("the picture shows " + grid_options.note);
    }
    if (panels.size() <= 4) grid_options.panel_side = large_side(int(std::max(made.x.dim(2), made.x.dim(3))));
    output.add_picture(files, of, o.plain ? arrange(panels, {.columns = o.columns}) : grid(panels, grid_options),
                       {{"recipe", o.recipe}, {"steps", made.steps}});
    if (!made.frames.empty()) {
      for (size_t i = 0; i < std::min<size_t>(drives.size(), 12); ++i)
        for (size_t f = 0; f < made.frames.size(); ++f)
          strip.push_back({dream_panel(made.frames[f], int64_t(i), job, how), fmt::format("step {}", made.frame_steps[f])});
      output.add_picture(files, {job.model_name(), "frames"},
                         grid(strip, {.columns = int(made.frames.size()), .title = figure_title(job, "Activation maximisation, the way"),
                                      .subtitle = fmt::format("{}; {}", steps, weights_text(job))}));
      if (o.saves("png")) {
        const std::string file = output.path({job.model_name(), "animation"}, "png");
        const std::vector<uint8_t> bytes = apng_bytes(animation(made, job, how, o.columns), 250, 1500);
        output.add_file(file).write(std::as_bytes(std::span(bytes)));
        files.push_back({{"path", file}, {"axes", nullptr}});
        output.note(fmt::format("{} shows the way as an animation", file));
      }
    }
  }
  if (output.npy()) files.push_back(output.add_npy(of, made.x, {"N", "C", "H", "W"}));
  if (output.npy() && !made.weight.empty()) files.push_back(output.add_npy({job.model_name(), "weight"}, made.weight, {"N", "C", "H", "W"}));
  for (Json& entry : report.inputs) entry["files"] = files;
  report.details = {{"recipe", o.recipe}, {"steps", made.steps}, {"lr", m.lr}, {"copies", o.copies},
                    {"objective", m.mean ? "mean" : "sum"}, {"batch", made.batch}};
  report.summary = [&] {
    print_line(job.summary_title(fmt::format("maximize ({})", steps)));
    ItemLines lines;
    for (size_t i = 0; i < drives.size(); ++i)
      lines.add(fmt::format("  {:<36} {:>10.4g}, from {:.4g}{}{}", direction.empty() ? unit_name(job, drives[i].unit) : o.layer,
                            made.items[i].value, made.items[i].start, share_text(made.items[i].value, reference[i]), layers_note(made.items[i])));
    lines.print();
    print_written(job, output.paths());
    print_line(job.summary_times(int64_t(drives.size()), "image"));
  };
  finish_run(job, output, std::move(report));
}

// ---- invert

void run_invert(const DreamCommand& o) {
  if (o.layers.empty()) throw Error("invert wants --layer NAME[,NAME]", "`switchback info --model M` lists them", true);
  recipe(o.recipe);
  Job job("invert", o);
  const std::vector<int> nodes = parse_nodes(job.model.network, o.layers);
  MaximizeOptions m = options_of(job, o);
  if (o.steps.empty() && m.update == MaximizeOptions::Update::momentum) m.more_steps = 50;
  Output output(job);
  Inputs inputs(job, output);
  const Shown how = m.parts == Parts::input              ? Shown::deviations
                    : m.parts == Parts::bytes && m.clip_pixels ? Shown::around_mean
                                                               : Shown::as_it_is;
  Report report;
  ItemLines lines;
  int64_t images = 0;
  const int64_t all = inputs.count() * int64_t(nodes.size());
  inputs.for_each_chunk([](Shape) { return 1; }, [&](const Chunk& chunk) {
    for (const Chunk::Part& part : chunk.parts) {
      Tensor made({part.count * int64_t(nodes.size()), chunk.x.dim(1), chunk.x.dim(2), chunk.x.dim(3)});
      std::vector<Panel> panels;
      std::vector<Json> entries;
      for (int64_t i = 0; i < part.count; ++i) {
        const Tensor photo = batch_item(chunk.x, part.first + i);
        const std::string name = item_name(*part.file, i);
        Json entry = item_json(*part.file, i);
        Json errors = Json::array();
        panels.push_back({input_picture(chunk.x, part.first + i, job.model, part.file->array), name});
        for (size_t l = 0; l < nodes.size(); ++l) {
          const std::string& layer = job.model.network.nodes[size_t(nodes[l])].name;
          const int64_t channels = job.model.network.shapes({1, photo.dim(1), photo.dim(2), photo.dim(3)})[size_t(nodes[l])].c;
          MaximizeOptions one = m;
          if (o.weight.empty()) one.weight = 100;  // the paper takes 1 to 300, by depth
          one.progress = [&](int64_t done, int64_t total) {
            job.bar.update(images * int64_t(nodes.size()) * total + int64_t(l) * total + done, all * total, "steps");
          };
          const Inverted result = invert(job.ctx, job.model, photo, nodes[l], o.caricature,
                                         o.weights_of.empty() ? std::vector<int64_t>() : parse_list("--weights-of", o.weights_of, channels), one);
          std::copy_n(result.image.x.data(), result.image.x.count(),
                      made.data() + (i * int64_t(nodes.size()) + int64_t(l)) * result.image.x.count());
          panels.push_back({dream_picture(result.image.x, 0, job, how), fmt::format("{}\nerror {:.3f}", layer, result.error)});
          errors.push_back({{"layer", layer}, {"error", result.error}, {"weight", one.weight}, {"steps", result.image.steps}});
          lines.add(fmt::format("  {:<28} {:<28} ‖Φ − Φ0‖ / ‖Φ0‖ {:.4f}", name, layer, result.error));
        }
        entry["layers"] = errors;
        entries.push_back(std::move(entry));
        ++images;
      }
      Json files = Json::array();
      if (output.pictures())
        output.add_picture(files, *part.file,
                           grid(panels, {.columns = o.columns > 0 ? o.columns : int(nodes.size() + 1) <= 8 ? int(nodes.size() + 1) : 0,
                                         .group = int(nodes.size() + 1),
                                         .title = fmt::format("{}, {}", o.caricature ? "Caricatures" : "Pre-images", job.model_name()),
                                         .subtitle = fmt::format("{}; {}", o.recipe, weights_text(job))}));
      if (output.npy()) files.push_back(output.add_npy(*part.file, made, {"N", "C", "H", "W"}));
      for (Json& entry : entries) {
        entry["files"] = files;
        report.inputs.push_back(std::move(entry));
      }
    }
  });
  report.details = {{"recipe", o.recipe}, {"steps", m.steps + m.more_steps}, {"caricature", o.caricature}};
  report.summary = [&] {
    print_line(job.summary_title(o.caricature ? "invert (caricature)" : "invert"));
    lines.print();
    print_written(job, output.paths());
    print_line(job.summary_times(images, "image"));
  };
  finish_run(job, output, std::move(report));
}

void add_recipe(CLI::App& app, DreamCommand& o, const char* usual) {
  const auto of_recipe = [](const char* what) { return fmt::format("{} (default: the recipe's)", what); };
  add_setting(app, o, "--recipe", o.recipe, Changes::kind,
              fmt::format("sets all that follows, by its authors' values: {} (default {})", fmt::join(recipe_names(), ", "), usual), "NAME");
  add_setting(app, o, "--steps", o.steps, Changes::values, of_recipe("of a scale"), "N");
  add_setting(app, o, "--lr", o.lr, Changes::values, of_recipe("step size"), "X");
  add_setting(app, o, "--optimizer", o.optimizer, Changes::values, of_recipe("of the image"), "sgd|adam|nadam|adadelta");
  add_setting(app, o, "--parametrisation", o.parametrisation, Changes::values,
              of_recipe("what is optimised: the input itself, pixels 0 to 1, bytes less the mean colour, Fourier coefficients, their phases"),
              "input|pixels|bytes|fourier|phase");
  add_setting(app, o, "--colours", o.colours, Changes::values, of_recipe("of Fourier images"), "plain|decorrelated");
  add_setting(app, o, "--weight", o.weight, Changes::values, of_recipe("of the objective beside the priors"), "X");
  add_setting(app, o, "--edges", o.edges, Changes::values, of_recipe("weight of the multi-scale edge energy"), "X");
  add_setting(app, o, "--tv", o.variation, Changes::values, of_recipe("weight of the squared total variation, a pixel"), "X");
  add_setting(app, o, "--range-weight", o.range, Changes::values, of_recipe("weight of the bounded range, a pixel"), "X");
  add_setting(app, o, "--decay", o.decay, Changes::values, of_recipe("share that each step takes off the image"), "X");
  add_setting(app, o, "--blur", o.blur, Changes::values, of_recipe("σ in pixels, 0: none"), "S");
  add_setting(app, o, "--blur-every", o.blur_every, Changes::values, of_recipe("steps"), "N");
  add_setting(app, o, "--clip-norm", o.clip_norm, Changes::values, of_recipe("pixels of a norm below this percentile become 0"), "P");
  add_setting(app, o, "--clip-contribution", o.clip_contribution, Changes::values,
              of_recipe("pixels of |Σ x·gradient| below this percentile become 0"), "P");
  add_setting(app, o, "--jitter", o.jitter, Changes::values, of_recipe("pixels that the image is moved by, anew in each step"), "N");
  add_setting(app, o, "--rotate", o.rotate, Changes::values, of_recipe("degrees, ±"), "D");
  add_setting(app, o, "--zoom", o.zoom, Changes::values, of_recipe("scale 1 ± Z"), "Z");
  add_setting(app, o, "--noise", o.noise, Changes::values, of_recipe("σ of what is added to what the network sees, of the range of pixels"), "S");
}

}  // namespace

std::function<void()> setup_maximize(CLI::App& app) {
  auto o = std::make_shared<DreamCommand>();
  app.add_option("INPUT", o->inputs, "none: maximize makes its images itself");
  add_target(app, *o);
  add_recipe(app, *o, "lucid; where a network takes vectors, fleuret");
  add_setting(app, *o, "--objective", o->objective, Changes::values, "of a channel without a place: the sum or the mean over its map (default: the recipe's)", "sum|mean");
  add_setting(app, *o, "--direction", o->direction, Changes::values, "weights of the layer's channels, [C], instead of one", "FILE.npy");
  add_setting(app, *o, "--size", o->size, Changes::values, "of the image; of growing ones the first (default: the network's own, or the recipe's)", "S|HxW");
  add_setting(app, *o, "--scales", o->scales, Changes::values, "sizes that a growing image goes through (default: the recipe's)", "N");
  add_setting(app, *o, "--growth", o->growth, Changes::values, "from each to the next (default: the recipe's)", "X");
  add_setting(app, *o, "--start", o->start, Changes::values, "where the image starts (default noise)", "noise|gray|FILE");
  add_setting(app, *o, "--copies", o->copies, Changes::values, "images of each unit, from different noise (default 1)", "N");
  add_setting(app, *o, "--diversity", o->diversity, Changes::values, "weight of what keeps copies apart: cosines of their Gram matrices over the layer (default 0)", "X");
  add_setting(app, *o, "--clip-exact", o->clip_exact, Changes::values, "pixels whose removal changes the value by less than this percentile become 0 (default: none)", "P");
  add_setting(app, *o, "--reference", o->reference, Changes::nothing, "images whose largest value the results are compared with", "IMAGES");
  add_setting(app, *o, "--crops", o->crops, Changes::values, "squares of the image that the network sees in a step; 0: all of it (default: the recipe's)", "N");
  add_setting(app, *o, "--spectrum", o->spectrum, Changes::values, "images whose mean magnitudes phases get (default: 1/f)", "IMAGES");
  add_setting(app, *o, "--frames", o->frames, Changes::pictures, "pictures of the way, as a strip and as an animated PNG (default 0: none)", "N");
  add_model(app, *o);
  add_output(app, *o);
  add_drawing(app, *o, Drawing::plain | Drawing::columns);
  add_run(app, *o, true);
  add_report(app, *o);
  return [o] { run_maximize(*o); };
}

std::function<void()> setup_invert(CLI::App& app) {
  auto o = std::make_shared<DreamCommand>();
  o->recipe = "mahendran";
  add_inputs(app, *o, kInputs);
  add_setting(app, *o, "--layer,--layers", o->layers, Changes::kind, "whose values the image is to have; several are drawn side by side", "NAME[,NAME]");
  add_switch(app, *o, "--caricature", o->caricature, Changes::values, "exaggerate what the layer answers to instead");
  add_setting(app, *o, "--weights-of", o->weights_of, Changes::values, "only these channels count, as 0-15,20 (default all)", "LIST");
  add_recipe(app, *o, "mahendran");
  add_model(app, *o);
  add_output(app, *o);
  add_drawing(app, *o, Drawing::columns);
  add_run(app, *o, true);
  add_report(app, *o);
  return [o] { run_invert(*o); };
}

}  // namespace switchback
