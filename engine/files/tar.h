// The index of a tar archive (POSIX ustar and pax, GNU): where its files lie, so that each is read without unpacking.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchback {

struct TarEntry {
  std::string name;
  int64_t begin = 0, bytes = 0;  // of its data in the archive
};

// Regular files in the archive's order; folders, links and devices are left out. Throws where it is damaged or compressed.
std::vector<TarEntry> read_tar_index(const std::string& path);

// A file of it that has at most `max_bytes`.
std::string read_tar_entry(const std::string& path, const TarEntry& entry, int64_t max_bytes);

}  // namespace switchback
