// First layers: at most 4 input channels (an image's), one group. VGG's 3->64 3x3 at 224x224 takes 173 MFLOP an image
// and moves 13.4 MB of f32 (0.6 + 12.8), in either direction: 2.9 µs at 60 TFLOP/s against 2.8 µs at 4.8 TB/s, so
// both must be used well. ResNet's 7x7/2: 236 MFLOP, 3.8 MB.
#include "kernels/conv/conv.cuh"

namespace switchback::SB_DEVICE {

namespace {

constexpr size_t kMaxShared = 96 << 10;  // every GPU from sm_80 on gives a block that much

// Channels lie in shared memory as one float, or as four with zeros behind the last: one wide access a pixel.
constexpr int slots(int channels) { return channels == 1 ? 1 : 4; }

template <int kC>
__device__ __forceinline__ void load_slots(float (&v)[4], const Shared<float>& shared, int i) {
  if constexpr (kC == 1) {
    v[0] = shared[i];
  } else {
    const float4 four = shared.template load<float4>(4 * i);
    v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
  }
}

// ---------------------------------------------------------------------------------------------------------- forward
// A block computes 4x16 pixels of 32 or 64 output channels, a row of pixels a warp, a channel (or two) a lane. The
// tile of inputs waits in shared memory; each of its pixels is one broadcast load for kC·kWords products a lane. Weights
// come from L1, a coalesced row for 16 products. f32 sums run over taps, then channels, as in conv_direct.cu.

constexpr int kTileRows = 4, kTileColumns = 16;

struct InputTile {
  int rows, columns;
};
InputTile input_tile(const Conv2d& c) {
  return {sliding_rows<int>(c).needed({0, kTileRows}).size(), sliding_columns<int>(c).needed({0, kTileColumns}).size()};
}
size_t forward_shared(const Conv2d& c) {
  const InputTile tile = input_tile(c);
  return size_t(tile.rows) * size_t(tile.columns) * slots(int(c.in_channels)) * sizeof(float);
}

// Pixels from (top, left) on, zeros outside the image.
template <typename T, int kC>
__device__ __forceinline__ void stage_inputs(const Shared<float>& shared, const InputTile& tile, const ConvSize& z,
                                             const T* image, int top, int left) {
  for (int i = int(threadIdx.x); i < tile.rows * tile.columns; i += int(blockDim.x)) {
    const int h = top + i / tile.columns, w = left + i % tile.columns;
    const bool inside = h >= 0 && h < z.h && w >= 0 && w < z.w;
    const T* from = image + (inside ? (h * z.w + w) * z.c : 0);
    float v[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) v[c] = inside && c < kC && c < z.c ? to_float(from[c]) : 0.f;
    if constexpr (kC == 1) shared[i] = v[0];
    else shared.template store<float4>(4 * i, float4{v[0], v[1], v[2], v[3]});
  }
}

template <typename T, int kC, int kWords>
__global__ void __launch_bounds__(128, 4) first_forward_kernel(ConvSize z, InputTile input, const T* x, const T* rsck,
                                                               ForwardEnd<T> end) {
  const Shared<float> shared(0, input.rows * input.columns * slots(kC));
  const int groups = (end.words + kWords - 1) / kWords, tiles_w = (z.q + kTileColumns - 1) / kTileColumns;
  const int first_word = int(blockIdx.x) % groups * kWords, tile = int(blockIdx.x) / groups;
  const int p0 = tile / tiles_w * kTileRows, q0 = tile % tiles_w * kTileColumns;
  const int warp = int(threadIdx.x / 32), p = p0 + warp, lane = int(threadIdx.x & 31), n = image();
  if (n >= z.n) return;
  int channel[kWords];
#pragma unroll
  for (int j = 0; j < kWords; ++j) channel[j] = min(32 * (first_word + j) + lane, z.k - 1);

  stage_inputs<T, kC>(shared, input, z, x + int64_t(n) * z.h * z.w * z.c, z.rows.start(p0), z.columns.start(q0));
  __syncthreads();
  if (p >= z.p) return;
  float sum[kWords][kTileColumns] = {};
  int at = 0;  // of a tap's weights
  for (int r = 0; r < z.rows.kernel; ++r) {
    int first = (warp * z.rows.stride + r * z.rows.dilation) * input.columns;
    for (int s = 0; s < z.columns.kernel; ++s, first += z.columns.dilation, at += z.c * z.k) {
      float weight[kWords][kC];
#pragma unroll
      for (int j = 0; j < kWords; ++j)
#pragma unroll
        for (int c = 0; c < kC; ++c)  // only kernels for 4 channels also run with fewer
          weight[j][c] = kC != 4 || c < z.c ? to_float((rsck + (at + channel[j]))[c * z.k]) : 0.f;
      int from = first;
#pragma unroll
      for (int i = 0; i < kTileColumns; ++i) {
        float v[4];
        load_slots<kC>(v, shared, from);
        from += z.columns.stride;
#pragma unroll
        for (int j = 0; j < kWords; ++j)
#pragma unroll
          for (int c = 0; c < kC; ++c) sum[j][i] = fmaf(v[c], weight[j][c], sum[j][i]);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kWords; ++j)
    if (first_word + j < end.words)
      finish_pixels(end, (int64_t(n) * z.p + p) * z.q + q0, min(z.q - q0, kTileColumns), first_word + j, sum[j]);
}

// --------------------------------------------------------------------------------------------------------- backward
// dx rows split by stride into phases: row h = i·stride + phase sums dy rows i + (phase + pad - r·dilation) / stride
// over the taps r for which that is whole; columns likewise. A block computes, in all its phases, 32 columns l and
// 4·row_groups rows i: a phase and 4 rows a warp, a column a lane. Per 16 output channels it stages the tile of dy that
// they all need (each element is read once, but for the halo) and the weights; then a lane loads 4 weights of all its
// channels (broadcast) for 16·kC products, and 4 values of dy for 4·kC. f32 sums run over chunks of 16 output
// channels, then taps, then channels.

constexpr int kChunk = 16, kStored = kChunk + 4;  // floats a pixel in shared memory: 16-byte accesses without conflicts
constexpr int kLaneRows = 4;

// dy rows [first + i, …) and columns likewise that a tile needs, and the sizes of what is staged.
struct DyTile {
  int row_groups, first_row, first_column, rows, columns;
};

DyTile dy_tile(const Conv2d& c) {
  const int phases = int(c.stride_h * c.stride_w), row_groups = phases <= 2 ? 4 : phases <= 4 ? 2 : 1;
  const SlidingAxisOf<int> down = sliding_rows<int>(c), across = sliding_columns<int>(c);
  const IntervalOf<int> rows = down.reached({0, row_groups * kLaneRows * down.stride});
  const IntervalOf<int> columns = across.reached({0, 32 * across.stride});
  return {row_groups, rows.begin, columns.begin, rows.size(), columns.size()};
}
size_t backward_shared(const Conv2d& c) {
  const DyTile t = dy_tile(c);
  return (size_t(t.rows) * size_t(t.columns) * kStored +
          size_t(c.kernel_h * c.kernel_w) * kChunk * slots(int(c.in_channels))) * sizeof(float);
}

// Output channels [k0, k0 + 16) of dy from (top, left) on; zeros outside the map and behind the last channel.
template <typename T>
__device__ __forceinline__ void stage_dy(const Shared<float>& shared, const DyTile& t, const ConvSize& z,
                                         const T* image, int top, int left, int k0, bool aligned) {
  for (int i = int(threadIdx.x); i < t.rows * t.columns * (kChunk / 4); i += int(blockDim.x)) {
    const int pixel = i / (kChunk / 4), k = k0 + i % (kChunk / 4) * 4;
    const int p = top + pixel / t.columns, q = left + pixel % t.columns;
    float4 v{0.f, 0.f, 0.f, 0.f};
    if (p >= 0 && p < z.p && q >= 0 && q < z.q && k < z.k) {
      const T* from = image + (p * z.q + q) * z.k + k;
      if (aligned) {
        v = load_four(from);
      } else {
        v.x = to_float(from[0]);
        if (k + 1 < z.k) v.y = to_float(from[1]);
        if (k + 2 < z.k) v.z = to_float(from[2]);
        if (k + 3 < z.k) v.w = to_float(from[3]);
      }
    }
    shared.template store<float4>(pixel * kStored + k - k0, v);
  }
}

// [tap][k of the chunk][slots]
template <typename T, int kC>
__device__ __forceinline__ void stage_weights(const Shared<float>& shared, const ConvSize& z, const T* krsc, int k0) {
  const int taps = z.rows.kernel * z.columns.kernel;
  for (int i = int(threadIdx.x); i < taps * kChunk; i += int(blockDim.x)) {
    const int tap = i / kChunk, k = k0 + i % kChunk;
#pragma unroll
    for (int c = 0; c < slots(kC); ++c)
      shared[i * slots(kC) + c] = k < z.k && c < z.c ? to_float(krsc[(k * taps + tap) * z.c + c]) : 0.f;
  }
}

// This lane's rows at one tap: sum[i][c] += Σ_k dy[i][k] · w[k][c] over the chunk.
template <int kC>
__device__ __forceinline__ void add_tap(float (&sum)[kLaneRows][kC], const Shared<float>& dy, int pixel, int row_step,
                                        const Shared<float>& weights, int tap) {
#pragma unroll
  for (int k = 0; k < kChunk; k += 4) {
    float w[4][4];
    if constexpr (kC == 1) {
      const float4 four = weights.template load<float4>(tap * kChunk + k);
      w[0][0] = four.x, w[1][0] = four.y, w[2][0] = four.z, w[3][0] = four.w;
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) load_slots<kC>(w[j], weights, tap * kChunk + k + j);
    }
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const float4 v = dy.template load<float4>((pixel + i * row_step) * kStored + k);
#pragma unroll
      for (int c = 0; c < kC; ++c)
        sum[i][c] = fmaf(v.w, w[3][c], fmaf(v.z, w[2][c], fmaf(v.y, w[1][c], fmaf(v.x, w[0][c], sum[i][c]))));
    }
  }
}

template <typename T, int kC>
__global__ void __launch_bounds__(512, 1) first_backward_kernel(ConvSize z, DyTile t, const T* dy, const T* krsc,
                                                             bool aligned, BackwardEnd<T> end) {
  const int dy_floats = t.rows * t.columns * kStored;
  const Shared<float> tile(0, dy_floats);
  const Shared<float> weights(dy_floats * int(sizeof(float)), z.rows.kernel * z.columns.kernel * kChunk * slots(kC));
  const int warp = int(threadIdx.x / 32), lane = int(threadIdx.x & 31);
  const int phases = z.rows.stride * z.columns.stride;
  const int phase_h = warp % phases / z.columns.stride, phase_w = warp % z.columns.stride;
  const int row = warp / phases * kLaneRows;
  const int tiles_w = ((z.w + z.columns.stride - 1) / z.columns.stride + 31) / 32;
  const int i0 = int(blockIdx.x) / tiles_w * t.row_groups * kLaneRows, l0 = int(blockIdx.x) % tiles_w * 32;
  const int n = image();
  if (n >= z.n) return;

  float sum[kLaneRows][kC] = {};
  for (int k0 = 0; k0 < z.k; k0 += kChunk) {
    if (k0 > 0) __syncthreads();  // the last chunk is no longer read
    stage_dy(tile, t, z, dy + int64_t(n) * z.p * z.q * z.k, i0 + t.first_row, l0 + t.first_column, k0, aligned);
    stage_weights<T, kC>(weights, z, krsc, k0);
    __syncthreads();
    for (int r = 0; r < z.rows.kernel; ++r) {
      const int down = phase_h + z.rows.pad - r * z.rows.dilation;
      if (down % z.rows.stride != 0) continue;
      for (int s = 0; s < z.columns.kernel; ++s) {
        const int right = phase_w + z.columns.pad - s * z.columns.dilation;
        if (right % z.columns.stride != 0) continue;
        const int first = (row + down / z.rows.stride - t.first_row) * t.columns;
        add_tap<kC>(sum, tile, first + lane + right / z.columns.stride - t.first_column, t.columns, weights,
                    r * z.columns.kernel + s);
      }
    }
  }
  const int w = (l0 + lane) * z.columns.stride + phase_w;
#pragma unroll
  for (int i = 0; i < kLaneRows; ++i) {
    const int h = (i0 + row + i) * z.rows.stride + phase_h;
    if (h >= z.h || w >= z.w) continue;
#pragma unroll
    for (int c = 0; c < kC; ++c) finish(end, n, h * z.w + w, c, sum[i][c]);
  }
}

// Calls f with the number of channels that kernels are compiled for, as a constant; 2 run as 4.
template <typename F>
void by_channels(int channels, const F& f) {
  if (channels == 1) f(std::integral_constant<int, 1>());
  else if (channels == 3) f(std::integral_constant<int, 3>());
  else f(std::integral_constant<int, 4>());
}

}  // namespace

bool first_layer_fits(const Conv2d& c, bool backward) {
  if (c.groups != 1 || c.in_channels > 4) return false;
  if (!backward) return forward_shared(c) <= kMaxShared;
  return c.stride_h <= 4 && c.stride_w <= 4 && backward_shared(c) <= kMaxShared;
}

void first_layer_forward(Context& ctx, const ConvWeights& weights, ConstView x, View y, const Epilogue& epilogue) {
  if (first_layer_on_tensor_cores(weights.conv(), x.dtype, false))
    return first_layer_forward_mma(ctx, weights, x, y, epilogue);
  const ConvSize z = conv_size(weights.conv(), x.shape);
  const auto* bias = static_cast<const float*>(packed_weights(ctx, weights, ConvPacking::bias, DType::f32));
  const int64_t words = gate_words_per_pixel(z.k), tiles = ceil_div(z.p, kTileRows) * ceil_div(z.q, kTileColumns);
  const int words_at_once = words > 1 ? 2 : 1;
  const dim3 grid = image_grid(tiles * ceil_div(words, words_at_once), z.n);
  by_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    const auto* rsck = static_cast<const T*>(packed_weights(ctx, weights, ConvPacking::rsck, x.dtype));
    by_channels(z.c, [&](auto channels) {
      launch(ctx, {"conv_first", y.shape, grid, dim3(32 * kTileRows), forward_shared(weights.conv())},
             words_at_once == 2 ? first_forward_kernel<T, channels(), 2> : first_forward_kernel<T, channels(), 1>, z,
             input_tile(weights.conv()), x.as<T>(), rsck, forward_end<T>(y, bias, epilogue));
    });
  });
}

