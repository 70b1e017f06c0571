// `switchback gradient --along`: one pixel's derivative along a line of inputs.
#include "viz/methods/along.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "tools/cli/figure.h"
#include "tools/cli/inputs.h"
#include "tools/commands/map_methods.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr int64_t kMostPoints = 1'000'000;
constexpr int64_t kMostShown = 600;  // of the chart
constexpr Rgb kMark = {222, 110, 30};

// "x,y"
std::array<int64_t, 2> parse_pixel(const std::string& text) {
  if (text.empty()) return {-1, -1};
  const std::vector<std::string> parts = split_list(text);
  if (parts.size() != 2)
    throw Error(fmt::format("--pixel '{}' is not X,Y", printable(text)), "column and row, from 0", true);
  return {parse_whole("--pixel", parts[1], 0, int64_t(1) << 30), parse_whole("--pixel", parts[0], 0, int64_t(1) << 30)};
}

// The network's input with a ring around the pixel.
Canvas marked(const Tensor& x, const Job& job, bool array, std::array<int64_t, 2> pixel, double side) {
  const Image picture = input_picture(x, 0, job.model, array);
  const double scale = side / double(std::max(picture.width, picture.height));
  Canvas canvas(picture.width * scale, picture.height * scale);
  canvas.image(picture, 0, 0, canvas.width(), canvas.height());
  const double column = (double(pixel[1]) + 0.5) * scale, row = (double(pixel[0]) + 0.5) * scale,
               r = std::max(6.0, scale);
  for (const auto& [a, b, c, d] : {std::array{-r, -r, r, -r}, {r, -r, r, r}, {r, r, -r, r}, {-r, r, -r, -r}})
    canvas.line({column + a, row + b}, {column + c, row + d}, 1.5, kMark);
  return canvas;
}

std::vector<std::string> channel_names(const Job& job, int64_t channels) {
  const bool rgb = channels == 3;
  std::vector<std::string> names;
  for (int64_t c = 0; c < channels; ++c)
    names.push_back(
        rgb ? std::string(std::array{"red", "green",
                                     "blue"}[size_t(job.model.preprocess.order == ChannelOrder::bgr ? 2 - c : c)])
            : fmt::format("channel {}", c));
  return names;
}

Canvas chart(const Job& job, const Along& a) {
  constexpr Rgb kColours[] = {{200, 40, 40}, {40, 140, 60}, {49, 104, 142}};
  const int64_t points = a.derivative.dim(0), channels = a.derivative.dim(1), shown = std::min(points, kMostShown);
  const std::vector<std::string> names = channel_names(job, channels);
  std::vector<std::string> places;
  std::vector<Series> lines;
  for (int64_t c = 0; c < std::min<int64_t>(channels, 8); ++c) {
    const bool rgb = channels == 3;
    lines.push_back({.name = names[size_t(c)],
                     .values = {},
                     .color = channels == 1 ? kColours[2]
                                            : kColours[rgb && names[size_t(c)] == "blue"  ? 2
                                                       : rgb && names[size_t(c)] == "red" ? 0
                                                                                          : size_t(c) % 3]});
  }
  for (int64_t i = 0; i < shown; ++i) {
    const int64_t p = i * (points - 1) / std::max<int64_t>(1, shown - 1);
    places.push_back(fmt::format("{:.2f}", double(p) / double(points - 1)));
    for (size_t c = 0; c < lines.size(); ++c) {
      const double largest = double(a.largest[p]);
      lines[c].values.push_back(largest > 0 ? double(a.derivative[p * channels + int64_t(c)]) / largest : 0);
    }
  }
  return line_chart(places, lines,
                    {.title = fmt::format("derivative at column {}, row {}, as a share of the largest of all pixels",
                                          a.pixel[1], a.pixel[0]),
                     .width = 900});
}

}  // namespace

