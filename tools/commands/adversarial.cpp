// `switchback adversarial`: images changed a little that are read as another class, and how robust a model is.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>

#include "tools/cli/figure.h"
#include "tools/cli/inputs.h"
#include "tools/cli/job.h"
#include "tools/cli/labelled.h"
#include "tools/cli/shares.h"
#include "tools/commands/commands.h"
#include "viz/methods/adversarial.h"
#include "viz/methods/batches.h"
#include "viz/methods/border.h"
#include "viz/methods/inspect.h"
#include "viz/methods/pixels.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

using AttackMethod = AdversarialOptions::Method;
constexpr Choice<AttackMethod> kAttacks[] = {
    {"ascent", AttackMethod::ascent}, {"fgsm", AttackMethod::fgsm}, {"pgd", AttackMethod::pgd}, {"pgd-l2", AttackMethod::pgd_l2}};
constexpr int64_t kMostDrawn = 12;                        // inputs of one file in one picture
constexpr int64_t kMostPixels = int64_t(64) << 20;        // bytes of images that are attacked in one call
constexpr const char* kCurve = "0,1/255,2/255,4/255,8/255,16/255,32/255,64/255";

struct AdversarialCommand : Options {
  AttackMethod method = AttackMethod::pgd;
  std::string epsilon, step, targeted, against, against_weights, limit;
  std::string steps;
  int64_t sphere = 0;
  bool random_start = true, early_stop = false, border = false;
};

// "8/255" or "0.03".
double parse_amount(const char* option, const std::string& text) {
  const auto number = [&](std::string_view part) {
    double value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (part.empty() || error != std::errc() || end != part.data() + part.size() || !std::isfinite(value))
      throw Error(fmt::format("{} '{}' is no number", option, printable(text)), "in pixels from 0 to 1, as 0.03 or 8/255", true);
    return value;
  };
  const size_t slash = text.find('/');
  if (slash == std::string::npos) return number(text);
  const double below = number(std::string_view(text).substr(slash + 1));
  if (below == 0) throw Error(fmt::format("{} '{}' divides by 0", option, printable(text)), "", true);
  return number(std::string_view(text).substr(0, slash)) / below;
}

// Where an option is not given it is the method's own: Madry's 8/255 in ten steps of 2/255, torchattacks' and Foolbox's
// for L2, the lecture's for the plain ascent.
AdversarialOptions attack_options(const Job& job, const AdversarialCommand& o, double epsilon) {
  AdversarialOptions a;
  static_cast<RunOptions&>(a) = job.run;
  a.method = o.method;
  a.epsilon = epsilon;
  a.steps = !o.steps.empty() ? parse_whole("--steps", o.steps, 1, 1'000'000) : o.method == AttackMethod::ascent ? 15 : o.method == AttackMethod::fgsm ? 1 : o.method == AttackMethod::pgd ? 10 : 50;
  if (o.method == AttackMethod::fgsm && a.steps != 1)
    throw Error(fmt::format("--steps {}, but fgsm is one step", a.steps), "--method pgd takes several", true);
  a.step = !o.step.empty()               ? parse_amount("--step", o.step)
           : o.method == AttackMethod::ascent  ? 0.1
           : o.method == AttackMethod::fgsm    ? std::max(epsilon, 1e-12)
           : o.method == AttackMethod::pgd     ? std::max(epsilon / 4, 1e-12)
                                         : std::max(0.025 * epsilon, 1e-12);
  a.random_start = o.random_start;
  a.stop_early = o.early_stop;
  a.sphere = o.sphere;
  a.seed = parse_seed(o.seed);
  if (!o.targeted.empty()) {
    const Shape image = job.model.network.input;
    TargetSpec spec{o.targeted, "", Score::logit, job.model.preprocess.output_is_probability};
    if (check_target(job.model.network, image, spec, job.model.labels) != 1 || o.targeted == "max")
      throw Error(fmt::format("--targeted '{}' is not one class", printable(o.targeted)), "a number or a label", true);
    const Shape out = job.model.network.shapes(image)[size_t(logit_node(job.model.network))];
    a.target = resolve_target(job.model.network, spec, Tensor::zeros({1, out.c}), job.model.labels)[0].channel;
  }
  return a;
}

