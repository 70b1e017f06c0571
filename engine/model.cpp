#include "engine/model.h"

#include <unistd.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "engine/files/files.h"
#include "engine/files/json.h"
#include "engine/files/labels.h"
#include "engine/files/npy.h"
#include "engine/onnx/onnx.h"
#include "engine/files/state_dict.h"
#include "engine/fit.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool is_file(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

// What the folder's manifest says of one of its files; an object without members where it says nothing.
json manifest_entry(const std::string& folder, const std::string& file) {
  const std::string path = folder + "/manifest.json";
  if (!is_file(path)) return json::object();
  const json manifest = parse_json(read_file(path, 1 << 20), nullptr, false);
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_array()) return json::object();
  for (const json& entry : manifest["files"])
    if (entry.is_object() && entry.contains("file") && entry["file"] == file) return entry;
  return json::object();
}

std::string text(const json& entry, const char* key) {
  const auto found = entry.find(key);
  return found != entry.end() && found->is_string() ? found->get<std::string>() : "";
}

// "top-1 99.54 % of MNIST test, 10,000 digits"
std::string describe_accuracy(const json& entry) {
  const auto accuracy = entry.find("accuracy");
  if (accuracy == entry.end() || !accuracy->is_object()) return "";
  for (const auto& [key, name] : {std::pair{"top1", "top-1"}, {"miou", "mean IoU"}})
    if (accuracy->contains(key) && (*accuracy)[key].is_number())
      return fmt::format("{} {:.2f} % of {}", name, 100 * (*accuracy)[key].get<double>(), text(*accuracy, "set"));
  return "";
}

bool is_random(std::string_view weights) { return weights == "random" || weights.starts_with("random:"); }

uint64_t random_seed(const std::string& spec) {
  if (spec == "random") return 0;
  const char* first = spec.data() + std::string_view("random:").size();
  const char* last = spec.data() + spec.size();
  uint64_t seed = 0;
  const auto [end, error] = std::from_chars(first, last, seed);
  if (first == last || error != std::errc() || end != last)
    throw Error(fmt::format("--weights '{}': the seed is no whole number", spec), "for example random:0", true);
  return seed;
}

void load_parameters(Model& model, const ModelSpec& spec, const std::vector<std::string>& folders) {
  if (is_random(spec.weights)) {
    const uint64_t seed = random_seed(spec.weights);
    model.weights = random_weights(model.network, seed);
    model.source = fmt::format("random:{}", seed);
    return;
  }
  std::string file = spec.weights;
  if (file.empty()) {
    const std::vector<InstalledWeights> found = installed_weights(spec.name, folders);
    if (found.empty())
      throw Error(fmt::format("no weights of {} are at hand", spec.name),
                  fmt::format("give --weights FILE.safetensors (names and shapes as in torchvision) or --weights "
                              "random:0, or put {}.safetensors into {}, as weights/fetch.py does with torchvision's",
                              base_name(spec.name),
                              folders.empty() ? "a folder that $SWITCHBACK_WEIGHTS names" : folders[0]));
    file = found[0].file;
  }
  StateDict dict = read_state_dict(file);
  const int64_t channels = model.network.input.c;
  for (std::string& note : fit(model.network, dict, is_onnx(spec.name) ? std::nullopt : head_function(spec.name))) model.warnings.push_back(std::move(note));
  model.weights = load_weights(model.network, dict);
  if (model.network.input.c != channels && spec.preprocess.empty()) {
    if (model.network.input.c == 1) model.preprocess.order = ChannelOrder::grey, model.preprocess.mean = {0}, model.preprocess.std = {1};
    model.warnings.push_back(fmt::format("nobody says how images become its {} channels{} (--preprocess FILE.json does; .npy "
                                         "inputs are used as they are)", model.network.input.c,
                                         model.network.input.c == 1 ? ": grey x/255 is assumed" : ""));
  }
  model.source = file;
}

