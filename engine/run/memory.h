// Where buffers lie: several that do not live at the same time share memory. And how large a run may be.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "engine/lists.h"
#include "kernels/device/context.h"

namespace switchback {

// A buffer that is used by steps first … last.
struct Lifetime {
  size_t bytes = 0;
  int first = 0, last = 0;
};
inline constexpr size_t kNowhere = SIZE_MAX;

// Offsets of buffers: largest first, each at the lowest place that is free while it lives; kNowhere for those of 0 bytes.
// Returns the size of the whole.
size_t place(std::span<const Lifetime> buffers, List<size_t>& offsets);
constexpr size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

size_t free_memory();              // of the host: bytes to be had without swapping, within the control group's limit
size_t free_memory(Context& ctx);  // of the context's device, what its arenas already hold included

// A run of some size: what it takes, and how to take that (which may throw OutOfMemory).
struct Trial {
  size_t bytes = 0;
  std::function<void()> reserve;
};
// Makes a run smaller until it takes at most `limit` bytes and they can be had. `make` tries the present size; `smaller`
// chooses the next one, and is false at the smallest. Throws Error (`what` needs so much) where even that is too large, or
// OutOfMemory where it cannot be had.
void fit(size_t limit, const std::string& what, const std::function<Trial()>& make,
         const std::function<bool(bool out_of_memory)>& smaller);

}  // namespace switchback
