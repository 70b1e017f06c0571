// Zip archives (APPNOTE.TXT, section 4.3), zip64 ones too: what torch.save and numpy.savez write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "kernels/check.h"

namespace switchback {

[[noreturn]] inline void damaged_file(const std::string& what) {
  throw Error("the file is damaged: " + what, "copy or download the file again");
}

// A number or a part of a file's bytes, which may have fewer.
template <typename T>
T number_at(std::span<const std::byte> bytes, uint64_t at) {
  if (bytes.size() < sizeof(T) || at > bytes.size() - sizeof(T)) damaged_file("it is cut off");
  T v;
  std::memcpy(&v, bytes.data() + at, sizeof v);
  return v;
}
std::span<const std::byte> part_of(std::span<const std::byte> bytes, uint64_t at, uint64_t size);

struct ZipRecord {
  std::string name;
  std::span<const std::byte> packed;  // in the file
  bool deflated = false;              // else they are the record's bytes as they are
  uint64_t size = 0;                  // of those
  uint32_t crc = 0;
  void check(std::span<const std::byte> bytes) const;  // throws where they are not those that were packed
  std::vector<std::byte> unpack() const;               // checked
};

// In the order of the archive's directory; names stand once. Errors know no path.
std::vector<ZipRecord> zip_records(std::span<const std::byte> file);

}  // namespace switchback
