#include "tools/cli/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "engine/files/files.h"
#include "engine/text.h"
#include "engine/version.h"
#include "kernels/check.h"
#include "kernels/gemm/gemm_table.h"
#include "tools/cli/progress.h"
#include "tools/cli/shares.h"

namespace switchback {

void usage(const std::string& what, const std::string& hint) { throw Error(what, hint, true); }

namespace {

std::string text_of(const std::string& value) { return value; }
std::string text_of(int64_t value) { return std::to_string(value); }
std::string text_of(int value) { return std::to_string(value); }
std::string text_of(double value) { return fmt::format("{}", value); }
std::string text_of(const std::vector<std::string>& values) { return fmt::format("{}", fmt::join(values, "+")); }

// "samples" of "--samples", "layer" of "--layer,--layers".
std::string option_name(std::string_view flags) {
  flags = flags.substr(0, flags.find(','));
  return std::string(flags.substr(flags.find_first_not_of('-')));
}

void record(Options& o, const char* flags, Changes changes, Setting::Form form, std::function<std::string()> text) {
  if (changes == Changes::nothing) return;
  const std::string standard = text();
  o.recorded.push_back({{.option = option_name(flags), .standard = standard, .given = "",
                         .form = changes == Changes::kind ? Setting::Form::value : form,
                         .pictures_only = changes == Changes::pictures},
                        std::move(text)});
}

template <typename T>
CLI::Option* add_value(CLI::App& app, Options& o, const char* flags, T& value, Changes changes, const std::string& about,
                       const std::string& type) {
  record(o, flags, changes, Setting::Form::option_and_value, [&value] { return text_of(value); });
  return app.add_option(flags, value, about)->type_name(type);
}

// What is added while it lives stands under that heading in the help. (A command's own options stand under none.)
class Heading {
 public:
  Heading(CLI::App& app, const char* name) : app_(app), name_(name), before_(app.get_options().size()) {}
  ~Heading() {
    const std::vector<CLI::Option*> all = app_.get_options();
    for (size_t i = before_; i < all.size(); ++i) all[i]->group(name_);
  }
  Heading(const Heading&) = delete;
  Heading& operator=(const Heading&) = delete;

 private:
  CLI::App& app_;
  const char* name_;
  size_t before_;
};

}  // namespace

std::vector<Setting> Options::settings() const {
  std::vector<Setting> all;
  for (const Recorded& r : recorded) {
    all.push_back(r.setting);
    all.back().given = r.text();
  }
  return all;
}

CLI::Option* add_setting(CLI::App& app, Options& o, const char* flags, std::string& value, Changes changes,
                         const std::string& about, const std::string& type) {
  return add_value(app, o, flags, value, changes, about, type);
}
CLI::Option* add_setting(CLI::App& app, Options& o, const char* flags, std::vector<std::string>& value, Changes changes,
                         const std::string& about, const std::string& type) {
  return add_value(app, o, flags, value, changes, about, type)->allow_extra_args(false);  // what follows is the INPUT
}
CLI::Option* add_setting(CLI::App& app, Options& o, const char* flags, int64_t& value, Changes changes,
                         const std::string& about, const std::string& type) {
  return add_value(app, o, flags, value, changes, about, type);
}
CLI::Option* add_setting(CLI::App& app, Options& o, const char* flags, int& value, Changes changes,
                         const std::string& about, const std::string& type) {
  return add_value(app, o, flags, value, changes, about, type);
}
CLI::Option* add_setting(CLI::App& app, Options& o, const char* flags, double& value, Changes changes,
                         const std::string& about, const std::string& type) {
  return add_value(app, o, flags, value, changes, about, type);
}

CLI::Option* add_switch(CLI::App& app, Options& o, const char* flag, bool& value, Changes changes,
                        const std::string& about) {
  record(o, flag, changes, Setting::Form::option, [&value] { return std::string(value ? "on" : "off"); });
  return app.add_flag(flag, value, about);
}

CLI::Option* add_word(CLI::App& app, Options& o, const char* flag, std::vector<std::string> words,
                      std::function<size_t()> index, std::function<void(size_t)> set, Changes changes,
                      const std::string& about) {
  const std::string type = fmt::format("{}", fmt::join(words, "|"));
  const std::string help = fmt::format("{} (default {})", about, words[index()]);
  record(o, flag, changes, Setting::Form::option_and_value, [words, index] { return words[index()]; });
  const auto parse = [words = std::move(words), set = std::move(set), flag](const std::string& word) {
    check_choice(flag, word, words);
    set(size_t(std::find(words.begin(), words.end(), word) - words.begin()));
  };
  return app.add_option_function<std::string>(flag, parse, help)->type_name(type);
}

bool Options::saves(std::string_view kind) const {
  for (const std::string& part : split(save, ','))
    if (part == kind) return true;
  return false;
}

namespace {

// A number from `least` to `most`; `standard` where the option is not given.
double number_or(const char* option, const std::string& text, double standard, double least, double most) {
  if (text == "auto") return standard;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || !(value >= least && value <= most))
    usage(fmt::format("{} '{}' is out of range", option, printable(text)),
          fmt::format("a number from {} to {}", least, most));
  return value;
}

}  // namespace

