// Activations besides the ReLU: a thread takes V neighbouring channels of a pixel; warps meet only to write gate words.
#include "kernels/pointwise/activation.h"

#include "kernels/move/gather.cuh"
#include "kernels/device/ops.cuh"

namespace switchback::SB_DEVICE {
namespace {

__device__ __forceinline__ float slope_of(const Slopes& slopes, int channel) {
  return slopes.by_channel ? slopes.by_channel[channel] : slopes.all;
}

// Where the gate words of a tensor go; every lane of a warp calls write.
struct GateWriter {
  uint32_t *inside, *above;  // either may be null
  int words;
  template <int V>
  __device__ __forceinline__ void write(const Spread& spread, const Spot& spot, uint32_t bits, uint32_t bits_above) const {
    if (!inside) return;
    const bool writes = spot.live && spot.channel % 32 == 0;
    const int64_t at = pixel_of(spread, spot) * words + spot.channel / 32;
    bits = gate_word<V>(bits, spot.channel);
    if (writes) inside[at] = bits;
    if (!above) return;
    bits_above = gate_word<V>(bits_above, spot.channel);
    if (writes) above[at] = bits_above;
  }
};

template <typename T, int V>
__global__ void slope_forward_kernel(Spread spread, Slopes slopes, const T* x, T* y, GateWriter gates) {
  const Spot spot = spot_of<V>(spread);
  uint32_t open = 0;
  if (spot.live) {
    const int64_t at = pixel_of(spread, spot) * spread.channels + spot.channel;
    float v[V];
    load_channels(x + at, v);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      open |= uint32_t(v[i] > 0.f) << i;
      v[i] = v[i] > 0.f ? v[i] : slope_of(slopes, spot.channel + i) * v[i];
    }
    store_channels(y + at, v);
  }
  gates.write<V>(spread, spot, open, 0);
}

template <typename T, int V>
__global__ void slope_backward_kernel(Spread spread, Slopes slopes, const T* dy, const uint32_t* gates, ReluRule rule,
                                      BackwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  float g[V];
  load_channels(dy + pixel_of(spread, spot) * spread.channels + spot.channel, g);
  uint32_t open = ~0u;
  if (rule.gate_forward)
    open = gates[kept_pixel_of(end, spot) * end.words + spot.channel / 32] >> (spot.channel & 31);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const bool through = (open >> i & 1u) && (!rule.gate_gradient || g[i] > 0.f);
    g[i] = through ? g[i] : slope_of(slopes, spot.channel + i) * g[i];
  }
  finish(end, spot.item, spot.place, spot.channel, g);
}

template <typename T, int V>
__global__ void ramp_forward_kernel(Spread spread, Ramp ramp, const T* x, T* y, GateWriter gates) {
  const Spot spot = spot_of<V>(spread);
  const Limits limits{ramp.min, ramp.max};
  uint32_t inside = 0, above = 0;
  if (spot.live) {
    const int64_t at = pixel_of(spread, spot) * spread.channels + spot.channel;
    float v[V];
    load_channels(x + at, v);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float s = fmaf(ramp.scale, v[i], ramp.shift);
      inside |= uint32_t(limits.inside(s)) << i;
      above |= uint32_t(limits.above(s)) << i;
      v[i] = limits.value(s);
    }
    store_channels(y + at, v);
  }
  gates.write<V>(spread, spot, inside, above);
}

template <typename T, int V>
__global__ void ramp_backward_kernel(Spread spread, float scale, const T* dy, const uint32_t* gates, BackwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  float g[V];
  load_channels(dy + pixel_of(spread, spot) * spread.channels + spot.channel, g);
  const uint32_t inside = gates[kept_pixel_of(end, spot) * end.words + spot.channel / 32] >> (spot.channel & 31);
#pragma unroll
  for (int i = 0; i < V; ++i) g[i] = inside >> i & 1u ? scale * g[i] : 0.f;
  finish(end, spot.item, spot.place, spot.channel, g);
}

// --- smooth functions

