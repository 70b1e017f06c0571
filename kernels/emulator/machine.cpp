#include "kernels/emulator/machine.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <exception>
#include <utility>

#include "kernels/check.h"
#include "kernels/emulator/fiber.h"

namespace switchback::emulator {

Machine machine;

namespace {

alignas(128) unsigned char shared_memory[kMaxShared];
const std::vector<uint32_t>& poisoned() {
  static const std::vector<uint32_t> words(kMaxShared / 4, kPoison);
  return words;
}
Cell word_cells[kMaxShared / 4];
Cell byte_cells[kMaxShared];

[[noreturn]] void fiber_main();

// What the machine keeps beside the part that kernels reach.
struct State {
  Warp warps[kMaxWarps];
  Thread threads[kMaxThreads];
  uint32_t thread_count = 0, warp_count = 0;
  uint32_t alive = 0;       // threads of the block that have not ended
  uint32_t at_barrier = 0;  // of these, how many wait there
  const Grid* grid = nullptr;
  Schedule schedule;
  uint64_t random = 1;
  Fiber host;
  Fiber* running = nullptr;  // null: no block runs
  FiberPool pool{fiber_main};
  std::string fault;
};
State state;

uint32_t next_random() {  // xorshift64*
  uint64_t& x = state.random;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  return uint32_t(x * 0x2545f4914f6cdd1dull >> 32);
}

void advance_clock() {
  machine.now += 1u << kWhoBits;
  if (machine.now < kSplit - 2 * (kWho + 1)) return;
  // Once in two million: forget all, and with it races across this very moment.
  std::memset(static_cast<void*>(word_cells), 0, sizeof word_cells);
  for (Warp& warp : state.warps) forget_syncs(warp);
  machine.now = machine.barrier = 1u << kWhoBits;
}

// ---- the schedule ----

int pick_lane(const Warp& warp) {
  switch (state.schedule.order) {
    case Order::forward: return std::countr_zero(warp.runnable);
    case Order::reverse: return kWarpSize - 1 - std::countl_zero(warp.runnable);
    case Order::random: break;
  }
  const int turn = int(next_random() % kWarpSize);
  return (std::countr_zero(std::rotr(warp.runnable, turn)) + turn) % kWarpSize;
}

// The thread that runs next, or -1 where none can. A warp goes on until all of its lanes wait or have ended, but in
// random order warps take turns at every point.
int pick_thread() {
  const Order order = state.schedule.order;
  const uint32_t warps = state.warp_count;
  if (order != Order::random && machine.warp->runnable)
    return int(machine.warp - state.warps) * kWarpSize + pick_lane(*machine.warp);
  const uint32_t first = order == Order::random ? next_random() % warps : 0;
  for (uint32_t i = 0; i < warps; ++i) {
    const uint32_t w = order == Order::reverse ? warps - 1 - i : (first + i) % warps;
    if (state.warps[w].runnable) return int(w) * kWarpSize + pick_lane(state.warps[w]);
  }
  return -1;
}

void set_running(uint32_t thread) {
  machine.thread = thread;
  machine.lane = thread % kWarpSize;
  machine.warp = &state.warps[thread / kWarpSize];
  machine.warp->runnable &= ~(1u << machine.lane);
  machine.thread_index = state.threads[thread].index;
}

void go_to(Fiber& fiber) {
  Fiber& from = *state.running;
  state.running = &fiber;
  switch_fiber(from, fiber);
}

void resume(uint32_t thread) {
  set_running(thread);
  Fiber* fiber = state.threads[thread].fiber;
  go_to(fiber ? *fiber : *state.pool.take());
}

struct Fault {
  std::string what;
};

std::string describe(const std::string& what) {
  const uint3 t = state.threads[machine.thread].index, b = machine.block_index;
  return fmt::format("emulated GPU: {}: block ({},{},{}), thread ({},{},{}): {}", state.grid->name, b.x, b.y, b.z, t.x,
                     t.y, t.z, what);
}

std::string doing(uint32_t thread) {
  if (thread >= state.thread_count) return "does not exist";
  const Warp& warp = state.warps[thread / kWarpSize];
  const uint32_t lane = thread % kWarpSize, bit = 1u << lane;
  if (!(warp.alive & bit)) return "has ended";
  if (warp.at_barrier & bit) return "waits at __syncthreads";
  if (warp.meeting & bit)
    return fmt::format("waits in {} of lanes {:#x}", warp.waiting[lane].op->name, warp.waiting[lane].mask);
  return "runs";
}

// No thread can go on, but some have not ended.
[[noreturn]] void deadlock() {
  for (uint32_t w = 0; w < state.warp_count; ++w) {
    const Warp& warp = state.warps[w];
    if (!warp.meeting) continue;
    const uint32_t lane = uint32_t(std::countr_zero(warp.meeting));
    const uint32_t missing = w * kWarpSize + uint32_t(std::countr_zero(warp.waiting[lane].mask & ~warp.meeting));
    machine.thread = w * kWarpSize + lane;
    fault(fmt::format("divergent warp operation: {} of lanes {:#x}, but lane {} {}", warp.waiting[lane].op->name,
                      warp.waiting[lane].mask, missing % kWarpSize, doing(missing)));
  }
  uint32_t ended = 0;
  for (uint32_t t = 0; t < state.thread_count; ++t) {
    const bool waits = state.warps[t / kWarpSize].at_barrier >> t % kWarpSize & 1;
    (waits ? machine.thread : ended) = t;
  }
  fault(fmt::format("divergent __syncthreads: {} of {} threads wait there; thread {} of the block {}", state.at_barrier,
                    state.thread_count, ended, doing(ended)));
}

// The running thread waits until another makes it runnable.
void block() {
  state.threads[machine.thread].fiber = state.running;
  const int next = pick_thread();
  if (next < 0) deadlock();
  resume(uint32_t(next));
}

void end_thread() {
  Thread& thread = state.threads[machine.thread];
  if (!thread.copies.empty()) fault(fmt::format("{} asynchronous copies were never waited for", thread.copies.size()));
  thread.fiber = nullptr;
  thread.groups = 0;
  machine.warp->alive &= ~(1u << machine.lane);
  --state.alive;
}

// Runs threads from their beginning to their end, one after the other. Gives the thread to go on with, which waits on
// another fiber, or -1 when the block is over.
int run_threads() {
  try {
    for (;;) {
      (*state.grid->body)();
      end_thread();
      const int next = pick_thread();
      if (next < 0 && state.alive) deadlock();
      if (next < 0 || state.threads[next].fiber) return next;
      set_running(uint32_t(next));
    }
  } catch (const Fault& f) {
    state.fault = f.what;
  } catch (const std::exception& e) {
    state.fault = describe(fmt::format("exception in a kernel: {}", e.what()));
  }
  return -1;
}

void fiber_main() {
  entered_fiber(state.host);
  for (;;) {
    const int next = run_threads();
    state.pool.put(state.running);
    if (next < 0) go_to(state.host);
    else resume(uint32_t(next));
  }
}

void run_block() {
  for (uint32_t w = 0; w < state.warp_count; ++w) {
    const uint32_t lanes = std::min<uint32_t>(kWarpSize, state.thread_count - w * kWarpSize);
    Warp& warp = state.warps[w];
    warp.alive = warp.runnable = lanes == kWarpSize ? ~0u : (1u << lanes) - 1;
    warp.meeting = warp.at_barrier = 0;
  }
  state.alive = state.thread_count;
  state.at_barrier = 0;
  begin_block(uint32_t(state.grid->shared));

  machine.warp = &state.warps[0];
  state.running = &state.host;
  resume(uint32_t(pick_thread()));
  state.running = nullptr;
  if (state.fault.empty()) return;

  for (Thread& thread : state.threads) {
    thread.fiber = nullptr;
    thread.groups = 0;
    thread.copies.clear();
  }
  state.pool.reset();
  throw Error(std::exchange(state.fault, {}));
}

void number_threads(dim3 block) {
  uint32_t t = 0;
  for (unsigned z = 0; z < block.z; ++z)
    for (unsigned y = 0; y < block.y; ++y)
      for (unsigned x = 0; x < block.x; ++x) state.threads[t++].index = {x, y, z};
}

}  // namespace

// Thrown on the running fiber only; what waits on others is abandoned (kernels own nothing).
void fault(const std::string& what) {
  if (!state.running) throw Error("emulated GPU: " + what);
  throw Fault{describe(what)};
}

void block_barrier() {
  machine.warp->at_barrier |= 1u << machine.lane;
  if (++state.at_barrier < state.thread_count) return block();
  for (uint32_t w = 0; w < state.warp_count; ++w) {
    Warp& warp = state.warps[w];
    warp.runnable |= warp.at_barrier;
    warp.at_barrier = 0;
  }
  machine.warp->runnable &= ~(1u << machine.lane);  // the last one to come just goes on
  state.at_barrier = 0;
  pass_block_barrier();
}

void begin_block(uint32_t shared_bytes) {
  machine.shared = shared_memory;
  machine.words = word_cells;
  machine.bytes = byte_cells;
  machine.shared_bytes = shared_bytes;
  std::memcpy(shared_memory, poisoned().data(), shared_bytes);
  pass_block_barrier();
}

void pass_block_barrier() {
  advance_clock();
  machine.barrier = machine.now;
}

void meet(const WarpOp& op, uint32_t mask, void* operand) {
  Warp& warp = *machine.warp;
  const uint32_t bit = 1u << machine.lane;
  if (!(mask & bit))
    fault(fmt::format("divergent warp operation: {} of lanes {:#x}, called by lane {}", op.name, mask, machine.lane));
  if (mask & ~warp.alive) {
    const uint32_t lane = uint32_t(std::countr_zero(mask & ~warp.alive));
    fault(fmt::format("divergent warp operation: {} of lanes {:#x}, but lane {} {}", op.name, mask, lane,
                      doing(machine.thread / kWarpSize * kWarpSize + lane)));
  }
  if (const uint32_t others = warp.meeting & mask) {
    const auto& other = warp.waiting[std::countr_zero(others)];
    if (other.op != &op || other.mask != mask)
      fault(fmt::format("divergent warp operation: {} of lanes {:#x}, but lane {} {}", op.name, mask,
                        std::countr_zero(others),
                        doing(machine.thread / kWarpSize * kWarpSize + uint32_t(std::countr_zero(others)))));
  }
  warp.waiting[machine.lane] = {&op, mask, operand};
  warp.meeting |= bit;
  if ((warp.meeting & mask) != mask) return block();
  op.combine(warp, mask);
  warp.meeting &= ~mask;
  warp.runnable |= mask & ~bit;
}

void sync_warp(uint32_t mask) {
  static constexpr WarpOp kOp{"__syncwarp", note_sync};
  meet(kOp, mask, nullptr);
}

void note_sync(Warp& warp, uint32_t lanes) {
  advance_clock();
  if (lanes == warp.alive) {
    warp.synced = machine.now;
    return;
  }
  for (uint32_t a = lanes; a; a &= a - 1)
    for (uint32_t b = lanes; b; b &= b - 1) warp.synced_pair[std::countr_zero(a)][std::countr_zero(b)] = machine.now;
}

void forget_syncs(Warp& warp) {
  warp.synced = 0;
  std::memset(warp.synced_pair, 0, sizeof warp.synced_pair);
}

// ---- asynchronous copies ----

namespace {

void complete(const AsyncCopy& copy) {
  record_write(copy.to, copy.bytes);
  if (copy.from) std::memcpy(shared_memory + copy.to, copy.from, copy.bytes);
  else std::memset(shared_memory + copy.to, 0, copy.bytes);
}

}  // namespace

void copy_async(uint32_t to, const void* from, uint32_t bytes, bool valid) {
  Thread& thread = state.threads[machine.thread];
  const AsyncCopy copy{to, bytes, thread.groups, valid ? from : nullptr};
  if (!state.schedule.deferred) {
    complete(copy);
    return;
  }
  // What lies there is lost from now on; what comes is there after the wait.
  record_write(to, bytes);
  for (uint32_t i = 0; i < bytes; i += 4) std::memcpy(shared_memory + to + i, &kPoison, 4);
  thread.copies.push_back(copy);
}

void copy_async_commit() { ++state.threads[machine.thread].groups; }

void copy_async_wait(uint32_t groups_in_flight) {
  Thread& thread = state.threads[machine.thread];
  size_t done = 0;
  while (done < thread.copies.size() && thread.copies[done].group + groups_in_flight < thread.groups)
    complete(thread.copies[done++]);
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + ptrdiff_t(done));
}

// ---- a grid ----

void run_grid(const Grid& grid, const Schedule& schedule) {
  state.grid = &grid;
  state.schedule = schedule;
  state.random = schedule.seed * 0x9e3779b97f4a7c15ull | 1;
  state.thread_count = grid.block.x * grid.block.y * grid.block.z;
  state.warp_count = (state.thread_count + kWarpSize - 1) / kWarpSize;
  number_threads(grid.block);
  machine.grid_dim = grid.grid;
  machine.block_dim = grid.block;

  const uint64_t nx = grid.grid.x, ny = grid.grid.y, blocks = nx * ny * grid.grid.z;
  // In random order, blocks come in steps of a prime: all of them once, far from forward order.
  const uint64_t step = blocks % 7919 ? 7919 : 7927, first = next_random() % blocks;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t b = schedule.order == Order::forward   ? i
                       : schedule.order == Order::reverse ? blocks - 1 - i
                                                          : (first + i * step) % blocks;
    machine.block_index = {unsigned(b % nx), unsigned(b / nx % ny), unsigned(b / nx / ny)};
    run_block();
  }
}

}  // namespace switchback::emulator
