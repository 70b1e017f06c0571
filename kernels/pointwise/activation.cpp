#include "kernels/pointwise/activation.h"

#include <cmath>

#include "kernels/device/device_ops.h"
#include "kernels/exp8.h"
#include "kernels/pointwise/pointwise_loops.h"
#include "kernels/view_check.h"

namespace switchback {
namespace {

// --- slopes

SB_INLINE F8 slope8(const Slopes& slopes, int64_t channel, int lanes) {
  return slopes.by_channel ? load8(slopes.by_channel + channel, lanes) : _mm256_set1_ps(slopes.all);
}

template <typename T>
void slope_forward_typed(Context& ctx, const Slopes& slopes, ConstView x, View y, uint32_t* gates) {
  each_group(ctx, y.shape, 1, 1, [&](const Group& g) SB_LAMBDA {
    uint32_t word = 0;
    for (int v = 0; 8 * v < g.size; ++v) {
      const int lanes = std::min(8, int(g.size) - 8 * v);
      const F8 s = load8(x.as<T>() + g.element + 8 * v, lanes);
      const F8 open = _mm256_cmp_ps(s, _mm256_setzero_ps(), _CMP_GT_OQ);
      const F8 scaled = _mm256_mul_ps(slope8(slopes, g.channel + 8 * v, lanes), s);
      store8(y.as<T>() + g.element + 8 * v, _mm256_blendv_ps(scaled, s, open), lanes);
      word |= uint32_t(_mm256_movemask_ps(open)) << (8 * v);  // lanes that are not there hold 0
    }
    if (gates) gates[g.word] = word;
  });
}

template <typename T>
void slope_backward_typed(Context& ctx, const Slopes& slopes, ConstView dy, const uint32_t* gates, ReluRule rule, View dx,
                          const BackwardEpilogue& epilogue) {
  const BackwardTarget<T> target(dx, epilogue);
  const F8 any_gate = all_ones(!rule.gate_forward), any_sign = all_ones(!rule.gate_gradient);
  each_group(ctx, dx.shape, epilogue.seeds_per_item, 1, [&](const Group& group) SB_LAMBDA {
    const uint32_t word = rule.gate_forward ? gates[group.word] : 0;
    target.write_group(group.element, group.word, group.size, [&](int v, int lanes) SB_LAMBDA {
      const F8 g = load8(dy.as<T>() + group.element + 8 * v, lanes);
      const F8 positive = _mm256_or_ps(_mm256_cmp_ps(g, _mm256_setzero_ps(), _CMP_GT_OQ), any_sign);
      const F8 through = _mm256_and_ps(_mm256_or_ps(expand_gates(word, v), any_gate), positive);
      return _mm256_blendv_ps(_mm256_mul_ps(slope8(slopes, group.channel + 8 * v, lanes), g), g, through);
    });
  });
}

// --- ramps

template <typename T>
void ramp_forward_typed(Context& ctx, const Ramp& ramp, ConstView x, View y, uint32_t* gates) {
  const F8 scale = _mm256_set1_ps(ramp.scale), shift = _mm256_set1_ps(ramp.shift);
  const F8 min = _mm256_set1_ps(ramp.min), max = _mm256_set1_ps(ramp.max);
  const F8 no_min = all_ones(ramp.min == -kNoClip), no_max = all_ones(ramp.max == kNoClip);
  uint32_t* above = gates && ramp.max != kNoClip ? gates + gate_words(y.shape) : nullptr;
  each_group(ctx, y.shape, 1, 1, [&](const Group& g) SB_LAMBDA {
    uint32_t word = 0, word_above = 0;
    for (int v = 0; 8 * v < g.size; ++v) {
      const int lanes = std::min(8, int(g.size) - 8 * v);
      const uint32_t live = (1u << lanes) - 1;
      const F8 s = _mm256_fmadd_ps(scale, load8(x.as<T>() + g.element + 8 * v, lanes), shift);
      // min and max give their second operand for NaN.
      store8(y.as<T>() + g.element + 8 * v, _mm256_min_ps(max, _mm256_max_ps(min, s)), lanes);
      const F8 over = _mm256_andnot_ps(no_max, _mm256_cmp_ps(s, max, _CMP_GE_OQ));
      const F8 under = _mm256_andnot_ps(no_min, _mm256_cmp_ps(s, min, _CMP_LE_OQ));
      const F8 inside = _mm256_andnot_ps(_mm256_or_ps(over, under), _mm256_cmp_ps(s, s, _CMP_ORD_Q));
      word |= (uint32_t(_mm256_movemask_ps(inside)) & live) << (8 * v);
      word_above |= (uint32_t(_mm256_movemask_ps(over)) & live) << (8 * v);
    }
    if (gates) gates[g.word] = word;
    if (above) above[g.word] = word_above;
  });
}

template <typename T>
void ramp_backward_typed(Context& ctx, const Ramp& ramp, ConstView dy, const uint32_t* gates, View dx,
                         const BackwardEpilogue& epilogue) {
  const BackwardTarget<T> target(dx, epilogue);
  const F8 scale = _mm256_set1_ps(ramp.scale);
  each_group(ctx, dx.shape, epilogue.seeds_per_item, 1, [&](const Group& group) SB_LAMBDA {
    const uint32_t word = gates[group.word];
    target.write_group(group.element, group.word, group.size, [&](int v, int lanes) SB_LAMBDA {
      const F8 g = load8(dy.as<T>() + group.element + 8 * v, lanes);
      return _mm256_and_ps(_mm256_mul_ps(scale, g), expand_gates(word, v));
    });
  });
}

// --- smooth functions: their values and slopes

SB_INLINE F8 hardswish8(F8 x) {
  const F8 six = _mm256_set1_ps(6.f), moved = _mm256_add_ps(x, _mm256_set1_ps(3.f));
  const F8 clipped = _mm256_min_ps(six, _mm256_max_ps(_mm256_setzero_ps(), moved));
  return _mm256_div_ps(_mm256_mul_ps(x, clipped), six);
}
// 0 up to -3, x/3 + 1/2 between, 1 from 3 on.
SB_INLINE F8 hardswish_slope8(F8 x) {
  const F8 three = _mm256_set1_ps(3.f), middle = _mm256_add_ps(_mm256_div_ps(x, three), _mm256_set1_ps(0.5f));
  const F8 above = _mm256_cmp_ps(x, three, _CMP_GE_OQ), below = _mm256_cmp_ps(x, negated(three), _CMP_LE_OQ);
  return _mm256_andnot_ps(below, _mm256_blendv_ps(middle, _mm256_set1_ps(1.f), above));
}
SB_INLINE F8 silu8(F8 x) { return _mm256_mul_ps(x, sigmoid8(x)); }
SB_INLINE F8 silu_slope8(F8 x) { return _mm256_fmadd_ps(x, sigmoid_slope8(x), sigmoid8(x)); }

// e^(-x²/2). What rounding x² loses would be multiplied by x²: it is made up for.
SB_INLINE F8 bell8(F8 x) {
  const F8 half = _mm256_set1_ps(-0.5f), squared = _mm256_mul_ps(x, x), lost = _mm256_fmsub_ps(x, x, squared);
  const F8 e = exp8(_mm256_mul_ps(half, squared));
  const F8 more = _mm256_mul_ps(e, _mm256_mul_ps(half, lost));
  return _mm256_add_ps(e, _mm256_and_ps(more, _mm256_cmp_ps(e, _mm256_setzero_ps(), _CMP_NEQ_UQ)));  // not 0·∞
}
// Φ(x) = erfc(-x/√2) / 2, the normal distribution. erfc(z) for z >= 0 is t·exp(p(t) - z²), t = 1 / (1 + z/2), by a fit
// whose relative error is below 1.2e-7 everywhere (Press et al., Numerical Recipes, 6.2.2), so that small values keep
// their digits.
SB_INLINE F8 normal_distribution8(F8 x) {
  const F8 one = _mm256_set1_ps(1.f), half = _mm256_set1_ps(0.5f);
  const F8 z = _mm256_mul_ps(magnitude(x), _mm256_set1_ps(0.70710678118654752f));
  const F8 t = _mm256_div_ps(one, _mm256_fmadd_ps(half, z, one));
  F8 p = _mm256_set1_ps(0.17087277f);
  for (const float c : {-0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f, -0.18628806f, 0.09678418f, 0.37409196f,
                        1.00002368f, -1.26551223f})
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(c));
  const F8 below = _mm256_mul_ps(_mm256_mul_ps(half, t), _mm256_mul_ps(exp8(p), bell8(x)));
  return _mm256_blendv_ps(_mm256_sub_ps(one, below), below, x);  // by the sign bit of x
}
// Φ'(x).
SB_INLINE F8 normal_density8(F8 x) { return _mm256_mul_ps(_mm256_set1_ps(0.39894228040143268f), bell8(x)); }
// x·s where s vanishes faster than x grows: 0 at -∞, not NaN.
SB_INLINE F8 times_share(F8 x, F8 share) {
  const F8 none = _mm256_cmp_ps(share, _mm256_setzero_ps(), _CMP_EQ_OQ);
  return _mm256_andnot_ps(none, _mm256_mul_ps(x, share));
}
SB_INLINE F8 gelu8(F8 x) { return times_share(x, normal_distribution8(x)); }
SB_INLINE F8 gelu_slope8(F8 x) {
  return _mm256_add_ps(normal_distribution8(x), times_share(x, normal_density8(x)));
}

constexpr float kGeluScale = 1.5957691216057308f;  // 2·√(2/π)
constexpr float kGeluCube = 0.044715f;
SB_INLINE F8 gelu_tanh_argument8(F8 x) {
  const F8 cube = _mm256_fmadd_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(kGeluCube), _mm256_set1_ps(1.f));
  return _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(kGeluScale), x), cube);
}
SB_INLINE F8 gelu_tanh8(F8 x) { return times_share(x, sigmoid8(gelu_tanh_argument8(x))); }
SB_INLINE F8 gelu_tanh_slope8(F8 x) {
  const F8 u = gelu_tanh_argument8(x), s = sigmoid8(u), three = _mm256_set1_ps(3 * kGeluCube);
  const F8 inner = _mm256_mul_ps(_mm256_set1_ps(kGeluScale), _mm256_fmadd_ps(_mm256_mul_ps(x, x), three, _mm256_set1_ps(1.f)));
  return _mm256_add_ps(s, times_share(_mm256_mul_ps(x, inner), sigmoid_slope8(u)));
}

