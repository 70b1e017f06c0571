// Batch norm, local response norm.
#pragma once

#include "engine/layers/home.h"

namespace switchback {

// y = scale·x + shift for each channel: what a batch norm is at inference.
struct ChannelAffine {
  DeviceArray scale, shift;
};
inline const ChannelAffine& channel_affine(const StepWeights& s) {
  return s.packed<ChannelAffine>([&] {
    const auto& layer = s.layer_of<BatchNorm2d>(s.node);
    const auto weight = s.parameter("weight"), bias = s.parameter("bias"), mean = s.parameter("running_mean"),
               variance = s.parameter("running_var");
    std::vector<float> scale, shift;
    for (size_t c = 0; c < weight.size(); ++c) {
      const double by = double(weight[c]) / std::sqrt(double(variance[c]) + double(layer.eps));
      scale.push_back(float(by));
      shift.push_back(float(double(bias[c]) - double(mean[c]) * by));
    }
    return ChannelAffine{DeviceArray(std::move(scale)), DeviceArray(std::move(shift))};
  });
}

template <>
struct Home<BatchNorm2d> : OnePlace, KeepsNothing {
  static std::string_view name(const BatchNorm2d&) { return "BatchNorm2d"; }
  static std::string arguments(const BatchNorm2d& l) { return fmt::format("{}", l.features); }
  static Shape shape(const BatchNorm2d& l, Shapes x) {
    check_count(x, 1, name(l));
    CHECK(l.features == x[0].c, "batch norm of {} channels on an input of {}", l.features, x[0].c);
    return x[0];
  }
  static std::vector<ParameterSpec> parameters(const BatchNorm2d& l) {
    return {{"weight", {l.features}, 0.25f, 1.f},
            {"bias", {l.features}, 0.1f},
            {"running_mean", {l.features}, 0.1f, 0.f, false},
            {"running_var", {l.features}, 0.5f, 1.f, false}};
  }
  static int64_t flops(const BatchNorm2d&, Shapes x) { return 2 * x[0].count(); }
  static Facts facts(const BatchNorm2d&) { return {.affine = true, .takes_relu = true}; }
  static void shift(const BatchNorm2d&, const StepWeights& w, Shapes, StepShift& shift) {
    set_shift(shift, channel_affine(w).shift.values);
  }
  static std::optional<GateConstants> constants(const BatchNorm2d&) { return std::nullopt; }
  static void forward(const BatchNorm2d&, const ForwardCall& c) {
    const ChannelAffine& a = channel_affine(c.weights);
    channel_affine_forward(c.ctx, c.x[0], a.scale.on(c.ctx), a.shift.on(c.ctx), c.y, c.end);
  }
  static void backward(const BatchNorm2d&, const BackwardCall& c) {
    channel_affine_backward(c.ctx, c.dy, channel_affine(c.weights).scale.on(c.ctx), c.dx, c.end);
  }
  static void frozen(const BatchNorm2d&, const FrozenCall& c) {
    const ChannelAffine& a = channel_affine(c.weights);
    channel_affine_forward(c.ctx, c.x[0], a.scale.on(c.ctx), c.biases ? a.shift.on(c.ctx) : nullptr, c.y);
  }
  static std::vector<PatchScratch> scratch(const BatchNorm2d& l, Shapes x, PatchSize, PatchSize y) {
    return ScratchForInputs::scratch(l, x, {}, y);
  }
  static void change(const BatchNorm2d&, const ChangeCall& c) {
    gather_changes(c.ctx, c.x[0], c.places, c.scratch[0]);
    channel_affine_forward(c.ctx, c.read[0], channel_affine(c.weights).scale.on(c.ctx), nullptr, c.y);
  }
};

template <>
struct Home<LocalResponseNorm> : OneInput<LocalResponseNorm>, NoParameters, AddsNothing, OnePlace, KeepsInputs,
                                 NotAffine<LocalResponseNorm>, ChangesByValues<LocalResponseNorm> {
  static std::string_view name(const LocalResponseNorm&) { return "LocalResponseNorm"; }
  static std::string arguments(const LocalResponseNorm& l) { return fmt::format("{}", l.size); }
  static int64_t flops(const LocalResponseNorm& l, Shapes x) { return x[0].count() * (2 * l.size + 2); }
  static Facts facts(const LocalResponseNorm&) { return {.output = Facts::Output::map}; }
  static void forward(const LocalResponseNorm& l, const ForwardCall& c) { lrn_forward(c.ctx, l, c.x[0], c.y); }
  static void backward(const LocalResponseNorm& l, const BackwardCall& c) {
    lrn_backward(c.ctx, l, c.dy, c.x[0], c.dx, c.end);
  }
};

}  // namespace switchback
