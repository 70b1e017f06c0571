#include "engine/run/memory.h"

#include <algorithm>
#include <fstream>
#include <numeric>

#include "kernels/check.h"
#include "kernels/device/device_ops.h"

namespace switchback {

size_t place(std::span<const Lifetime> buffers, List<size_t>& offsets) {
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return buffers[a].bytes > buffers[b].bytes; });
  offsets.assign(buffers.size(), kNowhere);
  size_t total = 0;
  std::vector<size_t> placed;
  for (size_t i : order) {
    const Lifetime& own = buffers[i];
    if (own.bytes == 0) continue;
    std::vector<std::pair<size_t, size_t>> taken;  // by what lives at the same time
    for (size_t j : placed)
      if (buffers[j].first <= own.last && own.first <= buffers[j].last)
        taken.emplace_back(offsets[int64_t(j)], offsets[int64_t(j)] + buffers[j].bytes);
    std::sort(taken.begin(), taken.end());
    size_t at = 0;
    for (const auto& [begin, end] : taken) {
      if (at + own.bytes <= begin) break;
      at = std::max(at, aligned(end));
    }
    offsets[int64_t(i)] = at;
    total = std::max(total, at + own.bytes);
    placed.push_back(i);
  }
  return total;
}

size_t free_memory() {
  std::ifstream info("/proc/meminfo");
  std::string word;
  size_t available = size_t(2) << 30;
  while (info >> word)
    if (word == "MemAvailable:" && info >> available) available *= 1024;
  std::ifstream limit_file("/sys/fs/cgroup/memory.max"), used_file("/sys/fs/cgroup/memory.current");
  size_t limit = 0, used = 0;
  if (limit_file >> limit && used_file >> used) available = std::min(available, limit > used ? limit - used : 0);
  return available;
}

size_t free_memory(Context& ctx) {
  return (ctx.gpu ? ctx.gpu->ops->free_memory(*ctx.gpu) : free_memory()) + ctx.arena.capacity() + ctx.scratch.capacity();
}

void fit(size_t limit, const std::string& what, const std::function<Trial()>& make,
         const std::function<bool(bool)>& smaller) {
  for (;;) {
    const Trial trial = make();
    if (trial.bytes > limit) {
      if (smaller(false)) continue;
      throw Error(fmt::format("{} needs {} MiB, {} MiB are allowed", what, (trial.bytes >> 20) + 1, limit >> 20),
                  "allow more with --memory, or use a smaller input");
    }
    try {
      return trial.reserve();
    } catch (const OutOfMemory&) {
      if (!smaller(true)) throw;
    }
  }
}

}  // namespace switchback
