#include "tests/ptx/machine.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/check.h"
#include "kernels/emulator/memory.h"

namespace switchback::ptx {
namespace {

using Kind = Instruction::Kind;

constexpr uint64_t kEndless = uint64_t{1} << 32;  // instructions of a warp in one block: more is a loop without end

struct State {
  const Launch* launch = nullptr;
  std::vector<Warp> warps;
  uint32_t block[3] = {};
  Warp* warp = nullptr;  // the running one
  const Instruction* instruction = nullptr;
  uint32_t lanes = 0;  // of the running instruction
  uint64_t executed = 0;
};
State state;

void fill(char* to, uint32_t bytes, uint64_t bits) {
  for (uint32_t l = 0; l < kLanes; ++l) std::memcpy(to + l * bytes, &bits, bytes);
}

// Of a launch: register files, with what never changes in them.
void prepare(Warp& warp, const Launch& launch, uint32_t number, uint32_t threads) {
  const Kernel& kernel = *launch.kernel;
  warp.launch = &launch;
  warp.first_thread = number * kLanes;
  const uint32_t lanes = std::min(kLanes, threads - warp.first_thread);
  warp.exist = lanes == kLanes ? ~0u : (1u << lanes) - 1;
  if (warp.file_memory.size() < kernel.file_bytes + 64) warp.file_memory.resize(kernel.file_bytes + 64);
  warp.file = warp.file_memory.data() + (64 - reinterpret_cast<uintptr_t>(warp.file_memory.data()) % 64) % 64;
  warp.predicates.assign(kernel.predicates, 0);
  warp.local.resize(size_t(kernel.local_bytes) * kLanes);
  for (const Kernel::Constant& c : kernel.constants) fill(warp.file + c.offset, c.bytes, c.bits);
  const auto special = [&](Special s) { return reinterpret_cast<uint32_t*>(warp.file) + s * kLanes; };
  for (uint32_t l = 0; l < kLanes; ++l) {
    const uint32_t t = warp.first_thread + l, nx = launch.block[0], ny = launch.block[1];
    special(laneid)[l] = l;
    special(tid_x)[l] = t % nx;
    special(tid_y)[l] = t / nx % ny;
    special(tid_z)[l] = t / nx / ny;
    for (uint32_t i = 0; i < 3; ++i) {
      special(Special(ntid_x + i))[l] = launch.block[i];
      special(Special(nctaid_x + i))[l] = launch.grid[i];
    }
  }
}

void begin(Warp& warp) {
  const Kernel& kernel = *warp.launch->kernel;
  warp.alive = warp.exist;
  warp.at_barrier = false;
  warp.groups.assign(1, {0, warp.exist, false});
  warp.defined.assign(kernel.registers, 0);
  for (size_t i = 0; i + 4 <= warp.local.size(); i += 4) std::memcpy(&warp.local[i], &emulator::kPoison, 4);
  warp.copies.clear();
  std::fill_n(warp.copy_groups, kLanes, 0);
  warp.record.alive = warp.exist;
  emulator::forget_syncs(warp.record);
  for (uint32_t i = 0; i < 3; ++i) fill(warp.file + (ctaid_x + i) * kLanes * 4, 4, state.block[i]);
}

std::string lanes_text(uint32_t lanes) { return fmt::format("{:#010x}", lanes); }

// The lanes whose result means nothing, since the instruction reads what nobody has written. Compilers compute such
// results and then choose others (selp), which is fine: a fault is what depends on them.
uint32_t undefined_lanes(Warp& warp, const Instruction& i, uint32_t lanes) {
  const int32_t* ids = warp.launch->kernel->uses.data() + i.reads;
  uint32_t missing = 0;
  for (uint32_t n = 0; n < i.read_count; ++n) missing |= ~warp.defined[size_t(ids[n])];
  missing &= lanes;
  if (missing == 0) return 0;
  if (i.strict) {
    state.lanes = missing;
    fault("reads a register that nobody has written");
  }
  if (i.chooses) {
    const auto defined = [&](const Register& r) { return r.id < 0 ? ~0u : warp.defined[size_t(r.id)]; };
    const uint32_t p = warp.predicate(i.c);
    missing = lanes & ~(defined(i.c) & ((p & defined(i.a)) | (~p & defined(i.b))));
  }
  return missing;
}

void note_written(Warp& warp, const Instruction& i, uint32_t lanes, uint32_t undefined) {
  const int32_t* ids = warp.launch->kernel->uses.data() + i.reads + i.read_count;
  for (uint32_t n = 0; n < i.write_count; ++n) {
    uint32_t& defined = warp.defined[size_t(ids[n])];
    defined = (defined | lanes) & ~undefined;
  }
}

// Joins groups at the same place and puts the one at the lowest place that does not wait last. False: all wait.
bool choose(Warp& warp) {
  auto& groups = warp.groups;
  for (size_t i = 0; i < groups.size(); ++i)
    for (size_t j = groups.size(); --j > i;)
      if (groups[i].at == groups[j].at) {
        groups[i].lanes |= groups[j].lanes;
        groups[i].waits = false;
        groups.erase(groups.begin() + ptrdiff_t(j));
      }
  size_t best = groups.size();
  for (size_t i = 0; i < groups.size(); ++i)
    if (!groups[i].waits && (best == groups.size() || groups[i].at < groups[best].at)) best = i;
  if (best == groups.size()) return false;
  std::swap(groups[best], groups.back());
  return true;
}

// Where the running group has to stop and look for others.
uint32_t nearest_other(const Warp& warp) {
  uint32_t limit = std::numeric_limits<uint32_t>::max();
  for (size_t i = 0; i + 1 < warp.groups.size(); ++i) limit = std::min(limit, warp.groups[i].at);
  return limit;
}

[[noreturn]] void divergent(Warp& warp) {
  const Group& group = warp.groups.front();
  state.instruction = &warp.launch->kernel->code[group.at];
  state.lanes = group.lanes;
  fault(fmt::format("divergent: lanes {} are here, of {}", lanes_text(group.lanes), lanes_text(warp.exist)));
}

void end_lanes(Warp& warp, uint32_t lanes) {
  for (const AsyncCopy& copy : warp.copies)
    if (lanes >> copy.lane & 1) fault("ends with asynchronous copies that were never waited for");
  warp.alive &= ~lanes;
  warp.record.alive = warp.alive;
}

// The lanes that a warp operation needs together: those of its mask, or all.
uint32_t wanted_lanes(Warp& warp, const Instruction& i, uint32_t lanes) {
  if (i.kind == Kind::barrier || i.d.bytes == 0) return warp.exist;
  const uint32_t* masks = warp.lanes<uint32_t>(i.d);
  const uint32_t mask = masks[std::countr_zero(lanes)];
  for_lanes(lanes, [&](uint32_t l) {
    if (masks[l] != mask) fault("a warp operation whose lanes give different masks");
  });
  if (lanes & ~mask)
    fault(fmt::format("a warp operation of lanes {}, called by {}", lanes_text(mask), lanes_text(lanes)));
  return mask & warp.exist;
}

// Runs until the warp waits at the barrier or has ended.
void run_warp(Warp& warp) {
  const Instruction* code = warp.launch->kernel->code.data();
  state.warp = &warp;
  uint64_t steps = 0;
  while (!warp.groups.empty()) {
    if (!choose(warp)) divergent(warp);
    const uint32_t limit = nearest_other(warp);
    Group* group = &warp.groups.back();
    uint32_t at = group->at;
    const uint32_t all = group->lanes;
    for (bool stays = true; stays;) {
      const Instruction& i = code[at];
      uint32_t lanes = all;
      if (i.guarded) {
        state.instruction = &i;
        if (const uint32_t missing = lanes & ~warp.defined[size_t(i.guard.id)]) {
          state.lanes = missing;
          fault("is guarded by a predicate that nobody has written");
        }
        lanes &= i.guard_negated ? ~warp.predicate(i.guard) : warp.predicate(i.guard);
      }
      if (lanes == 0) {
        stays = ++at < limit;
        continue;
      }
      state.instruction = &i;
      state.lanes = lanes;
      state.executed += uint32_t(std::popcount(lanes));
      const uint32_t undefined = undefined_lanes(warp, i, lanes);
      switch (i.kind) {
        case Kind::plain:
          i.run(warp, i, lanes);
          note_written(warp, i, lanes, undefined);
          stays = ++at < limit;
          break;
        case Kind::branch:
          if (++steps > kEndless) fault("a loop without end");
          if (lanes == all) {
            stays = i.target < limit;
            at = i.target;
          } else {
            group->lanes = all & ~lanes;
            group->at = at + 1;
            warp.groups.push_back({i.target, lanes, false});
            group = &warp.groups.back();
            at = i.target;
            stays = false;
          }
          break;
        case Kind::exit:
          end_lanes(warp, lanes);
          group->lanes &= ~lanes;
          ++at;
          stays = false;
          break;
        case Kind::barrier:
        case Kind::warp_operation: {
          const uint32_t wanted = wanted_lanes(warp, i, lanes);
          if (lanes != wanted) {
            group->waits = true;
            stays = false;
            break;
          }
          if (i.kind == Kind::barrier) {
            group->at = at + 1;
            warp.at_barrier = true;
            return;
          }
          i.run(warp, i, lanes);
          note_written(warp, i, lanes, undefined);
          stays = ++at < limit;
          break;
        }
      }
    }
    group->at = at;
    std::erase_if(warp.groups, [](const Group& g) { return g.lanes == 0; });
  }
}

void run_block() {
  const uint32_t shared = state.launch->shared_bytes;
  emulator::begin_block(shared);
  for (Warp& warp : state.warps) begin(warp);
  for (;;) {
    uint32_t waiting = 0;
    for (Warp& warp : state.warps) {
      warp.at_barrier = false;
      run_warp(warp);
      waiting += warp.at_barrier;
    }
    if (waiting == 0) return;
    if (waiting < state.warps.size()) {
      const auto waits =
          std::find_if(state.warps.begin(), state.warps.end(), [](const Warp& w) { return w.at_barrier; });
      state.warp = &*waits;
      state.instruction = &waits->launch->kernel->code[waits->groups.back().at - 1];
      state.lanes = waits->exist;
      fault(fmt::format("divergent barrier: {} of {} warps wait here, the others have ended", waiting,
                        state.warps.size()));
    }
    emulator::pass_block_barrier();
  }
}

}  // namespace

void fault(const std::string& what) {
  const Warp& warp = *state.warp;
  const Kernel& kernel = *warp.launch->kernel;
  const uint32_t lane = state.lanes ? uint32_t(std::countr_zero(state.lanes)) : 0;
  throw Error(fmt::format("PTX of {}: block ({},{},{}), thread {}: {}: `{}`, {}:{}, kernel {}", warp.launch->name,
                          state.block[0], state.block[1], state.block[2], warp.first_thread + lane, what,
                          kernel.instruction_text(state.instruction->line), kernel.file, state.instruction->line,
                          kernel.name));
}

uint64_t run(const Launch& launch) {
  const uint32_t threads = launch.block[0] * launch.block[1] * launch.block[2];
  state.launch = &launch;
  state.executed = 0;
  state.warps.resize((threads + kLanes - 1) / kLanes);
  for (uint32_t w = 0; w < state.warps.size(); ++w) prepare(state.warps[w], launch, w, threads);
  for (uint32_t z = 0; z < launch.grid[2]; ++z)
    for (uint32_t y = 0; y < launch.grid[1]; ++y)
      for (uint32_t x = 0; x < launch.grid[0]; ++x) {
        state.block[0] = x, state.block[1] = y, state.block[2] = z;
        try {
          run_block();
        } catch (const Error& e) {
          // The record of races knows nothing of PTX.
          if (const std::string what = e.what(); what.starts_with("emulated GPU: ")) fault(what.substr(14));
          throw;
        }
      }
  return state.executed;
}

// ---- memory ----

namespace {

void be_thread(const Warp& warp, uint32_t lane) {
  emulator::machine.thread = warp.first_thread + lane;
  emulator::machine.lane = lane;
}

// The same record serves all lanes of the running warp.
void note_shared(Warp& warp, uint32_t lane, uint32_t byte, uint32_t bytes, bool write) {
  emulator::machine.warp = &warp.record;
  be_thread(warp, lane);
  write ? emulator::record_write(byte, bytes) : emulator::record_read(byte, bytes);
}

[[noreturn]] void lane_fault(uint32_t lane, const std::string& what) {
  state.lanes = 1u << lane;
  fault(what);
}

char* shared_at(uint32_t lane, uint64_t byte, uint32_t bytes) {
  if (byte + bytes > state.launch->shared_bytes || byte + bytes < byte)
    lane_fault(lane, fmt::format("shared memory out of bounds: {} bytes at byte {} of {}", bytes, int64_t(byte),
                                 state.launch->shared_bytes));
  return reinterpret_cast<char*>(emulator::machine.shared) + byte;
}

char* global_at(uint32_t lane, uint64_t address, uint32_t bytes) {
  if (!emulator::device_memory().contains_again(reinterpret_cast<void*>(address), bytes))
    lane_fault(
        lane, fmt::format("global memory out of bounds: {} bytes at {:#x}, which is in no allocation", bytes, address));
  return reinterpret_cast<char*>(address);
}

char* inside(uint32_t lane, const char* begin, uint64_t size, uint64_t at, uint32_t bytes, const char* what) {
  if (at + bytes > size || at + bytes < at)
    lane_fault(lane, fmt::format("{} out of bounds: {} bytes at byte {} of {}", what, bytes, int64_t(at), size));
  return const_cast<char*>(begin) + at;
}

void check_aligned(uint32_t lane, uint64_t address, uint32_t bytes) {
  if (address & (bytes - 1)) lane_fault(lane, fmt::format("misaligned: {} bytes at {:#x}", bytes, address));
}

void addresses(const Warp& warp, const Instruction& i, const Register& base, uint64_t (&out)[kLanes]) {
  if (base.bytes == 8) {
    const uint64_t* b = warp.lanes<uint64_t>(base);
    for (uint32_t l = 0; l < kLanes; ++l) out[l] = b[l] + uint64_t(i.offset);
  } else {
    const uint32_t* b = warp.lanes<uint32_t>(base);
    for (uint32_t l = 0; l < kLanes; ++l) out[l] = uint32_t(b[l] + uint32_t(i.offset));
  }
}

Space space_of(uint64_t address) {
  if (address < kSharedWindow) return global;
  return address < kLocalWindow ? shared : address < kParameterWindow ? local : param;
}

}  // namespace

void locate(Warp& warp, const Instruction& i, uint32_t lanes, bool write, char* (&at)[kLanes]) {
  uint64_t address[kLanes];
  addresses(warp, i, i.a, address);
  const uint32_t bytes = uint32_t(i.bytes) * i.count;
  uint64_t low = std::numeric_limits<uint64_t>::max(), high = 0, bits = 0;
  for_lanes(lanes, [&](uint32_t l) {
    low = std::min(low, address[l]);
    high = std::max(high, address[l]);
    bits |= address[l];
  });
  if (bits & (bytes - 1)) for_lanes(lanes, [&](uint32_t l) { check_aligned(l, address[l], bytes); });
  // All lanes in one allocation, as nearly always.
  if ((i.space == global || i.space == generic) && high < kSharedWindow &&
      emulator::device_memory().contains_again(reinterpret_cast<void*>(low), size_t(high - low) + bytes)) {
    for (uint32_t l = 0; l < kLanes; ++l) at[l] = reinterpret_cast<char*>(address[l]);
    return;
  }
  for_lanes(lanes, [&](uint32_t l) {
    uint64_t place = address[l];
    Space space = Space(i.space);
    if (space == generic) {
      space = space_of(place);
      if (space == shared) place -= kSharedWindow;
      if (space == local) place -= kLocalWindow;
    }
    switch (space) {
      case shared:
        at[l] = shared_at(l, place, bytes);
        note_shared(warp, l, uint32_t(place), bytes, write);
        break;
      case local:
        at[l] = inside(l, warp.local.data() + size_t(l) * warp.launch->kernel->local_bytes,
                       warp.launch->kernel->local_bytes, place, bytes, "local memory");
        break;
      case param:
        if (write) lane_fault(l, "writes a parameter");
        at[l] = inside(l, warp.launch->parameters.data(), warp.launch->parameters.size(), place - kParameterWindow,
                       bytes, "parameters");
        break;
      default:
        at[l] = global_at(l, place, bytes);
    }
  });
}

const char* shared_row(Warp& warp, uint32_t lane, uint32_t byte) {
  check_aligned(lane, byte, 16);
  const char* row = shared_at(lane, byte, 16);
  note_shared(warp, lane, byte, 16, false);
  return row;
}

// ---- asynchronous copies: what they overwrite is lost at once, what they bring is there after the wait ----

void copy_async(Warp& warp, const Instruction& i, uint32_t lanes) {
  uint64_t to[kLanes];
  addresses(warp, i, i.a, to);
  const uint64_t* from = warp.lanes<uint64_t>(i.b);
  for_lanes(lanes, [&](uint32_t l) {
    const bool ignored = i.variant && warp.predicate(i.c) >> l & 1u;
    const uint32_t size = ignored ? 0 : i.c.bytes ? warp.lanes<uint32_t>(i.c)[l] : i.bytes;
    const uint64_t source = from[l] + uint64_t(int64_t(int32_t(i.target)));
    if (size > i.bytes) lane_fault(l, fmt::format("copies {} of {} bytes", size, i.bytes));
    check_aligned(l, to[l], i.bytes);
    check_aligned(l, source, i.bytes);
    char* place = shared_at(l, to[l], i.bytes);
    const char* origin = size ? global_at(l, source, size) : nullptr;
    note_shared(warp, l, uint32_t(to[l]), i.bytes, true);
    for (uint32_t b = 0; b < i.bytes; b += 4) std::memcpy(place + b, &emulator::kPoison, 4);
    warp.copies.push_back({l, warp.copy_groups[l], uint32_t(to[l]), i.bytes, size, origin});
  });
}

void commit_copies(Warp& warp, uint32_t lanes) {
  for_lanes(lanes, [&](uint32_t l) { ++warp.copy_groups[l]; });
}

void wait_for_copies(Warp& warp, uint32_t lanes, uint32_t in_flight) {
  size_t kept = 0;
  for (size_t n = 0; n < warp.copies.size(); ++n) {
    const AsyncCopy copy = warp.copies[n];
    if (!(lanes >> copy.lane & 1) || copy.group + in_flight >= warp.copy_groups[copy.lane]) {
      warp.copies[kept++] = copy;
      continue;
    }
    note_shared(warp, copy.lane, copy.to, copy.bytes, true);
    char* to = reinterpret_cast<char*>(emulator::machine.shared) + copy.to;
    std::memset(to, 0, copy.bytes);
    if (copy.read) std::memcpy(to, copy.from, copy.read);
  }
  warp.copies.resize(kept);
}

}  // namespace switchback::ptx
