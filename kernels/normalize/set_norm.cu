// Norms over sets of values: statistics by a warp a set (a block where sets are large), then a pass over the elements.
#include "kernels/device/channels.cuh"
#include "kernels/device/ops.cuh"

namespace switchback::SB_DEVICE {
namespace {

constexpr int kMostWarps = 8;

struct Sets {
  int channels, places;      // of a set
  int across, per_item;      // sets side by side, and of an item
  int item_channels;
  float eps;
  __device__ __forceinline__ int set_of(int place, int channel) const {
    return place / places * across + channel / channels;
  }
};
Sets sets_of(const NormSets& n, Shape s) {
  const int64_t across = s.c / n.channels;
  return {int(n.channels), int(n.places), int(across), int(s.h * s.w / n.places * across), int(s.c), n.eps};
}

struct Affine {
  const float *weights, *biases;
  int by_place, by_channel, places;
  __device__ __forceinline__ int at(int place, int channel) const { return place % places * by_place + channel * by_channel; }
  __device__ __forceinline__ float weight(int place, int channel) const {
    return weights ? weights[at(place, channel)] : 1.f;
  }
  __device__ __forceinline__ float bias(int place, int channel) const { return biases ? biases[at(place, channel)] : 0.f; }
};
Affine affine_of(const NormSets& sets, const NormAffine& a) {
  return {a.weight, a.bias, int(a.by_place), int(a.by_channel), int(sets.places)};
}

// The sum over a block's threads, in all of them. Warps in order, lanes by butterflies: the same bits everywhere.
__device__ __forceinline__ double block_sum(double v, const Shared<double>& parts) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const uint64_t bits = std::bit_cast<uint64_t>(v);
    const uint32_t low = __shfl_xor_sync(kFullMask, uint32_t(bits), lanes);
    const uint32_t high = __shfl_xor_sync(kFullMask, uint32_t(bits >> 32), lanes);
    v += std::bit_cast<double>(uint64_t(high) << 32 | low);
  }
  if (blockDim.x == 32) return v;
  const int warps = blockDim.x / 32;
  __syncthreads();  // whoever read the parts before
  if (threadIdx.x % 32 == 0) parts[int(threadIdx.x / 32)] = v;
  __syncthreads();
  double sum = 0;
  for (int w = 0; w < warps; ++w) sum += parts[w];
  return sum;
}

// A block a set of x [n, places, channels]: mean and r.
template <typename T>
__global__ void moments_kernel(Sets sets, int item_places, const T* x, float2* moments) {
  const Shared<double> parts(0, kMostWarps);
  const int item = blockIdx.x / sets.per_item, set = blockIdx.x - item * sets.per_item;
  const int first_place = set / sets.across * sets.places, first_channel = set % sets.across * sets.channels;
  const int count = sets.places * sets.channels;
  x += (int64_t(item) * item_places + first_place) * sets.item_channels + first_channel;
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x)
    sum += double(to_float(x[int64_t(i / sets.channels) * sets.item_channels + i % sets.channels]));
  const double mean = block_sum(sum, parts) / count;
  double squares = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const double v = double(to_float(x[int64_t(i / sets.channels) * sets.item_channels + i % sets.channels])) - mean;
    squares += v * v;
  }
  squares = block_sum(squares, parts);
  if (threadIdx.x == 0)
    moments[blockIdx.x] = make_float2(float(mean), float(1 / sqrt(squares / count + double(sets.eps))));
}

// A block a set of dy: mean(g) and mean(g·x̂).
template <typename T>
__global__ void pulls_kernel(Sets sets, Affine affine, int item_places, int seeds_per_item, const T* dy, const T* x,
                             const float2* moments, float2* pulls) {
  const Shared<double> parts(0, kMostWarps);
  const int item = blockIdx.x / sets.per_item, set = blockIdx.x - item * sets.per_item, kept = item / seeds_per_item;
  const int first_place = set / sets.across * sets.places, first_channel = set % sets.across * sets.channels;
  const int count = sets.places * sets.channels;
  const float2 m = moments[kept * sets.per_item + set];
  double all = 0, along = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const int place = first_place + i / sets.channels, channel = first_channel + i % sets.channels;
    const int64_t at = int64_t(place) * sets.item_channels + channel, item_size = int64_t(item_places) * sets.item_channels;
    const double pull = double(to_float(dy[item * item_size + at])) * double(affine.weight(place, channel));
    all += pull;
    along += pull * double((to_float(x[kept * item_size + at]) - m.x) * m.y);
  }
  all = block_sum(all, parts);
  along = block_sum(along, parts);
  if (threadIdx.x == 0) pulls[blockIdx.x] = make_float2(float(all / count), float(along / count));
}

template <typename T>
__global__ void set_norm_forward_kernel(Spread spread, Sets sets, Affine affine, const T* x, const float2* moments, T* y) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  const int64_t at = (int64_t(spot.item) * spread.places + spot.place) * spread.channels + spot.channel;
  const float2 m = moments[int64_t(spot.item) * sets.per_item + sets.set_of(spot.place, spot.channel)];
  const float along = (to_float(x[at]) - m.x) * m.y;
  y[at] = from_float<T>(along * affine.weight(spot.place, spot.channel) + affine.bias(spot.place, spot.channel));
}