std::vector<double> epsilons(const AdversarialCommand& o, bool curve) {
  if (o.method == AttackMethod::ascent && !o.epsilon.empty())
    throw Error("--epsilon is of fgsm and pgd; ascent goes without a limit", "--step and --steps say how far", true);
  std::vector<double> all;
  const char* standard = o.method == AttackMethod::pgd_l2 ? "0.5" : "8/255";
  const char* several = o.method == AttackMethod::pgd_l2 ? "0,0.1,0.25,0.5,1,2,4" : kCurve;
  for (const std::string& text : split_list(!o.epsilon.empty() ? o.epsilon : curve ? several : standard)) {
    all.push_back(parse_amount("--epsilon", text));
    if (!(all.back() >= 0) || (o.method != AttackMethod::pgd_l2 && all.back() > 1))
      throw Error(fmt::format("--epsilon {} is {}", text, all.back() < 0 ? "negative" : "above 1"),
                  "it is in pixels from 0 to 1, whatever the normalisation: 8/255", true);
  }
  return all;
}

std::string class_text(const Job& job, int64_t c) {
  const std::string name = job.class_name(c);
  return name.empty() || name == std::to_string(c) ? fmt::format("class {}", c) : fmt::format("{} {}", c, name);
}

// "pixels from 0 to 1": what ε counts.
std::string units_text(const Job& job, int64_t channels) {
  return pixel_units(job.model, channels).known
             ? "pixels from 0 to 1, before the normalisation"
             : "the input's own units: the preprocessing is that of another number of channels";
}

// How much the change is enlarged: the largest of 1, 2, 5, 10, … that does not clip it.
int enlargement(double largest) {
  int factor = 1;
  for (const int64_t by : {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000})
    if (double(by) * largest <= 1) factor = int(by);
  return factor;
}

// (result − image) in pixels, [C,H,W].
std::vector<float> change_of(const float* from, const float* to, const PixelUnits& units, int64_t map) {
  std::vector<float> change(units.scale.size() * size_t(map));
  for (size_t i = 0; i < change.size(); ++i) change[i] = (to[i] - from[i]) / units.scale[i / size_t(map)];
  return change;
}

Image change_picture(const Job& job, const std::vector<float>& change, Shape image, int factor) {
  const Range range{-1.f / float(factor), 1.f / float(factor)};
  const int c = int(image.c), h = int(image.h), w = int(image.w);
  if (c == 1 || c == 3) return signed_rgb_in(change.data(), c, h, w, job.model.preprocess.order, range);
  return heatmap(channel_mean(change.data(), c, h, w).data(), h, w, ColorMap::seismic, range);
}

// Another model's reading of the results, by way of pixels.
struct Transfer {
  std::string name;
  Model model;
  PixelUnits units;
  explicit Transfer(const AdversarialCommand& o)
      : name(o.against),
        model(open_model({o.against, o.against_weights, "", ""}, all_weight_folders())) {}
  Tensor read(Job& job, const Tensor& x) {
    const PixelUnits from = pixel_units(job.model, x.dim(1)), to = pixel_units(model, x.dim(1));
    if (!from.known || !to.known) throw Error(fmt::format("--against {}: nobody knows how its input is made of pixels", name));
    Tensor other(x.dims());
    const int64_t map = x.dim(2) * x.dim(3), channels = x.dim(1);
    const bool swapped = channels == 3 && model.preprocess.order != job.model.preprocess.order;
    for (int64_t i = 0; i < x.count(); ++i) {
      const int64_t c = i / map % channels, source = swapped ? i + (2 - 2 * c) * map : i;
      const size_t of = size_t(swapped ? 2 - c : c);
      other[i] = (x[source] - from.offset[of]) / from.scale[of] * to.scale[size_t(c)] + to.offset[size_t(c)];
    }
    return logits(job.ctx, model, other, job.run);
  }
};

