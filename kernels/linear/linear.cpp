#include "kernels/linear/linear.h"

#include <type_traits>

#include "kernels/device/device_ops.h"
#include "kernels/linear/linear_kernels.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"

namespace switchback {

Shape output_shape(const Linear& linear, Shape x) {
  CHECK(x.c == linear.in_features && x.h == 1 && x.w == 1, "linear: input is [{},{},{},{}], must be [n,{},1,1]", x.n,
        x.c, x.h, x.w, linear.in_features);
  return {x.n, linear.out_features, 1, 1};
}

static void check_call(const char* op, const LinearWeights& weights, ConstView x, ConstView y) {
  const Shape want = output_shape(weights.linear, x.shape);
  CHECK(y.shape == want && x.dtype == y.dtype, "{}: output is [{},{},{},{}] {}, must be [{},{},1,1] {}", op, y.shape.n,
        y.shape.c, y.shape.h, y.shape.w, name_of(y.dtype), want.n, want.c, name_of(x.dtype));
}

static const LinearKernels<float>& kernels(const float*) {
  return cpu_features().avx512 ? linear_avx512_f32 : linear_avx2_f32;
}
static const LinearKernels<uint16_t>& kernels(const uint16_t*) {
  return cpu_features().avx512 ? linear_avx512_bf16 : linear_avx2_bf16;
}

// The weights as the kernels of activation type T want them.
static const float* weight_as(Context&, const LinearWeights& weights, float) { return weights.weight; }
static const uint16_t* weight_as(Context& ctx, const LinearWeights& weights, bf16) {
  const int64_t count = weights.linear.in_features * weights.linear.out_features;
  std::vector<bf16>& packed = weights.packed->weight_bf16;
  if (int64_t(packed.size()) != count) {
    packed.resize(count);
    parallel_ranges(ctx, count, 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) packed[i] = bf16(weights.weight[i]);
    });
  }
  return reinterpret_cast<const uint16_t*>(packed.data());
}

// x as f32: where it lies, or converted into `scratch`.
static const float* as_f32(Context&, const float* x, int64_t, float*) { return x; }
static const float* as_f32(Context& ctx, const bf16* x, int64_t count, float* scratch) {
  parallel_ranges(ctx, count, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) scratch[i] = float(x[i]);
  });
  return scratch;
}

// body(first, last) over [0, count) in pieces of `step`; serial where all the multiplications take a few microseconds.
template <typename Body>
static void split(const Context& ctx, const Linear& linear, int64_t n, int64_t count, int64_t step, const Body& body) {
  const int64_t work = n * linear.in_features * linear.out_features / 32;  // one step of 16 or 32 lanes is an element
  const int64_t pieces = (count + step - 1) / step;
  parallel_ranges(ctx, pieces, work / std::max<int64_t>(pieces, 1),
                  [&](int64_t first, int64_t last) { body(first * step, std::min(last * step, count)); });
}

template <typename T>
static void forward(Context& ctx, const LinearWeights& weights, ConstView x, View y, const Epilogue& epilogue) {
  const Linear& l = weights.linear;
  const int64_t n = x.shape.n, in = l.in_features, out = l.out_features;
  float* scratch = static_cast<float*>(ctx.scratch.reserve(sizeof(float) * (n * out + n * in)));
  const auto* w = weight_as(ctx, weights, T{});
  float* sums = scratch;
  const float* x32 = as_f32(ctx, x.as<T>(), n * in, scratch + n * out);
  split(ctx, l, n, out, 32, [&](int64_t o0, int64_t o1) { kernels(w).forward(w, x32, sums, n, in, out, o0, o1); });
  const ForwardTarget<T> target(y, epilogue);
  const int64_t words = gate_words_per_pixel(out);
  const float* bias = l.has_bias ? weights.bias : nullptr;
  parallel_ranges(ctx, n, out, [&](int64_t first, int64_t last) {
    for (int64_t s = first; s < last; ++s) {
      for (int64_t o = 0; o < out; o += 32) {
        target.write_group(s * out + o, s * words + o / 32, out - o, [&](int v, int lanes) SB_LAMBDA {
          const F8 sum = load8(sums + s * out + o + 8 * v, lanes);
          return bias ? _mm256_add_ps(sum, load8(bias + o + 8 * v, lanes)) : sum;
        });
      }
    }
  });
}

template <typename T>
static void backward(Context& ctx, const LinearWeights& weights, ConstView dy, View dx,
                     const BackwardEpilogue& epilogue) {
  const Linear& l = weights.linear;
  const int64_t n = dy.shape.n, in = l.in_features, out = l.out_features;
  // The sums go straight to dx where nothing is to be added or cut off behind them.
  const bool direct = std::is_same_v<T, float> && !epilogue.other && !epilogue.relu;
  float* scratch = static_cast<float*>(ctx.scratch.reserve(sizeof(float) * (n * out + n * in)));
  const auto* w = weight_as(ctx, weights, T{});
  float* sums = direct ? static_cast<float*>(dx.data) : scratch;
  const float* dy32 = as_f32(ctx, dy.as<T>(), n * out, scratch + n * in);
  split(ctx, l, n, in, 64, [&](int64_t i0, int64_t i1) { kernels(w).backward(w, dy32, sums, n, in, out, i0, i1); });
  if (direct) return;
  const BackwardTarget<T> target(dx, epilogue);
  const int64_t words = gate_words_per_pixel(in);
  parallel_ranges(ctx, n, in, [&](int64_t first, int64_t last) {
    for (int64_t s = first; s < last; ++s) {
      for (int64_t i = 0; i < in; i += 32) {
        target.write_group(s * in + i, s / epilogue.seeds_per_item * words + i / 32, in - i,
                           [&](int v, int lanes) SB_LAMBDA { return load8(sums + s * in + i + 8 * v, lanes); });
      }
    }
  });
}

void linear_forward(Context& ctx, const LinearWeights& weights, ConstView x, View y, const Epilogue& epilogue) {
  check_call("linear_forward", weights, x, y);
  if (ctx.gpu) return ctx.gpu->ops->linear_forward(ctx, weights, x, y, epilogue);
  with_type(x.dtype, "linear_forward", [&](auto type) { forward<decltype(type)>(ctx, weights, x, y, epilogue); });
}

void linear_backward_data(Context& ctx, const LinearWeights& weights, ConstView dy, View dx,
                          const BackwardEpilogue& epilogue) {
  check_call("linear_backward_data", weights, dx, dy);
  check_epilogue(epilogue, "linear_backward_data");
  if (ctx.gpu) return ctx.gpu->ops->linear_backward_data(ctx, weights, dy, dx, epilogue);
  with_type(dx.dtype, "linear_backward_data",
            [&](auto type) { backward<decltype(type)>(ctx, weights, dy, dx, epilogue); });
}

}  // namespace switchback
