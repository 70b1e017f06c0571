#include "tools/cli/resumable.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "engine/files/files.h"
#include "engine/files/npy.h"

namespace switchback {
namespace {

constexpr int64_t kLongestJournal = int64_t(1) << 31;

[[noreturn]] void fail_to(const char* verb, const std::string& path) {
  const int code = errno;
  throw Error(fmt::format("cannot {} {}: {}", verb, printable(path), std::strerror(code)),
              code == ENOSPC ? "the disk is full: free some space" : "choose another folder with --output DIR");
}

int open_file(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (file < 0) fail_to("write", path);
  struct stat status;
  if (fstat(file, &status) == 0 && S_ISREG(status.st_mode)) return file;
  close(file);
  throw Error(fmt::format("cannot write {}: it exists and is not a regular file", printable(path)), "choose another folder");
}

void write_all(int file, const std::string& path, int64_t at, const void* from, size_t bytes) {
  const char* p = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t put = pwrite(file, p, std::min(bytes, size_t(1) << 30), at);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) fail_to("write", path);
    p += put, at += put, bytes -= size_t(put);
  }
}

int64_t size_of_file(int file) {
  struct stat status;
  return fstat(file, &status) == 0 ? status.st_size : 0;
}

}  // namespace

std::string differences(const nlohmann::ordered_json& a, const nlohmann::ordered_json& b) {
  std::string names;
  for (const auto& [key, value] : b.items())
    if (!a.is_object() || !a.contains(key) || a[key] != value) names += (names.empty() ? "" : ", ") + key;
  return names.empty() ? "its own description" : names;
}

ResumableArray::ResumableArray(std::string path, const Dims& dims, const Json& job, bool resume)
    : path_(std::move(path)), dims_(dims), resume_(resume) {
  row_bytes_ = int64_t(sizeof(float)) * (count(dims) / dims[0]);
  data_begin_ = int64_t(npy_header(dims).size());
  array_ = open_file(partial());
  try {
    journal_ = open_file(journal());
    if (flock(journal_, LOCK_EX | LOCK_NB) != 0)
      throw Error(fmt::format("{} is being written by another run", printable(path_)),
                  "wait for it, or choose another folder with --output DIR");
    if (!resume || !load_journal(job)) begin(job);
  } catch (...) {
    close_files();
    throw;
  }
}

void ResumableArray::close_files() noexcept {
  for (int* file : {&array_, &journal_})
    if (*file >= 0) close(std::exchange(*file, -1));
}

ResumableArray::~ResumableArray() {
  if (finished_) return;
  if (resume_) {
    try {
      sync();
    } catch (const Error& e) {
      fmt::print(stderr, "switchback: warning: {}\n", e.what());
    }
  } else {
    unlink(partial().c_str());
    unlink(journal().c_str());
  }
  close_files();
}

void ResumableArray::begin(const Json& job) {
  const std::vector<uint8_t> header = npy_header(dims_);
  const std::string line = job.dump() + "\n";
  if (ftruncate(journal_, 0) != 0) fail_to("write", journal());
  if (ftruncate(array_, 0) != 0) fail_to("write", partial());
  write_all(array_, partial(), 0, header.data(), header.size());
  write_all(journal_, journal(), 0, line.data(), line.size());
}

// False where no run has begun. Rows count as done as far as whole lines of the journal and the array's size reach.
bool ResumableArray::load_journal(const Json& job) {
  const std::string text = read_file(journal(), kLongestJournal);
  size_t at = text.find('\n'), good = at + 1;
  if (at == std::string::npos) return false;
  const Json before = Json::parse(text.substr(0, at), nullptr, false);
  if (before != job)
    throw Error(fmt::format("{} belongs to another job: it differs in {}", printable(partial()), differences(before, job)),
                "leave out --resume to begin anew, or choose another folder with --output DIR");
  const int64_t rows_there = std::max<int64_t>(0, size_of_file(array_) - data_begin_) / std::max<int64_t>(1, row_bytes_);
  while (int64_t(notes_.size()) < std::min(rows_there, dims_[0])) {
    at = text.find('\n', good);
    if (at == std::string::npos) break;
    Json note = Json::parse(text.substr(good, at - good), nullptr, false);
    if (note.is_discarded()) break;
    notes_.push_back(std::move(note));
    good = at + 1;
  }
  rows_done_ = int64_t(notes_.size());
  if (ftruncate(journal_, off_t(good)) != 0) fail_to("write", journal());
  return true;
}

void ResumableArray::write(int64_t row, int64_t offset, std::span<const float> values) {
  write_all(array_, partial(), data_begin_ + row * row_bytes_ + offset * int64_t(sizeof(float)), values.data(),
            values.size_bytes());
}

void ResumableArray::read(int64_t row, std::span<float> values) const {
  char* to = reinterpret_cast<char*>(values.data());
  size_t left = values.size_bytes();
  int64_t at = data_begin_ + row * row_bytes_;
  while (left > 0) {
    const ssize_t got = pread(array_, to, left, at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) fail_to("read", partial());
    to += got, at += got, left -= size_t(got);
  }
}

void ResumableArray::row_done(const Json& note) {
  pending_ += note.dump() + "\n";
  ++rows_done_;
  if (std::chrono::steady_clock::now() - last_sync_ > sync_every_) sync();
}

// The journal never says more than what is on the disk. Waiting for the disk takes a twentieth of a run at most, unless
// that would lose more than a second's work.
void ResumableArray::sync() {
  using namespace std::chrono_literals;
  const auto begin = std::chrono::steady_clock::now();
  if (fdatasync(array_) != 0 && errno != EINVAL) fail_to("write", partial());
  write_all(journal_, journal(), size_of_file(journal_), pending_.data(), pending_.size());
  pending_.clear();
  last_sync_ = std::chrono::steady_clock::now();
  sync_every_ = std::clamp<std::chrono::steady_clock::duration>(20 * (last_sync_ - begin), 50ms, 1s);
}

void ResumableArray::finish() {
  CHECK(rows_done_ == dims_[0], "{}: {} of {} rows are done", path_, rows_done_, dims_[0]);
  sync();
  if (rename(partial().c_str(), path_.c_str()) != 0) fail_to("write", path_);
  unlink(journal().c_str());
  finished_ = true;
  close_files();
}

}  // namespace switchback
