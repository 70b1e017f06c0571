#include "engine/onnx/onnx.h"

#include <fmt/ranges.h>
#include <google/protobuf/stubs/logging.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "engine/files/files.h"
#include "engine/onnx/onnx_graph.h"

namespace switchback {
namespace {

constexpr int64_t kFirstOpset = 1, kLastOpset = 28;

constexpr const OnnxOperators& (*kTables[])() = {onnx_activations, onnx_arithmetic, onnx_choices, onnx_constants,
                                                 onnx_layers, onnx_matrices, onnx_movements, onnx_norms,
                                                 onnx_quantized, onnx_reductions, onnx_reshapes, onnx_sizes, onnx_tokens};

OnnxOperator find_operator(const std::string& name) {
  for (const auto& operators : kTables)
    if (const auto found = operators().find(name); found != operators().end()) return found->second;
  return nullptr;
}

// Names in one message: all where they are few.
std::string listed(const std::vector<std::string>& names) {
  std::vector<std::string> shown;
  for (size_t i = 0; i < std::min<size_t>(names.size(), 12); ++i) shown.push_back(printable(names[i]));
  return fmt::format("{}{}", fmt::join(shown, ", "), names.size() > shown.size() ? ", …" : "");
}

onnx::ModelProto parse(const std::string& path) {
  const MappedFile file(path);
  const std::span<const std::byte> bytes = file.bytes();
  CHECK(bytes.size() <= size_t(std::numeric_limits<int>::max()),
        "{}: {} bytes; a protocol buffer has at most 2 GiB (larger networks keep their weights in external data)", path,
        bytes.size());
  const google::protobuf::LogSilencer quiet;  // errors are ours to report
  onnx::ModelProto model;
  // From an array and not through a CodedInputStream, which gives a string that only claims its length 50 MB at once.
  if (bytes.empty() || !model.ParseFromArray(bytes.data(), int(bytes.size())) || !model.has_graph())
    throw Error(fmt::format("{}: not an ONNX file, or cut short", path),
                "torch.onnx.export(model, x, 'NAME.onnx') writes one");
  return model;
}

int64_t opset_of(const onnx::ModelProto& model, const std::string& path) {
  int64_t opset = 0;
  for (const auto& set : model.opset_import())
    if (set.domain().empty() || set.domain() == "ai.onnx") opset = std::max(opset, set.version());
  if (opset < kFirstOpset || opset > kLastOpset)
    throw Error(fmt::format("{}: written for {}; this version reads opset {} to {}", path,
                            opset == 0 ? "no opset of ONNX's" : fmt::format("opset {}", opset), kFirstOpset, kLastOpset),
                "export it anew: torch.onnx.export(…, opset_version=17)");
  return opset;
}

// Reads one file's graph.
class Reader {
 public:
  Reader(const std::string& path, const OnnxOptions& options)
      : path_(path), options_(options), model_(parse(path)), proto_(*model_.mutable_graph()), opset_(opset_of(model_, path)),
        folder_{std::filesystem::path(path).parent_path().string(), options.follow_links} {}

  OnnxNetwork read() {
    index();
    bool by_folder = false;
    const std::string output = before_arg_max(choose_output(by_folder));
    const std::vector<bool> needed = find_needed(output);
    check_operators(needed);
    const std::string input = find_input(needed);
    count_reads(needed);
    const Shape shape = input_shape(input, needed);
    OnnxGraph graph(std::filesystem::path(path_).stem().string(), shape, batch_);
    graph.set(input, OnnxValue{nullptr, 0, input_dims_});
    for (const auto& [name, value] : given_) graph.set_given(name, value);
    input_ = input;
    for (int i = 0; i < proto_.node_size(); ++i)
      if (needed[i]) convert(graph, i);
    Network network = finish(graph, output);
    graph.warnings.insert(graph.warnings.begin(), notes_.begin(), notes_.end());
    std::vector<std::string> outputs;
    for (const auto& each : proto_.output()) outputs.push_back(each.name());
    if (by_folder)
      graph.warnings.push_back(fmt::format("--output {} is taken for what {} gives, not for a folder (-o DIR names one)",
                                           printable(options_.or_folder), path_));
    else if (outputs.size() > 1 && options_.output.empty())
      graph.warnings.push_back(fmt::format("{} has the outputs {}: the first is read (--head NAME chooses another)", path_,
                                           listed(outputs)));
    return {std::move(network), graph.weights(), std::move(graph.warnings), std::move(outputs), by_folder, whole_, dropped_ >= 0};
  }

