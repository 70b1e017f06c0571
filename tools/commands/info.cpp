// `switchback info`: the layers of a model; without --model, this machine and build.
#include <CLI/CLI.hpp>
#include <memory>

#include "engine/version.h"
#include "engine/zoo/zoo.h"
#include "kernels/device/device_ops.h"
#include "tools/commands/commands.h"
#include "tools/cli/job.h"

namespace switchback {
namespace {

struct InfoOptions : Options {
  std::string size;
};

// The GPUs that can be used, and the vendor's libraries as the first of them finds them.
struct GpuInfo {
  std::string why_none;
  Json devices = {"cpu"}, list = Json::array(), unusable = Json::array();
  std::vector<std::string> lines;
};

GpuInfo gpu_info() {
  GpuInfo info;
  const int count = gpu_count(info.why_none);
  for (int i = 0; i < count; ++i) {
    const std::string name = fmt::format("cuda:{}", i);
    std::shared_ptr<Gpu> gpu;
    try {
      gpu = open_gpu(i);
    } catch (const Error& e) {  // too old, or in use by somebody else alone
      info.lines.push_back(fmt::format("{:<11} cannot be used: {}", name, e.what()));
      info.unusable.push_back({{"device", name}, {"why", e.what()}});
      continue;
    }
    info.devices.push_back(name);
    const std::vector<std::string> libraries = gpu->ops->vendor_libraries(*gpu);
    info.list.push_back({{"device", name},
                         {"name", gpu->name},
                         {"compute_capability", fmt::format("{}.{}", gpu->major, gpu->minor)},
                         {"multiprocessors", gpu->multiprocessors},
                         {"clock_hz", gpu->clock_hz},
                         {"memory_bytes", gpu->memory},
                         {"driver", gpu->driver},
                         {"runtime", gpu->runtime},
                         {"libraries", libraries}});
    info.lines.push_back(fmt::format("{:<11} {}, compute capability {}.{}, {} multiprocessors, {:.1f} GiB", name, gpu->name,
                                     gpu->major, gpu->minor, gpu->multiprocessors, double(gpu->memory) / double(1 << 30)));
    if (info.list.size() > 1) continue;
    info.lines.push_back(fmt::format("CUDA        driver for {}.{}, runtime {}.{}", gpu->driver / 1000, gpu->driver % 1000 / 10,
                                     gpu->runtime / 1000, gpu->runtime % 1000 / 10));
    for (const std::string& library : libraries) info.lines.push_back("            " + library);
  }
  return info;
}

void machine_info(const Options& o) {
  Context ctx;
  set_up(ctx, o);
  const CpuFeatures& cpu = cpu_features();
  std::vector<std::string> features;
  if (cpu.avx2) features.push_back("avx2");
  if (cpu.avx512) features.push_back("avx512");
  if (cpu.avx512_bf16) features.push_back("avx512_bf16");
  if (cpu.amx_bf16) features.push_back("amx_bf16");
  std::vector<std::string> precisions = {"fp32"};  // of the CPU; a GPU has all four
  if (cpu.fast_bf16()) precisions.push_back("bf16");
  const GpuInfo gpus = gpu_info();
  if (o.json)
    return print_json({{"command", "info"},
                       {"version", kVersion},
                       {"commit", kGitCommit},
                       {"build",
                        {{"type", kBuildType},
                         {"compiler", kCompiler},
                         {"architecture", kArchitecture},
                         {"sanitizers", kSanitizers}}},
                       {"cpu", {{"name", cpu.name}, {"features", features}, {"threads", ctx.thread_count()}}},
                       {"cuda", {{"on", kWithCuda}, {"reason", kCudaReason}, {"why_no_gpu", gpus.why_none}}},
                       {"devices", gpus.devices},
                       {"gpus", gpus.list},
                       {"unusable_gpus", gpus.unusable},
                       {"precisions", precisions},
                       {"weight_folders", all_weight_folders()}});
  print_line(fmt::format("switchback {} ({})", kVersion, kGitCommit));
  print_line(fmt::format("build       {}, {}, -march={}{}{}", kBuildType, kCompiler, kArchitecture,
                         *kSanitizers ? ", sanitizers: " : "", kSanitizers));
  print_line(fmt::format("processor   {}, {} threads", cpu.name, ctx.thread_count()));
  print_line(fmt::format("features    {}", fmt::join(features, " ")));
  print_line(fmt::format("precisions  {}", fmt::join(precisions, " ")));
  print_line(fmt::format("CUDA side   {} ({})", kWithCuda ? "on" : "off", kCudaReason));
  if (!gpus.why_none.empty()) print_line(fmt::format("GPUs        none: {}", gpus.why_none));
  for (const std::string& line : gpus.lines) print_line(line);
  print_line(fmt::format("weights     looked for in {}", fmt::join(all_weight_folders(), ", ")));
}

// "HxW" or "" for the model's own size.
Shape input_shape(const Network& network, const std::string& size) {
  Shape shape = network.input;
  if (size.empty()) return shape;
  const size_t x = size.find('x');
  if (x == std::string::npos) throw Error(fmt::format("--size '{}' is no HxW", size), "for example 256x320", true);
  shape.h = parse_whole("--size", size.substr(0, x), 1, 1 << 16);
  shape.w = parse_whole("--size", size.substr(x + 1), 1, 1 << 16);
  return shape;
}

struct LayerRow {
  std::string name, type, about;
  Shape shape;
  int64_t parameters, flops;
  Json tensors;  // of its state dict, torchvision's names: [{name, shape}]
};

std::vector<LayerRow> layer_rows(const Network& network, Shape input) {
  const List<Shape> shapes = network.shapes(input);
  std::vector<LayerRow> rows;
  for (size_t i = 0; i < network.nodes.size(); ++i) {
    const Node& node = network.nodes[i];
    std::vector<Shape> in;
    for (int k : node.inputs) in.push_back(shapes[size_t(k)]);
    int64_t count = 0;
    Json tensors = Json::array();
    for (const ParameterSpec& spec : parameters(node.layer)) {
      count += switchback::count(spec.dims);
      tensors.push_back({{"name", full_name(node, spec.name)}, {"shape", spec.dims}});
    }
    rows.push_back({node.name, std::string(type_name(node.layer)), describe(node.layer), shapes[i], count,
                    flops(node.layer, in), std::move(tensors)});
  }
  return rows;
}

std::string shape_text(Shape s) {
  return s.h * s.w == 1 ? std::to_string(s.c) : fmt::format("{}x{}x{}", s.c, s.h, s.w);
}

void model_info(const InfoOptions& o) {
  std::vector<std::string> outputs;
  const Network network = open_network({.name = o.model, .head = o.head, .inputs = o.given}, &outputs);
  const Shape input = input_shape(network, o.size);
  const std::vector<LayerRow> rows = layer_rows(network, input);
  const std::vector<InstalledWeights> weights = installed_weights(o.model, all_weight_folders());
  if (o.json) {
    Json layers = Json::array();
    for (const LayerRow& r : rows)
      layers.push_back({{"name", r.name},
                        {"type", r.type},
                        {"about", r.about},
                        {"shape", {r.shape.c, r.shape.h, r.shape.w}},
                        {"parameters", r.parameters},
                        {"flops", r.flops},
                        {"tensors", r.tensors}});
    Json files = Json::array();
    for (const InstalledWeights& w : weights)
      files.push_back({{"file", w.file}, {"source", w.source}, {"accuracy", w.accuracy}, {"licence", w.licence}});
    return print_json({{"command", "info"},
                       {"model", o.model},
                       {"version", kVersion},
                       {"input", {input.c, input.h, input.w}},
                       {"layers", layers},
                       {"parameters", network.parameter_count()},
                       {"flops", network.flops(input)},
                       {"outputs", outputs},
                       {"weights", files}});
  }
  print_line(fmt::format("{:<24} {:<14} {:>11} {:>11}  {}", "layer", "output", "parameters", "FLOPs", "what"));
  for (const LayerRow& r : rows)
    print_line(fmt::format("{:<24} {:<14} {:>11} {:>11}  {}", r.name, shape_text(r.shape),
                           r.parameters ? human_count(double(r.parameters)) : "",
                           r.flops ? human_count(double(r.flops)) : "", r.about));
  print_line(fmt::format("{:<24} {:<14} {:>11} {:>11}", "total", "", human_count(double(network.parameter_count())),
                         human_count(double(network.flops(input)))));
  if (outputs.size() > 1)
    print_line(fmt::format("outputs: {}; these are the layers of {} (--head NAME chooses)",
                           fmt::join(outputs, ", "), network.nodes.back().name));
}

void run_info(const InfoOptions& o) {
  check_options(o);
  if (o.model.empty())
    machine_info(o);
  else
    model_info(o);
}

}  // namespace

std::function<void()> setup_info(CLI::App& app) {
  auto o = std::make_shared<InfoOptions>();
  app.add_option("--model", o->model, "built-in architecture (`switchback models` lists them) or an ONNX file")
      ->type_name("NAME|FILE.onnx");
  add_head(app, *o);
  app.add_option("--output", o->head, "the same as --head")->type_name("NAME");
  app.add_option("--size", o->size, "of the input (default: the model's own)")->type_name("HxW");
  app.add_option("--threads", o->threads, "default: one for each processor")->type_name("N");
  add_report(app, *o);
  return [o] { run_info(*o); };
}

}  // namespace switchback
