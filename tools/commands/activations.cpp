// `switchback activations`: the maps of one layer, as picture grids and as an array.
#include "tools/commands/activations.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>

#include "tools/cli/inputs.h"
#include "tools/commands/commands.h"
#include "viz/methods/inspect.h"
#include "viz/methods/tokens.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr size_t kMostChannels = 64;  // in one picture, unless --channels asks for others

constexpr Choice<ChannelSort> kOrders[] = {{"strongest", ChannelSort::strongest}, {"channel", ChannelSort::channel}};

}  // namespace

std::vector<int64_t> shown_channels(const ActivationOptions& o, const Tensor& values, int64_t item, size_t most) {
  const std::vector<int64_t> chosen = parse_list("--channels", o.channels, values.dim(1));
  std::vector<int64_t> order;
  if (o.order == ChannelSort::strongest) {
    order = strongest_channels(values, item);
    if (!chosen.empty())
      std::erase_if(order, [&](int64_t c) { return std::find(chosen.begin(), chosen.end(), c) == chosen.end(); });
  } else if (!chosen.empty()) {
    order = chosen;
  } else {
    order.resize(size_t(values.dim(1)));
    std::iota(order.begin(), order.end(), 0);
  }
  if (chosen.empty() && order.size() > most) order.resize(most);
  return order;
}

namespace {

Range map_range(const Options& o, std::span<const float> values) {
  const Range range = value_range(values);
  if (range.lo < 0) return symmetric_range(values, o.clip_or(99.9));
  return {range.lo, o.clip_or(100) < 100 ? percentile(values, o.clip_or(100)) : range.hi};
}

}  // namespace

ColorScale map_colors(const Options& o, std::span<const float> values) {
  const Range range = map_range(o, values);
  return {.map = o.map_or(range.lo < 0 ? ColorMap::seismic : ColorMap::viridis), .range = range};
}

ColorScale own_colors(const Options& o, const ColorScale& layer, std::span<const float> map) {
  ColorScale colors = layer;  // signed maps of a layer are all signed
  colors.range = layer.range.lo < 0 ? symmetric_range(map, o.clip_or(99.9)) : map_range(o, map);
  return colors;
}

std::string range_text(const ColorScale& colors, std::span<const float> map) {
  const Range values = value_range(map);
  if (values.lo == values.hi) return short_number(values.lo);
  if (colors.range.lo < 0) return "±" + short_number(colors.range.hi);  // of a signed layer
  return fmt::format("{}…{}", short_number(colors.range.lo), short_number(colors.range.hi));
}

std::span<const float> item_values(const Tensor& values, int64_t item) {
  const int64_t size = values.count() / values.dim(0);
  return values.values().subspan(size_t(item * size), size_t(size));
}

Tensor items_of(const Tensor& values, int64_t first, int64_t count) {
  Dims dims = values.dims();
  const int64_t item = values.count() / dims[0];
  dims[0] = count;
  Tensor own(dims);
  std::memcpy(own.data(), values.data() + first * item, size_t(own.count()) * sizeof(float));
  return own;
}

int64_t most_items(Shape values) {
  return std::clamp<int64_t>((256 << 20) / (values.item() * int64_t(sizeof(float))), 1, 64);
}

std::string shown_note(const ActivationOptions& o, int64_t channels, size_t most) {
  if (!o.channels.empty() || channels <= int64_t(most)) return "";
  const std::string which = o.order == ChannelSort::strongest
                                ? fmt::format("the {} strongest of {} channels, by their mean", most, channels)
                                : fmt::format("the first {} of {} channels", most, channels);
  return which + "; --channels all shows all";
}

