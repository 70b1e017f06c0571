// Files: reading with limits, and writing so that nothing partial is ever left behind.
//
// A result is written beside its place as `name.tmp.PID`, synced and renamed. Whatever goes wrong before the rename,
// the temporary file is removed and the old file, if there was one, is untouched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/check.h"

namespace switchback {

struct Watched;  // an entry of the list that the signal handler walks (files.cpp)

// Text that came out of a file, fit for a one-line message: control characters escaped, long text cut.
std::string printable(std::string_view text);

// Size of a regular file. Missing, unreadable and irregular files are errors.
int64_t file_size(const std::string& path);

// The whole of a file that has at most `max_bytes`.
std::string read_file(const std::string& path, int64_t max_bytes);

// A file mapped read-only into memory. A zero-size file gives an empty span.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }
  const std::string& path() const { return path_; }
  // Gives the memory of a part that has been read back; it is still there to be read, at the price of reading it anew.
  void release(std::span<const std::byte> part) const;

 private:
  std::string path_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

// The folder and its parents, as `mkdir -p`.
void make_directories(const std::string& path);

// One file on its way: written to a temporary file, which the destructor removes unless commit() was reached.
class OutputFile {
 public:
  explicit OutputFile(std::string path);
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();
  void write(std::span<const std::byte> bytes);
  void write(std::string_view bytes) { write(std::as_bytes(std::span(bytes.data(), bytes.size()))); }
  void write_at(int64_t offset, std::span<const std::byte> bytes);  // anywhere; write() goes on where it ended
  void finish();  // sync and close; the temporary file stays. Write errors surface here at the latest.
  void commit();  // finish, then rename to the final name
  const std::string& path() const { return path_; }

 private:
  void discard() noexcept;
  std::string path_, temporary_;
  Watched* watched_ = nullptr;
  int file_ = -1;
  int64_t position_ = 0;  // where write() goes on
  bool live_ = false;
};

void write_file_atomically(const std::string& path, std::span<const std::byte> bytes);
inline void write_file_atomically(const std::string& path, std::string_view bytes) {
  write_file_atomically(path, std::as_bytes(std::span(bytes.data(), bytes.size())));
}
inline void write_file_atomically(const std::string& path, const std::vector<uint8_t>& bytes) {
  write_file_atomically(path, std::as_bytes(std::span(bytes)));
}

// The result files of one run: all of them appear at commit(), or none. (Should a rename fail at the very end, those
// already renamed are removed again.)
class StagedFiles {
 public:
  OutputFile& add(const std::string& path);  // the caller writes; commit() finishes it
  void add(const std::string& path, std::span<const std::byte> bytes);
  void add(const std::string& path, std::string_view bytes) {
    add(path, std::as_bytes(std::span(bytes.data(), bytes.size())));
  }
  void add(const std::string& path, const std::vector<uint8_t>& bytes) { add(path, std::as_bytes(std::span(bytes))); }
  void commit();
  std::vector<std::string> paths() const;

 private:
  std::vector<std::unique_ptr<OutputFile>> files_;
};

// For main(): on SIGINT, SIGTERM and SIGHUP the temporary files are removed, `say` is called, and the process ends by
// the signal, wherever it was; a commit under way is completed first, unless the signal comes twice. (For a shell that
// is exit code 130 or 143. An exit with these codes would not do: a shell's loop would go on with the next file.)
// `say`, told whether any file was written, runs in the handler: async-signal-safe calls only.
// A file-size limit becomes a write error instead of a signal.
void remove_temporaries_on_signals(void (*say)(bool wrote) = nullptr);

}  // namespace switchback
