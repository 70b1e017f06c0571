// `switchback activations` with several checkpoints: how a layer's channels grow, a row a channel, a column a
// checkpoint.
#include <algorithm>

#include "tools/cli/checkpoints.h"
#include "tools/cli/inputs.h"
#include "tools/commands/activations.h"
#include "viz/methods/inspect.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr size_t kMostRowsOfChannels = 12;  // rows, unless --channels asks for others
constexpr int kSide = 84;             // of a map, about

// values: [E] tensors [N,C,H,W]. The channels are those of the last checkpoint.
Canvas maps_strip(const ActivationOptions& o, const std::vector<Tensor>& values, int64_t item, Image input,
                  std::vector<std::string> headings, GridOptions words) {
  const int h = int(values[0].dim(2)), w = int(values[0].dim(3));
  std::vector<SheetRow> rows;
  std::vector<float> everything;  // of the layer: whether it is signed
  for (const Tensor& of : values) {
    const auto maps = item_values(of, item);
    everything.insert(everything.end(), maps.begin(), maps.end());
  }
  const ColorScale layer = map_colors(o, everything);
  for (int64_t c : shown_channels(o, values.back(), item, kMostRowsOfChannels)) {
    SheetRow& row = rows.emplace_back(SheetRow{o.plain ? "" : std::to_string(c), {}});
    if (!o.plain) row.panels.push_back({rows.size() == 1 ? Canvas(input) : Canvas(), ""});
    std::vector<float> all;  // of the row, for one scale
    for (const Tensor& of : values) {
      const auto map = item_values(of, item).subspan(size_t(c * h * w), size_t(h * w));
      all.insert(all.end(), map.begin(), map.end());
    }
    const ColorScale one = own_colors(o, layer, all);
    for (const Tensor& of : values) {
      const auto map = item_values(of, item).subspan(size_t(c * h * w), size_t(h * w));
      const ColorScale colors = o.panel_scale == PanelScale::shared ? one : own_colors(o, one, map);
      row.panels.push_back(
          {heatmap(map.data(), h, w, colors.map, colors.range), o.plain ? "" : range_text(colors, map)});
    }
  }
  words.panel_side = std::max(1, (kSide + std::max(h, w) / 2) / std::max(h, w)) * std::max(h, w);
  if (o.plain) return contact_sheet(rows, {}, {.panel_side = words.panel_side});
  headings.insert(headings.begin(), "input");
  return contact_sheet(rows, headings, words);
}

// Of a linear layer a line for each feature.
Canvas feature_lines(const ActivationOptions& o, const std::vector<Tensor>& values, int64_t item,
                     const std::vector<std::string>& places, const std::string& title) {
  std::vector<Series> lines;
  const std::vector<int64_t> channels = shown_channels(o, values.back(), item, kMostRowsOfChannels);
  for (size_t k = 0; k < channels.size(); ++k) {
    Series& line = lines.emplace_back();
    line.name = std::to_string(channels[k]);
    line.color = color(ColorMap::viridis, channels.size() > 1 ? 0.9f * float(k) / float(channels.size() - 1) : 0.4f);
    for (const Tensor& of : values) line.values.push_back(of[item * of.dim(1) + channels[k]]);
  }
  return line_chart(places, lines, {.title = title, .width = std::clamp(360 + 60 * int(places.size()), 720, 2400)});
}

}  // namespace

void run_activation_strips(Job& job, const ActivationOptions& o) {
  const int node = o.layer.empty() ? first_conv(job.model.network) : job.model.network.find(o.layer);
  const std::string layer = job.model.network.nodes[size_t(node)].name;
  const std::vector<std::string> names = weights_names(job.checkpoints);
  Output output(job);
  Inputs inputs(job, output);
  Report report;
  int64_t items = 0;
  Dims shape;
  const auto most = [&](Shape image) {
    return std::max<int64_t>(1, most_items(job.model.network.shapes(image)[size_t(node)]) / int64_t(names.size()));
  };
  const int64_t all = inputs.count();
  inputs.for_each_chunk(most, [&](const Chunk& chunk) {
    std::vector<Tensor> values;
    for (size_t e = 0; e < names.size(); ++e) {
      job.open_checkpoint(e);
      values.push_back(activations(job.ctx, job.model, chunk.x, node, job.run));
    }
    std::vector<const Tensor*> arrays;
    for (const Tensor& of : values) arrays.push_back(&of);
    shape = Dims(values[0].dims().begin() + 1, values[0].dims().end());
    for (const Chunk::Part& part : chunk.parts) {
      Json files = Json::array();
      if (output.npy())
        files.push_back(output.add_npy(*part.file, over_checkpoints(arrays, part.first, part.count),
                                       shape.size() == 3 ? std::vector<std::string>{"N", "E", "C", "H", "W"}
                                                         : std::vector<std::string>{"N", "E", "C"}));
      std::vector<Canvas> pictures;
      for (int64_t i = 0; output.pictures() && i < std::min(part.count, kMostActivationItems); ++i) {
        const std::string title =
            fmt::format("Activations, {}, layer {}, {}", job.model_name(), layer, item_name(*part.file, i));
        pictures.push_back(
            shape.size() == 3
                ? maps_strip(
                      o, values, part.first + i, input_picture(chunk.x, part.first + i, job.model, part.file->array),
                      names,
                      {.title = title, .subtitle = weights_text(job), .note = shown_note(o, shape[0], kMostRowsOfChannels)})
                : feature_lines(o, values, part.first + i, names, title));
      }
      if (part.count > int64_t(pictures.size()) && !pictures.empty())
        output.note(fmt::format("the picture of {} shows the first {} of {} inputs", part.file->path, pictures.size(),
                                part.count));
      if (!pictures.empty()) output.add_picture(files, *part.file, one_below_other(pictures), {{"layer", layer}});
      for (int64_t i = 0; i < part.count; ++i) {
        report.inputs.push_back(item_json(*part.file, i));
        report.inputs.back().update(Json{{"layer", layer}, {"files", files}});
      }
    }
    items += chunk.x.dim(0);
    job.bar.update(items, all, "images");
  });
  report.details = {{"layer", layer}, {"shape", shape}};
  report.summary = [&] {
    print_line(job.summary_title(fmt::format("activations at {} {}", layer, to_string(shape))));
    print_written(job, output.paths());
    print_line(job.summary_times(items, "image"));
  };
  finish_run(job, output, std::move(report));
}

}  // namespace switchback
