// `switchback filters`: the weights of a convolution, as pictures and as an array.
#include <CLI/CLI.hpp>
#include <memory>
#include <utility>

#include "tools/cli/checkpoints.h"
#include "tools/cli/figure.h"
#include "tools/cli/job.h"
#include "tools/commands/commands.h"
#include "viz/methods/inspect.h"

namespace switchback {
namespace {

constexpr Choice<ColorMap> kColors[] = {{"grey", ColorMap::grey}, {"seismic", ColorMap::seismic}};

struct FilterOptions : Options {
  std::string filters, channels;
  ColorMap color = ColorMap::grey;
  bool shared_scale = false;
};

std::vector<int> narrow(const std::vector<int64_t>& list) { return {list.begin(), list.end()}; }

// A grid of the same filters for each checkpoint, [E,O,I,kh,kw].
Canvas strip_of(const Job& job, const std::vector<Tensor>& weights, FilterGridOptions options) {
  const GridOptions words = std::exchange(options.grid, {});
  const size_t columns = weights.size();
  options.grid.columns = words.columns > 0 ? words.columns : columns > 6 ? 2 : 4;
  if (weights[0].dim(1) != 1 && weights[0].dim(1) != 3) options.grid.columns = 0;  // a deeper layer's table
  SheetRow row;
  GridOptions sheet = words;
  sheet.columns = 0;
  for (const Tensor& of : weights) {
    row.panels.push_back({filter_grid(of, options), ""});
    const Canvas& picture = row.panels.back().picture;
    sheet.panel_side = std::max({sheet.panel_side, int(picture.width()), int(picture.height())});
  }
  return contact_sheet(std::vector<SheetRow>{row}, weights_names(job.checkpoints), sheet);
}

void run_filters(const FilterOptions& o) {
  Job job("filters", o);
  const Network network = job.model.network;
  const int node = o.layer.empty() ? first_conv(network) : network.find(o.layer);
  const std::string& layer = network.nodes[size_t(node)].name;
  const Tensor weights = filters(job.model, node);
  FilterGridOptions options;
  options.filters = narrow(parse_list("--filters", o.filters, weights.dim(0)));
  options.channels = narrow(parse_list("--channels", o.channels, weights.dim(1)));
  options.order = job.model.preprocess.order;
  options.shared_scale = o.shared_scale || o.panel_scale == PanelScale::shared;
  options.color_map = o.map_or(o.color);
  options.grid.columns = o.columns;
  options.grid.title = fmt::format("Filters, {}, layer {}, {}", job.model_name(), layer, to_string(weights.dims()));
  options.grid.subtitle = weights_text(job);
  Output output(job);
  std::vector<Tensor> of_checkpoints;
  std::vector<const Tensor*> arrays;
  for (size_t e = 0; e < job.checkpoints.size(); ++e) {
    job.open_checkpoint(e);
    of_checkpoints.push_back(filters(job.model, node));
  }
  for (const Tensor& of : of_checkpoints) arrays.push_back(&of);
  Json files = Json::array();
  const Json about = {
      {"layer", layer},
      {"colors", {{"map", name_of(options.color_map)}, {"scale", options.shared_scale ? "shared" : "own"}}}};
  if (output.pictures()) {
    output.add_picture(files, job.model_name(),
                       job.several() ? strip_of(job, of_checkpoints, options) : filter_grid(weights, options), about);
    if (const std::string left_out = left_out_filters(weights, options); !left_out.empty())
      output.note("the picture shows " + left_out);
  }
  if (output.npy() && job.several())
    files.push_back(output.add_npy(job.model_name(), stacked(arrays), {"E", "O", "I", "kh", "kw"}));
  else if (output.npy())
    files.push_back(output.add_npy(job.model_name(), weights, {"O", "I", "kh", "kw"}));
  Report report;
  report.inputs.push_back({{"path", job.several() ? Json(job.checkpoints) : Json(job.model.source)},
                           {"index", 0},
                           {"layer", layer},
                           {"files", files}});
  report.details = {{"layer", layer}, {"shape", weights.dims()}};
  report.summary = [&] {
    print_line(job.summary_title(fmt::format("filters of {}, {}", layer, to_string(weights.dims()))));
    print_written(job, output.paths());
  };
  finish_run(job, output, std::move(report));
}

}  // namespace

std::function<void()> setup_filters(CLI::App& app) {
  auto o = std::make_shared<FilterOptions>();
  add_setting(app, *o, "--layer", o->layer, Changes::kind, "a convolution (default: the first)", "NAME");
  add_setting(app, *o, "--filters", o->filters, Changes::pictures,
              "which of them, for example 0-15,20, or all (default: all of a first layer, 12 of a deeper one)",
              "LIST|all");
  add_setting(app, *o, "--channels", o->channels, Changes::pictures,
              "which input channels of each (default: all at once of a first layer, 16 of a deeper one)", "LIST|all");
  add_choice(app, *o, "--color", kColors, o->color, Changes::pictures, "colours of single channels");
  add_switch(app, *o, "--shared-scale", o->shared_scale, Changes::pictures,
             "one scale for all filters; else each has its own");
  add_checkpoints(app, *o);
  add_output(app, *o);
  add_drawing(app, *o, Drawing::colormap | Drawing::panel_scale | Drawing::columns,
              {.colormap = "as --color; of three channels at once red, green and blue around grey"});
  add_run(app, *o);
  add_report(app, *o);
  return [o] { run_filters(*o); };
}

}  // namespace switchback
