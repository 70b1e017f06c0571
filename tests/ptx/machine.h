// Runs kernels from their PTX on the CPU: warps of 32 lanes in lockstep, those with the lowest place in the program
// first (so that they meet again where branches join), until all wait at the block's barrier.
//
// Checked are: bounds and alignment of every access, against the emulated runtime's allocations; races in shared memory
// (the emulator's record); registers and shared memory that nobody wrote; asynchronous copies, which arrive at their
// wait and not before; warp operations and barriers that not all lanes reach; the parameters' layout.
// Not modelled: NaNs' payloads (NVIDIA's are 0x7fffffff), caches, the order of memory accesses among blocks.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "kernels/emulator/machine.h"
#include "tests/ptx/kernel.h"

namespace switchback::ptx {

// Where shared, local and parameter memory lie among generic addresses, far from any of the host's.
inline constexpr uint64_t kSharedWindow = uint64_t{1} << 60, kLocalWindow = uint64_t{2} << 60,
                          kParameterWindow = uint64_t{3} << 60;

struct Group {  // lanes at one place of the program
  uint32_t at, lanes;
  bool waits;  // for other lanes of the warp, to join them in a warp operation
};

struct AsyncCopy {
  uint32_t lane, group, to, bytes, read;  // `read` bytes come from memory, the rest are zeros
  const char* from;
};

struct Launch {
  const Kernel* kernel = nullptr;
  uint32_t grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
  uint32_t shared_bytes = 0;
  std::vector<char> parameters;
  std::string name;  // for faults: op and shape
};

struct Warp {
  const Launch* launch = nullptr;
  uint32_t first_thread = 0, exist = 0;  // lanes that the block has
  uint32_t alive = 0;                    // of these, those that have not ended
  bool at_barrier = false;
  std::vector<Group> groups;  // the running one is the last
  char* file = nullptr;       // registers
  std::vector<char> file_memory, local;
  std::vector<uint32_t> predicates, defined;
  std::vector<AsyncCopy> copies;
  uint32_t copy_groups[kLanes] = {};
  emulator::Warp record;  // what the emulator's search for races knows of a warp

  template <typename T>
  T* lanes(const Register& r) const {
    return reinterpret_cast<T*>(file + r.offset);
  }
  uint32_t& predicate(const Register& r) { return predicates[r.offset]; }
};

// Runs all blocks. Throws Error on a fault. Returns how many instructions lanes have executed.
uint64_t run(const Launch& launch);

// For the operations: ends the launch.
[[noreturn]] void fault(const std::string& what);
// Addresses of an access, a lane each, to where the host has them; checked. `write` is for the record of races.
void locate(Warp& warp, const Instruction& i, uint32_t lanes, bool write, char* (&at)[kLanes]);
void commit_copies(Warp& warp, uint32_t lanes);
void wait_for_copies(Warp& warp, uint32_t lanes, uint32_t in_flight);
void copy_async(Warp& warp, const Instruction& i, uint32_t lanes);
// Of shared memory: 16 bytes a lane of ldmatrix.
const char* shared_row(Warp& warp, uint32_t lane, uint32_t byte);

template <typename F>
inline void for_lanes(uint32_t lanes, const F& f) {
  if (lanes == ~0u) {
    for (uint32_t l = 0; l < kLanes; ++l) f(l);
  } else {
    for (; lanes; lanes &= lanes - 1) f(uint32_t(__builtin_ctz(lanes)));
  }
}

}  // namespace switchback::ptx
