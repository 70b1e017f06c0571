#include "engine/files/tar.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "engine/files/files.h"

namespace switchback {
namespace {

constexpr int64_t kTarBlock = 512, kLongestName = 1 << 16;
constexpr const char* kTarHint = "a .tar that is not compressed is read, as of WebDataset";

// One archive, open to be read anywhere.
class TarFile {
 public:
  explicit TarFile(const std::string& path) : path_(path), size_(file_size(path)), file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_ < 0) throw Error(fmt::format("cannot read {}: {}", printable(path), std::strerror(errno)), "check the file");
  }
  TarFile(const TarFile&) = delete;
  TarFile& operator=(const TarFile&) = delete;
  ~TarFile() { ::close(file_); }
  int64_t size() const { return size_; }
  void read(int64_t begin, char* to, int64_t bytes) const {
    while (bytes > 0) {
      const ssize_t got = pread(file_, to, size_t(bytes), begin);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw Error(fmt::format("cannot read {}: {}", printable(path_), std::strerror(errno)), "check the file");
      if (got == 0) throw Error(fmt::format("{}: its data are cut off", printable(path_)), kTarHint);
      to += got, begin += got, bytes -= got;
    }
  }
  std::string text(int64_t begin, int64_t bytes) const {
    std::string text(size_t(bytes), '\0');
    read(begin, text.data(), bytes);
    return text;
  }

 private:
  std::string path_;
  int64_t size_;
  int file_;
};

std::string_view text_field(const char* header, size_t at, size_t bytes) {
  const std::string_view all(header + at, bytes);
  return all.substr(0, all.find('\0'));
}

// Octal digits, or (GNU) a number of base 256; -1 where it is none or too large.
int64_t octal(const char* header, size_t at, size_t bytes) {
  int64_t value = 0;
  if (uint8_t(header[at]) == 0x80) {
    for (size_t i = at + 1; i < at + bytes; ++i) {
      if (value >> 48 != 0) return -1;
      value = value << 8 | uint8_t(header[i]);
    }
    return value;
  }
  bool any = false;
  for (const char c : text_field(header, at, bytes)) {
    if (c == ' ') continue;
    if (c < '0' || c > '7' || value >> 48 != 0) return -1;
    value = value * 8 + (c - '0');
    any = true;
  }
  return any ? value : -1;
}

bool checksum_holds(const char* header) {
  int64_t sum = 0;
  for (int64_t i = 0; i < kTarBlock; ++i) sum += i >= 148 && i < 156 ? ' ' : uint8_t(header[i]);
  return sum == octal(header, 148, 8);
}

// What a pax header says of the next file: records "LENGTH KEY=VALUE\n".
void read_pax(std::string_view text, std::string& name, int64_t& bytes) {
  while (!text.empty()) {
    const size_t space = text.find(' ');
    size_t length = 0;
    for (size_t i = 0; i < std::min(space, text.size()); ++i)
      length = text[i] >= '0' && text[i] <= '9' && length < size_t(kLongestName) ? length * 10 + size_t(text[i] - '0') : text.size() + 1;
    if (space == std::string_view::npos || length <= space + 1 || length > text.size()) return;
    const std::string_view record = text.substr(space + 1, length - space - 2);
    if (record.starts_with("path=")) name = record.substr(5);
    if (record.starts_with("size=") && record.size() < 5 + 16) {
      bytes = 0;
      for (const char c : record.substr(5)) bytes = c >= '0' && c <= '9' && bytes >= 0 ? bytes * 10 + (c - '0') : -1;
    }
    text.remove_prefix(length);
  }
}

}  // namespace

std::vector<TarEntry> read_tar_index(const std::string& path) {
  const TarFile file(path);
  std::vector<TarEntry> entries;
  std::string long_name;
  int64_t long_bytes = -1;
  char header[kTarBlock];
  for (int64_t at = 0; at + kTarBlock <= file.size();) {
    file.read(at, header, kTarBlock);
    if (std::all_of(header, header + kTarBlock, [](char c) { return c == 0; })) return entries;
    if (!checksum_holds(header))
      throw Error(at == 0 ? fmt::format("{} is no tar archive", printable(path))
                          : fmt::format("{} is damaged at byte {}", printable(path), at),
                  kTarHint);
    int64_t bytes = octal(header, 124, 12);
    const char kind = header[156];
    const bool regular = kind == '0' || kind == '\0' || kind == '7';
    if (regular && long_bytes >= 0) bytes = long_bytes;
    const int64_t begin = at + kTarBlock;
    if (bytes < 0 || bytes > file.size() - begin)
      throw Error(fmt::format("{}: its data are cut off", printable(path)), kTarHint);
    at = begin + (bytes + kTarBlock - 1) / kTarBlock * kTarBlock;
    if ((kind == 'L' || kind == 'x') && bytes > kLongestName)
      throw Error(fmt::format("{} is damaged at byte {}", printable(path), begin), kTarHint);
    if (kind == 'L') {
      long_name = file.text(begin, bytes);
      long_name.resize(long_name.find('\0') == std::string::npos ? long_name.size() : long_name.find('\0'));
    } else if (kind == 'x') {
      read_pax(file.text(begin, bytes), long_name, long_bytes);
    } else {
      if (regular) {
        const std::string_view prefix = std::string_view(header + 257, 6) == std::string_view("ustar\0", 6) ? text_field(header, 345, 155) : "";
        std::string name = !long_name.empty() ? long_name : std::string(prefix) + (prefix.empty() ? "" : "/") + std::string(text_field(header, 0, 100));
        entries.push_back({std::move(name), begin, bytes});
      }
      long_name.clear(), long_bytes = -1;
    }
  }
  if (file.size() < kTarBlock) throw Error(fmt::format("{} is no tar archive", printable(path)), kTarHint);
  throw Error(fmt::format("{}: its data are cut off", printable(path)), kTarHint);  // the block of zeros at its end is missing
}

std::string read_tar_entry(const std::string& path, const TarEntry& entry, int64_t max_bytes) {
  if (entry.bytes > max_bytes)
    throw Error(fmt::format("{}/{} has {} bytes, more than {}", printable(path), printable(entry.name), entry.bytes, max_bytes),
                "is it the right file?");
  return TarFile(path).text(entry.begin, entry.bytes);
}

}  // namespace switchback
