#include "tests/fuzz/fuzz.h"

#include <sanitizer/allocator_interface.h>
#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

namespace switchback::fuzz {
namespace {

// What the reader under test holds. Only its own thread counts: libFuzzer has another one that watches the time.
struct Count {
  bool on = false;
  int64_t live = 0, most = 0, limit = 0;
  size_t file_bytes = 0;
};
thread_local Count counted;

struct Worst {
  int64_t bytes = 0, limit = 1;
  size_t file_bytes = 0;
} worst;

void on_allocation(const volatile void*, size_t bytes) {
  if (!counted.on) return;
  counted.live += int64_t(bytes);
  counted.most = std::max(counted.most, counted.live);
  if (counted.live <= counted.limit) return;
  counted.on = false;  // what follows allocates
  broken(__FILE__, __LINE__,
         fmt::format("{} bytes in use, the last {} asked for just now, for a file of {} bytes, which allows {}",
                     counted.live, bytes, counted.file_bytes, counted.limit));
}

void on_release(const volatile void* memory) {
  if (counted.on) counted.live -= int64_t(__sanitizer_get_allocated_size(const_cast<const void*>(memory)));
}

void say_worst() {
  fmt::print(stderr, "most memory, against its limit: {} of {} bytes for a file of {} bytes\n", worst.bytes,
             worst.limit, worst.file_bytes);
}

// Bytes that `read` did not give back.
int64_t run_counted(Allowance allowance, size_t file_bytes, const std::function<void()>& read) {
  counted = {true, 0, 0, allowance.times * int64_t(file_bytes) + allowance.plus, file_bytes};
  succeeds(read);
  counted.on = false;
  if (double(counted.most) / double(counted.limit) > double(worst.bytes) / double(worst.limit))
    worst = {counted.most, counted.limit, file_bytes};
  return counted.live;
}

void check_message(const Error& error) {
  for (const std::string_view line : {std::string_view(error.what()), std::string_view(error.hint)}) {
    const bool clean = std::none_of(line.begin(), line.end(), [](char c) { return uint8_t(c) < 0x20 || c == 0x7f; });
    if (!clean || line.size() > 2000) broken(__FILE__, __LINE__, fmt::format("not one printable line: {}", line));
  }
  PROMISED(error.what()[0] != '\0');
}

}  // namespace

void broken(const char* file, int line, const std::string& what) {
  fmt::print(stderr, "{}:{}: {}\n", file, line, what);
  std::abort();
}

MemoryFile::MemoryFile() : file_(memfd_create("input", MFD_CLOEXEC)) {
  PROMISED(file_ >= 0);
  path_ = fmt::format("/proc/self/fd/{}", file_);
}

const std::string& MemoryFile::put(std::string_view bytes) {
  PROMISED(ftruncate(file_, 0) == 0 && pwrite(file_, bytes.data(), bytes.size(), 0) == ssize_t(bytes.size()));
  return path_;
}

const std::string& work_folder() {
  struct Folder {
    std::string path = (std::filesystem::temp_directory_path() / "switchback-fuzz-XXXXXX").string();
    Folder() { PROMISED(mkdtemp(path.data())); }
    ~Folder() {
      std::error_code code;
      std::filesystem::remove_all(path, code);
    }
  };
  static const Folder folder;
  return folder.path;
}

bool succeeds(const std::function<void()>& read) {
  try {
    read();
    return true;
  } catch (const Error& e) {
    check_message(e);
    return false;
  }
}

void read_within(Allowance allowance, size_t file_bytes, const std::function<void()>& read) {
  static const bool hooked = [] {
    PROMISED(__sanitizer_install_malloc_and_free_hooks(on_allocation, on_release));
    std::atexit(say_worst);
    return true;
  }();
  (void)hooked;
  // What stays behind the first time may be made once and for all (a locale, a static table).
  if (run_counted(allowance, file_bytes, read) == 0) return;
  run_counted(allowance, file_bytes, read);
  const int64_t left = run_counted(allowance, file_bytes, read);
  if (left != 0) broken(__FILE__, __LINE__, fmt::format("{} bytes were not given back", left));
}

void touch(std::span<const std::byte> bytes) {
  [[maybe_unused]] static volatile uint32_t sink;
  uint32_t sum = 0;
  for (const std::byte b : bytes) sum += uint32_t(b);
  sink = sum;
}

}  // namespace switchback::fuzz

// A mapping reaches to the end of a page, the file does not: what lies between is forbidden, so that a reader that goes
// beyond its file is caught (the linker's --wrap leads here).
extern "C" {
void* __real_mmap(void*, size_t, int, int, int, off_t);
int __real_munmap(void*, size_t);

static size_t behind_the_end(size_t bytes) {
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  return (page - bytes % page) % page;
}
void* __wrap_mmap(void* place, size_t bytes, int protection, int flags, int file, off_t offset) {
  void* data = __real_mmap(place, bytes, protection, flags, file, offset);
  if (data != MAP_FAILED) ASAN_POISON_MEMORY_REGION(static_cast<char*>(data) + bytes, behind_the_end(bytes));
  return data;
}
int __wrap_munmap(void* data, size_t bytes) {
  ASAN_UNPOISON_MEMORY_REGION(static_cast<char*>(data) + bytes, behind_the_end(bytes));
  return __real_munmap(data, bytes);
}
}