namespace {

// With --panel-scale own each map over its own range, which is written below it; else all of an item on one scale,
// whose bar stands below, so that strong and weak channels look so. Signed maps have their middle at zero.
Canvas maps_picture(const ActivationOptions& o, const Tensor& values, int64_t item) {
  const bool own = o.panel_scale != PanelScale::shared;
  const int h = int(values.dim(2)), w = int(values.dim(3));
  const std::span<const float> all = item_values(values, item);
  const ColorScale one = map_colors(o, all);
  std::vector<Panel> panels;
  for (int64_t c : shown_channels(o, values, item, kMostChannels)) {
    const std::span<const float> map = all.subspan(size_t(c * h * w), size_t(h * w));
    const ColorScale colors = own ? own_colors(o, one, map) : one;
    std::string label = std::to_string(c);
    if (own && !o.plain) label += "\n" + range_text(colors, map);
    panels.push_back({heatmap(map.data(), h, w, colors.map, colors.range), o.plain ? "" : label});
  }
  GridOptions options;
  options.columns = o.columns;
  if (o.plain) return grid(panels, options);
  options.note = shown_note(o, values.dim(1), kMostChannels);
  if (own)
    options.subtitle = fmt::format("each channel on its own scale ({}), whose ends stand below it", name_of(one.map));
  else
    options.colors = one;
  return grid(panels, options);
}

// Features of a linear layer have no map: bars.
Canvas bars_picture(const ActivationOptions& o, const Tensor& values, int64_t item) {
  std::vector<std::string> names;
  std::vector<float> bars;
  for (int64_t c : shown_channels(o, values, item, kMostChannels)) {
    names.push_back(std::to_string(c));
    bars.push_back(values[item * values.dim(1) + c]);
  }
  return bar_chart(names, bars, {.title = shown_note(o, values.dim(1), kMostChannels), .percent = false});
}

Canvas picture(const ActivationOptions& o, const Tensor& values, int64_t item) {
  return values.dims().size() == 4 ? maps_picture(o, values, item) : bars_picture(o, values, item);
}

Json strongest_json(const ActivationOptions& o, const Tensor& values, int64_t item) {
  const int64_t place = values.count() / values.dim(0) / values.dim(1);
  Json list = Json::array();
  std::vector<int64_t> channels = shown_channels(o, values, item, kMostChannels);
  channels.resize(std::min(channels.size(), size_t(o.top)));
  for (int64_t c : channels) {
    const float* map = values.data() + (item * values.dim(1) + c) * place;
    list.push_back({{"channel", c},
                    {"mean", std::accumulate(map, map + place, 0.0) / double(place)},
                    {"max", *std::max_element(map, map + place)}});
  }
  return list;
}

// What the picture's colours mean.
Json colors_of(const ActivationOptions& o, const Tensor& values, int64_t item) {
  if (values.dims().size() != 4) return nullptr;  // bars
  const ColorScale colors = map_colors(o, item_values(values, item));
  if (o.panel_scale != PanelScale::shared) return {{"map", name_of(colors.map)}, {"scale", "own"}};
  return colors_json(name_of(colors.map), colors.range);
}

struct Results {
  Json inputs = Json::array();
  int64_t items = 0;
};

// What pictures show: of tokens the patches, as a map.
struct DrawnTokens {
  Tensor on_map;  // empty where the values are maps themselves
  std::string layer;
};
DrawnTokens drawn_tokens(const Network& network, const Chunk& chunk, int node, const Tensor& values) {
  DrawnTokens shown{{}, network.nodes[size_t(node)].name};
  if (values.dims().size() != 4) return shown;
  const auto grid = token_grid(network, {1, chunk.x.dim(1), chunk.x.dim(2), chunk.x.dim(3)}, node);
  if (!grid) return shown;
  shown.on_map = on_grid(values, *grid);
  shown.layer += fmt::format(" (tokens as {}×{} patches)", grid->h, grid->w);
  return shown;
}

void finish_file(const Job& job, const ActivationOptions& o, const Chunk& chunk, const Chunk::Part& part,
                 const std::string& layer, const Tensor& values, const DrawnTokens& shown, Output& output, Results& results) {
  const Tensor& drawn_values = shown.on_map.empty() ? values : shown.on_map;
  Json files = Json::array();
  if (output.npy())
    files.push_back(output.add_npy(
        *part.file, items_of(values, part.first, part.count),
        values.dims().size() == 4 ? std::vector<std::string>{"N", "C", "H", "W"} : std::vector<std::string>{"N", "C"}));
  std::vector<Panel> panels;
  Json colors = Json::array();
  const int64_t drawn = output.pictures() ? std::min(part.count, kMostActivationItems) : 0;
  for (int64_t i = 0; i < drawn; ++i) {
    const std::string name = item_name(*part.file, i);
    colors.push_back(colors_of(o, drawn_values, part.first + i));
    const Canvas input = thumbnail(input_picture(chunk.x, part.first + i, job.model, part.file->array), 224, 224);
    const Canvas pair[] = {input, picture(o, drawn_values, part.first + i)};
    const GridOptions words{.title = fmt::format("Activations, {}, layer {}, {}", job.model_name(), shown.layer, name),
                            .subtitle = weights_text(job)};
    panels.push_back({o.plain ? pair[1] : titled(side_by_side(pair), words), ""});
    output.add_to_sheet({{side_by_side(pair), name}});
  }
  if (output.pictures()) {
    GridOptions options{.title = part.file->stem, .subtitle = weights_text(job)};
    for (const Panel& panel : panels)
      options.panel_side = std::max({options.panel_side, int(panel.picture.width()), int(panel.picture.height())});
    if (drawn < part.count) {
      options.note = fmt::format("the first {} of {} inputs", drawn, part.count);
      output.note(fmt::format("the picture of {} shows {}", part.file->path, options.note));
    }
    output.add_picture(files, *part.file, panels.size() == 1 ? panels[0].picture : grid(panels, options),
                       {{"layer", layer}, {"colors", colors}});
  }
  for (int64_t i = 0; i < part.count; ++i) {
    results.inputs.push_back(item_json(*part.file, i));
    results.inputs.back().update(
        Json{{"layer", layer}, {"channels", strongest_json(o, values, part.first + i)}, {"files", files}});
  }
  results.items += part.count;
}

void run_activations(const ActivationOptions& o) {
  Job job("activations", o);
  if (!o.pairs.empty()) return run_activation_pairs(job, o);
  if (job.several()) return run_activation_strips(job, o);
  const Network& network = job.model.network;
  const int node = o.layer.empty() ? first_conv(network) : network.find(o.layer);
  const std::string& layer = network.nodes[size_t(node)].name;
  Output output(job);
  Inputs inputs(job, output);
  Results results;
  Json shape;
  const int64_t items = inputs.count();
  const auto most = [&](Shape image) { return most_items(network.shapes(image)[size_t(node)]); };
  inputs.for_each_chunk(most, [&](const Chunk& chunk) {
    const Tensor values = activations(job.ctx, job.model, chunk.x, node, job.run);
    shape = Dims(values.dims().begin() + 1, values.dims().end());
    const DrawnTokens shown = output.pictures() ? drawn_tokens(network, chunk, node, values) : DrawnTokens{{}, layer};
    for (const Chunk::Part& part : chunk.parts) finish_file(job, o, chunk, part, layer, values, shown, output, results);
    job.bar.update(results.items, items, "images");
  });
  Report report;
  if (output.pictures())
    report.sheet =
        output.add_contact_sheet({.panel_side = 1000, .title = fmt::format("{} of {}", layer, job.model_name())});
  if (const std::string note = shown_note(o, shape[0], kMostChannels); output.pictures() && !note.empty())
    output.note("pictures show " + note);
  report.inputs = std::move(results.inputs);
  report.details = {{"layer", layer}, {"shape", shape}};
  report.summary = [&, sheet = report.sheet] {
    print_line(job.summary_title(fmt::format("activations at {} {}", layer, shape.dump())));
    print_written(job, output.paths(), sheet);
    print_line(job.summary_times(results.items, "image"));
  };
  finish_run(job, output, std::move(report));
}

}  // namespace