float Options::alpha_or(double standard) const { return float(number_or("--alpha", alpha, standard, 0, 1)); }

double Options::clip_or(double standard) const {
  return clip == "none" ? 100 : number_or("--clip", clip, standard, 0, 100);
}

void add_inputs(CLI::App& app, Options& o, const char* about) {
  const Heading heading(app, "Input");
  app.add_option("INPUT", o.inputs, about);
  add_switch(app, o, "--exif", o.exif, Changes::values,
             "turn image files as their EXIF orientation says (else it is ignored, as by PIL)");
  add_switch(app, o, "--strict", o.strict, Changes::nothing,
             "stop at the first input that cannot be read, with nothing written; else it is left out and told of at the end");
  add_setting(app, o, "--save-input", o.save_input, Changes::nothing,
              "write what the network sees of all inputs, [N,C,H,W]", "FILE.npy");
}

void add_head(CLI::App& app, Options& o) {
  add_setting(app, o, "--head", o.head, Changes::values,
              "of an ONNX file: the output to explain (`info` lists them), or a tensor or node to end at; default: the first "
              "output", "NAME");
  add_setting(app, o, "--input", o.given, Changes::values,
              "of an ONNX file with several inputs: the value of one that is not explained, the same for all images (may be "
              "repeated)", "NAME=FILE.npy");
}

namespace {

void add_model_and(CLI::App& app, Options& o, bool several) {
  const Heading heading(app, "Model");
  app.add_option("--model", o.model,
                 "built-in architecture (`switchback models` lists them), or an ONNX file with NAME.json, its "
                 "preprocessing, beside it")
      ->type_name("NAME|FILE.onnx");
  const std::string weights =
      "state dict with torchvision's names (.safetensors, .pth, .pt, .ckpt), or random[:SEED]; default: the model's "
      "installed "
      "weights";
  if (several)
    app.add_option("--weights", o.checkpoints,
                   weights +
                       "; several checkpoints (FILE,FILE, a pattern in quotes, a run's folder, or given again) give a "
                       "strip with a column for each")
        ->type_name("FILE|random[:SEED]|FOLDER|'PATTERN'")
        ->allow_extra_args(false);
  else
    app.add_option("--weights", o.weights, weights)->type_name("FILE|random[:SEED]");
  app.add_option("--save-weights", o.save_weights, "write the weights that are loaded")->type_name("FILE");
  add_setting(app, o, "--preprocess", o.preprocess, Changes::values, "how images become input; default: the model's own",
              "FILE.json");
  app.add_option("--labels", o.labels, "names of the outputs, one a line; default: those that the preprocessing names, or the "
                 "model's own")
      ->type_name("FILE");
  add_head(app, o);
  app.add_flag("--follow-links", o.follow_links, "read an ONNX file's external data also where links lead out of its folder");
}

}  // namespace

void add_model(CLI::App& app, Options& o) { add_model_and(app, o, false); }
void add_checkpoints(CLI::App& app, Options& o) { add_model_and(app, o, true); }

