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

struct ActivationOptions : Options {
  std::string channels, order = "strongest";
  int columns = 0;
};

// The channels to show of one item, in order.
std::vector<int64_t> shown_channels(const ActivationOptions& o, const Tensor& values, int64_t item) {
  const std::vector<int64_t> chosen = parse_list("--channels", o.channels, values.dim(1));
  std::vector<int64_t> order;
  if (o.order == "strongest") {
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

// One scale for all maps of an item, so that strong and weak channels look so. Signed maps have white at zero.
Image maps_picture(const ActivationOptions& o, const Tensor& values, int64_t item, const std::string& title) {
  const std::vector<int64_t> channels = shown_channels(o, values, item);
  const int h = int(values.dim(2)), w = int(values.dim(3));
  const float* maps = values.data() + item * values.dim(1) * h * w;
  const std::span<const float> all(maps, size_t(values.dim(1) * h * w));
  const Range range = value_range(all);
  const bool is_signed = range.lo < 0;
  std::vector<Panel> panels;
  for (int64_t c : channels)
    panels.push_back({heatmap(maps + c * h * w, h, w, is_signed ? ColorMap::seismic : ColorMap::viridis,
                              is_signed ? symmetric_range(all, 99.9) : range),
                      std::to_string(c)});
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
        part.file->stem + ".activations.npy", own,
        dims.size() == 4 ? std::vector<std::string>{"N", "C", "H", "W"} : std::vector<std::string>{"N", "C"}));
  }
  constexpr int64_t kMostItems = 12;
  std::vector<Panel> panels;
  for (int64_t i = 0; i < part.count && i < kMostItems && output.png(); ++i)
    panels.push_back(
        {picture(o, values, part.first + i, fmt::format("{} of {}", layer, item_name(*part.file, i))), ""});
  for (int64_t i = 0; i < std::min<int64_t>(part.count, kMostItems) && output.png(); ++i) {
    const Image pair[] = {thumbnail(input_picture(chunk.x, part.first + i, job.model, part.file->array), 224, 224),
                          thumbnail(panels[size_t(i)].picture, 1, 800)};
    output.add_panel(side_by_side(pair), item_name(*part.file, i));
  }
  if (output.png())
    files.push_back(
        output.add_png(part.file->stem + ".activations.png",
                       panels.size() == 1 ? panels[0].picture : arrange(std::move(panels), part.file->stem)));
  for (int64_t i = 0; i < part.count; ++i)
    results.inputs.push_back({{"path", part.file->path},
                              {"index", i},
                              {"layer", layer},
                              {"channels", strongest_json(o, values, part.first + i)},
                              {"files", files}});
  results.items += part.count;
}

void run_activations(const ActivationOptions& o) {
  check_choice("--order", o.order, {"strongest", "channel"});
  if (o.columns < 0 || o.columns > 1000)
    throw Error(fmt::format("--columns {} is out of range", o.columns), "1 to 1000", true);
  Job job("activations", o);
  const Network& network = job.model.network;
  const int node = o.layer.empty() ? first_conv(network) : network.find(o.layer);
  const std::string& layer = network.nodes[size_t(node)].name;
  const std::vector<InputFile> files = list_inputs(o.inputs);
  Output output(o);
  Results results;
  Json shape;
  const int64_t items = count_items(files);
  const auto most = [&](Shape image) {
    const int64_t bytes = network.shapes(image)[size_t(node)].item() * int64_t(sizeof(float));
    return std::clamp<int64_t>((256 << 20) / bytes, 1, 64);
  };
  for_each_chunk(files, job.model, most, [&](const Chunk& chunk) {
    const Tensor values = activations(job.ctx, job.model, chunk.x, node, job.run);
    shape = Dims(values.dims().begin() + 1, values.dims().end());
    for (const Chunk::Part& part : chunk.parts) finish_file(job, o, chunk, part, layer, values, output, results);
    job.bar.update(results.items, items, "images");
  });
  const std::string sheet =
      output.png() ? output.add_contact_sheet("activations", fmt::format("{} of {}", layer, job.model_name()), 1000) : "";
  output.commit();
  job.bar.clear();
  if (o.json) {
    Json document = job.header();
    document["inputs"] = std::move(results.inputs);
    if (!sheet.empty()) document["contact_sheet"] = sheet;
    document["layer"] = layer;
    document["shape"] = shape;
    job.add_footer(document);
    print_json(document);
  } else if (!o.quiet) {
    print_line(job.summary_title(fmt::format("activations at {} {}", layer, shape.dump())));
    for (const std::string& path : output.paths()) print_line("wrote " + path);
    print_line(job.summary_times(results.items, "image"));
  }
}

}  // namespace

std::function<void()> setup_activations(CLI::App& app) {
  auto o = std::make_shared<ActivationOptions>();
  add_inputs(app, *o, "images, folders of images, .npy arrays [N,C,H,W]");
  add_model(app, *o);
  app.add_option("--layer", o->layer, "whose values to show (default: the first convolution)")->type_name("NAME");
  app.add_option("--channels", o->channels, "which of them, for example 0-15,20 (default: up to 64)")
      ->type_name("LIST");
  app.add_option("--order", o->order, "strongest first, or by channel (default strongest)")
      ->type_name("strongest|channel");
  app.add_option("--columns", o->columns, "of the grid (default: near 4:3)")->type_name("N");
  add_output(app, *o);
  add_run(app, *o);
  add_report(app, *o);
  add_top(app, *o, "channels listed in the JSON document (default 5)");
  return [o] { run_activations(*o); };
}

}  // namespace switchback
