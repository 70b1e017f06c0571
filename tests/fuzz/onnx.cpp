// Networks (engine/onnx/onnx.h). An input is the ONNX file; external data are looked for in a folder without any.
#include "engine/onnx/onnx.h"

#include <unistd.h>

#include "tests/fuzz/fuzz.h"

using namespace switchback;

namespace {

// Protocol buffers unfold (an empty node is two bytes and an object of some hundreds), and so do graphs of constants. A
// string in a message that claims to be longer than the file gets up to 50 MB from protobuf (its kSafeStringSize) before
// it is missed.
constexpr fuzz::Allowance kAllowance{2000, (1 << 20) + 50'000'000};

void touch_all(const OnnxNetwork& read) {
  const Network& network = read.network;
  fuzz::touch(read.weights.values());
  PROMISED(!network.nodes.empty());
  for (size_t i = 0; i < network.nodes.size(); ++i) {
    const Node& node = network.nodes[i];
    for (const int input : node.inputs) PROMISED(input >= 0 && size_t(input) < i);
    PROMISED(!describe(node.layer).empty());
  }
  PROMISED(network.shapes(network.input).size() == network.nodes.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::MemoryFile file;
  static const std::string path = [] {
    const std::string name = fuzz::work_folder() + "/x.onnx";
    PROMISED(symlink(file.path().c_str(), name.c_str()) == 0);
    return name;
  }();
  file.put(fuzz::text_of(data, size));
  fuzz::read_within(kAllowance, size, [&] { touch_all(read_onnx(path)); });
  return 0;
}