Json class_entry(const Job& job, int64_t c, double p) {
  return {{"target", c}, {"class", job.class_json(c)}, {"probability", p}};
}

// "0–2 282 tiger cat, 3–15 285 Egyptian cat"
std::string classes_by_step(const Job& job, const std::vector<int32_t>& classes) {
  std::string text;
  for (size_t i = 0; i < classes.size();) {
    size_t end = i;
    while (end + 1 < classes.size() && classes[end + 1] == classes[i]) ++end;
    if (!text.empty()) text += ", ";
    text += (end == i ? fmt::format("{}", i) : fmt::format("{}-{}", i, end)) + ": " + class_text(job, classes[i]);
    i = end + 1;
  }
  return text;
}

struct Totals {
  int64_t items = 0, reached = 0, transferred = 0, batch = 0;
  std::vector<std::array<int64_t, 3>> sphere;  // by class: class, samples, same
  std::vector<double> borders;                 // shares of the way, of all items
};

struct Run {
  Job& job;
  const AdversarialCommand& o;
  AdversarialOptions options;
  Output& output;
  std::optional<Transfer> transfer;
  Report report = {};
  ItemLines lines = {};
  Totals totals = {};

  // other: another model's reading of the results; border: of the chunk's items. Both may be empty.
  void part(const Chunk& chunk, const Chunk::Part& part, const Adversarial& result, const Tensor& other,
            const std::vector<double>& border);
};

