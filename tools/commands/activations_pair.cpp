// `switchback activations --pair A:B`: layers of equal size side by side, as Khozein's thesis (figures 6 to 8) shows an
// autoencoder's encoding and decoding layers, and how much of each repeats with the stride.
#include <algorithm>

#include "tools/cli/inputs.h"
#include "tools/commands/activations.h"
#include "viz/methods/inspect.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr size_t kMostChannelsOfPair = 16;  // of a layer, unless --channels asks for others
constexpr int kColumns = 4;

struct Pair {
  int first, second;   // nodes
  int64_t stride = 1;  // of the transposed convolution among them, or else of a convolution
};

// The stride of the convolution that a node's values come from, 0 where there is none; `transposed`: whether it is one.
int64_t stride_of(const Network& network, int node, bool& transposed) {
  for (int at = node;; at = network.nodes[size_t(at)].inputs[0]) {
    const Node& n = network.nodes[size_t(at)];
    if (const auto* conv = std::get_if<Conv2d>(&n.layer)) return conv->stride_h == conv->stride_w ? conv->stride_h : 0;
    if (const auto* conv = std::get_if<ConvTranspose2d>(&n.layer)) {
      transposed = true;
      return conv->stride_h == conv->stride_w ? conv->stride_h : 0;
    }
    if (n.inputs.size() != 1) return 0;
  }
}

std::vector<Pair> parse_pairs(const Network& network, const std::string& text) {
  std::vector<Pair> pairs;
  for (const std::string& part : split_list(text)) {
    const size_t colon = part.find(':');
    if (colon == std::string::npos || part.find(':', colon + 1) != std::string::npos)
      throw Error(fmt::format("--pair '{}' is no pair of layers", printable(part)), "for example enc0:dec1,enc1:dec2",
                  true);
    Pair pair{network.find(part.substr(0, colon)), network.find(part.substr(colon + 1))};
    const auto shapes = network.shapes(network.input);
    const Shape a = shapes[size_t(pair.first)], b = shapes[size_t(pair.second)];
    if (a.h != b.h || a.w != b.w || a.h * a.w == 1)
      throw Error(fmt::format("--pair {}: maps of {}x{} beside maps of {}x{}", part, a.h, a.w, b.h, b.w),
                  "layers with maps of one size can be compared; `switchback info` lists sizes", true);
    bool first_transposed = false, second_transposed = false;
    const int64_t first = stride_of(network, pair.first, first_transposed),
                  second = stride_of(network, pair.second, second_transposed);
    pair.stride = second_transposed || !first_transposed ? second : first;
    if (pair.stride <= 1) pair.stride = std::max(first, second);
    pairs.push_back(pair);
  }
  return pairs;
}

// Over all channels of one item.
StrideEnergy energy_of(const Tensor& values, int64_t item, int64_t stride) {
  const int h = int(values.dim(2)), w = int(values.dim(3));
  StrideEnergy sum;
  for (int64_t c = 0; c < values.dim(1); ++c) {
    const StrideEnergy of = stride_energy(item_values(values, item).data() + c * h * w, h, w, int(stride));
    sum.periodic += of.periodic, sum.total += of.total, sum.chance = of.chance;
  }
  return sum;
}

Json energy_json(const StrideEnergy& e) { return e.total > 0 ? Json(e.periodic / e.total) : Json(nullptr); }

std::string percent(const StrideEnergy& e) {
  return e.total > 0 ? fmt::format("{:.1f} %", 100 * e.periodic / e.total) : "no";
}

// The maps of one layer, each as large as the input.
Canvas maps_picture(const ActivationOptions& o, const Tensor& values, int64_t item, const Image& input,
                    const std::string& title, const std::string& subtitle) {
  const int h = int(values.dim(2)), w = int(values.dim(3));
  const std::span<const float> all = item_values(values, item);
  const ColorScale layer = map_colors(o, all);
  std::vector<Panel> panels;
  for (int64_t c : shown_channels(o, values, item, kMostChannelsOfPair)) {
    const std::span<const float> map = all.subspan(size_t(c * h * w), size_t(h * w));
    const ColorScale colors = o.panel_scale == PanelScale::shared ? layer : own_colors(o, layer, map);
    panels.push_back({resized(heatmap(map.data(), h, w, colors.map, colors.range), input.width, input.height),
                      o.plain ? "" : fmt::format("{}: {}", c, range_text(colors, map))});
  }
  GridOptions words{.columns = o.columns > 0 ? o.columns : kColumns,
                    .panel_side = large_side(std::max(input.width, input.height)) / 2};
  if (!o.plain) {
    words.title = title;
    words.subtitle = subtitle;
    words.note = shown_note(o, values.dim(1), kMostChannelsOfPair);
  }
  return grid(panels, words);
}

// What the network makes of an input, where that is an image like it.
bool reconstructs(const Shape& input, const Shape& output) {
  return input.with_n(1) == output.with_n(1) && (input.c == 1 || input.c == 3) && input.h * input.w > 1;
}

struct Layers {
  std::vector<Pair> pairs;
  std::vector<int> nodes;  // of the pairs, each once; the output is the last one
  std::vector<Tensor> values;
  const Tensor& of(int node) const { return values[size_t(std::ranges::find(nodes, node) - nodes.begin())]; }
};

