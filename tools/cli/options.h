// The options that commands share (tools/README.md), their parsing, and the checks that need no model.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/run/plan.h"
#include "kernels/device/context.h"
#include "kernels/patch/patch.h"
#include "tools/cli/names.h"
#include "viz/methods/fill.h"
#include "viz/methods/target.h"
#include "viz/pictures/colormap.h"

namespace CLI {
class App;
class Option;
}

namespace switchback {

// Ends the command: it was called wrongly.
[[noreturn]] void usage(const std::string& what, const std::string& hint = "");

// The words of an option's values: one table serves parsing, help, errors and reports.
template <typename E>
struct Choice {
  std::string_view word;
  E value;
};

template <typename E, size_t N>
constexpr size_t choice_index(const Choice<E> (&choices)[N], const E& value) {
  return size_t(std::find_if(choices, choices + N, [&](const Choice<E>& c) { return c.value == value; }) - choices);
}
template <typename E, size_t N>
constexpr std::string_view word_of(const Choice<E> (&choices)[N], const E& value) {
  return choices[choice_index(choices, value)].word;
}

inline constexpr Choice<Score> kScores[] = {
    {"logit", Score::logit}, {"probability", Score::probability}, {"nll", Score::nll}};
inline constexpr Choice<Precision> kPrecisions[] = {
    {"fp32", Precision::fp32}, {"tf32", Precision::tf32}, {"bf16", Precision::bf16}, {"fp16", Precision::fp16}};
inline constexpr Choice<ReluRule> kRules[] = {{"gradient", kGradient}, {"deconv", kDeconv}, {"guided", kGuided}};
inline constexpr Choice<bool> kOnOff[] = {{"on", true}, {"off", false}};

// The range of colours: one for all panels of a picture, or each panel's own.
enum class PanelScale { shared, own };

struct Options {
  std::vector<std::string> inputs;
  std::string save_input;
  bool exif = false, strict = false;
  // model
  std::string model, weights, save_weights, preprocess, labels;
  std::vector<std::string> checkpoints;  // --weights of the commands that take several (checkpoints.h)
  bool follow_links = false;
  std::vector<std::string> given;  // NAME=FILE.npy
  mutable std::string head;        // the output to explain; also what --output named, once the model is open (Job)
  // target
  std::string target = "max", layer;
  Score score = Score::logit;
  // output
  // --output is `or_head` until the model is open: a folder, or a head (Job).
  std::string output = "out", or_head, save = "png", name = kDefaultName;
  // pictures
  double scale = 1;                  // pixels of a PNG for each of the page's
  bool plain = false;                // maps alone, without input, words and bars
  std::optional<ColorMap> colormap;  // empty: the method's own
  std::string alpha = "auto", clip = "auto";
  std::optional<PanelScale> panel_scale;  // empty: the command's own
  int columns = 0;                        // of grids; 0: chosen
  // run
  std::string device = "auto", batch = "auto", memory, conv;
  Precision precision = Precision::fp32;
  bool graphs = true;
  std::string seed = "0", threads, gemm_table;
  int top = 5;
  bool json = false, quiet = false;
  bool divides = false;  // the command can run in shares (shares.h)

  bool saves(std::string_view kind) const;  // "png", "svg", "npy" or "json"
  ColorMap map_or(ColorMap standard) const { return colormap.value_or(standard); }
  float alpha_or(double standard) const;    // 0 … 1
  double clip_or(double standard) const;    // a percentile; 100: nothing is clipped
  std::vector<Setting> settings() const;    // of all options that change results, in the order they were added