// e^x - 1 without cancellation: with e^x = 2^n·(1 + rest), it is 2^n·rest + (2^n - 1).
SB_INLINE F8 exp8_minus_one(F8 x) {
  const Exp8 e = split_exp8(_mm256_min_ps(_mm256_set1_ps(88.f), _mm256_max_ps(_mm256_set1_ps(-40.f), x)));
  const F8 one = _mm256_set1_ps(1.f), power = times_power_of_two(one, _mm256_cvtps_epi32(e.n));
  return _mm256_fmadd_ps(power, e.rest, _mm256_sub_ps(power, one));
}
SB_INLINE F8 by_sign(F8 x, F8 above, F8 otherwise) {
  return _mm256_blendv_ps(otherwise, above, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GT_OQ));
}
// a·(e^(x/b) - 1) at and below 0; NaN passes.
SB_INLINE F8 elu8(F8 x, F8 a, F8 b) {
  const F8 below = _mm256_mul_ps(a, exp8_minus_one(_mm256_min_ps(_mm256_setzero_ps(), _mm256_div_ps(x, b))));
  return by_sign(x, x, _mm256_blendv_ps(below, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
SB_INLINE F8 elu_slope8(F8 x, F8 a, F8 b) {
  return by_sign(x, _mm256_set1_ps(1.f), _mm256_mul_ps(_mm256_div_ps(a, b), exp8(_mm256_div_ps(x, b))));
}
// tanh(softplus(x)) = (1 + 2w)/(1 + 2w + 2w²) with w = e^-x above 0, and w(w + 2)/(w(w + 2) + 2) with w = e^x below: no overflow.
SB_INLINE F8 mish_share8(F8 x, F8& bend) {
  const F8 one = _mm256_set1_ps(1.f), two = _mm256_set1_ps(2.f), w = exp8(negated(magnitude(x)));
  const F8 squared = _mm256_mul_ps(w, w), high = _mm256_fmadd_ps(two, w, one);
  const F8 low = _mm256_fmadd_ps(w, w, _mm256_mul_ps(two, w));
  const F8 above = _mm256_fmadd_ps(two, squared, high), below = _mm256_add_ps(low, two);
  const F8 sum = _mm256_add_ps(one, w), root = _mm256_div_ps(sum, by_sign(x, above, below));
  // 1 - t² = 4·(1 + w)²/below², above 0 times w²; and sigmoid(x).
  const F8 gap = _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(4.f), _mm256_mul_ps(root, root)), by_sign(x, squared, one));
  bend = _mm256_mul_ps(gap, _mm256_div_ps(by_sign(x, one, w), sum));
  return _mm256_div_ps(by_sign(x, high, low), by_sign(x, above, below));
}
SB_INLINE F8 mish8(F8 x) {
  F8 bend;
  return times_share(x, mish_share8(x, bend));
}
SB_INLINE F8 mish_slope8(F8 x) {
  F8 bend;
  const F8 share = mish_share8(x, bend);
  return _mm256_add_ps(share, times_share(x, bend));
}
// What is rare takes the library's functions, lane by lane.
template <typename F>
SB_INLINE F8 by_lane(F8 x, const F& f) {
  alignas(32) float v[8];
  _mm256_store_ps(v, x);
  for (float& lane : v) lane = f(lane);
  return _mm256_load_ps(v);
}
SB_INLINE F8 softplus8(F8 x) {
  return by_lane(x, [](float v) { return v != v ? v : std::max(v, 0.f) + std::log1p(std::exp(-std::abs(v))); });
}
SB_INLINE F8 erf_slope8(F8 x) {
  return _mm256_mul_ps(_mm256_set1_ps(1.1283791670955126f), bell8(_mm256_mul_ps(x, _mm256_set1_ps(1.4142135623730951f))));
}

// ±1 by x's sign, ±0 and NaN as they are.
SB_INLINE F8 sign8(F8 x) {
  const F8 sign = _mm256_or_ps(_mm256_set1_ps(1.f), _mm256_and_ps(x, _mm256_set1_ps(-0.f)));
  return _mm256_blendv_ps(x, sign, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_NEQ_OQ));
}
SB_INLINE F8 flat8(F8) { return _mm256_setzero_ps(); }

