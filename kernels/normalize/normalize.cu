// Local response normalisation and softmax. LRN: a thread a channel of one pixel, which works out its neighbours anew
// (a window is 5 channels, and they lie in the cache). Softmax: a warp a pixel.
#include "kernels/device/channels.cuh"
#include "kernels/device/ops.cuh"

namespace switchback::SB_DEVICE {
namespace {

struct Lrn {
  int channels, back, ahead;  // a window reaches `back` channels back and `ahead` forward
  float scale, beta, k;       // scale = alpha / size
  float cross;                // 2·alpha·beta / size
};
Lrn lrn_of(const LocalResponseNorm& l, Shape s) {
  return {int(s.c), int(l.size / 2), int((l.size - 1) / 2), l.alpha / float(l.size), l.beta, l.k,
          2.f * l.alpha * l.beta / float(l.size)};
}

// d_c of a pixel x [channels].
template <typename T>
__device__ __forceinline__ float divisor_of(const Lrn& lrn, const T* x, int channel) {
  const int first = max(0, channel - lrn.back), last = min(lrn.channels - 1, channel + lrn.ahead);
  float sum = 0.f;
  for (int c = first; c <= last; ++c) {
    const float v = to_float(x[c]);
    sum += v * v;
  }
  return lrn.k + lrn.scale * sum;
}

// d^-beta; AlexNet's 3/4 without pow.
__device__ __forceinline__ float negative_power(float d, float beta) {
  if (beta != 0.75f) return powf(d, -beta);
  const float root = sqrtf(d);
  return 1.f / (root * sqrtf(root));
}

template <typename T>
__global__ void lrn_forward_kernel(Spread spread, Lrn lrn, const T* x, T* y) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  const int64_t pixel = (int64_t(spot.item) * spread.places + spot.place) * lrn.channels;
  const float power = negative_power(divisor_of(lrn, x + pixel, spot.channel), lrn.beta);
  y[pixel + spot.channel] = from_float<T>(to_float(x[pixel + spot.channel]) * power);
}

// dx_j = dy_j·d_j^-β − (2αβ/size)·x_j · sum over the windows c that hold j of dy_c·x_c·d_c^(-β-1).
template <typename T>
__global__ void lrn_backward_kernel(Spread spread, Lrn lrn, const T* dy, const T* x, BackwardEnd<T> end) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  const int j = spot.channel;
  dy += (int64_t(spot.item) * spread.places + spot.place) * lrn.channels;
  x += (int64_t(spot.item / end.seeds_per_item) * spread.places + spot.place) * lrn.channels;
  const int first = max(0, j - lrn.ahead), last = min(lrn.channels - 1, j + lrn.back);
  float crossed = 0.f, own = 0.f;
  for (int c = first; c <= last; ++c) {
    const float d = divisor_of(lrn, x, c), scaled = to_float(dy[c]) * negative_power(d, lrn.beta);
    crossed += scaled * to_float(x[c]) / d;
    if (c == j) own = scaled;
  }
  float v[1] = {own - lrn.cross * to_float(x[j]) * crossed};
  finish(end, spot.item, spot.place, j, v);
}

// Butterflies: all lanes end with the same bits.
__device__ __forceinline__ float warp_max(float v) {  // NaN wins
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const float other = __shfl_xor_sync(kFullMask, v, lanes);
    v = other > v || other != other ? other : v;
  }
  return v;
}
__device__ __forceinline__ double warp_sum(double v) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const uint64_t bits = std::bit_cast<uint64_t>(v);
    const uint32_t low = __shfl_xor_sync(kFullMask, uint32_t(bits), lanes);
    const uint32_t high = __shfl_xor_sync(kFullMask, uint32_t(bits >> 32), lanes);
    v += std::bit_cast<double>(uint64_t(high) << 32 | low);
  }
  return v;
}

__device__ __forceinline__ int64_t warp_index() {
  return (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
}

template <typename T>
__global__ void softmax_forward_kernel(int64_t pixels, int channels, const T* x, T* y) {
  const int64_t pixel = warp_index();
  if (pixel >= pixels) return;
  const int lane = threadIdx.x % 32;
  x += pixel * channels;
  y += pixel * channels;
  float most = -INFINITY;
  for (int c = lane; c < channels; c += 32) {
    const float v = to_float(x[c]);
    most = v > most || v != v ? v : most;
  }
  most = warp_max(most);
  double sum = 0;
  for (int c = lane; c < channels; c += 32) sum += double(expf(to_float(x[c]) - most));
  sum = warp_sum(sum);
  for (int c = lane; c < channels; c += 32) y[c] = from_float<T>(float(double(expf(to_float(x[c]) - most)) / sum));
}

template <typename T>
__global__ void softmax_backward_kernel(int64_t pixels, const T* dy, const T* y, BackwardEnd<T> end) {
  const int64_t pixel = warp_index();
  if (pixel >= pixels) return;
  const int lane = threadIdx.x % 32, item = int(pixel / end.places), place = int(pixel % end.places);
  dy += pixel * end.channels;
  y += (int64_t(item / end.seeds_per_item) * end.places + place) * end.channels;
  double dot = 0;
  for (int c = lane; c < end.channels; c += 32) dot += double(to_float(dy[c])) * double(to_float(y[c]));
  const float mean = float(warp_sum(dot));
  for (int c = lane; c < end.channels; c += 32) {
    float v[1] = {to_float(y[c]) * (to_float(dy[c]) - mean)};
    finish(end, item, place, c, v);
  }
}

// A warp a pixel, up to 4 in a block.
Launch by_warps(const char* op, Shape s) {
  const int64_t warps = std::min<int64_t>(4, s.pixels());
  return {op, s, dim3(unsigned(ceil_div(s.pixels(), warps))), dim3(unsigned(32 * warps))};
}

}  // namespace

void lrn_forward(Context& ctx, const LocalResponseNorm& lrn, ConstView x, View y) {
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    spread_over<1>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"lrn_forward", y.shape, grid, block}, lrn_forward_kernel<T>, spread, lrn_of(lrn, y.shape), x.as<T>(),
             y.as<T>());
    });
  });
}

void lrn_backward(Context& ctx, const LocalResponseNorm& lrn, ConstView dy, ConstView x, View dx,
                  const BackwardEpilogue& epilogue) {
  by_type(dx.dtype, [&](auto type) {
    using T = decltype(type);
    spread_over<1>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"lrn_backward", dx.shape, grid, block}, lrn_backward_kernel<T>, spread, lrn_of(lrn, dx.shape),
             dy.as<T>(), x.as<T>(), backward_end<T>(dx, epilogue));
    });
  });
}

void softmax_forward(Context& ctx, ConstView x, View y) {
  if (x.shape.pixels() == 0) return;
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    launch(ctx, by_warps("softmax_forward", y.shape), softmax_forward_kernel<T>, y.shape.pixels(), int(y.shape.c),
           x.as<T>(), y.as<T>());
  });
}

void softmax_backward(Context& ctx, ConstView dy, ConstView y, View dx, const BackwardEpilogue& epilogue) {
  if (dx.shape.pixels() == 0) return;
  by_type(dx.dtype, [&](auto type) {
    using T = decltype(type);
    launch(ctx, by_warps("softmax_backward", dx.shape), softmax_backward_kernel<T>, dx.shape.pixels(), dy.as<T>(),
           y.as<T>(), backward_end<T>(dx, epilogue));
  });
}

}  // namespace switchback::SB_DEVICE
