// The options that commands share (tools/README.md), their parsing, and the checks that need no model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/run/plan.h"
#include "kernels/device/context.h"
#include "kernels/patch/patch.h"
#include "viz/methods/fill.h"
#include "viz/methods/target.h"

namespace CLI {
class App;
}

namespace switchback {

struct Options {
  std::vector<std::string> inputs;
  // model
  std::string model, weights, save_weights, preprocess;
  // target
  std::string target = "max", score = "logit", layer;
  // output
  std::string output = "out", save = "png";
  // run
  std::string device = "auto", precision = "fp32", batch = "auto", memory, conv, graphs = "on";
  std::string seed = "0", threads, gemm_table;
  int top = 5;
  bool json = false, quiet = false;

  bool saves(std::string_view kind) const;  // "png" or "npy"
};

// Each adds its group of options to a command's parser.
void add_inputs(CLI::App& app, Options& o, const char* about);
void add_model(CLI::App& app, Options& o);
void add_target(CLI::App& app, Options& o, bool hidden_units = true);  // target, score; layer where hidden units can be
void add_output(CLI::App& app, Options& o, bool saves_by_default = true);
void add_run(CLI::App& app, Options& o);     // device, precision, batch, memory, seed, threads, conv
void add_report(CLI::App& app, Options& o);  // json, quiet
void add_top(CLI::App& app, Options& o, const char* about);
void add_occlusion(CLI::App& app, std::vector<std::string>& boxes, std::string& fill);  // --box, repeated, and --fill

// Throws (usage) on values that no command takes; --model itself is checked where it is opened.
void check_options(const Options& o);

// One of `choices`, or an error (usage) that lists them.
void check_choice(std::string_view option, std::string_view value, const std::vector<std::string>& choices);

int64_t parse_whole(std::string_view option, std::string_view text, int64_t least, int64_t most);
uint64_t parse_seed(const std::string& text);
int64_t parse_batch(const std::string& text);  // 0: auto
size_t parse_memory(const std::string& text);  // "2G", "500M", "1.5GiB"; "" gives 0
// Nodes by name: each text is a name, or several with commas between. Throws (usage) on unknown and repeated ones.
std::vector<int> parse_nodes(const Network& network, const std::vector<std::string>& texts);
std::pair<int64_t, int64_t> parse_size(std::string_view option, const std::string& text);  // "32" or "HxW", at least 1
std::vector<int64_t> parse_list(std::string_view option, const std::string& text, int64_t count);  // "0-15,20"
Score parse_score(const std::string& text);
Precision parse_precision(const std::string& text);
ReluRule parse_rule(const std::string& text);
Fill parse_fill(const std::string& text);  // 0, mean, blur or a number
Box parse_box(const std::string& text);    // "x,y,w,h": the column and row of the top left pixel, width and height
// Throws (usage) where a box does not lie inside of the image, whose size the error tells.
void check_boxes(const std::vector<Box>& boxes, Shape image);
// The GPU that --device asks for, null for the CPU. `auto` takes the first GPU that can be used; where there is an NVIDIA
// GPU that cannot be, a warning says why the CPU runs.
std::shared_ptr<Gpu> open_device(const std::string& text);
// --gemm-table: reads the file and gives it to the context. Throws where that is no GPU's, or the table another GPU's.
void load_gemm_table(Context& ctx, const std::string& path);
// The words between commas.
std::vector<std::string> split_list(const std::string& text);
// --conv; "" gives the device's default: `auto` on the CPU, `own` on a GPU, whose results are the same bits in every run.
ConvAlgorithm parse_conv(const std::string& text, bool gpu);

}  // namespace switchback