// Calls run(value, slope) with the function and its derivative, each on eight lanes.
template <typename Run>
void with_function(const Smooth& smooth, const Run& run) {
  const float a = smooth.a;
  const F8 a8 = _mm256_set1_ps(a), one = _mm256_set1_ps(1.f);
  switch (smooth.function) {
    case SmoothFunction::sigmoid:
      return run([](F8 x) SB_LAMBDA { return sigmoid8(x); }, [](F8 x) SB_LAMBDA { return sigmoid_slope8(x); });
    case SmoothFunction::tanh:
      return run([](F8 x) SB_LAMBDA { return tanh8(x); }, [](F8 x) SB_LAMBDA { return tanh_slope8(x); });
    case SmoothFunction::hardswish:
      return run([](F8 x) SB_LAMBDA { return hardswish8(x); }, [](F8 x) SB_LAMBDA { return hardswish_slope8(x); });
    case SmoothFunction::silu:
      return run([](F8 x) SB_LAMBDA { return silu8(x); }, [](F8 x) SB_LAMBDA { return silu_slope8(x); });
    case SmoothFunction::gelu:
      return run([](F8 x) SB_LAMBDA { return gelu8(x); }, [](F8 x) SB_LAMBDA { return gelu_slope8(x); });
    case SmoothFunction::gelu_tanh:
      return run([](F8 x) SB_LAMBDA { return gelu_tanh8(x); }, [](F8 x) SB_LAMBDA { return gelu_tanh_slope8(x); });
    case SmoothFunction::elu:
      return run([=](F8 x) SB_LAMBDA { return elu8(x, a8, one); }, [=](F8 x) SB_LAMBDA { return elu_slope8(x, a8, one); });
    case SmoothFunction::celu:
      return run([=](F8 x) SB_LAMBDA { return elu8(x, a8, a8); }, [=](F8 x) SB_LAMBDA { return elu_slope8(x, a8, a8); });
    case SmoothFunction::softplus:
      return run([](F8 x) SB_LAMBDA { return softplus8(x); }, [](F8 x) SB_LAMBDA { return sigmoid8(x); });
    case SmoothFunction::mish:
      return run([](F8 x) SB_LAMBDA { return mish8(x); }, [](F8 x) SB_LAMBDA { return mish_slope8(x); });
    case SmoothFunction::erf:
      return run([](F8 x) SB_LAMBDA { return by_lane(x, [](float v) { return std::erf(v); }); },
                 [](F8 x) SB_LAMBDA { return erf_slope8(x); });
    case SmoothFunction::exp:
      return run([](F8 x) SB_LAMBDA { return exp8(x); }, [](F8 x) SB_LAMBDA { return exp8(x); });
    case SmoothFunction::log:
      return run([](F8 x) SB_LAMBDA { return by_lane(x, [](float v) { return std::log(v); }); },
                 [=](F8 x) SB_LAMBDA { return _mm256_div_ps(one, x); });
    case SmoothFunction::sqrt:
      return run([](F8 x) SB_LAMBDA { return _mm256_sqrt_ps(x); },
                 [](F8 x) SB_LAMBDA { return _mm256_div_ps(_mm256_set1_ps(0.5f), _mm256_sqrt_ps(x)); });
    case SmoothFunction::reciprocal:
      return run([=](F8 x) SB_LAMBDA { return _mm256_div_ps(one, x); },
                 [=](F8 x) SB_LAMBDA { return negated(_mm256_div_ps(_mm256_div_ps(one, x), x)); });
    case SmoothFunction::abs:
      return run([](F8 x) SB_LAMBDA { return magnitude(x); }, [=](F8 x) SB_LAMBDA {
        const F8 sign = _mm256_or_ps(one, _mm256_and_ps(x, _mm256_set1_ps(-0.f)));
        return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_EQ_OQ), sign);
      });
    case SmoothFunction::pow:
      return run([=](F8 x) SB_LAMBDA { return by_lane(x, [=](float v) { return std::pow(v, a); }); },
                 [=](F8 x) SB_LAMBDA { return by_lane(x, [=](float v) { return a * std::pow(v, a - 1.f); }); });
    case SmoothFunction::sin:
      return run([](F8 x) SB_LAMBDA { return by_lane(x, [](float v) { return std::sin(v); }); },
                 [](F8 x) SB_LAMBDA { return by_lane(x, [](float v) { return std::cos(v); }); });
    case SmoothFunction::cos:
      return run([](F8 x) SB_LAMBDA { return by_lane(x, [](float v) { return std::cos(v); }); },
                 [](F8 x) SB_LAMBDA { return by_lane(x, [](float v) { return -std::sin(v); }); });
    case SmoothFunction::floor: return run([](F8 x) SB_LAMBDA { return _mm256_floor_ps(x); }, flat8);
    case SmoothFunction::ceil: return run([](F8 x) SB_LAMBDA { return _mm256_ceil_ps(x); }, flat8);
    case SmoothFunction::round:
      return run([](F8 x) SB_LAMBDA { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }, flat8);
    case SmoothFunction::sign: return run([](F8 x) SB_LAMBDA { return sign8(x); }, flat8);
  }
}

