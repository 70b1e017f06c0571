// OpenMP over contiguous ranges, and no threads at all for small work: starting them costs more than a LeNet layer.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "kernels/device/context.h"

namespace switchback {

inline constexpr int64_t kSerialWork = 20000;  // elements; below this one thread is faster

// body(first, last) over a partition of [0, count); each index stands for about `work` elements.
// The partition must not be visible in the results. Every thread has its own copy of `body`: what that holds by value
// can stay in registers, where anything that is shared would be read again behind every store.
template <typename Body>
void parallel_ranges(const Context& ctx, int64_t count, int64_t work, const Body& body) {
  const int64_t threads = count * work < kSerialWork ? 1 : std::min<int64_t>(ctx.thread_count(), count);
  if (threads <= 1) {
    const Body own = body;
    if (count > 0) own(int64_t{0}, count);
    return;
  }
#pragma omp parallel num_threads(int(threads))
  {
    const int64_t t = omp_get_thread_num(), all = omp_get_num_threads();
    const int64_t first = count * t / all, last = count * (t + 1) / all;
    const Body own = body;
    if (first < last) own(first, last);
  }
}

}  // namespace switchback
