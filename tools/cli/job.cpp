#include "tools/cli/job.h"

#include <omp.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/files/npy.h"
#include "engine/files/sha256.h"
#include "engine/version.h"
#include "tools/cli/checkpoints.h"
#include "tools/cli/inputs.h"
#include "tools/cli/processors.h"
#include "tools/cli/shares.h"

namespace switchback {
namespace {

// An array tells the sizes that a file leaves open.
Dims array_dims(const Options& o) {
  return is_onnx(o.model) && !o.inputs.empty() && is_array(o.inputs[0]) ? npy_dims(o.inputs[0], {2, 3, 4}) : Dims{};
}

Model open(const Options& o) {
  if (o.model.empty()) throw Error("--model is missing", "`switchback models` lists the built-in ones", true);
  return open_model({o.model, o.weights, o.preprocess, o.labels, array_dims(o),
                     o.follow_links, o.head, o.or_head, o.given},
                    all_weight_folders());
}

std::vector<std::string>& arguments_of_run() {
  static std::vector<std::string> arguments;
  return arguments;
}

// The command line as a shell would take it.
std::string command_line() {
  std::string program;
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::getline(file, program, '\0');
  std::string line;
  const auto add = [&](const std::string& word) {
    const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
      return std::isalnum(c) || std::strchr("-_./,:=+@%", c);
    });
    std::string quoted = "'";
    for (char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += (line.empty() ? "" : " ") + (plain ? word : quoted + "'");
  };
  add(program);
  for (const std::string& word : run_arguments()) add(word);
  return line;
}

Json sha256_json(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return nullptr;  // random:SEED
  return sha256_of_file(path);
}

}  // namespace

std::vector<std::string> all_weight_folders() {
  std::vector<std::string> folders = weight_folders();
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error && std::filesystem::exists(program.parent_path() / "CMakeCache.txt", error))
    folders.push_back(SWITCHBACK_SOURCE_WEIGHTS);
  return folders;
}

const std::vector<std::string>& run_arguments() { return arguments_of_run(); }
void set_run_arguments(std::vector<std::string> arguments) { arguments_of_run() = std::move(arguments); }

uint32_t weights_checksum(const Weights& weights) {
  uint32_t sum = 0;
  for (const Parameter& p : weights.list())
    sum = uint32_t(crc32_z(sum, reinterpret_cast<const Bytef*>(weights.values(p).data()), weights.values(p).size_bytes()));
  return sum;
}

void set_up(Context& ctx, const Options& o) {
  ctx.conv = parse_conv(o.conv, ctx.gpu != nullptr);
  ctx.graphs = o.graphs;
  if (!o.gemm_table.empty()) load_gemm_table(ctx, o.gemm_table);
  // Ranks of one machine share its processors, but for those that they are bound to.
  const int usable = std::max(1, std::min(usable_processors(), int(sysconf(_SC_NPROCESSORS_ONLN)) / shares().local_count()));
  ctx.threads = o.threads.empty() ? omp_get_max_threads() : int(parse_whole("--threads", o.threads, 1, 4096));
  if (o.threads.empty() && !std::getenv("OMP_NUM_THREADS")) ctx.threads = std::min(ctx.threads, usable);
  if (!o.threads.empty() && ctx.threads > usable)
    warn(fmt::format("--threads {}, but only {} processor{} may be used: more threads wait for each other", ctx.threads, usable,
                     usable == 1 ? "" : "s"));
  omp_set_num_threads(ctx.threads);
}

std::string device_name(const Context& ctx) {
  return ctx.gpu ? fmt::format("{}:{}", ctx.device_name(), ctx.gpu->index) : "cpu";
}

std::string device_text(const Context& ctx) {
  return ctx.gpu ? fmt::format("{} ({})", device_name(ctx), ctx.gpu->name) : "the CPU";
}

