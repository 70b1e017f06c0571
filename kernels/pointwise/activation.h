// Activations besides the ReLU (pointwise.h), element by element, in three families:
//
//   slopes  LeakyReLU, PReLU    y = x where x > 0, else slope·x             gate: 0 < x
//   ramps   Clip, Hardsigmoid   y = min(max(scale·x + shift, min), max)     gate: min < scale·x + shift < max
//   smooth  Sigmoid, Tanh, Hardswish, SiLU, GELU, ELU, Mish, Exp, …         the tape keeps x
//
// Slopes are rectifiers and obey the ReLU rule: what it holds back is scaled by the slope instead of dropped. Ramps and
// smooth functions are none: their derivative holds under every rule. NaN passes through all of them.
#pragma once

#include <limits>

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

// torch.nn.LeakyReLU.
struct LeakyReLU {
  float slope = 0.01f;
  bool operator==(const LeakyReLU&) const = default;
};

// torch.nn.PReLU (He et al. 2015): the slopes are its weight, one for all channels or one for each.
struct PReLU {
  int64_t parameters = 1;
  bool operator==(const PReLU&) const = default;
};

// y = min(max(x, min), max); either may be infinite. Clipping from 0 on is a ReLU, and its rule then counts: see
// clip_layer (engine/layers/layers.h).
struct Clip {
  float min = -std::numeric_limits<float>::infinity(), max = std::numeric_limits<float>::infinity();
  bool operator==(const Clip&) const = default;
};

// y = min(max(alpha·x + beta, 0), 1), with PyTorch's numbers. (ONNX: 0.2 where nothing is said.)
struct Hardsigmoid {
  float alpha = 1.f / 6, beta = 0.5f;
  bool operator==(const Hardsigmoid&) const = default;
};

// sigmoid x -> 1 / (1 + e^-x), tanh, hardswish x -> x·min(max(x + 3, 0), 6) / 6 (Howard et al. 2019),
// silu x -> x·sigmoid(x) (Elfwing et al. 2017), gelu x -> x·Φ(x) with the normal distribution Φ, gelu_tanh its approximation
// x·sigmoid(2·√(2/π)·(x + 0.044715·x³)) (Hendrycks and Gimpel 2016; torch.nn.GELU and GELU("tanh")).
// With the parameter a: elu x -> x where x > 0, else a·(e^x - 1) (Clevert et al. 2016), celu x -> x where x > 0, else
// a·(e^(x/a) - 1) (Barron 2017), pow x -> x^a. softplus x -> ln(1 + e^x), mish x -> x·tanh(softplus(x)) (Misra 2019), and erf,
// exp, log, sqrt, reciprocal, abs, sin, cos as they are called; abs' derivative at 0 is 0. Steps, whose derivative is 0: floor,
// ceil, round (halves to even) and sign. On a GPU sin and cos are NaN from 2^50 on, where floats lie many turns apart.
enum class SmoothFunction {
  sigmoid, tanh, hardswish, silu, gelu, gelu_tanh, elu, celu, softplus, mish, erf, exp, log, sqrt, reciprocal, abs, pow,
  sin, cos, floor, ceil, round, sign
};
struct Smooth {
  SmoothFunction function = SmoothFunction::sigmoid;
  float a = 1;  // of elu, celu and pow
  bool operator==(const Smooth&) const = default;
};

// Slopes of all channels alike, or [c] on the context's device.
struct Slopes {
  float all = 0.01f;
  const float* by_channel = nullptr;
};
// gates: one plane (gates.h) for the tape, or null.
void slope_forward(Context& ctx, const Slopes& slopes, ConstView x, View y, uint32_t* gates);
// dx = rule of the layer before ( gate, g + other ), g = dy where `rule` lets it through, else slope·dy. Item p of dy uses
// the gates of item p / epilogue.seeds_per_item.
void slope_backward(Context& ctx, const Slopes& slopes, ConstView dy, const uint32_t* gates, ReluRule rule, View dx,
                    const BackwardEpilogue& epilogue = {});

struct Ramp {
  float scale = 1, shift = 0, min = 0, max = 1;
  Ramp(const Clip& c) : min(c.min), max(c.max) {}                       // NOLINT: a clip is a ramp
  Ramp(const Hardsigmoid& h) : scale(h.alpha), shift(h.beta) {}         // NOLINT
};
// gates: two planes (gates.h), where `max` is infinite one; or null.
void ramp_forward(Context& ctx, const Ramp& ramp, ConstView x, View y, uint32_t* gates);
// dx = rule( scale·dy·[inside] + other ).
void ramp_backward(Context& ctx, const Ramp& ramp, ConstView dy, const uint32_t* gates, View dx,
                   const BackwardEpilogue& epilogue = {});

void smooth_forward(Context& ctx, const Smooth& smooth, ConstView x, View y);
// dx = rule( dy·f'(x) + other ); x: the layer's input of the forward pass (item p / seeds_per_item).
void smooth_backward(Context& ctx, const Smooth& smooth, ConstView dy, ConstView x, View dx,
                     const BackwardEpilogue& epilogue = {});

}  // namespace switchback
