// `switchback activations`: the maps of one layer, as picture grids and as an array.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>

#include "tools/commands/commands.h"
#include "tools/cli/inputs.h"
#include "tools/cli/job.h"
#include "viz/methods/inspect.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr size_t kMostChannels = 64;  // in one picture, unless --channels asks for more

enum class ChannelSort { strongest, channel };
constexpr Choice<ChannelSort> kOrders[] = {{"strongest", ChannelSort::strongest}, {"channel", ChannelSort::channel}};

struct ActivationOptions : Options {
  std::string channels;
  ChannelSort order = ChannelSort::strongest;
  int columns = 0;
};

// The channels to show of one item, in order.
std::vector<int64_t> shown_channels(const ActivationOptions& o, const Tensor& values, int64_t item) {
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
  if (chosen.empty() && order.size() > kMostChannels) order.resize(kMostChannels);
  return order;
}

// Signed values around zero, others from the least to the most.
Range map_range(std::span<const float> values) {
  const Range range = value_range(values);
  return range.lo < 0 ? symmetric_range(values, 99.9) : range;
}

// One scale for all maps of an item, so that strong and weak channels look so. Signed maps have white at zero.
Image maps_picture(const ActivationOptions& o, const Tensor& values, int64_t item, const std::string& title) {
  const std::vector<int64_t> channels = shown_channels(o, values, item);
  const int h = int(values.dim(2)), w = int(values.dim(3));
  const float* maps = values.data() + item * values.dim(1) * h * w;
  const std::span<const float> all(maps, size_t(values.dim(1) * h * w));
  const Range range = map_range(all);
  const ColorMap colors = range.lo < 0 ? ColorMap::seismic : ColorMap::viridis;
  std::vector<Panel> panels;
  for (int64_t c : channels)
    panels.push_back({heatmap(maps + c * h * w, h, w, colors, range), std::to_string(c)});
  GridOptions options;
  options.columns = o.columns;
  options.title = title;
  return grid(panels, options);
}

// Features of a linear layer have no map: bars.
Image bars_picture(const ActivationOptions& o, const Tensor& values, int64_t item, const std::string& title) {
  std::vector<int64_t> channels = shown_channels(o, values, item);
  if (o.channels.empty() && channels.size() > 40) channels.resize(40);
  std::vector<std::string> names;
  std::vector<float> bars;
  for (int64_t c : channels) {
    names.push_back(std::to_string(c));
    bars.push_back(values[item * values.dim(1) + c]);
  }
  return bar_chart(names, bars, {.title = title, .percent = false});
}

Image picture(const ActivationOptions& o, const Tensor& values, int64_t item, const std::string& title) {
  return values.dims().size() == 4 ? maps_picture(o, values, item, title) : bars_picture(o, values, item, title);
}

Json strongest_json(const ActivationOptions& o, const Tensor& values, int64_t item) {
  const int64_t place = values.count() / values.dim(0) / values.dim(1);
  Json list = Json::array();
  std::vector<int64_t> channels = shown_channels(o, values, item);
  channels.resize(std::min(channels.size(), size_t(o.top)));
  for (int64_t c : channels) {
    const float* map = values.data() + (item * values.dim(1) + c) * place;
    list.push_back({{"channel", c},
                    {"mean", std::accumulate(map, map + place, 0.0) / double(place)},
                    {"max", *std::max_element(map, map + place)}});
  }
  return list;
}

// What the picture's colours mean: one scale for all maps of an item.
Json colors_of(const Tensor& values, int64_t item) {
  if (values.dims().size() != 4) return nullptr;  // bars
  const int64_t size = values.count() / values.dim(0);
  const std::span<const float> all = values.values().subspan(size_t(item * size), size_t(size));
  const Range range = map_range(all);
  return colors_json(range.lo < 0 ? "seismic" : "viridis", range);
}

struct Results {
  Json inputs = Json::array();
  int64_t items = 0;
};

