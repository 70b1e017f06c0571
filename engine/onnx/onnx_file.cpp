#include "engine/onnx/onnx_file.h"

#include <onnx/onnx_pb.h>

#include <bit>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <limits>

#include "engine/files/files.h"

static_assert(std::endian::native == std::endian::little, "raw tensor data are little-endian");

namespace switchback {
namespace {

namespace fs = std::filesystem;
using Type = onnx::TensorProto;

size_t element_bytes(int type) {
  switch (type) {
    case Type::BOOL: case Type::INT8: case Type::UINT8: return 1;
    case Type::INT16: case Type::UINT16: case Type::FLOAT16: case Type::BFLOAT16: return 2;
    case Type::FLOAT: case Type::INT32: case Type::UINT32: return 4;
    case Type::DOUBLE: case Type::INT64: case Type::UINT64: return 8;
    default: return 0;
  }
}

bool is_float(int type) {
  return type == Type::FLOAT || type == Type::DOUBLE || type == Type::FLOAT16 || type == Type::BFLOAT16;
}

std::string type_text(int type) {
  return Type::DataType_IsValid(type) ? Type::DataType_Name(Type::DataType(type)) : fmt::format("{}", type);
}

// The number of elements; throws where it does not fit into `most`.
int64_t checked_count(const Dims& dims, int64_t most) {
  int64_t n = 1;
  for (int64_t d : dims) {
    CHECK(d >= 0, "a tensor of dimensions {}", to_string(dims));
    CHECK(d == 0 || n <= most / d, "a tensor of dimensions {} is larger than its data", to_string(dims));
    n *= d;
  }
  return n;
}

template <typename T>
T element(const char* data, size_t i) {
  T value;
  std::memcpy(&value, data + i * sizeof(T), sizeof(T));
  return value;
}

float float_of(int type, const char* data, size_t i) {
  switch (type) {
    case Type::FLOAT: return element<float>(data, i);
    case Type::DOUBLE: return float(element<double>(data, i));
    case Type::FLOAT16: return std::bit_cast<f16>(element<uint16_t>(data, i));
    default: return std::bit_cast<bf16>(element<uint16_t>(data, i));
  }
}

int64_t int_of(int type, const char* data, size_t i) {
  switch (type) {
    case Type::BOOL: return element<uint8_t>(data, i) != 0;
    case Type::INT8: return element<int8_t>(data, i);
    case Type::UINT8: return element<uint8_t>(data, i);
    case Type::INT16: return element<int16_t>(data, i);
    case Type::UINT16: return element<uint16_t>(data, i);
    case Type::INT32: return element<int32_t>(data, i);
    case Type::UINT32: return element<uint32_t>(data, i);
    default: return element<int64_t>(data, i);
  }
}

void take_raw(const Type& tensor, std::string_view raw, OnnxConstant& out) {
  const int type = tensor.data_type();
  const size_t size = element_bytes(type);
  const int64_t n = checked_count(out.dims, int64_t(raw.size() / size));
  CHECK(raw.size() == size_t(n) * size, "a tensor of dimensions {} ({}) has {} bytes", to_string(out.dims),
        type_text(type), raw.size());
  if (out.whole) {
    out.ints.resize(n);
    for (size_t i = 0; i < size_t(n); ++i) out.ints[i] = int_of(type, raw.data(), i);
  } else {
    out.floats.resize(n);
    for (size_t i = 0; i < size_t(n); ++i) out.floats[i] = float_of(type, raw.data(), i);
  }
}

template <typename Field, typename To, typename Convert>
void take_field(const Field& field, const Dims& dims, std::vector<To>& to, Convert convert) {
  const int64_t n = checked_count(dims, field.size());
  CHECK(n == field.size(), "a tensor of dimensions {} has {} values", to_string(dims), field.size());
  to.reserve(n);
  for (const auto& value : field) to.push_back(convert(value));
}

// Values as the fields of the message, not as bytes.
void take_typed(const Type& tensor, OnnxConstant& out) {
  const auto same = [](auto v) { return v; };
  switch (tensor.data_type()) {
    case Type::FLOAT: return take_field(tensor.float_data(), out.dims, out.floats, same);
    case Type::DOUBLE: return take_field(tensor.double_data(), out.dims, out.floats, [](double v) { return float(v); });
    case Type::FLOAT16:
      return take_field(tensor.int32_data(), out.dims, out.floats,
                        [](int32_t v) { return float(std::bit_cast<f16>(uint16_t(v))); });
    case Type::BFLOAT16:
      return take_field(tensor.int32_data(), out.dims, out.floats,
                        [](int32_t v) { return float(std::bit_cast<bf16>(uint16_t(v))); });
    case Type::INT64: return take_field(tensor.int64_data(), out.dims, out.ints, same);
    case Type::UINT32: case Type::UINT64:
      return take_field(tensor.uint64_data(), out.dims, out.ints, [](uint64_t v) { return int64_t(v); });
    default: return take_field(tensor.int32_data(), out.dims, out.ints, same);
  }
}

int64_t whole_number(const std::string& text) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  CHECK(error == std::errc() && end == text.data() + text.size() && value >= 0, "external data: '{}' is no size",
        printable(text));
  return value;
}

std::string external_path(const std::string& location, const OnnxFolder& folder) {
  const fs::path relative(location);
  bool leaves = location.empty() || relative.is_absolute();
  for (const fs::path& part : relative) leaves |= part == "..";
  const fs::path base = folder.path.empty() ? fs::path(".") : fs::path(folder.path), whole = base / relative;
  bool linked = false;
  if (!leaves && !folder.follow_links) {
    std::error_code no_base, no_file;
    const fs::path root = fs::canonical(base, no_base), real = fs::canonical(whole, no_file);
    if (!no_base && !no_file) {
      const fs::path inside = real.lexically_relative(root);
      leaves = linked = inside.empty() || *inside.begin() == "..";
    }
  }
  if (linked)
    throw Error(fmt::format("external data '{}' are a link to {}, outside the model's folder", printable(location),
                            printable(fs::canonical(whole).string())),
                "--follow-links reads it, if you trust the file; or copy what the links lead to: cp -L -r FOLDER COPY");
  if (leaves)
    throw Error(fmt::format("external data '{}' are outside the model's folder", printable(location)),
                "put the file beside the .onnx file");
  return whole.string();
}

void take_external(const Type& tensor, const OnnxFolder& folder, OnnxConstant& out) {
  std::string location;
  int64_t offset = 0, length = -1;
  for (const auto& entry : tensor.external_data()) {
    if (entry.key() == "location") location = entry.value();
    if (entry.key() == "offset") offset = whole_number(entry.value());
    if (entry.key() == "length") length = whole_number(entry.value());
  }
  const MappedFile file(external_path(location, folder));
  const int64_t size = int64_t(file.bytes().size());
  if (length < 0) length = size - std::min(offset, size);
  CHECK(offset <= size && length <= size - offset, "external data: bytes {} to {} of {}, which has {}", offset,
        double(offset) + double(length), printable(location), size);
  take_raw(tensor, {reinterpret_cast<const char*>(file.bytes().data()) + offset, size_t(length)}, out);
}

}  // namespace