Canvas picture_of(const Job& job, const ActivationOptions& o, const Chunk& chunk, const Chunk::Part& part, int64_t i,
                  const Layers& layers) {
  const int64_t item = part.first + i;
  const Image input = input_picture(chunk.x, item, job.model, part.file->array);
  std::vector<Canvas> rows;
  const Tensor& output = layers.values.back();
  std::vector<Panel> images = {{input, item_name(*part.file, i)}};
  const auto shape = [](const Tensor& t) {
    return Shape{1, t.dim(1), t.dims().size() == 4 ? t.dim(2) : 1, t.dims().size() == 4 ? t.dim(3) : 1};
  };
  if (reconstructs(shape(chunk.x), shape(output)))
    images.push_back({input_picture(output, item, job.model, part.file->array), "reconstruction"});
  const GridOptions words{
      .columns = int(images.size()),
      .panel_side = large_side(std::max(input.width, input.height)),
      .title = o.plain ? "" : fmt::format("Layers of equal size, {}, {}", job.model_name(), item_name(*part.file, i)),
      .subtitle = o.plain ? "" : weights_text(job)};
  if (!o.plain) rows.push_back(grid(images, words));
  for (const Pair& pair : layers.pairs) {
    std::vector<Canvas> both;
    for (int node : {pair.first, pair.second}) {
      const Tensor& values = layers.of(node);
      std::string about;
      if (pair.stride > 1) {
        const StrideEnergy e = energy_of(values, item, pair.stride);
        about = fmt::format("{} of the energy repeats every {} pixels (of noise {:.1f} %)", percent(e), pair.stride,
                            100 * e.chance);
      }
      both.push_back(maps_picture(o, values, item, input,
                                  fmt::format("{}, {}x{}x{}", job.model.network.nodes[size_t(node)].name, values.dim(1),
                                              values.dim(2), values.dim(3)),
                                  about));
    }
    rows.push_back(side_by_side(both));
  }
  return one_below_other(rows);
}

}  // namespace

void run_activation_pairs(Job& job, const ActivationOptions& o) {
  if (job.several()) throw Error("--pair shows one network, but several --weights are given", "a run for each", true);
  if (!o.layer.empty()) throw Error("--pair and --layer exclude each other", "--pair names its layers", true);
  const Network& network = job.model.network;
  Layers layers{.pairs = parse_pairs(network, o.pairs), .nodes = {}, .values = {}};
  for (const Pair& pair : layers.pairs)
    for (int node : {pair.first, pair.second})
      if (std::ranges::find(layers.nodes, node) == layers.nodes.end()) layers.nodes.push_back(node);
  layers.nodes.push_back(int(network.nodes.size()) - 1);
  Output output(job);
  Inputs inputs(job, output);
  Report report;
  ItemLines lines;
  int64_t items = 0;
  const int64_t all = inputs.count();
  const auto most = [&](Shape image) {
    int64_t values = 0;
    const auto shapes = network.shapes(image);
    for (int node : layers.nodes) values += shapes[size_t(node)].item();
    return most_items({1, values, 1, 1});
  };
  inputs.for_each_chunk(most, [&](const Chunk& chunk) {
    layers.values.clear();
    for (int node : layers.nodes) layers.values.push_back(activations(job.ctx, job.model, chunk.x, node, job.run));
    for (const Chunk::Part& part : chunk.parts) {
      Json files = Json::array();
      if (output.npy())
        for (size_t k = 0; k + 1 < layers.nodes.size(); ++k)
          files.push_back(output.add_npy({*part.file, name_part(network.nodes[size_t(layers.nodes[k])].name)},
                                         items_of(layers.values[k], part.first, part.count), {"N", "C", "H", "W"}));
      std::vector<Canvas> pictures;
      for (int64_t i = 0; output.pictures() && i < std::min(part.count, kMostActivationItems); ++i)
        pictures.push_back(picture_of(job, o, chunk, part, i, layers));
      if (!pictures.empty()) output.add_picture(files, *part.file, one_below_other(pictures, 24), {{"pairs", o.pairs}});
      if (!pictures.empty() && int64_t(pictures.size()) < part.count)
        output.note(fmt::format("the picture of {} shows the first {} of {} inputs", part.file->path, pictures.size(),
                                part.count));
      for (int64_t i = 0; i < part.count; ++i) {
        Json list = Json::array();
        std::string line;
        for (const Pair& pair : layers.pairs) {
          const std::string &a = network.nodes[size_t(pair.first)].name, &b = network.nodes[size_t(pair.second)].name;
          list.push_back({{"layers", {a, b}}, {"stride", pair.stride}});
          if (pair.stride <= 1) continue;
          const StrideEnergy x = energy_of(layers.of(pair.first), part.first + i, pair.stride),
                             y = energy_of(layers.of(pair.second), part.first + i, pair.stride);
          list.back()["checkerboard"] = {energy_json(x), energy_json(y)};
          list.back()["chance"] = x.chance;
          line += fmt::format("  {} {}, {} {}", a, percent(x), b, percent(y));
        }
        lines.add(fmt::format("  {:<28}{}", item_name(*part.file, i), line));
        report.inputs.push_back(item_json(*part.file, i));
        report.inputs.back().update(Json{{"pairs", std::move(list)}, {"files", files}});
      }
    }
    items += chunk.x.dim(0);
    job.bar.update(items, all, "images");
  });
  report.summary = [&] {
    print_line(job.summary_title("pairs of layers"));
    lines.print();
    print_line("  (share of the energy around each map's mean that repeats with the stride: the checkerboard)");
    print_written(job, output.paths());
    print_line(job.summary_times(items, "image"));
  };
  finish_run(job, output, std::move(report));
}

}  // namespace switchback
