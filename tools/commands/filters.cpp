// `switchback filters`: the weights of a convolution, as pictures and as an array.
#include <CLI/CLI.hpp>
#include <memory>

#include "tools/commands/commands.h"
#include "tools/cli/job.h"
#include "viz/methods/inspect.h"

namespace switchback {
namespace {

struct FilterOptions : Options {
  std::string filters, channels, color = "grey";
  bool shared_scale = false;
};

std::vector<int> narrow(const std::vector<int64_t>& list) { return {list.begin(), list.end()}; }

void run_filters(const FilterOptions& o) {
  check_choice("--color", o.color, {"grey", "seismic"});
  Job job("filters", o);
  const Network& network = job.model.network;
  const int node = o.layer.empty() ? first_conv(network) : network.find(o.layer);
  const std::string& layer = network.nodes[size_t(node)].name;
  const Tensor weights = filters(job.model, node);
  FilterGridOptions options;
  options.filters = narrow(parse_list("--filters", o.filters, weights.dim(0)));
  options.channels = narrow(parse_list("--channels", o.channels, weights.dim(1)));
  options.order = job.model.preprocess.order;
  options.shared_scale = o.shared_scale;
  options.color_map = color_map_by_name(o.color);
  options.grid.title = fmt::format("filters of {} in {}, {}", layer, job.model_name(), to_string(weights.dims()));
  Output output(o);
  Json files = Json::array();
  if (output.png()) files.push_back(output.add_png(job.model_name() + ".filters.png", filter_grid(weights, options)));
  if (output.npy()) files.push_back(output.add_npy(job.model_name() + ".filters.npy", weights, {"O", "I", "kh", "kw"}));
  output.commit();
  if (o.json) {
    Json document = job.header();
    document["inputs"] = Json::array({{{"path", job.model.source}, {"index", 0}, {"layer", layer}, {"files", files}}});
    document["layer"] = layer;
    document["shape"] = weights.dims();
    job.add_footer(document);
    print_json(document);
  } else if (!o.quiet) {
    print_line(job.summary_title(fmt::format("filters of {}, {}", layer, to_string(weights.dims()))));
    for (const std::string& path : output.paths()) print_line("wrote " + path);
  }
}

}  // namespace

std::function<void()> setup_filters(CLI::App& app) {
  auto o = std::make_shared<FilterOptions>();
  add_model(app, *o);
  app.add_option("--layer", o->layer, "a convolution (default: the first)")->type_name("NAME");
  app.add_option("--filters", o->filters,
                 "which of them, for example 0-15,20 (default: all of a first layer, 12 of a "
                 "deeper one)")
      ->type_name("LIST");
  app.add_option("--channels", o->channels, "which input channels of each")->type_name("LIST");
  app.add_option("--color", o->color, "colours of single channels (default grey)")->type_name("grey|seismic");
  app.add_flag("--shared-scale", o->shared_scale, "one scale for all filters; else each has its own");
  add_output(app, *o);
  add_run(app, *o);
  add_report(app, *o);
  return [o] { run_filters(*o); };
}

}  // namespace switchback