std::vector<float> OnnxConstant::as_floats() const {
  return whole ? std::vector<float>(ints.begin(), ints.end()) : floats;
}

const std::vector<int64_t>& OnnxConstant::as_ints(const std::string& what) const {
  CHECK(whole, "{} are no whole numbers", what);
  return ints;
}

OnnxConstant read_onnx_tensor(const onnx::TensorProto& tensor, const OnnxFolder& folder) {
  OnnxConstant out;
  out.dims.assign(tensor.dims().begin(), tensor.dims().end());
  const int type = tensor.data_type();
  CHECK(element_bytes(type) > 0, "a tensor of type {}", type_text(type));
  CHECK(!tensor.has_segment(), "a tensor in segments");
  out.whole = !is_float(type);
  out.type = type;
  if (tensor.data_location() == Type::EXTERNAL) {
    take_external(tensor, folder, out);
  } else if (tensor.has_raw_data()) {
    take_raw(tensor, tensor.raw_data(), out);
  } else {
    take_typed(tensor, out);
  }
  return out;
}

OnnxNode::OnnxNode(const onnx::NodeProto& proto, int64_t opset, const OnnxFolder& folder)
    : proto_(&proto), opset_(opset), folder_(folder), op_(proto.op_type()), name_(proto.name()) {
  if (!proto.domain().empty() && proto.domain() != "ai.onnx") op_ = proto.domain() + "." + op_;
  if (name_.empty() && proto.output_size() > 0) name_ = proto.output(0);
  if (opset < 6) ignore({"consumed_inputs"});  // which memory may be written over
}

