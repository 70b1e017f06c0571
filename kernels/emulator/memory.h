// The emulated device's memory: allocations between canary zones, all of them known.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace switchback::emulator {

class DeviceMemory {
 public:
  void* allocate(size_t bytes);             // poisoned; null where there is no room
  bool contains(const void* p, size_t bytes) const;  // inside one allocation
  // The same, quicker where accesses go to few allocations.
  bool contains_again(const void* p, size_t bytes);
  bool touches(const void* p) const;                 // anywhere in one, its canary zones included
  bool knows(void* p) const { return blocks_.count(static_cast<char*>(p)) != 0; }  // the beginning of one
  bool release(void* p);                    // false: something had been written beside it
  std::string damage();                     // says which canary zone was written, if any, and repairs it

  size_t capacity = size_t{1} << 30;        // of all allocations
  size_t used() const { return used_; }

  // Contents of all allocations, to go back to or to compare with.
  using Snapshot = std::vector<std::vector<char>>;
  void save(Snapshot& snapshot) const;
  void restore(const Snapshot& snapshot) const;
  // Empty: equal bit for bit. The signs of NaNs may be left out: the language leaves them to the compiler.
  std::string difference(const Snapshot& snapshot, bool signs_of_nans = true) const;

 private:
  std::map<char*, size_t> blocks_;  // beginning -> bytes
  size_t used_ = 0;
  struct {
    const char* begin = nullptr;
    size_t bytes = 0;
  } recent_[4];  // allocations that contains_again has found
  unsigned next_recent_ = 0;
};

DeviceMemory& device_memory();

}  // namespace switchback::emulator
