// The machine that runs a block: its threads as fibers, its barriers, its warps' meetings and its shared memory with
// the record of who touched which byte. Inline here is what kernels call all the time.
//
// A thread runs until it blocks or ends, on a fiber that the next thread then uses: threads that never block cost
// no switch. Which thread runs next is the schedule's choice (Order) at every such point.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/emulator/language.h"

#define threadIdx (::switchback::emulator::machine.thread_index)
#define blockIdx (::switchback::emulator::machine.block_index)
#define blockDim (::switchback::emulator::machine.block_dim)
#define gridDim (::switchback::emulator::machine.grid_dim)

namespace switchback::emulator {

using emulated::dim3;
using emulated::uint3;

inline constexpr int kMaxThreads = 1024, kWarpSize = 32, kMaxWarps = kMaxThreads / kWarpSize;
inline constexpr uint32_t kMaxShared = 160 << 10;   // bytes that a block can ask for
inline constexpr uint32_t kPoison = 0x7fc17fc1;     // NaN as f32 and as two bf16 or f16

struct Fiber;
struct Warp;

// An operation that the lanes of a mask do together; all give the same one. `combine` runs once they have met, with
// what each lane handed in.
struct WarpOp {
  const char* name;
  void (*combine)(Warp& warp, uint32_t mask);
};

struct Warp {
  uint32_t alive = 0;     // lanes that exist and have not ended
  uint32_t runnable = 0;  // lanes that could go on (not started, or met), the running one excepted
  uint32_t meeting = 0;   // lanes that wait in a warp operation
  uint32_t at_barrier = 0;
  struct {
    const WarpOp* op;
    uint32_t mask;
    void* operand;
  } waiting[kWarpSize];
  // __syncwarp orders memory. Accesses older than this (a Cell's number) come before all that the warp does now ...
  uint32_t synced = 0;
  uint32_t synced_pair[kWarpSize][kWarpSize] = {};  // ... and, after a sync of some lanes, between these pairs.
};

// Who touched a place in shared memory last: `clock << kWhoBits | who`. The clock advances at every barrier and
// __syncwarp, so that smaller numbers are older. A reader may also be several lanes of one warp, or of several warps.
inline constexpr int kWhoBits = 11;
inline constexpr uint32_t kWho = (1u << kWhoBits) - 1, kLanesOfWarp = kMaxThreads,
                          kManyWarps = kLanesOfWarp + kMaxWarps;
struct Cell {
  uint32_t write = 0, read = 0;
};
inline constexpr uint32_t kSplit = ~0u;  // in Cell::write of a word: its four bytes have cells of their own

// An asynchronous copy on its way.
struct AsyncCopy {
  uint32_t to, bytes, group;
  const void* from;  // null: zeros
};

struct Thread {
  uint3 index;
  Fiber* fiber = nullptr;  // where it waits; null before it has started
  uint32_t groups = 0;     // of asynchronous copies that it has committed
  std::vector<AsyncCopy> copies;
};

enum class Order { forward, reverse, random };

struct Machine {
  // The running thread.
  uint3 thread_index, block_index;
  dim3 block_dim, grid_dim;
  uint32_t thread = 0, lane = 0;
  Warp* warp = nullptr;

  // Shared memory and its record, a cell a word and, for split words, a cell a byte.
  unsigned char* shared = nullptr;
  uint32_t shared_bytes = 0;
  Cell* words = nullptr;
  Cell* bytes = nullptr;
  uint32_t now = 1u << kWhoBits;  // the clock, shifted
  uint32_t barrier = 0;           // accesses older than this lie before the last block barrier
};
extern Machine machine;

// Ends the launch: the running block is abandoned and launch() throws Error. Says which block and thread it was.
[[noreturn]] void fault(const std::string& what);

void block_barrier();
// Blocks until all lanes of `mask` are here. `operand` is this lane's part; it may point to the caller's stack.
void meet(const WarpOp& op, uint32_t mask, void* operand);

void slow_read(Cell& cell, uint32_t byte);
void slow_write(Cell& cell, uint32_t byte);
void read_bytes(uint32_t byte, uint32_t count);
void write_bytes(uint32_t byte, uint32_t count);

inline void note_read(Cell& cell, uint32_t byte) {
  Machine& m = machine;
  if (cell.write >= m.barrier && (cell.write & kWho) != m.thread) return slow_read(cell, byte);
  const uint32_t reader = cell.read & kWho;
  if (cell.read < m.barrier || reader == m.thread) cell.read = m.now | m.thread;
  else if (reader != kManyWarps) slow_read(cell, byte);
}
inline void note_write(Cell& cell, uint32_t byte) {
  Machine& m = machine;
  if ((cell.write >= m.barrier && (cell.write & kWho) != m.thread) ||
      (cell.read >= m.barrier && (cell.read & kWho) != m.thread))
    return slow_write(cell, byte);
  cell = {m.now | m.thread, 0};
}

// Every access to shared memory passes one of these two. Races are found per byte; whole words are the fast way.
inline void record_read(uint32_t byte, uint32_t count) {
  if ((byte | count) & 3) return read_bytes(byte, count);
  for (uint32_t i = 0; i < count; i += 4) note_read(machine.words[(byte + i) / 4], byte + i);
}
inline void record_write(uint32_t byte, uint32_t count) {
  if ((byte | count) & 3) return write_bytes(byte, count);
  for (uint32_t i = 0; i < count; i += 4) note_write(machine.words[(byte + i) / 4], byte + i);
}

// Wide accesses to global memory: aligned, and inside an allocation if they are near one (else it is a local array).
void check_global(const char* what, const void* p, size_t bytes);

// Asynchronous copies into shared memory.
void copy_async(uint32_t to, const void* from, uint32_t bytes, bool valid);
void copy_async_commit();
void copy_async_wait(uint32_t groups_in_flight);

// For what runs blocks in another way (tests/ptx), and keeps the same record of who touched which byte: a block begins,
// with poisoned shared memory; its threads pass a barrier; lanes of a warp pass a __syncwarp.
void begin_block(uint32_t shared_bytes);
void pass_block_barrier();
void note_sync(Warp& warp, uint32_t lanes);
void forget_syncs(Warp& warp);

// One run of a grid. Throws Error on a fault.
struct Grid {
  dim3 grid, block;
  size_t shared = 0;
  const std::function<void()>* body = nullptr;  // what each thread runs
  std::string name;                             // for faults: op and shape
};
struct Schedule {
  Order order = Order::forward;
  bool deferred = true;  // asynchronous copies take place at the wait, else at once
  uint64_t seed = 1;
};
void run_grid(const Grid& grid, const Schedule& schedule);

}  // namespace switchback::emulator
