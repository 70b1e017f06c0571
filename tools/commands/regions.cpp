// `switchback regions`: the linear regions that a data set meets, for one or several networks.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>
#include <numeric>

#include "tools/cli/checkpoints.h"
#include "tools/commands/commands.h"
#include "tools/cli/labelled.h"
#include "tools/cli/shares.h"
#include "tools/commands/regions.h"
#include "viz/methods/regions.h"
#include "viz/methods/similarity.h"

namespace switchback {

int64_t images_of(const RegionReport& r) { return std::accumulate(r.inputs.begin(), r.inputs.end(), int64_t(0)); }
int64_t units_of(const RegionReport& r) {
  int64_t units = 0;
  for (const RegionLayer& l : r.layers) units += l.units;
  return units;
}
bool has_values(const Series& series) {
  return std::any_of(series.values.begin(), series.values.end(), [](double v) { return std::isfinite(v); });
}
Canvas charts_below(std::span<const Canvas> charts, const std::string& title) {
  GridOptions options{.columns = 1, .frames = false, .title = title};
  std::vector<Panel> panels;
  for (const Canvas& chart : charts) {
    options.panel_side = std::max({options.panel_side, int(chart.width()), int(chart.height())});
    panels.push_back({chart, ""});
  }
  return grid(panels, options);
}

namespace {

constexpr size_t kMostClassesInReport = 20, kMostNetworksInTable = 8;

std::string label_of(const RegionLayer& l) { return l.name + (l.switches ? " switches" : " gates"); }

// The first images of the data set, class by class.
std::vector<int64_t> class_order(const Dataset& data, int64_t images) {
  std::vector<int64_t> order(size_t(images), 0);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return data.label(a) < data.label(b); });
  return order;
}

// Output of the model for each class; empty where the two do not match: regions can be counted all the same.
std::vector<int64_t> outputs_of_classes(const Dataset& data, const Model& model, int64_t outputs) {
  try {
    return class_map(data, model, outputs, "");
  } catch (const Error&) {
    return {};
  }
}

// What a share has counted of its images in one network.
struct NetworkCounts {
  RegionCounts regions;
  int64_t right = 0;
  bool classes = false;        // whether outputs are the data set's classes
  std::vector<float> etalons;  // of each image's own class, with --etalons
  void merge(NetworkCounts&& next) {
    regions.merge(std::move(next.regions));
    right += next.right, classes |= next.classes;
    etalons.insert(etalons.end(), next.etalons.begin(), next.etalons.end());
  }
  template <typename A>
  void fields(A& a) {
    a(regions, right, classes, etalons);
  }
};

struct CountsOfNetworks {
  std::vector<NetworkCounts> networks;
  void merge(CountsOfNetworks&& next) {
    networks.resize(std::max(networks.size(), next.networks.size()));
    for (size_t i = 0; i < next.networks.size(); ++i) networks[i].merge(std::move(next.networks[i]));
  }
  template <typename A>
  void fields(A& a) {
    a(networks);
  }
};

NetworkCounts count_regions(Job& job, const Model& model, const Dataset& data, std::span<const int64_t> order, Output& output,
                            InputRecorder* record, const std::function<void(int64_t)>& progress) {
  const Shape image = image_of(model);
  RegionCensus census(job.ctx, model, image, int64_t(data.classes.size()), job.run,
                      std::clamp<int64_t>(int64_t(order.size()), 1, 256));
  const Shape outputs = model.network.shapes(image)[size_t(logit_node(model.network))];
  const std::vector<int64_t> classes =
      outputs.h * outputs.w == 1 ? outputs_of_classes(data, model, outputs.c) : std::vector<int64_t>();
  NetworkCounts out;
  int64_t done = 0;
  read_batches(data, order, model, census.batch(), job.ctx.thread_count(), kLeaveNoneOut,
               [&](const ReadAhead::Batch& batch) {
    const int64_t n = int64_t(batch.images.size());
    std::vector<int> labels;
    for (const int64_t i : batch.images) labels.push_back(data.label(i));
    if (record) record->add(output, batch.pixels.data(), n, image);
    const Tensor logits = census.add(batch.pixels.data(), labels);
    for (int64_t i = 0; i < n && !classes.empty(); ++i) {
      const float* row = logits.data() + i * outputs.c;
      out.right += std::max_element(row, row + outputs.c) - row == classes[size_t(labels[size_t(i)])];
    }
    progress(done += n);
  });
  out.regions = std::move(census.counts());
  out.classes = !classes.empty();
  return out;
}