constexpr int64_t kSmoothWork = 4;  // an exponential beside a load and a store

template <typename T, typename Value>
void smooth_forward_typed(Context& ctx, const Value& value, ConstView x, View y) {
  const Groups groups(y.shape.pixels(), y.shape.c, true);
  const ForwardTarget<T> target(y, {});
  parallel_ranges(ctx, groups.count, 32 * kSmoothWork, [&](int64_t first, int64_t last) {
    groups.each(first, last, [&](int64_t element, int64_t group, int64_t size) SB_LAMBDA {
      target.write_group(element, group, size, [&](int v, int lanes) SB_LAMBDA {
        return value(load8(x.as<T>() + element + 8 * v, lanes));
      });
    });
  });
}

template <typename T, typename Slope>
void smooth_backward_typed(Context& ctx, const Slope& slope, ConstView dy, ConstView x, View dx,
                           const BackwardEpilogue& epilogue) {
  const BackwardTarget<T> target(dx, epilogue);
  each_group(ctx, dx.shape, epilogue.seeds_per_item, kSmoothWork, [&](const Group& g) SB_LAMBDA {
    target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
      return _mm256_mul_ps(load8(dy.as<T>() + g.element + 8 * v, lanes), slope(load8(x.as<T>() + g.kept + 8 * v, lanes)));
    });
  });
}

}  // namespace

