// Linear layers, and convolutions that cover the whole map, which are linear layers over (h, w, c). Three ways:
//   cuBLASLt  where ctx.conv allows it
//   GEMM      gemm.cuh with m = item
//   stream    the kernel below: a few items in f32, or what GEMM does not take; ctx.conv = direct
// GEMM and stream add the same products in the same order (GemmProblem::segments), so that the batch may decide.
#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/conv/conv.cuh"
#include "kernels/gemm/gemm.cuh"
#include "kernels/device/vendor.cuh"

namespace switchback::SB_DEVICE {

namespace {

constexpr int kItems = 16;   // of a block of the stream kernel at most
constexpr int kUnroll = 32;  // weights that a thread has on their way at once
constexpr int64_t kPartialBytes = int64_t(64) << 20;

// out[n, j] = sum over k of in[n, k] · weight[k, j], of items [first, end), k in segments.
struct StreamProblem {
  const void* in = nullptr;      // [n, depth]
  const void* weight = nullptr;  // [depth, columns]
  float* partial = nullptr;      // [segments, end - first, columns], or null: there is one segment
  int depth = 0, columns = 0;
  int segment = 0;  // products in each but the last
  int first = 0, end = 0;
};

template <int X, typename T>
__device__ __forceinline__ void load_inputs(const T* p, float (&x)[X]) {
  if constexpr (X == 4) {
    const float4 v = load_four(p);
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
  } else {
    x[0] = to_float(*p);
  }
}

// K products of each of `items` <= Items items of `in` ([items, depth]), in the order of k.
template <int K, int Items, int X, typename T>
__device__ __forceinline__ void accumulate(float (&sums)[Items], const T* in, const T* weight, int items, int depth,
                                           int columns) {
  float w[K];
#pragma unroll
  for (int k = 0; k < K; ++k) w[k] = to_float(weight[int64_t(k) * columns]);
#pragma unroll
  for (int i = 0; i < Items; ++i) {
    if (i > 0 && i >= items) break;
#pragma unroll
    for (int k = 0; k < K; k += X) {
      float x[X];
      load_inputs(in + int64_t(i) * depth + k, x);
#pragma unroll
      for (int v = 0; v < X; ++v) sums[i] = fmaf(x[v], w[k + v], sums[i]);
    }
  }
}

// This lane has column `column` of item n, or none where that is past the end; a warp's are neighbours.
template <typename T>
__device__ __forceinline__ void finish_column(const ForwardEnd<T>& e, int n, int column, float v) {
  if (column / 32 < e.words) finish(e, n, column / 32, v);
}
template <typename T>
__device__ __forceinline__ void finish_column(const BackwardEnd<T>& e, int n, int column, float v) {
  const int place = column / e.channels;
  if (place < e.places) finish(e, n, place, column - place * e.channels, v);
}

// A thread has one column of up to Items items. Weights are read once, coalesced and without a detour; inputs are the
// same for all lanes and come from L1. By count an H200 reads a warp's 4 KB of weights (32 rows) in 200 cycles of its
// SM and needs 128 for the FMAs with 16 items: memory-bound. Blocks: x columns, y segments, z items.
template <typename T, int Items, int X, typename End>
__global__ void __launch_bounds__(128) stream_kernel(StreamProblem p, End end) {
  const int column = int(blockIdx.x * blockDim.x + threadIdx.x);
  const int first = p.first + int(blockIdx.z) * Items, items = min(Items, p.end - first);
  const int k0 = int(blockIdx.y) * p.segment, k1 = min(k0 + p.segment, p.depth);
  const T* in = static_cast<const T*>(p.in) + int64_t(first) * p.depth;
  const T* weight = static_cast<const T*>(p.weight) + min(column, p.columns - 1);  // any will do past the end
  float sums[Items] = {};
  int k = k0;
  for (; k + kUnroll <= k1; k += kUnroll)
    accumulate<kUnroll, Items, X>(sums, in + k, weight + int64_t(k) * p.columns, items, p.depth, p.columns);
  for (; k < k1; ++k) accumulate<1, Items, 1>(sums, in + k, weight + int64_t(k) * p.columns, items, p.depth, p.columns);
  const int64_t row = int64_t(blockIdx.y) * (p.end - p.first) + first - p.first;
#pragma unroll
  for (int i = 0; i < Items; ++i) {
    if (i >= items) break;
    if (!p.partial) finish_column(end, first + i, column, sums[i]);
    else if (column < p.columns) p.partial[(row + i) * p.columns + column] = sums[i];
  }
}

// Adds the segments' sums in order, and finishes. Warps: 32 columns of an item; a grid of items.
template <typename End>
__global__ void __launch_bounds__(128) finish_sums_kernel(StreamProblem p, int segments, End end) {
  const int column = int(blockIdx.x * blockDim.x + threadIdx.x);
  const int n = p.first + image();
  if (n >= p.end) return;
  const int64_t stride = int64_t(p.end - p.first) * p.columns;
  const float* partial = p.partial + int64_t(n - p.first) * p.columns + min(column, p.columns - 1);
  float sum = 0.f;
  for (int s = 0; s < segments; ++s) sum += partial[s * stride];
  finish_column(end, n, column, sum);
}

template <typename T, typename End>
void launch_stream(Context& ctx, const Launch& l, const StreamProblem& p, const End& end, int items) {
  if constexpr (std::is_same_v<T, float>) {
    if (rows_aligned(p.in, p.depth)) {
      if (items == 1) return launch(ctx, l, stream_kernel<T, 1, 4, End>, p, end);
      return launch(ctx, l, stream_kernel<T, kItems, 4, End>, p, end);
    }
  }
  launch(ctx, l, stream_kernel<T, kItems, 1, End>, p, end);
}

unsigned block_threads(int columns) { return std::min(128u, 32 * unsigned(ceil_div(columns, 32))); }

template <typename End>
void finish_sums(Context& ctx, const char* op, const StreamProblem& p, int segments, Shape out, const End& end) {
  const unsigned threads = block_threads(p.columns);
  const dim3 grid = image_grid(ceil_div(p.columns, threads), p.end - p.first);
  launch(ctx, {op, out, grid, dim3(threads)}, finish_sums_kernel<End>, p, segments, end);
}

// `weight` is [depth, columns]; where the sums are cut is as in `gemm`.
template <typename T, typename End>
void stream(Context& ctx, const char* op, const GemmProblem& gemm, const void* weight, Shape out, const End& end) {
  const int64_t segment = std::min<int64_t>(int64_t(gemm.segment_steps) * kGemmStepBytes / sizeof(T), gemm.depth);
  const int64_t segments = ceil_div(gemm.depth, segment), item_bytes = segments * gemm.columns * int64_t(sizeof(float));
  const int64_t batch = segments == 1 ? gemm.n : std::clamp<int64_t>(kPartialBytes / item_bytes, 1, gemm.n);
  float* partial = segments == 1 ? nullptr : static_cast<float*>(ctx.scratch.reserve(size_t(batch * item_bytes)));
  const unsigned threads = block_threads(gemm.columns);
  for (int64_t first = 0; first < gemm.n; first += batch) {
    const int64_t items = std::min(batch, gemm.n - first);
    const StreamProblem p{.in = gemm.in, .weight = weight, .partial = partial, .depth = gemm.depth,
                          .columns = gemm.columns, .segment = int(segment), .first = int(first),
                          .end = int(first + items)};
    const dim3 grid(unsigned(ceil_div(gemm.columns, threads)), unsigned(segments), unsigned(ceil_div(items, kItems)));
    launch_stream<T>(ctx, {op, out, grid, dim3(threads)}, p, end, int(items));
    if (partial) finish_sums(ctx, op, p, int(segments), out, end);
  }
}

template <typename End>
void vendor(Context& ctx, const Product& product, Shape out, const End& end) {
  StreamProblem p;
  p.partial = cublas_sums(ctx, product);
  p.columns = int(out.item());
  p.end = int(out.n);
  finish_sums(ctx, product.op, p, 1, out, end);
}

// --- the layers

// A linear layer as kernels see it, wherever it comes from.
struct Layer {
  const char* op;
  int64_t in_features, out_features;
  // On the device, as the activations: [out, in] or [in, out]; where `tf32`, rounded for a GEMM.
  std::function<const void*(bool transposed, bool tf32)> weight;
};

enum class Way { vendor, gemm, stream };

Way way_of(Context& ctx, const GemmProblem& gemm, const Product& product) {
  std::string why_not;
  if (ctx.conv == ConvAlgorithm::vendor) return Way::vendor;  // which throws where there is none
  if (ctx.conv == ConvAlgorithm::automatic && cublas_fits(ctx, product, why_not)) return Way::vendor;
  if (ctx.conv == ConvAlgorithm::direct || !gemm_supports(gemm)) return Way::stream;
  const bool fma = gemm.dtype == DType::f32 && !gemm.tf32;  // tensor cores add in an order of their own
  return fma && gemm.n <= kItems && ctx.conv != ConvAlgorithm::gemm ? Way::stream : Way::gemm;
}

void forward(Context& ctx, const Layer& layer, ConstView x, View y, const float* bias, const Epilogue& epilogue) {
  CHECK(!epilogue.pool, "{}: a linear layer has no fused pool", layer.op);
  Product product{layer.op, x.shape.n, layer.in_features, layer.out_features, false, x.dtype, epilogue.tf32,
                  x.data, nullptr};
  GemmProblem gemm = linear_problem(x.dtype, x.shape.n, layer.in_features, layer.out_features, x.data, nullptr);
  gemm.tf32 = epilogue.tf32;
  const Way way = way_of(ctx, gemm, product);
  if (way == Way::gemm) {
    gemm.weight = layer.weight(false, gemm.tf32);
    return run_gemm(ctx, layer.op, gemm, y, bias, epilogue);
  }
  by_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    const auto end = forward_end<T>(y, bias, epilogue);
    if (way == Way::stream) return stream<T>(ctx, layer.op, gemm, layer.weight(true, false), y.shape, end);
    product.weight = layer.weight(false, false);
    vendor(ctx, product, y.shape, end);
  });
}

