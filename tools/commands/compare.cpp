// `switchback compare`: one figure of several methods, a column each, for several inputs and models, a row each.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <set>

#include "tools/commands/commands.h"
#include "tools/commands/map_methods.h"
#include "tools/commands/regions.h"

namespace switchback {
namespace {

constexpr size_t kMostSheetRows = 40;

struct CompareOptions : Options {
  std::string methods = "gradient,smoothgrad,guided,occlusion,cam";
  std::vector<std::string> models, weights_given;
  MapFlags flags;  // what their own commands call --samples, --noise, --steps; --mask, --stride, --fill; --layer
};

// A row of the figure, and its entry in the JSON document.
struct Row {
  std::string stem;  // of the input
  SheetRow panels;
  Json entry;
};

std::string heading(const MapMethod& method, bool one_model) {
  const std::string where = one_model && method.where ? method.where() : "";
  return where.empty() ? method.title : method.title + ", " + where;
}

// rows[i] of item i in the run gains the row of this model.
void run_model(Job& job, Output& output, const CompareOptions& o, const std::vector<std::string>& chosen,
               bool one_model, std::vector<std::vector<Row>>& rows, std::vector<std::string>& headings) {
  std::vector<std::unique_ptr<NamedMethod>> columns;
  for (const std::string& name : chosen) columns.push_back(named_method(job, name, o.flags));
  Inputs inputs(job, output);
  size_t done = 0;
  const int64_t all = inputs.count() * int64_t(columns.size());
  inputs.for_each_chunk(
      [&](Shape image) { return chunk_items(job, columns[0]->method, image); },
      [&](const Chunk& chunk) {
        std::vector<uint32_t> index;
        std::vector<Row*> of_chunk;
        for (const Chunk::Part& part : chunk.parts)
          for (int64_t i = 0; i < part.count; ++i, ++done) {
            if (rows.size() <= done) rows.emplace_back();
            Row& row = rows[done].emplace_back();
            of_chunk.push_back(&row);
            row.stem = part.file->stem;
            index.push_back(uint32_t(item_number(*part.file, i)));
            row.panels.label =
                item_name(*part.file, i) + (one_model ? "" : "\n" + job.model_name() + "\n" + weights_text(job));
            row.panels.panels.push_back(
                {thumbnail(input_picture(chunk.x, part.first + i, job.model, part.file->array), 168, 224), ""});
            row.entry = item_json(*part.file, i);
            row.entry["model"] = job.options.model;
            row.entry["weights"] = job.model.source;
            row.entry["maps"] = Json::array();
          }
        for (size_t k = 0; k < columns.size(); ++k) {
          const MapMethod& method = columns[k]->method;
          const Maps maps = method.run(chunk.x, index, [&](int64_t part, int64_t total) {
            job.bar.update(int64_t(done - of_chunk.size()) * int64_t(columns.size()) + int64_t(k * of_chunk.size()) +
                               part * int64_t(of_chunk.size()) / std::max<int64_t>(1, total),
                           all, "maps");
          });
          const Dims dims(maps.values.dims().begin() + 2, maps.values.dims().end());
          const int64_t size = maps.values.count() / chunk.x.dim(0);
          for (const Chunk::Part& part : chunk.parts)
            for (int64_t item = part.first; item < part.first + part.count; ++item) {
              Row& row = *of_chunk[size_t(item)];
              const MapView view{maps.values.data() + item * size, dims,
                                 input_picture(chunk.x, item, job.model, part.file->array)};
              const MapPanel map = std::move(method.panels(view).back());
              row.panels.panels.push_back({thumbnail(map.image(), 168, 224), "", map.colors});
              row.entry["maps"].push_back({{"method", chosen[k]}, {"colors", colors_json(map)}});
              row.entry["maps"].back()["details"] = method.details_of_run ? method.details_of_run() : method.details;
              if (k > 0) continue;
              const Explained& explained = maps.explained[size_t(item)];
              row.panels.panels[0].label = figure_caption(job, explained, 0);
              add_explained(row.entry, job, explained);
            }
        }
      });
  if (headings.empty())
    for (const auto& column : columns) headings.push_back(heading(column->method, one_model));
}

void run_compare(const CompareOptions& o) {
  const std::vector<std::string> chosen = split_list(o.methods);
  for (const std::string& name : chosen) check_choice("--methods", name, map_method_names());
  if (o.saves("npy")) throw Error("compare saves no arrays", "each method's own command does: --save npy", true);
  if (o.target == "all" || o.target.find(',') != std::string::npos)
    throw Error("compare explains one target of each input", "--target max, a class or a label", true);
  const std::vector<NetworkSpec> specs = network_specs(o.models, o.weights_given);
  check_maps(o.flags.maps);
  const auto options_for = [&](const NetworkSpec& spec) {
    Options options = o;
    options.model = spec.model, options.weights = spec.weights;
    return options;
  };
  Job job("compare", options_for(specs[0]));
  Output output(job);
  std::vector<std::vector<Row>> rows;  // of each item, for each model
  std::vector<std::string> headings;
  const bool one_model = specs.size() == 1;
  run_model(job, output, o, chosen, one_model, rows, headings);
  for (size_t m = 1; m < specs.size(); ++m) {
    Options options = options_for(specs[m]);
    options.save_input.clear();
    Job other("compare", options);
    run_model(other, output, o, chosen, one_model, rows, headings);
  }
  Report report;
  std::vector<SheetRow> sheet;
  size_t count = 0;
  std::set<std::string> stems;
  for (std::vector<Row>& of_item : rows)
    for (Row& row : of_item) {
      if (count++ < kMostSheetRows) sheet.push_back(std::move(row.panels));
      stems.insert(row.stem);
      report.inputs.push_back(std::move(row.entry));
    }
  Json files = Json::array();
  if (output.pictures()) {
    GridOptions words{.panel_side = 168,
                      .title = one_model ? figure_title(job, "Methods compared") : "Methods and models compared",
                      .subtitle = one_model ? weights_text(job) : ""};
    if (count > kMostSheetRows) {
      words.note = fmt::format("the first {} of {} rows", kMostSheetRows, count);
      output.note("the picture shows " + words.note);
    }
    headings.insert(headings.begin(), "input");
    const std::string stem = stems.size() == 1 ? *stems.begin() : kContactSheet;
    output.add_picture(files, stem, contact_sheet(sheet, headings, words));
  }
  for (Json& entry : report.inputs) entry["files"] = files;
  report.details = {{"methods", split_list(o.methods)}, {"score_kind", word_of(kScores, o.score)}};
  report.summary = [&] {
    print_line(one_model ? job.summary_title("compare") : fmt::format("compare: {} models", specs.size()));
    print_line(fmt::format("  {} by {}: {}", counted(int64_t(count), "row"), counted(int64_t(chosen.size()), "method"),
                           o.methods));
    print_written(job, output.paths());
    print_line(job.summary_times(int64_t(rows.size()), "image"));
  };
  finish_run(job, output, std::move(report));
}

}  // namespace

std::function<void()> setup_compare(CLI::App& app) {
  auto o = std::make_shared<CompareOptions>();
  add_inputs(app, *o, kInputs);
  add_setting(app, *o, "--methods", o->methods, Changes::values,
              fmt::format("columns of the figure, of {} (default {})", fmt::join(map_method_names(), ", "), o->methods),
              "LIST");
  add_map_settings(app, *o, o->flags);
  add_setting(app, *o, "--fill", o->flags.occlusion.fill, Changes::values, "what occluded pixels become (default 0)",
              "0|mean|NUMBER|blur");
  add_target(app, *o, false);
  app.add_option("--model", o->models, "as elsewhere; may be repeated: a row for each")
      ->type_name("NAME|FILE.onnx")
      ->allow_extra_args(false);
  app.add_option("--weights", o->weights_given, "of each --model in turn; or several of one model, a row for each")
      ->type_name("FILE|random[:SEED]")
      ->allow_extra_args(false);
  add_setting(app, *o, "--preprocess", o->preprocess, Changes::values,
              "how images become input; default: the model's own", "FILE.json");
  add_output(app, *o);
  add_drawing(app, *o, Drawing::colormap | Drawing::clip | Drawing::alpha);
  add_run(app, *o, true);
  add_report(app, *o);
  return [o] { run_compare(*o); };
}

}  // namespace switchback