void add_target(CLI::App& app, Options& o, bool hidden_units) {
  if (hidden_units)
    add_setting(app, o, "--layer", o.layer, Changes::kind, "a hidden unit instead of an output",
                "NAME[:C[,C...]|max|all[:ROW,COL|max|all]]");
  add_setting(app, o, "--target", o.target, Changes::values,
              "output units to explain: max, all, class numbers C,C or a label (default max)", "max|all|C,C|LABEL");
  add_choice(app, o, "--score", kScores, o.score, Changes::kind, "what is differentiated");
}

void add_folder(CLI::App& app, Options& o) {
  const Heading heading(app, "Results");
  app.add_option("-o", o.output, "folder for results (default out)")->type_name("DIR");
  app.add_option("--output", o.or_head, "the same as -o; or as --head, where an ONNX file of several outputs has one of this name")
      ->type_name("DIR|NAME");
  app.add_option("--name", o.name,
                 fmt::format("of results, without their ending; it may hold {{stem}}, {{command}}, {{options}}, {{model}}, "
                             "{{layer}}, {{target}} and {{index}} (default {})",
                             kDefaultName))
      ->type_name("TEMPLATE");
}

void add_output(CLI::App& app, Options& o, bool saves_by_default) {
  const Heading heading(app, "Results");
  if (!saves_by_default) o.save = "none";
  app.add_option(
         "--save", o.save,
         fmt::format("what to write, several with commas: png and svg are pictures, npy arrays; json: what made them, "
                     "beside each (always beside a .npy); or none (default {})",
                     o.save))
      ->type_name("png,svg,npy,json|none");
  add_setting(app, o, "--scale", o.scale, Changes::pictures, "pixel density of PNGs: 2 for print (default 1)", "N");
  add_folder(app, o);
}

void add_drawing(CLI::App& app, Options& o, Drawing which, const DrawingDefaults& standard) {
  const Heading heading(app, "Results");
  const auto has = [&](Drawing d) { return (unsigned(which) & unsigned(d)) != 0; };
  if (has(Drawing::plain))
    add_switch(app, o, "--plain", o.plain, Changes::pictures, "the bare map, without input, words and colour bar");
  if (has(Drawing::colormap)) {
    std::vector<std::string> words = {"auto"};
    for (const auto& [name, map] : kColorMaps) words.emplace_back(name);
    add_word(
        app, o, "--colormap", words,
        [&o] {
          const auto at = std::ranges::find(kColorMaps, o.colormap, &std::pair<std::string_view, ColorMap>::second);
          return o.colormap ? size_t(at - std::begin(kColorMaps)) + 1 : 0;
        },
        [&o](size_t i) { o.colormap = i == 0 ? std::nullopt : std::optional(kColorMaps[i - 1].second); },
        Changes::pictures, fmt::format("colours, by matplotlib's names; auto: {}", standard.colormap));
  }
  if (has(Drawing::alpha))
    add_setting(app, o, "--alpha", o.alpha, Changes::pictures,
                fmt::format("opacity of colours over the photo, 0 to 1 (default {})", standard.alpha), "A");
  if (has(Drawing::clip))
    add_setting(
        app, o, "--clip", o.clip, Changes::pictures,
        fmt::format("percentile of the values that gets the strongest colour, or none: the largest one does (default "
                    "{})",
                    standard.clip),
        "PERCENTILE|none");
  if (has(Drawing::panel_scale)) {
    const auto index = [&o] {
      return o.panel_scale ? *o.panel_scale == PanelScale::shared ? size_t(1) : size_t(2) : size_t(0);
    };
    const auto set = [&o](size_t i) {
      o.panel_scale = i == 0 ? std::nullopt : std::optional(i == 1 ? PanelScale::shared : PanelScale::own);
    };
    add_word(app, o, "--panel-scale", {"auto", "shared", "own"}, index, set, Changes::pictures,
             fmt::format("one range of colours for all maps of a picture, or each map's own; auto: {}",
                         standard.panel_scale));
  }
  if (has(Drawing::columns))
    add_setting(app, o, "--columns", o.columns, Changes::pictures, "of grids (default: near 4:3)", "N");
}

