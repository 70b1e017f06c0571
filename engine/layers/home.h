// Homes: all that the engine knows about a layer, in one place. Home<L> is a struct of static functions; the concept
// below says which, and a layer on the list whose home lacks one doesn't compile. What several layers have in common is
// said once, in the bases that follow, and each home names those that hold for it: there are no defaults.
//
// Included by the files of this folder alone; others use layers.h and calls.h.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "engine/layers/calls.h"
#include "kernels/conv/conv_backward_weights.h"
#include "kernels/noise/dropout.h"
#include "kernels/normalize/batch_norm.h"

namespace switchback {

template <typename L>
struct Home;

template <typename L>
concept HasHome = requires(const L& l, Shapes x, bool vertical, const Padding& p, PatchSize size, const StepWeights& weights,
                           StepShift& shift, const ForwardCall& f, const BackwardCall& b, const FrozenCall& z,
                           const ChangeCall& c, const LearnCall& g) {
  { Home<L>::name(l) } -> std::convertible_to<std::string_view>;        // "Conv2d"
  { Home<L>::arguments(l) } -> std::convertible_to<std::string>;        // "3, 64, kernel 3x3"
  { Home<L>::shape(l, x) } -> std::same_as<Shape>;                      // throws where the inputs do not fit
  { Home<L>::parameters(l) } -> std::same_as<std::vector<ParameterSpec>>;
  { Home<L>::learns(l) } -> std::same_as<Learns>;                       // what it does otherwise in training
  { Home<L>::learn(l, g) };                                             // the gradients of its parameters
  { Home<L>::flops(l, x) } -> std::same_as<int64_t>;
  { Home<L>::facts(l) } -> std::same_as<Facts>;
  { Home<L>::keeps(l, x) } -> std::same_as<Keeps>;
  { Home<L>::reach(l, x, vertical) } -> std::same_as<Reach>;
  { Home<L>::padding(l) } -> std::same_as<Padding>;
  { Home<L>::repadded(l, p) } -> std::same_as<L>;
  { Home<L>::shift(l, weights, x, shift) };                             // what it adds, alike for all items
  { Home<L>::constants(l) } -> std::same_as<std::optional<GateConstants>>;  // what its gated units add in each state
  { Home<L>::forward(l, f) };
  { Home<L>::backward(l, b) };
  { Home<L>::frozen(l, z) };
  { Home<L>::scratch(l, x, size, size) } -> std::same_as<std::vector<PatchScratch>>;
  { Home<L>::change(l, c) };
};

// --- inputs

inline void check_count(Shapes x, size_t count, std::string_view name) {
  CHECK(x.size() == count, "{} takes {} inputs, not {}", name, count, x.size());
}
template <typename L>
struct OneInput {  // of any shape, which is the output's, too
  static Shape shape(const L& l, Shapes x) {
    check_count(x, 1, Home<L>::name(l));
    return x[0];
  }
};
template <typename L>
struct KernelShape {  // one input; its kernels know the output's shape
  static Shape shape(const L& l, Shapes x) {
    check_count(x, 1, Home<L>::name(l));
    return output_shape(l, x[0]);
  }
};

// --- parameters, and what is added to a result

struct NoArguments {
  static std::string arguments(const auto&) { return ""; }
};
struct NoParameters {
  static std::vector<ParameterSpec> parameters(const auto&) { return {}; }
  static Learns learns(const auto&) { return {}; }
  static void learn(const auto&, const LearnCall&) {}
};
struct LearnsFromInputs {
  static Learns learns(const auto&) { return {.inputs = true}; }
};
inline void learn_bias(const LearnCall& c) {
  if (float* bias = c.of("bias")) add_channel_sums(c.ctx, c.dy, bias);
}
struct AddsNothing {
  static void shift(const auto&, const StepWeights&, Shapes, StepShift&) {}
  static std::optional<GateConstants> constants(const auto&) { return std::nullopt; }
};
// A weight drawn for what flows into one output, and a bias.
inline std::vector<ParameterSpec> weight_and_bias(Dims weight, bool has_bias, int64_t outputs) {
  const int64_t fan_in = count(weight) / weight[0];
  std::vector<ParameterSpec> p{{.name = "weight", .dims = std::move(weight), .scale = float(std::sqrt(6.0 / double(fan_in)))}};
  if (has_bias) p.push_back({.name = "bias", .dims = {outputs}, .scale = 0.1f});
  return p;
}

inline void set_shift(StepShift& shift, std::span<const float> by_channel) {
  shift.shape = {1, int64_t(by_channel.size()), 1, 1};
  shift.array.values.assign(by_channel.begin(), by_channel.end());
}

// --- the tape

struct KeepsNothing {
  static Keeps keeps(const auto&, Shapes) { return {}; }
};
struct KeepsInputs {
  static Keeps keeps(const auto&, Shapes) { return {.inputs = true}; }
};

// --- reach

struct NoPadding {
  static Padding padding(const auto&) { return {}; }
  static auto repadded(const auto& l, const Padding&) { return l; }
};
struct OnePlace : NoPadding {
  static Reach reach(const auto&, Shapes, bool) { return {.kind = Reach::Kind::same}; }
};
template <typename L>
Reach sliding(const L& l, bool vertical, Reach::Kind kind) {
  return {.kind = kind, .axis = vertical ? sliding_rows(l) : sliding_columns(l)};
}
struct Slides {  // a convolution's or a pool's window
  static Reach reach(const auto& l, Shapes, bool vertical) { return sliding(l, vertical, Reach::Kind::window); }
  static Padding padding(const auto& l) { return {l.pad_top, l.pad_left, l.pad_bottom, l.pad_right}; }
  static auto repadded(auto l, const Padding& p) {
    l.pad_top = p[0], l.pad_left = p[1], l.pad_bottom = p[2], l.pad_right = p[3];
    if constexpr (requires { l.ceil_mode; }) l.ceil_mode = false;
    return l;
  }
};

// --- frozen networks (calls.h)

template <typename L>
struct FreezesAsIs {  // linear, without biases, gates and switches
  static void frozen(const L& l, const FrozenCall& c) { Home<L>::forward(l, c.forward()); }
};
template <typename L>
struct NotAffine {
  static void frozen(const L& l, const FrozenCall&) { fail("{} is not piecewise affine", Home<L>::name(l)); }
};

// --- patches (calls.h)

template <typename L>
struct MixesPlaces : NoPadding {  // its outputs depend on all places: patches end here
  static Reach reach(const L&, Shapes, bool) { return {}; }
  static std::vector<PatchScratch> scratch(const L&, Shapes, PatchSize, PatchSize) { return {}; }
  static void change(const L& l, const ChangeCall&) { fail("{} mixes all places", Home<L>::name(l)); }
};
struct NoScratch {
  static std::vector<PatchScratch> scratch(const auto&, Shapes, PatchSize, PatchSize) { return {}; }
};
struct ScratchForInputs {  // one for each, at the output's places
  static std::vector<PatchScratch> scratch(const auto&, Shapes x, PatchSize, PatchSize y) {
    std::vector<PatchScratch> all;
    for (const Shape& s : x) all.push_back({s.c, y});
    return all;
  }
};
template <typename L>
struct ChangesByValues : ScratchForInputs {  // f(x + Δ) − f(x)
  static void change(const L& l, const ChangeCall& c) {
    for (size_t i = 0; i < c.x.size(); ++i) gather_values(c.ctx, c.x[i], c.places, c.scratch[i]);
    Home<L>::forward(l, c.forward());
    subtract_clean(c.ctx, c.clean, c.places, c.y);
  }
};

}  // namespace switchback
