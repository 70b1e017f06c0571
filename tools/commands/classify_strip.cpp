// `switchback classify` with several checkpoints: of classes a chart of their probabilities, of outputs that are maps
// or images a strip.
#include <algorithm>
#include <limits>
#include <numeric>

#include "tools/cli/checkpoints.h"
#include "tools/cli/figure.h"
#include "tools/commands/classify.h"
#include "viz/methods/target.h"

namespace switchback {
namespace {

constexpr size_t kMostStripItems = 12;  // of one file in one picture

constexpr Rgb kLineColors[] = {{49, 104, 142}, {222, 110, 30}, {30, 140, 70}, {200, 60, 50},  {120, 80, 160},
                               {140, 100, 60}, {210, 90, 160}, {90, 90, 90},  {170, 170, 30}, {20, 170, 190}};

// The classes that a checkpoint finds most probable, each a line over the checkpoints.
Canvas probability_chart(const Job& job, const std::vector<Tensor>& outputs, int64_t item,
                         const std::vector<std::string>& names, const std::string& title) {
  const int64_t classes = outputs[0].dim(1);
  std::vector<std::vector<double>> values;  // [E][K]
  for (const Tensor& of : outputs) {
    const auto row = of.values().subspan(size_t(item * classes), size_t(classes));
    values.push_back(job.outputs == Outputs::value ? std::vector<double>(row.begin(), row.end())
                                                   : probabilities(row, job.outputs));
  }
  std::vector<double> most(size_t(classes), std::numeric_limits<double>::lowest());
  for (const auto& row : values)
    for (size_t c = 0; c < row.size(); ++c) most[c] = std::max(most[c], row[c]);
  std::vector<size_t> order(most.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return most[a] > most[b]; });
  order.resize(std::min({order.size(), size_t(job.options.top), std::size(kLineColors)}));
  std::vector<Series> lines;
  for (size_t c : order) {
    Series& line = lines.emplace_back(shown_name(job, int64_t(c)), std::vector<double>{}, kLineColors[lines.size()]);
    for (const auto& row : values) line.values.push_back(row[c]);
  }
  const bool percent = job.outputs != Outputs::value;
  return line_chart(names, lines,
                    {.title = title,
                     .width = std::clamp(360 + 60 * int(names.size()), 640, 2400),
                     .height = 280,
                     .most = percent ? 1.0 : 0.0});
}

}  // namespace

void run_classify_strips(Job& job) {
  const std::vector<std::string> names = weights_names(job.checkpoints);
  Output output(job);
  Inputs inputs(job, output);
  Report report;
  ItemLines lines;
  int64_t items = 0;
  const int64_t all = inputs.count();
  const auto most = [&](Shape image) {
    return std::max<int64_t>(1, most_images(job.model.network, image) / int64_t(names.size()));
  };
  inputs.for_each_chunk(most, [&](const Chunk& chunk) {
    std::vector<Tensor> outputs;
    for (size_t e = 0; e < names.size(); ++e) {
      job.open_checkpoint(e);
      outputs.push_back(outputs_of_chunk(job, chunk, job.run));
    }
    const bool maps = outputs[0].dims().size() == 4;
    for (const Chunk::Part& part : chunk.parts) {
      Json files = Json::array();
      if (output.npy()) {
        std::vector<Tensor> saved;
        std::vector<const Tensor*> arrays;
        for (const Tensor& of : outputs) saved.push_back(saved_scores(job, part, of));
        for (const Tensor& of : saved) arrays.push_back(&of);
        const std::vector<std::string> axes{"N", "E", "K", "H", "W"};
        files.push_back(output.add_npy(*part.file, over_checkpoints(arrays, 0, part.count),
                                       {axes.begin(), axes.begin() + (maps ? 5 : 3)}));
      }
      std::vector<Canvas> pictures;
      std::vector<Json> entries;
      for (int64_t i = 0; i < part.count; ++i) {
        Json entry = item_json(*part.file, i);
        entry["checkpoints"] = Json::array();
        SheetRow row;
        const bool draw = output.pictures() && pictures.size() < kMostStripItems;
        const Image input = input_picture(chunk.x, part.first + i, job.model, part.file->array);
        if (!job.options.plain) row.panels.push_back({input, item_name(*part.file, i)});
        const bool plain = std::exchange(job.options.plain, true);  // the bare picture of each
        for (size_t e = 0; e < names.size(); ++e) {
          Answer answer = answer_for(job, chunk, part, i, outputs[e]);
          if (draw && maps) row.panels.push_back({answer.picture(), ""});
          answer.entry.erase("path"), answer.entry.erase("index");
          entry["checkpoints"].push_back({{"weights", job.checkpoints[e]}});
          entry["checkpoints"].back().update(answer.entry);
          lines.add(fmt::format("  {:<20}{}", names[e], answer.line));
        }
        job.options.plain = plain;
        entries.push_back(std::move(entry));
        if (!draw) continue;
        const std::string title = fmt::format("{}, {}", classify_title(job), item_name(*part.file, i));
        if (maps) {
          std::vector<std::string> headings = names;
          if (!plain) headings.insert(headings.begin(), "input");
          GridOptions words{.panel_side = std::min(large_side(std::max(input.width, input.height)), 224)};
          if (!plain) words.title = title, words.subtitle = weights_text(job);
          pictures.push_back(
              contact_sheet(std::vector<SheetRow>{row}, plain ? std::vector<std::string>() : headings, words));
        } else {
          const Canvas both[] = {thumbnail(input, 224, 280),
                                 probability_chart(job, outputs, part.first + i, names, title)};
          pictures.push_back(side_by_side(both));
        }
      }
      if (!pictures.empty()) output.add_picture(files, *part.file, one_below_other(pictures));
      if (!pictures.empty() && int64_t(pictures.size()) < part.count)
        output.note(fmt::format("the picture of {} shows the first {} of {} images", part.file->path, pictures.size(),
                                part.count));
      for (Json& entry : entries) {
        entry["files"] = files;
        report.inputs.push_back(std::move(entry));
      }
    }
    items += chunk.x.dim(0);
    job.bar.update(items, all, "images");
  });
  report.summary = [&] {
    print_line(job.summary_title("classify"));
    lines.print();
    print_written(job, output.paths());
    print_line(job.summary_times(items, "image"));
  };
  finish_run(job, output, std::move(report));
}

}  // namespace switchback
