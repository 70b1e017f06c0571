// `switchback classify`: the most probable classes of each image; of networks whose outputs are maps, the class of
// every place.
#include "tools/commands/classify.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <tuple>

#include "tools/cli/figure.h"
#include "tools/commands/commands.h"
#include "viz/methods/inspect.h"
#include "viz/pictures/label_map.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

struct Ranking {
  std::vector<int64_t> order;  // classes, most probable first
  std::vector<double> probability;  // NaN where the output is a value
};

Ranking rank(std::span<const float> logits, Outputs outputs, int64_t top) {
  Ranking r;
  r.probability = probabilities(logits, outputs);
  r.order.resize(logits.size());
  std::iota(r.order.begin(), r.order.end(), 0);
  std::stable_sort(r.order.begin(), r.order.end(),
                   [&](int64_t a, int64_t b) { return logits[size_t(a)] > logits[size_t(b)]; });
  r.order.resize(std::min(r.order.size(), size_t(top)));
  return r;
}

}  // namespace

std::string shown_name(const Job& job, int64_t c) {
  const std::string name = job.class_name(c);
  return name.empty() || name == std::to_string(c) ? std::to_string(c) : fmt::format("{} {}", c, name);
}

namespace {

Json entry_json(const Job& job, const Chunk::Part& part, int64_t i, std::span<const float> logits, const Ranking& r) {
  const auto of = [&](int64_t c) {
    return Json{{"target", c},
                {"class", job.class_json(c)},
                {"score", logits[size_t(c)]},
                {"probability", r.probability[size_t(c)]}};  // NaN becomes null
  };
  Json entry = item_json(*part.file, i);
  entry.update(of(r.order[0]));
  entry["top"] = Json::array();
  for (int64_t c : r.order) entry["top"].push_back(of(c));
  return entry;
}

Canvas chart(const Job& job, const Chunk& chunk, const Chunk::Part& part, int64_t i, std::span<const float> logits,
             const Ranking& r) {
  const bool percent = job.outputs != Outputs::value;
  std::vector<std::string> names;
  std::vector<float> values;
  for (int64_t c : r.order) {
    names.push_back(shown_name(job, c));
    values.push_back(percent ? float(r.probability[size_t(c)]) : logits[size_t(c)]);
  }
  const Canvas pictures[] = {thumbnail(input_picture(chunk.x, part.first + i, job.model, part.file->array), 224, 448),
                             bar_chart(names, values, {.title = item_name(*part.file, i), .percent = percent})};
  return side_by_side(pictures);
}

std::string summary_line(const Job& job, const Chunk::Part& part, int64_t i, std::span<const float> logits,
                         const Ranking& r) {
  std::string line = fmt::format("  {:<28}", item_name(*part.file, i));
  for (int64_t c : r.order)
    line += job.outputs == Outputs::value
                ? fmt::format("  {} {:.6g}", job.class_name(c).empty() ? "value" : job.class_name(c), logits[size_t(c)])
                : fmt::format("  {} {:.1f} %", shown_name(job, c), 100 * r.probability[size_t(c)]);
  return line;
}

struct Classified {
  Json inputs = Json::array();
  ItemLines lines;
  int64_t items = 0;
};

// ---- outputs that are maps

Json map_json(const Job& job, const Chunk::Part& part, int64_t i, const LabelMap& map) {
  const auto of = [&](const LabelMap::Share& s) {
    return Json{{"target", s.label}, {"class", job.class_json(s.label)}, {"share", s.share}};
  };
  Json entry = item_json(*part.file, i);
  entry.update(of(map.shares[0]));
  entry["top"] = Json::array();
  for (size_t k = 0; k < std::min(map.shares.size(), size_t(job.options.top)); ++k)
    entry["top"].push_back(of(map.shares[k]));
  return entry;
}

Canvas segmentation(const Job& job, const Chunk& chunk, const Chunk::Part& part, int64_t i, const LabelMap& map) {
  const Image photo = input_picture(chunk.x, part.first + i, job.model, part.file->array);
  Image colored = label_overlay(photo, map, job.model.labels, job.options.alpha_or(0.6));
  if (job.options.plain) return colored;
  const Canvas both[] = {photo, std::move(colored)};
  const bool wide = photo.width > 3 * photo.height / 2;
  const Canvas pair = wide ? one_below_other(both) : side_by_side(both);
  const Canvas all[] = {pair, label_legend(map, job.model.labels, 20)};
  return side_by_side(all);
}

std::string map_line(const Job& job, const Chunk::Part& part, int64_t i, const LabelMap& map) {
  std::string line = fmt::format("  {:<28}", item_name(*part.file, i));
  for (size_t k = 0; k < std::min(map.shares.size(), size_t(job.options.top)); ++k)
    line += fmt::format("  {} {:.1f} %", shown_name(job, map.shares[k].label), 100 * map.shares[k].share);
  return line;
}

// ---- outputs that are one map: no class, a number at every place

struct PlaceValues {
  std::vector<float> map;  // [h,w]; of a sigmoid the probabilities
  double mean = 0;
  float least = 0, most = 0;
};

PlaceValues place_values(const Job& job, std::span<const float> scores) {
  PlaceValues v{{scores.begin(), scores.end()}};
  if (job.outputs == Outputs::labels) std::ranges::copy(probabilities(scores, job.outputs), v.map.begin());
  v.mean = std::accumulate(v.map.begin(), v.map.end(), 0.0) / double(v.map.size());
  std::tie(v.least, v.most) = std::pair(std::ranges::min(v.map), std::ranges::max(v.map));
  return v;
}

Answer place_answer(const Job& job, const Chunk& chunk, const Chunk::Part& part, int64_t i, const Tensor& all,
                    std::span<const float> scores) {
  const PlaceValues v = place_values(job, scores);
  const bool percent = job.outputs == Outputs::labels || job.outputs == Outputs::probabilities;
  const std::string name = job.class_name(0).empty() ? percent ? "probability" : "value" : job.class_name(0);
  return {{{"path", part.file->path},
           {"index", i},
           {"target", 0},
           {"class", job.class_json(0)},
           {"mean", v.mean},
           {"min", v.least},
           {"max", v.most}},
          fmt::format("  {:<28}  {} {:.4g} on average, {:.4g} to {:.4g}", item_name(*part.file, i), name, v.mean,
                      v.least, v.most),
          [&, i, v, name]() -> Canvas {
            const Image photo = input_picture(chunk.x, part.first + i, job.model, part.file->array);
            const ColorScale colors{.map = job.options.map_or(ColorMap::viridis), .range = {v.least, v.most}};
            Image colored = overlay(photo, v.map.data(), int(all.dim(2)), int(all.dim(3)), colors.map,
                                    job.options.alpha_or(0.6), colors.range);
            if (job.options.plain) return Canvas(std::move(colored));
            return grid(std::vector<Panel>{{photo, item_name(*part.file, i)}, {std::move(colored), name, colors}},
                        {.columns = 2, .panel_side = large_side(std::max(photo.width, photo.height))});
          }};
}

// ---- outputs that are images: no classes, but the input again

// An output like the input, whose channels have no names.
bool is_reconstruction(const Job& job, Shape input, Shape output) {
  return output.with_n(1) == input.with_n(1) && input.h * input.w > 1 && (input.c == 1 || input.c == 3) &&
         job.model.labels.empty();
}

Shape shape_of(const Tensor& t) {
  return t.dims().size() == 4 ? Shape{t.dim(0), t.dim(1), t.dim(2), t.dim(3)} : Shape{t.dim(0), t.dim(1), 1, 1};
}

Answer reconstruction_answer(const Job& job, const Chunk& chunk, const Chunk::Part& part, int64_t i, const Tensor& all,
                             std::span<const float> scores) {
  Tensor output({1, all.dim(1), all.dim(2), all.dim(3)});
  std::ranges::copy(scores, output.data());
  if (job.outputs == Outputs::labels)
    std::ranges::copy(probabilities(scores, job.outputs), output.data());  // of a sigmoid
  const int64_t plane = all.dim(2) * all.dim(3);
  const float* x = chunk.x.data() + (part.first + i) * output.count();
  std::vector<float> error(size_t(plane), 0);  // the mean of |difference| over channels
  double absolute = 0, square = 0;
  for (int64_t k = 0; k < output.count(); ++k) {
    const double difference = double(output[k]) - x[k];
    absolute += std::abs(difference), square += difference * difference;
    error[size_t(k % plane)] += float(std::abs(difference) / double(all.dim(1)));
  }
  const double n = double(output.count()), mean = absolute / n, root = std::sqrt(square / n);
  Json entry = item_json(*part.file, i);
  entry["reconstruction"] = {{"mean_absolute_error", mean}, {"root_mean_square_error", root}};
  const std::string about = fmt::format("mean |error| {:.4g}, RMSE {:.4g}", mean, root);
  return {std::move(entry), fmt::format("  {:<28}  reconstruction: {} (input units)", item_name(*part.file, i), about),
          [&, i, about, output = std::make_shared<Tensor>(std::move(output)), error = std::move(error)]() -> Canvas {
            const int h = int(all.dim(2)), w = int(all.dim(3));
            Image drawn = input_picture(*output, 0, job.model, part.file->array);
            if (job.options.plain) return drawn;
            const ColorScale colors{.map = job.options.map_or(ColorMap::viridis), .range = {0, value_range(error).hi}};
            const std::vector<Panel> panels = {
                {input_picture(chunk.x, part.first + i, job.model, part.file->array), item_name(*part.file, i)},
                {std::move(drawn), "reconstruction"},
                {heatmap(error.data(), h, w, colors.map, colors.range), about, colors}};
            return grid(panels, {.columns = 3, .panel_side = large_side(std::max(h, w))});
          }};
}

}  // namespace