// Where nobody says how images become a file's input: as for most published networks of its channels.
Preprocess assumed_preprocess(const Network& network, bool whole_pixels) {
  Preprocess p = network.input.c == 1 ? lenet_preprocess() : imagenet_preprocess();
  if (network.input.c == 1) p.mean = {0}, p.std = {1};
  if (whole_pixels) p.scale = 1, p.mean = {}, p.std = {};
  p.size = {int(network.input.h), int(network.input.w)};
  p.resize_to = std::min(network.input.h, network.input.w) * 8 / 7;  // 256 for 224
  return p;
}

// NAME=FILE.npy; names of tensors may hold anything but an equals sign before the file's.
std::map<std::string, OnnxConstant> given_inputs(const std::vector<std::string>& texts) {
  std::map<std::string, OnnxConstant> found;
  for (const std::string& text : texts) {
    const size_t at = text.find('=');
    if (at == std::string::npos || at == 0 || at + 1 == text.size())
      throw Error(fmt::format("--input '{}' is not NAME=FILE.npy", printable(text)), "for example --input age=age.npy", true);
    const std::string name = text.substr(0, at), file = text.substr(at + 1);
    OnnxConstant value;
    value.whole = npy_holds_integers(file);
    if (value.whole) {
      value.ints = read_npy_integers(file, {}, value.dims);
    } else {
      const Tensor array = read_npy(file);
      value.dims = array.dims();
      value.floats.assign(array.values().begin(), array.values().end());
    }
    if (!found.emplace(name, std::move(value)).second)
      throw Error(fmt::format("--input {} is given twice", printable(name)), "", true);
  }
  return found;
}

Model open_onnx(const ModelSpec& spec, std::vector<std::string>* outputs = nullptr) {
  const std::string beside = fs::path(spec.name).replace_extension(".json").string();
  const std::string file = !spec.preprocess.empty() ? spec.preprocess : is_file(beside) ? beside : "";
  Model model;
  OnnxOptions options;
  if (!file.empty()) {
    model.preprocess = load_preprocess(file);
    options.output = model.preprocess.output;
    options.size = {model.preprocess.size[0], model.preprocess.size[1]};
  }
  options.array = spec.array;
  options.follow_links = spec.follow_links;
  if (!spec.head.empty()) options.output = spec.head;
  options.or_folder = spec.or_folder;
  options.inputs = given_inputs(spec.inputs);
  OnnxNetwork read = read_onnx(spec.name, options);
  model.network = std::move(read.network);
  model.weights = std::move(read.weights);
  model.source = spec.name;
  model.network.name = spec.name;  // so that hints name the file as the user did
  model.warnings = std::move(read.warnings);
  model.took_or_folder = read.took_or_folder;
  model.channels_last = read.channels_last;
  if (outputs) *outputs = std::move(read.outputs);
  if (file.empty()) {
    model.preprocess = assumed_preprocess(model.network, read.whole_pixels);
    model.warnings.push_back(fmt::format("no {} says how images become the input of {}: {} is assumed (.npy inputs are "
                                         "used as they are)", beside, spec.name,
                                         read.whole_pixels            ? "0 to 255"
                                         : model.network.input.c == 1 ? "x/255"
                                                                      : "ImageNet's preprocessing"));
  }
  return model;
}

// Caffe's: BGR, 0 to 255, less ILSVRC-2012's mean pixel. (Caffe resizes to 256x256 without regard to the aspect.)
Preprocess caffe_preprocess() {
  Preprocess p;
  p.size = {227, 227};
  p.order = ChannelOrder::bgr;
  p.mean = {104.00698793, 116.66876762, 122.67891434};
  return p;
}

// Small images, resized as a whole.
Preprocess small_preprocess(int side, std::vector<double> mean, std::vector<double> std) {
  Preprocess p;
  p.resize = Preprocess::Resize::direct;
  p.size = {side, side};
  p.scale = 1.0 / 255;
  p.mean = std::move(mean);
  p.std = std::move(std);
  return p;
}

