// `switchback top`: the images of a data set, and the patches in them, to which channels answer most.
#include "viz/methods/top.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "engine/files/dataset.h"
#include "tools/cli/figure.h"
#include "tools/cli/inputs.h"
#include "tools/cli/job.h"
#include "tools/cli/labelled.h"
#include "tools/cli/shares.h"
#include "tools/commands/commands.h"
#include "viz/methods/batches.h"
#include "viz/methods/target.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr size_t kUnitsOfPage = 24;
constexpr int64_t kTileSide = 48;  // of a patch in a picture, at least
constexpr int kTileGap = 2;
constexpr Rgb kOutside{128, 128, 128};  // of the image

constexpr Choice<TopBy> kTopBy[] = {{"activation", TopBy::activation}, {"relevance", TopBy::relevance}};
constexpr Choice<TopOrder> kTopOrders[] = {{"highest", TopOrder::highest}, {"lowest", TopOrder::lowest}};
constexpr Choice<TopSignal> kTopSignals[] = {{"one", TopSignal::one}, {"activation", TopSignal::activation}};
enum class TopClass { max, label };
constexpr Choice<TopClass> kTopClasses[] = {{"max", TopClass::max}, {"label", TopClass::label}};

struct TopFlags : Options {
  std::vector<std::string> layers;
  std::string channels = "all", limit;
  int64_t keep = 9;
  ReluRule rule = kDeconv;
  TopBy by = TopBy::activation;
  TopOrder order = TopOrder::highest;
  TopSignal signal = TopSignal::one;
  TopClass of = TopClass::max;
};

// One layer's share of the result. Arrays are [U,K,C,h,w].
struct TopLayer {
  int node;
  std::string name;
  std::vector<int64_t> channels;
  std::pair<int64_t, int64_t> field;
  size_t first = 0;  // of all layers' units
  Tensor patches, maps;
  std::vector<Image> pictures;  // [U·K], patches as the network saw them
};

struct TopRun {
  Job& job;
  const TopFlags& flags;
  const Dataset& data;
  Shape image;
  TopOptions options;
  std::vector<TopLayer> layers;
  std::vector<TopUnit> units;
  int64_t images = 0, read = 0;
  double search_seconds = 0, forward_seconds = 0, map_seconds = 0;
};

// What a share of the images has found.
struct TopLists {
  TopOptions options;
  int64_t read = 0;
  std::vector<std::vector<TopList>> of;  // of each node its channels'
  void merge(TopLists&& next) {
    read += next.read;
    for (size_t k = 0; k < of.size(); ++k)
      for (size_t c = 0; c < of[k].size(); ++c) merge_top(of[k][c], next.of.at(k).at(c), options);
  }
  template <typename A>
  void fields(A& a) {
    a(read, of);
  }
};

// One forward pass over all images; those that cannot be read are told of and left out. False: another share goes on.
bool search(TopRun& run, const std::vector<int>& nodes, Output& output) {
  const auto start = std::chrono::steady_clock::now();
  const auto [first, last] = shares().of(run.images);
  TopSearch search(run.job.ctx, run.job.model, run.image, nodes, run.options, std::max<int64_t>(1, last - first));
  std::vector<int64_t> outputs;  // of the data set's classes, where labels say whose relevance is meant
  if (run.options.by == TopBy::relevance && run.flags.of == TopClass::label) {
    const Network& network = run.job.model.network;
    outputs = class_map(run.data, run.job.model, network.shapes(run.image)[size_t(logit_node(network))].c,
                        run.flags.inputs[0]);
  }
  TopLists found{.options = run.options, .read = 0, .of = {}};
  found.read = for_batches(run.job, run.data, numbers_of(first, last), search.batch(),
                         [&](const float* pixels, std::span<const int64_t> numbers) {
                           std::vector<int> classes;
                           if (!outputs.empty())
                             for (const int64_t i : numbers)
                               classes.push_back(int(outputs[size_t(run.data.label(i))]));
                           search.add(pixels, numbers, classes);
                         });
  for (size_t k = 0; k < nodes.size(); ++k) found.of.push_back(search.lists(k));
  if (!gather(run.job, output, dataset_stem(run.flags.inputs[0]), dataset_json(run.data, run.images), found)) return false;
  if (!run.job.ctx.gpu) run.forward_seconds = search.forward_seconds();
  require_read(found.read, run.images, run.flags.inputs[0]);
  run.read = found.read;
  for (size_t k = 0; k < nodes.size(); ++k) {
    TopLayer layer{.node = nodes[k],
                   .name = run.job.model.network.nodes[size_t(nodes[k])].name,
                   .channels = {},
                   .field = search.field(k),
                   .first = run.units.size(),
                   .patches = {},
                   .maps = {},
                   .pictures = {}};
    layer.channels = parse_list("--channels", run.flags.channels, search.channels(k));
    for (const int64_t c : layer.channels) run.units.push_back({nodes[k], c, std::move(found.of[k][size_t(c)])});
    run.layers.push_back(std::move(layer));
  }
  run.search_seconds = seconds_since(start);
  return true;
}