void backward(Context& ctx, const Layer& layer, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  Product product{layer.op, dy.shape.n, layer.in_features, layer.out_features, true, dy.dtype, epilogue.tf32,
                  dy.data, nullptr};
  GemmProblem gemm = linear_problem(dy.dtype, dy.shape.n, layer.out_features, layer.in_features, dy.data, nullptr);
  gemm.tf32 = epilogue.tf32;
  gemm.whole_map = dx.shape.h * dx.shape.w > 1;
  const Way way = way_of(ctx, gemm, product);
  if (way == Way::gemm) {
    gemm.weight = layer.weight(true, gemm.tf32);
    return run_gemm(ctx, layer.op, gemm, dx, epilogue);
  }
  by_type(dy.dtype, [&](auto type) {
    using T = decltype(type);
    const auto end = backward_end<T>(dx, epilogue);
    if (way == Way::stream) return stream<T>(ctx, layer.op, gemm, layer.weight(false, false), dx.shape, end);
    product.weight = layer.weight(false, false);
    vendor(ctx, product, dx.shape, end);
  });
}

// --- linear_forward, linear_backward_data

enum class Packing { weight, transposed, bias };  // what lies in a LinearWeights' DeviceCache, the first two by type

// A thread an element of [out, in], or of [in, out] where `transposed`.
template <typename T>
__global__ void pack_kernel(int in, int out, bool transposed, bool tf32, const float* w, T* packed) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= int64_t(in) * out) return;
  const float v = w[transposed ? at % out * in + at / out : at];
  packed[at] = from_float<T>(tf32 ? __uint_as_float(to_tf32(v)) : v);
}

