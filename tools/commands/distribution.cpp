// `switchback distribution`: how the values of a layer's channels are distributed over a data set, by class and in all;
// of two data sets or of several checkpoints side by side.
#include "viz/methods/distribution.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "engine/files/dataset.h"
#include "tools/cli/checkpoints.h"
#include "tools/cli/figure.h"
#include "tools/cli/inputs.h"
#include "tools/cli/job.h"
#include "tools/cli/labelled.h"
#include "tools/cli/shares.h"
#include "tools/commands/commands.h"
#include "viz/methods/batches.h"

namespace switchback {
namespace {

constexpr int64_t kMostClasses = 100;                             // whose values are kept apart
constexpr size_t kMostClassesDrawn = 20;
constexpr double kShares[] = {0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99};  // of the document's quantiles
constexpr int64_t kBins = 64, kPercents = 101;  // of the arrays: intervals; quantiles at 0 to 100 %
constexpr int kRidgeBins = 120, kRidgeStep = 2, kRidgeHeight = 26, kRidgeName = 70, kRidgeZeros = 44, kRidgeMargin = 8;
constexpr Rgb kRidgeColors[] = {{49, 104, 142}, {222, 110, 30}, {53, 183, 121}, {145, 70, 150}, {120, 120, 120}};

struct DistributionFlags : Options {
  std::vector<std::string> layers;
  std::string channels = "all", limit;
};

// One population: a data set under one checkpoint.
struct Population {
  std::string name;
  int64_t images = 0;
  bool labelled = true;
  std::vector<std::string> classes;  // names; none where they are too many to keep apart
  int64_t read = 0;
  std::vector<DistributionLayer> kept;                 // while images stream by
  std::vector<std::vector<ChannelStatistics>> layers;  // channels of each

