// Networks from ONNX files (https://onnx.ai, opset 1 to 28), as torch.onnx.export, tf2onnx and others write them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/network.h"
#include "engine/onnx/onnx_file.h"
#include "engine/weights.h"

namespace switchback {

struct OnnxOptions {
  std::string output = {};           // the output or node to end at; empty: the graph's first output
  std::array<int64_t, 2> size = {};  // height and width where the file leaves them open; 0: unknown
  Dims array = {};                   // of an array that will be read: it tells what the file leaves open
  bool follow_links = false;         // external data may be links that lead out of the file's folder
  std::string or_folder = {};        // the same of a graph with several outputs, where it has one of this name
  std::map<std::string, OnnxConstant> inputs = {};  // values of inputs that are not explained, the same for all images
};

struct OnnxNetwork {
  Network network;                    // nodes are called as in the file
  Weights weights;
  std::vector<std::string> warnings;  // what a user should know of how it was read
  std::vector<std::string> outputs;   // all that the graph has
  bool took_or_folder = false;        // the network ends where OnnxOptions::or_folder says
  bool whole_pixels = false;          // its input is of whole numbers: 0 to 255
  bool channels_last = false;         // the file takes [N,H,W,C], and is read without the turn to [N,C,H,W]
};

// Reads what the output depends on. Dropouts, identities and computations of constants disappear, batch norms stay nodes
// of their own (a Plan folds them). The batch is open whatever the file says. Images are NCHW; a network that begins by
// turning NHWC into NCHW is read without that.
// Throws, naming the node and what is supported, where an operator, an attribute or a shape is none of ours; where the
// graph is no graph (missing tensors, cycles); where data do not fit their dimensions; and where external data lie
// outside the file's folder.
OnnxNetwork read_onnx(const std::string& path, const OnnxOptions& options = {});

// The operators that read_onnx knows, sorted.
std::vector<std::string> onnx_operators();

}  // namespace switchback