const void* device_weight(Context& ctx, const LinearWeights& weights, DType dtype, bool transposed, bool tf32) {
  const Packing packing = transposed ? Packing::transposed : Packing::weight;
  const int64_t in = weights.linear.in_features, out = weights.linear.out_features, count = in * out;
  const bool rounded = tf32 && dtype == DType::f32;
  const int kind = rounded ? 3 : int(dtype);
  return weights.packed->device.get(ctx, int(packing) + 3 * kind, size_t(count) * size_of(dtype), [&](void* to) {
    const Memory w(ctx.gpu, size_t(count) * sizeof(float));
    ctx.copy_in(w.data(), weights.weight, w.size());
    by_type(dtype, [&](auto type) {
      using T = decltype(type);
      launch(ctx, {"pack", {1, out, in, 1}, dim3(unsigned(ceil_div(count, 256))), dim3(256)}, pack_kernel<T>, int(in),
             int(out), transposed, rounded, static_cast<const float*>(w.as<float>()), static_cast<T*>(to));
    });
    ctx.synchronize();
  });
}

const float* device_bias(Context& ctx, const LinearWeights& weights) {
  if (!weights.linear.has_bias || !weights.bias) return nullptr;
  return static_cast<const float*>(weights.packed->device.get(ctx, int(Packing::bias), [&] {
    const char* bias = reinterpret_cast<const char*>(weights.bias);
    return std::vector<char>(bias, bias + size_t(weights.linear.out_features) * sizeof(float));
  }));
}