// 1 / (1 + z) or z / (1 + z) with z = e^-|x|: nothing overflows, and small values keep their digits.
__device__ __forceinline__ float sigmoid_of(float x) {
  const float z = expf(-fabsf(x));
  return (x < 0.f ? z : 1.f) / (1.f + z);
}
// z / (1 + z)² with z = e^-|x|: no cancellation at either end.
__device__ __forceinline__ float sigmoid_slope(float x) {
  const float z = expf(-fabsf(x)), sum = 1.f + z;
  return z / (sum * sum);
}

// e^(-x²/2), Φ(x) and Φ'(x) as activation.cpp has them.
__device__ __forceinline__ float bell(float x) {
  const float squared = x * x, e = expf(-0.5f * squared);
  return e == 0.f ? e : fmaf(e, -0.5f * fmaf(x, x, -squared), e);
}
__device__ __forceinline__ float normal_distribution(float x) {
  constexpr float kFit[] = {-0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f, -0.18628806f,
                            0.09678418f,  0.37409196f, 1.00002368f,  -1.26551223f};
  const float t = 1.f / fmaf(0.5f * 0.70710678118654752f, fabsf(x), 1.f);
  float p = 0.17087277f;
#pragma unroll
  for (const float c : kFit) p = fmaf(p, t, c);
  const float below = 0.5f * t * (expf(p) * bell(x));
  return x < 0.f ? below : 1.f - below;
}
__device__ __forceinline__ float normal_density(float x) { return 0.39894228040143268f * bell(x); }
// x·s where s vanishes faster than x grows: 0 at -∞, not NaN.
__device__ __forceinline__ float times_share(float x, float share) { return share == 0.f ? 0.f : x * share; }

constexpr float kGeluScale = 1.5957691216057308f, kGeluCube = 0.044715f;  // 2·√(2/π)
__device__ __forceinline__ float gelu_tanh_argument(float x) { return kGeluScale * x * fmaf(x * x, kGeluCube, 1.f); }
__device__ __forceinline__ float gelu_tanh_slope(float x) {
  const float u = gelu_tanh_argument(x), inner = kGeluScale * fmaf(x * x, 3 * kGeluCube, 1.f);
  return sigmoid_of(u) + times_share(x * inner, sigmoid_slope(u));
}

__device__ __forceinline__ float mish_share(float x, float& bend) {  // as activation.cpp has it
  const float w = expf(-fabsf(x)), squared = w * w;
  const float over = x > 0.f ? fmaf(2.f, w, 1.f) : fmaf(w, w, 2.f * w);
  const float under = x > 0.f ? fmaf(2.f, squared, over) : over + 2.f, sum = 1.f + w, root = sum / under;
  bend = 4.f * (root * root) * (x > 0.f ? squared : 1.f) * ((x > 0.f ? 1.f : w) / sum);
  return over / under;
}
// ln(1 + z) with z = e^-|x| as z·ln(u)/(u - 1), u = 1 + z as rounded: what rounding loses falls out (Kahan).
__device__ __forceinline__ float softplus_of(float x) {
  const float z = expf(-fabsf(x)), u = 1.f + z;
  const float more = u == 1.f ? z : logf(u) * (z / (u - 1.f));
  return x != x ? x : fmaxf(x, 0.f) + more;
}

// sin(x + quarter·π/2), π/2 taken off in double, in two parts. CUDA's own has a table in local memory for large numbers.
__device__ __forceinline__ float sine_of(float x, int quarter) {
  if (!(fabsf(x) < 0x1p50f)) return nanf("");
  constexpr double kWhole = 0x1.8p52;  // added and taken off again, it rounds to whole numbers
  const double turns = double(x) * 0.63661977236758134 + kWhole - kWhole;
  const double rest = fma(-turns, 6.123233995736766e-17, fma(-turns, 1.5707963267948966, double(x)));
  const float t = float(rest), s = t * t;  // |t| <= π/4: fits by S. Moshier's Cephes
  const float sine = fmaf(fmaf(fmaf(-1.9515295891e-4f, s, 8.3321608736e-3f), s, -1.6666654611e-1f) * s, t, t);
  const float cosine = fmaf(fmaf(fmaf(2.443315711809948e-5f, s, -1.388731625493765e-3f), s, 4.166664568298827e-2f), s * s, fmaf(-0.5f, s, 1.f));
  const double fours = turns * 0.25 + kWhole - kWhole;
  const int at = (int(float(turns - 4. * fours)) + 4 + quarter) & 3;
  const float v = at % 2 == 0 ? sine : cosine;
  return at < 2 ? v : -v;
}

