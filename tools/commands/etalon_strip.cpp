// `switchback etalon` with several checkpoints: how a unit's etalon grows.
#include <algorithm>
#include <memory>

#include "tools/cli/maps.h"
#include "tools/cli/progress.h"
#include "tools/commands/etalon_run.h"

namespace switchback {
namespace {

struct LastEtalons {
  std::vector<EtalonInput> inputs;
  double residual = 0, relative = 0;  // the largest of all runs
  int64_t above = 0;                  // etalons above the tolerance
};

void refuse(bool given, const char* option) {
  if (given)
    throw Error(fmt::format("{} goes with one checkpoint, but several --weights are given", option), "a run for each",
                true);
}

}  // namespace

void run_etalon_strips(Job& job, const EtalonFlags& flags) {
  refuse(flags.subgraph, "--subgraph");
  refuse(flags.resume, "--resume");
  refuse(!flags.load_tape.empty(), "--load-tape");
  refuse(!flags.limit.empty(), "--limit");
  const auto last = std::make_shared<LastEtalons>();
  MapMethod method;
  method.name = "etalon";
  method.title = flags.product ? "Etalon times input" : "Etalon";
  method.noun = "etalons";
  const bool colored = job.model.preprocess.channels() == 3 && !flags.product && !job.options.colormap;
  if (!job.options.panel_scale) job.options.panel_scale = colored ? PanelScale::own : PanelScale::shared;
  method.run = [&job, &flags, last](const Tensor& x, const std::vector<uint32_t>&, const Progress& progress) {
    EtalonOptions options;
    static_cast<RunOptions&>(options) = job.run;
    options.progress = progress;
    options.algorithm = flags.algorithm;
    options.fields = !flags.full_maps;
    EtalonMaps etalons = switchback::etalons(job.ctx, job.model, x, job.target, job.model.labels, options);
    Maps maps{std::move(etalons.maps), {}, 0};
    const int64_t image = x.count() / x.dim(0), units = maps.values.dim(1);
    for (int64_t k = 0; flags.product && k < maps.values.count(); ++k)
      maps.values[k] *= x[k / (units * image) * image + k % image];
    for (const EtalonInput& input : etalons.inputs) {
      maps.explained.push_back(input.explained);
      for (const EtalonCheck& check : input.checks) {
        last->residual = std::max(last->residual, check.residual());
        last->relative = std::max(last->relative, check.relative());
        last->above += check.relative() > EtalonCheck::kTolerance;
      }
    }
    last->inputs = std::move(etalons.inputs);
    return maps;
  };
  method.panels = [&job, &flags](const MapView& view) -> std::vector<MapPanel> {
    const Shape image{1, view.dims[0], view.dims[1], view.dims[2]};
    return {EtalonFigure(job.options, image, job.model.preprocess.order, 1, flags.product).panel(view.values)};
  };
  method.bias = [last](int64_t i, int64_t unit) { return last->inputs[size_t(i)].checks[size_t(unit)].bias; };
  method.finish = [last](int64_t i, Json& entry) {
    add_checks(entry, last->inputs[size_t(i)]);
    return std::string();
  };
  method.details = {{"algorithm", word_of(kEtalonAlgorithms, flags.algorithm)}, {"product", flags.product}};
  method.details_of_run = [last] {
    return Json{{"residual", last->residual},
                {"residual_relative", last->relative},
                {"residual_tolerance", EtalonCheck::kTolerance}};
  };
  run_maps(job, method);
  if (last->above > 0)
    warn(fmt::format("{} miss <W, x> + b = score by more than {:.0e} of their terms, at worst {:.1e}",
                     counted(last->above, "etalon"), EtalonCheck::kTolerance, last->relative));
}

}  // namespace switchback