// Puts a box [C,h,w] of `from` into patch `to` of shape [C,H,W], as far as `whole` leaves room.
void put(const float* from, int64_t from_rows, int64_t from_width, Shape whole, int64_t channels, const FieldBox& box,
         std::pair<int64_t, int64_t> at, float* to) {
  const int64_t rows = std::min(box.height, whole.h - at.first), columns = std::min(box.width, whole.w - at.second);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t y = 0; y < rows; ++y)
      std::memcpy(to + (c * whole.h + at.first + y) * whole.w + at.second, from + (c * from_rows + y) * from_width,
                  size_t(columns) * sizeof(float));
}

void draw_maps(TopRun& run) {
  const auto start = std::chrono::steady_clock::now();
  const Shape image = run.image;
  const int64_t keep = run.options.keep;
  for (TopLayer& layer : run.layers) {
    const Dims dims{int64_t(layer.channels.size()), keep, image.c, layer.field.first, layer.field.second};
    layer.patches = allocate_maps(dims), layer.maps = allocate_maps(dims);
    layer.pictures.assign(layer.channels.size() * size_t(keep),
                          blank_image(int(layer.field.second), int(layer.field.first), kOutside));
  }
  Tensor one({1, image.c, image.h, image.w});
  const float* shown = nullptr;
  Image photo;
  const auto layer_of = [&](size_t unit) -> TopLayer& {
    size_t k = 0;
    while (k + 1 < run.layers.size() && run.layers[k + 1].first <= unit) ++k;
    return run.layers[k];
  };
  TopOptions options = run.options;
  options.progress = [&](int64_t done, int64_t total) { run.job.bar.update(done, total, "images with patches"); };
  top_maps(
      run.job.ctx, run.job.model, image, run.units,
      [&](int64_t number, float* to) { load_item(run.data, number, run.job.model, to), shown = nullptr; }, options,
      [&](size_t unit, size_t rank, const FieldBox& box, const float* pixels, const float* map) {
        TopLayer& layer = layer_of(unit);
        const int64_t slot = int64_t(unit - layer.first) * keep + int64_t(rank);
        const Shape whole{1, image.c, layer.field.first, layer.field.second};
        const auto at = place_in_field(box, layer.field);
        put(pixels + box.top * image.w + box.left, image.h, image.w, whole, image.c, box, at,
            layer.patches.data() + slot * whole.item());
        put(map, box.height, box.width, whole, image.c, box, at, layer.maps.data() + slot * whole.item());
        if (pixels != shown) {
          std::copy_n(pixels, image.item(), one.data());
          photo = to_rgb(input_picture(one, 0, run.job.model, false)), shown = pixels;
        }
        Image& picture = layer.pictures[size_t(slot)];
        Image part = blank_image(int(box.width), int(box.height), kOutside);
        paste(part, photo, -int(box.left), -int(box.top));
        paste(picture, part, int(at.second), int(at.first));
      });
  run.map_seconds = seconds_since(start);
}

// Pictures of one size as a square of tiles.
Image mosaic(std::span<const Image> tiles, size_t count) {
  const int columns = int(std::ceil(std::sqrt(double(tiles.size())))),
            rows = (int(tiles.size()) + columns - 1) / columns;
  const Image first = enlarge_to_at_least(tiles[0], kTileSide);
  const int w = first.width, h = first.height;
  Image all = blank_image(columns * (w + kTileGap) - kTileGap, rows * (h + kTileGap) - kTileGap, {255, 255, 255});
  for (size_t i = 0; i < count; ++i)
    paste(all, enlarge_to_at_least(tiles[i], kTileSide), int(i) % columns * (w + kTileGap),
          int(i) / columns * (h + kTileGap));
  return all;
}