// The etalons of the images' own classes (Molchanov et al., eq. 4: the linear part of the region's map).
std::vector<float> etalons_of(Job& job, const Model& model, const Dataset& data, std::span<const int64_t> order) {
  const Shape image = image_of(model);
  const std::vector<int64_t> classes =
      outputs_of_classes(data, model, model.network.shapes(image)[size_t(logit_node(model.network))].c);
  if (classes.empty()) throw Error("--etalons wants a network whose outputs are the data set's classes", "leave it out", true);
  std::vector<float> etalons;
  for (size_t first = 0, last; first < order.size(); first = last) {  // class by class
    const int label = data.label(order[first]);
    for (last = first; last < order.size() && data.label(order[last]) == label;) ++last;
    Tensor x({int64_t(last - first), image.c, image.h, image.w});
    for (size_t i = first; i < last; ++i) load_item(data, order[i], model, x.data() + int64_t(i - first) * image.item());
    const Maps maps = gradient(job.ctx, model, x, {std::to_string(classes[size_t(label)]), "", Score::logit}, {},
                               {job.run, kGradient, false, "", ""});
    etalons.insert(etalons.end(), maps.values.values().begin(), maps.values.values().end());
  }
  return etalons;
}

// How alike they are.
void compare_etalons(const NetworkCounts& counts, const std::vector<int>& labels, int64_t classes, NetworkRegions& out) {
  Tensor etalons({int64_t(labels.size()), int64_t(counts.etalons.size() / labels.size())});
  CHECK(etalons.count() == int64_t(counts.etalons.size()), "{} values of {} etalons", counts.etalons.size(), labels.size());
  std::ranges::copy(counts.etalons, etalons.data());
  const MapSimilarity alike = map_similarity(etalons, labels, classes);
  out.alike_within = alike.within, out.alike_between = alike.between;
}

// ---- the report

std::string percent(double share) { return std::isfinite(share) ? fmt::format("{:.2f} %", 100 * share) : "-"; }
std::string number(double value) { return std::isfinite(value) ? fmt::format("{:.1f}", value) : "-"; }

Json statistics_json(const PatternStatistics& s, const char* patterns) {
  return {{patterns, s.distinct},   {"largest", s.largest}, {"mixed", s.mixed},
          {"constant", s.constant}, {"within", s.within},   {"between", s.between}};
}

Json network_json(const NetworkRegions& n, const Dataset& data) {
  const RegionReport& r = n.report;
  Json entry = {{"model", n.spec.model}, {"weights", n.weights}, {"name", n.spec.name}, {"top1", n.top1}};
  entry["units"] = units_of(r);
  entry.update(statistics_json(r.total, "regions"));
  entry["classes"] = Json::array();
  for (size_t k = 0; k < r.inputs.size(); ++k)
    entry["classes"].push_back({{"class", data.classes[k]},
                                {"images", r.inputs[k]},
                                {"regions", r.total.distinct_of_class[k]},
                                {"within", r.total.within_class[k]}});
  entry["layers"] = Json::array();
  for (size_t l = 0; l < r.layers.size(); ++l) {
    const RegionLayer& layer = r.layers[l];
    Json item = {{"name", layer.name},
                 {"kind", layer.switches ? "switches" : "gates"},
                 {"units", layer.units},
                 {"states", layer.states}};
    item.update(statistics_json(r.of_layer[l], "patterns"));
    item["patterns_of_class"] = r.of_layer[l].distinct_of_class;
    item["within_class"] = r.of_layer[l].within_class;
    entry["layers"].push_back(std::move(item));
  }
  entry["not_counted"] = r.not_counted;
  if (!n.spec.run.empty()) entry["run"] = n.spec.run;
  if (std::isfinite(n.alike_between)) entry["etalons"] = {{"within", n.alike_within}, {"between", n.alike_between}};
  return entry;
}