void add_run(CLI::App& app, Options& o, bool random) {
  const Heading heading(app, "Running");
  app.add_option("--device", o.device, "where to run (default auto)")->type_name("auto|cpu|cuda[:N]");
  add_choice(app, o, "--precision", kPrecisions, o.precision, Changes::kind, "arithmetic");
  app.add_option("--batch", o.batch, "items of one pass (default auto: from memory)")->type_name("auto|N");
  app.add_option("--memory", o.memory, "most memory beyond the weights, for example 2G (default: half of what is free)")
      ->type_name("SIZE");
  app.add_option("--conv", o.conv,
                 "convolution algorithm; CPU: auto (default), direct, winograd; GPU: own (default, the same bits in every "
                 "run), cudnn, auto (the faster one), direct, gemm")
      ->type_name("NAME");
  app.add_option("--gemm-table", o.gemm_table, "GPU: which GEMM kernel each layer takes, as `bench --sweep` measured it")
      ->type_name("FILE");
  add_choice(app, o, "--graphs", kOnOff, o.graphs, Changes::nothing, "GPU: record repeated steps and replay them");
  add_setting(app, o, "--seed", o.seed, random ? Changes::values : Changes::nothing, "of random numbers (default 0)", "N");
  app.add_option("--threads", o.threads, "default: one for each processor")->type_name("N");
}

void add_report(CLI::App& app, Options& o) {
  const Heading heading(app, "Running");
  app.add_flag("--json", o.json, "print one JSON document instead of a summary");
  app.add_flag("--quiet", o.quiet, "print no summary and no progress");
}

void add_top(CLI::App& app, Options& o, Changes changes, const char* about) {
  add_setting(app, o, "--top", o.top, changes, about, "K");
}

void add_occlusion(CLI::App& app, Options& o, std::vector<std::string>& boxes, std::string& fill) {
  add_setting(app, o, "--box", boxes, Changes::values,
              "occlude this rectangle of the network's input, in its pixels (may be repeated)", "X,Y,W,H");
  add_setting(app, o, "--fill", fill, Changes::values,
              fmt::format("what occluded pixels become, in input units; mean: of each channel over the image; "
                          "blur: the image blurred (default {})",
                          fill),
              "0|mean|NUMBER|blur");
}

void check_choice(std::string_view option, std::string_view value, const std::vector<std::string>& choices) {
  for (const std::string& choice : choices)
    if (value == choice) return;
  usage(fmt::format("{} {} is unknown", option, printable(value)), fmt::format("one of: {}", fmt::join(choices, ", ")));
}

int64_t parse_whole(std::string_view option, std::string_view text, int64_t least, int64_t most) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    usage(fmt::format("{} '{}' is no whole number", option, printable(text)));
  if (value < least || value > most)
    usage(fmt::format("{} {} is out of range", option, value), fmt::format("{} to {}", least, most));
  return value;
}

double parse_number(std::string_view option, const std::string& text) {
  try {
    size_t end = 0;
    const double v = std::stod(text, &end);
    if (end == text.size() && std::isfinite(v)) return v;
  } catch (const std::exception&) {
  }
  usage(fmt::format("{} '{}' is no number", option, printable(text)));
}

uint64_t parse_seed(const std::string& text) {
  uint64_t seed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (text.empty() || error != std::errc() || end != text.data() + text.size())
    usage(fmt::format("--seed '{}' is no whole number", printable(text)), "0 to 2^64 - 1");
  return seed;
}

int64_t parse_batch(const std::string& text) { return text == "auto" ? 0 : parse_whole("--batch", text, 1, 1 << 20); }