// The patches of one channel beside their maps, which share one range around zero.
Panel unit_panel(const TopRun& run, const TopLayer& layer, size_t u) {
  const size_t keep = size_t(run.options.keep);
  const TopUnit& unit = run.units[layer.first + u];
  const int c = int(run.image.c), h = int(layer.field.first), w = int(layer.field.second);
  const float* maps = layer.maps.data() + int64_t(u * keep) * c * h * w;
  // As of one tall map [C,K·h,w], in which percentiles are those of all K.
  const Range range = signed_range(maps, 1, int(keep) * c * h, w, run.flags.clip_or(99.5));
  std::vector<Image> drawn;
  for (size_t k = 0; k < keep; ++k) {
    const float* map = maps + int64_t(k) * c * h * w;
    drawn.push_back(c == 1 || c == 3 ? signed_rgb_in(map, c, h, w, run.job.model.preprocess.order, range)
                                     : heatmap(channel_mean(map, c, h, w).data(), h, w, ColorMap::seismic, range));
  }
  const std::span<const Image> patches(layer.pictures.data() + u * keep, keep);
  const Canvas pair[] = {mosaic(patches, unit.top.size()), mosaic(drawn, unit.top.size())};
  const auto first = unit.top.empty() ? 0.f : unit.top[0].value;
  std::string words = fmt::format("{}: {} {:.3g}", unit.channel,
                                  run.options.order == TopOrder::highest ? "up to" : "down to", first);
  if (run.options.by == TopBy::activation && run.options.order == TopOrder::highest && first <= 0)
    words = fmt::format("{}: silent ({:.3g})", unit.channel, first);
  return {side_by_side(pair, 6), words};
}

std::string ranking_words(const TopRun& run) {
  const bool most = run.options.order == TopOrder::highest;
  if (run.options.by == TopBy::activation)
    return fmt::format("that each channel answers to {}", most ? "most" : "least");
  return fmt::format("where each channel speaks most {} the {} class", most ? "for" : "against",
                     run.flags.of == TopClass::max ? "predicted" : "labelled");
}

void save(TopRun& run, Output& output, Json& files) {
  const std::string stem = dataset_stem(run.flags.inputs[0]);
  for (const TopLayer& layer : run.layers) {
    ResultOf of(stem);
    of.layer = layer.name;
    if (output.npy()) {
      const std::vector<std::string> axes{"U", "K", "C", "H", "W"};
      files.push_back(output.add_npy(of, layer.patches, axes));
      ResultOf maps = of;
      maps.part = ".maps";
      files.push_back(output.add_npy(maps, layer.maps, axes));
    }
    if (!output.pictures()) continue;
    const size_t pages = (layer.channels.size() + kUnitsOfPage - 1) / kUnitsOfPage;
    for (size_t page = 0; page < pages; ++page) {
      std::vector<Panel> panels;
      for (size_t u = page * kUnitsOfPage; u < std::min((page + 1) * kUnitsOfPage, layer.channels.size()); ++u)
        panels.push_back(unit_panel(run, layer, u));
      ResultOf sheet = of;
      if (pages > 1) sheet.part = fmt::format("page{}", page + 1);
      const std::string subtitle =
          fmt::format("the {} patches of {} {}, beside their {} maps; {}", run.options.keep, counted(run.read, "image"),
                      ranking_words(run), word_of(kRules, run.options.rule), weights_text(run.job));
      output.add_picture(files, sheet,
                         grid(panels, {.columns = run.flags.columns,
                                       .title = figure_title(run.job, "Top patches", "layer " + layer.name),
                                       .subtitle = subtitle,
                                       .note = pages > 1 ? fmt::format("page {} of {}", page + 1, pages) : ""}),
                         {{"layer", layer.name}});
    }
  }
}

Json unit_json(const TopRun& run, const TopLayer& layer, size_t u) {
  Json list = Json::array();
  for (const TopPlace& p : run.units[layer.first + u].top) {
    const bool labelled = run.data.labelled();
    const int label = run.data.label(p.image);
    list.push_back({{"index", run.data.number(p.image)},
                    {"value", p.value},
                    {"row", p.row},
                    {"col", p.col},
                    {"label", labelled ? Json(label) : Json(nullptr)},
                    {"class", labelled ? Json(run.data.classes[size_t(label)]) : Json(nullptr)},
                    {"path", run.data.path(p.image)}});
  }
  return {{"layer", layer.name}, {"channel", layer.channels[u]}, {"top", std::move(list)}};
}

std::string class_words(const TopRun& run, int64_t image) {
  return run.data.labelled() ? fmt::format(" ({})", run.data.classes[size_t(run.data.label(image))]) : "";
}

