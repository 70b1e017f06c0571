// A launch under the emulator: once in forward order, or, to find results that depend on the order of threads or on
// when asynchronous copies arrive, three times: forward with copies at once, backward and shuffled with copies at the
// wait. All must leave the same bits in all of the device's memory.
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "kernels/device/cuda.cuh"
#include "kernels/emulator/emulated.h"
#include "kernels/emulator/memory.h"

namespace switchback {
namespace emulator {
namespace {

// Bytes of device memory in use: with more, launches are not repeated (a millisecond for each megabyte).
constexpr size_t kMostCompared = size_t{64} << 20, kMostComparedAutomatically = size_t{16} << 20;
constexpr int kAutomaticRepeats = 2;  // of each signature

struct Signature {
  const void* kernel;
  unsigned grid[3], block[3];
  size_t shared;
  auto operator<=>(const Signature&) const = default;
};

struct Launches {
  std::recursive_mutex mutex;  // one launch at a time
  EmulatorMode mode = EmulatorMode::automatic;
  std::map<Signature, int> seen;
  int64_t count = 0;
};
Launches launches;

EmulatorMode mode() {
  if (launches.mode != EmulatorMode::automatic) return launches.mode;
  static const char* chosen = std::getenv("SWITCHBACK_EMULATOR");
  if (chosen && !std::strcmp(chosen, "quick")) return EmulatorMode::quick;
  if (chosen && !std::strcmp(chosen, "thorough")) return EmulatorMode::thorough;
  return EmulatorMode::automatic;
}

bool repeated(const Grid& grid, const void* kernel) {
  if (mode() == EmulatorMode::quick) return false;
  if (mode() == EmulatorMode::thorough) return device_memory().used() <= kMostCompared;
  if (device_memory().used() > kMostComparedAutomatically) return false;
  const Signature signature{
      kernel, {grid.grid.x, grid.grid.y, grid.grid.z}, {grid.block.x, grid.block.y, grid.block.z}, grid.shared};
  return launches.seen[signature]++ < kAutomaticRepeats;
}

void run_checked(const Grid& grid, const Schedule& schedule) {
  run_grid(grid, schedule);
  const std::string damage = device_memory().damage();
  if (!damage.empty()) fail("emulated GPU: {}: wrote out of bounds: {}", grid.name, damage);
}

void run(const Grid& grid, const void* kernel) {
  const std::lock_guard lock(launches.mutex);
  ++launches.count;
  if (!repeated(grid, kernel)) return run_checked(grid, {});

  static DeviceMemory::Snapshot before, after;  // kept: fresh pages cost more than the copies
  device_memory().save(before);
  run_checked(grid, {.order = Order::forward, .deferred = false});
  device_memory().save(after);
  for (const Order order : {Order::reverse, Order::random}) {
    device_memory().restore(before);
    run_checked(grid, {.order = order, .deferred = true, .seed = uint64_t(launches.count)});
    const std::string difference = device_memory().difference(after);
    if (!difference.empty())
      fail("emulated GPU: {}: the result depends on the order of threads or copies: {} differs in {} order", grid.name,
           difference, order == Order::reverse ? "reverse" : "random");
  }
}

}  // namespace
}  // namespace emulator

void set_emulator_mode(EmulatorMode mode) { emulator::launches.mode = mode; }
void set_emulator_memory(size_t bytes) { emulator::device_memory().capacity = bytes; }
int64_t emulator_launches() { return emulator::launches.count; }

namespace emulated {

void launch_body(Context& ctx, const Launch& l, const void* kernel, std::vector<KernelArgument> arguments,
                 std::function<void()> body) {
  const std::string name = fmt::format("{} [{},{},{},{}]", l.op, l.shape.n, l.shape.c, l.shape.h, l.shape.w);
  const dim3 g = l.grid, b = l.block;
  CHECK(g.x > 0 && g.y > 0 && g.z > 0 && g.x < 1u << 31 && g.y < 65536 && g.z < 65536, "{}: grid {}x{}x{}", name, g.x,
        g.y, g.z);
  CHECK(b.x > 0 && b.y > 0 && b.z > 0 && b.z <= 64 && uint64_t(b.x) * b.y * b.z <= emulator::kMaxThreads,
        "{}: block {}x{}x{}", name, b.x, b.y, b.z);
  CHECK(l.shared <= emulator::kMaxShared, "{}: {} bytes of shared memory, of {}", name, l.shared, emulator::kMaxShared);
  std::function<void()> emulate = [=, shared = l.shared, body = std::move(body)] {
    emulator::run({g, b, shared, &body, name}, kernel);
  };
  const KernelExecutor executor = kernel_executor(stream_of(ctx));
  if (!executor) return enqueue(stream_of(ctx), cudaGraphNodeTypeKernel, std::move(emulate));
  KernelCall call{kernel, name, g, b, l.shared, std::move(arguments), std::move(emulate)};
  enqueue(stream_of(ctx), cudaGraphNodeTypeKernel, [executor, call = std::move(call)] { executor(call); });
}

}  // namespace emulated
}  // namespace switchback