  // Of each option that changes results: `given` is empty, `text` tells it.
  struct Recorded {
    Setting setting;
    std::function<std::string()> text;
  };
  std::vector<Recorded> recorded;
};

// What an option of a command changes, and so how it shows in the names of results (names.h).
enum class Changes {
  nothing,   // what is computed
  values,    // "-samples100"
  kind,      // "-guided": the value says it all
  pictures,  // "-columns4", in the names of pictures alone
};

// Options of every command are added by these, so that none that changes results is forgotten in their names. `type`
// stands for the value in the help. The default is what `value` holds.
CLI::Option* add_setting(CLI::App& app, Options& o, const char* flags, std::string& value, Changes changes,
                         const std::string& about, const std::string& type);
CLI::Option* add_setting(CLI::App& app, Options& o, const char* flags, std::vector<std::string>& value, Changes changes,
                         const std::string& about, const std::string& type);
CLI::Option* add_setting(CLI::App& app, Options& o, const char* flags, int64_t& value, Changes changes,
                         const std::string& about, const std::string& type);
CLI::Option* add_setting(CLI::App& app, Options& o, const char* flags, int& value, Changes changes,
                         const std::string& about, const std::string& type);
CLI::Option* add_setting(CLI::App& app, Options& o, const char* flags, double& value, Changes changes,
                         const std::string& about, const std::string& type);
CLI::Option* add_switch(CLI::App& app, Options& o, const char* flag, bool& value, Changes changes, const std::string& about);

// One word of a list; `index` is where the value that is set stands in it.
CLI::Option* add_word(CLI::App& app, Options& o, const char* flag, std::vector<std::string> words,
                      std::function<size_t()> index, std::function<void(size_t)> set, Changes changes,
                      const std::string& about);
template <typename E, size_t N>
CLI::Option* add_choice(CLI::App& app, Options& o, const char* flag, const Choice<E> (&choices)[N], E& value,
                        Changes changes, const std::string& about) {
  std::vector<std::string> words;
  for (const Choice<E>& choice : choices) words.emplace_back(choice.word);
  return add_word(app, o, flag, std::move(words), [&] { return choice_index(choices, value); },
                  [&](size_t i) { value = choices[i].value; }, changes, about);
}

// Each adds its group of options to a command's parser.
void add_inputs(CLI::App& app, Options& o, const char* about);  // and how they are read
void add_model(CLI::App& app, Options& o);
void add_checkpoints(CLI::App& app, Options& o);                       // the same, with several --weights
void add_head(CLI::App& app, Options& o);  // a part of add_model: of ONNX files with several outputs or inputs
void add_target(CLI::App& app, Options& o, bool hidden_units = true);  // target, score; layer where hidden units can be
void add_folder(CLI::App& app, Options& o);  // output, name
void add_output(CLI::App& app, Options& o, bool saves_by_default = true);  // these, save, and scale of pictures
// How maps are drawn. Each is added where a command's pictures can follow it.
enum class Drawing : unsigned { plain = 1, colormap = 2, alpha = 4, clip = 8, panel_scale = 16, columns = 32 };
constexpr Drawing operator|(Drawing a, Drawing b) { return Drawing(unsigned(a) | unsigned(b)); }
constexpr Drawing kMapDrawing =
    Drawing::plain | Drawing::colormap | Drawing::clip | Drawing::panel_scale | Drawing::columns;
// `standard`: the defaults of these, for the help, as "99th percentile".
struct DrawingDefaults {
  const char *colormap = "by the method", *alpha = "0.5", *clip = "99", *panel_scale = "own";
};
void add_drawing(CLI::App& app, Options& o, Drawing which, const DrawingDefaults& standard = {});
// device, precision, batch, memory, seed, threads, conv; random: the command draws random numbers
void add_run(CLI::App& app, Options& o, bool random = false);
void add_report(CLI::App& app, Options& o);  // json, quiet
void add_top(CLI::App& app, Options& o, Changes changes, const char* about);
// --box, repeated, and --fill
void add_occlusion(CLI::App& app, Options& o, std::vector<std::string>& boxes, std::string& fill);

// Throws (usage) on values that no command takes; --model itself is checked where it is opened.
void check_options(const Options& o);

// One of `choices`, or an error (usage) that lists them.
void check_choice(std::string_view option, std::string_view value, const std::vector<std::string>& choices);

template <typename E, size_t N>
E parse_choice(std::string_view option, std::string_view word, const Choice<E> (&choices)[N]) {
  std::vector<std::string> words;
  for (const Choice<E>& choice : choices) words.emplace_back(choice.word);
  check_choice(option, word, words);
  return std::find_if(choices, choices + N, [&](const Choice<E>& c) { return c.word == word; })->value;
}

int64_t parse_whole(std::string_view option, std::string_view text, int64_t least, int64_t most);
double parse_number(std::string_view option, const std::string& text);  // finite
uint64_t parse_seed(const std::string& text);
int64_t parse_batch(const std::string& text);  // 0: auto
size_t parse_memory(const std::string& text);  // "2G", "500M", "1.5GiB"; "" gives 0
// Nodes by name: each text is a name, or several with commas between. Throws (usage) on unknown and repeated ones.
std::vector<int> parse_nodes(const Network& network, const std::vector<std::string>& texts);
// The same, where there must be one.
std::vector<int> required_nodes(const Network& network, const std::vector<std::string>& texts, const std::string& model);
std::pair<int64_t, int64_t> parse_size(std::string_view option, const std::string& text);  // "32" or "HxW", at least 1
std::vector<int64_t> parse_list(std::string_view option, const std::string& text, int64_t count);  // "0-15,20", "all"
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
