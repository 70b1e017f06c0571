// Steps of images: a block an item, so that norms need no second launch.
#include "kernels/device/ops.cuh"
#include "kernels/image/image_math.h"

namespace switchback::SB_DEVICE {
namespace {

constexpr int kThreads = 256;

// √Σ value(i)² over a block's item, for all its threads. `sums` may be used again afterwards.
template <typename Value>
__device__ double norm_of(const Shared<double>& sums, int64_t count, const Value& value) {
  const int t = int(threadIdx.x);
  double sum = 0;
  for (int64_t i = t; i < count; i += kThreads) {
    const double v = value(i);
    sum += v * v;
  }
  sums[t] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) sums[t] += double(sums[t + half]);
  }
  __syncthreads();
  const double all = sums[0];
  __syncthreads();
  return sqrt(all);
}

__global__ void image_step_kernel(ImageStep s, PixelRange range, const float* clean, const float* g, StopRule stop, int c,
                                  int64_t count, float* x) {
  const Shared<double> sums(0, kThreads);
  const int64_t n = blockIdx.x;
  if (image_math::stopped(stop, n)) return;
  g += n * count;
  x += n * count;
  if (clean) clean += n * count;
  double norm = 0;
  if (s.rule == ImageStep::Rule::l2)
    norm = norm_of(sums, count, [=](int64_t i) { return double(range.scale[i % c]) * double(g[i]); });
  if (s.rule == ImageStep::Rule::capped) norm = norm_of(sums, count, [=](int64_t i) { return double(g[i]); });
  const float factor = image_math::step_factor(s, norm);
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const int k = int(i % c);
    float v = image_math::stepped(s, x[i], g[i], range.scale[k], factor);
    if (s.ball == ImageStep::Ball::inf) v = image_math::within_inf(s, v, clean[i], range.scale[k]);
    if (s.ball != ImageStep::Ball::l2) v = image_math::finished(s, v, range.lowest[k], range.highest[k]);
    x[i] = v;
  }
  if (s.ball != ImageStep::Ball::l2) return;
  // Each thread reads what it wrote itself.
  const double change =
      norm_of(sums, count, [=](int64_t i) { return (double(x[i]) - double(clean[i])) / double(range.scale[i % c]); });
  const float back = change > double(s.epsilon) ? float(double(s.epsilon) / change) : 1.f;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const int k = int(i % c);
    const float v = back != 1.f ? clean[i] + back * (x[i] - clean[i]) : x[i];
    x[i] = image_math::finished(s, v, range.lowest[k], range.highest[k]);
  }
}

__global__ void sphere_kernel(const float* x, float radius, int64_t count, float* y) {
  const Shared<double> sums(0, kThreads);
  y += int64_t(blockIdx.x) * count;
  const float factor = float(double(radius) / norm_of(sums, count, [=](int64_t i) { return double(y[i]); }));
  for (int64_t i = threadIdx.x; i < count; i += kThreads) y[i] = x[i] + factor * y[i];
}

Launch block_an_item(const char* op, Shape s) {
  return {op, s, dim3(unsigned(s.n)), dim3(kThreads), kThreads * sizeof(double)};
}

}  // namespace

void image_step(Context& ctx, const ImageStep& s, const PixelRange& range, const float* clean, ConstView g,
                const StopRule& stop, View x) {
  if (x.shape.n == 0) return;
  launch(ctx, block_an_item("image_step", x.shape), image_step_kernel, s, range, clean, g.as<float>(), stop,
         int(x.shape.c), x.shape.item(), x.as<float>());
}

void scale_to_sphere(Context& ctx, const float* x, float radius, View y) {
  if (y.shape.n == 0) return;
  launch(ctx, block_an_item("scale_to_sphere", y.shape), sphere_kernel, x, radius, y.shape.item(), y.as<float>());
}

}  // namespace switchback::SB_DEVICE
