// Losses: a thread an item for the few values of a classifier, a block an item for maps.
#include "kernels/device/ops.cuh"
#include "kernels/learn/loss_math.h"

namespace switchback::SB_DEVICE {
namespace {

constexpr int kThreads = 128;

__global__ void cross_entropy_kernel(CrossEntropy loss, int64_t items, int64_t k, const float* x, const int32_t* labels,
                                     double scale, float* dx, double* losses, int32_t* best) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n < items) cross_entropy_item(loss, k, x + n * k, labels[n], scale, dx + n * k, losses + n, best + n);
}

__global__ void distance_kernel(Distance distance, int64_t size, const float* x, const float* target, double scale,
                                float* dx, double* losses) {
  const Shared<double> parts(0, kThreads);
  const int t = int(threadIdx.x);
  double sum = 0;
  for (int64_t i = int64_t(blockIdx.x) * size + t; i < (int64_t(blockIdx.x) + 1) * size; i += kThreads)
    sum += distance_value(distance, double(x[i]), double(target[i]), scale, dx + i);
  parts[t] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) parts[t] += double(parts[t + half]);
  }
  if (t == 0) losses[blockIdx.x] = parts[0];
}

}  // namespace

void cross_entropy(Context& ctx, const CrossEntropy& loss, ConstView x, const int32_t* labels, double scale, View dx,
                   double* losses, int32_t* best) {
  const dim3 grid(unsigned(ceil_div(x.shape.n, int64_t(kThreads))));
  launch(ctx, {"cross_entropy", x.shape, grid, dim3(kThreads)}, cross_entropy_kernel, loss, x.shape.n, x.shape.c,
         x.as<float>(), labels, scale, dx.as<float>(), losses, best);
}

void distance_loss(Context& ctx, Distance distance, ConstView x, ConstView target, double scale, View dx, double* losses) {
  launch(ctx, {"distance_loss", x.shape, dim3(unsigned(x.shape.n)), dim3(kThreads), kThreads * sizeof(double)},
         distance_kernel, distance, x.shape.item(), x.as<float>(), target.as<float>(), scale, dx.as<float>(), losses);
}

}  // namespace switchback::SB_DEVICE
