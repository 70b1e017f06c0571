// The parts of an ONNX file (https://onnx.ai, a protocol buffer) as the reader of networks takes them: constants with
// checked sizes, and nodes whose attributes have checked types. What the file says is nowhere trusted.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tensor.h"

namespace onnx {
class AttributeProto;
class NodeProto;
class TensorProto;
}  // namespace onnx

namespace switchback {

// A tensor that is known before any input is: an initialiser, or what is computed from some.
struct OnnxConstant {
  Dims dims;            // [] is a scalar
  bool whole = false;   // its values are `ints`, else `floats`
  std::vector<float> floats;
  std::vector<int64_t> ints;
  int type = 0;         // the element type that the file has (TensorProto's), where it is read as it is

  int64_t count() const { return int64_t(whole ? ints.size() : floats.size()); }
  std::vector<float> as_floats() const;
  // Throws where it holds floats.
  const std::vector<int64_t>& as_ints(const std::string& what) const;
};

// The file's, where external data lie: below it, also after links were followed, unless links may lead out of it.
struct OnnxFolder {
  std::string path;
  bool follow_links = false;
};

// From FLOAT, DOUBLE, FLOAT16, BFLOAT16, BOOL and all integers. `folder` is where external data may lie; a path that
// leaves it is refused.
OnnxConstant read_onnx_tensor(const onnx::TensorProto& tensor, const OnnxFolder& folder);

// One node of the graph. Every attribute must be asked for: check_all_read() throws naming one that nobody knows, since
// to ignore it would mean to compute something else.
class OnnxNode {
 public:
  OnnxNode(const onnx::NodeProto& proto, int64_t opset, const OnnxFolder& folder);

  const std::string& op() const;    // "Conv"; with its domain where that is not ONNX's own
  const std::string& name() const;  // the node's, or its first output's
  int64_t opset() const { return opset_; }
  int inputs() const;
  int outputs() const;
  const std::string& input(int i) const;   // "" where it is left out
  const std::string& output(int i) const;  // "" where nobody wants it
  bool has_input(int i) const { return i < inputs() && !input(i).empty(); }

  bool has(std::string_view attribute) const;
  int64_t integer(std::string_view attribute, int64_t otherwise) const;
  float real(std::string_view attribute, float otherwise) const;
  std::string text(std::string_view attribute, const std::string& otherwise) const;
  std::vector<int64_t> integers(std::string_view attribute, std::vector<int64_t> otherwise) const;
  std::vector<float> reals(std::string_view attribute) const;  // none where it is not there
  OnnxConstant constant() const;  // of a Constant or ConstantOfShape; a float 0 where the latter says nothing
  void ignore(std::initializer_list<std::string_view> attributes) const;  // those that change nothing at inference
  void check_all_read() const;

 private:
  const onnx::AttributeProto* find(std::string_view attribute) const;
  const onnx::NodeProto* proto_;
  int64_t opset_;
  OnnxFolder folder_;
  std::string op_, name_;
  mutable std::set<std::string, std::less<>> read_;
};

}  // namespace switchback