size_t parse_memory(const std::string& text) {
  if (text.empty() || text == "auto") return 0;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string unit(end, size_t(text.data() + text.size() - end));
  if (unit.ends_with("iB") || unit.ends_with("ib")) unit.resize(unit.size() - 2);
  if (unit.ends_with("B") || unit.ends_with("b")) unit.resize(unit.size() - 1);
  int shift = -1;
  const std::pair<const char*, int> units[] = {{"", 0},   {"K", 10}, {"k", 10}, {"M", 20}, {"m", 20},
                                               {"G", 30}, {"g", 30}, {"T", 40}, {"t", 40}};
  for (const auto& [name, bits] : units)
    if (unit == name) shift = bits;
  const double bytes = std::ldexp(value, std::max(shift, 0));
  if (error != std::errc() || shift < 0 || !(bytes >= 1) || bytes > 1e18)
    usage(fmt::format("--memory '{}' is no size", printable(text)), "for example 500M or 2G");
  return size_t(bytes);
}

std::vector<int> parse_nodes(const Network& network, const std::vector<std::string>& texts) {
  std::vector<int> nodes;
  const auto add = [&](const std::string& name) {
    nodes.push_back(network.find(name));
    if (std::count(nodes.begin(), nodes.end(), nodes.back()) > 1) usage(fmt::format("layer {} is named twice", name));
  };
  for (const std::string& text : texts) {
    const bool whole = std::any_of(network.nodes.begin(), network.nodes.end(), [&](const Node& n) { return n.name == text; });
    for (const std::string& name : whole ? std::vector{text} : split(text, ',')) add(name);
  }
  return nodes;
}

std::vector<int> required_nodes(const Network& network, const std::vector<std::string>& texts, const std::string& model) {
  if (texts.empty())
    throw Error("--layer is missing", fmt::format("`switchback info --model {}` lists the layers", model), true);
  return parse_nodes(network, texts);
}

std::vector<int64_t> parse_list(std::string_view option, const std::string& text, int64_t count) {
  std::vector<int64_t> out;
  if (text.empty()) return out;
  if (text == "all") {
    out.resize(size_t(count));
    std::iota(out.begin(), out.end(), 0);
    return out;
  }
  for (const std::string& part : split(text, ',')) {
    const size_t dash = part.find('-', 1);
    const int64_t first = parse_whole(option, part.substr(0, dash), 0, count - 1);
    const int64_t last =
        dash == std::string::npos ? first : parse_whole(option, part.substr(dash + 1), first, count - 1);
    for (int64_t i = first; i <= last; ++i) out.push_back(i);
  }
  return out;
}

std::pair<int64_t, int64_t> parse_size(std::string_view option, const std::string& text) {
  const size_t x = text.find('x');
  const auto number = [&](const std::string& part) { return parse_whole(option, part, 1, 1 << 20); };
  if (x == std::string::npos) return {number(text), number(text)};
  return {number(text.substr(0, x)), number(text.substr(x + 1))};
}

Fill parse_fill(const std::string& text) {
  if (text == "mean") return {.kind = Fill::Kind::mean};
  if (text == "blur") return {.kind = Fill::Kind::blur};
  float value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    usage(fmt::format("--fill '{}' is unknown", printable(text)), "one of: 0, mean, blur, or a number in input units");
  if (value == 0) return {};
  return {.kind = Fill::Kind::value, .value = value};
}

Box parse_box(const std::string& text) {
  const std::vector<std::string> parts = split(text, ',');
  if (parts.size() != 4)
    usage(fmt::format("--box '{}' is no box", printable(text)),
          "x,y,w,h in pixels of the input, for example 60,40,32,32");
  constexpr int64_t kMost = 1 << 20;
  const auto number = [&](size_t i, int64_t least) {
    return int32_t(parse_whole(fmt::format("--box {}:", printable(text)), parts[i], least, kMost));
  };
  return {.row = number(1, 0), .col = number(0, 0), .height = number(3, 1), .width = number(2, 1)};
}

void check_boxes(const std::vector<Box>& boxes, Shape image) {
  for (const Box& b : boxes)
    if (b.row < 0 || b.col < 0 || b.row + b.height > image.h || b.col + b.width > image.w)
      usage(fmt::format("the box {},{},{},{} does not lie inside of the input", b.col, b.row, b.width, b.height),
            fmt::format("x,y,w,h with x + w <= {} and y + h <= {}", image.w, image.h));
}