void print_statistics(const std::string& name, int64_t units, const PatternStatistics& s) {
  print_line(fmt::format("  {:<22.22} {:>9} {:>8} {:>9} {:>8} {:>7} {:>10} {:>10} {:>8}", name, units, s.constant,
                         s.distinct, s.largest, s.mixed, number(s.within), number(s.between),
                         percent(s.within / s.between)));
}

void print_one(const NetworkRegions& n, const Dataset& data) {
  const RegionReport& r = n.report;
  print_line(fmt::format("  {} of {} lie in {}; top-1 {}", counted(images_of(r), "image"),
                         counted(std::count_if(r.inputs.begin(), r.inputs.end(), [](int64_t i) { return i > 0; }), "class"),
                         counted(r.total.distinct, "linear region"), percent(n.top1)));
  print_line(fmt::format("  {:<22} {:>9} {:>8} {:>9} {:>8} {:>7} {:>10} {:>10} {:>8}", "layer", "units", "constant",
                         "patterns", "largest", "mixed", "within", "between", "ratio"));
  for (size_t l = 0; l < r.layers.size(); ++l)
    print_statistics(label_of(r.layers[l]), r.layers[l].units, r.of_layer[l]);
  print_statistics("all", units_of(r), r.total);
  print_line("  (constant: units with one state for all images; largest: images with the commonest pattern; mixed:");
  print_line(
      "  patterns met by several classes; within, between: units that differ between two images of one class, of");
  print_line("  two classes, on average over all pairs; ratio: within / between)");
  if (!std::isfinite(r.total.within)) print_line("  (no class has two images, so there is nothing within one to compare)");
  if (r.inputs.size() <= kMostClassesInReport) {
    print_line(fmt::format("  {:<26} {:>9} {:>9} {:>10}", "class", "images", "regions", "within"));
    for (size_t k = 0; k < r.inputs.size(); ++k)
      print_line(fmt::format("  {:<26.26} {:>9} {:>9} {:>10}", data.classes[k], r.inputs[k],
                             r.total.distinct_of_class[k], number(r.total.within_class[k])));
  }
  if (!r.not_counted.empty())
    print_line(fmt::format("  smooth, so without regions and not counted: {}", fmt::join(r.not_counted, ", ")));
}

// Networks of several models may differ in depth: the one whose layers name rows and lines.
const RegionReport& deepest(const std::vector<NetworkRegions>& networks) {
  const auto shallower = [](const NetworkRegions& a, const NetworkRegions& b) {
    return a.report.layers.size() < b.report.layers.size();
  };
  return std::max_element(networks.begin(), networks.end(), shallower)->report;
}

void print_several(const std::vector<NetworkRegions>& networks) {
  print_line(fmt::format("  {:<26} {:>9} {:>9} {:>8} {:>10} {:>10} {:>8}", "network", "top-1", "regions", "mixed",
                         "within", "between", "ratio"));
  for (const NetworkRegions& n : networks) {
    const PatternStatistics& s = n.report.total;
    print_line(fmt::format("  {:<26.26} {:>9} {:>9} {:>8} {:>10} {:>10} {:>8}", n.spec.name, percent(n.top1),
                           s.distinct, s.mixed, number(s.within), number(s.between), percent(s.within / s.between)));
  }
  if (networks.size() > kMostNetworksInTable) return;  // the picture and the JSON document have the layers
  std::string head = fmt::format("  {:<26}", "patterns of");
  for (const NetworkRegions& n : networks) head += fmt::format(" {:>12.12}", n.spec.name);
  print_line(head);
  const std::vector<RegionLayer>& layers = deepest(networks).layers;
  for (size_t l = 0; l < layers.size(); ++l) {
    std::string line = fmt::format("  {:<26.26}", label_of(layers[l]));
    for (const NetworkRegions& n : networks)
      line += l < n.report.of_layer.size() ? fmt::format(" {:>12}", n.report.of_layer[l].distinct)
                                           : fmt::format(" {:>12}", "-");
    print_line(line);
  }
}