void slope_forward(Context& ctx, const Slopes& slopes, ConstView x, View y, uint32_t* gates) {
  check_same("slope_forward", x, y);
  if (ctx.gpu) return ctx.gpu->ops->slope_forward(ctx, slopes, x, y, gates);
  with_type(y.dtype, "slope_forward",
            [&](auto type) { slope_forward_typed<decltype(type)>(ctx, slopes, x, y, gates); });
}

void slope_backward(Context& ctx, const Slopes& slopes, ConstView dy, const uint32_t* gates, ReluRule rule, View dx,
                    const BackwardEpilogue& epilogue) {
  check_same("slope_backward", dy, dx);
  check_epilogue(epilogue, "slope_backward");
  CHECK(!rule.gate_forward || gates, "slope_backward: the rule needs gate bits and there are none");
  if (ctx.gpu) return ctx.gpu->ops->slope_backward(ctx, slopes, dy, gates, rule, dx, epilogue);
  with_type(dx.dtype, "slope_backward",
            [&](auto type) { slope_backward_typed<decltype(type)>(ctx, slopes, dy, gates, rule, dx, epilogue); });
}

void ramp_forward(Context& ctx, const Ramp& ramp, ConstView x, View y, uint32_t* gates) {
  check_same("ramp_forward", x, y);
  CHECK(ramp.min <= ramp.max, "clip: min {} is above max {}", ramp.min, ramp.max);
  if (ctx.gpu) return ctx.gpu->ops->ramp_forward(ctx, ramp, x, y, gates);
  with_type(y.dtype, "ramp_forward", [&](auto type) { ramp_forward_typed<decltype(type)>(ctx, ramp, x, y, gates); });
}

