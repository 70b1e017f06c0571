// Maps of one input at several checkpoints: a strip, with a column for each.
#include <algorithm>

#include "tools/cli/checkpoints.h"
#include "tools/cli/divided_maps.h"
#include "tools/cli/maps.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr size_t kMostRowsOfSheet = 40;  // as compare has

// One checkpoint's maps of a chunk, and what is drawn and said of each item. Panels point into the maps.
struct Column {
  Maps maps;
  std::vector<std::vector<std::vector<MapPanel>>> panels;  // [item][target]
  std::vector<Json> entries;                               // [item]
  std::vector<std::string> lines;
  std::vector<float> biases;  // [item,target], where the method has them
};

Column run_column(Job& job, const MapMethod& method, DividedMaps& divided, const Chunk& chunk, bool draw, const Progress& progress) {
  Column column{.maps = divided.run(chunk, progress),
                .panels = {},
                .entries = {},
                .lines = {},
                .biases = {}};
  const MapResults r{job, method, chunk, column.maps};
  for (const Chunk::Part& part : chunk.parts)
    for (int64_t item = part.first; item < part.first + part.count; ++item) {
      Json entry = Json::object();
      column.lines.push_back(add_result(r, item, entry));
      column.entries.push_back(std::move(entry));
      for (int64_t t = 0; method.bias && t < r.targets(); ++t) column.biases.push_back(float(method.bias(item, t)));
      auto& of_item = column.panels.emplace_back();
      for (int64_t t = 0; draw && t < r.targets(); ++t)
        of_item.push_back(method.panels({r.map(item, t), r.map_dims(), r.photo(part, item)}));
    }
  return column;
}

// [N,E,…] of one file's items.
Json save_array(const std::vector<Column>& columns, const MapMethod& method, const Chunk::Part& part, Output& output) {
  const int64_t targets = columns[0].maps.values.dim(1);
  std::vector<const Tensor*> arrays;
  for (const Column& column : columns) arrays.push_back(&column.maps.values);
  Tensor array = over_checkpoints(arrays, part.first, part.count);
  std::vector<std::string> axes{"N", "E"};
  if (targets > 1 || method.bias) {
    axes.push_back(method.bias ? "P" : "T");
  } else {
    Dims dims = array.dims();
    dims.erase(dims.begin() + 2);
    array = std::move(array).reshaped(std::move(dims));
  }
  axes.insert(axes.end(), method.axes.begin(), method.axes.end());
  return output.add_npy(*part.file, array, axes);
}

// [N,E,P]
Json save_biases(const std::vector<Column>& columns, const Chunk::Part& part, Output& output) {
  const int64_t units = columns[0].maps.values.dim(1), epochs = int64_t(columns.size());
  Tensor array({part.count, epochs, units});
  for (int64_t i = 0; i < part.count; ++i)
    for (int64_t e = 0; e < epochs; ++e)
      std::copy_n(columns[size_t(e)].biases.begin() + (part.first + i) * units, units,
                  array.data() + (i * epochs + e) * units);
  return output.add_npy({*part.file, "bias"}, array, {"N", "E", "P"});
}

// A row for each item, target and panel; the first column is the input.
struct Strip {
  std::vector<SheetRow> rows;
  Json units = Json::array(), colors = Json::array();  // of each map that is drawn
  int64_t left_out = 0;                                // rows
};

Strip strip_of(Job& job, const std::vector<Column>& columns, const Chunk& chunk, const Chunk::Part& part) {
  Strip strip;
  const size_t most = std::max<size_t>(1, kMostGridPanels / columns.size());
  for (int64_t i = 0; i < part.count; ++i) {
    const size_t item = size_t(part.first + i);
    const auto& first = columns[0].panels[item];
    for (size_t t = 0; t < first.size(); ++t)
      for (size_t p = 0; p < first[t].size(); ++p) {
        if (strip.rows.size() == most) {
          ++strip.left_out;
          continue;
        }
        std::vector<MapPanel> maps;
        for (const Column& column : columns) maps.push_back(column.panels[item][t][p]);
        if (job.options.panel_scale == PanelScale::shared) share_scale(maps);
        SheetRow& row = strip.rows.emplace_back();
        row.label = first[t][p].label;
        if (!job.options.plain)
          row.panels.push_back(
              {t + p == 0 ? Canvas(input_picture(chunk.x, int64_t(item), job.model, part.file->array)) : Canvas(),
               t + p == 0 ? item_name(*part.file, i) : ""});
        for (size_t e = 0; e < columns.size(); ++e) {
          const Explained& explained = columns[e].maps.explained[item];
          const bool say = p == 0 && !job.options.plain;  // several panels of one map have the same target
          row.panels.push_back({maps[e].image(), say ? figure_caption(job, explained, t) : ""});
          if (!job.options.plain) row.panels.back().colors = maps[e].colors;
          strip.units.push_back(unit_name(job, explained.units[t]));
          strip.colors.push_back(colors_json(maps[e]));
        }
      }
  }
  return strip;
}