void finish_file(const Job& job, const ActivationOptions& o, const Chunk& chunk, const Chunk::Part& part,
                 const std::string& layer, const Tensor& values, Output& output, Results& results) {
  const int64_t item_count = values.count() / values.dim(0);
  Json files = Json::array();
  if (output.npy()) {
    Dims dims = values.dims();
    dims[0] = part.count;
    Tensor own(dims);
    std::memcpy(own.data(), values.data() + part.first * item_count, size_t(own.count()) * sizeof(float));
    files.push_back(output.add_npy(
        *part.file, own,
        dims.size() == 4 ? std::vector<std::string>{"N", "C", "H", "W"} : std::vector<std::string>{"N", "C"}));
  }
  constexpr int64_t kMostItems = 12;
  std::vector<Panel> panels;
  Json colors = Json::array();
  for (int64_t i = 0; i < part.count && i < kMostItems && output.png(); ++i) {
    panels.push_back(
        {picture(o, values, part.first + i, fmt::format("{} of {}", layer, item_name(*part.file, i))), ""});
    colors.push_back(colors_of(values, part.first + i));
  }
  for (int64_t i = 0; i < std::min<int64_t>(part.count, kMostItems) && output.png(); ++i) {
    const Image pair[] = {thumbnail(input_picture(chunk.x, part.first + i, job.model, part.file->array), 224, 224),
                          thumbnail(panels[size_t(i)].picture, 1, 800)};
    output.add_panel(side_by_side(pair), item_name(*part.file, i));
  }
  if (output.png())
    files.push_back(
        output.add_png(*part.file, panels.size() == 1 ? panels[0].picture : arrange(std::move(panels), part.file->stem),
                       {{"layer", layer}, {"colors", colors}}));
  for (int64_t i = 0; i < part.count; ++i) {
    results.inputs.push_back(item_json(*part.file, i));
    results.inputs.back().update(
        Json{{"layer", layer}, {"channels", strongest_json(o, values, part.first + i)}, {"files", files}});
  }
  results.items += part.count;
}

void run_activations(const ActivationOptions& o) {
  if (o.columns < 0 || o.columns > 1000)
    throw Error(fmt::format("--columns {} is out of range", o.columns), "1 to 1000", true);
  Job job("activations", o);
  const Network& network = job.model.network;
  const int node = o.layer.empty() ? first_conv(network) : network.find(o.layer);
  const std::string& layer = network.nodes[size_t(node)].name;
  Output output(job);
  Inputs inputs(job, output);
  Results results;
  Json shape;
  const int64_t items = inputs.count();
  const auto most = [&](Shape image) {
    const int64_t bytes = network.shapes(image)[size_t(node)].item() * int64_t(sizeof(float));
    return std::clamp<int64_t>((256 << 20) / bytes, 1, 64);
  };
  inputs.for_each_chunk(most, [&](const Chunk& chunk) {
    const Tensor values = activations(job.ctx, job.model, chunk.x, node, job.run);
    shape = Dims(values.dims().begin() + 1, values.dims().end());
    for (const Chunk::Part& part : chunk.parts) finish_file(job, o, chunk, part, layer, values, output, results);
    job.bar.update(results.items, items, "images");
  });
  Report report;
  if (output.png()) report.sheet = output.add_contact_sheet(fmt::format("{} of {}", layer, job.model_name()), 1000);
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
  add_setting(app, *o, "--layer", o->layer, Changes::kind, "whose values to show (default: the first convolution)", "NAME");
  add_setting(app, *o, "--channels", o->channels, Changes::pictures,
              "which of them, for example 0-15,20 (default: up to 64)", "LIST");
  add_choice(app, *o, "--order", kOrders, o->order, Changes::pictures, "strongest first, or by channel");
  add_setting(app, *o, "--columns", o->columns, Changes::pictures, "of the grid (default: near 4:3)", "N");
  add_model(app, *o);
  add_output(app, *o);
  add_run(app, *o);
  add_report(app, *o);
  add_top(app, *o, Changes::nothing, "channels listed in the JSON document (default 5)");
  return [o] { run_activations(*o); };
}

}  // namespace switchback
