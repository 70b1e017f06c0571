// First layers of 16-bit elements on tensor cores: VGG's 3->64 takes as long as its bytes then (0.17 ms for 100 images,
// in either direction), where products on the FMA units take two and a half times that. f32 and TF32 stay on the FMA units
// (conv_first.cu), as do kernels whose weights don't fit into registers (forward) or one product (backward), and strides on
// the way back.
#include "kernels/conv/conv.cuh"

namespace switchback::SB_DEVICE {

namespace {

constexpr size_t kMaxShared = 96 << 10;  // every GPU from sm_80 on gives a block that much

// ---------------------------------------------------------------------------------------------------------- forward
// A block computes 32x16 pixels of 32 or 64 output channels, a warp every fourth row of 16. K is walked four taps of four
// channels at a time (zeros behind the last of either); lane t of a quad has tap 4·step + t, so that what it needs of a
// pixel is one access of 8 bytes. The weights wait in registers, dealt out so that a lane gets 8 neighbouring channels of
// a pixel, which is what ends write at once (finish_eight).

constexpr int kForwardRows = 32, kForwardColumns = 16, kForwardWarps = 4;
constexpr int kTapsAStep = 4, kMostSteps = 3, kSlots = 4;

struct InputTile {
  int rows, columns;
};
InputTile input_tile(const Conv2d& c) {
  return {sliding_rows<int>(c).needed({0, kForwardRows}).size(), sliding_columns<int>(c).needed({0, kForwardColumns}).size()};
}
size_t forward_shared(const Conv2d& c) {
  const InputTile tile = input_tile(c);
  return size_t(tile.rows) * size_t(tile.columns) * kSlots * sizeof(uint16_t);
}

// A quad's lane t has channels 8t … 8t + 7 of a word in columns 2t, 2t + 1 of four products: the channel of a word that
// column g of product j computes.
__device__ __forceinline__ int channel_of(int j, int g) { return 8 * (g / 2) + 2 * j + g % 2; }

template <typename T, int kWords>
__global__ void __launch_bounds__(32 * kForwardWarps, 3)
    first_forward_mma_kernel(ConvSize z, InputTile input, const T* x, const T* krsc, bool wide, ForwardEnd<T> end) {
  const Shared<T> shared(0, input.rows * input.columns * kSlots);
  const int groups = (end.words + kWords - 1) / kWords, tiles_w = (z.q + kForwardColumns - 1) / kForwardColumns;
  const int first_word = int(blockIdx.x) % groups * kWords, tile = int(blockIdx.x) / groups;
  const int p0 = tile / tiles_w * kForwardRows, q0 = tile % tiles_w * kForwardColumns;
  const int warp = int(threadIdx.x / 32), g = int(threadIdx.x & 31) / 4, t = int(threadIdx.x & 3), n = image();
  if (n >= z.n) return;
  const T zero = from_float<T>(0.f);

  const T* from = x + int64_t(n) * z.h * z.w * z.c;
  const int top = z.rows.start(p0), left = z.columns.start(q0);
  for (int i = int(threadIdx.x); i < input.rows * input.columns; i += int(blockDim.x)) {
    const int h = top + i / input.columns, w = left + i % input.columns;
    const bool inside = h >= 0 && h < z.h && w >= 0 && w < z.w;
    const T* pixel = from + (inside ? (h * z.w + w) * z.c : 0);
    T v[kSlots];
#pragma unroll
    for (int c = 0; c < kSlots; ++c) v[c] = inside && c < z.c ? pixel[c] : zero;
    shared.template store<uint2>(kSlots * i, uint2{two(v[0], v[1]), two(v[2], v[3])});
  }

  const int taps = z.rows.kernel * z.columns.kernel;
  uint32_t weights[kMostSteps][4 * kWords][2];
  int place[kMostSteps];  // of this lane's tap, from the first
  bool there[kMostSteps];
#pragma unroll
  for (int s = 0; s < kMostSteps; ++s) {
    const int tap = kTapsAStep * s + t;
    there[s] = tap < taps;
    const int r = tap / z.columns.kernel;
    place[s] = there[s] ? (r * z.rows.dilation * input.columns + (tap - r * z.columns.kernel) * z.columns.dilation) : 0;
#pragma unroll
    for (int j = 0; j < 4 * kWords; ++j) {
      const int channel = 32 * (first_word + j / 4) + channel_of(j % 4, g);
      const bool known = there[s] && channel < z.k;
      const T* w = krsc + (known ? (channel * taps + tap) * z.c : 0);
      T v[kSlots];
#pragma unroll
      for (int c = 0; c < kSlots; ++c) v[c] = known && c < z.c ? w[c] : zero;
      weights[s][j][0] = two(v[0], v[1]), weights[s][j][1] = two(v[2], v[3]);
    }
  }
  const int channel = 32 * first_word + 8 * t;
  float bias[kWords][8];
#pragma unroll
  for (int j = 0; j < kWords; ++j) load_bias(end, channel + 32 * j, bias[j]);
  __syncthreads();

  const int column = g * z.columns.stride, eight = 8 * z.columns.stride;
  for (int row = warp; row < kForwardRows && p0 + row < z.p; row += kForwardWarps) {
    const int first = row * z.rows.stride * input.columns + column;
    float sum[4 * kWords][4] = {};
#pragma unroll
    for (int s = 0; s < kMostSteps; ++s) {
      if (kTapsAStep * s >= taps) break;
      uint2 low = shared.template load<uint2>(kSlots * (first + place[s]));
      uint2 high = shared.template load<uint2>(kSlots * (first + place[s] + eight));
      if (!there[s]) low = high = uint2{0, 0};  // 0 · ∞ would not be 0
      const uint32_t a[4] = {low.x, high.x, low.y, high.y};
#pragma unroll
      for (int j = 0; j < 4 * kWords; ++j) mma_m16n8k16<T>(sum[j], a, weights[s][j]);
    }
    const int64_t pixel = (int64_t(n) * z.p + p0 + row) * z.q + q0 + g;
#pragma unroll
    for (int j = 0; j < kWords; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] = sum[4 * j + i / 2][2 * half + i % 2];
        if (q0 + g + 8 * half < z.q) finish_eight(end, wide, pixel + 8 * half, channel + 32 * j, bias[j], v);
      }
  }
}

// --------------------------------------------------------------------------------------------------------- backward
// Turned round: a block multiplies every pixel of dy that its 16x32 pixels of dx need with the weights of all taps and
// input channels at once (27 columns of 32 for 3x3 and an image's 3), and then a thread adds up what the taps bring to its
// pixel. So dy is read once, straight into registers: a lane has 8 neighbouring channels of a pixel, and K is walked in the
// order that suits that. f32 sums run over output channels, then taps. Strides are 1.

constexpr int kBackwardRows = 16, kBackwardColumns = 32, kBackwardWarps = 8, kProducts = 4;

// dy rows [first + i, …) and columns likewise that a tile needs; `pitch`: from column to column of the products in shared
// memory, of 16 more than it has pixels: 4 mod 16, where a warp's stores meet no bank twice.
struct DyTile {
  int first_row, first_column, rows, columns, pitch;
};
DyTile dy_tile(const Conv2d& c) {
  const SlidingAxisOf<int> down = sliding_rows<int>(c), across = sliding_columns<int>(c);
  const IntervalOf<int> rows = down.reached({0, kBackwardRows}), columns = across.reached({0, kBackwardColumns});
  return {rows.begin, columns.begin, rows.size(), columns.size(),
          int(ceil_div(int64_t(rows.size()) * columns.size(), 16)) * 16 + 4};
}
int products_of(const Conv2d& c) { return int(c.kernel_h * c.kernel_w * c.in_channels); }
size_t weights_bytes(const Conv2d& c) { return size_t(c.out_channels / 16) * kProducts * 32 * sizeof(uint2); }
size_t backward_shared(const Conv2d& c) {
  return size_t(products_of(c)) * size_t(dy_tile(c).pitch) * sizeof(float) + weights_bytes(c);
}

template <typename T, int kC>
__global__ void __launch_bounds__(32 * kBackwardWarps, 2)
    first_backward_mma_kernel(ConvSize z, DyTile tile, const T* dy, const T* krsc, BackwardEnd<T> end) {
  const int taps = z.rows.kernel * z.columns.kernel, columns = taps * kC, steps = z.k / 16;
  const Shared<float> products(0, columns * tile.pitch);
  const Shared<uint32_t> weights(columns * tile.pitch * int(sizeof(float)), steps * kProducts * 32 * 2);
  const int warp = int(threadIdx.x / 32), lane = int(threadIdx.x & 31), g = lane / 4, t = lane % 4, n = image();
  const int tiles_w = (z.w + kBackwardColumns - 1) / kBackwardColumns;
  const int h0 = int(blockIdx.x) / tiles_w * kBackwardRows, w0 = int(blockIdx.x) % tiles_w * kBackwardColumns;
  if (n >= z.n) return;
  const T zero = from_float<T>(0.f);

  // [step][product][lane]: of two steps, lane t has channels 8t … 8t + 7 of 32: the first four, then the others.
  for (int i = int(threadIdx.x); i < steps * kProducts * 32; i += int(blockDim.x)) {
    const int step = i / 32 / kProducts, column = 8 * (i / 32 % kProducts) + i % 32 / 4;
    const int channel = step / 2 * 32 + i % 4 * 8 + step % 2 * 4;
    T v[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) v[k] = column < columns ? krsc[(channel + k) * columns + column] : zero;
    weights.template store<uint2>(2 * i, uint2{two(v[0], v[1]), two(v[2], v[3])});
  }
  __syncthreads();

  const T* from = dy + int64_t(n) * z.p * z.q * z.k;
  const int pixels = tile.rows * tile.columns, top = h0 + tile.first_row, left = w0 + tile.first_column;
  constexpr int on = 16 * kBackwardWarps;
  int row[2], column[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = 16 * warp + 8 * half + g;
    row[half] = i / tile.columns, column[half] = i % tile.columns;
  }
  for (int first = 16 * warp; first < pixels; first += on) {
    const T* pixel[2];
    bool inside[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int p = top + row[half], q = left + column[half];
      inside[half] = p >= 0 && p < z.p && q >= 0 && q < z.q;  // behind the last, too: those sums nobody reads
      pixel[half] = from + (inside[half] ? (p * z.q + q) * z.k + 8 * t : 0);
      row[half] += on / tile.columns, column[half] += on % tile.columns;
      if (column[half] >= tile.columns) ++row[half], column[half] -= tile.columns;
    }
    float sum[kProducts][4] = {};
    for (int k0 = 0; k0 < z.k; k0 += 32) {
      uint4 low{0, 0, 0, 0}, high{0, 0, 0, 0};
      if (inside[0]) low = load_as<uint4>(pixel[0] + k0);
      if (inside[1]) high = load_as<uint4>(pixel[1] + k0);
      const uint32_t a[2][4] = {{low.x, high.x, low.y, high.y}, {low.z, high.z, low.w, high.w}};
#pragma unroll
      for (int step = 0; step < 2; ++step)
#pragma unroll
        for (int j = 0; j < kProducts; ++j) {
          const uint2 w = weights.template load<uint2>((((k0 / 16 + step) * kProducts + j) * 32 + lane) * 2);
          const uint32_t b[2] = {w.x, w.y};
          mma_m16n8k16<T>(sum[j], a[step], b);
        }
    }
#pragma unroll
    for (int j = 0; j < kProducts; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (const int column = 8 * j + 2 * t + i % 2; column < columns)
          products[column * tile.pitch + first + 8 * (i / 2) + g] = sum[j][i];
  }
  __syncthreads();

  for (int i = int(threadIdx.x); i < kBackwardRows * kBackwardColumns; i += int(blockDim.x)) {
    const int h = h0 + i / kBackwardColumns, w = w0 + i % kBackwardColumns;
    if (h >= z.h || w >= z.w) continue;
    float sum[kC] = {};
    int at = (h + z.rows.pad - top) * tile.columns + w + z.columns.pad - left;  // what tap 0 brings
    for (int r = 0; r < z.rows.kernel; ++r, at += z.columns.kernel * z.columns.dilation - z.rows.dilation * tile.columns)
      for (int s = 0; s < z.columns.kernel; ++s, at += kC * tile.pitch - z.columns.dilation)
#pragma unroll
        for (int c = 0; c < kC; ++c) sum[c] += products[at + c * tile.pitch];
#pragma unroll
    for (int c = 0; c < kC; ++c) finish(end, n, h * z.w + w, c, sum[c]);
  }
}

}  // namespace

bool first_layer_on_tensor_cores(const Conv2d& c, DType dtype, bool backward) {
  if (dtype == DType::f32 || c.groups != 1 || c.in_channels > kSlots) return false;
  if (!backward) return c.kernel_h * c.kernel_w <= kTapsAStep * kMostSteps && forward_shared(c) <= kMaxShared;
  return products_of(c) <= 8 * kProducts && c.out_channels % 32 == 0 && (c.in_channels == 1 || c.in_channels == 3) &&
         c.stride_h == 1 && c.stride_w == 1 && backward_shared(c) <= kMaxShared;
}

void first_layer_forward_mma(Context& ctx, const ConvWeights& weights, ConstView x, View y, const Epilogue& epilogue) {
  const ConvSize z = conv_size(weights.conv(), x.shape);
  const auto* bias = static_cast<const float*>(packed_weights(ctx, weights, ConvPacking::bias, DType::f32));
  const int64_t words = gate_words_per_pixel(z.k), at_once = words > 1 ? 2 : 1;
  const int64_t tiles = ceil_div(z.p, kForwardRows) * ceil_div(z.q, kForwardColumns);
  const Launch l{"conv_first", y.shape, image_grid(tiles * ceil_div(words, at_once), z.n), dim3(32 * kForwardWarps),
                 forward_shared(weights.conv())};
  by_type(x.dtype, [&]<typename T>(T) {
    if constexpr (!std::is_same_v<T, float>) {
      const auto* krsc = static_cast<const T*>(packed_weights(ctx, weights, ConvPacking::krsc, x.dtype));
      const auto end = forward_end<T>(y, bias, epilogue);
      launch(ctx, l, at_once == 2 ? first_forward_mma_kernel<T, 2> : first_forward_mma_kernel<T, 1>, z,
             input_tile(weights.conv()), x.as<T>(), krsc, by_eights(end), end);
    }
  });
}

void first_layer_backward_mma(Context& ctx, const ConvWeights& weights, ConstView dy, View dx,
                              const BackwardEpilogue& epilogue) {
  const ConvSize z = conv_size(weights.conv(), dx.shape);
  const int64_t tiles = ceil_div(z.h, kBackwardRows) * ceil_div(z.w, kBackwardColumns);
  const Launch l{"conv_first_backward", dx.shape, image_grid(tiles, z.n), dim3(32 * kBackwardWarps),
                 backward_shared(weights.conv())};
  by_type(dy.dtype, [&]<typename T>(T) {
    if constexpr (!std::is_same_v<T, float>) {
      const auto* krsc = static_cast<const T*>(packed_weights(ctx, weights, ConvPacking::krsc, dy.dtype));
      launch(ctx, l, z.c == 1 ? first_backward_mma_kernel<T, 1> : first_backward_mma_kernel<T, 3>, z,
             dy_tile(weights.conv()), dy.as<T>(), krsc, backward_end<T>(dx, epilogue));
    }
  });
}

}  // namespace switchback::SB_DEVICE