// ---- all items of a file

Answer answer_for(const Job& job, const Chunk& chunk, const Chunk::Part& part, int64_t i, const Tensor& all) {
  const int64_t item = all.count() / all.dim(0);
  const std::span<const float> scores = all.values().subspan(size_t((part.first + i) * item), size_t(item));
  if (is_reconstruction(job, shape_of(chunk.x), shape_of(all)))
    return reconstruction_answer(job, chunk, part, i, all, scores);
  if (all.dims().size() == 4 && all.dim(1) == 1) return place_answer(job, chunk, part, i, all, scores);
  if (all.dims().size() == 4) {
    LabelMap map = label_map(scores.data(), int(all.dim(1)), int(all.dim(2)), int(all.dim(3)));
    return {map_json(job, part, i, map), map_line(job, part, i, map),
            [&, i, map = std::move(map)] { return segmentation(job, chunk, part, i, map); }};
  }
  Ranking r = rank(scores, job.outputs, job.options.top);
  return {entry_json(job, part, i, scores, r), summary_line(job, part, i, scores, r),
          [&, i, scores, r = std::move(r)] { return chart(job, chunk, part, i, scores, r); }};
}

Tensor saved_scores(const Job& job, const Chunk::Part& part, const Tensor& all) {
  Dims dims = all.dims();
  dims[0] = part.count;
  Tensor own(dims);
  std::copy_n(all.data() + part.first * (all.count() / all.dim(0)), own.count(), own.data());
  if (job.outputs == Outputs::labels)  // a sigmoid belongs to the network's output, unlike a softmax
    std::ranges::copy(probabilities(own.values(), job.outputs), own.data());
  return own;
}

