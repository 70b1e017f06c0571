// Softmax attention: a warp has one query (y, dq) or one key (dk, dv), and the scores of that one alone. Plain fp32, in an
// order that one item's shape fixes; correct, and not made fast yet.
#include "kernels/attention/attention.h"

#include "kernels/device/channels.cuh"
#include "kernels/device/ops.cuh"

namespace switchback::SB_DEVICE {
namespace {

template <typename T>
struct Inputs {
  const T *q, *k, *v;  // [n,G,T,d], [n,G,S,d], [n,G,S,e]
  int groups, t, s, d, e;
  float scale;
  const float* bias;  // [bias_groups,T,S] or null
  int bias_groups;
  // Of an item's group counted through the batch.
  __device__ __forceinline__ float score(int64_t group, int query, int key) const {
    const T *left = q + (group * t + query) * d, *right = k + (group * s + key) * d;
    float sum = 0.f;
    for (int c = 0; c < d; ++c) sum = fmaf(to_float(left[c]), to_float(right[c]), sum);
    sum *= scale;
    return bias ? sum + bias[(int64_t(group % groups % bias_groups) * t + query) * s + key] : sum;
  }
  // Σ dy·v, the gradient of a probability.
  __device__ __forceinline__ float pull(const T* dy, int64_t group, int key) const {
    const T* value = v + (group * s + key) * e;
    float sum = 0.f;
    for (int c = 0; c < e; ++c) sum = fmaf(to_float(dy[c]), to_float(value[c]), sum);
    return sum;
  }
};
template <typename T>
Inputs<T> inputs_of(const AttentionScores& how, ConstView q, ConstView k, ConstView v) {
  return {q.as<T>(), k.as<T>(), v.as<T>(), int(q.shape.h), int(q.shape.w), int(k.shape.w), int(q.shape.c), int(v.shape.c),
          how.scale, how.bias, int(how.bias_groups)};
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) v += __shfl_xor_sync(kFullMask, v, lanes);
  return v;
}
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) v = fmaxf(v, __shfl_xor_sync(kFullMask, v, lanes));
  return v;
}

// The probabilities of one query, in shared memory; the largest score and the inverse of the sum come back.
template <typename T>
__device__ __forceinline__ float2 probabilities(const Inputs<T>& in, int64_t group, int query, const Shared<float>& p) {
  const int lane = threadIdx.x;
  float most = -INFINITY, sum = 0.f;
  for (int key = lane; key < in.s; key += 32) {
    const float score = in.score(group, query, key);
    p[key] = score;
    most = fmaxf(most, score);
  }
  most = warp_max(most);
  for (int key = lane; key < in.s; key += 32) {
    const float e = expf(p[key] - most);
    p[key] = e;
    sum += e;
  }
  const float share = 1.f / warp_sum(sum);
  for (int key = lane; key < in.s; key += 32) p[key] = p[key] * share;
  return make_float2(most, share);
}

// A warp a query: blockIdx.x = (item·groups + group)·t + query.
template <typename T>
__global__ void attention_forward_kernel(Inputs<T> in, T* y) {
  const Shared<float> p(0, in.s);
  const int64_t group = blockIdx.x / in.t;
  const int query = int(blockIdx.x - group * in.t);
  probabilities(in, group, query, p);
  __syncwarp();
  for (int c = threadIdx.x; c < in.e; c += 32) {
    float sum = 0.f;
    for (int key = 0; key < in.s; ++key) sum = fmaf(p[key], to_float(in.v[(group * in.s + key) * in.e + c]), sum);
    y[int64_t(blockIdx.x) * in.e + c] = from_float<T>(sum);
  }
}

// What keys need of a query of dy: the largest score, the inverse of the sum, and Σ p·g.
template <typename T>
__global__ void attention_rows_kernel(Inputs<T> in, int seeds_per_item, const T* dy, float4* rows) {
  const Shared<float> p(0, in.s);
  const int64_t group = blockIdx.x / in.t;
  const int query = int(blockIdx.x - group * in.t);
  const int64_t kept = group / in.groups / seeds_per_item * in.groups + group % in.groups;
  const float2 top = probabilities(in, kept, query, p);
  float along = 0.f;
  for (int key = threadIdx.x; key < in.s; key += 32)
    along = fmaf(p[key], in.pull(dy + int64_t(blockIdx.x) * in.e, kept, key), along);
  along = warp_sum(along);
  if (threadIdx.x == 0) rows[blockIdx.x] = make_float4(top.x, top.y, along, 0.f);
}

