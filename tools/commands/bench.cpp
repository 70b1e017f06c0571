// `switchback bench`: throughput of a method on a model, or of one op on one shape.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>

#include "engine/version.h"
#include "kernels/device/device_ops.h"
#include "tools/bench/bench_ops.h"
#include "tools/bench/bench_values.h"
#include "tools/commands/commands.h"
#include "tools/cli/probe.h"

namespace switchback {
namespace {

struct Runs {
  double first = 0;             // seconds of the very first call, which packs weights and makes primitives
  std::vector<double> seconds;  // of one call, a mean over the calls of that run
  std::vector<double> probes;   // FLOP/s beside each run; with --probe
  int64_t calls = 0;            // in all
};

// Seconds of `calls` calls: of a GPU by events, where what is timed is one op and not a method with its copies.
double seconds_of(const Work& work, Context& ctx, bool by_events, int64_t calls) {
  if (work.estimate) {
    double sum = 0;
    for (int64_t i = 0; i < calls; ++i) sum += work.estimate();
    return sum;
  }
  const auto all = [&] {
    for (int64_t i = 0; i < calls; ++i) work.once();
  };
  if (ctx.gpu && by_events) return 1e-3 * ctx.gpu->ops->milliseconds(*ctx.gpu, all);
  const double start = clock_seconds();
  all();
  ctx.synchronize();
  return clock_seconds() - start;
}

// Each run repeats the call until --min-seconds have passed, in rounds of growing length. Before them, calls that are
// not counted: the first one packs weights, makes primitives and touches memory, the second records what is replayed
// later.
Runs measure(const Work& work, const BenchOptions& o, Context& ctx, Precision precision, bool by_events,
             ProgressBar& bar) {
  Runs runs;
  for (int64_t i = 0; i < o.warm_up; ++i) {
    const double seconds = seconds_of(work, ctx, false, 1);
    if (i == 0) runs.first = seconds;
  }
  for (int64_t r = 0; r < o.repeat; ++r) {
    if (o.probe) runs.probes.push_back(probe_peak(ctx.thread_count(), precision, 0.02).flops);
    int64_t calls = 0, round = 1;
    double elapsed = 0;
    do {
      elapsed += seconds_of(work, ctx, by_events, round);
      calls += round;
      if (ctx.gpu) round = std::min<int64_t>(2 * round, 1024);
    } while (elapsed < o.min_seconds);
    runs.seconds.push_back(elapsed / double(calls));
    if (runs.first == 0) runs.first = runs.seconds[0];
    runs.calls += calls;
    bar.update(r + 1, o.repeat, "runs");
  }
  return runs;
}

Probe peak_of(Context& ctx, Precision precision) {
  return ctx.gpu ? gpu_peak(*ctx.gpu, precision) : probe_peak(ctx.thread_count(), precision);
}

Json or_null(double value) { return value > 0 ? Json(value) : Json(nullptr); }

Json results(const Work& work, const Runs& runs, const Probe& peak) {
  const double middle = median(runs.seconds), best = *std::min_element(runs.seconds.begin(), runs.seconds.end());
  std::vector<double> ms;
  for (double s : runs.seconds) ms.push_back(1e3 * s);
  Json out = work.details;
  if (work.after) work.after(out);
  out.update({{"item", work.item},
              {"items_per_call", work.items},
              {"items_per_second", work.items / middle},
              {"ms_per_item", 1e3 * middle / work.items},
              {"ms_median", 1e3 * middle},
              {"ms_min", 1e3 * best},
              {"ms_first_call", 1e3 * runs.first},
              {"ms_runs", ms},
              {"calls", runs.calls},
              {"flops_per_item", or_null(work.flops / work.items)},
              {"flops_per_second", or_null(work.flops / middle)},
              {"peak_flops_per_second", or_null(peak.flops)},
              {"peak_kind", peak.kind},
              {"share_of_peak", or_null(peak.flops > 0 ? work.flops / middle / peak.flops : 0)}});
  if (work.bytes > 0) out["bytes_per_second"] = work.bytes / middle;
  if (!runs.probes.empty()) out["probes"] = runs.probes;
  return out;
}

void print_rate(const Json& r) {
  const std::string rate = human_count(r["flops_per_second"].get<double>());
  if (r["share_of_peak"].is_null())
    print_line(fmt::format("  {}FLOP/s", rate));
  else
    print_line(fmt::format("  {}FLOP/s, {:.0f} % of this machine's {}FLOP/s ({})", rate,
                           100 * r["share_of_peak"].get<double>(),
                           human_count(r["peak_flops_per_second"].get<double>()), r["peak_kind"].get<std::string>()));
}

void print_results(const std::string& title, const Json& r) {
  print_line(title);
  print_line(fmt::format("  {} {}s/s, {} per {}", human_count(r["items_per_second"].get<double>()),
                         r["item"].get<std::string>(), human_seconds(r["ms_per_item"].get<double>() / 1e3),
                         r["item"].get<std::string>()));
  print_line(fmt::format("  one call of {} {}s: median {}, least {} ({} runs)", r["items_per_call"].get<double>(),
                         r["item"].get<std::string>(), human_seconds(r["ms_median"].get<double>() / 1e3),
                         human_seconds(r["ms_min"].get<double>() / 1e3), r["ms_runs"].size()));
  if (!r["flops_per_second"].is_null()) print_rate(r);
  if (r.contains("bytes_per_second"))
    print_line(fmt::format("  {}B/s", human_count(r["bytes_per_second"].get<double>())));
  if (r.contains("flop_ratio"))
    print_line(fmt::format("  {:.2f} times less arithmetic than whole forward passes ({} groups of windows)",
                           r["flop_ratio"].get<double>(), r["window_groups"].get<int64_t>()));
  if (r.contains("positions_timed"))
    print_line(fmt::format("  estimated from {} of the positions", r["positions_timed"].get<int64_t>()));
  if (r.contains("profile")) {
    std::string parts;
    for (const auto& [part, share] : r["profile"].items())
      parts += fmt::format("{}{} {:.1f} %", parts.empty() ? "" : ", ", part, 100 * share.get<double>());
    print_line("  of a step: " + parts);
  }
  print_line(fmt::format("  peak memory {}B", human_count(double(peak_memory_bytes()))));
}

Json bench_op(Context& ctx, const BenchOptions& o, Precision precision, ProgressBar& bar) {
  const Work work = op_work(ctx, o);
  const Json r = results(work, measure(work, o, ctx, precision, true, bar), peak_of(ctx, precision));
  Json document = {{"command", "bench"},  {"device", device_name(ctx)},    {"precision", word_of(kPrecisions, o.precision)},
                   {"version", kVersion}, {"threads", ctx.thread_count()}, {"conv", o.conv}};
  document.update(r);
  document["peak_memory_bytes"] = peak_memory_bytes();
  return document;
}

// Each line of the file is a shape, with "backward" behind it or not. Gives a JSON document a line, as soon as it is
// measured; one that cannot be measured has an "error", and the command fails at the end.
void bench_shapes(Context& ctx, BenchOptions o, Precision precision, ProgressBar& bar) {
  std::ifstream file(o.shapes);
  if (!file) throw Error(fmt::format("{} cannot be opened", o.shapes), "a text file with one shape a line");
  std::string line, way;
  int64_t failed = 0;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    way.clear();
    if (!(words >> o.shape)) continue;
    words >> way;
    if (!way.empty() && way != "backward")
      throw Error(fmt::format("{}: '{}' where 'backward' or nothing is wanted", o.shapes, way));
    o.backward = way == "backward";
    try {
      print_line(bench_op(ctx, o, precision, bar).dump());
    } catch (const Error& why) {
      print_line(Json({{"shape", o.shape}, {"backward", o.backward}, {"error", why.what()}}).dump());
      ++failed;
    }
  }
  bar.clear();
  if (failed > 0) throw Error(fmt::format("{} of the shapes in {} could not be measured", failed, o.shapes));
}

void bench_ops(const BenchOptions& o) {
  check_options(o);
  Context ctx(open_device(o.device));
  set_up(ctx, o);
  const Precision precision = o.precision;
  check_precision(ctx, precision);
  ProgressBar bar("bench", !o.quiet);
  if (!o.shapes.empty()) return bench_shapes(ctx, o, precision, bar);
  const Json document = bench_op(ctx, o, precision, bar);
  bar.clear();
  if (o.json)
    print_json(document);
  else if (!o.quiet)
    print_results(fmt::format("bench of {} {}{}, {} on {}", o.op, o.shape, o.backward ? " backward" : "",
                              word_of(kPrecisions, o.precision), device_text(ctx)),
                  document);
}

void bench_method(const BenchOptions& o) {
  Job job("bench", o);
  const Work work = method_work(job, o);
  const Probe peak = peak_of(job.ctx, job.run.precision);
  const Json r = results(work, measure(work, o, job.ctx, job.run.precision, false, job.bar), peak);
  job.bar.clear();
  if (!o.json) {
    if (!o.quiet) print_results(job.summary_title("bench of " + o.method), r);
    return;
  }
  Json document = job.header();
  document["threads"] = job.ctx.thread_count();
  document["conv"] = o.conv;
  document.update(r);
  document["weights_bytes"] = job.model.network.parameter_count() * int64_t(sizeof(float));
  job.add_footer(document);
  print_json(document);
}

void run_bench(const BenchOptions& o) {
  if (o.repeat < 1 || o.repeat > 100000)
    throw Error(fmt::format("--repeat {} is out of range", o.repeat), "1 to 100000", true);
  if (o.warm_up < 0 || o.warm_up > 1000) throw Error("--warm-up is out of range", "0 to 1000", true);
  if (!(o.min_seconds >= 0 && o.min_seconds < 1e4)) throw Error("--min-seconds is out of range", "0 to 10000", true);
  if (int(o.op.empty()) + int(o.method.empty()) + int(o.sweep.empty()) != 2)
    throw Error("bench wants one of --method, --op and --sweep",
                "for example --method smoothgrad --model vgg19 --weights random:0, "
                "--op conv --shape 16,64,224,224,64,3, or --sweep vgg16",
                true);
  if (!o.shapes.empty() && (o.op.empty() || !o.shape.empty() || o.backward))
    throw Error("--shapes wants --op, and neither --shape nor --backward beside it", "", true);
  if (o.sweep.empty() && !o.save_table.empty()) throw Error("--save-table wants --sweep", "", true);
  if (!o.sweep.empty())
    bench_sweep(o);
  else if (o.op.empty())
    bench_method(o);
  else
    bench_ops(o);
}

void add_occlusion_and_etalon(CLI::App& app, BenchOptions& o) {
  app.add_option("--algorithm", o.algorithm, "of occlusion (default incremental) or etalon (default single-pass)")
      ->type_name("incremental|full|single-pass|coordinate");
  app.add_option("--mask", o.mask, "occlusion: the mask (default 32)")->type_name("S|HxW");
  app.add_option("--stride", o.stride, "occlusion: from one position to the next (default 2)")->type_name("S|HxW");
  app.add_option("--fill", o.fill, "occlusion: what stands under the mask (default 0)")
      ->type_name("0|mean|NUMBER|blur");
  app.add_option("--positions", o.positions,
                 "occlusion: time about that many positions, drawn by --seed, and estimate all (default 256)")
      ->type_name("N|all");
  app.add_option("--images", o.images, "etalon, maximize: images of one call (default 1)")->type_name("N");
  app.add_option("--outputs", o.outputs, "etalon: the first N outputs (default all)")->type_name("N|all");
  app.add_option("--layer", o.layer, "etalon: hidden units instead of outputs")
      ->type_name("NAME[:CHANNEL|all[:ROW,COL|all]]");
  app.add_flag("--full-maps", o.full_maps, "etalon: hidden units by whole maps, not by their receptive fields");
}

void add_sweep(CLI::App& app, BenchOptions& o) {
  app.add_option("--sweep", o.sweep,
                 "or all GEMM kernels on the layers of these networks, on a GPU: which one is fastest for which layer; "
                 "prints JSON lines")
      ->type_name("NAME[,NAME...]");
  app.add_option("--batches", o.batches, "of the sweep (default 1,16,100)")->type_name("N,N");
  app.add_option("--precisions", o.precisions, "of the sweep (default all four)")->type_name("P,P");
  app.add_option("--minutes", o.minutes, "of the sweep, which then leaves out the least layers (default 10)")
      ->type_name("M");
  app.add_option("--save-table", o.save_table, "write the sweep's winners, for --gemm-table")->type_name("FILE");
}

}  // namespace

