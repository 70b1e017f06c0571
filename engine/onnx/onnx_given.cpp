// Inputs of a graph that are not explained: a user gives them values, and they are constants from then on.
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cmath>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_graph.h"

namespace switchback {

OnnxConstant given_input(const onnx::ValueInfoProto& input, const OnnxConstant& value) {
  using Type = onnx::TensorProto;
  const auto& type = input.type().tensor_type();
  const std::string name = printable(input.name());
  if (!input.type().has_tensor_type() || !type.has_shape()) fail("--input {}: the file says no rank of it", name);
  Dims wanted;
  for (const auto& d : type.shape().dim()) wanted.push_back(d.dim_value());
  bool fits = value.dims.size() == wanted.size();
  for (size_t i = 0; fits && i < wanted.size(); ++i)
    fits = wanted[i] <= 0 ? i > 0 || value.dims[i] == 1 : value.dims[i] == wanted[i];
  if (!fits)
    throw Error(
        fmt::format("--input {}: the array is {}, the file wants {}", name, to_string(value.dims), to_string(wanted)),
        "an open axis is 0 here; an open batch must be 1, since the value is the same for all images");
  const int element = type.elem_type();
  const bool floats =
      element == Type::FLOAT || element == Type::DOUBLE || element == Type::FLOAT16 || element == Type::BFLOAT16;
  if (floats || value.whole) return converted(value, !floats);
  for (float v : value.floats)
    CHECK(v == std::round(v) && std::abs(v) < 0x1p31f, "--input {}: it wants whole numbers, and the array has {}", name,
          v);
  return converted(value, true);
}

void OnnxGraph::pass_given(const OnnxNode& n) {
  bool any = false;
  for (int i = 0; i < n.inputs(); ++i) any = any || (n.has_input(i) && given_.contains(n.input(i)));
  for (int i = 0; any && i < n.outputs(); ++i)
    if (knows(n.output(i)) && value(n.output(i)).constant) given_.insert(n.output(i));
}

OnnxValue OnnxGraph::constant_value(const OnnxNode& n, const OnnxConstant& c, const std::string& name) {
  CHECK(!c.dims.empty() && c.dims[0] == 1 && c.count() > 0,
        "a constant of {} where data are wanted; its first axis, the batch, "
        "must be 1: what is the same for all images is supported",
        to_string(c.dims));
  const int64_t channels = c.dims.back(), rows = c.count() / channels;
  int node = 0;
  if (shape(0).item() > 1) node = add(n, Slice{{0, 1, 1}, {0, 1, 1}, {0, 1, 1}}, {node}, name + ".part");
  node = add(n, by_scalar(BinaryFunction::mul, 0.f), {node}, name + ".part");
  const std::vector<float> values = c.as_floats();
  BinaryConstant sum{BinaryFunction::add, std::vector<float>(values.size()), {1, channels, rows, 1}};
  for (int64_t i = 0; i < c.count(); ++i) sum.values[i % channels * rows + i / channels] = values[i];
  node = add(n, sum, {node}, name);
  return {nullptr, node, c.dims, alike(node) ? OnnxValue::Order::maps : OnnxValue::Order::memory};
}

void OnnxGraph::materialise_given(const OnnxNode& n) {
  static constexpr std::string_view kOfData[] = {"DepthToSpace", "Resize", "SpaceToDepth",
                                                 "Upsample"};  // other moves take constants
  const bool moves = onnx_movements().contains(n.op()) || onnx_reshapes().contains(n.op()) || onnx_sizes().contains(n.op());
  const bool takes_constants = moves && std::ranges::find(kOfData, n.op()) == std::end(kOfData);
  if (given_.empty() || !all_constant(n) || takes_constants) return;
  for (int i = 0; i < n.inputs(); ++i) {
    if (!n.has_input(i) || !given_.contains(n.input(i))) continue;
    const OnnxConstant c = *value(n, i).constant;
    set(n.input(i), constant_value(n, c, printable(n.input(i))));
    given_.erase(n.input(i));
  }
}

}  // namespace switchback
