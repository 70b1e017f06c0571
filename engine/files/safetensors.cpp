#include "engine/files/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>

#include "engine/files/json.h"

namespace switchback {
namespace {

using nlohmann::json;
static_assert(std::endian::native == std::endian::little, "the files are little-endian");

constexpr size_t kLongestHeader = size_t(16) << 20;  // a network of 1000 tensors needs about 100 KiB
constexpr size_t kMostDims = 8;

struct TypeName {
  const char* name;
  size_t bytes;
};
constexpr TypeName kTypes[] = {{"F32", 4}, {"F16", 2},  {"BF16", 2}, {"F64", 8},     {"U8", 1},
                               {"I8", 1},  {"BOOL", 1}, {"U16", 2},  {"I16", 2},     {"U32", 4},
                               {"I32", 4}, {"U64", 8},  {"I64", 8},  {"F8_E4M3", 1}, {"F8_E5M2", 1}};

size_t size_of_type(const std::string& dtype) {
  for (const TypeName& t : kTypes)
    if (dtype == t.name) return t.bytes;
  return 0;
}

float float_from_f16(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float small = float(mantissa) * 0x1p-24f;  // subnormal: exact in float32
  return sign ? -small : small;
}

// Parses the header. A name that stands twice is an error (the JSON library would silently keep one), and so is
// nesting deeper than the format has, which also bounds the parser's work.
json parse_header(const std::string& path, std::string_view text) {
  std::vector<std::set<std::string>> keys;  // of the objects open now
  std::string problem;
  const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.empty()) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second && problem.empty())
        problem = fmt::format("'{}' stands twice", printable(key));
    }
    if (depth > 3 && problem.empty()) problem = "nested too deeply";
    return problem.empty();
  };
  json header;
  try {
    header = parse_json(text, check);
  } catch (const json::exception& e) {
    if (problem.empty()) problem = printable(e.what());
  }
  if (problem.empty() && !header.is_object()) problem = "not an object";
  if (!problem.empty())
    throw Error(fmt::format("{}: bad safetensors header: {}", path, problem), "the file is damaged or of another kind");
  return header;
}

// A list of non-negative integers that fit int64, or nothing.
bool read_integers(const json& list, Dims& out) {
  if (!list.is_array()) return false;
  for (const json& v : list) {
    if (!v.is_number_unsigned() || v.get<uint64_t>() > uint64_t(std::numeric_limits<int64_t>::max())) return false;
    out.push_back(v.get<int64_t>());
  }
  return true;
}

// Elements times size, or -1 on overflow.
int64_t byte_count(const Dims& dims, size_t size) {
  int64_t bytes = int64_t(size);
  for (const int64_t d : dims)
    if (__builtin_mul_overflow(bytes, d, &bytes)) return -1;
  return bytes;
}

template <typename T>
void convert_ints(std::span<const std::byte> bytes, std::vector<int64_t>& out) {
  for (size_t i = 0; i < out.size(); ++i) {
    T v;
    std::memcpy(&v, bytes.data() + i * sizeof(T), sizeof(T));
    out[i] = int64_t(v);
  }
}

}  // namespace

