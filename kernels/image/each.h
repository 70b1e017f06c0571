// The CPU's loop over what image_math.h says of one element.
#pragma once

#include "kernels/parallel.h"

namespace switchback {

// each(i) for i < count; each stands for about `work` elements.
template <typename Each>
void for_each(Context& ctx, int64_t count, int64_t work, const Each& each) {
  parallel_ranges(ctx, count, work, [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) each(i);
  });
}

}  // namespace switchback