const std::string& OnnxNode::op() const { return op_; }
const std::string& OnnxNode::name() const { return name_; }
int OnnxNode::inputs() const { return proto_->input_size(); }
int OnnxNode::outputs() const { return proto_->output_size(); }

const std::string& OnnxNode::input(int i) const {
  CHECK(i < inputs(), "it has {} inputs, not {}", inputs(), i + 1);
  return proto_->input(i);
}

const std::string& OnnxNode::output(int i) const {
  CHECK(i < outputs(), "it has {} outputs, not {}", outputs(), i + 1);
  return proto_->output(i);
}

const onnx::AttributeProto* OnnxNode::find(std::string_view attribute) const {
  read_.emplace(attribute);
  for (const onnx::AttributeProto& a : proto_->attribute())
    if (a.name() == attribute) return &a;
  return nullptr;
}

namespace {

void check_type(const onnx::AttributeProto& a, int type) {
  CHECK(a.type() == type, "attribute {} is of type {}, should be {}", printable(a.name()),
        onnx::AttributeProto::AttributeType_Name(a.type()),
        onnx::AttributeProto::AttributeType_Name(onnx::AttributeProto::AttributeType(type)));
}

}  // namespace

bool OnnxNode::has(std::string_view attribute) const { return find(attribute) != nullptr; }

int64_t OnnxNode::integer(std::string_view attribute, int64_t otherwise) const {
  const onnx::AttributeProto* a = find(attribute);
  if (!a) return otherwise;
  check_type(*a, onnx::AttributeProto::INT);
  return a->i();
}

float OnnxNode::real(std::string_view attribute, float otherwise) const {
  const onnx::AttributeProto* a = find(attribute);
  if (!a) return otherwise;
  check_type(*a, onnx::AttributeProto::FLOAT);
  return a->f();
}

std::string OnnxNode::text(std::string_view attribute, const std::string& otherwise) const {
  const onnx::AttributeProto* a = find(attribute);
  if (!a) return otherwise;
  check_type(*a, onnx::AttributeProto::STRING);
  return a->s();
}

std::vector<int64_t> OnnxNode::integers(std::string_view attribute, std::vector<int64_t> otherwise) const {
  const onnx::AttributeProto* a = find(attribute);
  if (!a) return otherwise;
  check_type(*a, onnx::AttributeProto::INTS);
  return {a->ints().begin(), a->ints().end()};
}

std::vector<float> OnnxNode::reals(std::string_view attribute) const {
  const onnx::AttributeProto* a = find(attribute);
  if (!a) return {};
  check_type(*a, onnx::AttributeProto::FLOATS);
  return {a->floats().begin(), a->floats().end()};
}

OnnxConstant OnnxNode::constant() const {
  if (const onnx::AttributeProto* a = find("value")) {
    check_type(*a, onnx::AttributeProto::TENSOR);
    return read_onnx_tensor(a->t(), folder_);
  }
  OnnxConstant out;
  if (has("value_float")) {
    out.floats = {real("value_float", 0)};
  } else if (const onnx::AttributeProto* a = find("value_floats")) {
    check_type(*a, onnx::AttributeProto::FLOATS);
    out.floats.assign(a->floats().begin(), a->floats().end());
    out.dims = {int64_t(out.floats.size())};
  } else if (has("value_int")) {
    out.whole = true;
    out.ints = {integer("value_int", 0)};
  } else if (has("value_ints")) {
    out.whole = true;
    out.ints = integers("value_ints", {});
    out.dims = {int64_t(out.ints.size())};
  } else {
    CHECK(op_ == "ConstantOfShape", "a constant without a value that this version reads");
    out.dims = {1};
    out.floats = {0};
  }
  return out;
}

void OnnxNode::ignore(std::initializer_list<std::string_view> attributes) const {
  for (std::string_view a : attributes) read_.emplace(a);
}

void OnnxNode::check_all_read() const {
  for (const onnx::AttributeProto& a : proto_->attribute())
    CHECK(read_.contains(a.name()), "its attribute {} is not supported", printable(a.name()));
}

}  // namespace switchback