void Run::part(const Chunk& chunk, const Chunk::Part& part, const Adversarial& result, const Tensor& other,
               const std::vector<double>& border) {
  const Shape image{1, chunk.x.dim(1), chunk.x.dim(2), chunk.x.dim(3)};
  const PixelUnits units = pixel_units(job.model, image.c);
  Json files = Json::array();
  std::vector<Panel> panels;
  std::vector<Json> entries;
  for (int64_t i = 0; i < part.count; ++i) {
    const int64_t n = part.first + i;
    const Attacked& a = result.items[size_t(n)];
    const std::string name = item_name(*part.file, i);
    const std::vector<float> change =
        change_of(chunk.x.data() + n * image.item(), result.x.data() + n * image.item(), units, image.h * image.w);
    Json entry = item_json(*part.file, i);
    entry.update(Json{{"attacked", a.label},
                      {"clean", class_entry(job, a.clean, a.clean_probability)},
                      {"result", class_entry(job, a.now, a.now_probability)},
                      {"reached", a.reached},
                      {"classes", a.classes},
                      {"linf", a.linf},
                      {"l2", a.l2}});
    std::string line = fmt::format("  {:<28} {}, {:.1f} % -> {}, {:.1f} %; change L∞ {:.4g}, L2 {:.4g}", name,
                                   class_text(job, a.clean), 100 * a.clean_probability, class_text(job, a.now),
                                   100 * a.now_probability, a.linf, a.l2);
    if (a.linf == 0) line += "; no change: the gradient of its loss is 0 in float32";
    if (!border.empty() && a.linf > 0) {
      const double share = border[size_t(n)];
      entry["border"] = {{"share", share}, {"linf", share * a.linf}, {"l2", share * a.l2}};
      line += share == 1 ? "; all the way within one linear region"
                         : fmt::format("; its linear region ends at {:.3g} % of the way, L2 {:.3g}", 100 * share, share * a.l2);
      totals.borders.push_back(share);
    }
    if (o.sphere > 0) {
      entry["sphere"] = {{"samples", o.sphere}, {"same", a.sphere_same}};
      line += fmt::format("; {} of {} on the sphere keep the class", a.sphere_same, o.sphere);
    }
    if (transfer) {
      const int64_t k = other.dim(1);
      const std::span<const float> v = other.values().subspan(size_t(n * k), size_t(k));
      const int64_t read_as = std::max_element(v.begin(), v.end()) - v.begin();
      const double p = probabilities(v, outputs_of(transfer->model.network, transfer->model.preprocess.output_is_probability))[size_t(read_as)];
      const bool fooled = options.target >= 0 ? read_as == options.target : read_as != a.label;
      const std::string label = read_as < int64_t(transfer->model.labels.size()) ? transfer->model.labels[size_t(read_as)] : "";
      entry["against"] = {{"target", read_as}, {"class", label.empty() ? Json(nullptr) : Json(label)}, {"probability", p}, {"reached", fooled}};
      line += fmt::format("; {} reads {}{}{}", transfer->name, read_as, label.empty() ? "" : " ", label);
      totals.transferred += fooled;
    }
    lines.add(line);
    if (o.method == AttackMethod::ascent || o.early_stop) lines.add("      by iteration  " + classes_by_step(job, a.classes));
    ++totals.items;
    totals.reached += a.reached;
    if (o.sphere > 0) {
      auto at = std::find_if(totals.sphere.begin(), totals.sphere.end(), [&](const auto& s) { return s[0] == a.clean; });
      if (at == totals.sphere.end()) at = totals.sphere.insert(at, {a.clean, 0, 0});
      (*at)[1] += o.sphere, (*at)[2] += a.sphere_same;
    }
    entries.push_back(std::move(entry));
    if (!output.pictures() || i >= kMostDrawn) continue;
    const int factor = enlargement(a.linf);
    const auto read_as = [&](int64_t c, double p) { return fmt::format("{}, {:.1f} %", class_text(job, c), 100 * p); };
    panels.push_back({input_picture(chunk.x, n, job.model, part.file->array), name + "\n" + read_as(a.clean, a.clean_probability)});
    panels.push_back({change_picture(job, change, image, factor),
                      fmt::format("change, ×{}\nL∞ {:.3g}, L2 {:.3g} in {}", factor, a.linf, a.l2, units.about())});
    panels.push_back({input_picture(result.x, n, job.model, part.file->array), "result\n" + read_as(a.now, a.now_probability)});
    output.add_to_sheet({{thumbnail(*panels.end()[-3].picture.picture(), 112, 224), panels.end()[-3].label},
                         {thumbnail(*panels.end()[-2].picture.picture(), 112, 224), fmt::format("×{}", factor)},
                         {thumbnail(*panels.end()[-1].picture.picture(), 112, 224), panels.end()[-1].label}});
  }
  if (output.pictures()) {
    GridOptions grid_options{.columns = 3,
                             .title = figure_title(job, fmt::format("Adversarial, {}", word_of(kAttacks, o.method))),
                             .subtitle = weights_text(job)};
    if (panels.size() == 3) grid_options.panel_side = large_side(int(std::max(image.h, image.w)));
    if (part.count > kMostDrawn) {
      grid_options.note = fmt::format("the first {} of {} inputs", kMostDrawn, part.count);
      output.note(fmt::format("the picture of {} shows {}", part.file->path, grid_options.note));
    }
    if (o.plain)
      for (Panel& p : panels) p.label = "";
    output.add_picture(files, *part.file, grid(panels, o.plain ? GridOptions{.columns = 3} : grid_options));
  }
  if (output.npy()) {
    Tensor own({part.count, image.c, image.h, image.w});
    std::copy_n(result.x.data() + part.first * image.item(), own.count(), own.data());
    files.push_back(output.add_npy(*part.file, own, {"N", "C", "H", "W"}));
  }
  for (Json& entry : entries) {
    entry["files"] = files;
    report.inputs.push_back(std::move(entry));
  }
}

