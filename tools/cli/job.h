// One run of a command: its model, context and times, opened from the options.
#pragma once

#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/model.h"
#include "kernels/device/context.h"
#include "tools/cli/options.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/report.h"
#include "viz/methods/gradient.h"

namespace switchback {

struct Job {
  // Checks the options, opens the device and the model (and writes --save-weights). Without a model: an empty one, for
  // commands on arrays.
  Job(const char* command, const Options& options, bool with_model = true);

  std::string command;
  Options options;
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  Context ctx;
  Model model;
  RunOptions run;
  TargetSpec target;
  Outputs outputs = Outputs::classes;    // of the model
  std::vector<std::string> checkpoints;  // where --weights means several: each one's; the model begins with the first
  ProgressBar bar;
  std::string precision;  // of the arithmetic, as reports call it
  double load_seconds = 0;
  std::vector<std::pair<std::string, std::string>> failed;  // inputs that could not be read, and why
  std::optional<InputRecorder> input_recorder;              // where --save-input is given

  bool several() const { return !checkpoints.empty(); }
  // Gives the model the weights of that checkpoint. Throws where they belong to another network.
  void open_checkpoint(size_t index);
  void fail(const std::string& input, const std::string& why);  // notes it once, with a warning
  double seconds() const;                   // since the start
  std::string model_name() const;           // as the user called it; of an ONNX file its name without folders
  std::string class_name(int64_t c) const;  // "" where there is no label
  Json class_json(int64_t c) const;         // null where there is no label
  // The fields of every JSON document before `inputs`, and the last ones.
  Json header() const;
  void add_footer(Json& document) const;
  // What results carry with them: the header, the command line, and the weights' checksum, which sum_weights() begins to
  // work out beside everything else.
  void sum_weights();
  Json provenance() const;
  std::string summary_title(const std::string& what) const;  // "gradient of vgg19 (weights …), fp32 on the CPU"
  std::string summary_times(int64_t items, const char* noun) const;

 private:
  size_t checkpoint_ = 0;  // that the model has
  // Of the weights' file, null where there is none; of several a list.
  std::shared_future<Json> weights_sha256_;
};

// The command line behind the program's name; of `merge` that of the runs whose parts it joins.
const std::vector<std::string>& run_arguments();
void set_run_arguments(std::vector<std::string> arguments);
uint32_t weights_checksum(const Weights& weights);
// Weights folders, the source tree's for a command that runs in its build folder included.
std::vector<std::string> all_weight_folders();
// Threads for OpenMP and the context, --conv, --graphs and --gemm-table; call before anything runs.
void set_up(Context& ctx, const Options& o);
std::string device_text(const Context& ctx);  // "the CPU", "cuda:0 (NVIDIA H200)"
std::string device_name(const Context& ctx);  // "cpu", "cuda:0"

}  // namespace switchback