Job::Job(const char* command, const Options& options, bool with_model)
    : command(command),
      options(options),
      ctx((check_options(options), open_device(options.device))),
      bar(command, !options.quiet && !shares().later_rank()),
      precision(word_of(kPrecisions, options.precision)) {
  if (shares().ranks() && !options.divides)
    throw Error(fmt::format("{} runs on one rank, but {} are started", command, shares().count()), "start it without mpirun", true);
  if (shares().divided() && !options.save_input.empty())
    throw Error("--save-input is of a run that is not divided", "leave out --save-input, or ranks and --shard", true);
  set_up(ctx, options);
  check_precision(ctx, options.precision);
  if (!options.checkpoints.empty()) {
    checkpoints = expand_weights(options.checkpoints);
    this->options.weights = checkpoints[0];
    if (checkpoints.size() == 1) checkpoints.clear();
    if (several() && !options.save_weights.empty())
      throw Error("--save-weights with several --weights", "which ones are meant? Give one", true);
  }
  if (with_model) model = open(this->options);
  // One that does not fit is found before the work.
  for (size_t e = 0; e < checkpoints.size(); ++e) open_checkpoint(e);
  if (several()) open_checkpoint(0);
  for (const std::string& text : model.warnings) warn(text);
  if (model.took_or_folder) {
    options.head = options.or_head;  // the caller's, whose settings name results
    this->options.head = options.or_head;
  } else if (!options.or_head.empty()) {
    this->options.output = options.or_head;
  }
  run = {.precision = options.precision,
         .batch = parse_batch(options.batch),
         .memory = parse_memory(options.memory),
         .progress = {}};
  const bool told = model.preprocess.output_is_probability;
  target = {options.target, options.layer, options.score, told};
  if (with_model) outputs = outputs_of(model.network, told);
  if (!options.save_weights.empty()) save_weights(model.network, model.weights, options.save_weights);
  if (!options.save_input.empty()) input_recorder.emplace(options.save_input);
  load_seconds = seconds();
  bar.start();
}

void Job::open_checkpoint(size_t index) {
  if (index == checkpoint_) return;
  Options of = options;
  of.weights = checkpoints[index];
  Model next = open(of);
  if (next.network != model.network)
    throw Error(fmt::format("{} and {} are weights of different networks", model.source, next.source),
                "the columns of one picture show one network; run the command for each, or `switchback compare`");
  model = std::move(next);
  checkpoint_ = index;
}

void Job::fail(const std::string& input, const std::string& why) {
  const std::pair<std::string, std::string> what(input, why);
  if (std::ranges::find(failed, what) != failed.end()) return;
  bar.clear();
  warn(fmt::format("left out: {}", why));
  failed.push_back(what);
}

double Job::seconds() const { return seconds_since(start); }

std::string Job::model_name() const {
  return is_onnx(options.model) ? std::filesystem::path(options.model).stem().string() : options.model;
}

std::string Job::class_name(int64_t c) const {
  return c >= 0 && c < int64_t(model.labels.size()) ? model.labels[size_t(c)] : "";
}

Json Job::class_json(int64_t c) const {
  const std::string name = class_name(c);
  return name.empty() ? Json(nullptr) : Json(name);
}

Json Job::header() const {
  Json header = {{"command", command},
                 {"model", options.model},
                 {"weights", several() ? Json(checkpoints) : Json(model.source)},
                 {"device", device_name(ctx)},
                 {"precision", precision},
                 {"seed", parse_seed(options.seed)},
                 {"version", kVersion},
                 {"channel_order", name_of(model.preprocess.order)},
                 {"outputs", name_of(outputs)}};
  if (!options.gemm_table.empty()) header["gemm_table"] = options.gemm_table;
  return header;
}

void Job::sum_weights() {
  const auto sum = [files = checkpoints, one = model.source] {
    if (files.empty()) return sha256_json(one);
    Json list = Json::array();
    for (const std::string& file : files) list.push_back(sha256_json(file));
    return list;
  };
  weights_sha256_ = std::async(std::launch::async, sum).share();
}

Json Job::provenance() const {
  Json all = {{"command_line", command_line()}};
  all.update(header());
  all["weights_sha256"] = weights_sha256_.valid() ? weights_sha256_.get() : Json(nullptr);
  all["target"] = options.target;
  if (!options.layer.empty()) all["layer"] = options.layer;
  return all;
}

void Job::add_footer(Json& document) const {
  const double total = seconds();
  document["seconds"] = {{"load", load_seconds}, {"run", total - load_seconds}, {"total", total}};
  document["peak_memory_bytes"] = peak_memory_bytes();
}

std::string Job::summary_title(const std::string& what) const {
  return fmt::format("{} of {} (weights: {}), {} on {}", what, model_name(),
                     several() ? checkpoints_text(checkpoints) : model.source, precision, device_text(ctx));
}

std::string Job::summary_times(int64_t items, const char* noun) const {
  return fmt::format("{} in {} (loading the model: {})", counted(items, noun),
                     human_seconds(seconds() - load_seconds), human_seconds(load_seconds));
}

}  // namespace switchback