void run_images(Job& job, const AdversarialCommand& o, double epsilon) {
  Output output(job);
  Inputs inputs(job, output);
  Run run{job, o, attack_options(job, o, epsilon), output, {}};
  if (!o.against.empty()) run.transfer.emplace(o);
  const int64_t all = inputs.count();
  int64_t done = 0;
  std::string units;
  inputs.for_each_chunk(
      [&](Shape image) { return std::clamp<int64_t>(kMostPixels / (image.item() * 4), 1, 256); },
      [&](const Chunk& chunk) {
        AdversarialOptions options = run.options;
        std::vector<int64_t> labels;
        for (const Chunk::Part& part : chunk.parts)
          for (int64_t i = 0; i < part.count; ++i) options.images.push_back(uint32_t(item_number(*part.file, i)));
        options.progress = [&](int64_t n, int64_t) { job.bar.update(done + n, all, "images"); };
        const Adversarial result = adversarial(job.ctx, job.model, chunk.x, labels, options);
        run.totals.batch = std::max(run.totals.batch, result.batch);
        units = units_text(job, chunk.x.dim(1));
        const Tensor other = run.transfer ? run.transfer->read(job, result.x) : Tensor();
        const std::vector<double> border = o.border ? border_along(job.ctx, job.model, chunk.x, result.x, job.run) : std::vector<double>();
        for (const Chunk::Part& part : chunk.parts) run.part(chunk, part, result, other, border);
        done += chunk.x.dim(0);
      });
  Report& report = run.report;
  if (output.pictures())
    report.sheet = output.add_contact_sheet({.columns = 3 * job.options.columns, .group = 3,
                                             .title = figure_title(job, "Adversarial inputs"), .subtitle = weights_text(job)});
  const AdversarialOptions& a = run.options;
  report.details = {{"method", word_of(kAttacks, o.method)},
                    {"epsilon", o.method == AttackMethod::ascent ? Json(nullptr) : Json(a.epsilon)},
                    {"step", a.step}, {"steps", a.steps}, {"targeted", a.target < 0 ? Json(nullptr) : Json(a.target)},
                    {"random_start", a.random_start}, {"early_stop", a.stop_early}, {"units", units},
                    {"reached", run.totals.reached}, {"batch", run.totals.batch}};
  if (run.transfer) report.details["against"] = {{"model", o.against}, {"reached", run.totals.transferred}};
  report.summary = [&, sheet = report.sheet] {
    print_line(job.summary_title(fmt::format("adversarial ({})", word_of(kAttacks, o.method))));
    if (o.method == AttackMethod::ascent)
      print_line(fmt::format("  {} steps of {} times the gradient in input units; norms in {}", a.steps, a.step, units));
    else
      print_line(fmt::format("  ε {:.4g}, {} of {:.4g}; in {}", a.epsilon, counted(a.steps, "step"),
                             o.method == AttackMethod::fgsm ? a.epsilon : a.step, units));
    run.lines.print();
    print_line(fmt::format("  {} of {} reached", run.totals.reached, run.totals.items));
    if (run.transfer) print_line(fmt::format("  {} of {} reached on {}", run.totals.transferred, run.totals.items, o.against));
    if (std::vector<double>& all = run.totals.borders; all.size() > 1) {
      std::ranges::sort(all);
      print_line(fmt::format("  linear regions end at {:.3g} % of the way, in the median", 100 * all[all.size() / 2]));
    }
    if (run.totals.sphere.size() > 1)
      for (const auto& [c, samples, same] : run.totals.sphere)
        print_line(fmt::format("  on the sphere  {:<24} {:.1f} % keep the class", class_text(job, c), 100 * double(same) / double(samples)));
    print_written(job, output.paths(), sheet);
    print_line(job.summary_times(run.totals.items, "image"));
  };
  finish_run(job, output, std::move(report));
}

struct CurveCounts {
  int64_t read = 0;
  std::vector<int64_t> right;  // for each ε
  void merge(CurveCounts&& next) {
    read += next.read;
    for (size_t e = 0; e < right.size(); ++e) right[e] += next.right.at(e);
  }
  template <typename A>
  void fields(A& a) {
    a(read, right);
  }
};

