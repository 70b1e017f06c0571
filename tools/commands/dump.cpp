// `switchback dump`: every node's activation, and with --backward its gradient, as one .npz for each input.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <optional>

#include "engine/files/npz.h"
#include "tools/commands/commands.h"
#include "tools/cli/inputs.h"
#include "tools/cli/job.h"
#include "tools/cli/maps.h"
#include "tools/cli/progress.h"
#include "viz/methods/batches.h"
#include "viz/methods/dump.h"

namespace switchback {
namespace {

struct DumpFlags : Options {
  std::vector<std::string> layers;
  bool backward = false;
};

// One input's archive: arrays appear when their first image is written.
class Archive {
 public:
  Archive(OutputFile& file, int64_t images) : writer_(file), images_(images) {}
  void write(const std::string& name, const Tensor& value) {  // [1,…], of the next image
    const auto [place, fresh] = entries_.try_emplace(name, 0);
    if (fresh) {
      Dims dims = value.dims();
      dims[0] = images_;
      place->second = writer_.add(name, dims);
      const bool maps = dims.size() == 4;
      arrays.push_back({{"name", name}, {"shape", dims}, {"axes", maps ? Json{"N", "C", "H", "W"} : Json{"N", "C"}}});
    }
    writer_.write(place->second, value.values());
  }
  void finish() { writer_.finish(); }
  Json arrays = Json::array();

 private:
  NpzWriter writer_;
  int64_t images_;
  std::map<std::string, size_t> entries_;
};

// The run over all inputs.
struct Dumper {
  Job& job;
  const DumpFlags& flags;
  std::vector<int> nodes;  // in topological order
  Output& output;
  Inputs& inputs;
  int64_t all_items = 0, items = 0;
  Json entries = Json::array();
  std::vector<std::string> lines = {};  // of the summary

  const Network& network() const { return job.model.network; }
  const std::string& name(int node) const { return network().nodes[size_t(node)].name; }

  // The values and gradients of one image; what it explains, where there are gradients.
  Explained dump_image(NodeDump& run, const float* image, Archive& archive) const {
    run.forward(image);
    for (int node : nodes) archive.write(name(node), run.value(node));
    if (!flags.backward) return {};
    const Tensor values = run.value(target_node(network(), job.target));
    Explained explained = explain(network(), job.target, values, job.model.labels);
    run.gradients(explained.units[0], scoring_of(network(), job.target), values, nodes,
                  [&](int node, const Tensor& g) { archive.write(name(node) + ".grad", g); });
    return explained;
  }

  void dump_file(const InputFile& file) {
    const std::optional<Tensor> loaded = inputs.load(file);
    if (!loaded) return;
    const Tensor& x = *loaded;
    const Shape image = image_shape(network(), x);
    const int64_t targets = check_target(network(), image, job.target, job.model.labels);
    if (targets != 1)
      throw Error(fmt::format("gradients are those of one target, not of {}", targets), "name one class", true);
    NodeDump run(job.ctx, job.model, image, job.run.precision, flags.backward);
    if (items == 0) warn_of_shared(run);
    std::string path;
    Archive archive(output.add_npz(file, path), x.dim(0));
    std::vector<Explained> explained;
    for (int64_t i = 0; i < x.dim(0); ++i) {
      explained.push_back(dump_image(run, x.data() + i * image.item(), archive));
      job.bar.update(++items, all_items, "images");
    }
    archive.finish();
    for (int64_t i = 0; i < x.dim(0); ++i) {
      entries.push_back(item_json(file, i));
      if (flags.backward) add_explained(entries.back(), job, explained[size_t(i)]);
      entries.back()["files"] = {{{"path", path}, {"axes", nullptr}, {"arrays", archive.arrays}}};
    }
    lines.push_back(fmt::format("wrote {} ({})", path, counted(int64_t(archive.arrays.size()), "array")));
  }

  void warn_of_shared(const NodeDump& run) const {
    for (int node : nodes)
      if (flags.backward && run.shares_gradient(node))
        warn(fmt::format("{} has no gradient of its own: its input is read by other layers too", name(node)));
  }

  void finish() {
    Report report;
    report.inputs = std::move(entries);
    report.details = {{"backward", flags.backward}};
    if (flags.backward) report.details["score_kind"] = word_of(kScores, flags.score);
    report.summary = [&] {
      print_line(job.summary_title(flags.backward ? "activations and gradients" : "activations"));
      for (const std::string& line : lines) print_line(line);
      print_line(job.summary_times(items, "image"));
    };
    finish_run(job, output, std::move(report));
  }
};

void run_dump(const DumpFlags& o) {
  if (!o.backward && (o.target != "max" || o.score != Score::logit || !o.layer.empty()))
    throw Error("--target, --score and --layer are about gradients", "add --backward; --layers chooses what is written",
                true);
  Job job("dump", o);
  std::vector<int> nodes = parse_nodes(job.model.network, o.layers);
  std::sort(nodes.begin(), nodes.end());
  if (nodes.empty()) {
    nodes.resize(job.model.network.nodes.size());
    std::iota(nodes.begin(), nodes.end(), 0);
  }
  Output output(job);
  Inputs inputs(job, output);
  Dumper dumper{.job = job, .flags = o, .nodes = std::move(nodes), .output = output, .inputs = inputs,
                .all_items = inputs.count()};
  for (const InputFile& file : inputs.files()) dumper.dump_file(file);
  dumper.finish();
}

}  // namespace

std::function<void()> setup_dump(CLI::App& app) {
  auto o = std::make_shared<DumpFlags>();
  add_inputs(app, *o, kInputs);
  o->save = "npy";
  add_switch(app, *o, "--backward", o->backward, Changes::values,
             "also NODE.grad: the gradient of the target's score with respect to NODE");
  add_setting(app, *o, "--layers", o->layers, Changes::values, "which nodes are written (default: all, the input too)",
              "NAME[,NAME...]");
  add_target(app, *o);
  add_model(app, *o);
  add_folder(app, *o);
  add_run(app, *o);
  add_report(app, *o);
  return [o] { run_dump(*o); };
}

}  // namespace switchback
