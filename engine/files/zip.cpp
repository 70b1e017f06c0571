#include "engine/files/zip.h"

#include <zlib.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string_view>

#include "engine/files/files.h"

namespace switchback {
namespace {

struct Directory {
  uint64_t entries, size, offset;
};

Directory directory_of(std::span<const std::byte> file) {
  constexpr size_t kEnd = 22, kLocator = 20;
  if (file.size() < kEnd) damaged_file("it is cut off");
  const size_t first = file.size() - std::min<size_t>(file.size(), kEnd + 0xffff);  // a comment may follow
  for (size_t at = file.size() - kEnd + 1; at-- > first;) {
    if (number_at<uint32_t>(file, at) != 0x06054b50) continue;
    Directory d{number_at<uint16_t>(file, at + 10), number_at<uint32_t>(file, at + 12), number_at<uint32_t>(file, at + 16)};
    if (at >= kLocator && number_at<uint32_t>(file, at - kLocator) == 0x07064b50) {  // zip64
      const uint64_t end = number_at<uint64_t>(file, at - kLocator + 8);
      if (number_at<uint32_t>(file, end) != 0x06064b50) damaged_file("its zip64 record is missing");
      d = {number_at<uint64_t>(file, end + 32), number_at<uint64_t>(file, end + 40), number_at<uint64_t>(file, end + 48)};
    }
    return d;
  }
  damaged_file("the end of its zip archive is missing");
}

}  // namespace

std::span<const std::byte> part_of(std::span<const std::byte> bytes, uint64_t at, uint64_t size) {
  if (at > bytes.size() || size > bytes.size() - at) damaged_file("it is cut off");
  return bytes.subspan(at, size);
}

std::vector<ZipRecord> zip_records(std::span<const std::byte> file) {
  constexpr uint32_t kElsewhere = 0xffffffff;  // in the zip64 field
  constexpr uint16_t kStored = 0, kDeflated = 8;
  const Directory d = directory_of(file);
  const std::span<const std::byte> directory = part_of(file, d.offset, d.size);
  std::vector<ZipRecord> records;
  std::set<std::string> names;
  for (uint64_t i = 0, at = 0; i < d.entries; ++i) {
    if (number_at<uint32_t>(directory, at) != 0x02014b50) damaged_file("its list of records breaks off");
    const auto flags = number_at<uint16_t>(directory, at + 8), method = number_at<uint16_t>(directory, at + 10);
    uint64_t size = number_at<uint32_t>(directory, at + 24), offset = number_at<uint32_t>(directory, at + 42);
    uint64_t packed = number_at<uint32_t>(directory, at + 20);
    const uint16_t name = number_at<uint16_t>(directory, at + 28), extra = number_at<uint16_t>(directory, at + 30);
    const std::span<const std::byte> letters = part_of(directory, at + 46, name);
    const std::string key(reinterpret_cast<const char*>(letters.data()), letters.size());
    const std::span<const std::byte> fields = part_of(directory, at + 46 + name, extra);
    for (uint64_t f = 0; f + 4 <= fields.size();) {
      const uint16_t id = number_at<uint16_t>(fields, f), length = number_at<uint16_t>(fields, f + 2);
      uint64_t value = f + 4;
      if (id == 1) {  // zip64: those of size, packed size and offset that are elsewhere, in this order
        for (uint64_t* number : {&size, &packed, &offset})
          if (*number == kElsewhere) *number = number_at<uint64_t>(fields, value), value += 8;
      }
      f += 4 + uint64_t(length);
    }
    if (flags & 1) throw Error("its zip archive is encrypted", "pack it again without");
    if (method != kStored && method != kDeflated)
      throw Error(fmt::format("its record '{}' is compressed by another method than deflate", printable(key)), "pack it again");
    const uint64_t data = offset + 30 + number_at<uint16_t>(file, offset + 26) + number_at<uint16_t>(file, offset + 28);
    if (number_at<uint32_t>(file, offset) != 0x04034b50) damaged_file(fmt::format("its record '{}' is not there", printable(key)));
    const bool deflated = method == kDeflated;
    const std::span<const std::byte> bytes = part_of(file, data, deflated ? packed : size);
    if (!names.insert(key).second) damaged_file(fmt::format("it holds '{}' twice", printable(key)));
    records.push_back({key, bytes, deflated, size, number_at<uint32_t>(directory, at + 16)});
    at += 46 + uint64_t(name) + extra + number_at<uint16_t>(directory, at + 32);
  }
  return records;
}

void ZipRecord::check(std::span<const std::byte> bytes) const {
  if (bytes.size() != size || crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()) != crc)
    damaged_file(fmt::format("its record '{}' does not have its checksum", printable(name)));
}

std::vector<std::byte> ZipRecord::unpack() const {
  if (!deflated) {
    check(packed);
    return {packed.begin(), packed.end()};
  }
  // Deflate packs at most 1032 to 1, so that the file's size bounds what the directory may claim.
  if (size > (packed.size() + 1) * 1100) damaged_file(fmt::format("its record '{}' cannot have {} bytes", printable(name), size));
  std::vector<std::byte> out(size);
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw Error("zlib has no memory");
  const std::unique_ptr<z_stream, int (*)(z_streamp)> ends(&stream, inflateEnd);
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(packed.data()));  // which it only reads
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  size_t in = packed.size(), room = out.size();
  int status = Z_OK;
  while (status == Z_OK) {  // zlib counts in 32 bits
    const auto few = [](size_t& left) { return uInt(std::min<size_t>(left, 1 << 30)); };
    const uInt given = stream.avail_in = few(in), space = stream.avail_out = few(room);
    status = inflate(&stream, Z_NO_FLUSH);
    in -= given - stream.avail_in, room -= space - stream.avail_out;
  }
  if (status != Z_STREAM_END || room != 0) damaged_file(fmt::format("its record '{}' cannot be unpacked", printable(name)));
  check(out);
  return out;
}

}  // namespace switchback