 private:
  void index();
  std::string choose_output(bool& by_folder) const;
  std::string tensor_of(const std::string& name) const;
  std::string before_arg_max(const std::string& output);
  std::vector<bool> find_needed(const std::string& output) const;
  void check_operators(const std::vector<bool>& needed) const;
  std::string find_input(const std::vector<bool>& needed);
  int64_t channels_of_weights(const std::string& input) const;
  void count_reads(const std::vector<bool>& needed);
  Shape input_shape(const std::string& input, const std::vector<bool>& needed);
  Dims sizes_of_array(const Dims& declared) const;
  void drop_layout_change(const std::string& input, const std::vector<bool>& needed, Dims& dims);
  void check_made(const std::string& tensor) const;
  void load_constants(OnnxGraph& graph, const OnnxNode& node);
  void drop_constants(OnnxGraph& graph, const OnnxNode& node);
  void convert(OnnxGraph& graph, int i);
  void warn_of_channels_last(OnnxGraph& graph, const Network& network) const;
  Network finish(OnnxGraph& graph, const std::string& output);

  std::string path_;
  OnnxOptions options_;
  onnx::ModelProto model_;
  onnx::GraphProto& proto_;
  int64_t opset_;
  OnnxFolder folder_;
  std::map<std::string, onnx::TensorProto*> initializers_;
  std::map<std::string, int> makers_;  // of each tensor the node
  std::map<std::string, OnnxConstant> given_;  // inputs that are not explained
  std::map<std::string, int> reads_;   // of each tensor, by nodes that are needed
  int64_t batch_ = 0;    // that the file fixes, or kOpenBatch
  std::vector<std::string> notes_;
  std::string input_;
  Dims input_dims_;      // with a batch of 1
  int dropped_ = -1;    // the Transpose from NHWC at the very beginning
  std::set<std::string> of_channels_;  // constants before it, along the last axis
  bool whole_ = false;  // the input is of whole numbers
};

void Reader::index() {
  CHECK(proto_.sparse_initializer_size() == 0, "{}: sparse initialisers are not supported", path_);
  for (onnx::TensorProto& tensor : *proto_.mutable_initializer())
    if (!initializers_.emplace(tensor.name(), &tensor).second)
      throw Error(fmt::format("{}: two initialisers are called '{}'", path_, printable(tensor.name())));
  for (int i = 0; i < proto_.node_size(); ++i)
    for (const std::string& tensor : proto_.node(i).output())
      if (!tensor.empty() && (!makers_.emplace(tensor, i).second || initializers_.contains(tensor)))
        throw Error(fmt::format("{}: two nodes make the tensor '{}'", path_, printable(tensor)));
}

// A segmentation or a classifier that ends in ArgMax, which has no gradient: the scores before it are taken.
std::string Reader::before_arg_max(const std::string& output) {
  for (std::string tensor = output; makers_.contains(tensor);) {
    const OnnxNode node(proto_.node(makers_.at(tensor)), opset_, folder_);
    if (node.inputs() == 0) break;
    tensor = node.input(0);
    if (node.op() == "ArgMax" && makers_.contains(tensor)) {
      notes_.push_back(fmt::format("the network ends in ArgMax ('{}'): the scores before it, '{}', are taken",
                                   printable(node.name()), printable(tensor)));
      return tensor;
    }
    if (node.op() != "Cast" && node.op() != "Squeeze" && node.op() != "Unsqueeze" && node.op() != "Identity") break;
  }
  return output;
}

// The tensor that an output, another tensor or a node of this name is; "" where there is none.
std::string Reader::tensor_of(const std::string& name) const {
  if (makers_.contains(name)) return name;
  for (const auto& node : proto_.node())
    if (node.name() == name && node.output_size() > 0) return node.output(0);
  return "";
}

std::string Reader::choose_output(bool& by_folder) const {
  std::vector<std::string> names;
  for (const auto& output : proto_.output()) names.push_back(output.name());
  if (names.empty()) throw Error(fmt::format("{}: its graph has no output", path_));
  const std::string& asked = options_.output;
  if (asked.empty()) {
    const std::string found = names.size() > 1 && !options_.or_folder.empty() ? tensor_of(options_.or_folder) : "";
    by_folder = !found.empty();
    return by_folder ? found : names[0];
  }
  if (const std::string found = tensor_of(asked); !found.empty()) return found;
  throw Error(fmt::format("{}: it has no output '{}'", path_, printable(asked)),
              fmt::format("nearest: {}; outputs: {}; a node's name will do, too", printable(nearest(asked, names)), listed(names)));
}

// What the output depends on. The nodes' order must be one in which they can run, as ONNX wants it.
std::vector<bool> Reader::find_needed(const std::string& output) const {
  std::vector<bool> needed(proto_.node_size(), false);
  const auto found = makers_.find(output);
  if (found == makers_.end())
    throw Error(fmt::format("{}: nothing makes its output '{}'", path_, printable(output)));
  needed[found->second] = true;
  for (int i = found->second; i >= 0; --i) {
    if (!needed[i]) continue;
    const onnx::NodeProto& node = proto_.node(i);
    for (const std::string& tensor : node.input()) {
      const auto maker = makers_.find(tensor);
      if (tensor.empty() || maker == makers_.end()) continue;
      if (maker->second >= i)
        throw Error(fmt::format("{}: its graph has a cycle or is out of order: node '{}' ({}) reads '{}', which {} makes",
                                path_, printable(OnnxNode(node, opset_, folder_).name()), printable(node.op_type()),
                                printable(tensor),
                                maker->second == i ? "it" : fmt::format("the later node '{}'", printable(OnnxNode(
                                    proto_.node(maker->second), opset_, folder_).name()))),
                    "onnx.checker.check_model says more");
      needed[maker->second] = true;
    }
  }
  return needed;
}

void Reader::check_operators(const std::vector<bool>& needed) const {
  for (int i = 0; i < proto_.node_size(); ++i) {
    if (!needed[i]) continue;
    const OnnxNode node(proto_.node(i), opset_, folder_);
    if (!find_operator(node.op()))
      throw Error(fmt::format("{}: node '{}': the operator {} is not supported", path_, printable(node.name()),
                              printable(node.op())),
                  fmt::format("supported: {}", fmt::join(onnx_operators(), ", ")));
  }
}

// The one input that the output depends on and that has no given value.
std::string Reader::find_input(const std::vector<bool>& needed) {
  std::vector<std::string> found;
  for (int i = 0; i < proto_.node_size(); ++i) {
    if (!needed[i]) continue;
    for (const std::string& tensor : proto_.node(i).input()) {
      if (tensor.empty() || makers_.contains(tensor) || initializers_.contains(tensor)) continue;
      const auto& inputs = proto_.input();
      if (std::none_of(inputs.begin(), inputs.end(), [&](const auto& input) { return input.name() == tensor; }))
        throw Error(fmt::format("{}: node '{}' reads '{}', which nothing makes: an initialiser is missing", path_,
                                printable(OnnxNode(proto_.node(i), opset_, folder_).name()), printable(tensor)));
      if (std::find(found.begin(), found.end(), tensor) == found.end()) found.push_back(tensor);
    }
  }
  for (const auto& [name, value] : options_.inputs) {
    const auto at = std::find(found.begin(), found.end(), name);
    if (at == found.end())
      throw Error(fmt::format("{}: --input {}: its output depends on no such input", path_, printable(name)),
                  fmt::format("inputs: {}", listed(found)));
    const auto input = std::ranges::find(proto_.input(), name, [](const auto& i) { return i.name(); });
    given_.emplace(name, given_input(*input, value));
    found.erase(at);
  }
  if (found.size() != 1)
    throw Error(fmt::format("{}: its output depends on {} {}inputs{}{}", path_, found.size(),
                            options_.inputs.empty() ? "" : "further ", found.empty() ? "" : ": ", listed(found)),
                found.empty() ? "one is explained: give values to all others only"
                              : "one is explained; --input NAME=FILE.npy gives the others their values");
  return found[0];
}

// Images as TensorFlow has them: where all that happens to the input is a turn from NHWC to NCHW, that is left out.
// Before it Keras may put its preprocessing: numbers alike everywhere, or one for each channel, which then lie on axis 1.
void Reader::drop_layout_change(const std::string& input, const std::vector<bool>& needed, Dims& dims) {
  std::string tensor = input;  // and further names of it
  std::set<std::string> constants;
  for (int i = 0; i < proto_.node_size() && dims.size() == 4; ++i) {
    const auto& read = proto_.node(i).input();
    if (!needed[i] || std::find(read.begin(), read.end(), tensor) == read.end()) continue;
    if (reads_[tensor] != 1) return;
    const OnnxNode node(proto_.node(i), opset_, folder_);
    if (node.op() == "Transpose" && node.integers("perm", {}) == std::vector<int64_t>{0, 3, 1, 2}) {
      dropped_ = i;
      of_channels_ = std::move(constants);
      dims = {dims[0], dims[3], dims[1], dims[2]};
      return;
    }
    const bool arithmetic = node.op() == "Mul" || node.op() == "Add" || node.op() == "Sub" || node.op() == "Div";
    if ((!arithmetic && node.op() != "Identity" && node.op() != "Cast") || node.outputs() == 0) return;
    if (arithmetic) {
      if (node.inputs() != 2) return;
      const std::string& other = node.input(node.input(0) == tensor ? 1 : 0);
      const auto found = initializers_.find(other);
      if (found == initializers_.end() || reads_[other] != 1) return;
      const auto& sizes = found->second->dims();
      for (int k = 0; k + 1 < sizes.size(); ++k)
        if (sizes[k] != 1) return;
      constants.insert(other);
    }
    tensor = node.output(0);
  }
}

// Where a convolution or Gemm reads the input itself: what its weights take. 0: unknown.
int64_t Reader::channels_of_weights(const std::string& input) const {
  const std::string& read = dropped_ >= 0 ? proto_.node(dropped_).output(0) : input;
  for (const auto& proto : proto_.node()) {
    const OnnxNode node(proto, opset_, folder_);
    if (node.inputs() < 2 || node.input(0) != read) continue;
    const auto weight = initializers_.find(node.input(1));
    if (weight == initializers_.end()) continue;
    const auto& dims = weight->second->dims();
    if (node.op() == "Conv" && dims.size() == 4)
      return dims[1] * std::clamp<int64_t>(node.integer("group", 1), 1, kMostOnnxSize);
    if (node.op() == "ConvTranspose" && dims.size() == 4) return dims[0];
    if (node.op() == "MatMul" && dims.size() == 2) return dims[0];
    if (node.op() == "Gemm" && dims.size() == 2) return dims[node.integer("transB", 0) != 0 ? 1 : 0];
  }
  return 0;
}

// What the array that will be read says of an input [N,C,H,W], [N,C,L] or [N,C], in this order; 0: nothing.
Dims Reader::sizes_of_array(const Dims& declared) const {
  Dims array = options_.array, sizes(declared.size(), 0);
  if (array.size() == 3 && declared.size() != 3) array.insert(array.begin(), 1);
  if (array.size() < declared.size()) return sizes;
  const int64_t c = declared[1];
  const bool last = dropped_ >= 0 && array.size() == 4 && (c == 0 || (array[3] == c && array[1] != c));
  if (last) array = {array[0], array[3], array[1], array[2]};
  std::copy(array.begin(), array.begin() + int64_t(sizes.size()), sizes.begin());
  return sizes;
}

Shape Reader::input_shape(const std::string& input, const std::vector<bool>& needed) {
  const auto& inputs = proto_.input();
  const auto found = std::find_if(inputs.begin(), inputs.end(), [&](const auto& i) { return i.name() == input; });
  const auto& type = found->type().tensor_type();
  CHECK(found->type().has_tensor_type() && type.has_shape(), "{}: the input '{}' is no tensor of known rank", path_,
        printable(input));
  using Type = onnx::TensorProto;
  const int element = type.elem_type();
  whole_ = element == Type::UINT8;
  if (!whole_ && element != Type::FLOAT && element != Type::FLOAT16 && element != Type::BFLOAT16 && element != Type::DOUBLE)
    throw Error(fmt::format("{}: the input '{}' is of type {}", path_, printable(input),
                            Type::DataType_IsValid(element) ? Type::DataType_Name(Type::DataType(element)) : "unknown"),
                "images of FLOAT, FLOAT16, BFLOAT16, DOUBLE and UINT8 are supported");
  Dims dims;
  for (const auto& d : type.shape().dim()) dims.push_back(d.dim_value() > 0 ? d.dim_value() : 0);  // 0: open
  drop_layout_change(input, needed, dims);
  if (dims.size() < 2 || dims.size() > 4)
    throw Error(fmt::format("{}: the input '{}' has {} dimensions", path_, printable(input), dims.size()),
                "[N,C,H,W], [N,C,L] and [N,C] are supported");
  batch_ = dims[0] > 0 ? dims[0] : kOpenBatch;
  dims[0] = 1;
  const Dims of_array = sizes_of_array(dims);
  if (dims[1] == 0) dims[1] = of_array[1] > 0 ? of_array[1] : channels_of_weights(input);
  if (dims[1] == 0)
    throw Error(fmt::format("{}: the file leaves the number of channels of its input open", path_),
                "give a .npy array [N,C,H,W], whose sizes are taken, or export it with a fixed number");
  for (size_t i = 2; i < dims.size(); ++i)
    if (dims[i] == 0) dims[i] = of_array[i] > 0 ? of_array[i] : options_.size[i - 2];
  for (size_t i = 2; i < dims.size(); ++i)
    if (dims[i] == 0)
      throw Error(fmt::format("{}: the file leaves height and width of its input open", path_),
                  "give a .npy array, whose size is taken, or --preprocess FILE.json with {\"resize\": \"direct\", "
                  "\"size\": [HEIGHT, WIDTH]}, or export it with a fixed size");
  check_sizes(dims, "an input with a dimension", 1);
  input_dims_ = dims;
  return shape_of(dims);
}

void Reader::count_reads(const std::vector<bool>& needed) {
  for (int i = 0; i < proto_.node_size(); ++i)
    if (needed[i])
      for (const std::string& tensor : proto_.node(i).input()) ++reads_[tensor];
}

// Of outputs that are no more than named, nobody asks.
void Reader::check_made(const std::string& tensor) const {
  const auto maker = makers_.find(tensor);
  if (maker == makers_.end()) return;
  const OnnxNode node(proto_.node(maker->second), opset_, folder_);
  throw Error(fmt::format("'{}' is asked for, which is not the first output of node '{}' ({}); only that is supported",
                          printable(tensor), printable(node.name()), printable(node.op())));
}

// Initialisers become values when somebody reads them, so that those of other outputs cost nothing.
void Reader::load_constants(OnnxGraph& graph, const OnnxNode& node) {
  for (int k = 0; k < node.inputs(); ++k) {
    if (!node.has_input(k) || graph.knows(node.input(k))) continue;
    const auto found = initializers_.find(node.input(k));
    check_made(node.input(k));
    CHECK(found != initializers_.end(), "its input '{}' is not there", printable(node.input(k)));
    OnnxConstant constant = read_onnx_tensor(*found->second, folder_);
    if (of_channels_.contains(node.input(k))) constant.dims = {count(constant.dims), 1, 1};
    graph.set(node.input(k), std::move(constant));
  }
}

// Weights are large: what nobody else reads need not stay.
void Reader::drop_constants(OnnxGraph& graph, const OnnxNode& node) {
  for (int k = 0; k < node.inputs(); ++k) {
    const auto found = initializers_.find(node.input(k));
    if (found == initializers_.end() || reads_[node.input(k)] > 1) continue;
    graph.forget(node.input(k));
    found->second->Clear();
  }
}

void Reader::convert(OnnxGraph& graph, int i) {
  const OnnxNode node(proto_.node(i), opset_, folder_);
  try {
    CHECK(node.outputs() > 0, "it has no output");
    if (i == dropped_) return graph.set(node, graph.value(node, 0));
    load_constants(graph, node);
    if (!graph.all_constant(node) || !compute_constants(graph, node)) {
      graph.materialise_given(node);
      find_operator(node.op())(graph, node);
    }
    graph.pass_given(node);
    node.check_all_read();
    drop_constants(graph, node);
  } catch (const Error& e) {
    throw Error(fmt::format("{}: node '{}' ({}): {}", path_, printable(node.name()), node.op(), e.what()), e.hint);
  }
}

// Keras' segmentations: what commands count as channels, axis 1, are then the rows.
void Reader::warn_of_channels_last(OnnxGraph& graph, const Network& network) const {
  const auto* turn = std::get_if<Permute>(&network.nodes.back().layer);
  if (!turn || turn->axes != std::array<int64_t, 3>{2, 3, 1}) return;
  const Node* before = &network.nodes[network.nodes.back().inputs[0]];
  if (std::holds_alternative<Softmax>(before->layer)) before = &network.nodes[before->inputs[0]];
  graph.warnings.push_back(fmt::format("the output is [N,H,W,C], so that axis 1, which the commands take for classes, are "
                                       "its rows: \"output\": \"{}\" in --preprocess FILE.json reads it as [N,C,H,W]",
                                       printable(before->name)));
}

Network Reader::finish(OnnxGraph& graph, const std::string& output) {
  try {
    if (!graph.knows(output)) check_made(output);
    OnnxValue value = graph.value(output);
    const OnnxNode maker(proto_.node(makers_.at(output)), opset_, folder_);
    if (!value.constant && value.node == 0) value.node = graph.add(maker, by_scalar(BinaryFunction::mul, 1.f), {0});  // some layer
    Network network = graph.finish(maker, value.constant ? graph.value(input_) : value);
    CHECK(network.output() > 0, "its output '{}' does not depend on any layer", printable(output));
    warn_of_channels_last(graph, network);
    return network;
  } catch (const Error& e) {
    throw Error(fmt::format("{}: {}", path_, e.what()), e.hint);
  }
}

}  // namespace

std::vector<std::string> onnx_operators() {
  std::vector<std::string> names;
  for (const auto& operators : kTables)
    for (const auto& [name, function] : operators()) names.emplace_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

OnnxNetwork read_onnx(const std::string& path, const OnnxOptions& options) { return Reader(path, options).read(); }

}  // namespace switchback
