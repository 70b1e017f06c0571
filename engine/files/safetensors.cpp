#include "engine/files/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include "engine/files/json.h"

namespace switchback {
namespace {

using nlohmann::json;
static_assert(std::endian::native == std::endian::little, "the files are little-endian");

constexpr size_t kLongestHeader = size_t(16) << 20;  // a network of 1000 tensors needs about 100 KiB
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

}  // namespace

Safetensors::Safetensors(const std::string& path) : StateDict(path) {
  const auto bytes = file_.bytes();
  const auto damaged = [&](const std::string& what) {
    throw Error(fmt::format("{}: {}", path, what), "the file is damaged, incomplete, or not a safetensors file");
  };
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
    entry.bytes = data.subspan(range[0], range[1] - range[0]);
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