void print_top(const TopRun& run, const Output& output) {
  print_line(run.job.summary_title("top"));
  ItemLines lines;
  for (const TopLayer& layer : run.layers)
    for (size_t u = 0; u < layer.channels.size(); ++u) {
      std::string line = fmt::format("  {}:{}", layer.name, layer.channels[u]);
      const TopList& top = run.units[layer.first + u].top;
      for (size_t k = 0; k < std::min<size_t>(3, top.size()); ++k)
        line += fmt::format("{} {:.4g} in {}{}", k == 0 ? "" : ",", top[k].value, run.data.path(top[k].image), class_words(run, top[k].image));
      lines.add(line);
    }
  lines.print();
  print_written(run.job, output.paths());
  if (run.forward_seconds > 0)
    print_line(fmt::format("search {}, of which {} are the forward passes; maps {}", human_seconds(run.search_seconds),
                           human_seconds(run.forward_seconds), human_seconds(run.map_seconds)));
  print_line(run.job.summary_times(run.read, "image"));
}

void run_top(const TopFlags& o) {
  if (o.inputs.size() != 1)
    throw Error(fmt::format("top takes one data set, but {} are given", o.inputs.size()), kDatasets, true);
  if (o.keep < 1 || o.keep > 100) throw Error(fmt::format("--keep {} is out of range", o.keep), "1 to 100", true);
  Job job("top", o);
  const std::vector<int> nodes = required_nodes(job.model.network, o.layers, o.model);
  const Dataset data = open_dataset(o.inputs[0], o.exif);
  TopRun run{.job = job,
             .flags = o,
             .data = data,
             .image = image_of(job.model),
             .options = {},
             .layers = {},
             .units = {}};
  check_image_shape(job.model.network, run.image);
  run.images = limited(data, o.limit);
  static_cast<RunOptions&>(run.options) = job.run;
  run.options.keep = std::min(o.keep, run.images), run.options.rule = o.rule;
  run.options.by = o.by, run.options.order = o.order, run.options.signal = o.signal;
  Output output(job);
  if (!data.labelled()) output.note(fmt::format("{} has no labels: classes are not named", o.inputs[0]));
  if (run.options.keep < o.keep)
    output.note(fmt::format("there are {} for the {} places of each channel", counted(run.images, "image"), o.keep));
  if (!search(run, nodes, output)) return;
  Json files = Json::array();
  if (output.pictures() || output.npy()) draw_maps(run), save(run, output, files);
  Json units = Json::array();
  for (const TopLayer& layer : run.layers)
    for (size_t u = 0; u < layer.channels.size(); ++u) units.push_back(unit_json(run, layer, u));
  Report report;
  report.inputs.push_back({{"path", o.inputs[0]}, {"index", 0}, {"files", files}});
  report.details = {{"images", run.read},
                    {"keep", run.options.keep},
                    {"rule", word_of(kRules, o.rule)},
                    {"by", word_of(kTopBy, o.by)},
                    {"order", word_of(kTopOrders, o.order)},
                    {"signal", word_of(kTopSignals, o.signal)},
                    {"units", std::move(units)}};
  report.times = {{"search_seconds", run.search_seconds}, {"forward_seconds", run.forward_seconds > 0 ? Json(run.forward_seconds) : Json(nullptr)}, {"map_seconds", run.map_seconds}};
  report.summary = [&] { print_top(run, output); };
  finish_run(job, output, std::move(report));
}

}  // namespace

std::function<void()> setup_top(CLI::App& app) {
  auto o = std::make_shared<TopFlags>();
  add_inputs(app, *o, fmt::format("{}; or a part of one, DATASET[FIRST:LAST]", kDatasets).c_str());
  add_setting(app, *o, "--limit", o->limit, Changes::values, "only the first N images", "N");
  add_model(app, *o);
  add_setting(app, *o, "--layer", o->layers, Changes::values, "the layers, as `switchback info` names them",
              "NAME[,NAME]");
  add_setting(app, *o, "--channels", o->channels, Changes::values, "which of their channels", "LIST|all");
  add_setting(app, *o, "--keep", o->keep, Changes::values, "images of each channel", "K");
  add_choice(app, *o, "--rule", kRules, o->rule, Changes::kind, "what ReLUs let through on the way back");
  add_choice(app, *o, "--by", kTopBy, o->by, Changes::values,
             "what ranks places: the activation, or activation times gradient of a class's score");
  add_choice(app, *o, "--target", kTopClasses, o->of, Changes::values,
             "--by relevance: of the predicted class, or of the data set's label");
  add_choice(app, *o, "--order", kTopOrders, o->order, Changes::values, "highest values first, or lowest");
  add_choice(app, *o, "--signal", kTopSignals, o->signal, Changes::values,
             "what goes back from a place: 1, or its activation");
  add_output(app, *o);
  add_drawing(app, *o, Drawing::columns | Drawing::clip, {.clip = "99.5th percentile of the maps"});
  add_run(app, *o);
  add_shard(app, *o);
  add_report(app, *o);
  return [o] { run_top(*o); };
}

}  // namespace switchback