// Share of a labelled data set that is still read rightly, by ε.
void run_curve(Job& job, const AdversarialCommand& o, const std::vector<double>& all) {
  if (o.sphere > 0 || !o.against.empty() || !o.targeted.empty() || o.border)
    throw Error("--sphere, --border, --against and --targeted are of single images, not of a data set's curve",
                "name some of its images: DATASET[0:8]", true);
  const std::string& path = o.inputs[0];
  const Dataset data = open_dataset(path, o.exif);
  const int64_t images = limited(data, o.limit);
  const Network& network = job.model.network;
  const Shape image = image_of(job.model);
  check_image_shape(network, image);
  const std::vector<int64_t> classes = class_map(data, job.model, network.shapes(image)[size_t(logit_node(network))].c, path);
  Output output(job);
  const std::string stem = dataset_stem(path);
  const auto [begin, end] = shares().of(images);
  CurveCounts counts{0, std::vector<int64_t>(all.size(), 0)};
  const int64_t most = std::clamp<int64_t>(kMostPixels / (image.item() * 4), 1, 4096);
  Tensor x;
  const auto attack = [&](const float* pixels, std::span<const int64_t> of) {
    const int64_t n = int64_t(of.size());
    if (x.empty() || x.dim(0) != n) x = Tensor({n, image.c, image.h, image.w});
    std::copy_n(pixels, x.count(), x.data());
    std::vector<int64_t> labels;
    std::vector<uint32_t> numbers;
    for (const int64_t i : of) {
      labels.push_back(classes[size_t(data.label(i))]);
      numbers.push_back(uint32_t(data.number(i)));
    }
    for (size_t e = 0; e < all.size(); ++e) {
      AdversarialOptions a = attack_options(job, o, all[e]);
      a.images = numbers;
      a.progress = [&](int64_t done, int64_t) {
        job.bar.update((of[0] - begin) * int64_t(all.size()) + int64_t(e) * n + done, (end - begin) * int64_t(all.size()), "attacks");
      };
      const Adversarial result = adversarial(job.ctx, job.model, x, labels, a);
      for (const Attacked& item : result.items) counts.right[e] += item.now == item.label;
    }
  };
  counts.read = for_batches(job, data, numbers_of(begin, end), most, attack);
  if (!gather(job, output, stem, dataset_json(data, images), counts)) return;
  require_read(counts.read, images, path);
  std::vector<std::string> places;
  Series robust{.name = fmt::format("{}", word_of(kAttacks, o.method)), .values = {}};
  Tensor values({int64_t(all.size())});
  Json curve = Json::array();
  for (size_t e = 0; e < all.size(); ++e) {
    const double share = double(counts.right[e]) / double(counts.read);
    places.push_back(fmt::format("{:.3g}", all[e]));
    robust.values.push_back(share);
    values[int64_t(e)] = float(share);
    curve.push_back({{"epsilon", all[e]}, {"robust", share}, {"right", counts.right[e]}});
  }
  Json files = Json::array();
  if (output.pictures())
    output.add_picture(files, stem,
                       titled(line_chart(places, std::vector<Series>{robust},
                                         {.title = "share read rightly, by ε in " + pixel_units(job.model, image.c).about(), .least = 0, .most = 1}),
                              {.title = figure_title(job, fmt::format("Robust accuracy, {}", word_of(kAttacks, o.method))),
                               .subtitle = fmt::format("{}; {}", counted(counts.read, "image"), weights_text(job))}));
  if (output.npy()) files.push_back(output.add_npy(stem, values, {"E"}));
  Report report;
  report.inputs.push_back({{"path", path}, {"index", 0}, {"files", files}});
  const AdversarialOptions last = attack_options(job, o, all.back());
  report.details = {{"method", word_of(kAttacks, o.method)}, {"images", counts.read}, {"curve", curve}, {"steps", last.steps},
                    {"random_start", o.random_start}, {"units", units_text(job, image.c)}};
  report.summary = [&] {
    print_line(job.summary_title(fmt::format("robust accuracy ({})", word_of(kAttacks, o.method))));
    print_line(fmt::format("  ε in {}; {}", units_text(job, image.c), counted(last.steps, "step")));
    for (size_t e = 0; e < all.size(); ++e)
      print_line(fmt::format("  ε {:<8.4g} {:6.2f} % of {}", all[e], 100 * double(counts.right[e]) / double(counts.read), counted(counts.read, "image")));
    print_written(job, output.paths());
    print_line(job.summary_times(counts.read, "image"));
  };
  finish_run(job, output, std::move(report));
}

