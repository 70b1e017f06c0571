// `switchback channels`: which channels of a layer answer to an image, and which still do when a part of it is
// occluded.
#include "viz/methods/channels.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <memory>

#include "tools/cli/figure.h"
#include "tools/cli/inputs.h"
#include "tools/cli/job.h"
#include "tools/commands/commands.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr int64_t kMostListed = 20;  // channels beside a chart
constexpr size_t kMostRows = 12;     // charts in one picture

struct ChannelsOptions : Options {
  std::vector<std::string> layers, boxes;
  std::string fill = "0";
};

// What a run looks at.
struct Selection {
  std::vector<int> nodes;
  std::vector<std::string> names;
  std::vector<std::string> notes;  // what the values of each layer are where they are not those after its ReLU; else ""
  ChannelOptions options;
  std::string fill;
  int64_t top = 10;
  int64_t copies() const { return 1 + int64_t(options.boxes.size()); }
  std::string box(int64_t b) const {
    const Box& box = options.boxes[size_t(b)];
    return fmt::format("{},{},{},{}", box.col, box.row, box.width, box.height);
  }
};

// "the value before bn1 and relu"
std::string note(const Network& network, int node) {
  std::vector<std::string> names;
  for (int i : nodes_to_relu(network, node)) names.push_back(network.nodes[size_t(i)].name);
  return names.empty() ? "" : fmt::format("its value before {}", fmt::join(names, " and "));
}

Selection open_view(const Job& job, const ChannelsOptions& o) {
  Selection view;
  view.nodes = required_nodes(job.model.network, o.layers, o.model);
  for (const int node : view.nodes) {
    view.names.push_back(job.model.network.nodes[size_t(node)].name);
    view.notes.push_back(note(job.model.network, node));
  }
  static_cast<RunOptions&>(view.options) = job.run;
  for (const std::string& box : o.boxes) view.options.boxes.push_back(parse_box(box));
  view.options.fill = parse_fill(o.fill);
  view.fill = o.fill;
  view.top = o.top;
  return view;
}

// ---- one input, or the average of several: means[k] is [1+B,C] for layer k

using Means = std::vector<Tensor>;

Means average_of(const Means& means, int64_t first, int64_t count) {
  Means average;
  for (const Tensor& layer : means) average.push_back(average_means(layer, first, count));
  return average;
}

double layer_mean(const Tensor& means, int64_t copy) {
  double sum = 0;
  for (int64_t c = 0; c < means.dim(1); ++c) sum += means[copy * means.dim(1) + c];
  return sum / double(means.dim(1));
}

Json copy_json(const Selection& view, const Tensor& means, int64_t copy) {
  const std::vector<int64_t> top = top_channels(means, copy, view.top);
  Json list = Json::array();
  for (int64_t c : top) list.push_back({{"channel", c}, {"mean", means[copy * means.dim(1) + c]}});
  Json entry = {{"mean", layer_mean(means, copy)}, {"top", std::move(list)}};
  if (copy > 0) entry["shared"] = shared_channels(top_channels(means, 0, view.top), top);
  return entry;
}

Json layers_json(const Selection& view, const Means& means) {
  Json layers = Json::array();
  for (size_t k = 0; k < means.size(); ++k) {
    Json layer = {{"layer", view.names[k]}, {"channels", means[k].dim(1)}};
    layer.update(copy_json(view, means[k], 0));
    Json occluded = Json::array();
    for (int64_t b = 0; b + 1 < view.copies(); ++b) {
      const Box& box = view.options.boxes[size_t(b)];
      occluded.push_back({{"box", {box.col, box.row, box.width, box.height}}});
      occluded.back().update(copy_json(view, means[k], b + 1));
    }
    if (view.copies() > 1) layer["occluded"] = std::move(occluded);
    layers.push_back(std::move(layer));
  }
  return layers;
}

// The table of Amirli 2021, with the means.
void print_layer(const Selection& view, size_t k, const Tensor& means) {
  const std::string about = view.notes[k].empty() ? "" : ": " + view.notes[k];
  print_line(fmt::format("{} ({} channels){}", view.names[k], means.dim(1), about));
  const std::vector<int64_t> clean = top_channels(means, 0, view.top);
  print_line("  channel      mean");
  for (int64_t c : clean) print_line(fmt::format("  {:>7}  {:>8.4g}", c, means[c]));
  print_line(fmt::format("  {:>7}  {:>8.4g}", "all", layer_mean(means, 0)));
  if (view.copies() == 1) return;
  print_line(fmt::format("  occluded (fill {})   shared      mean  most active channels", view.fill));
  for (int64_t b = 0; b + 1 < view.copies(); ++b) {
    const std::vector<int64_t> top = top_channels(means, b + 1, view.top);
    print_line(fmt::format("  {:<{}}   {:>6}  {:>8.4g}  {}", view.box(b), view.fill.size() + 16,
                           fmt::format("{}/{}", shared_channels(clean, top), clean.size()), layer_mean(means, b + 1),
                           fmt::join(top, ", ")));
  }
}

// ---- pictures