Layer layer_of(Context& ctx, const char* op, const LinearWeights& weights, DType dtype) {
  return {op, weights.linear.in_features, weights.linear.out_features,
          [&ctx, &weights, dtype](bool transposed, bool tf32) {
            return device_weight(ctx, weights, dtype, transposed, tf32);
          }};
}

Layer layer_of(Context& ctx, const char* op, const ConvWeights& weights, DType dtype) {
  const Conv2d& c = weights.conv();
  return {op, c.kernel_h * c.kernel_w * c.in_channels, c.out_channels,
          [&ctx, &weights, dtype](bool transposed, bool tf32) {
            return packed_weights(ctx, weights, transposed ? ConvPacking::rsck : ConvPacking::krsc, dtype, tf32);
          }};
}

}  // namespace

void linear_forward(Context& ctx, const LinearWeights& weights, ConstView x, View y, const Epilogue& epilogue) {
  forward(ctx, layer_of(ctx, "linear_forward", weights, x.dtype), x, y, device_bias(ctx, weights), epilogue);
}

void linear_backward_data(Context& ctx, const LinearWeights& weights, ConstView dy, View dx,
                          const BackwardEpilogue& epilogue) {
  backward(ctx, layer_of(ctx, "linear_backward_data", weights, dy.dtype), dy, dx, epilogue);
}

std::optional<GemmOffer> linear_gemm(Context& ctx, const Linear& l, int64_t n, DType dtype, bool backward, bool tf32) {
  const Product product{"linear", n, l.in_features, l.out_features, backward, dtype, tf32, nullptr, nullptr};
  GemmProblem gemm = backward ? linear_problem(dtype, n, l.out_features, l.in_features, nullptr, nullptr)
                                    : linear_problem(dtype, n, l.in_features, l.out_features, nullptr, nullptr);
  gemm.tf32 = tf32;
  if (way_of(ctx, gemm, product) != Way::gemm) return {};
  return gemm_offer(ctx, gemm, backward);
}

bool whole_map_fits(const Conv2d& c, Shape x) {
  return c.groups == 1 && c.kernel_h == x.h && c.kernel_w == x.w &&
         (c.pad_top | c.pad_left | c.pad_bottom | c.pad_right) == 0;
}

void whole_map_forward(Context& ctx, const ConvWeights& weights, ConstView x, View y, const Epilogue& epilogue) {
  const void* bias = packed_weights(ctx, weights, ConvPacking::bias, DType::f32);
  forward(ctx, layer_of(ctx, "conv2d_forward", weights, x.dtype), x, y, static_cast<const float*>(bias), epilogue);
}

void whole_map_backward(Context& ctx, const ConvWeights& weights, ConstView dy, View dx,
                        const BackwardEpilogue& epilogue) {
  backward(ctx, layer_of(ctx, "conv2d_backward_data", weights, dy.dtype), dy, dx, epilogue);
}

}  // namespace switchback::SB_DEVICE
