// Sums over rows, columns or channels on a GPU: behind reduce.cu and the gradients of broadcast operands.
#pragma once

#include "kernels/move/gather.cuh"

namespace switchback::SB_DEVICE {

// Every size of `part` is that of `full` or 1 (n the same).
struct Reduction {
  int h, w, c;                // of the full tensor
  bool rows, columns, channels;  // what is summed
  int part_w, part_places, part_c, words;
  int summed_w, summed;       // columns and places of one sum
};
inline Reduction reduction_of(Shape full, Shape part) {
  const bool rows = part.h != full.h, columns = part.w != full.w, channels = part.c != full.c;
  const int64_t summed_w = columns ? full.w : 1, summed_h = rows ? full.h : 1;
  return {int(full.h), int(full.w), int(full.c), rows, columns, channels, int(part.w), int(part.h * part.w), int(part.c),
          int(ceil_div(part.c, 32)), int(summed_w), int(summed_w * summed_h)};
}

// A block: 32 channels of one pixel of the result, or its only channel, where 32 lanes then share the sum; blockDim.y
// threads share the places, thread p takes p, p + blockDim.y, ..., and the parts are added in order. source(item, place,
// channel) is a value of the full tensor, end(item, place, channel, sum) takes the result.
template <typename Source, typename End>
__global__ void __launch_bounds__(1024, 1) reduce_kernel(Reduction r, Source source, End end) {
  const int lane = threadIdx.x, part = threadIdx.y, parts = blockDim.y;
  const Shared<float> sums(0, parts * 32);  // [parts][lane]
  const int pixel = blockIdx.x / r.words, word = blockIdx.x - pixel * r.words;
  const int item = pixel / r.part_places, place = pixel - item * r.part_places;
  const int first_h = r.rows ? 0 : place / r.part_w, first_w = r.columns ? 0 : place % r.part_w;
  const int first_c = r.channels ? lane : 32 * word + lane, last_c = r.channels ? r.c : min(r.c, 32 * word + 32);
  float sum = 0.f;
  for (int i = part; i < r.summed; i += parts) {
    const int row = i / r.summed_w, at = (first_h + row) * r.w + first_w + i - row * r.summed_w;
    for (int c = first_c; c < last_c; c += 32) sum += source(item, at, c);
  }
  sums[part * 32 + lane] = sum;
  __syncthreads();
  if (part > 0) return;
  for (int p = 1; p < parts; ++p) sum += sums[p * 32 + lane];
  if (r.channels) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kFullMask, sum, lanes);
  }
  const int channel = 32 * word + lane;
  if (channel < r.part_c) end(item, place, channel, sum);
}

// How many threads share a sum's places: a function of one image's shape.
inline int parts_of(const Reduction& r) { return r.summed < 16 ? 1 : r.summed < 1024 ? 8 : 32; }

template <typename Source, typename End>
void reduce_sums(Context& ctx, const char* op, Shape full, Shape part, const Source& source, const End& end) {
  const Reduction r = reduction_of(full, part);
  const int64_t blocks = part.n * r.part_places * r.words, parts = parts_of(r);
  CHECK(blocks < int64_t(1) << 31, "{}: [{},{},{},{}] is too large for one launch", op, part.n, part.c, part.h, part.w);
  if (blocks == 0) return;
  launch(ctx, {op, full, dim3(unsigned(blocks)), dim3(32, unsigned(parts)), size_t(parts) * 32 * sizeof(float)},
         reduce_kernel<Source, End>, r, source, end);
}

// Where gradients of a reduced tensor go.
template <typename T>
struct FinishGradient {
  BackwardEnd<T> end;
  __device__ __forceinline__ void operator()(int item, int place, int channel, float sum) const {
    float v[1] = {sum};
    finish(end, item, place, channel, v);
  }
};

}  // namespace switchback::SB_DEVICE
