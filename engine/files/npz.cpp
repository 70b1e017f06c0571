// Sizes and offsets are always written as zip64 (as numpy does it in its local headers), so that archives over 4 GiB
// take the same way as small ones. Records: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, section 4.3.
#include "engine/files/npz.h"

#include <zlib.h>

#include <type_traits>

#include "engine/files/npy.h"

namespace switchback {
namespace {

constexpr uint16_t kFormat = 45;                            // its version, from which on there is zip64
constexpr uint16_t kUnix = 3 << 8;                          // what the writer's file attributes mean
constexpr uint16_t kUtf8Names = 1 << 11;                    // flag
constexpr uint16_t kZip64 = 1;                              // extra field
constexpr uint16_t kLocalExtra = 20, kDirectoryExtra = 28;  // bytes of it
constexpr uint16_t kStored = 0, kMidnight = 0;
constexpr uint16_t kDate = 1 << 5 | 1;      // 1980-01-01, the first there is: the same arrays give the same bytes
constexpr uint32_t kMode = 0100644u << 16;  // a regular file that all may read
constexpr uint16_t kNone16 = 0, kInZip64_16 = 0xffff;
constexpr uint32_t kNone32 = 0, kInZip64 = 0xffffffff;

template <typename Field>
void append_field(std::string& out, const Field& field) {
  if constexpr (std::is_integral_v<Field>)
    for (size_t i = 0; i < sizeof field; ++i) out += char(uint64_t(field) >> (8 * i) & 255);  // little-endian
  else
    out += field;
}

// Fields one after the other, integers in as many bytes as their type has.
template <typename... Fields>
std::string record(const Fields&... fields) {
  std::string out;
  (append_field(out, fields), ...);
  return out;
}

std::span<const std::byte> as_bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

}  // namespace

// The local header, which the data follow.
int64_t NpzWriter::Entry::data() const { return offset + 30 + int64_t(name.size()) + kLocalExtra; }

size_t NpzWriter::add(const std::string& name, const Dims& dims) {
  const std::string file = name + ".npy";
  CHECK(file.size() <= 0xffff, "the name of an array has {} bytes", name.size());
  for (const Entry& entry : entries_) CHECK(entry.name != file, "{} would be in {} twice", name, file_.path());
  const std::vector<uint8_t> header = npy_header(dims);
  const int64_t bytes = int64_t(header.size()) + count(dims) * int64_t(sizeof(float));
  entries_.push_back({file, end_, bytes});
  end_ = entries_.back().data() + bytes;
  append(entries_.back(), std::as_bytes(std::span(header)));
  return entries_.size() - 1;
}

void NpzWriter::write(size_t entry, std::span<const float> values) {
  append(entries_.at(entry), std::as_bytes(values));
}

void NpzWriter::append(Entry& entry, std::span<const std::byte> bytes) {
  CHECK(int64_t(bytes.size()) <= entry.bytes - entry.written, "{}: {} bytes into the last {} of {}", entry.name,
        bytes.size(), entry.bytes - entry.written, entry.bytes);
  file_.write_at(entry.data() + entry.written, bytes);
  entry.crc = uint32_t(crc32_z(entry.crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
  entry.written += int64_t(bytes.size());
}

void NpzWriter::finish() {
  std::string directory;
  for (const Entry& e : entries_) {
    CHECK(e.written == e.bytes, "{}: {} of {} bytes were written", e.name, e.written, e.bytes);
    const std::string common =
        record(kFormat, kUtf8Names, kStored, kMidnight, kDate, e.crc, kInZip64, kInZip64, uint16_t(e.name.size()));
    const std::string local =
        record("PK\3\4", common, kLocalExtra, e.name, kZip64, uint16_t(kLocalExtra - 4), e.bytes, e.bytes);
    file_.write_at(e.offset, as_bytes(local));
    // No comment; disk 0; no internal attributes; external ones; the local header's offset.
    directory += record("PK\1\2", uint16_t(kUnix | kFormat), common, kDirectoryExtra, kNone16, kNone16, kNone16, kMode,
                        kInZip64, e.name, kZip64, uint16_t(kDirectoryExtra - 4), e.bytes, e.bytes, e.offset);
  }
  const int64_t entries = int64_t(entries_.size()), directory_bytes = int64_t(directory.size());
  const int64_t end_record_bytes = 44;  // behind this field; all on disk 0 of 1
  const std::string end = record("PK\6\6", end_record_bytes, uint16_t(kUnix | kFormat), kFormat, kNone32, kNone32,
                                 entries, entries, directory_bytes, end_) +
                          record("PK\6\7", kNone32, end_ + directory_bytes, uint32_t(1)) +
                          record("PK\5\6", kNone16, kNone16, kInZip64_16, kInZip64_16, kInZip64, kInZip64, kNone16);
  file_.write_at(end_, as_bytes(directory + end));
}

}  // namespace switchback