// What torchvision's own weights were made for (`weights.transforms()` of the default ones), where it is not 256 and bilinear.
// Segmentations are cropped to a square besides; torchvision leaves them as wide as they are.
struct Transforms {
  std::string_view name;
  int64_t resize_to;
  Interpolation interpolation = Interpolation::bilinear;
};
constexpr Interpolation kBicubic = Interpolation::bicubic;
constexpr Transforms kTransforms[] = {
    {"inception_v3", 342}, {"mnasnet0_75", 232}, {"mnasnet1_3", 232}, {"mobilenet_v3_large", 232},
    {"shufflenet_v2_x1_5", 232}, {"shufflenet_v2_x2_0", 232}, {"efficientnet_b0", 256, kBicubic}, {"efficientnet_b1", 255},
    {"efficientnet_b2", 288, kBicubic}, {"efficientnet_b3", 320, kBicubic}, {"efficientnet_b4", 384, kBicubic},
    {"efficientnet_b5", 456, kBicubic}, {"efficientnet_b6", 528, kBicubic}, {"efficientnet_b7", 600, kBicubic},
    {"efficientnet_v2_s", 384}, {"efficientnet_v2_m", 480}, {"efficientnet_v2_l", 480, kBicubic},
    {"regnet_y_128gf", 384, kBicubic}, {"convnext_tiny", 236}, {"convnext_small", 230}, {"convnext_base", 232},
    {"convnext_large", 232}, {"vit_l_16", 242}, {"vit_h_14", 224, kBicubic}, {"swin_t", 232, kBicubic},
    {"swin_s", 246, kBicubic}, {"swin_b", 238, kBicubic}, {"swin_v2_t", 260, kBicubic}, {"swin_v2_s", 260, kBicubic},
    {"swin_v2_b", 272, kBicubic}, {"fcn_resnet50", 520}, {"fcn_resnet101", 520}, {"deeplabv3_resnet50", 520},
    {"deeplabv3_resnet101", 520}, {"lraspp_mobilenet_v3_large", 520}};

Preprocess torchvision_preprocess(const Network& network) {
  const std::string_view model = base_name(network.name);
  Preprocess p = imagenet_preprocess();
  if (model.starts_with("regnet")) p.resize_to = 232;
  for (const Transforms& t : kTransforms)
    if (t.name == model) p.resize_to = t.resize_to, p.interpolation = t.interpolation;
  if (model == "efficientnet_v2_l") p.mean = p.std = {0.5, 0.5, 0.5};
  p.size = {int(network.input.h), int(network.input.w)};
  return p;
}

Preprocess own_preprocess(const Network& network) {
  const std::string_view model = base_name(network.name);
  if (model == "lenet") return lenet_preprocess();
  if (model == "caffenet") return caffe_preprocess();
  if (model == "autoencoder") return small_preprocess(32, {}, {});
  const Preprocess usual = imagenet_preprocess();
  if (model == "resnet20") return small_preprocess(32, usual.mean, usual.std);
  if (model == "encoder_decoder") return small_preprocess(64, usual.mean, usual.std);
  return torchvision_preprocess(network);
}

// Heads and further inputs are an ONNX file's.
void check_built_in(const ModelSpec& spec) {
  for (const auto& [option, given] : {std::pair{"--head", !spec.head.empty()}, {"--input", !spec.inputs.empty()}})
    if (given && !is_onnx(spec.name))
      throw Error(fmt::format("{} is for ONNX files, and {} is built in", option, spec.name), "leave it out", true);
}

Model open_built_in(const ModelSpec& spec) {
  Model model;
  if (spec.name == "mlp" && !spec.weights.empty() && !is_random(spec.weights))  // the only network whose sizes its weights tell
    model.network = make_network("mlp", {.sizes = mlp_sizes(read_state_dict(spec.weights))});
  else
    model.network = open_network(spec);
  if (!spec.preprocess.empty())
    model.preprocess = load_preprocess(spec.preprocess);
  else
    model.preprocess = own_preprocess(model.network);
  return model;
}