void run_along(const MapOptions& o) {
  if (o.times_input || !o.save_tape.empty() || !o.load_tape.empty())
    throw Error("--times-input, --save-tape and --load-tape are of maps, not of a line", "leave out --along", true);
  AlongOptions options;
  options.points = parse_whole("--points", o.points, 2, kMostPoints);
  options.pixel = parse_pixel(o.pixel);
  options.rule = o.rule;
  options.noise = o.along_noise;
  options.seed = parse_seed(o.seed);
  Job job("gradient", o);
  if (o.along != "seed") options.end = load_single(o.along, job);
  static_cast<RunOptions&>(options) = job.run;
  Output output(job, std::string(word_of(kRules, o.rule)));
  Inputs inputs(job, output);
  const int64_t all = inputs.count();
  int64_t done = 0, batch = 0;
  options.progress = [&](int64_t n, int64_t total) { job.bar.update(done * total + n, all * total, "points"); };
  Report report;
  ItemLines lines;
  inputs.for_each_chunk(
      [](Shape) { return 1; },
      [&](const Chunk& chunk) {
        for (const Chunk::Part& part : chunk.parts) {
          Json files = Json::array();
          std::vector<Json> entries;
          std::vector<Canvas> rows;
          Tensor derivatives, largest;
          for (int64_t i = 0; i < part.count; ++i) {
            const Tensor x = batch_item(chunk.x, part.first + i);
            Tensor one({1, chunk.x.dim(1), chunk.x.dim(2), chunk.x.dim(3)});
            std::copy_n(x.data(), one.count(), one.data());
            options.image = uint32_t(item_number(*part.file, i));
            const Along a = along(job.ctx, job.model, one, job.target, job.model.labels, options);
            batch = std::max(batch, a.batch);
            const std::string name = item_name(*part.file, i);
            Json entry = item_json(*part.file, i);
            add_explained(entry, job, a.explained);
            int64_t turns = 0;  // points between which some channel's derivative changes its sign
            for (int64_t p = 1; p < options.points; ++p)
              for (int64_t c = 0; c < one.dim(1); ++c)
                if (double(a.derivative[p * one.dim(1) + c]) * double(a.derivative[(p - 1) * one.dim(1) + c]) < 0) {
                  ++turns;
                  break;
                }
            entry.update(Json{{"pixel", {a.pixel[1], a.pixel[0]}}, {"sign_changes", turns}});
            entries.push_back(std::move(entry));
            lines.add(fmt::format("  {:<28} {}, pixel {},{}: its derivative changes its sign {} on the way", name,
                                  unit_name(job, a.explained.units[0]), a.pixel[1], a.pixel[0],
                                  turns == 1 ? "once" : fmt::format("{} times", turns)));
            if (output.pictures() && i < 8) {
              const bool array = part.file->array;
              rows.push_back(side_by_side(std::vector<Canvas>{marked(one, job, array, a.pixel, 224), chart(job, a),
                                                              marked(a.end, job, array, a.pixel, 224)}));
            }
            if (derivatives.empty())
              derivatives = Tensor({part.count, options.points, one.dim(1)}),
              largest = Tensor({part.count, options.points});
            std::copy_n(a.derivative.data(), a.derivative.count(), derivatives.data() + i * a.derivative.count());
            std::copy_n(a.largest.data(), a.largest.count(), largest.data() + i * a.largest.count());
            ++done;
          }
          if (output.pictures())
            output.add_picture(
                files, *part.file,
                titled(one_below_other(rows),
                       {.title = figure_title(job, fmt::format("One pixel's derivative, from the input to {}",
                                                               o.along == "seed" ? "a noisy copy" : o.along)),
                        .subtitle = fmt::format("{}; {}", counted(options.points, "point"), weights_text(job)),
                        .note = part.count > 8 ? fmt::format("the first 8 of {} inputs", part.count) : ""}));
          if (output.npy()) {
            files.push_back(output.add_npy(*part.file, derivatives, {"N", "P", "C"}));
            files.push_back(output.add_npy({*part.file, "largest"}, largest, {"N", "P"}));
          }
          for (Json& entry : entries) {
            entry["files"] = files;
            report.inputs.push_back(std::move(entry));
          }
        }
      });
  report.details = {{"rule", word_of(kRules, o.rule)},
                    {"along", o.along},
                    {"points", options.points},
                    {"noise", o.along == "seed" ? Json(o.along_noise) : Json(nullptr)},
                    {"batch", batch}};
  report.summary = [&] {
    print_line(job.summary_title(fmt::format("{} along a line of {} points", word_of(kRules, o.rule), options.points)));
    lines.print();
    print_written(job, output.paths());
    print_line(job.summary_times(done * options.points, "point"));
  };
  finish_run(job, output, std::move(report));
}

}  // namespace switchback
