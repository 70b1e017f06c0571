// `switchback bench --sweep`: its options, and what it prints and writes.
#include <optional>

#include "engine/zoo/zoo.h"
#include "tools/bench/bench_ops.h"
#include "tools/cli/report.h"
#include "tools/bench/sweep.h"

namespace switchback {
namespace {

SweepOptions sweep_options(const BenchOptions& o) {
  SweepOptions options;
  options.batches.clear(), options.precisions.clear();
  for (const std::string& text : split_list(o.batches))
    options.batches.push_back(parse_whole("--batches", text, 1, 1 << 20));
  for (const std::string& text : split_list(o.precisions))
    options.precisions.push_back(parse_choice("--precisions", text, kPrecisions));
  if (!(o.minutes > 0 && o.minutes < 1e4)) throw Error("--minutes is out of range", "above 0, below 10000", true);
  options.seconds = 60 * o.minutes;
  return options;
}

}  // namespace

void bench_sweep(const BenchOptions& o) {
  if (!o.shape.empty() || !o.shapes.empty() || o.backward || o.json)
    throw Error("--sweep takes neither --shape nor --shapes, --backward and --json",
                "it measures both directions of all layers, and always prints JSON lines", true);
  check_options(o);
  if (!o.conv.empty() && o.conv != "own" && o.conv != "gemm")
    throw Error(fmt::format("--sweep with --conv {} would time others' kernels", o.conv), "own or gemm", true);
  const SweepOptions options = sweep_options(o);
  std::vector<Network> networks;
  for (const std::string& name : split_list(o.sweep)) networks.push_back(make_network(name));
  Context ctx(open_device(o.device));
  set_up(ctx, o);
  if (!ctx.gpu)
    throw Error("--sweep is for a GPU, and this runs on the CPU", "`switchback info` says which GPUs there are", true);
  std::optional<OutputFile> table;  // a place that cannot be written is found before the work
  if (!o.save_table.empty()) table.emplace(o.save_table);
  ProgressBar bar("sweep", !o.quiet);
  const SweepResult result =
      sweep(ctx, sweep_layers(networks), options, [&](const Json& document, int64_t done, int64_t all) {
        print_line(document.dump());
        bar.update(done, all, "products");
      });
  bar.clear();
  print_line(summary_of(ctx, result).dump());
  if (table) {
    table->write(result.table.text());
    table->commit();
  }
  if (result.failed > 0)
    throw Error(fmt::format("{} products could not be measured, or not all kernels gave the same bits", result.failed),
                "their lines have an 'error'");
}

}  // namespace switchback