// How many of the parameters are NaN or infinite.
int64_t not_finite(const Weights& weights) {
  int64_t sum = 0;
  for (const Parameter& p : weights.list()) {
    const std::span<const float> v = weights.values(p);
#pragma omp parallel for schedule(static) reduction(+ : sum)
    for (size_t i = 0; i < v.size(); ++i) sum += !std::isfinite(v[i]);
  }
  return sum;
}

std::vector<std::string> own_labels(const std::string& model, const std::vector<std::string>& folders) {
  if (model == "lenet") return {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
  if (model == "resnet20")  // CIFAR-10's
    return {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};
  for (const std::string& folder : folders)
    if (const std::string path = folder + "/imagenet_classes.txt"; is_file(path)) return load_labels(path);
  return {};
}

}  // namespace

bool is_onnx(std::string_view name) {
  std::string extension = fs::path(name).extension().string();
  for (char& c : extension)
    if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
  return extension == ".onnx";
}

std::vector<std::string> weight_folders() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  std::vector<std::string> folders;
  if (const std::string named = variable("SWITCHBACK_WEIGHTS"); !named.empty()) folders.push_back(named);
  // The XDG base directory specification: a relative path counts as none.
  const fs::path data = variable("XDG_DATA_HOME"), home = variable("HOME");
  if (data.is_absolute()) {
    folders.push_back((data / "switchback/weights").string());
  } else if (home.is_absolute()) {
    folders.push_back((home / ".local/share/switchback/weights").string());
  }
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) folders.push_back((program.parent_path().parent_path() / "share/switchback/weights").string());
  return folders;
}

std::vector<InstalledWeights> installed_weights(std::string_view model, const std::vector<std::string>& folders) {
  std::vector<InstalledWeights> out;
  const std::string file = fmt::format("{}.safetensors", base_name(model));
  for (const std::string& folder : folders) {
    if (!is_file(folder + "/" + file)) continue;
    const json entry = manifest_entry(folder, file);
    const std::string source = text(entry, "source").empty() ? text(entry, "made") : text(entry, "source");
    out.push_back({folder + "/" + file, source.empty() ? "found in " + folder : source, describe_accuracy(entry),
                   text(entry, "licence")});
  }
  return out;
}

Network open_network(const ModelSpec& spec, std::vector<std::string>* outputs) {
  const std::string& name = spec.name;
  check_built_in(spec);
  if (is_onnx(name)) return open_onnx(spec, outputs).network;
  std::vector<std::string> names;
  for (const ZooEntry& entry : zoo()) {
    if (base_name(name) == entry.name) return make_network(name);
    names.push_back(entry.name);
  }
  throw Error(fmt::format("unknown model '{}'", printable(name)),
              fmt::format("nearest: {}; built in: {}", nearest(name, names), fmt::join(names, ", ")), true);
}

Model open_model(const ModelSpec& spec, const std::vector<std::string>& folders) {
  check_built_in(spec);
  Model model = is_onnx(spec.name) ? open_onnx(spec) : open_built_in(spec);
  if (!is_onnx(spec.name) || !spec.weights.empty()) load_parameters(model, spec, folders);
  if (const int64_t bad = not_finite(model.weights); bad > 0)
    model.warnings.push_back(fmt::format("{} of the weights of {} are NaN or infinite", bad, spec.name));
  const std::string& labels = spec.labels.empty() ? model.preprocess.labels : spec.labels;
  if (!labels.empty())
    model.labels = load_labels(labels);
  else if (!is_onnx(spec.name))
    model.labels = own_labels(spec.name, folders);
  const Network& network = model.network;
  const int64_t classes = network.shapes(network.input).back().c;
  if (!model.labels.empty() && int64_t(model.labels.size()) != classes) {
    if (!labels.empty())
      throw Error(
          fmt::format("{} has {} labels, but {} has {} outputs", labels, model.labels.size(), spec.name, classes),
          "one label a line is wanted for each output");
    model.labels.clear();
  }
  return model;
}

}  // namespace switchback
