// `switchback etalon`: the affine map that the network is around each input.
#include <CLI/CLI.hpp>
#include <memory>

#include "tools/cli/shares.h"
#include "tools/commands/commands.h"
#include "tools/commands/etalon_run.h"

namespace switchback {
namespace {

constexpr int64_t kMostByDefault = 32;  // outputs that are all explained unasked

void run_etalon(const EtalonFlags& flags) {
  Job job("etalon", flags);
  if (job.target.target.empty()) {
    const Network& network = job.model.network;
    const int64_t outputs = network.shapes(network.input)[size_t(logit_node(network))].c;
    job.target.target = job.target.layer.empty() && outputs <= kMostByDefault ? "all" : "max";
  }
  if (job.several()) {
    if (shares().divided()) throw Error("several --weights of etalon are not divided", "a run for each", true);
    return run_etalon_strips(job, flags);
  }
  EtalonRun(job, flags).run();
}

}  // namespace

std::function<void()> setup_etalon(CLI::App& app) {
  auto o = std::make_shared<EtalonFlags>();
  o->target = "";  // all or max, by the number of outputs
  add_inputs(app, *o, kInputs);
  add_switch(app, *o, "--product", o->product, Changes::values,
             "W ⊙ x instead of W: each pixel's vote for (red) or against (blue) the unit");
  add_target(app, *o);
  app.get_option("--target")
      ->description(fmt::format("output units to explain: max, all, class numbers C,C or a label (default: all where there "
                                "are at most {} outputs, else max)", kMostByDefault));
  app.get_option("--score")->description("always the logit: a probability is no affine map of the input");
  add_switch(app, *o, "--subgraph", o->subgraph, Changes::nothing,
             "also draw which units are active and what each connection adds, for the first input and the strongest of its "
             "units (chains of convolutions and linear layers, of LeNet's size)");
  add_choice(app, *o, "--algorithm", kEtalonAlgorithms, o->algorithm, Changes::nothing,
             "single-pass: one forward pass, then one backward pass for all units; coordinate: the published way, every "
             "coordinate image through the frozen network");
  add_switch(app, *o, "--full-maps", o->full_maps, Changes::nothing,
             "units of maps by whole maps, not by their receptive fields alone");
  add_setting(app, *o, "--load-tape", o->load_tape, Changes::values, "use another program's gates and switches",
              "FILE.safetensors");
  add_setting(app, *o, "--limit", o->limit, Changes::values, "only the first N of each array or data set", "N");
  app.add_flag("--resume", o->resume,
               "go on with the .npy of an array or data set that an interrupted run of the same command left as "
               "FILE.npy.partial; begins anew where there is none");
  add_checkpoints(app, *o);
  add_output(app, *o);
  add_drawing(app, *o, kMapDrawing,
              {.colormap = "seismic; red, green and blue around grey for etalons of colour images",
               .clip = "99.8; of colour images 99",
               .panel_scale = "shared; own for etalons of colour images"});
  add_run(app, *o);
  add_shard(app, *o);
  add_report(app, *o);
  return [o] { run_etalon(*o); };
}

}  // namespace switchback
