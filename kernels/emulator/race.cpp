// Races in shared memory: two threads touch a byte, one of them writing, with no barrier between (and, within a warp,
// no __syncwarp). Found by the order of synchronisation, not by luck: any schedule finds them. Shuffles, votes and
// tensor core operations do not order memory (CUDA C++ Programming Guide, "Warp Vote Functions").
#include <fmt/format.h>

#include <algorithm>

#include "kernels/emulator/machine.h"
#include "kernels/emulator/shared.h"

namespace switchback::emulator {
namespace {

// Is an access (a Cell's number) before all that the running thread does now?
bool ordered(uint32_t access) {
  const uint32_t who = access & kWho, warp = machine.thread / kWarpSize;
  if (access < machine.barrier || who == machine.thread) return true;
  if (who < kMaxThreads) {
    if (who / kWarpSize != warp) return false;
    return access < std::max(machine.warp->synced, machine.warp->synced_pair[machine.lane][who % kWarpSize]);
  }
  return who == kLanesOfWarp + warp && access < machine.warp->synced;
}

std::string name_of(uint32_t access) {
  const uint32_t who = access & kWho;
  if (who < kMaxThreads) return fmt::format("thread {}", who);
  if (who < kManyWarps) return fmt::format("several lanes of warp {}", who - kLanesOfWarp);
  return "several warps";
}

[[noreturn]] void race(const char* now, const char* before, uint32_t access, uint32_t byte) {
  fault(fmt::format(
      "shared-memory race: {} byte {}, which {} {} with no barrier between (this is thread {} of the block)", now, byte,
      name_of(access), before, machine.thread));
}

void read_cell(Cell& cell, uint32_t byte) {
  if (!ordered(cell.write)) race("reads", "wrote", cell.write, byte);
  const uint32_t reader = cell.read & kWho, lanes = kLanesOfWarp + machine.thread / kWarpSize;
  if (reader == kManyWarps && cell.read >= machine.barrier) return;
  if (ordered(cell.read)) {
    cell.read = machine.now | machine.thread;
  } else {
    const bool same_warp = reader == lanes || reader / kWarpSize == machine.thread / kWarpSize;
    cell.read = machine.now | (same_warp ? lanes : kManyWarps);
  }
}

void write_cell(Cell& cell, uint32_t byte) {
  if (!ordered(cell.write)) race("writes", "wrote", cell.write, byte);
  if (!ordered(cell.read)) race("writes", "read", cell.read, byte);
  cell = {machine.now | machine.thread, 0};
}

Cell* split(uint32_t word) {
  Cell& cell = machine.words[word];
  Cell* bytes = machine.bytes + 4 * word;
  if (cell.write != kSplit) {
    std::fill_n(bytes, 4, cell);
    cell.write = kSplit;
  }
  return bytes;
}

}  // namespace

void slow_read(Cell& cell, uint32_t byte) {
  if (cell.write != kSplit) return read_cell(cell, byte);
  for (uint32_t i = 0; i < 4; ++i) read_cell(machine.bytes[byte + i], byte + i);
}

void slow_write(Cell& cell, uint32_t byte) {
  if (cell.write == kSplit) {  // the whole word is written: it is one again
    for (uint32_t i = 0; i < 4; ++i) write_cell(machine.bytes[byte + i], byte + i);
    cell = machine.bytes[byte];
  } else {
    write_cell(cell, byte);
  }
}

void read_bytes(uint32_t byte, uint32_t count) {
  for (uint32_t i = byte; i < byte + count; ++i) read_cell(split(i / 4)[i % 4], i);
}

void write_bytes(uint32_t byte, uint32_t count) {
  for (uint32_t i = byte; i < byte + count; ++i) write_cell(split(i / 4)[i % 4], i);
}

void out_of_bounds(int64_t index, int64_t count, size_t element_bytes, size_t bytes) {
  fault(fmt::format("shared memory out of bounds: {} bytes at element {} of {} ({} bytes each)", bytes, index, count,
                    element_bytes));
}

void misaligned(const char* what, uint64_t address, size_t bytes) {
  fault(fmt::format("misaligned access: {}: address {:#x} is no multiple of {}", what, address, bytes));
}

void check_region(int64_t offset, int64_t bytes, size_t alignment) {
  if (offset < 0 || bytes < 0 || offset + bytes > int64_t(machine.shared_bytes))
    fault(fmt::format("shared memory out of bounds: an array of {} bytes at byte {} of {}", bytes, offset,
                      machine.shared_bytes));
  if (offset % int64_t(alignment)) misaligned("an array in shared memory", uint64_t(offset), alignment);
}

}  // namespace switchback::emulator
