// Places and colours: a thread a pixel. Products: a thread an element, tiles in shared memory.
#include "kernels/device/ops.cuh"
#include "kernels/image/image_math.h"

namespace switchback::SB_DEVICE {
namespace {

constexpr int kThreads = 256, kTile = 16;

template <typename Each>
__global__ void each_pixel_kernel(int64_t count, Each each) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) each(i);
}
template <typename Each>
void for_each(Context& ctx, const char* op, Shape shape, const Each& each) {
  const int64_t count = shape.pixels();
  if (count == 0) return;
  launch(ctx, {op, shape, dim3(unsigned(ceil_div(count, int64_t(kThreads)))), dim3(kThreads)}, each_pixel_kernel<Each>, count,
         each);
}

__global__ void matrix_product_kernel(MatrixProduct p, const float* a, const float* b, float* c) {
  const Shared<float> left(0, kTile * kTile), right(kTile * kTile * int(sizeof(float)), kTile * kTile);
  const int across = int(threadIdx.x) % kTile, down = int(threadIdx.x) / kTile;
  const int64_t row = int64_t(blockIdx.y) * kTile + down, column = int64_t(blockIdx.x) * kTile + across;
  a += blockIdx.z * p.a_step;
  b += blockIdx.z * p.b_step;
  c += blockIdx.z * p.c_step;
  float sum = 0.f;
  for (int64_t k = 0; k < p.k; k += kTile) {
    left[down * kTile + across] = row < p.m && k + across < p.k ? a[row * p.k + k + across] : 0.f;
    right[down * kTile + across] = column < p.n && k + down < p.k ? b[(k + down) * p.n + column] : 0.f;
    __syncthreads();
    for (int l = 0; l < kTile; ++l) sum += left[down * kTile + l] * right[l * kTile + across];
    __syncthreads();
  }
  if (row < p.m && column < p.n) c[row * p.n + column] = p.add ? c[row * p.n + column] + sum : sum;
}

}  // namespace

void affine_forward(Context& ctx, const float* maps, const float* fill, ConstView x, View y) {
  const Shape s = x.shape, o = y.shape;
  for_each(ctx, "affine_forward", o,
           image_math::AffineForward{s.h, s.w, s.c, o.h, o.w, o.n / s.n, x.as<float>(), maps, fill, y.as<float>()});
}

void affine_backward(Context& ctx, const float* maps, ConstView dy, View dx, bool add) {
  const Shape s = dx.shape, o = dy.shape;
  for_each(ctx, "affine_backward", s,
           image_math::AffineBackward{s.h, s.w, s.c, o.h, o.w, o.n / s.n, add, dy.as<float>(), maps, dx.as<float>()});
}

void polar_forward(Context& ctx, const float* magnitude, int64_t n, int64_t count, const float* phase, float* y) {
  for_each(ctx, "polar_forward", {n, 1, count, 1}, image_math::PolarForward{count, magnitude, phase, y});
}

void polar_backward(Context& ctx, const float* magnitude, int64_t n, int64_t count, const float* phase, const float* dy,
                    float* dphase) {
  for_each(ctx, "polar_backward", {n, 1, count, 1}, image_math::PolarBackward{count, magnitude, phase, dy, dphase});
}

void colours_forward(Context& ctx, const Colours& colours, bool rows, ConstView z, View y) {
  for_each(ctx, "colours_forward", z.shape,
           image_math::ColoursForward{colours, z.shape.w, z.shape.c, rows, z.as<float>(), y.as<float>()});
}

void colours_backward(Context& ctx, const Colours& colours, bool rows, ConstView z, ConstView dy, View dz) {
  for_each(ctx, "colours_backward", z.shape,
           image_math::ColoursBackward{colours, z.shape.w, z.shape.c, rows, z.as<float>(), dy.as<float>(), dz.as<float>()});
}

void matrix_product(Context& ctx, const MatrixProduct& p, const float* a, const float* b, float* c) {
  if (p.batch == 0) return;
  const dim3 grid(unsigned(ceil_div(p.n, int64_t(kTile))), unsigned(ceil_div(p.m, int64_t(kTile))), unsigned(p.batch));
  launch(ctx, {"matrix_product", {p.batch, p.k, p.m, p.n}, grid, dim3(kTile * kTile), 2 * kTile * kTile * sizeof(float)},
         matrix_product_kernel, p, a, b, c);
}

}  // namespace switchback::SB_DEVICE