std::function<void()> setup_activations(CLI::App& app) {
  auto o = std::make_shared<ActivationOptions>();
  add_inputs(app, *o, kInputs);
  add_setting(app, *o, "--layer", o->layer, Changes::kind, "whose values to show (default: the first convolution)",
              "NAME");
  add_setting(
      app, *o, "--pair", o->pairs, Changes::values,
      "pairs of layers of equal size side by side, as the encoder's and the decoder's of an autoencoder, beside input "
      "and reconstruction",
      "A:B[,A:B...]");
  add_setting(app, *o, "--channels", o->channels, Changes::pictures,
              fmt::format("which of them, for example 0-15,20, or all (default: up to {})", kMostChannels), "LIST|all");
  add_choice(app, *o, "--order", kOrders, o->order, Changes::pictures,
             "strongest first, by the mean over the map, or by channel");
  add_checkpoints(app, *o);
  add_output(app, *o);
  add_drawing(app, *o, kMapDrawing,
              {.colormap = "viridis; seismic where there are negative values", .clip = "none; of signed maps 99.9"});
  add_run(app, *o);
  add_report(app, *o);
  add_top(app, *o, Changes::nothing, "channels listed in the JSON document (default 5)");
  return [o] { run_activations(*o); };
}

}  // namespace switchback