// What the network saw of one item with box b filled (b < 0: of the item itself), the box outlined.
Image copy_picture(const Selection& view, const Job& job, const Chunk& chunk, const Chunk::Part& part, int64_t b) {
  Tensor x = batch_item(chunk.x, part.first);
  const Shape image{1, x.dim(1), x.dim(2), x.dim(3)};
  if (b >= 0) fill_box(view.options.boxes[size_t(b)], baseline(view.options.fill, x.data(), image), x.data(), image);
  const Image picture = input_picture(x, 0, job.model, part.file->array);
  Image large = to_rgb(enlarge_to_at_least(picture, 168));
  if (b < 0) return large;
  const Box& box = view.options.boxes[size_t(b)];
  const int scale = large.width / picture.width, thick = std::max(1, large.width / 112);
  const int x0 = box.col * scale, y0 = box.row * scale, w = box.width * scale, h = box.height * scale;
  const Rgb red = {220, 30, 30};
  fill_rectangle(large, x0, y0, w, thick, red);
  fill_rectangle(large, x0, y0 + h - thick, w, thick, red);
  fill_rectangle(large, x0, y0, thick, h, red);
  fill_rectangle(large, x0 + w - thick, y0, thick, h, red);
  return large;
}

// All channels of one copy, and the most active ones; those that lead in the clean image are marked.
Canvas copy_chart(const Selection& view, size_t k, const Tensor& means, int64_t copy, int64_t images) {
  const int64_t channels = means.dim(1);
  const std::vector<int64_t> clean = top_channels(means, 0, view.top), top = top_channels(means, copy, view.top);
  const std::span<const float> values(means.data() + copy * channels, size_t(channels));
  ColumnOptions columns;
  columns.title = copy == 0 ? fmt::format("{}: mean activation of each channel", view.names[k])
                            : fmt::format("{}, occluded {}, fill {}", view.names[k], view.box(copy - 1), view.fill);
  if (images > 1) columns.title += fmt::format(", {} images", images);
  columns.range = value_range(means.values());  // one scale for all copies
  columns.marked = clean;
  std::vector<std::string> names;
  std::vector<float> bars;
  BarOptions list;
  list.title = copy == 0 ? fmt::format("the {} most active", top.size())
                         : fmt::format("{} of {} shared", shared_channels(clean, top), top.size());
  list.width = 240;
  list.percent = false;
  for (int64_t c : top) {
    if (int64_t(names.size()) == kMostListed) break;
    if (std::find(clean.begin(), clean.end(), c) != clean.end()) list.marked.push_back(int(names.size()));
    names.push_back(std::to_string(c));
    bars.push_back(values[size_t(c)]);
  }
  const Canvas charts[] = {column_chart(values, columns), bar_chart(names, bars, list)};
  return side_by_side(charts);
}

// One row for each layer and copy, of the means over `images`. `thumbnails`: of the copies of a single one.
Canvas picture(const Job& job, const Selection& view, const Means& means, int64_t images,
               const std::vector<Image>& thumbnails) {
  std::vector<Canvas> rows;
  for (size_t k = 0; k < means.size(); ++k)
    for (int64_t copy = 0; copy < view.copies() && rows.size() < kMostRows; ++copy) {
      Canvas chart = copy_chart(view, k, means[k], copy, images);
      if (!thumbnails.empty()) chart = side_by_side(std::vector<Canvas>{thumbnails[size_t(copy)], std::move(chart)});
      rows.push_back(std::move(chart));
    }
  GridOptions words{.title = figure_title(job, "Channels"), .subtitle = weights_text(job)};
  if (const size_t all = means.size() * size_t(view.copies()); all > rows.size())
    words.note = fmt::format("the first {} of {} charts", rows.size(), all);
  return titled(one_below_other(rows), words);
}

std::vector<Image> thumbnails(const Selection& view, const Job& job, const Chunk& chunk, const Chunk::Part& part) {
  std::vector<Image> pictures;
  for (int64_t b = -1; b + 1 < view.copies() && b < int64_t(kMostRows); ++b)
    pictures.push_back(thumbnail(copy_picture(view, job, chunk, part, b), 168, 336));
  return pictures;
}

// ---- results

// Copies first … first + copies of `count` items, [count,C] (one copy) or [count,copies,C].
Tensor cut(const Tensor& means, int64_t item, int64_t count, int64_t first, int64_t copies) {
  const int64_t all = means.dim(1), channels = means.dim(2);
  Tensor out(first == 0 ? Dims{count, channels} : Dims{count, copies, channels});
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(out.data() + i * copies * channels, means.data() + ((item + i) * all + first) * channels,
                size_t(copies * channels) * sizeof(float));
  return out;
}

void save_arrays(const Selection& view, const Means& means, const Chunk::Part& part, Output& output, Json& files) {
  for (size_t k = 0; k < means.size(); ++k) {
    ResultOf of(*part.file);
    of.layer = view.names[k];
    files.push_back(output.add_npy(of, cut(means[k], part.first, part.count, 0, 1), {"N", "C"}));
    files.back()["layer"] = view.names[k];
    if (view.copies() == 1) continue;
    of.part = "occluded";
    files.push_back(output.add_npy(of, cut(means[k], part.first, part.count, 1, view.copies() - 1), {"N", "B", "C"}));
    files.back()["layer"] = view.names[k];
  }
}