void run_adversarial(const AdversarialCommand& o) {
  const bool several = o.epsilon.find(',') != std::string::npos;
  bool curve = false;
  if (o.inputs.size() == 1 && o.method != AttackMethod::ascent && is_dataset(o.inputs[0]))
    curve = several || (o.epsilon.empty() && !o.inputs[0].ends_with(']'));
  if (!curve && shares().divided())
    throw Error("only the curve of a labelled data set is divided", "leave out --shard and mpirun", true);
  if (several && !curve)
    throw Error("several --epsilon draw a curve, which wants one labelled data set and a method with a limit",
                "for images give one: --epsilon 8/255", true);
  if (!o.limit.empty() && !curve) throw Error("--limit is of a data set's curve", "name some images: DATASET[0:8]", true);
  const std::vector<double> all = epsilons(o, curve);
  Job job("adversarial", o);
  if (curve)
    run_curve(job, o, all);
  else
    run_images(job, o, all[0]);
}

}  // namespace

std::function<void()> setup_adversarial(CLI::App& app) {
  auto o = std::make_shared<AdversarialCommand>();
  add_inputs(app, *o, "images, folders, .npy arrays, data sets; one whole labelled data set gives a curve of its robust accuracy");
  add_choice(app, *o, "--method", kAttacks, o->method, Changes::kind,
             "plain ascent of the loss; one step of signs; projected gradient descent in L∞ or L2");
  add_setting(app, *o, "--epsilon", o->epsilon, Changes::values,
              fmt::format("how far, in pixels from 0 to 1 whatever the normalisation (default 8/255; pgd-l2 0.5, of the whole "
                          "image); several for a data set's curve (default {})",
                          kCurve),
              "E[,E]");
  add_setting(app, *o, "--steps", o->steps, Changes::values, "default: ascent 15, pgd 10, pgd-l2 50", "N");
  add_setting(app, *o, "--step", o->step, Changes::values,
              "of one step, in pixels (default: pgd ε/4, pgd-l2 ε/40); ascent: times the gradient in input units (0.1)", "S");
  add_setting(app, *o, "--targeted", o->targeted, Changes::values, "the class to be read as (default: any other one)", "C|LABEL");
  add_choice(app, *o, "--random-start", kOnOff, o->random_start, Changes::values, "pgd: begin somewhere in the ball");
  add_switch(app, *o, "--early-stop", o->early_stop, Changes::values, "an image that is read as wanted is changed no further");
  add_setting(app, *o, "--sphere", o->sphere, Changes::values,
              "samples at twice the change's distance: how many keep the class (default 0: none)", "N");
  add_switch(app, *o, "--border", o->border, Changes::nothing, "how far the image's linear region goes on the way to the result");
  add_setting(app, *o, "--against", o->against, Changes::nothing, "another model that reads the results as well", "NAME|FILE.onnx");
  add_setting(app, *o, "--against-weights", o->against_weights, Changes::nothing, "its weights", "FILE|random[:SEED]");
  add_setting(app, *o, "--limit", o->limit, Changes::values, "of a curve: only the first N images", "N");
  add_model(app, *o);
  add_output(app, *o);
  add_drawing(app, *o, Drawing::plain | Drawing::columns);
  add_run(app, *o, true);
  add_shard(app, *o);
  add_report(app, *o);
  return [o] { run_adversarial(*o); };
}

}  // namespace switchback
