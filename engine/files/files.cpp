#include "engine/files/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <utility>

namespace switchback {

// A temporary file that the signal handler may have to remove. Entries are pushed and never freed (a handler may be
// reading them), so that the list is safe to walk at any instant.
struct Watched {
  std::string path;
  std::atomic<bool> live{true};
  Watched* next = nullptr;
};

namespace {

std::atomic<Watched*> watched_head{nullptr};
std::atomic<int> commits_under_way{0};
std::atomic<int> pending_signal{0};
std::atomic<bool> anything_written{false};
std::atomic<void (*)(bool)> last_words{nullptr};

Watched* watch(const std::string& path) {
  auto* w = new Watched{path};
  w->next = watched_head.load();
  while (!watched_head.compare_exchange_weak(w->next, w)) {
  }
  return w;
}

void end_by_signal(int signal) {  // only async-signal-safe calls
  for (Watched* w = watched_head.load(); w; w = w->next)
    if (w->live.load()) unlink(w->path.c_str());
  if (const auto say = last_words.exchange(nullptr)) say(anything_written.load());
  std::signal(signal, SIG_DFL);
  raise(signal);
}

// A commit under way is waited for, but only once: whoever asks a second time wants the end.
void on_signal(int signal) {
  int none = 0;
  const bool first = commits_under_way.load() && pending_signal.compare_exchange_strong(none, signal);
  // Looked at again, since the commit may have ended in another thread before the signal was noted.
  if (!first || commits_under_way.load() == 0) end_by_signal(signal);
}

// While one of these lives, signals wait.
struct CommitGuard {
  CommitGuard() { ++commits_under_way; }
  ~CommitGuard() {
    if (--commits_under_way == 0 && pending_signal.load()) end_by_signal(pending_signal.load());
  }
};

std::string hint_for(int code, bool writing) {
  switch (code) {
    case ENOENT:
      return writing ? "the folder does not exist: make it first or choose another" : "check the path";
    case ENOTDIR:
      return "a part of the path is a file, not a folder";
    case EISDIR:
      return "this is a folder: name a file";
    case EACCES:
    case EPERM:
      return writing ? "not writable: choose another folder" : "you have no permission to read it";
    case EROFS:
      return "the file system is read-only: choose another folder";
    case ENOSPC:
    case EDQUOT:
      return "the disk is full: free some space or choose another folder";
    case EFBIG:
      return "the file would be larger than the limit of this system or shell (ulimit -f)";
    case ENAMETOOLONG:
      return "the name is too long";
    default:
      return writing ? "choose another folder" : "check the file";
  }
}

[[noreturn]] void fail_file(const char* verb, const std::string& path, int code) {
  throw Error(fmt::format("cannot {} {}: {}", verb, path, std::strerror(code)), hint_for(code, verb[0] != 'r'));
}

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

// Opens for reading and checks that it is something with bytes in it. Non-blocking, so that a FIFO cannot hang us.
Descriptor open_to_read(const std::string& path, struct stat& status) {
  Descriptor d{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (d.fd < 0 || fstat(d.fd, &status) != 0) fail_file("read", path, errno);
  if (S_ISDIR(status.st_mode)) fail_file("read", path, EISDIR);
  if (!S_ISREG(status.st_mode)) throw Error(fmt::format("cannot read {}: not a regular file", path), "give a file");
  return Descriptor{std::exchange(d.fd, -1)};
}

}  // namespace

std::string printable(std::string_view text) {
  constexpr size_t kLongest = 120;
  std::string out;
  for (const char c : text.substr(0, kLongest)) {
    if (uint8_t(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", uint8_t(c));
    } else {
      out += c;
    }
  }
  if (text.size() > kLongest) out += "...";
  return out;
}

int64_t file_size(const std::string& path) {
  struct stat status;
  open_to_read(path, status);
  return status.st_size;
}

std::string read_file(const std::string& path, int64_t max_bytes) {
  struct stat status;
  const Descriptor file = open_to_read(path, status);
  const auto too_large = [&](int64_t size) {
    throw Error(fmt::format("{} is too large: {} bytes, at most {} are read", path, size, max_bytes),
                "is this the right file?");
  };
  if (status.st_size > max_bytes) too_large(status.st_size);
  std::string out;
  out.reserve(status.st_size);
  std::vector<char> chunk(1 << 16);
  while (true) {  // to the end, not to st_size: files of /proc say 0, and a file may grow while it is read
    const ssize_t got = read(file.fd, chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_file("read", path, errno);
    if (got == 0) return out;
    if (int64_t(out.size()) + got > max_bytes) too_large(int64_t(out.size()) + got);
    out.append(chunk.data(), size_t(got));
  }
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  struct stat status;
  const Descriptor file = open_to_read(path, status);
  if (status.st_size == 0) return;
  void* data = mmap(nullptr, size_t(status.st_size), PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) fail_file("read", path, errno);
  data_ = data;
  size_ = size_t(status.st_size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_) munmap(data_, size_);
}

void MappedFile::release(std::span<const std::byte> part) const {
  const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE)), begin = reinterpret_cast<uintptr_t>(part.data());
  const uintptr_t first = (begin + page - 1) / page * page, last = (begin + part.size()) / page * page;  // whole pages
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

void make_directories(const std::string& path) {
  std::error_code code;
  std::filesystem::create_directories(path, code);
  if (code) fail_file("make the folder", path, code.value());
  if (!std::filesystem::is_directory(path, code)) fail_file("make the folder", path, ENOTDIR);
}

OutputFile::OutputFile(std::string path) : path_(std::move(path)) {
  struct stat status;
  if (stat(path_.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    if (S_ISDIR(status.st_mode)) fail_file("write", path_, EISDIR);
    // Renaming over a device would replace it.
    throw Error(fmt::format("cannot write {}: it exists and is not a regular file", path_), "choose another name");
  }
  temporary_ = fmt::format("{}.tmp.{}", path_, getpid());
  watched_ = watch(temporary_);
  file_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (file_ < 0) {
    watched_->live = false;
    fail_file("write", path_, errno);
  }
  live_ = true;
}

OutputFile::~OutputFile() { discard(); }

void OutputFile::discard() noexcept {
  if (file_ >= 0) close(std::exchange(file_, -1));
  if (!live_) return;
  unlink(temporary_.c_str());
  watched_->live = false;
  live_ = false;
}

void OutputFile::write(std::span<const std::byte> bytes) {
  write_at(position_, bytes);
  position_ += int64_t(bytes.size());
}

void OutputFile::write_at(int64_t offset, std::span<const std::byte> bytes) {
  CHECK(live_ && file_ >= 0, "{}: written to after it was finished", path_);
  while (!bytes.empty()) {
    const ssize_t put = pwrite(file_, bytes.data(), std::min(bytes.size(), size_t(1) << 30), offset);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) {
      const int code = put < 0 ? errno : ENOSPC;
      discard();
      fail_file("write", path_, code);
    }
    bytes = bytes.subspan(put);
    offset += put;
  }
}

void OutputFile::finish() {
  if (file_ < 0) return;
  int code = 0;
  // EINVAL: a file system that cannot sync.
  if (fsync(file_) != 0 && errno != EINVAL) code = errno;
  if (close(std::exchange(file_, -1)) != 0 && !code) code = errno;
  if (!code) return;
  discard();
  fail_file("write", path_, code);
}

void OutputFile::commit() {
  CHECK(live_, "{}: nothing to commit", path_);
  finish();
  const CommitGuard guard;
  if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int code = errno;
    discard();
    fail_file("write", path_, code);
  }
  watched_->live = false;
  live_ = false;
  anything_written = true;
}

void write_file_atomically(const std::string& path, std::span<const std::byte> bytes) {
  OutputFile file(path);
  file.write(bytes);
  file.commit();
}

OutputFile& StagedFiles::add(const std::string& path) {
  for (const auto& file : files_) CHECK(file->path() != path, "{} would be written twice", path);
  files_.push_back(std::make_unique<OutputFile>(path));
  return *files_.back();
}

void StagedFiles::add(const std::string& path, std::span<const std::byte> bytes) {
  OutputFile& file = add(path);
  file.write(bytes);
  file.finish();
}

void StagedFiles::commit() {
  const CommitGuard guard;
  for (const auto& file : files_) file->finish();
  for (size_t i = 0; i < files_.size(); ++i) {
    try {
      files_[i]->commit();
    } catch (...) {
      for (size_t k = 0; k < i; ++k) unlink(files_[k]->path().c_str());
      files_.clear();
      throw;
    }
  }
  files_.clear();
}

std::vector<std::string> StagedFiles::paths() const {
  std::vector<std::string> out;
  for (const auto& file : files_) out.push_back(file->path());
  return out;
}

void remove_temporaries_on_signals(void (*say)(bool wrote)) {
  last_words = say;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction old;
    // What the caller chose to ignore (nohup) stays ignored.
    if (sigaction(signal, nullptr, &old) == 0 && old.sa_handler != SIG_IGN) std::signal(signal, on_signal);
  }
  std::signal(SIGXFSZ, SIG_IGN);
}

}  // namespace switchback