struct ChannelResults {
  Json inputs = Json::array();
  int64_t items = 0;
  std::vector<std::vector<double>> sums;  // of every layer's means over all items
  Means average() const;
  std::vector<Dims> dims;
};

Means ChannelResults::average() const {
  Means means;
  for (size_t k = 0; k < sums.size(); ++k) {
    Tensor layer(dims[k]);
    for (size_t e = 0; e < sums[k].size(); ++e) layer[int64_t(e)] = float(sums[k][e] / double(items));
    means.push_back(std::move(layer));
  }
  return means;
}

void finish_file(const Job& job, const Selection& view, const Chunk& chunk, const Chunk::Part& part, const Means& means,
                 Output& output, ChannelResults& results) {
  Json files = Json::array();
  if (output.pictures()) {
    const bool one = part.count == 1;
    output.add_picture(files, *part.file,
                       picture(job, view, average_of(means, part.first, part.count), part.count,
                               one ? thumbnails(view, job, chunk, part) : std::vector<Image>()));
  }
  if (output.npy()) save_arrays(view, means, part, output, files);
  for (int64_t i = 0; i < part.count; ++i) {
    results.inputs.push_back(item_json(*part.file, i));
    results.inputs.back()["layers"] = layers_json(view, average_of(means, part.first + i, 1));
    results.inputs.back()["files"] = files;
  }
  results.items += part.count;
}

void add_to_sums(const Means& means, ChannelResults& results) {
  results.sums.resize(means.size());
  for (size_t k = 0; k < means.size(); ++k) {
    const int64_t item = means[k].dim(1) * means[k].dim(2);
    results.sums[k].resize(size_t(item), 0);
    for (int64_t i = 0; i < means[k].count(); ++i) results.sums[k][size_t(i % item)] += means[k][i];
  }
  results.dims.clear();
  for (const Tensor& layer : means) results.dims.push_back({layer.dim(1), layer.dim(2)});
}

Report report_of(const Job& job, const Selection& view, ChannelResults& results, const Output& output) {
  const Means average = results.average();
  Report report;
  report.inputs = std::move(results.inputs);
  report.details = {{"fill", view.fill}, {"layers", layers_json(view, average)}};  // the average of all inputs
  for (size_t k = 0; k < view.notes.size(); ++k)
    report.details["layers"][k]["note"] = view.notes[k].empty() ? Json(nullptr) : Json(view.notes[k]);
  report.summary = [&] {
    const Means means = results.average();
    print_line(job.summary_title("channels"));
    if (results.items > 1) print_line(fmt::format("the average of {} images:", results.items));
    for (size_t k = 0; k < means.size(); ++k) print_layer(view, k, means[k]);
    print_written(job, output.paths());
    print_line(job.summary_times(results.items, "image"));
  };
  return report;
}

void run_channels(const ChannelsOptions& o) {
  Job job("channels", o);
  Selection view = open_view(job, o);
  Output output(job);
  Inputs inputs(job, output);
  ChannelResults results;
  const int64_t items = inputs.count();
  view.options.progress = [&](int64_t done, int64_t) {
    job.bar.update(results.items * view.copies() + done, items * view.copies(), "images");
  };
  const auto most = [&](Shape image) -> int64_t {
    check_boxes(view.options.boxes, image);
    return 64;
  };
  inputs.for_each_chunk(most, [&](const Chunk& chunk) {
    const Means means = channel_means(job.ctx, job.model, chunk.x, view.nodes, view.options);
    add_to_sums(means, results);
    for (const Chunk::Part& part : chunk.parts) finish_file(job, view, chunk, part, means, output, results);
  });
  Report report = report_of(job, view, results, output);
  if (const size_t charts = view.nodes.size() * size_t(view.copies()); output.pictures() && charts > kMostRows)
    output.note(fmt::format("pictures show the first {} of {} charts", kMostRows, charts));
  if (output.pictures() && inputs.files().size() > 1) {
    Json files = Json::array();
    output.add_picture(files, {kAverage}, picture(job, view, results.average(), results.items, {}));
    report.details["average"] = files[0]["path"];
  }
  finish_run(job, output, std::move(report));
}

}  // namespace

std::function<void()> setup_channels(CLI::App& app) {
  auto o = std::make_shared<ChannelsOptions>();
  o->top = 10;
  add_inputs(app, *o, fmt::format("{}; several are averaged", kInputs).c_str());
  add_setting(app, *o, "--layer", o->layers, Changes::kind,
              "whose channels, several with commas or repeated; a convolution's values are those before its batch norm and "
              "ReLU: for those after it name the ReLU",
              "NAME[,NAME]")
      ->delimiter(',');
  add_occlusion(app, *o, o->boxes, o->fill);
  add_model(app, *o);
  add_output(app, *o);
  add_run(app, *o);
  add_report(app, *o);
  add_top(app, *o, Changes::pictures, "channels that count as most active (default 10)");
  return [o] { run_channels(*o); };
}

}  // namespace switchback