// A warp a query of dq.
template <typename T>
__global__ void attention_queries_kernel(Inputs<T> in, const T* dy, const float4* rows, BackwardEnd<T> end) {
  const Shared<float> ds(0, in.s);
  const int64_t group = blockIdx.x / in.t;
  const int query = int(blockIdx.x - group * in.t), item = int(group / in.groups);
  const int64_t kept = item / end.seeds_per_item * in.groups + group % in.groups;
  const float4 row = rows[blockIdx.x];
  for (int key = threadIdx.x; key < in.s; key += 32) {
    const float p = expf(in.score(kept, query, key) - row.x) * row.y;
    ds[key] = p * (in.pull(dy + int64_t(blockIdx.x) * in.e, kept, key) - row.z);
  }
  __syncwarp();
  for (int c = threadIdx.x; c < in.d; c += 32) {
    float sum = 0.f;
    for (int key = 0; key < in.s; ++key) sum = fmaf(ds[key], to_float(in.k[(kept * in.s + key) * in.d + c]), sum);
    float v[1] = {in.scale * sum};
    finish(end, item, int(group % in.groups) * in.t + query, c, v);
  }
}

// A warp a key of dk, or of dv (kValues): blockIdx.x = (item·groups + group)·s + key.
template <typename T, bool kValues>
__global__ void attention_keys_kernel(Inputs<T> in, const T* dy, const float4* rows, BackwardEnd<T> end) {
  const Shared<float> ds(0, in.t);
  const int64_t group = blockIdx.x / in.s;
  const int key = int(blockIdx.x - group * in.s), item = int(group / in.groups);
  const int64_t kept = item / end.seeds_per_item * in.groups + group % in.groups;
  for (int query = threadIdx.x; query < in.t; query += 32) {
    const float4 row = rows[group * in.t + query];
    const float p = expf(in.score(kept, query, key) - row.x) * row.y;
    ds[query] = kValues ? p : p * (in.pull(dy + (group * in.t + query) * in.e, kept, key) - row.z);
  }
  __syncwarp();
  const int width = kValues ? in.e : in.d;
  const T* by = kValues ? dy + group * in.t * in.e : in.q + kept * in.t * in.d;
  for (int c = threadIdx.x; c < width; c += 32) {
    float sum = 0.f;
    for (int query = 0; query < in.t; ++query) sum = fmaf(ds[query], to_float(by[int64_t(query) * width + c]), sum);
    float v[1] = {kValues ? sum : in.scale * sum};
    finish(end, item, int(group % in.groups) * in.s + key, c, v);
  }
}

constexpr int64_t kMostScores = 12 << 10;  // in the 48 KiB of shared memory that every GPU gives a block

void check_sizes(const char* op, Shape y, int64_t most) {
  CHECK(most <= kMostScores, "{}: attention over {} places; a GPU's kernels hold the scores of {} (the CPU has no such limit)", op,
        most, kMostScores);
  CHECK(y.n * y.h * std::max(y.w, most) < int64_t(1) << 31, "{}: [{},{},{},{}] is too large for one launch", op, y.n, y.c, y.h, y.w);
}

}  // namespace

void attention_forward(Context& ctx, const AttentionScores& scores, ConstView q, ConstView k, ConstView v, View y) {
  const Shape s = y.shape;
  check_sizes("attention_forward", s, k.shape.w);
  if (s.n == 0) return;
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    launch(ctx, {"attention_forward", s, dim3(unsigned(s.n * s.h * s.w)), dim3(32), size_t(k.shape.w) * sizeof(float)},
           attention_forward_kernel<T>, inputs_of<T>(scores, q, k, v), y.as<T>());
  });
}

void attention_backward(Context& ctx, const AttentionScores& scores, int operand, ConstView dy, ConstView q, ConstView k,
                        ConstView v, View dx, const BackwardEpilogue& epilogue) {
  const Shape s = dy.shape;
  check_sizes("attention_backward", s, std::max(k.shape.w, q.shape.w));
  if (s.n == 0) return;
  const dim3 queries(unsigned(s.n * s.h * s.w)), keys(unsigned(s.n * s.h * k.shape.w)), warp(32);
  const size_t of_keys = size_t(k.shape.w) * sizeof(float), of_queries = size_t(q.shape.w) * sizeof(float);
  auto* rows = static_cast<float4*>(ctx.scratch.reserve(size_t(s.n * s.h * s.w) * sizeof(float4)));
  by_type(dx.dtype, [&](auto type) {
    using T = decltype(type);
    const Inputs<T> in = inputs_of<T>(scores, q, k, v);
    launch(ctx, {"attention_backward", s, queries, warp, of_keys}, attention_rows_kernel<T>, in, int(epilogue.seeds_per_item),
           dy.as<T>(), rows);
    const BackwardEnd<T> end = backward_end<T>(dx, epilogue);
    if (operand == 0)
      launch(ctx, {"attention_backward", dx.shape, queries, warp, of_keys}, attention_queries_kernel<T>, in, dy.as<T>(), rows, end);
    else if (operand == 1)
      launch(ctx, {"attention_backward", dx.shape, keys, warp, of_queries}, attention_keys_kernel<T, false>, in, dy.as<T>(), rows, end);
    else
      launch(ctx, {"attention_backward", dx.shape, keys, warp, of_queries}, attention_keys_kernel<T, true>, in, dy.as<T>(), rows, end);
  });
}

}  // namespace switchback::SB_DEVICE