template <typename T>
__global__ void set_norm_backward_kernel(Spread spread, Sets sets, Affine affine, const T* dy, const T* x,
                                         const float2* moments, const float2* pulls, BackwardEnd<T> end) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  const int kept = spot.item / end.seeds_per_item, set = sets.set_of(spot.place, spot.channel);
  const int64_t at = int64_t(spot.place) * spread.channels + spot.channel, item = int64_t(spread.places) * spread.channels;
  const float2 m = moments[int64_t(kept) * sets.per_item + set], pull = pulls[int64_t(spot.item) * sets.per_item + set];
  const float along = (to_float(x[kept * item + at]) - m.x) * m.y;
  const float g = to_float(dy[spot.item * item + at]) * affine.weight(spot.place, spot.channel);
  float v[1] = {m.y * (g - pull.x - along * pull.y)};
  finish(end, spot.item, spot.place, spot.channel, v);
}

// A thread for each weight and bias: its channel (or all of them), its place of every set (or all places).
__global__ void norm_gradients_kernel(Sets sets, NormGradients g, int items, int item_places, const float* dy, const float* x,
                                      const float2* moments) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= g.count) return;
  const int c0 = g.by_channel == 0 ? 0 : g.by_place == 0 ? i : i / sets.places;
  const int c1 = g.by_channel == 0 ? sets.item_channels : c0 + 1;
  const int p0 = g.by_place == 0 ? 0 : i % sets.places, step = g.by_place == 0 ? 1 : sets.places;
  for (int n = 0; n < items; ++n) {
    double all = 0, along = 0;
    for (int p = p0; p < item_places; p += step)
      for (int c = c0; c < c1; ++c) {
        const float2 m = moments[int64_t(n) * sets.per_item + sets.set_of(p, c)];
        const int64_t e = (int64_t(n) * item_places + p) * sets.item_channels + c;
        all += double(dy[e]);
        along += double(dy[e]) * double((x[e] - m.x) * m.y);
      }
    const int64_t at = int64_t(p0) * g.by_place + int64_t(c0) * g.by_channel;
    if (g.weight) g.weight[at] += float(along);
    if (g.bias) g.bias[at] += float(all);
  }
}

// A block for each of `count` sets.
Launch by_sets(const char* op, Shape s, const Sets& sets, int64_t count) {
  CHECK(count < int64_t(1) << 31, "{}: [{},{},{},{}] is too large for one launch", op, s.n, s.c, s.h, s.w);
  const int64_t warps = std::clamp<int64_t>(int64_t(sets.places) * sets.channels / 512, 1, kMostWarps);
  return {op, s, dim3(unsigned(count)), dim3(unsigned(32 * warps)), kMostWarps * sizeof(double)};
}

}  // namespace

void set_norm_forward(Context& ctx, const NormSets& norm, const NormAffine& affine, ConstView x, View y) {
  const Shape s = x.shape;
  if (s.count() == 0) return;
  const Sets sets = sets_of(norm, s);
  const int64_t count = s.n * sets.per_item;
  auto* moments = static_cast<float2*>(ctx.scratch.reserve(size_t(count) * sizeof(float2)));
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    launch(ctx, by_sets("set_norm_moments", s, sets, count), moments_kernel<T>, sets, int(s.h * s.w), x.as<T>(), moments);
    spread_over<1>(s, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"set_norm_forward", s, grid, block}, set_norm_forward_kernel<T>, spread, sets, affine_of(norm, affine),
             x.as<T>(), static_cast<const float2*>(moments), y.as<T>());
    });
  });
}

void set_norm_backward(Context& ctx, const NormSets& norm, const NormAffine& affine, ConstView dy, ConstView x, View dx,
                       const BackwardEpilogue& epilogue) {
  const Shape s = dx.shape;
  if (s.count() == 0) return;
  const Sets sets = sets_of(norm, s);
  const int64_t kept = x.shape.n * sets.per_item, count = s.n * sets.per_item;
  auto* moments = static_cast<float2*>(ctx.scratch.reserve(size_t(kept + count) * sizeof(float2)));
  float2* pulls = moments + kept;
  by_type(dx.dtype, [&](auto type) {
    using T = decltype(type);
    launch(ctx, by_sets("set_norm_moments", x.shape, sets, kept), moments_kernel<T>, sets, int(s.h * s.w), x.as<T>(), moments);
    launch(ctx, by_sets("set_norm_pulls", s, sets, count), pulls_kernel<T>, sets, affine_of(norm, affine), int(s.h * s.w),
           int(epilogue.seeds_per_item), dy.as<T>(), x.as<T>(), static_cast<const float2*>(moments), pulls);
    spread_over<1>(s, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"set_norm_backward", s, grid, block}, set_norm_backward_kernel<T>, spread, sets, affine_of(norm, affine),
             dy.as<T>(), x.as<T>(), static_cast<const float2*>(moments), static_cast<const float2*>(pulls),
             backward_end<T>(dx, epilogue));
    });
  });
}

void set_norm_backward_affine(Context& ctx, const NormSets& norm, ConstView dy, ConstView x, const NormGradients& g) {
  const Shape s = x.shape;
  const Sets sets = sets_of(norm, s);
  const int64_t count = s.n * sets.per_item;
  auto* moments = static_cast<float2*>(ctx.scratch.reserve(size_t(count) * sizeof(float2)));
  launch(ctx, by_sets("set_norm_moments", s, sets, count), moments_kernel<float>, sets, int(s.h * s.w), x.as<float>(), moments);
  launch(ctx, {"set_norm_backward_affine", s, dim3(unsigned(ceil_div(g.count, int64_t(128)))), dim3(128)}, norm_gradients_kernel,
         sets, g, int(s.n), int(s.h * s.w), dy.as<float>(), x.as<float>(), static_cast<const float2*>(moments));
}

}  // namespace switchback::SB_DEVICE
