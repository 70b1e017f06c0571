// Batch norm, local response norm, layer norm, group and instance norm.
#pragma once

#include "engine/layers/home.h"
#include "kernels/normalize/set_norm.h"

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
  static Facts facts(const BatchNorm2d&) { return {.affine = true, .takes_relu = true, .backward_in_place = true}; }
  static void shift(const BatchNorm2d&, const StepWeights& w, Shapes, StepShift& shift) {
    set_shift(shift, channel_affine(w).shift.values);
  }
  static std::optional<GateConstants> constants(const BatchNorm2d&) { return std::nullopt; }
  static Learns learns(const BatchNorm2d&) { return {.by_itself = true, .inputs = true, .moments = true}; }
  static void learn(const BatchNorm2d& l, const LearnCall& c) {
    const size_t bytes = size_t(l.features) * sizeof(float);
    auto* sums = static_cast<float*>(c.ctx.scratch.reserve(2 * bytes));
    channel_sums(c.ctx, c.dy, c.x[0], c.moments, sums);
    c.ctx.copy(c.of("bias"), sums, bytes);
    c.ctx.copy(c.of("weight"), sums + l.features, bytes);
    c.ctx.copy(c.of("running_mean"), c.moments, bytes);
    const double count = double(c.dy.shape.pixels());  // the running variance is of unbiased ones
    c.ctx.zero(c.of("running_var"), bytes);
    update_running(c.ctx, l.features, 1, float(count / (count - 1)), c.moments + l.features, c.of("running_var"));
  }
  static void forward(const BatchNorm2d& l, const ForwardCall& c) {
    if (c.training) {
      auto* affine = static_cast<float*>(c.ctx.scratch.reserve(2 * size_t(l.features) * sizeof(float)));
      batch_norm_moments(c.ctx, c.x[0], l.eps, c.moments);
      batch_norm_affine(c.ctx, l.features, c.moments, c.weights.on(c.ctx, "weight"), c.weights.on(c.ctx, "bias"), affine);
      return channel_affine_forward(c.ctx, c.x[0], affine, affine + l.features, c.y, c.end);
    }
    const ChannelAffine& a = channel_affine(c.weights);
    channel_affine_forward(c.ctx, c.x[0], a.scale.on(c.ctx), a.shift.on(c.ctx), c.y, c.end);
  }
  static void backward(const BatchNorm2d& l, const BackwardCall& c) {
    if (c.training) {
      const size_t bytes = size_t(l.features) * sizeof(float);
      auto* sums = static_cast<float*>(c.ctx.scratch.reserve(2 * bytes));
      if (c.gradients) {
        c.ctx.copy(sums, c.weights.place("bias", c.gradients), bytes);
        c.ctx.copy(sums + l.features, c.weights.place("weight", c.gradients), bytes);
      } else {
        channel_sums(c.ctx, c.dy, c.x[0], c.moments, sums);
      }
      return batch_norm_backward(c.ctx, c.dy, c.x[0], c.moments, sums, c.weights.on(c.ctx, "weight"), c.dx, c.end);
    }
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

// A norm's weight or bias where kernels can read it; null where there is none. With places > 1 they are turned from CHW
// order to NHWC.
inline const float* norm_parameter(const StepWeights& s, Context& ctx, const char* name, int64_t places, int which) {
  const std::span<const float> values = s.parameter(name);
  if (values.empty()) return nullptr;
  return s.packed<DeviceArray>(
              [&] {
                std::vector<float> turned(values.size());
                const size_t channels = values.size() / size_t(places);
                for (size_t c = 0; c < channels; ++c)
                  for (size_t p = 0; p < size_t(places); ++p) turned[p * channels + c] = values[c * size_t(places) + p];
                return DeviceArray(std::move(turned));
              },
              {which})
      .on(ctx);
}

template <>
struct Home<LayerNorm> : AddsNothing, KeepsInputs, NoPadding, NotAffine<LayerNorm>, LearnsFromInputs {
  static std::string_view name(const LayerNorm&) { return "LayerNorm"; }
  static std::string arguments(const LayerNorm& l) { return fmt::format("{}", fmt::join(sizes(l), ", ")); }
  static Shape shape(const LayerNorm& l, Shapes x) {
    check_count(x, 1, name(l));
    const bool last = l.w > 0 && (l.h > 0 || l.c == 0), channels = l.c > 0 && l.h == 0 && l.w == 0;
    CHECK(last || channels, "a layer norm is over the last axes, or over channels alone, not over [{},{},{}]", l.c, l.h, l.w);
    const auto fits = [](int64_t size, int64_t has) { return size == 0 || size == has; };
    CHECK(fits(l.c, x[0].c) && fits(l.h, x[0].h) && fits(l.w, x[0].w), "a layer norm of [{}] on an input of [{},{},{}]",
          arguments(l), x[0].c, x[0].h, x[0].w);
    return x[0];
  }
  static std::vector<ParameterSpec> parameters(const LayerNorm& l) {
    std::vector<ParameterSpec> p;
    if (l.has_weight) p.push_back({"weight", sizes(l), 0.25f, 1.f});
    if (l.has_bias) p.push_back({"bias", sizes(l), 0.1f});
    return p;
  }
  static int64_t flops(const LayerNorm&, Shapes x) { return 8 * x[0].count(); }
  static Facts facts(const LayerNorm&) { return {}; }
  static Reach reach(const LayerNorm& l, Shapes, bool) {
    if (!at_one_place(l)) return {};
    return {.kind = Reach::Kind::same};
  }
  static void forward(const LayerNorm& l, const ForwardCall& c) {
    set_norm_forward(c.ctx, sets(l), affine(l, c.ctx, c.weights), c.x[0], c.y);
  }
  static void backward(const LayerNorm& l, const BackwardCall& c) {
    set_norm_backward(c.ctx, sets(l), affine(l, c.ctx, c.weights), c.dy, c.x[0], c.dx, c.end);
  }
  static void learn(const LayerNorm& l, const LearnCall& c) {
    const NormSets s = sets(l);
    NormGradients g{.weight = c.of("weight"), .bias = c.of("bias"), .by_place = at_one_place(l) ? 0 : 1,
                    .by_channel = l.c > 0 ? s.places : 0};
    g.count = std::max<int64_t>(l.c, 1) * s.places;
    if (g.weight || g.bias) set_norm_backward_affine(c.ctx, s, c.dy, c.x[0], g);
  }
  static std::vector<PatchScratch> scratch(const LayerNorm& l, Shapes x, PatchSize, PatchSize y) {
    return ScratchForInputs::scratch(l, x, {}, y);
  }
  static void change(const LayerNorm& l, const ChangeCall& c) {
    CHECK(at_one_place(l), "{} mixes places", name(l));
    ChangesByValues<LayerNorm>::change(l, c);
  }

 private:
  static bool at_one_place(const LayerNorm& l) { return l.h == 0 && l.w == 0; }
  static Dims sizes(const LayerNorm& l) {
    Dims all;
    for (const int64_t size : {l.c, l.h, l.w})
      if (size > 0) all.push_back(size);
    return all;
  }
  static NormSets sets(const LayerNorm& l) {
    return {std::max<int64_t>(l.c, 1), std::max<int64_t>(l.h, 1) * std::max<int64_t>(l.w, 1), l.eps};
  }
  static NormAffine affine(const LayerNorm& l, Context& ctx, const StepWeights& s) {
    const int64_t places = l.c > 0 ? sets(l).places : 1;
    return {norm_parameter(s, ctx, "weight", places, 0), norm_parameter(s, ctx, "bias", places, 1),
            at_one_place(l) ? 0 : std::max<int64_t>(l.c, 1), l.c > 0};
  }
};

template <>
struct Home<GroupNorm> : AddsNothing, KeepsInputs, MixesPlaces<GroupNorm>, NotAffine<GroupNorm>, LearnsFromInputs {
  static std::string_view name(const GroupNorm& l) { return l.groups == l.channels ? "InstanceNorm2d" : "GroupNorm"; }
  static std::string arguments(const GroupNorm& l) {
    return l.groups == l.channels ? fmt::format("{}", l.channels) : fmt::format("{}, {}", l.groups, l.channels);
  }
  static Shape shape(const GroupNorm& l, Shapes x) {
    check_count(x, 1, name(l));
    CHECK(l.groups > 0 && l.channels % l.groups == 0, "{} channels do not divide into {} groups", l.channels, l.groups);
    CHECK(l.channels == x[0].c, "a norm of {} channels on an input of {}", l.channels, x[0].c);
    return x[0];
  }
  static std::vector<ParameterSpec> parameters(const GroupNorm& l) {
    if (!l.affine) return {};
    return {{"weight", {l.channels}, 0.25f, 1.f}, {"bias", {l.channels}, 0.1f}};
  }
  static int64_t flops(const GroupNorm&, Shapes x) { return 8 * x[0].count(); }
  static Facts facts(const GroupNorm&) { return {}; }
  static void forward(const GroupNorm& l, const ForwardCall& c) {
    set_norm_forward(c.ctx, sets(l, c.y.shape), affine(c.ctx, c.weights), c.x[0], c.y);
  }
  static void backward(const GroupNorm& l, const BackwardCall& c) {
    set_norm_backward(c.ctx, sets(l, c.dx.shape), affine(c.ctx, c.weights), c.dy, c.x[0], c.dx, c.end);
  }
  static void learn(const GroupNorm& l, const LearnCall& c) {
    if (!l.affine) return;
    set_norm_backward_affine(c.ctx, sets(l, c.x[0].shape), c.dy, c.x[0],
                             {.weight = c.of("weight"), .bias = c.of("bias"), .count = l.channels});
  }

 private:
  static NormSets sets(const GroupNorm& l, Shape s) { return {l.channels / l.groups, s.h * s.w, l.eps}; }
  static NormAffine affine(Context& ctx, const StepWeights& s) {
    return {norm_parameter(s, ctx, "weight", 1, 0), norm_parameter(s, ctx, "bias", 1, 1)};
  }
};

}  // namespace switchback