template <SmoothFunction F>
__device__ __forceinline__ float value_of(float x, float a) {
  if constexpr (F == SmoothFunction::sigmoid) return sigmoid_of(x);
  if constexpr (F == SmoothFunction::tanh) return tanhf(x);
  if constexpr (F == SmoothFunction::hardswish) return x * fminf(fmaxf(x + 3.f, 0.f), 6.f) / 6.f;
  if constexpr (F == SmoothFunction::silu) return x * sigmoid_of(x);
  if constexpr (F == SmoothFunction::gelu) return times_share(x, normal_distribution(x));
  if constexpr (F == SmoothFunction::gelu_tanh) return times_share(x, sigmoid_of(gelu_tanh_argument(x)));
  if constexpr (F == SmoothFunction::elu) return x > 0.f ? x : a * expm1f(x);
  if constexpr (F == SmoothFunction::celu) return x > 0.f ? x : a * expm1f(x / a);
  if constexpr (F == SmoothFunction::softplus) return softplus_of(x);
  if constexpr (F == SmoothFunction::mish) {
    float bend;
    return times_share(x, mish_share(x, bend));
  }
  if constexpr (F == SmoothFunction::erf) return erff(x);
  if constexpr (F == SmoothFunction::exp) return expf(x);
  if constexpr (F == SmoothFunction::log) return logf(x);
  if constexpr (F == SmoothFunction::sqrt) return sqrtf(x);
  if constexpr (F == SmoothFunction::reciprocal) return 1.f / x;
  if constexpr (F == SmoothFunction::abs) return fabsf(x);
  if constexpr (F == SmoothFunction::pow) return powf(x, a);
  if constexpr (F == SmoothFunction::sin) return sine_of(x, 0);
  if constexpr (F == SmoothFunction::cos) return sine_of(x, 1);
  if constexpr (F == SmoothFunction::floor) return floorf(x);
  if constexpr (F == SmoothFunction::ceil) return ceilf(x);
  if constexpr (F == SmoothFunction::round) return rintf(x);
  if constexpr (F == SmoothFunction::sign) return x > 0.f ? 1.f : x < 0.f ? -1.f : x;
}
template <SmoothFunction F>
__device__ __forceinline__ float derivative_of(float x, float a) {
  if constexpr (F == SmoothFunction::sigmoid) return sigmoid_slope(x);
  if constexpr (F == SmoothFunction::tanh) return 4.f * sigmoid_slope(x + x);
  if constexpr (F == SmoothFunction::hardswish) return x <= -3.f ? 0.f : x >= 3.f ? 1.f : x / 3.f + 0.5f;
  if constexpr (F == SmoothFunction::silu) return fmaf(x, sigmoid_slope(x), sigmoid_of(x));
  if constexpr (F == SmoothFunction::gelu) return normal_distribution(x) + times_share(x, normal_density(x));
  if constexpr (F == SmoothFunction::gelu_tanh) return gelu_tanh_slope(x);
  if constexpr (F == SmoothFunction::elu) return x > 0.f ? 1.f : a * expf(x);
  if constexpr (F == SmoothFunction::celu) return x > 0.f ? 1.f : expf(x / a);
  if constexpr (F == SmoothFunction::softplus) return sigmoid_of(x);
  if constexpr (F == SmoothFunction::mish) {
    float bend;
    const float share = mish_share(x, bend);
    return share + times_share(x, bend);
  }
  if constexpr (F == SmoothFunction::erf) return 1.1283791670955126f * bell(x * 1.4142135623730951f);
  if constexpr (F == SmoothFunction::exp) return expf(x);
  if constexpr (F == SmoothFunction::log) return 1.f / x;
  if constexpr (F == SmoothFunction::sqrt) return 0.5f / sqrtf(x);
  if constexpr (F == SmoothFunction::reciprocal) return -(1.f / x / x);
  if constexpr (F == SmoothFunction::abs) return x == 0.f ? 0.f : copysignf(1.f, x);
  if constexpr (F == SmoothFunction::pow) return a * powf(x, a - 1.f);
  if constexpr (F == SmoothFunction::sin) return sine_of(x, 1);
  if constexpr (F == SmoothFunction::cos) return sine_of(x, 2);
  if constexpr (F >= SmoothFunction::floor) return 0.f;  // steps
}