void ramp_backward(Context& ctx, const Ramp& ramp, ConstView dy, const uint32_t* gates, View dx,
                   const BackwardEpilogue& epilogue) {
  check_same("ramp_backward", dy, dx);
  check_epilogue(epilogue, "ramp_backward");
  CHECK(gates, "ramp_backward needs gate bits and there are none");
  if (ctx.gpu) return ctx.gpu->ops->ramp_backward(ctx, ramp, dy, gates, dx, epilogue);
  with_type(dx.dtype, "ramp_backward",
            [&](auto type) { ramp_backward_typed<decltype(type)>(ctx, ramp, dy, gates, dx, epilogue); });
}

void smooth_forward(Context& ctx, const Smooth& smooth, ConstView x, View y) {
  check_same("smooth_forward", x, y);
  if (ctx.gpu) return ctx.gpu->ops->smooth_forward(ctx, smooth, x, y);
  with_type(y.dtype, "smooth_forward", [&](auto type) {
    with_function(smooth,
                  [&](const auto& value, const auto&) { smooth_forward_typed<decltype(type)>(ctx, value, x, y); });
  });
}

void smooth_backward(Context& ctx, const Smooth& smooth, ConstView dy, ConstView x, View dx,
                     const BackwardEpilogue& epilogue) {
  check_same("smooth_backward", dy, dx);
  check_kept("smooth_backward", dx, x, epilogue.seeds_per_item);
  check_epilogue(epilogue, "smooth_backward");
  if (ctx.gpu) return ctx.gpu->ops->smooth_backward(ctx, smooth, dy, x, dx, epilogue);
  with_type(dx.dtype, "smooth_backward", [&](auto type) {
    with_function(smooth, [&](const auto&, const auto& slope) {
      smooth_backward_typed<decltype(type)>(ctx, slope, dy, x, dx, epilogue);
    });
  });
}

}  // namespace switchback