Json details_of(const std::vector<NetworkRegions>& networks, const Dataset& data) {
  Json list = Json::array();
  for (const NetworkRegions& n : networks) list.push_back(network_json(n, data));
  return {{"images", images_of(networks[0].report)}, {"networks", std::move(list)}};
}

void print_summary(const Job& job, const std::string& path, const std::vector<NetworkRegions>& networks,
                   const Dataset& data, const Output& output) {
  const int64_t images = images_of(networks[0].report);
  if (networks.size() == 1) {
    print_line(job.summary_title("regions"));
    print_one(networks[0], data);
  } else {
    print_line(fmt::format("regions of {} networks, {} of {}", networks.size(), counted(images, "image"), path));
    print_several(networks);
  }
  print_written(job, output.paths());
  print_line(job.summary_times(images * int64_t(networks.size()), "image"));
}

// ---- pictures

Rgb depth_color(size_t index, size_t count) {
  return color(ColorMap::viridis, count > 1 ? 0.9f * float(index) / float(count - 1) : 0.4f);
}

// Shares over the layers of one network.
Canvas picture_of_one(const NetworkRegions& n, const std::string& title) {
  const RegionReport& r = n.report;
  std::vector<std::string> places;
  std::vector<Series> series{{"patterns / images", {}, {30, 90, 160}},
                             {"units that differ within a class", {}, {30, 140, 70}},
                             {"units that differ between classes", {}, {200, 60, 50}}};
  for (size_t l = 0; l < r.layers.size(); ++l) {
    places.push_back(label_of(r.layers[l]));
    const PatternStatistics& s = r.of_layer[l];
    const double units = double(r.layers[l].units);
    series[0].values.push_back(double(s.distinct) / double(images_of(r)));
    series[1].values.push_back(s.within / units);
    series[2].values.push_back(s.between / units);
  }
  std::erase_if(series, [](const Series& s) { return !has_values(s); });
  LineOptions options;
  options.title = title;
  options.most = 1;
  options.width = std::clamp(360 + 90 * int(places.size()), 720, 2400);
  return line_chart(places, series, options);
}

// One line for each layer and a bold one for all together, over the networks.
std::vector<Series> series_over(const std::vector<NetworkRegions>& networks,
                                const std::function<double(const RegionReport&, const PatternStatistics&)>& value) {
  const std::vector<RegionLayer>& layers = deepest(networks).layers;
  std::vector<Series> series;
  for (size_t l = 0; l < layers.size(); ++l) {
    Series& s = series.emplace_back(label_of(layers[l]), std::vector<double>{}, depth_color(l, layers.size()));
    for (const NetworkRegions& n : networks)
      s.values.push_back(l < n.report.of_layer.size() ? value(n.report, n.report.of_layer[l])
                                                      : std::numeric_limits<double>::quiet_NaN());
  }
  Series& all = series.emplace_back("all layers", std::vector<double>{}, Rgb{32, 32, 32}, true);
  for (const NetworkRegions& n : networks) all.values.push_back(value(n.report, n.report.total));
  return series;
}

Canvas picture_of_several(const std::vector<NetworkRegions>& networks, const std::string& title) {
  std::vector<std::string> places;
  Series top1{"top-1", {}, {200, 60, 50}, true};
  for (const NetworkRegions& n : networks) {
    places.push_back(n.spec.name);
    top1.values.push_back(n.top1);
  }
  std::vector<Series> patterns = series_over(networks, [](const RegionReport& r, const PatternStatistics& s) {
    return double(s.distinct) / double(images_of(r));
  });
  if (has_values(top1)) patterns.push_back(top1);
  LineOptions options;
  options.width = std::clamp(360 + 60 * int(places.size()), 760, 2400);
  options.most = 1;
  std::vector<Canvas> charts;
  const auto add = [&](const char* about, const std::vector<Series>& series) {
    options.title = about;
    charts.push_back(line_chart(places, series, options));
  };
  add("distinct patterns / images", patterns);
  const std::vector<Series> ratios =
      series_over(networks, [](const RegionReport&, const PatternStatistics& s) { return s.within / s.between; });
  if (std::any_of(ratios.begin(), ratios.end(), has_values)) add("units that differ within a class / between classes", ratios);
  if (std::isfinite(networks[0].alike_between)) {
    std::vector<Series> alike{{"of a class", {}, {30, 140, 70}}, {"of different classes", {}, {200, 60, 50}}};
    for (const NetworkRegions& n : networks) alike[0].values.push_back(n.alike_within), alike[1].values.push_back(n.alike_between);
    add("correlation of etalons", alike);
  }
  return charts_below(charts, title);
}