namespace {

// N of cuda:N; 0 for cuda; -1 for the CPU or auto. Throws (usage) on anything else.
int parse_device(const std::string& text) {
  if (text == "auto" || text == "cpu") return -1;
  if (text == "cuda") return 0;
  if (!text.starts_with("cuda:")) check_choice("--device", text, {"auto", "cpu", "cuda", "cuda:N"});
  return int(parse_whole("--device cuda:", std::string_view(text).substr(5), 0, 1023));
}

// Whether the machine has an NVIDIA GPU, whatever its driver says.
bool has_nvidia_gpu() {
  std::error_code error;
  for (const auto& device : std::filesystem::directory_iterator("/sys/bus/pci/devices", error)) {
    std::string vendor, kind;
    std::ifstream(device.path() / "vendor") >> vendor;
    std::ifstream(device.path() / "class") >> kind;
    if (vendor == "0x10de" && kind.starts_with("0x03")) return true;  // display and 3D controllers
  }
  return false;
}

}  // namespace

std::shared_ptr<Gpu> open_device(const std::string& text) {
  const int index = parse_device(text);
  std::string why;
  if (shares().ranks() && (text == "auto" || text == "cuda"))  // each rank of a machine has its own
    if (const int count = gpu_count(why); count > 0) return open_gpu(shares().local_index() % count);
  if (index >= 0) return open_gpu(index);
  if (text == "cpu") return nullptr;
  const int count = gpu_count(why);
  for (int i = 0; i < count; ++i) {
    try {
      return open_gpu(i);
    } catch (const Error& e) {  // too old, or in use by somebody else alone: the next one may do
      why = e.what();
    }
  }
  if (count == 0 && !has_nvidia_gpu()) return nullptr;  // nothing to warn of
  warn(fmt::format("running on the CPU: {}", why));
  return nullptr;
}

void load_gemm_table(Context& ctx, const std::string& path) {
  if (!ctx.gpu) usage("--gemm-table is for a GPU, and this runs on the CPU", "leave it out, or use --device cuda");
  constexpr int64_t kMostBytes = 16 << 20;
  use_gemm_table(ctx, read_file(path, kMostBytes), path);
}

std::vector<std::string> split_list(const std::string& text) { return split(text, ','); }

ConvAlgorithm parse_conv(const std::string& text, bool gpu) {
  using enum ConvAlgorithm;
  if (text.empty()) return gpu ? own : automatic;
  const std::vector<std::string> names =
      gpu ? std::vector<std::string>{"own", "cudnn", "auto", "direct", "gemm"} : std::vector<std::string>{"auto", "direct", "winograd"};
  check_choice(gpu ? "--conv (on a GPU)" : "--conv (on the CPU)", text, names);
  return text == "auto"       ? automatic
         : text == "direct"   ? direct
         : text == "winograd" ? winograd
         : text == "own"      ? own
         : text == "gemm"     ? gemm
                              : vendor;
}

void check_options(const Options& o) {
  parse_device(o.device);
  parse_batch(o.batch);
  parse_memory(o.memory);
  if (!o.conv.empty()) check_choice("--conv", o.conv, {"auto", "direct", "winograd", "own", "cudnn", "gemm"});
  parse_seed(o.seed);
  if (!o.threads.empty()) parse_whole("--threads", o.threads, 1, 4096);
  if (o.top < 1) usage(fmt::format("--top {} is less than 1", o.top));
  for (const std::string& part : split(o.save, ','))
    check_choice("--save", part, {"png", "svg", "npy", "json", "none"});
  if (!(o.scale >= 0.25 && o.scale <= 16)) usage(fmt::format("--scale {} is out of range", o.scale), "0.25 to 16");
  if (o.columns < 0 || o.columns > 1000) usage(fmt::format("--columns {} is out of range", o.columns), "1 to 1000");
  o.alpha_or(0), o.clip_or(0);
  if (o.saves("json") && !o.saves("npy") && !o.saves("png") && !o.saves("svg"))
    usage("--save json writes what made a picture or an array, but neither is saved", "for example --save png,json");
  name_by_template(o.name, {.stem = "a", .command = "a", .options = "", .model = "a", .layer = "a", .target = "a"});
  if (o.output.empty()) usage("-o names no folder");
}

}  // namespace switchback
