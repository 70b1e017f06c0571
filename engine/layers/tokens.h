// Parameters of networks of tokens: scales of channels and heads, embeddings, attention in windows. (Linear layers over
// tokens: linear.h.)
#pragma once

#include "engine/layers/home.h"
#include "engine/layers/window_bias.h"
#include "kernels/normalize/batch_norm.h"

namespace switchback {

// to += from, both [count] on the context's device.
inline void add_to(Context& ctx, const float* from, int64_t count, float* to) {
  const Shape shape{1, count, 1, 1};
  add_forward(ctx, {from, shape, DType::f32}, {to, shape, DType::f32}, {to, shape, DType::f32}, {});
}

template <>
struct Home<LayerScale> : AddsNothing, KeepsNothing, OnePlace, LearnsFromInputs {
  static std::string_view name(const LayerScale&) { return "LayerScale"; }
  static std::string arguments(const LayerScale& l) { return fmt::format("{}", l.features); }
  static Shape shape(const LayerScale& l, Shapes x) {
    check_count(x, 1, name(l));
    CHECK(l.features == x[0].c, "{} scales for an input of {} channels", l.features, x[0].c);
    return x[0];
  }
  static std::vector<ParameterSpec> parameters(const LayerScale& l) { return {{"", {l.features, 1, 1}, 0.25f, 0.5f}}; }
  static int64_t flops(const LayerScale&, Shapes x) { return x[0].count(); }
  static Facts facts(const LayerScale&) { return {.affine = true, .takes_relu = true}; }
  static void forward(const LayerScale&, const ForwardCall& c) {
    channel_affine_forward(c.ctx, c.x[0], scale(c.ctx, c.weights), nullptr, c.y, c.end);
  }
  static void backward(const LayerScale&, const BackwardCall& c) {
    channel_affine_backward(c.ctx, c.dy, scale(c.ctx, c.weights), c.dx, c.end);
  }
  static void frozen(const LayerScale&, const FrozenCall& c) {
    channel_affine_forward(c.ctx, c.x[0], scale(c.ctx, c.weights), nullptr, c.y);
  }
  static void learn(const LayerScale&, const LearnCall& c) {  // Σ dy·x: the product, and its sums
    const Memory product = c.ctx.allocate(size_t(c.dy.shape.count()) * sizeof(float));
    const View y{product.data(), c.dy.shape, DType::f32};
    binary_forward(c.ctx, {BinaryFunction::mul}, c.dy, c.x[0], y);
    add_channel_sums(c.ctx, y, c.of(""));
  }
  static std::vector<PatchScratch> scratch(const LayerScale& l, Shapes x, PatchSize, PatchSize y) {
    return ScratchForInputs::scratch(l, x, {}, y);
  }
  static void change(const LayerScale&, const ChangeCall& c) {
    gather_changes(c.ctx, c.x[0], c.places, c.scratch[0]);
    channel_affine_forward(c.ctx, c.read[0], scale(c.ctx, c.weights), nullptr, c.y);
  }