void run_dataset(const RegionsOptions& o) {
  if (o.inputs.size() != 1)
    throw Error(fmt::format("regions takes one data set, but {} are given", o.inputs.size()),
                fmt::format("{}; weights end in .safetensors", kDatasets), true);
  if (!o.points.empty() || !o.range.empty()) throw Error("--points and --range belong to --plane", "add --plane", true);
  if (o.saves("npy"))
    throw Error("regions saves no arrays", "--save png draws its charts, --json has all numbers", true);
  const std::vector<NetworkSpec> specs = network_specs(o.models, o.weights_given);
  Job job("regions", options_of(o, specs[0]));
  const std::string& path = o.inputs[0];
  Dataset data = open_dataset(path, o.exif);
  if (!data.labelled()) {
    warn(fmt::format("{} has no labels: its images count as one class", printable(path)));
    data.join_classes();
  }
  const int64_t images = limited(data, o.limit);
  const std::vector<int64_t> order = class_order(data, images);
  Output output(job);
  const auto [first, last] = shares().of(images);
  const std::span<const int64_t> mine = std::span(order).subspan(size_t(first), size_t(last - first));
  CountsOfNetworks all;
  std::vector<NetworkRegions> networks;
  for (const NetworkSpec& spec : specs) {
    const Model model = networks.empty() ? std::move(job.model) : open_network_of(o, spec);
    const int64_t before = int64_t(networks.size()) * (last - first);
    // Of several networks the first one's input.
    InputRecorder* record = networks.empty() && job.input_recorder ? &*job.input_recorder : nullptr;
    NetworkCounts& counts = all.networks.emplace_back(count_regions(job, model, data, mine, output, record, [&](int64_t done) {
      job.bar.update(before + done, int64_t(specs.size()) * (last - first), "images");
    }));
    if (o.etalons) counts.etalons = etalons_of(job, model, data, mine);
    networks.push_back({.spec = spec, .weights = model.source, .report = {}});
  }
  if (!gather(job, output, dataset_stem(path), dataset_json(data, images), all)) return;
  for (size_t i = 0; i < networks.size(); ++i) {
    NetworkCounts& counts = all.networks.at(i);
    networks[i].report = counts.regions.report();
    if (counts.classes) networks[i].top1 = double(counts.right) / double(images);
    if (o.etalons) compare_etalons(counts, counts.regions.labels, int64_t(data.classes.size()), networks[i]);
  }
  Json files = Json::array();
  if (output.pictures()) {
    const std::string what = fmt::format("linear regions of {} images of {}", images, dataset_stem(path));
    output.add_picture(files, dataset_stem(path),
                       networks.size() == 1 ? picture_of_one(networks[0], what + " in " + specs[0].name)
                       : of_several_runs(networks) ? picture_of_runs(networks, what)
                                                   : picture_of_several(networks, what));
  }
  job.model.source = networks[0].weights;
  Report report;
  report.inputs.push_back({{"path", path}, {"index", 0}, {"files", files}});
  report.details = details_of(networks, data);
  report.summary = [&] { print_summary(job, path, networks, data, output); };
  finish_run(job, output, std::move(report));
}

bool is_weights(const std::string& text) {
  return text == "random" || text.starts_with("random:") || text.ends_with(".safetensors") || holds_weights(text);
}

}  // namespace

