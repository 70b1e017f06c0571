// Attention over tokens, and products of two values.
#pragma once

#include "engine/layers/home.h"

namespace switchback {

template <>
struct Home<MatMul> : NoArguments, NoParameters, AddsNothing, KeepsInputs, MixesPlaces<MatMul>, NotAffine<MatMul> {
  static std::string_view name(const MatMul&) { return "MatMul"; }
  static Shape shape(const MatMul& l, Shapes x) {
    check_count(x, 2, name(l));
    return output_shape(l, x[0], x[1]);
  }
  static int64_t flops(const MatMul& l, Shapes x) { return 2 * shape(l, x).count() * x[0].c; }
  static Facts facts(const MatMul&) { return {.multiplies = true, .output = Facts::Output::map}; }
  static void forward(const MatMul&, const ForwardCall& c) { matmul_forward(c.ctx, c.x[0], c.x[1], c.y); }
  static void backward(const MatMul&, const BackwardCall& c) {
    matmul_backward(c.ctx, c.input, c.dy, c.x[0], c.x[1], c.dx, c.end);
  }
};

template <>
struct Home<Attention> : NoParameters, AddsNothing, KeepsInputs, MixesPlaces<Attention>, NotAffine<Attention> {
  static std::string_view name(const Attention&) { return "Attention"; }
  static std::string arguments(const Attention& l) {
    return fmt::format("scale {:.6g}{}", l.scale, l.bias.empty() ? "" : fmt::format(", {} biases", l.bias_groups));
  }
  static Shape shape(const Attention& l, Shapes x) {
    check_count(x, 3, name(l));
    const Shape y = attention_shape(x[0], x[1], x[2]);
    CHECK(l.bias_groups > 0 && (l.bias.empty() || int64_t(l.bias.size()) == l.bias_groups * x[0].w * x[1].w),
          "attention: {} biases for {} scores of {} groups", l.bias.size(), x[0].w * x[1].w, l.bias_groups);
    return y;
  }
  static int64_t flops(const Attention&, Shapes x) { return 2 * x[0].n * x[0].h * x[0].w * x[1].w * (x[0].c + x[2].c); }
  static Facts facts(const Attention&) { return {.multiplies = true, .output = Facts::Output::map}; }
  static void forward(const Attention& l, const ForwardCall& c) {
    attention_forward(c.ctx, scores(l, c.ctx, c.weights), c.x[0], c.x[1], c.x[2], c.y);
  }
  static void backward(const Attention& l, const BackwardCall& c) {
    attention_backward(c.ctx, scores(l, c.ctx, c.weights), c.input, c.dy, c.x[0], c.x[1], c.x[2], c.dx, c.end);
  }

 private:
  static AttentionScores scores(const Attention& l, Context& ctx, const StepWeights& s) {
    if (l.bias.empty()) return {.scale = l.scale};
    return {l.scale, s.packed<DeviceArray>([&] { return DeviceArray(l.bias); }).on(ctx), l.bias_groups};
  }
};

}  // namespace switchback
