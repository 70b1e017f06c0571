// A model ready to run: a network with its weights, how images become its input, and what its outputs are called.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "engine/files/image.h"
#include "engine/network.h"
#include "engine/weights.h"

namespace switchback {

struct Model {
  Network network;
  Weights weights = {};
  Preprocess preprocess = {};
  std::vector<std::string> labels = {};    // of the outputs; empty where nobody knows
  std::string source = {};                 // where the weights came from: a path, or "random:SEED"
  std::vector<std::string> warnings = {};  // what a user should know of how it was opened
  bool channels_last = false;              // its ONNX file takes [N,H,W,C]
  bool took_or_folder = false;             // its output is the one that ModelSpec::or_folder names
};

// `--model`, `--weights` and `--preprocess` as the user wrote them; empty = the model's own.
struct ModelSpec {
  std::string name, weights = {}, preprocess = {};
  std::string labels = {};  // a file; empty: the preprocessing's, or the model's own
  Dims array = {};          // of an array that will be read: it tells what an ONNX file leaves open of its input
  bool follow_links = false;  // of external data, out of the ONNX file's folder
  // Of an ONNX file: the output (or a node) to end at; the same where a file with several outputs has it; and NAME=FILE.npy,
  // values of inputs that are not explained.
  std::string head = {}, or_folder = {};
  std::vector<std::string> inputs = {};
};

bool is_onnx(std::string_view name);  // a file's: .onnx, in whatever case

// Where weights and labels are looked for, in this order: $SWITCHBACK_WEIGHTS; the user's own folder,
// $XDG_DATA_HOME/switchback/weights (by default ~/.local/share/switchback/weights); share/switchback/weights of the
// installation that this program belongs to.
std::vector<std::string> weight_folders();

// A model's weights at hand: FOLDER/NAME.safetensors (NAME up to a colon), with what FOLDER/manifest.json says of it.
struct InstalledWeights {
  std::string file, source, accuracy, licence;
};
std::vector<InstalledWeights> installed_weights(std::string_view model, const std::vector<std::string>& folders);

// Throws (usage) naming the built-in models for an unknown one, and says what to do where no weights are at hand:
// random ones are never taken unasked. A name that ends with .onnx is a file (engine/onnx/onnx.h), NAME.json beside it its
// preprocessing.
Model open_model(const ModelSpec& spec, const std::vector<std::string>& folders = weight_folders());
// The architecture alone, its parameters not set (`info`, `models`). outputs: of an ONNX file, all that it has.
Network open_network(const ModelSpec& spec, std::vector<std::string>* outputs = nullptr);

}  // namespace switchback
