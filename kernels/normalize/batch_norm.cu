// Batch norm in training: a block a channel sums up item by item, its threads in a fixed order.
#include "kernels/device/channels.cuh"
#include "kernels/device/ops.cuh"

namespace switchback::SB_DEVICE {
namespace {

constexpr int kThreads = 128;

// Of one item: value(element) over the places of channel blockIdx.x, in all threads.
template <typename Value>
__device__ __forceinline__ double item_sum(const Shared<double>& parts, int item, int places, int channels, const Value& value) {
  const int t = int(threadIdx.x);
  double sum = 0;
  for (int p = t; p < places; p += kThreads) sum += value((int64_t(item) * places + p) * channels + blockIdx.x);
  __syncthreads();  // whoever read the parts before
  parts[t] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) parts[t] += double(parts[t + half]);
  }
  __syncthreads();
  return parts[0];
}

__global__ void moments_kernel(int items, int places, int channels, float eps, const float* x, float* moments) {
  const Shared<double> parts(0, kThreads);
  const double count = double(items) * places;
  double mean = 0, squares = 0;
  for (int n = 0; n < items; ++n)
    mean += item_sum(parts, n, places, channels, [&](int64_t at) { return double(x[at]); });
  mean /= count;
  for (int n = 0; n < items; ++n)
    squares += item_sum(parts, n, places, channels, [&](int64_t at) {
      const double away = double(x[at]) - mean;
      return away * away;
    });
  if (threadIdx.x != 0) return;
  moments[blockIdx.x] = float(mean);
  moments[channels + blockIdx.x] = float(squares / count);
  moments[2 * channels + blockIdx.x] = float(1 / sqrt(squares / count + double(eps)));
}

__global__ void sums_kernel(int items, int places, int channels, const float* dy, const float* x, const float* moments,
                            float* sums) {
  const Shared<double> parts(0, kThreads);
  const float mean = x ? moments[blockIdx.x] : 0, r = x ? moments[2 * channels + blockIdx.x] : 0;
  double all = 0, along = 0;
  for (int n = 0; n < items; ++n) {
    all += item_sum(parts, n, places, channels, [&](int64_t at) { return double(dy[at]); });
    if (x)
      along += item_sum(parts, n, places, channels,
                        [&](int64_t at) { return double(dy[at]) * double((x[at] - mean) * r); });
  }
  if (threadIdx.x != 0) return;
  sums[blockIdx.x] = float(all);
  if (x) sums[channels + blockIdx.x] = float(along);
}

__global__ void add_sums_kernel(int items, int places, int channels, const float* dy, float* sums) {
  const Shared<double> parts(0, kThreads);
  float total = sums[blockIdx.x];
  for (int n = 0; n < items; ++n)
    total += float(item_sum(parts, n, places, channels, [&](int64_t at) { return double(dy[at]); }));
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

// A block for each of `count` slopes: of its channel, or of all channels.
__global__ void slopes_kernel(int items, int places, int channels, const float* dy, const float* x, float* slopes) {
  const Shared<double> parts(0, kThreads);
  float total = slopes[blockIdx.x];
  for (int n = 0; n < items; ++n)
    total += float(item_sum(parts, n, places, channels, [&](int64_t at) {
      return double(dy[at]) * double(x[at] > 0 ? 0.f : x[at]);
    }));
  if (threadIdx.x == 0) slopes[blockIdx.x] = total;
}

__global__ void affine_kernel(int channels, const float* moments, const float* weight, const float* bias, float* affine) {
  const int c = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (c >= channels) return;
  const double scale = double(weight[c]) * double(moments[2 * channels + c]);
  affine[c] = float(scale);
  affine[channels + c] = float(double(bias[c]) - double(moments[c]) * scale);
}

__global__ void running_kernel(int channels, float momentum, float factor, const float* of_batch, float* running) {
  const int c = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (c < channels) running[c] = (1 - momentum) * running[c] + momentum * (factor * of_batch[c]);
}

__global__ void backward_kernel(Spread spread, double count, const float* dy, const float* x, const float* moments,
                                const float* sums, const float* weight, BackwardEnd<float> end) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  const int c = spot.channel, channels = spread.channels;
  const int64_t at = (int64_t(spot.item) * spread.places + spot.place) * channels + c;
  const float r = moments[2 * channels + c], along = (x[at] - moments[c]) * r;
  const float mean = float(double(sums[c]) / count), pull = float(double(sums[channels + c]) / count);
  float v[1] = {weight[c] * r * (dy[at] - mean - along * pull)};
  finish(end, spot.item, spot.place, c, v);
}

Launch by_channel(const char* op, Shape s) {
  return {op, s, dim3(unsigned(s.c)), dim3(kThreads), kThreads * sizeof(double)};
}
Launch over_channels(const char* op, int64_t channels) {
  return {op, {1, channels}, dim3(unsigned(ceil_div(channels, int64_t(kThreads)))), dim3(kThreads)};
}
int places_of(Shape s) { return int(s.h * s.w); }

}  // namespace

void batch_norm_moments(Context& ctx, ConstView x, float eps, float* moments) {
  const Shape s = x.shape;
  launch(ctx, by_channel("batch_norm_moments", s), moments_kernel, int(s.n), places_of(s), int(s.c), eps, x.as<float>(), moments);
}

void batch_norm_affine(Context& ctx, int64_t channels, const float* moments, const float* weight, const float* bias,
                       float* affine) {
  launch(ctx, over_channels("batch_norm_affine", channels), affine_kernel, int(channels), moments, weight, bias, affine);
}

void channel_sums(Context& ctx, ConstView dy, ConstView x, const float* moments, float* sums) {
  const Shape s = dy.shape;
  launch(ctx, by_channel("channel_sums", s), sums_kernel, int(s.n), places_of(s), int(s.c), dy.as<float>(), x.as<float>(),
         moments, sums);
}

void batch_norm_backward(Context& ctx, ConstView dy, ConstView x, const float* moments, const float* sums,
                         const float* weight, View dx, const BackwardEpilogue& epilogue) {
  spread_over<1>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
    launch(ctx, {"batch_norm_backward", dx.shape, grid, block}, backward_kernel, spread, double(dx.shape.pixels()),
           dy.as<float>(), x.as<float>(), moments, sums, weight, backward_end<float>(dx, epilogue));
  });
}

void update_running(Context& ctx, int64_t channels, float momentum, float factor, const float* of_batch, float* running) {
  launch(ctx, over_channels("update_running", channels), running_kernel, int(channels), momentum, factor, of_batch, running);
}

void add_channel_sums(Context& ctx, ConstView dy, float* sums) {
  const Shape s = dy.shape;
  launch(ctx, by_channel("add_channel_sums", s), add_sums_kernel, int(s.n), places_of(s), int(s.c), dy.as<float>(), sums);
}

void add_slope_gradients(Context& ctx, ConstView dy, ConstView x, int64_t count, float* slopes) {
  // One slope for all channels: of an item's values as places of a single channel.
  const Shape s = count == 1 ? Shape{dy.shape.n, 1, dy.shape.item(), 1} : dy.shape;
  launch(ctx, by_channel("add_slope_gradients", s), slopes_kernel, int(s.n), places_of(s), int(s.c), dy.as<float>(),
         x.as<float>(), slopes);
}

}  // namespace switchback::SB_DEVICE