std::string classify_title(const Job& job) {
  const Shape input = job.model.network.input, output = job.model.network.shapes(input).back();
  return figure_title(job, is_reconstruction(job, input, output) ? "Reconstruction"
                           : output.h * output.w > 1             ? "Segmentation"
                                                                 : "Most probable classes");
}

// Maps of a single place are classes.
Tensor outputs_of_chunk(Job& job, const Chunk& chunk, const RunOptions& options) {
  Tensor all = logits(job.ctx, job.model, chunk.x, options);
  for (float v : all.values()) CHECK(std::isfinite(v), "the logits of {} are not finite", job.options.model);
  if (all.dims().size() != 4 || all.dim(2) * all.dim(3) != 1) return all;
  return std::move(all).reshaped({all.dim(0), all.dim(1)});
}

int64_t most_images(const Network& network, Shape image) {
  return std::clamp<int64_t>((1 << 26) / network.shapes(image.with_n(1)).back().item(), 1, 256);
}

namespace {

void classify_file(Job& job, const Chunk& chunk, const Chunk::Part& part, const Tensor& all, Output& output,
                   Classified& result) {
  Json files = Json::array();
  if (output.npy()) {
    const std::vector<std::string> axes{"N", "K", "H", "W"};
    files.push_back(output.add_npy(*part.file, saved_scores(job, part, all),
                                   {axes.begin(), axes.begin() + int64_t(all.dims().size())}));
  }
  std::vector<Panel> panels;
  std::vector<Json> entries;
  for (int64_t i = 0; i < part.count; ++i) {
    Answer answer = answer_for(job, chunk, part, i, all);
    entries.push_back(std::move(answer.entry));
    result.lines.add(std::move(answer.line));
    if (!output.pictures()) continue;
    const Canvas picture = answer.picture();
    if (panels.size() <= kMostGridPanels) panels.push_back({picture, ""});
    output.add_to_sheet({{picture, all.dims().size() == 4 ? item_name(*part.file, i) : ""}});
  }
  if (output.pictures()) {
    GridOptions words{.title = classify_title(job), .subtitle = weights_text(job)};
    if (panels.size() > 1) words.panel_side = 800;
    if (part.count == 1 && all.dims().size() == 4) words.title += ", " + item_name(*part.file, 0);
    if (part.count > int64_t(kMostGridPanels))
      output.note(fmt::format("the picture of {} shows the first {} of {} images", part.file->path, kMostGridPanels,
                              part.count));
    if (job.options.plain) words = {};
    output.add_picture(files, *part.file,
                       panels.size() > 1   ? arrange(std::move(panels), words)
                       : job.options.plain ? panels[0].picture
                                           : titled(panels[0].picture, words));
  }
  for (Json& entry : entries) {
    entry["files"] = files;
    result.inputs.push_back(std::move(entry));
  }
  result.items += part.count;
}

void run_classify(const Options& o) {
  Job job("classify", o);
  if (job.several()) return run_classify_strips(job);
  Output output(job);
  Inputs inputs(job, output);
  Classified result;
  const int64_t items = inputs.count();
  inputs.for_each_chunk([&](Shape image) { return most_images(job.model.network, image); },
                        [&](const Chunk& chunk) {
                          RunOptions options = job.run;
                          options.progress = [&](int64_t n, int64_t) {
                            job.bar.update(result.items + n, items, "images");
                          };
                          const Tensor all = outputs_of_chunk(job, chunk, options);
                          for (const Chunk::Part& part : chunk.parts)
                            classify_file(job, chunk, part, all, output, result);
                        });
  Report report;
  if (output.pictures())
    report.sheet = output.add_contact_sheet(
        {.columns = o.columns, .panel_side = 800, .title = classify_title(job), .subtitle = weights_text(job)});
  report.inputs = std::move(result.inputs);
  report.summary = [&, sheet = report.sheet] {
    print_line(job.summary_title("classify"));
    result.lines.print();
    print_written(job, output.paths(), sheet);
    print_line(job.summary_times(result.items, "image"));
  };
  finish_run(job, output, std::move(report));
}

}  // namespace

std::function<void()> setup_classify(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_inputs(app, *o, kInputs);
  add_checkpoints(app, *o);
  add_output(app, *o, false);
  add_drawing(app, *o, Drawing::plain | Drawing::colormap | Drawing::alpha | Drawing::columns,
              {.colormap = "viridis, of outputs that are one map", .alpha = "0.6"});
  add_run(app, *o);
  add_report(app, *o);
  add_top(app, *o, Changes::pictures, "classes to show (default 5)");
  return [o] { run_classify(*o); };
}

}  // namespace switchback
