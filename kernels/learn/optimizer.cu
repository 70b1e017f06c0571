// Optimisers: a thread a value. Sums of squares: a block for each 4096 values, then one thread adds up the blocks in order.
#include "kernels/device/ops.cuh"
#include "kernels/learn/optimizer_math.h"

namespace switchback::SB_DEVICE {
namespace {

constexpr int kThreads = 256, kBlock = 4096;

__global__ void optimizer_kernel(Optimizer::Kind kind, bool nesterov, OptimizerScalars s, OptimizedArray a) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= a.count) return;
  if (kind == Optimizer::Kind::sgd) sgd_value(s, nesterov, a.w[i], a.gradient[i], a.state0 ? a.state0 + i : nullptr);
  else if (kind == Optimizer::Kind::adam) adam_value(s, a.w[i], a.gradient[i], a.state0[i], a.state1[i]);
  else if (kind == Optimizer::Kind::nadam) nadam_value(s, a.w[i], a.gradient[i], a.state0[i], a.state1[i]);
  else adadelta_value(s, a.w[i], a.gradient[i], a.state0[i], a.state1[i]);
}

__global__ void squares_kernel(const float* v, int64_t count, double* parts) {
  const Shared<double> sums(0, kThreads);
  const int t = int(threadIdx.x);
  const int64_t first = int64_t(blockIdx.x) * kBlock, last = first + kBlock < count ? first + kBlock : count;
  double sum = 0;
  for (int64_t i = first + t; i < last; i += kThreads) sum += double(v[i]) * double(v[i]);
  sums[t] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) sums[t] += double(sums[t + half]);
  }
  if (t == 0) parts[blockIdx.x] = sums[0];
}

__global__ void add_parts_kernel(const double* parts, int64_t count, double* sum) {
  double all = *sum;
  for (int64_t i = 0; i < count; ++i) all += parts[i];
  *sum = all;
}

__global__ void scale_kernel(float* v, int64_t count, float by) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) v[i] *= by;
}

Launch over(const char* op, int64_t count) {
  return {op, {1, count}, dim3(unsigned(ceil_div(count, int64_t(kThreads)))), dim3(kThreads)};
}

}  // namespace

void optimizer_step(Context& ctx, const Optimizer& o, double lr, int64_t step, const OptimizedArray& a) {
  if (a.count == 0) return;
  launch(ctx, over("optimizer_step", a.count), optimizer_kernel, o.kind, o.nesterov, OptimizerScalars(o, lr, step), a);
}

void add_squares(Context& ctx, const float* v, int64_t count, double* sum) {
  if (count == 0) return;
  const int64_t blocks = ceil_div(count, int64_t(kBlock));
  auto* parts = static_cast<double*>(ctx.scratch.reserve(size_t(blocks) * sizeof(double)));
  launch(ctx, {"add_squares", {1, count}, dim3(unsigned(blocks)), dim3(kThreads), kThreads * sizeof(double)}, squares_kernel,
         v, count, parts);
  launch(ctx, {"add_squares", {1, count}, dim3(1), dim3(1)}, add_parts_kernel, static_cast<const double*>(parts), blocks, sum);
}

void scale_array(Context& ctx, float* v, int64_t count, float by) {
  if (count == 0) return;
  launch(ctx, over("scale_array", count), scale_kernel, v, count, by);
}

}  // namespace switchback::SB_DEVICE
