#include "tests/support/npz_read.h"

#include <zlib.h>

#include <cstring>
#include <string_view>

#include "engine/files/files.h"

namespace switchback::test {
namespace {

template <typename T>
T at(std::string_view bytes, size_t offset) {
  CHECK(offset + sizeof(T) <= bytes.size(), "an archive that ends at {}", bytes.size());
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

std::string inflated(std::string_view packed, size_t size) {
  std::string out(size, '\0');
  z_stream stream{};
  CHECK(inflateInit2(&stream, -15) == Z_OK, "zlib does not start");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = uInt(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = uInt(out.size());
  const int result = inflate(&stream, Z_FINISH);
  inflateEnd(&stream);
  CHECK(result == Z_STREAM_END && stream.total_out == size, "an entry that does not unpack");
  return out;
}

template <typename T>
std::vector<double> values_of(std::string_view data) {
  std::vector<double> out(data.size() / sizeof(T));
  for (size_t i = 0; i < out.size(); ++i) out[i] = double(at<T>(data, i * sizeof(T)));
  return out;
}

NpzArray parse_npy(std::string_view file) {
  const size_t header = at<uint16_t>(file, 8);
  const std::string_view text = file.substr(10, header), data = file.substr(10 + header);
  NpzArray array;
  const size_t open = text.find("'shape': (");
  for (const char* p = text.data() + open + 10; *p != ')';) {
    char* end;
    array.dims.push_back(std::strtoll(p, &end, 10));
    p = end;
    while (*p == ',' || *p == ' ') ++p;
  }
  const auto is = [&](const char* type) { return text.find(type) != std::string_view::npos; };
  CHECK(is("'fortran_order': False"), "an array in Fortran order");
  array.values = is("'<f4'") ? values_of<float>(data) : is("'<f8'") ? values_of<double>(data) : values_of<int64_t>(data);
  return array;
}

}  // namespace

std::map<std::string, NpzArray> read_npz_archive(const std::string& path) {
  const std::string whole = read_file(path, 1 << 30);
  const std::string_view bytes = whole;
  const size_t end = bytes.rfind("PK\x05\x06");
  CHECK(end != std::string_view::npos, "{}: no zip", path);
  std::map<std::string, NpzArray> arrays;
  size_t entry = at<uint32_t>(bytes, end + 16);
  for (int i = 0; i < at<uint16_t>(bytes, end + 10); ++i) {
    const size_t packed = at<uint32_t>(bytes, entry + 20), size = at<uint32_t>(bytes, entry + 24);
    const size_t name_length = at<uint16_t>(bytes, entry + 28);
    const size_t local = at<uint32_t>(bytes, entry + 42);
    std::string name(bytes.substr(entry + 46, name_length));
    const size_t data = local + 30 + at<uint16_t>(bytes, local + 26) + at<uint16_t>(bytes, local + 28);
    const std::string_view content = bytes.substr(data, packed);
    name.resize(name.size() - std::string_view(".npy").size());
    arrays[name] = parse_npy(at<uint16_t>(bytes, entry + 10) == 0 ? std::string(content) : inflated(content, size));
    entry += 46 + name_length + at<uint16_t>(bytes, entry + 30) + at<uint16_t>(bytes, entry + 32);
  }
  return arrays;
}

}  // namespace switchback::test
