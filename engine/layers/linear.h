// Fully connected layers.
#pragma once

#include "engine/layers/conv.h"

namespace switchback {

inline const LinearWeights& linear_weights(const StepWeights& s, bool bias = true) {
  return s.packed<LinearWeights>(
      [&] {
        const std::span<const float> b = s.parameter("bias");
        return LinearWeights{s.layer_of<Linear>(s.node), s.parameter("weight").data(), bias && !b.empty() ? b.data() : nullptr};
      },
      {bias});
}

// A linear layer that reads a map [c,h,w] where it lies (NHWC), without the flatten before it: a convolution whose kernel
// covers the map, since the columns of its weight are in CHW order.
inline Conv2d map_conv(const Linear& l, Shape map) {
  return {.in_channels = map.c, .out_channels = l.out_features, .kernel_h = map.h, .kernel_w = map.w, .has_bias = l.has_bias};
}
inline const ConvWeights& map_weights(const StepWeights& s, Shape map) {
  return s.packed<ConvWeights>(
      [&] {
        const std::span<const float> bias = s.parameter("bias");
        return ConvWeights(map_conv(s.layer_of<Linear>(s.node), map), s.parameter("weight").data(), {bias.begin(), bias.end()});
      },
      {map.h, map.w});
}

template <>
struct Home<Linear> : KernelShape<Linear>, KeepsNothing, MixesPlaces<Linear>, LearnsFromInputs {
  static std::string_view name(const Linear&) { return "Linear"; }
  static std::string arguments(const Linear& l) { return fmt::format("{}, {}", l.in_features, l.out_features); }
  static std::vector<ParameterSpec> parameters(const Linear& l) {
    return weight_and_bias({l.out_features, l.in_features}, l.has_bias, l.out_features);
  }
  static int64_t flops(const Linear& l, Shapes x) { return 2 * x[0].n * l.out_features * l.in_features; }
  static Facts facts(const Linear&) {
    return {.affine = true, .takes_relu = true, .multiplies = true, .output = Facts::Output::vector,
            .pixels_at_a_time = Facts::kWholeBatch};
  }
  static void shift(const Linear&, const StepWeights& w, Shapes, StepShift& shift) { set_shift(shift, w.parameter("bias")); }
  static std::optional<GateConstants> constants(const Linear&) { return std::nullopt; }
  static void forward(const Linear&, const ForwardCall& c) {
    const Shape x = c.x[0].shape;
    if (x.h * x.w > 1)
      conv2d_forward(c.ctx, map_weights(c.weights, x), c.x[0], c.y, c.end);
    else
      linear_forward(c.ctx, linear_weights(c.weights), c.x[0], c.y, c.end);
  }
  static void backward(const Linear&, const BackwardCall& c) {
    if (c.dx.shape.h * c.dx.shape.w > 1)
      conv2d_backward_data(c.ctx, map_weights(c.weights, c.dx.shape), c.dy, c.dx, c.end);
    else
      linear_backward_data(c.ctx, linear_weights(c.weights), c.dy, c.dx, c.end);
  }
  static void learn(const Linear& l, const LearnCall& c) {
    const Shape x = c.x[0].shape;
    if (x.h * x.w > 1) conv2d_backward_weights(c.ctx, map_conv(l, x), c.x[0], c.dy, c.of("weight"));
    else linear_backward_weights(c.ctx, l, c.x[0], c.dy, c.of("weight"));
    learn_bias(c);
  }
  static void frozen(const Linear&, const FrozenCall& c) {
    linear_forward(c.ctx, linear_weights(c.weights, c.biases), c.x[0], c.y, c.end());
  }
};

template <>
struct Home<PlaceLinear> : OnePlace, KeepsNothing, LearnsFromInputs {
  static std::string_view name(const PlaceLinear&) { return "Linear"; }
  static std::string arguments(const PlaceLinear& l) { return fmt::format("{}, {}", l.in_features, l.out_features); }
  static Shape shape(const PlaceLinear& l, Shapes x) {
    check_count(x, 1, name(l));
    return output_shape(conv(l), x[0]);
  }
  static std::vector<ParameterSpec> parameters(const PlaceLinear& l) {
    return weight_and_bias({l.out_features, l.in_features}, l.has_bias, l.out_features);
  }
  static int64_t flops(const PlaceLinear& l, Shapes x) { return 2 * shape(l, x).count() * l.in_features; }
  static Facts facts(const PlaceLinear&) {
    return {.affine = true, .takes_relu = true, .takes_sum = true, .multiplies = true, .output = Facts::Output::map};
  }
  static void shift(const PlaceLinear& l, const StepWeights& w, Shapes, StepShift& shift) { set_shift(shift, sounding(l, w)); }
  static std::optional<GateConstants> constants(const PlaceLinear&) { return std::nullopt; }
  static void forward(const PlaceLinear& l, const ForwardCall& c) {
    conv2d_forward(c.ctx, weights(l, c.weights), c.x[0], c.y, c.end);
  }
  static void backward(const PlaceLinear& l, const BackwardCall& c) {
    conv2d_backward_data(c.ctx, weights(l, c.weights), c.dy, c.dx, c.end);
  }
  static void learn(const PlaceLinear& l, const LearnCall& c) {
    conv2d_backward_weights(c.ctx, conv(l), c.x[0], c.dy, c.of("weight"));
    learn_bias(c);
    if (l.silent_end > l.silent_begin)
      c.ctx.zero(c.of("bias") + l.silent_begin, size_t(l.silent_end - l.silent_begin) * sizeof(float));
  }
  static void frozen(const PlaceLinear& l, const FrozenCall& c) {
    conv2d_forward(c.ctx, c.biases ? weights(l, c.weights) : bare(l, c.weights), c.x[0], c.y, c.end());
  }
  static std::vector<PatchScratch> scratch(const PlaceLinear& l, Shapes x, PatchSize, PatchSize y) {
    return ScratchForInputs::scratch(l, x, {}, y);
  }
  static void change(const PlaceLinear& l, const ChangeCall& c) {
    gather_changes(c.ctx, c.x[0], c.places, c.scratch[0]);
    conv2d_forward(c.ctx, bare(l, c.weights), c.read[0], c.y, c.end());
  }

 private:
  static Conv2d conv(const PlaceLinear& l) { return conv2d(l.in_features, l.out_features, 1, 1, 0, 1, 1, l.has_bias); }
  // Its bias with that of a batch norm, without the silent part.
  static std::vector<float> sounding(const PlaceLinear& l, const StepWeights& s) {
    std::vector<float> bias = folded(s).bias;
    for (int64_t i = l.silent_begin; i < std::min<int64_t>(l.silent_end, int64_t(bias.size())); ++i) bias[i] = 0;
    return bias;
  }
  static const ConvWeights& weights(const PlaceLinear& l, const StepWeights& s) {
    return s.packed<ConvWeights>(
        [&] { return ConvWeights(conv(l), s.parameter("weight").data(), sounding(l, s), folded(s).scale); });
  }
  static const ConvWeights& bare(const PlaceLinear& l, const StepWeights& s) {
    return s.packed<ConvWeights>([&] { return weights(l, s).without_bias(without_bias(conv(l))); }, {1});
  }
};

}  // namespace switchback