std::vector<NetworkSpec> network_specs(const std::vector<std::string>& given_models,
                                       const std::vector<std::string>& checkpoints) {
  const std::vector<std::string> models =
      given_models.empty() ? std::vector<std::string>{""} : given_models;  // Job says what is missing
  std::vector<std::string> weights, runs;
  for (const std::string& given : checkpoints.empty() ? std::vector<std::string>{""} : checkpoints) {
    const std::vector<std::string> more = given.empty() ? std::vector<std::string>{""} : expand_weights({given});
    weights.insert(weights.end(), more.begin(), more.end());
    runs.resize(weights.size(), holds_weights(given) ? given : "");
  }
  if (models.size() > 1 && weights.size() != models.size() && !checkpoints.empty())
    throw Error(fmt::format("{} --model and {} --weights", models.size(), weights.size()),
                "one model with several weights, or weights for each model", true);
  std::vector<NetworkSpec> specs;
  for (size_t i = 0; i < std::max(models.size(), weights.size()); ++i) {
    NetworkSpec spec{models[std::min(i, models.size() - 1)], weights[std::min(i, weights.size() - 1)], ""};
    spec.run = runs[std::min(i, runs.size() - 1)];
    const bool by_weights = models.size() == 1 && weights.size() > 1;
    const std::string path = by_weights ? spec.weights : spec.model;
    spec.name = path.ends_with(".safetensors") ? std::filesystem::path(path).stem().string() : path;
    for (const NetworkSpec& other : specs)
      if (other.name == spec.name) spec.name = path;
    specs.push_back(std::move(spec));
  }
  return specs;
}

Options options_of(const RegionsOptions& o, const NetworkSpec& spec) {
  Options options = o;
  options.model = spec.model;
  options.weights = spec.weights;
  return options;
}

Model open_network_of(const RegionsOptions& o, const NetworkSpec& spec) {
  return open_model({spec.model, spec.weights, o.preprocess}, all_weight_folders());
}

std::function<void()> setup_regions(CLI::App& app) {
  auto o = std::make_shared<RegionsOptions>();
  add_inputs(app, *o, kDatasets);
  app.add_option("--model", o->models,
                 "built-in architecture; `switchback models` lists them; may be given several times")
      ->type_name("NAME")
      ->allow_extra_args(false);
  app.add_option("--weights", o->weights_given,
                 "one or several safetensors files, patterns in quotes, a run's folder, or random[:SEED]; default: the installed "
                 "ones")
      ->type_name("FILE.safetensors|random[:SEED]|FOLDER ...");
  add_setting(app, *o, "--preprocess", o->preprocess, Changes::values,
              "how images become input; default: the model's own", "FILE.json");
  add_setting(app, *o, "--limit", o->limit, Changes::values, "only the first N images", "N");
  add_switch(app, *o, "--etalons", o->etalons, Changes::values,
             "also how alike the etalons of the images' classes are, within a class and between classes");
  app.add_flag("--plane", o->plane,
               "instead of a data set: the plane of a network with two inputs, in double precision "
               "on the CPU");
  add_setting(app, *o, "--points", o->points, Changes::values,
              "with --plane: points to draw, [N,2], or [N,3] with their class", "FILE.npy");
  add_setting(app, *o, "--range", o->range, Changes::values,
              "with --plane: the part to draw (default: around the points, or -1,1)", "LEFT,RIGHT[,BOTTOM,TOP]");
  add_output(app, *o);
  add_run(app, *o);
  add_shard(app, *o);
  add_report(app, *o);
  return [o] {
    // --weights takes all that follows it, the data set as well.
    const auto other = std::stable_partition(o->weights_given.begin(), o->weights_given.end(), is_weights);
    o->inputs.insert(o->inputs.end(), other, o->weights_given.end());
    o->weights_given.erase(other, o->weights_given.end());
    if (o->plane && shares().divided()) throw Error("--plane is not divided", "leave out --shard and mpirun", true);
    o->plane ? run_regions_plane(*o) : run_dataset(*o);
  };
}

}  // namespace switchback
