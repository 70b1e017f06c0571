// ReLUs and other activations, softmax.
#pragma once

#include "engine/layers/home.h"

namespace switchback {

template <>
struct Home<ReLU> : OneInput<ReLU>, NoArguments, NoParameters, OnePlace, NoScratch {
  static std::string_view name(const ReLU& l) { return l.clip == kNoClip ? "ReLU" : l.clip == 6.f ? "ReLU6" : "ClippedReLU"; }
  static int64_t flops(const ReLU&, Shapes x) { return x[0].count(); }
  static Facts facts(const ReLU&) { return {.affine = true, .passes_gradient = true}; }  // its rule is what is fused
  static Keeps keeps(const ReLU&, Shapes) { return {}; }  // its gates are the step's, whatever step it joins
  static void shift(const ReLU&, const StepWeights&, Shapes, StepShift&) {}
  static std::optional<GateConstants> constants(const ReLU& l) { return GateConstants{.above = l.clip}; }
  static void forward(const ReLU&, const ForwardCall& c) { relu_forward(c.ctx, c.x[0], c.y, c.end); }
  static void backward(const ReLU&, const BackwardCall& c) { combine_backward(c.ctx, c.dy, c.dx, c.end); }
  static void frozen(const ReLU& l, const FrozenCall& c) {
    const GateConstants added = c.biases ? *constants(l) : GateConstants{};
    frozen_gates_forward(c.ctx, c.x[0], c.gates, c.above, 1, added, c.items(), c.y);
  }
  static void change(const ReLU&, const ChangeCall& c) { gather_changes(c.ctx, c.x[0], c.places, c.y); }  // its readers apply it
};

// y = x where x > 0, else slope·x.
template <typename L>
struct SlopeHome : OneInput<L>, AddsNothing, OnePlace, ChangesByValues<L> {
  static int64_t flops(const L&, Shapes x) { return 2 * x[0].count(); }
  static Facts facts(const L&) { return {.affine = true}; }
  static Keeps keeps(const L&, Shapes) { return {.gates = kNoClip}; }
  static void forward(const L& l, const ForwardCall& c) {
    slope_forward(c.ctx, Home<L>::slopes(l, c.ctx, c.weights), c.x[0], c.y, c.gates);
  }
  static void backward(const L& l, const BackwardCall& c) {
    slope_backward(c.ctx, Home<L>::slopes(l, c.ctx, c.weights), c.dy, c.gates, c.end.rule, c.dx, c.end);
  }
  static void frozen(const L& l, const FrozenCall& c) {  // what comes back through it, too
    slope_backward(c.ctx, Home<L>::slopes(l, c.ctx, c.weights), c.x[0], c.gates, kGradient, c.y,
                   {.seeds_per_item = c.items(), .rule = kGradient});
  }
};

template <>
struct Home<LeakyReLU> : SlopeHome<LeakyReLU>, NoParameters {
  static std::string_view name(const LeakyReLU&) { return "LeakyReLU"; }
  static std::string arguments(const LeakyReLU& l) { return fmt::format("{}", l.slope); }
  static Slopes slopes(const LeakyReLU& l, Context&, const StepWeights&) { return {.all = l.slope}; }
};

template <>
struct Home<PReLU> : SlopeHome<PReLU>, LearnsFromInputs {
  static std::string_view name(const PReLU&) { return "PReLU"; }
  static std::string arguments(const PReLU& l) { return fmt::format("{}", l.parameters); }
  static Shape shape(const PReLU& l, Shapes x) {
    check_count(x, 1, name(l));
    CHECK(l.parameters == 1 || l.parameters == x[0].c, "{} slopes for an input of {} channels", l.parameters, x[0].c);
    return x[0];
  }
  static std::vector<ParameterSpec> parameters(const PReLU& l) { return {{"weight", {l.parameters}, 0.25f, 0.25f}}; }
  static void learn(const PReLU& l, const LearnCall& c) {
    add_slope_gradients(c.ctx, c.dy, c.x[0], l.parameters, c.of("weight"));
  }
  static Slopes slopes(const PReLU&, Context& ctx, const StepWeights& s) {
    const std::span<const float> weight = s.parameter("weight");
    if (weight.size() == 1) return {.all = weight[0]};
    return {.by_channel = s.packed<DeviceArray>([&] { return DeviceArray({weight.begin(), weight.end()}); }).on(ctx)};
  }
};

// min(max(scale·x + shift, min), max).
template <typename L>
struct RampHome : OneInput<L>, NoParameters, OnePlace, ChangesByValues<L> {
  static Facts facts(const L&) { return {.affine = true}; }
  static Keeps keeps(const L& l, Shapes) { return {.gates = Ramp(l).max}; }
  static void shift(const L&, const StepWeights&, Shapes, StepShift&) {}
  static std::optional<GateConstants> constants(const L& l) {
    const Ramp r(l);
    return GateConstants{.inside = r.shift, .above = r.max, .below = r.min};
  }
  static void forward(const L& l, const ForwardCall& c) { ramp_forward(c.ctx, l, c.x[0], c.y, c.gates); }
  static void backward(const L& l, const BackwardCall& c) { ramp_backward(c.ctx, l, c.dy, c.gates, c.dx, c.end); }
  static void frozen(const L& l, const FrozenCall& c) {
    const GateConstants added = c.biases ? *constants(l) : GateConstants{};
    frozen_gates_forward(c.ctx, c.x[0], c.gates, c.above, Ramp(l).scale, added, c.items(), c.y);
  }
};

template <>
struct Home<Clip> : RampHome<Clip> {
  static std::string_view name(const Clip&) { return "Clip"; }
  static std::string arguments(const Clip& l) { return fmt::format("{}, {}", l.min, l.max); }
  static Shape shape(const Clip& l, Shapes x) {
    CHECK(l.min <= l.max, "clip: min {} is above max {}", l.min, l.max);
    return OneInput<Clip>::shape(l, x);
  }
  static int64_t flops(const Clip&, Shapes x) { return 2 * x[0].count(); }
};

template <>
struct Home<Hardsigmoid> : RampHome<Hardsigmoid> {
  static std::string_view name(const Hardsigmoid&) { return "Hardsigmoid"; }
  static std::string arguments(const Hardsigmoid& l) { return fmt::format("{}, {}", l.alpha, l.beta); }
  static int64_t flops(const Hardsigmoid&, Shapes x) { return 4 * x[0].count(); }
};

template <>
struct Home<Smooth> : OneInput<Smooth>, NoParameters, AddsNothing, KeepsInputs, OnePlace, NotAffine<Smooth>,
                      ChangesByValues<Smooth> {
  static std::string_view name(const Smooth& l) {
    switch (l.function) {
      case SmoothFunction::sigmoid: return "Sigmoid";
      case SmoothFunction::tanh: return "Tanh";
      case SmoothFunction::hardswish: return "Hardswish";
      case SmoothFunction::silu: return "SiLU";
      case SmoothFunction::gelu: return "GELU";
      case SmoothFunction::gelu_tanh: return "GELU(tanh)";
      case SmoothFunction::elu: return "ELU";
      case SmoothFunction::celu: return "CELU";
      case SmoothFunction::softplus: return "Softplus";
      case SmoothFunction::mish: return "Mish";
      case SmoothFunction::erf: return "Erf";
      case SmoothFunction::exp: return "Exp";
      case SmoothFunction::log: return "Log";
      case SmoothFunction::sqrt: return "Sqrt";
      case SmoothFunction::reciprocal: return "Reciprocal";
      case SmoothFunction::abs: return "Abs";
      case SmoothFunction::pow: return "Pow";
      case SmoothFunction::sin: return "Sin";
      case SmoothFunction::cos: return "Cos";
      case SmoothFunction::floor: return "Floor";
      case SmoothFunction::ceil: return "Ceil";
      case SmoothFunction::round: return "Round";
      case SmoothFunction::sign: return "Sign";
    }
    return "";
  }
  static std::string arguments(const Smooth& l) {
    using enum SmoothFunction;
    return l.function == elu || l.function == celu || l.function == pow ? fmt::format("{}", l.a) : "";
  }
  static int64_t flops(const Smooth&, Shapes x) { return 4 * x[0].count(); }
  static Facts facts(const Smooth&) { return {}; }
  static void forward(const Smooth& l, const ForwardCall& c) { smooth_forward(c.ctx, l, c.x[0], c.y); }
  static void backward(const Smooth& l, const BackwardCall& c) { smooth_backward(c.ctx, l, c.dy, c.x[0], c.dx, c.end); }
};

template <>
struct Home<Softmax> : OneInput<Softmax>, NoArguments, NoParameters, AddsNothing, OnePlace, NotAffine<Softmax>,
                       ChangesByValues<Softmax> {
  static std::string_view name(const Softmax&) { return "Softmax"; }
  static int64_t flops(const Softmax&, Shapes x) { return 3 * x[0].count(); }
  static Facts facts(const Softmax&) { return {}; }
  static Keeps keeps(const Softmax&, Shapes) { return {.output = true}; }
  static void forward(const Softmax&, const ForwardCall& c) { softmax_forward(c.ctx, c.x[0], c.y); }
  static void backward(const Softmax&, const BackwardCall& c) { softmax_backward(c.ctx, c.dy, c.y, c.dx, c.end); }
};

}  // namespace switchback