std::function<void()> setup_bench(CLI::App& app) {
  auto o = std::make_shared<BenchOptions>();
  app.add_option("--method", o->method,
                 "what to repeat (jacobian: one forward pass, one backward pass for each class; train: a step; read: a "
                 "data set's images as the network's input; METHOD: a map by any other of `compare`'s methods, as rise or ablationcam)")
      ->type_name("forward|gradient|jacobian|smoothgrad|integrated|occlusion|etalon|maximize|train|read|METHOD");
  app.add_option("--op", o->op, "or one op")->type_name("conv|linear|maxpool");
  app.add_option("--shape", o->shape,
                 "of the op: conv N,C,H,W,K,kernel[,stride[,padding[,dilation[,groups]]]]; linear N,in,out; maxpool "
                 "N,C,H,W,kernel[,stride[,padding]]")
      ->type_name("LIST");
  app.add_option("--shapes", o->shapes, "or a file of them, one a line, 'backward' behind it or not: prints JSON lines")
      ->type_name("FILE");
  app.add_flag("--backward", o->backward, "the op's backward-data");
  app.add_option("--repeat", o->repeat, "runs to time; their median counts (default 5)")->type_name("N");
  app.add_option("--warm-up", o->warm_up, "calls before them that are not counted (default 2)")->type_name("N");
  app.add_option("--min-seconds", o->min_seconds, "a run repeats the work at least that long (default 0)")
      ->type_name("S");
  app.add_option("--samples", o->samples, "of smoothgrad (default 32)")->type_name("N");
  app.add_option("--steps", o->steps, "of integrated and maximize (default 32)")->type_name("N");
  app.add_option("--recipe", o->recipe, "of maximize (default fleuret)")->type_name("NAME");
  add_choice(app, *o, "--rule", kRules, o->rule, Changes::nothing, "what ReLUs let through on the way back");
  add_occlusion_and_etalon(app, *o);
  add_sweep(app, *o);
  app.add_flag("--probe", o->probe, "measure the machine's multiply-add rate beside each run");
  add_inputs(app, *o, "an image or array to run on (default: random values)");
  add_model(app, *o);
  add_run(app, *o);
  add_report(app, *o);
  return [o] { run_bench(*o); };
}

}  // namespace switchback