  void merge(Population&& next) {
    read += next.read;
    for (size_t k = 0; k < kept.size(); ++k) kept[k].merge(std::move(next.kept.at(k)));
  }
  template <typename A>
  void fields(A& a) {
    a(read, kept);
  }
};
struct Populations {
  std::vector<Population> of;
  void merge(Populations&& next) {
    for (size_t p = 0; p < of.size(); ++p) of[p].merge(std::move(next.of.at(p)));
  }
  template <typename A>
  void fields(A& a) {
    a(of);
  }
};

struct DistributionRun {
  Job& job;
  const DistributionFlags& flags;
  std::vector<int> nodes;
  std::vector<Population> populations;
  Json about = Json::array();  // the data sets
};

Population measure(DistributionRun& run, const std::string& path, std::string name) {
  Job& job = run.job;
  const Dataset data = open_dataset(path, run.flags.exif);
  const Shape image = image_of(job.model);
  check_image_shape(job.model.network, image);
  const int64_t images = limited(data, run.flags.limit);
  const int64_t classes = int64_t(data.classes.size());
  const bool apart = classes <= kMostClasses;
  const auto [first, last] = shares().of(images);
  Distribution distribution(job.ctx, job.model, image, run.nodes, apart ? classes : 0, job.run,
                            std::clamp<int64_t>(last - first, 1, 256), first);
  Population population{.name = std::move(name), .images = images, .labelled = data.labelled(), .classes = {}, .read = 0, .kept = {}, .layers = {}};
  if (apart) population.classes = data.classes;
  population.read = for_batches(job, data, numbers_of(first, last), distribution.batch(),
                                [&](const float* pixels, std::span<const int64_t> numbers) {
                                  std::vector<int> labels;
                                  for (const int64_t i : numbers) labels.push_back(data.label(i));
                                  distribution.add(pixels, numbers, labels);
                                });
  population.kept = std::move(distribution).take_layers(last);
  run.about.push_back(dataset_json(data, images));
  return population;
}

const std::string& layer_name(const DistributionRun& run, size_t layer) {
  return run.job.model.network.nodes[size_t(run.nodes[layer])].name;
}

std::vector<int64_t> chosen_channels(const DistributionRun& run, size_t layer) {
  return parse_list("--channels", run.flags.channels, int64_t(run.populations[0].layers[layer].size()));
}

// Of the populations after the first, their distance to it.
double distance(const DistributionRun& run, size_t population, size_t layer, int64_t channel) {
  return wasserstein1(run.populations[0].layers[layer][size_t(channel)].values,
                      run.populations[population].layers[layer][size_t(channel)].values);
}

// Those to draw: the furthest apart of several populations, the most selective of one; dead ones last.
std::vector<int64_t> drawn_channels(const DistributionRun& run, size_t layer) {
  std::vector<int64_t> order = chosen_channels(run, layer);
  const auto rank = [&](int64_t c) {
    const double selectivity = run.populations[0].layers[layer][size_t(c)].selectivity();
    if (run.populations.size() == 1) return std::isnan(selectivity) ? -1 : selectivity;
    double furthest = 0;
    for (size_t p = 1; p < run.populations.size(); ++p) furthest = std::max(furthest, distance(run, p, layer, c));
    return furthest;
  };
  std::vector<std::pair<double, int64_t>> ranked;
  for (const int64_t c : order) ranked.emplace_back(rank(c), c);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  ranked.resize(std::min(ranked.size(), size_t(run.flags.top)));
  order.clear();
  for (const auto& [value, c] : ranked) order.push_back(c);
  return order;
}

struct Ridge {
  std::string name;
  const ValueSketch* values;
  double zeros;  // share of exact zeros, which the curve leaves out
  int64_t without;
  Rgb color;
};

// Densities one below the other over one axis, each to its own height.
Canvas ridges(std::span<const Ridge> rows, double least, double most) {
  if (!(most > least)) least -= 1, most += 1;
  const int plot = kRidgeBins * kRidgeStep, left = kRidgeMargin + kRidgeName;
  const int bottom = kRidgeMargin + int(rows.size()) * kRidgeHeight;
  Canvas canvas(left + plot + kRidgeZeros + kRidgeMargin, bottom + text_height("") + 2 * kRidgeMargin);
  for (size_t r = 0; r < rows.size(); ++r) {
    const Ridge& row = rows[r];
    const double base = kRidgeMargin + double(r + 1) * kRidgeHeight - 3;
    const std::vector<double> counts = row.values->histogram(least, most, kRidgeBins, row.without);
    const double highest = *std::max_element(counts.begin(), counts.end());
    for (int b = 0; b < kRidgeBins && highest > 0; ++b) {
      const double height = counts[size_t(b)] / highest * (kRidgeHeight - 6);
      if (height > 0) canvas.rectangle(left + b * kRidgeStep, base - height, kRidgeStep, height, row.color);
    }
    canvas.line({double(left), base}, {double(left + plot), base}, 1, kFaintInk, 0.5);
    canvas.text(left - 4, base - text_height(""), wrapped_text(row.name, kRidgeName - 4, kTextSize, 1), kInk, kTextSize, 1);
    if (row.zeros > 0)
      canvas.text(left + plot + 4, base - text_height(""), fmt::format("{:.0f} % 0", 100 * row.zeros), kFaintInk, kSmallSize);
  }
  canvas.text(left, bottom + 2, short_number(least), kFaintInk, kSmallSize);
  canvas.text(left + plot, bottom + 2, short_number(most), kFaintInk, kSmallSize, 1);
  if (least < 0 && most > 0) {
    const double zero = left - least / (most - least) * plot;
    canvas.line({zero, double(kRidgeMargin)}, {zero, double(bottom)}, 1, kFaintInk, 0.6);
    if (zero - left > 40 && left + plot - zero > 40) canvas.text(zero, bottom + 2, "0", kFaintInk, kSmallSize, 0.5);
  }
  return canvas;
}

std::string channel_words(const DistributionRun& run, size_t layer, int64_t channel) {
  const ChannelStatistics& first = run.populations[0].layers[layer][size_t(channel)];
  if (first.dead()) return fmt::format("{}: dead, never above 0", channel);
  if (run.populations.size() > 1)
    return fmt::format("{}: distance {}", channel, short_number(distance(run, 1, layer, channel)));
  std::string words = fmt::format("{}: mean {}, deviation {}", channel, short_number(first.mean),
                                  short_number(first.deviation()));
  if (const double s = first.selectivity(); std::isfinite(s))
    words += fmt::format(", selectivity {:.2f} for {}", s, run.populations[0].classes[size_t(first.selective_class())]);
  return words;
}

Panel channel_panel(const DistributionRun& run, size_t layer, int64_t channel) {
  std::vector<Ridge> rows;
  double least = std::numeric_limits<double>::infinity(), most = -least;
  for (size_t p = 0; p < run.populations.size(); ++p) {
    const Population& population = run.populations[p];
    const ChannelStatistics& c = population.layers[layer][size_t(channel)];
    least = std::min(least, c.values.quantile(0.001)), most = std::max(most, c.values.quantile(0.999));
    const bool one = run.populations.size() == 1;
    rows.push_back({one ? "all" : population.name, &c.values, double(c.zeros) / double(c.count), c.zeros,
                    kRidgeColors[one ? std::size(kRidgeColors) - 1 : p % std::size(kRidgeColors)]});
    if (!one || population.classes.size() < 2 || population.classes.size() > kMostClassesDrawn) continue;
    for (size_t k = 0; k < population.classes.size(); ++k)
      if (c.of_class[k].count() > 0)
        rows.push_back({population.classes[k], &c.of_class[k], 0, 0,
                        kRidgeColors[int(k) == c.selective_class() ? 1 : 0]});
  }
  return {ridges(rows, least, most), channel_words(run, layer, channel)};
}

// What a ReLU lets through of each channel, on average; a dead one's column is missing.
Canvas open_chart(const DistributionRun& run, size_t layer) {
  std::vector<float> open;
  int64_t dead = 0;
  for (const ChannelStatistics& c : run.populations[0].layers[layer]) {
    dead += c.dead();
    open.push_back(float(double(c.open) / double(c.count)));
  }
  return column_chart(open, {.title = fmt::format("share of values above 0, by channel; {} of {} dead", dead, open.size()), .range = {0, 1}});
}

// Of a channel in all populations: the ends of its histogram.
Range range_of(const DistributionRun& run, size_t layer, int64_t channel) {
  Range range{std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  for (const Population& p : run.populations) {
    const ChannelStatistics& c = p.layers[layer][size_t(channel)];
    range.lo = std::min(range.lo, c.least), range.hi = std::max(range.hi, c.most);
  }
  return range;
}

// Counts by equal intervals of the channel's range; a constant's are all in the first.
std::vector<double> histogram_of(const ChannelStatistics& c, Range range) {
  if (range.hi > range.lo) return c.values.histogram(range.lo, range.hi, int(kBins));
  std::vector<double> counts(size_t(kBins), 0);
  counts[0] = double(c.count);
  return counts;
}

// An axis E in front where there are several populations.
void save_arrays(DistributionRun& run, size_t layer, const ResultOf& of, Output& output, Json& files) {
  const std::vector<int64_t> channels = chosen_channels(run, layer);
  const auto add = [&](const char* part, const char* axis, int64_t each, const std::function<void(const ChannelStatistics&, int64_t, float*)>& fill) {
    Dims dims{int64_t(channels.size()), each};
    std::vector<std::string> axes{"C", axis};
    if (run.populations.size() > 1) dims.insert(dims.begin(), int64_t(run.populations.size())), axes.insert(axes.begin(), "E");
    Tensor values(dims);
    float* to = values.data();
    for (const Population& p : run.populations)
      for (const int64_t c : channels) fill(p.layers[layer][size_t(c)], c, to), to += each;
    ResultOf result = of;
    result.part = part;
    files.push_back(output.add_npy(result, values, axes));
  };
  add("", "bins", kBins, [&](const ChannelStatistics& c, int64_t channel, float* to) {
    const std::vector<double> counts = histogram_of(c, range_of(run, layer, channel));
    std::copy(counts.begin(), counts.end(), to);
  });
  add(".moments", "moment", 4, [&](const ChannelStatistics& c, int64_t, float* to) {
    const double moments[] = {c.mean, c.deviation(), c.skew(), double(c.zeros) / double(c.count)};
    std::copy(std::begin(moments), std::end(moments), to);
  });
  add(".quantiles", "percent", kPercents, [&](const ChannelStatistics& c, int64_t, float* to) {
    for (int64_t q = 0; q < kPercents; ++q)
      to[q] = q == 0 ? c.least : q == kPercents - 1 ? c.most : float(c.values.quantile(double(q) / (kPercents - 1)));
  });
}

void draw(DistributionRun& run, Output& output, Json& files) {
  const std::string stem = dataset_stem(run.flags.inputs[0]);
  for (size_t layer = 0; layer < run.nodes.size(); ++layer) {
    ResultOf of(stem);
    of.layer = layer_name(run, layer);
    if (output.npy()) save_arrays(run, layer, of, output, files);
    if (!output.pictures()) continue;
    std::vector<Panel> panels;
    for (const int64_t c : drawn_channels(run, layer)) panels.push_back(channel_panel(run, layer, c));
    const std::string which = run.populations.size() > 1 ? "that differ most" : "most selective of a class";
    const Canvas sheet = grid(panels, {.columns = run.flags.columns,
                                       .title = figure_title(run.job, "Distributions", "layer " + of.layer),
                                       .subtitle = fmt::format("{} of {} channels, those {}; {}; exact zeros are left out of the curves; {}",
                                                               panels.size(), run.populations[0].layers[layer].size(), which,
                                                               counted(run.populations[0].read, "image"), weights_text(run.job))});
    const Canvas parts[] = {sheet, open_chart(run, layer)};
    output.add_picture(files, of, one_below_other(parts), {{"layer", of.layer}});
  }
}

Json finite(double v) { return std::isfinite(v) ? Json(v) : Json(nullptr); }

Json channel_json(const DistributionRun& run, size_t population, size_t layer, int64_t channel) {
  const Population& p = run.populations[population];
  const ChannelStatistics& c = p.layers[layer][size_t(channel)];
  Json quantiles = Json::object();
  for (const double share : kShares) quantiles[fmt::format("{}", share)] = c.values.quantile(share);
  const double selectivity = c.selectivity();
  Json entry = {{"layer", layer_name(run, layer)},
                {"channel", channel},
                {"mean", c.mean},
                {"std", c.deviation()},
                {"skew", finite(c.skew())},
                {"min", c.least},
                {"max", c.most},
                {"range", {range_of(run, layer, channel).lo, range_of(run, layer, channel).hi}},
                {"zeros", double(c.zeros) / double(c.count)},
                {"open", double(c.open) / double(c.count)},
                {"quantiles", std::move(quantiles)},
                {"selectivity", finite(selectivity)},
                {"class", std::isfinite(selectivity) ? Json(p.classes[size_t(c.selective_class())]) : Json(nullptr)}};
  if (population > 0) entry["distance"] = distance(run, population, layer, channel);
  return entry;
}

Json population_json(const DistributionRun& run, size_t population) {
  const Population& p = run.populations[population];
  Json channels = Json::array(), dead = Json::array();
  for (size_t layer = 0; layer < run.nodes.size(); ++layer)
    for (const int64_t c : chosen_channels(run, layer)) {
      channels.push_back(channel_json(run, population, layer, c));
      if (p.layers[layer][size_t(c)].dead()) dead.push_back({{"layer", layer_name(run, layer)}, {"channel", c}});
    }
  return {{"name", p.name}, {"images", p.read}, {"channels", std::move(channels)}, {"dead", std::move(dead)}};
}

void print_distribution(const DistributionRun& run, const Output& output) {
  print_line(run.job.summary_title("distribution"));
  ItemLines lines;
  for (size_t layer = 0; layer < run.nodes.size(); ++layer) {
    const std::vector<ChannelStatistics>& channels = run.populations[0].layers[layer];
    const int64_t dead = std::count_if(channels.begin(), channels.end(), [](const auto& c) { return c.dead(); });
    lines.add(fmt::format("  {}: {}, {} dead", layer_name(run, layer), counted(int64_t(channels.size()), "channel"), dead));
    for (const int64_t c : drawn_channels(run, layer)) lines.add("    " + channel_words(run, layer, c));
  }
  lines.print();
  print_written(run.job, output.paths());
  print_line(run.job.summary_times(run.populations[0].read, "image"));
}

void run_distribution(const DistributionFlags& o) {
  if (o.inputs.empty() || o.inputs.size() > 2)
    throw Error(fmt::format("distribution takes one data set or two, but {} are given", o.inputs.size()), kDatasets, true);
  if (o.top < 1 || o.top > 100) throw Error(fmt::format("--top {} is out of range", o.top), "1 to 100", true);
  Job job("distribution", o);
  if (job.several() && o.inputs.size() > 1)
    throw Error("two data sets and several --weights", "compare one or the other", true);
  DistributionRun run{.job = job, .flags = o, .nodes = required_nodes(job.model.network, o.layers, o.model), .populations = {}, .about = Json::array()};
  const List<Shape> shapes = job.model.network.shapes(image_of(job.model));
  for (const int node : run.nodes) parse_list("--channels", o.channels, shapes[size_t(node)].c);  // before the work
  Output output(job);
  if (job.several()) {
    const std::vector<std::string> names = weights_names(job.checkpoints);
    for (size_t e = 0; e < names.size(); ++e) {
      job.open_checkpoint(e);
      run.populations.push_back(measure(run, o.inputs[0], names[e]));
    }
  } else {
    for (const std::string& path : o.inputs) run.populations.push_back(measure(run, path, dataset_stem(path)));
  }
  Populations all{std::move(run.populations)};
  if (!gather(job, output, dataset_stem(o.inputs[0]), run.about, all)) return;
  run.populations = std::move(all.of);
  for (Population& p : run.populations) {
    require_read(p.read, p.images, p.name);
    for (const DistributionLayer& layer : p.kept) p.layers.push_back(layer.finished());
    p.kept.clear();
  }
  if (run.populations[0].classes.empty())
    output.note(run.populations[0].labelled ? fmt::format("more than {} classes: they are not told apart", kMostClasses)
                                            : fmt::format("{} has no labels: classes are not told apart", o.inputs[0]));
  Json files = Json::array();
  draw(run, output, files);
  Report report;
  report.inputs.push_back({{"path", o.inputs[0]}, {"index", 0}, {"files", files}});
  report.details = population_json(run, 0);
  report.details["quantile_error"] = run.populations[0].layers[0][0].values.error();
  report.details["others"] = Json::array();
  for (size_t p = 1; p < run.populations.size(); ++p) report.details["others"].push_back(population_json(run, p));
  report.summary = [&] { print_distribution(run, output); };
  finish_run(job, output, std::move(report));
}

}  // namespace

std::function<void()> setup_distribution(CLI::App& app) {
  auto o = std::make_shared<DistributionFlags>();
  o->top = 12;
  add_inputs(app, *o, fmt::format("{}; or a part of one, DATASET[FIRST:LAST]; two are compared", kDatasets).c_str());
  add_setting(app, *o, "--limit", o->limit, Changes::values, "only the first N images", "N");
  add_checkpoints(app, *o);
  add_setting(app, *o, "--layer", o->layers, Changes::values, "the layers, as `switchback info` names them",
              "NAME[,NAME]");
  add_setting(app, *o, "--channels", o->channels, Changes::values, "which of their channels", "LIST|all");
  add_setting(app, *o, "--top", o->top, Changes::pictures, "channels to draw", "K");
  add_output(app, *o);
  add_drawing(app, *o, Drawing::columns);
  add_run(app, *o);
  add_shard(app, *o);
  add_report(app, *o);
  return [o] { run_distribution(*o); };
}

}  // namespace switchback