 private:
  static const float* scale(Context& ctx, const StepWeights& s) { return s.on(ctx, ""); }
};

template <>
struct Home<Embedding> : OnePlace, KeepsNothing, NoScratch {
  static std::string_view name(const Embedding&) { return "Embedding"; }
  static std::string arguments(const Embedding& l) { return fmt::format("{} tokens, {}", l.tokens, l.features); }
  static Shape shape(const Embedding& l, Shapes x) {
    check_count(x, 1, name(l));
    CHECK(l.features == x[0].c && x[0].h == 1 && l.tokens <= x[0].w, "{} embeddings of {} for {}x{} tokens of {}",
          l.tokens, l.features, x[0].h, x[0].w, x[0].c);
    return x[0];
  }
  static std::vector<ParameterSpec> parameters(const Embedding& l) { return {{"", {1, l.tokens, l.features}, 0.1f}}; }
  static int64_t flops(const Embedding&, Shapes x) { return x[0].count(); }
  static Facts facts(const Embedding&) { return {.affine = true, .takes_relu = true}; }
  static Reach reach(const Embedding&, Shapes, bool) { return {.kind = Reach::Kind::same, .cuts = false}; }
  static void shift(const Embedding& l, const StepWeights& w, Shapes x, StepShift& shift) {
    shift.shape = x[0].with_n(1);
    shift.array.values = added(l, w, x[0]).values;
  }
  static std::optional<GateConstants> constants(const Embedding&) { return std::nullopt; }
  static Learns learns(const Embedding&) { return {}; }
  static void learn(const Embedding& l, const LearnCall& c) {  // Σ dy over the items
    const int64_t item = c.dy.shape.item();
    const Memory sums = c.ctx.allocate(size_t(item) * sizeof(float));
    c.ctx.zero(sums.data(), sums.size());
    add_channel_sums(c.ctx, {c.dy.data, {c.dy.shape.n, item, 1, 1}, c.dy.dtype}, sums.as<float>());
    add_to(c.ctx, sums.as<float>(), l.tokens * l.features, c.of(""));
  }
  static void forward(const Embedding& l, const ForwardCall& c) {
    binary_forward(c.ctx, {BinaryFunction::add}, c.x[0], value(added(l, c.weights, c.x[0].shape), c), c.y, c.end);
  }
  static void backward(const Embedding&, const BackwardCall& c) { combine_backward(c.ctx, c.dy, c.dx, c.end); }
  static void frozen(const Embedding& l, const FrozenCall& c) {
    const Shape x = c.x[0].shape;
    const DeviceArray& zeros =
        c.weights.packed<DeviceArray>([&] { return DeviceArray(std::vector<float>(size_t(x.item()), 0.f)); }, {x.w, 1});
    binary_forward(c.ctx, {BinaryFunction::add}, c.x[0], value(c.biases ? added(l, c.weights, x) : zeros, c), c.y);
  }
  static void change(const Embedding&, const ChangeCall& c) { gather_changes(c.ctx, c.x[0], c.places, c.y); }

 private:
  static const DeviceArray& added(const Embedding& l, const StepWeights& s,
                                  Shape x) {  // zeros behind the last embedding
    return s.packed<DeviceArray>(
        [&] {
          std::vector<float> all(l.features * x.w, 0.f);
          std::ranges::copy(s.parameter(""), all.begin());  // [tokens,features], as memory has maps
          return DeviceArray(std::move(all));
        },
        {x.w});
  }
  static ConstView value(const DeviceArray& array, const auto& call) {
    return {array.on(call.ctx), call.x[0].shape.with_n(1), DType::f32};
  }
};

// Swin V2's logit_scale: a head's queries times min(e^s, 100).
template <>
struct Home<HeadScale> : AddsNothing, KeepsNothing, OnePlace, LearnsFromInputs {
  static constexpr double kMost = 100;
  static std::string_view name(const HeadScale&) { return "HeadScale"; }
  static std::string arguments(const HeadScale& l) { return fmt::format("{}", l.heads); }
  static Shape shape(const HeadScale& l, Shapes x) {
    check_count(x, 1, name(l));
    CHECK(l.heads > 0 && x[0].h % l.heads == 0, "scales of {} heads for {} groups", l.heads, x[0].h);
    return x[0];
  }
  static std::vector<ParameterSpec> parameters(const HeadScale& l) { return {{"", {l.heads, 1, 1}, 0.5f, 2.3f}}; }
  static int64_t flops(const HeadScale&, Shapes x) { return x[0].count(); }
  static Facts facts(const HeadScale&) { return {.affine = true}; }
  static Reach reach(const HeadScale&, Shapes, bool) { return {.kind = Reach::Kind::same, .cuts = false}; }
  static void forward(const HeadScale& l, const ForwardCall& c) {
    binary_forward(c.ctx, {BinaryFunction::mul}, c.x[0], scales(l, c.ctx, c.weights, c.x[0].shape), c.y, c.end);
  }
  static void backward(const HeadScale& l, const BackwardCall& c) {
    binary_backward(c.ctx, {BinaryFunction::mul}, 0, c.dy, c.x[0], scales(l, c.ctx, c.weights, c.dx.shape), c.dx,
                    c.end);
  }
  static void frozen(const HeadScale& l, const FrozenCall& c) { forward(l, c.forward()); }
  static void learn(const HeadScale& l,
                    const LearnCall& c) {  // of s: Σ dy·x·e^s over a head's groups, 0 where it is cut
    const Shape x = c.x[0].shape;
    const int64_t windows = x.h / l.heads;
    const Memory by_group = c.ctx.allocate(size_t(x.n * x.h) * sizeof(float)),
                 sums = c.ctx.allocate(size_t(l.heads) * sizeof(float));
    const View groups{by_group.data(), {x.n, 1, x.h, 1}, DType::f32};
    binary_backward(c.ctx, {BinaryFunction::mul}, 1, c.dy, c.x[0], scales(l, c.ctx, c.weights, x), groups);
    c.ctx.zero(sums.data(), sums.size());
    add_channel_sums(c.ctx, {by_group.data(), {x.n * windows, l.heads, 1, 1}, DType::f32}, sums.as<float>());
    std::vector<float> host(l.heads, 0.f);
    const std::span<const float> s = c.weights.parameter("");
    c.ctx.copy_out(host.data(), sums.data(), sums.size());
    for (size_t h = 0; h < host.size(); ++h) host[h] *= double(s[h]) <= std::log(kMost) ? std::exp(s[h]) : 0.f;
    c.ctx.copy_in(sums.data(), host.data(), sums.size());
    add_to(c.ctx, sums.as<float>(), l.heads, c.of(""));
  }
  static std::vector<PatchScratch> scratch(const HeadScale& l, Shapes x, PatchSize, PatchSize y) {
    return ScratchForInputs::scratch(l, x, {}, y);
  }
  static void change(const HeadScale&, const ChangeCall&) { fail("scales of heads are not cut"); }