template <typename T, int V, SmoothFunction F>
__global__ void smooth_forward_kernel(Spread spread, float a, const T* x, T* y) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  const int64_t at = pixel_of(spread, spot) * spread.channels + spot.channel;
  float v[V];
  load_channels(x + at, v);
#pragma unroll
  for (int i = 0; i < V; ++i) v[i] = value_of<F>(v[i], a);
  store_channels(y + at, v);
}

template <typename T, int V, SmoothFunction F>
__global__ void smooth_backward_kernel(Spread spread, float a, const T* dy, const T* x, BackwardEnd<T> end) {
  const Spot spot = spot_of<V>(spread);
  if (!spot.live) return;
  float g[V], kept[V];
  load_channels(dy + pixel_of(spread, spot) * spread.channels + spot.channel, g);
  load_channels(x + kept_pixel_of(end, spot) * spread.channels + spot.channel, kept);
#pragma unroll
  for (int i = 0; i < V; ++i) g[i] *= derivative_of<F>(kept[i], a);
  finish(end, spot.item, spot.place, spot.channel, g);
}

// Calls f(integral_constant of the function).
template <typename F>
void by_function(SmoothFunction function, const F& f) {
  using enum SmoothFunction;
  switch (function) {
    case sigmoid: return f(std::integral_constant<SmoothFunction, sigmoid>());
    case tanh: return f(std::integral_constant<SmoothFunction, tanh>());
    case hardswish: return f(std::integral_constant<SmoothFunction, hardswish>());
    case silu: return f(std::integral_constant<SmoothFunction, silu>());
    case gelu: return f(std::integral_constant<SmoothFunction, gelu>());
    case gelu_tanh: return f(std::integral_constant<SmoothFunction, gelu_tanh>());
    case SmoothFunction::elu: return f(std::integral_constant<SmoothFunction, SmoothFunction::elu>());
    case SmoothFunction::celu: return f(std::integral_constant<SmoothFunction, SmoothFunction::celu>());
    case SmoothFunction::softplus: return f(std::integral_constant<SmoothFunction, SmoothFunction::softplus>());
    case SmoothFunction::mish: return f(std::integral_constant<SmoothFunction, SmoothFunction::mish>());
    case SmoothFunction::erf: return f(std::integral_constant<SmoothFunction, SmoothFunction::erf>());
    case SmoothFunction::exp: return f(std::integral_constant<SmoothFunction, SmoothFunction::exp>());
    case SmoothFunction::log: return f(std::integral_constant<SmoothFunction, SmoothFunction::log>());
    case SmoothFunction::sqrt: return f(std::integral_constant<SmoothFunction, SmoothFunction::sqrt>());
    case SmoothFunction::reciprocal: return f(std::integral_constant<SmoothFunction, SmoothFunction::reciprocal>());
    case SmoothFunction::abs: return f(std::integral_constant<SmoothFunction, SmoothFunction::abs>());
    case SmoothFunction::pow: return f(std::integral_constant<SmoothFunction, SmoothFunction::pow>());
    case SmoothFunction::sin: return f(std::integral_constant<SmoothFunction, SmoothFunction::sin>());
    case SmoothFunction::cos: return f(std::integral_constant<SmoothFunction, SmoothFunction::cos>());
    case SmoothFunction::floor: return f(std::integral_constant<SmoothFunction, SmoothFunction::floor>());
    case SmoothFunction::ceil: return f(std::integral_constant<SmoothFunction, SmoothFunction::ceil>());
    case SmoothFunction::round: return f(std::integral_constant<SmoothFunction, SmoothFunction::round>());
    case SmoothFunction::sign: return f(std::integral_constant<SmoothFunction, SmoothFunction::sign>());
  }
}