Safetensors::Safetensors(const std::string& path) : file_(path) {
  const auto bytes = file_.bytes();
  const auto damaged = [&](const std::string& what) {
    throw Error(fmt::format("{}: {}", path, what), "the file is damaged, incomplete, or not a safetensors file");
  };
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min<size_t>(bytes.size(), 4));
  // A zip archive, or a pickle of protocol 2 and later: neither is the length of a header that could be.
  if (start == "PK\3\4" || (start.size() == 4 && start[0] == '\x80' && start[1] >= 2 && start[1] <= 5))
    throw Error(fmt::format("{}: a PyTorch or NumPy file, not a safetensors file", path),
                fmt::format("`python3 weights/convert.py {} {}` makes one of it", path,
                            std::filesystem::path(path).replace_extension(".safetensors").string()));
  if (bytes.size() < 8) damaged(fmt::format("{} bytes are too few for a safetensors file", bytes.size()));
  uint64_t length;
  std::memcpy(&length, bytes.data(), 8);
  if (length > bytes.size() - 8)
    damaged(fmt::format("the header would have {} bytes, the file has {}", length, bytes.size()));
  if (length > kLongestHeader)
    damaged(fmt::format("the header has {} bytes, at most {} are read", length, kLongestHeader));
  const json header = parse_header(path, {reinterpret_cast<const char*>(bytes.data()) + 8, size_t(length)});
  const auto data = bytes.subspan(8 + size_t(length));

  struct Span {
    int64_t begin, end;
    const std::string* name;
  };
  std::vector<Span> spans;
  for (const auto& [name, item] : header.items()) {
    const std::string shown = printable(name);
    if (name == "__metadata__") {
      if (!item.is_object()) damaged("__metadata__ is not an object");
      for (const auto& [key, value] : item.items()) {
        if (!value.is_string()) damaged(fmt::format("__metadata__ '{}' is not a string", printable(key)));
        metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    Entry entry;
    Dims range;
    if (!item.is_object() || !item.contains("dtype") || !item["dtype"].is_string() || !item.contains("shape") ||
        !read_integers(item["shape"], entry.dims) || !item.contains("data_offsets") ||
        !read_integers(item["data_offsets"], range) || range.size() != 2)
      damaged(fmt::format("tensor '{}' needs dtype, shape and two data_offsets", shown));
    entry.dtype = item["dtype"].get<std::string>();
    const size_t size = size_of_type(entry.dtype);
    if (!size) damaged(fmt::format("tensor '{}' has the unknown dtype '{}'", shown, printable(entry.dtype)));
    if (entry.dims.size() > kMostDims) damaged(fmt::format("tensor '{}' has {} dimensions", shown, entry.dims.size()));
    if (range[0] > range[1] || uint64_t(range[1]) > data.size())
      damaged(fmt::format("tensor '{}' lies at {}..{} of {} data bytes", shown, range[0], range[1], data.size()));
    if (byte_count(entry.dims, size) != range[1] - range[0])
      damaged(fmt::format("tensor '{}' {} {} does not fill its {} bytes", shown, entry.dtype, to_string(entry.dims),
                          range[1] - range[0]));
    entry.bytes = data.subspan(size_t(range[0]), size_t(range[1] - range[0]));
    const auto [place, fresh] = entries_.emplace(name, std::move(entry));
    spans.push_back({range[0], range[1], &place->first});
  }
  std::sort(spans.begin(), spans.end(),
            [](const Span& a, const Span& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  int64_t end = 0;
  for (const Span& s : spans) {
    if (s.begin != end)
      damaged(fmt::format("tensor '{}' {} its neighbour's data at byte {}", printable(*s.name),
                          s.begin < end ? "overlaps" : "leaves a hole behind", s.begin));
    end = s.end;
  }
  if (uint64_t(end) != data.size())
    damaged(fmt::format("{} of {} data bytes belong to no tensor", data.size() - uint64_t(end), data.size()));
}

std::vector<std::string> Safetensors::names() const {
  std::vector<std::string> out;
  for (const auto& [name, entry] : entries_) out.push_back(name);
  return out;
}

const Safetensors::Entry& Safetensors::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end())
    throw Error(fmt::format("{} has no tensor '{}'", path(), printable(name)), "is it the right file for this model?");
  return found->second;
}

Tensor Safetensors::load(const std::string& name) const {
  const Dims& d = dims(name);
  Tensor out(d.empty() ? Dims{1} : d);
  load(name, out.values());
  return out;
}

void Safetensors::load(const std::string& name, std::span<float> values) const {
  const Entry& e = entry(name);
  const bool known = e.dtype == "F32" || e.dtype == "F16" || e.dtype == "BF16" || e.dtype == "F64";
  if (!known)
    throw Error(fmt::format("{}: tensor '{}' is {}, a float type is needed", path(), printable(name), e.dtype),
                "save it as F32, F16, BF16 or F64");
  float* to = values.data();
  const std::byte* from = e.bytes.data();
  const int64_t n = count(e.dims);
  CHECK(int64_t(values.size()) == n, "{}: '{}' has {} values, not {}", path(), printable(name), n, values.size());
  if (n == 0) return;
  if (e.dtype == "F32") {
    std::memcpy(to, from, e.bytes.size());
  } else if (e.dtype == "F64") {
    for (int64_t i = 0; i < n; ++i) {
      double v;
      std::memcpy(&v, from + 8 * i, 8);
      to[i] = float(v);
    }
  } else {
    const bool half = e.dtype == "F16";
    for (int64_t i = 0; i < n; ++i) {
      uint16_t v;
      std::memcpy(&v, from + 2 * i, 2);
      to[i] = half ? float_from_f16(v) : std::bit_cast<float>(uint32_t(v) << 16);
    }
  }
  file_.release(e.bytes);  // or weights would count twice while they are loaded
}

std::vector<int64_t> Safetensors::load_ints(const std::string& name) const {
  const Entry& e = entry(name);
  std::vector<int64_t> out(e.bytes.size() / size_of_type(e.dtype));
  if (e.dtype == "U8" || e.dtype == "BOOL") {
    convert_ints<uint8_t>(e.bytes, out);
  } else if (e.dtype == "I8") {
    convert_ints<int8_t>(e.bytes, out);
  } else if (e.dtype == "U16") {
    convert_ints<uint16_t>(e.bytes, out);
  } else if (e.dtype == "I16") {
    convert_ints<int16_t>(e.bytes, out);
  } else if (e.dtype == "U32") {
    convert_ints<uint32_t>(e.bytes, out);
  } else if (e.dtype == "I32") {
    convert_ints<int32_t>(e.bytes, out);
  } else if (e.dtype == "I64" || e.dtype == "U64") {
    convert_ints<int64_t>(e.bytes, out);
    if (e.dtype == "U64")
      for (const int64_t v : out)
        CHECK(v >= 0, "{}: tensor '{}' holds {}, too large for int64", path(), printable(name), uint64_t(v));
  } else {
    throw Error(fmt::format("{}: tensor '{}' is {}, an integer type is needed", path(), printable(name), e.dtype),
                "is it the right file?");
  }
  return out;
}

NamedTensor::NamedTensor(std::string name, const Tensor& tensor)
    : NamedTensor(std::move(name), tensor.dims(), tensor.values()) {}
NamedTensor::NamedTensor(std::string name, Dims dims, std::span<const float> values)
    : name(std::move(name)), dtype("F32"), dims(std::move(dims)), bytes(std::as_bytes(values)) {}
NamedTensor::NamedTensor(std::string name, Dims dims, std::span<const uint8_t> values)
    : name(std::move(name)), dtype("U8"), dims(std::move(dims)), bytes(std::as_bytes(values)) {}
NamedTensor::NamedTensor(std::string name, Dims dims, std::span<const int16_t> values)
    : name(std::move(name)), dtype("I16"), dims(std::move(dims)), bytes(std::as_bytes(values)) {}

void write_safetensors(OutputFile& file, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  // Wide types first, so that every tensor lies aligned to its element.
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& t : tensors) order.push_back(&t);
  std::stable_sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return size_of_type(a->dtype) > size_of_type(b->dtype);
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string> names{"__metadata__"};
  size_t offset = 0;
  for (const NamedTensor* t : order) {
    CHECK(names.insert(t->name).second, "{}: tensor '{}' would be written twice", file.path(), t->name);
    CHECK(byte_count(t->dims, size_of_type(t->dtype)) == int64_t(t->bytes.size()), "{}: tensor '{}' {} has {} bytes",
          file.path(), t->name, to_string(t->dims), t->bytes.size());
    header[t->name] = {{"dtype", t->dtype}, {"shape", t->dims}, {"data_offsets", {offset, offset + t->bytes.size()}}};
    offset += t->bytes.size();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception& e) {
    fail("{}: a name is not UTF-8: {}", file.path(), printable(e.what()));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const NamedTensor* t : order) file.write(t->bytes);
}

void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  OutputFile file(path);
  write_safetensors(file, tensors, metadata);
  file.commit();
}

}  // namespace switchback
