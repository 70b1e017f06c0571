// Convolution by its definition: any stride, padding, dilation and groups, in both directions. The reference on the
// device, and what small layers run.
//
// A warp computes 32 neighbouring channels of a few pixels, a channel a lane: weights are read coalesced and once for
// all its pixels, inputs are broadcast. f32 sums run over taps, then channels, in one fmaf chain per element.
#include "kernels/conv/conv.cuh"
#include "kernels/winner.h"

namespace switchback::SB_DEVICE {

namespace {

constexpr int kPixels = 4;  // of a warp, where a map has as many

// sum[i] += Σ_j from[i][j] · w[j·step] for j < count, ascending. Null where a pixel's tap meets padding: all zeros.
template <int P, typename T>
__device__ __forceinline__ void add_products(float (&sum)[P], const T* const (&from)[P], int count, const T* w,
                                             int64_t step, bool aligned) {
  int j = 0;
  if (aligned) {  // four inputs an access
#pragma unroll 1
    for (; j < count; j += 4, w += 4 * step) {
      const float w0 = to_float(w[0]), w1 = to_float(w[step]), w2 = to_float(w[2 * step]), w3 = to_float(w[3 * step]);
#pragma unroll
      for (int i = 0; i < P; ++i) {
        const float4 v = from[i] ? load_four(from[i] + j) : float4{0.f, 0.f, 0.f, 0.f};
        sum[i] = fmaf(v.w, w3, fmaf(v.z, w2, fmaf(v.y, w1, fmaf(v.x, w0, sum[i]))));
      }
    }
  }
#pragma unroll 2
  for (; j < count; ++j, w += step) {
    const float weight = to_float(*w);
#pragma unroll
    for (int i = 0; i < P; ++i) sum[i] = fmaf(from[i] ? to_float(from[i][j]) : 0.f, weight, sum[i]);
  }
}

// The sums of output channel `channel` at P pixels whose windows start at (top, left) of the padded image `x`.
template <int P, typename T>
__device__ __forceinline__ void correlate(float (&sum)[P], const ConvSize& z, const T* x, const T* rsck, int channel,
                                          const int (&top)[P], const int (&left)[P], bool aligned) {
  const int first_c = channel / z.group_k * z.group_c;
  for (int r = 0; r < z.rows.kernel; ++r) {
    for (int s = 0; s < z.columns.kernel; ++s) {
      const T* from[P];
#pragma unroll
      for (int i = 0; i < P; ++i) {
        const int h = top[i] + r * z.rows.dilation, w = left[i] + s * z.columns.dilation;
        const bool inside = h >= 0 && h < z.h && w >= 0 && w < z.w;
        from[i] = inside ? x + (h * z.w + w) * z.c + first_c : nullptr;
      }
      add_products(sum, from, z.group_c, rsck + int64_t(r * z.columns.kernel + s) * z.group_c * z.k + channel, z.k, aligned);
    }
  }
}

template <typename T, int P>
__global__ void __launch_bounds__(128, 4) direct_forward_kernel(ConvSize z, const T* x, const T* rsck, bool aligned,
                                                             ForwardEnd<T> end) {
  const int unit = warp_unit(), word = unit % end.words, first = unit / end.words * P, places = z.p * z.q;
  const int n = image();
  if (first >= places || n >= z.n) return;
  const int channel = min(32 * word + int(threadIdx.x & 31), z.k - 1);
  int top[P], left[P];
#pragma unroll
  for (int i = 0; i < P; ++i) {
    const int place = min(first + i, places - 1);
    top[i] = z.rows.start(place / z.q);
    left[i] = z.columns.start(place % z.q);
  }
  float sum[P] = {};
  correlate(sum, z, x + int64_t(n) * z.h * z.w * z.c, rsck, channel, top, left, aligned);
#pragma unroll
  for (int i = 0; i < P; ++i)
    if (first + i < places) finish(end, int64_t(n) * places + first + i, word, sum[i]);
}

// A max pool behind it. The map is cut into cells of which each holds one window: a window's places where nobody asks
// for more, else (gates at the convolution's size) a stride's, and then the last cells may be cut and without a window.
template <typename T>
struct PoolEnd {
  ForwardEnd<T> end;  // y and switches are of the pooled size, so are gates where relu_last
  void* switches;
  bool wide_switches, relu_last;
  int kernel_h, kernel_w, stride_h, stride_w;
  int h, w;                                   // the pooled map
  int cell_h, cell_w, cell_rows, cell_columns;
};

template <typename T>
PoolEnd<T> pool_end(Shape conv, View y, const float* bias, const Epilogue& e) {
  const MaxPool2d& pool = *e.pool;
  const bool everywhere = e.gates && !e.pool_before_relu;
  PoolEnd<T> end{forward_end<T>(y, bias, e), e.switches, pool.switch_bytes() == 2, e.pool_before_relu,
                 int(pool.kernel_h), int(pool.kernel_w), int(pool.stride_h), int(pool.stride_w), int(y.shape.h),
                 int(y.shape.w), int(pool.kernel_h), int(pool.kernel_w), int(y.shape.h), int(y.shape.w)};
  if (everywhere) {
    end.cell_h = end.stride_h, end.cell_rows = int(ceil_div(conv.h, end.stride_h));
    end.cell_w = end.stride_w, end.cell_columns = int(ceil_div(conv.w, end.stride_w));
    if (end.end.above) end.end.above = e.gates + gate_words(conv);
  }
  return end;
}

template <typename T>
__device__ __forceinline__ void write_winner(const PoolEnd<T>& e, int64_t pixel, int word, bool live,
                                             const Winner& winner) {
  const int64_t at = pixel * e.end.channels + 32 * word + (threadIdx.x & 31);
  const float v = winner.best;
  if (live) {
    e.end.y[pixel * e.end.pitch + 32 * word + (threadIdx.x & 31)] =
        from_float<T>(e.relu_last ? e.end.act(v) : v);
    if (e.switches && e.wide_switches) static_cast<uint16_t*>(e.switches)[at] = uint16_t(winner.place);
    else if (e.switches) static_cast<uint8_t*>(e.switches)[at] = uint8_t(winner.place);
  }
  if (e.relu_last && e.end.gates) write_gates(e.end, pixel, word, live, v);
}

// A warp: 32 channels of one cell, its places P at a time in row-major order. Values meet as the convolution alone
// would have stored them.
template <typename T, int P>
__global__ void __launch_bounds__(128, 4) direct_pool_kernel(ConvSize z, const T* x, const T* rsck, bool aligned,
                                                          PoolEnd<T> e) {
  const int unit = warp_unit(), word = unit % e.end.words, cell = unit / e.end.words, n = image();
  if (cell >= e.cell_rows * e.cell_columns || n >= z.n) return;
  const int cell_row = cell / e.cell_columns, cell_column = cell % e.cell_columns;
  const int p0 = cell_row * e.stride_h, q0 = cell_column * e.stride_w;
  const int height = min(e.cell_h, z.p - p0), width = min(e.cell_w, z.q - q0);
  const bool has_window = cell_row < e.h && cell_column < e.w;
  const bool live = 32 * word + int(threadIdx.x & 31) < z.k;
  const int channel = min(32 * word + int(threadIdx.x & 31), z.k - 1);
  const float bias = e.end.bias ? e.end.bias[channel] : 0.f;
  Winner winner;
  for (int first = 0; first < height * width; first += P) {
    int top[P], left[P];
#pragma unroll
    for (int i = 0; i < P; ++i) {
      const int place = min(first + i, height * width - 1);
      top[i] = z.rows.start(p0 + place / width);
      left[i] = z.columns.start(q0 + place % width);
    }
    float sum[P] = {};
    correlate(sum, z, x + int64_t(n) * z.h * z.w * z.c, rsck, channel, top, left, aligned);
#pragma unroll
    for (int i = 0; i < P; ++i) {
      if (first + i >= height * width) break;
      const int row = (first + i) / width, column = (first + i) % width;
      float v = sum[i] + bias;
      if (!e.relu_last && e.end.gates)
        write_gates(e.end, (int64_t(n) * z.p + p0 + row) * z.q + q0 + column, word, live, v);
      if (!e.relu_last) v = e.end.act(v);
      if (row < e.kernel_h && column < e.kernel_w)
        winner.meet(to_float(from_float<T>(v)), row * e.kernel_w + column);
    }
  }
  if (has_window) write_winner(e, (int64_t(n) * e.h + cell_row) * e.w + cell_column, word, live, winner);
}

// dx[h,w,c] = Σ over the taps (r,s) whose output pixel exists, then over k. Lanes hold input channels; the krsc weights
// are contiguous over them. With a stride, most taps meet no output pixel; P = 1 then skips them.
template <typename T, int P>
__global__ void __launch_bounds__(128, 4) direct_backward_kernel(ConvSize z, const T* dy, const T* krsc, bool aligned,
                                                              BackwardEnd<T> end) {
  const int unit = warp_unit(), first = unit / end.words * P, n = image();
  const int channel = 32 * (unit % end.words) + int(threadIdx.x & 31);
  if (first >= end.places || channel >= z.c || n >= z.n) return;
  const int first_k = channel / z.group_c * z.group_k, taps = z.rows.kernel * z.columns.kernel;
  const T* item = dy + int64_t(n) * z.p * z.q * z.k + first_k;
  float sum[P] = {};
  for (int tap = 0; tap < taps; ++tap) {
    const int r = tap / z.columns.kernel, s = tap % z.columns.kernel;
    const T* from[P];
    bool any = false;
#pragma unroll
    for (int i = 0; i < P; ++i) {
      const int place = min(first + i, end.places - 1);
      const int p = z.rows.output(place / z.w, r, z.p), q = z.columns.output(place % z.w, s, z.q);
      const bool exists = p >= 0 && q >= 0;
      from[i] = exists ? item + (p * z.q + q) * z.k : nullptr;
      any |= exists;
    }
    if (!any) continue;
    const T* w = krsc + (int64_t(first_k) * taps + tap) * z.group_c + channel % z.group_c;
    add_products(sum, from, z.group_k, w, int64_t(taps) * z.group_c, aligned);
  }
#pragma unroll
  for (int i = 0; i < P; ++i)
    if (first + i < end.places) finish(end, n, first + i, channel, sum[i]);
}

template <typename T, int P>
void launch_forward(Context& ctx, const ConvSize& z, const T* x, const T* rsck, View y, const float* bias,
                    const Epilogue& epilogue) {
  const bool aligned = rows_aligned(x, z.group_c);
  const int64_t words = gate_words_per_pixel(z.k);
  if (epilogue.pool) {
    const auto end = pool_end<T>({z.n, z.k, z.p, z.q}, y, bias, epilogue);
    launch(ctx, warp_launch("conv_direct_pool", y.shape, int64_t(end.cell_rows) * end.cell_columns * words),
           direct_pool_kernel<T, P>, z, x, rsck, aligned, end);
  } else {
    launch(ctx, warp_launch("conv_direct", y.shape, ceil_div(int64_t(z.p) * z.q, P) * words),
           direct_forward_kernel<T, P>, z, x, rsck, aligned, forward_end<T>(y, bias, epilogue));
  }
}

}  // namespace

bool direct_fuses_pool(const MaxPool2d& pool, Shape y) {
  const Shape pooled = output_shape(pool, y);
  const auto fits = [](const SlidingAxis& s, int64_t pad_end, int64_t in, int64_t out) {
    return s.pad == 0 && pad_end == 0 && s.dilation == 1 && s.stride >= s.kernel && s.needed({0, out}).end <= in;
  };
  return fits(sliding_rows(pool), pool.pad_bottom, y.h, pooled.h) &&
         fits(sliding_columns(pool), pool.pad_right, y.w, pooled.w);
}

void direct_forward(Context& ctx, const ConvWeights& weights, ConstView x, View y, const Epilogue& epilogue) {
  const ConvSize z = conv_size(weights.conv(), x.shape);
  const auto* bias = static_cast<const float*>(packed_weights(ctx, weights, ConvPacking::bias, DType::f32));
  by_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    const auto* rsck = static_cast<const T*>(packed_weights(ctx, weights, ConvPacking::rsck, x.dtype));
    const bool several = epilogue.pool ? epilogue.pool->window() >= kPixels : z.p * z.q >= kPixels;
    if (several) launch_forward<T, kPixels>(ctx, z, x.as<T>(), rsck, y, bias, epilogue);
    else launch_forward<T, 1>(ctx, z, x.as<T>(), rsck, y, bias, epilogue);
  });
}

void direct_backward(Context& ctx, const ConvWeights& weights, ConstView dy, View dx,
                     const BackwardEpilogue& epilogue) {
  const ConvSize z = conv_size(weights.conv(), dx.shape);
  const int64_t words = gate_words_per_pixel(z.c), places = int64_t(z.h) * z.w;
  const bool aligned = rows_aligned(dy.data, z.group_k), several = z.rows.stride * z.columns.stride == 1 && places >= kPixels;
  by_type(dy.dtype, [&](auto type) {
    using T = decltype(type);
    const auto* krsc = static_cast<const T*>(packed_weights(ctx, weights, ConvPacking::krsc, dy.dtype));
    launch(ctx, warp_launch("conv_direct_backward", dx.shape, ceil_div(places, several ? kPixels : 1) * words),
           several ? direct_backward_kernel<T, kPixels> : direct_backward_kernel<T, 1>, z, dy.as<T>(), krsc, aligned,
           backward_end<T>(dx, epilogue));
  });
}

}  // namespace switchback::SB_DEVICE