GateWriter gate_writer(Shape y, uint32_t* gates, bool two_planes) {
  return {gates, gates && two_planes ? gates + gate_words(y) : nullptr, int(gate_words_per_pixel(y.c))};
}

}  // namespace

void slope_forward(Context& ctx, const Slopes& slopes, ConstView x, View y, uint32_t* gates) {
  by_type_and_width(y.dtype, is_wide(y.shape.c, {x.data, y.data}), [&](auto type, auto width) {
    using T = decltype(type);
    spread_over<width()>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"slope_forward", y.shape, grid, block}, slope_forward_kernel<T, width()>, spread, slopes, x.as<T>(),
             y.as<T>(), gate_writer(y.shape, gates, false));
    });
  });
}

void slope_backward(Context& ctx, const Slopes& slopes, ConstView dy, const uint32_t* gates, ReluRule rule, View dx,
                    const BackwardEpilogue& epilogue) {
  by_type_and_width(dx.dtype, is_wide(dx.shape.c, {dy.data, dx.data, epilogue.other}), [&](auto type, auto width) {
    using T = decltype(type);
    spread_over<width()>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"slope_backward", dx.shape, grid, block}, slope_backward_kernel<T, width()>, spread, slopes,
             dy.as<T>(), gates, rule, backward_end<T>(dx, epilogue));
    });
  });
}

void ramp_forward(Context& ctx, const Ramp& ramp, ConstView x, View y, uint32_t* gates) {
  by_type_and_width(y.dtype, is_wide(y.shape.c, {x.data, y.data}), [&](auto type, auto width) {
    using T = decltype(type);
    spread_over<width()>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"ramp_forward", y.shape, grid, block}, ramp_forward_kernel<T, width()>, spread, ramp, x.as<T>(),
             y.as<T>(), gate_writer(y.shape, gates, ramp.max != kNoClip));
    });
  });
}

void ramp_backward(Context& ctx, const Ramp& ramp, ConstView dy, const uint32_t* gates, View dx,
                   const BackwardEpilogue& epilogue) {
  by_type_and_width(dx.dtype, is_wide(dx.shape.c, {dy.data, dx.data, epilogue.other}), [&](auto type, auto width) {
    using T = decltype(type);
    spread_over<width()>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"ramp_backward", dx.shape, grid, block}, ramp_backward_kernel<T, width()>, spread, ramp.scale,
             dy.as<T>(), gates, backward_end<T>(dx, epilogue));
    });
  });
}

void smooth_forward(Context& ctx, const Smooth& smooth, ConstView x, View y) {
  by_type_and_width(y.dtype, is_wide(y.shape.c, {x.data, y.data}), [&](auto type, auto width) {
    using T = decltype(type);
    by_function(smooth.function, [&](auto function) {
      spread_over<width()>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
        launch(ctx, {"smooth_forward", y.shape, grid, block}, smooth_forward_kernel<T, width(), function()>, spread,
               smooth.a, x.as<T>(), y.as<T>());
      });
    });
  });
}

void smooth_backward(Context& ctx, const Smooth& smooth, ConstView dy, ConstView x, View dx,
                     const BackwardEpilogue& epilogue) {
  const bool wide = is_wide(dx.shape.c, {dy.data, x.data, dx.data, epilogue.other});
  by_type_and_width(dx.dtype, wide, [&](auto type, auto width) {
    using T = decltype(type);
    by_function(smooth.function, [&](auto function) {
      spread_over<width()>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
        launch(ctx, {"smooth_backward", dx.shape, grid, block}, smooth_backward_kernel<T, width(), function()>, spread,
               smooth.a, dy.as<T>(), x.as<T>(), backward_end<T>(dx, epilogue));
      });
    });
  });
}

}  // namespace switchback::SB_DEVICE
