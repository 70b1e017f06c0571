// Sums over rows, columns or channels on the CPU: behind reduce.cpp and the gradients of broadcast operands.
#pragma once

#include "kernels/pointwise/pointwise_loops.h"

namespace switchback {

SB_INLINE float sum_of_lanes(F8 v) {
  alignas(32) float lane[8];
  _mm256_store_ps(lane, v);
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

// Every size of `part` is that of `full` or 1 (n the same). source(item, place, channel, lanes) gives eight values of the
// full tensor, lanes that are not there 0; write(group, sums) takes the sums of one group of `part`. The order of every
// sum is by rows, then columns, then channels, of one item.
template <typename Source, typename Write>
void reduce_loop(Context& ctx, Shape full, Shape part, const Source& source, const Write& write) {
  const bool rows = part.h != full.h, columns = part.w != full.w, channels = part.c != full.c;
  each_group(ctx, part, 1, full.item() / part.item(), [&](const Group& g) SB_LAMBDA {
    const int64_t first_h = rows ? 0 : g.place / part.w, last_h = rows ? full.h : first_h + 1;
    const int64_t first_w = columns ? 0 : g.place % part.w, last_w = columns ? full.w : first_w + 1;
    const int64_t first_c = channels ? 0 : g.channel, last_c = channels ? full.c : g.channel + g.size;
    F8 sum[4] = {};
    for (int64_t h = first_h; h < last_h; ++h) {
      F8 row[4] = {};  // two levels: rounding errors grow with the longer side only
      for (int64_t w = first_w; w < last_w; ++w)
        for (int64_t c = first_c; c < last_c; c += 8) {
          F8& lanes = row[channels ? 0 : (c - first_c) / 8];
          lanes = _mm256_add_ps(lanes, source(g.item, h * full.w + w, c, int(std::min<int64_t>(8, last_c - c))));
        }
      for (int v = 0; v < 4; ++v) sum[v] = _mm256_add_ps(sum[v], row[v]);
    }
    if (channels) sum[0] = _mm256_set1_ps(sum_of_lanes(sum[0]));
    write(g, sum);
  });
}

}  // namespace switchback