 private:
  static ConstView scales(const HeadScale& l, Context& ctx, const StepWeights& s, Shape x) {
    const DeviceArray& all = s.packed<DeviceArray>(
        [&] {
          std::vector<float> by_group;
          const std::span<const float> logarithms = s.parameter("");
          for (int64_t g = 0; g < x.h; ++g)
            by_group.push_back(float(std::min(std::exp(double(logarithms[g % l.heads])), kMost)));
          return DeviceArray(std::move(by_group));
        },
        {x.h});
    return {all.on(ctx), {1, 1, x.h, 1}, DType::f32};
  }
};

// Attention in windows. What the scores get for their places: window_bias.h.
template <>
struct Home<WindowAttention>
    : AddsNothing, KeepsInputs, MixesPlaces<WindowAttention>, NotAffine<WindowAttention>, LearnsFromInputs {
  static std::string_view name(const WindowAttention&) { return "WindowAttention"; }
  static std::string arguments(const WindowAttention& l) {
    return fmt::format("window {}, {} heads, {}x{} windows{}", l.window, l.heads, l.rows, l.columns,
                       l.shift_h + l.shift_w > 0 ? ", shifted" : "");
  }
  static Shape shape(const WindowAttention& l, Shapes x) {
    check_count(x, 3, name(l));
    CHECK(x[0].h == l.rows * l.columns * l.heads && x[0].w == l.window * l.window && x[1].w == x[0].w,
          "{}x{} windows of {} tokens and {} heads: not {} groups of {}", l.rows, l.columns, l.window * l.window,
          l.heads, x[0].h, x[0].w);
    return attention_shape(x[0], x[1], x[2]);
  }
  static std::vector<ParameterSpec> parameters(const WindowAttention& l) {
    const int64_t places = (2 * l.window - 1) * (2 * l.window - 1), inner = WindowAttention::kInner;
    if (!l.continuous) return {{"relative_position_bias_table", {places, l.heads}, 0.5f}};
    return {{"cpb_mlp.0.weight", {inner, 2}, float(std::sqrt(3.0))},
            {"cpb_mlp.0.bias", {inner}, 0.1f},
            {"cpb_mlp.2.weight", {l.heads, inner}, float(std::sqrt(6.0 / double(inner)))}};
  }
  static int64_t flops(const WindowAttention&, Shapes x) {
    return 2 * x[0].n * x[0].h * x[0].w * x[1].w * (x[0].c + x[2].c);
  }
  static Facts facts(const WindowAttention&) { return {.multiplies = true, .output = Facts::Output::map}; }
  static void forward(const WindowAttention& l, const ForwardCall& c) {
    attention_forward(c.ctx, scores(l, c.ctx, c.weights), c.x[0], c.x[1], c.x[2], c.y);
  }
  static void backward(const WindowAttention& l, const BackwardCall& c) {
    attention_backward(c.ctx, scores(l, c.ctx, c.weights), c.input, c.dy, c.x[0], c.x[1], c.x[2], c.dx, c.end);
  }
  static void learn(const WindowAttention& l, const LearnCall& c) { learn_window_bias(l, c); }

 private:
  static AttentionScores scores(const WindowAttention& l, Context& ctx, const StepWeights& s) {
    const DeviceArray& bias = s.packed<DeviceArray>([&] { return DeviceArray(window_bias(l, s)); });
    return {l.scale, bias.on(ctx), int64_t(bias.values.size()) / (l.window * l.window * l.window * l.window)};
  }
};

}  // namespace switchback
