#include "engine/files/state_dict.h"

#include <bit>
#include <cstring>

#include "engine/files/pytorch.h"
#include "engine/files/safetensors.h"

namespace switchback {
namespace {

static_assert(std::endian::native == std::endian::little, "the files are little-endian");

struct TypeName {
  const char* name;
  size_t bytes;
};
constexpr TypeName kTypes[] = {{"F32", 4}, {"F16", 2},  {"BF16", 2}, {"F64", 8},     {"U8", 1},
                               {"I8", 1},  {"BOOL", 1}, {"U16", 2},  {"I16", 2},     {"U32", 4},
                               {"I32", 4}, {"U64", 8},  {"I64", 8},  {"F8_E4M3", 1}, {"F8_E5M2", 1}};

float float_from_f16(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float small = float(mantissa) * 0x1p-24f;  // subnormal: exact in float32
  return sign ? -small : small;
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

size_t size_of_type(const std::string& dtype) {
  for (const TypeName& t : kTypes)
    if (dtype == t.name) return t.bytes;
  return 0;
}

int64_t byte_count(const Dims& dims, size_t size) {
  int64_t bytes = int64_t(size);
  for (const int64_t d : dims)
    if (__builtin_mul_overflow(bytes, d, &bytes)) return -1;
  return bytes;
}

std::vector<std::string> StateDict::names() const {
  std::vector<std::string> out;
  for (const auto& [name, entry] : entries_) out.push_back(name);
  return out;
}

const StateDict::Entry& StateDict::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end())
    throw Error(fmt::format("{} has no tensor '{}'", path(), printable(name)), "is it the right file for this model?");
  return found->second;
}

void StateDict::keep_under(const std::string& prefix) {
  std::map<std::string, Entry> kept;
  for (auto& [name, entry] : entries_)
    if (name.starts_with(prefix) && name != prefix) kept.emplace(name.substr(prefix.size()), std::move(entry));
  entries_ = std::move(kept);
}

void StateDict::rename(const std::string& from, const std::string& to) {
  auto one = entries_.extract(from);
  CHECK(one && !has(to), "{}: '{}' cannot be called '{}'", path(), printable(from), printable(to));
  one.key() = to;
  entries_.insert(std::move(one));
}

// The elements one behind the other; in `room` where they don't lie so in the file.
std::span<const std::byte> StateDict::elements(const Entry& e, std::vector<std::byte>& room) const {
  if (e.strides.empty()) return e.bytes;
  const size_t size = size_of_type(e.dtype);
  room.resize(byte_count(e.dims, size));
  Dims place(e.dims.size(), 0);
  for (size_t at = 0; at < room.size(); at += size) {
    int64_t from = 0;
    for (size_t i = 0; i < place.size(); ++i) from += place[i] * e.strides[i];
    std::memcpy(room.data() + at, e.bytes.data() + from * int64_t(size), size);
    for (size_t i = place.size(); i-- > 0 && ++place[i] == e.dims[i];) place[i] = 0;
  }
  return room;
}

Tensor StateDict::load(const std::string& name) const {
  const Dims& d = dims(name);
  Tensor out(d.empty() ? Dims{1} : d);
  load(name, out.values());
  return out;
}

void StateDict::load(const std::string& name, std::span<float> values) const {
  const Entry& e = entry(name);
  const bool known = e.dtype == "F32" || e.dtype == "F16" || e.dtype == "BF16" || e.dtype == "F64";
  if (!known)
    throw Error(fmt::format("{}: tensor '{}' is {}, a float type is needed", path(), printable(name), e.dtype),
                "save it as F32, F16, BF16 or F64");
  float* to = values.data();
  const int64_t n = count(e.dims);
  CHECK(int64_t(values.size()) == n, "{}: '{}' has {} values, not {}", path(), printable(name), n, values.size());
  if (n == 0) return;
  std::vector<std::byte> room;
  const std::byte* from = elements(e, room).data();
  if (e.dtype == "F32") {
    std::memcpy(to, from, size_t(n) * sizeof(float));
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

std::vector<int64_t> StateDict::load_ints(const std::string& name) const {
  const Entry& e = entry(name);
  std::vector<std::byte> room;
  const std::span<const std::byte> bytes = elements(e, room);
  const size_t size = size_of_type(e.dtype);
  std::vector<int64_t> out(bytes.size() / size);
  if (e.dtype == "U8" || e.dtype == "BOOL") {
    convert_ints<uint8_t>(bytes, out);
  } else if (e.dtype == "I8") {
    convert_ints<int8_t>(bytes, out);
  } else if (e.dtype == "U16") {
    convert_ints<uint16_t>(bytes, out);
  } else if (e.dtype == "I16") {
    convert_ints<int16_t>(bytes, out);
  } else if (e.dtype == "U32") {
    convert_ints<uint32_t>(bytes, out);
  } else if (e.dtype == "I32") {
    convert_ints<int32_t>(bytes, out);
  } else if (e.dtype == "I64" || e.dtype == "U64") {
    convert_ints<int64_t>(bytes, out);
    if (e.dtype == "U64")
      for (const int64_t v : out)
        CHECK(v >= 0, "{}: tensor '{}' holds {}, too large for int64", path(), printable(name), uint64_t(v));
  } else {
    throw Error(fmt::format("{}: tensor '{}' is {}, an integer type is needed", path(), printable(name), e.dtype),
                "is it the right file?");
  }
  return out;
}

StateDict read_state_dict(const std::string& path) {
  const MappedFile file(path);
  const std::string_view first(reinterpret_cast<const char*>(file.bytes().data()), std::min<size_t>(file.bytes().size(), 9));
  if (PytorchFile::is_one(first)) return PytorchFile(path);
  return Safetensors(path);
}

}  // namespace switchback