void first_layer_backward(Context& ctx, const ConvWeights& weights, ConstView dy, View dx,
                          const BackwardEpilogue& epilogue) {
  if (first_layer_on_tensor_cores(weights.conv(), dy.dtype, true))
    return first_layer_backward_mma(ctx, weights, dy, dx, epilogue);
  const ConvSize z = conv_size(weights.conv(), dx.shape);
  const DyTile tile = dy_tile(weights.conv());
  const int64_t tiles = ceil_div(ceil_div(z.h, z.rows.stride), tile.row_groups * kLaneRows) *
                        ceil_div(ceil_div(z.w, z.columns.stride), 32);
  const dim3 grid = image_grid(tiles, z.n), block(unsigned(32 * z.rows.stride * z.columns.stride * tile.row_groups));
  by_type(dy.dtype, [&](auto type) {
    using T = decltype(type);
    const auto* krsc = static_cast<const T*>(packed_weights(ctx, weights, ConvPacking::krsc, dy.dtype));
    by_channels(z.c, [&](auto channels) {
      launch(ctx, {"conv_first_backward", dx.shape, grid, block, backward_shared(weights.conv())},
             first_backward_kernel<T, channels()>, z, tile, dy.as<T>(), krsc, rows_aligned(dy.data, z.k),
             backward_end<T>(dx, epilogue));
    });
  });
}

}  // namespace switchback::SB_DEVICE