// Panels of many checkpoints are small, so that the strip can be read on a page.
int panel_side(int longest, size_t columns) {
  const int wanted = columns <= 6 ? 168 : columns <= 12 ? 112 : columns <= 30 ? 84 : 56;
  return longest < wanted ? longest * std::max(1, (wanted + longest / 2) / longest) : wanted;
}

}  // namespace

void run_map_strips(Job& job, const MapMethod& method) {
  if (method.one_chunk)
    throw Error("a tape belongs to one network, but several --weights are given", "a run for each", true);
  Output output(job, method.command);
  Inputs inputs(job, output);
  Report report;
  ItemLines lines;
  const std::vector<std::string> names = weights_names(job.checkpoints);
  const int64_t all_items = inputs.count() * int64_t(names.size());
  std::vector<std::string> headings = names;
  if (!job.options.plain) headings.insert(headings.begin(), "input");
  int64_t items = 0, batch = 0;
  std::vector<SheetRow> sheet;  // the last panel of each input's first target
  const auto words = [&](int longest) {
    return GridOptions{.panel_side = panel_side(longest, names.size()),
                       .title = figure_title(job, method.title, method.where ? method.where() : ""),
                       .subtitle = weights_text(job)};
  };
  int longest = 1;
  const auto most = [&](Shape image) { return std::max<int64_t>(1, chunk_items(job, method, image) / int64_t(names.size())); };
  DividedMaps divided(job, method, output, inputs);
  if (!divided.gather(most)) return;
  inputs.for_each_chunk(
      most,
      [&](const Chunk& chunk) {
        std::vector<Column> columns;
        longest = std::max({longest, int(chunk.x.dim(2)), int(chunk.x.dim(3))});
        for (size_t e = 0; e < names.size(); ++e) {
          job.open_checkpoint(e);
          columns.push_back(run_column(job, method, divided, chunk, output.pictures(), [&](int64_t done, int64_t total) {
            const int64_t each = total / chunk.x.dim(0);
            job.bar.update((items * int64_t(names.size()) + int64_t(e) * chunk.x.dim(0)) * each + done,
                           all_items * each, method.noun);
          }));
          batch = std::max(batch, columns.back().maps.batch);
        }
        for (const Chunk::Part& part : chunk.parts) {
          Json files = Json::array();
          if (output.pictures()) {
            Strip strip = strip_of(job, columns, chunk, part);
            GridOptions options =
                job.options.plain ? GridOptions{.panel_side = panel_side(longest, names.size())} : words(longest);
            if (strip.left_out > 0) {
              options.note = fmt::format("the first {} of {} rows", strip.rows.size(),
                                         int64_t(strip.rows.size()) + strip.left_out);
              output.note(fmt::format("the picture of {} shows {}", part.file->path, options.note));
            }
            output.add_picture(
                files, *part.file,
                contact_sheet(strip.rows, job.options.plain ? std::vector<std::string>() : headings, options),
                {{"units", strip.units}, {"colors", strip.colors}});
            const size_t of_item =
                columns[0].panels[size_t(part.first)][0].size();  // panels of a map: its last is on the sheet
            if (sheet.size() < kMostRowsOfSheet && strip.rows.size() >= of_item) {
              sheet.push_back(strip.rows[of_item - 1]);
              if (!job.options.plain) sheet.back().panels[0] = strip.rows[0].panels[0];
              sheet.back().label.clear();
            }
          }
          if (output.npy()) files.push_back(save_array(columns, method, part, output));
          if (output.npy() && method.bias) files.push_back(save_biases(columns, part, output));
          for (int64_t i = 0; i < part.count; ++i) {
            Json entry = item_json(*part.file, i);
            entry["checkpoints"] = Json::array();
            for (size_t e = 0; e < columns.size(); ++e) {
              entry["checkpoints"].push_back({{"weights", job.checkpoints[e]}});
              entry["checkpoints"].back().update(columns[e].entries[size_t(part.first + i)]);
              lines.add(fmt::format("  {:<24} {:<20} {}", e == 0 ? item_name(*part.file, i) : "", names[e],
                                    columns[e].lines[size_t(part.first + i)]));
            }
            entry["files"] = files;
            report.inputs.push_back(std::move(entry));
          }
        }
        items += chunk.x.dim(0);
      });
  if (output.pictures() && sheet.size() > 1) {
    Json files = Json::array();
    output.add_picture(files, std::string(kContactSheet), contact_sheet(sheet, headings, words(longest)));
    report.sheet = files[0]["path"];
  }
  finish_maps(job, method, output, std::move(report), lines, items, batch);
}

}  // namespace switchback
