// Whether two arrays hold the same bits.
#include <algorithm>

#include "kernels/device/ops.cuh"

namespace switchback::SB_DEVICE {
namespace {

constexpr unsigned kThreads = 256, kBlocksEach = 8;  // of a multiprocessor

// Every word is read once, 16 bytes a thread at a time.
__global__ void __launch_bounds__(kThreads)
    count_differences_kernel(const char* a, const char* b, int64_t quads, uint32_t* count) {
  uint32_t differing = 0;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < quads; i += int64_t(gridDim.x) * blockDim.x) {
    const uint4 x = load_as<uint4>(a + 16 * i), y = load_as<uint4>(b + 16 * i);
    differing += (x.x != y.x) + (x.y != y.y) + (x.z != y.z) + (x.w != y.w);
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) differing += __shfl_xor_sync(kFullMask, differing, lanes);
  if (threadIdx.x % 32 == 0 && differing > 0) atomicAdd(count, differing);
}

}  // namespace

void count_differences(Context& ctx, const void* a, const void* b, size_t bytes, uint32_t* count) {
  CHECK(bytes % 16 == 0, "count_differences of {} bytes", bytes);
  if (bytes == 0) return;
  const int64_t quads = int64_t(bytes / 16), most = int64_t(kBlocksEach) * std::max(ctx.gpu->multiprocessors, 1);
  const Shape shape{1, int64_t(bytes / 4)};
  launch(ctx, {"count_differences", shape, dim3(unsigned(std::min(ceil_div(quads, kThreads), most))), dim3(kThreads)},
         count_differences_kernel, static_cast<const char*>(a), static_cast<const char*>(b), quads, count);
}

}  // namespace switchback::SB_DEVICE
