// Layers that move values: concatenations, resizes, pads, slices, shuffles, reshapes.
#pragma once

#include "engine/layers/describe.h"
#include "engine/layers/home.h"

namespace switchback {

template <>
struct Home<Input> : NoArguments, NoParameters, AddsNothing, KeepsNothing, OnePlace, NoScratch {
  static std::string_view name(const Input&) { return "Input"; }
  static Shape shape(const Input&, Shapes x) { return x.empty() ? Shape{} : x[0]; }
  static int64_t flops(const Input&, Shapes) { return 0; }
  static Facts facts(const Input&) { return {.affine = true, .output = Facts::Output::map}; }
  // It is no step of a plan.
  static void forward(const Input&, const ForwardCall&) { fail("the input is not computed"); }
  static void backward(const Input&, const BackwardCall&) { fail("nothing lies before the input"); }
  static void frozen(const Input&, const FrozenCall&) { fail("the input is not computed"); }
  static void change(const Input&, const ChangeCall&) { fail("the input is not computed"); }
};

template <>
struct Home<Dropout> : OneInput<Dropout>, NoArguments, NoParameters, AddsNothing, KeepsNothing, OnePlace, NoScratch {
  static std::string_view name(const Dropout&) { return "Dropout"; }
  static int64_t flops(const Dropout&, Shapes) { return 0; }
  static Facts facts(const Dropout&) { return {.affine = true, .shares_input = true}; }
  static Learns learns(const Dropout&) { return {.by_itself = true}; }
  // Nor is a dropout, but in training: its value is its input's.
  static void forward(const Dropout& l, const ForwardCall& c) {
    CHECK(c.training, "a dropout is computed in training alone");
    dropout_forward(c.ctx, draw(l, *c.training, c.weights.node), c.x[0], c.y);
  }
  static void backward(const Dropout& l, const BackwardCall& c) {
    CHECK(c.training, "a dropout is computed in training alone");
    dropout_backward(c.ctx, draw(l, *c.training, c.weights.node), c.dy, c.dx, c.end);
  }
  static void frozen(const Dropout&, const FrozenCall&) { fail("a dropout is not computed"); }
  static void change(const Dropout&, const ChangeCall&) { fail("a dropout is not computed"); }

 private:
  static DropoutDraw draw(const Dropout& l, const Training& t, int node) {
    return {l.rate, l.channels, t.seed, uint32_t(t.step), uint32_t(node), uint32_t(t.first_item)};
  }
};

template <>
struct Home<Flatten> : NoArguments, NoParameters, AddsNothing, KeepsNothing, FreezesAsIs<Flatten>, MixesPlaces<Flatten> {
  static std::string_view name(const Flatten&) { return "Flatten"; }
  static Shape shape(const Flatten& l, Shapes x) {
    check_count(x, 1, name(l));
    return {x[0].n, x[0].item(), 1, 1};
  }
  static int64_t flops(const Flatten&, Shapes) { return 0; }
  static Facts facts(const Flatten&) { return {.affine = true, .output = Facts::Output::vector}; }
  static void forward(const Flatten&, const ForwardCall& c) { flatten_forward(c.ctx, c.x[0], c.y); }
  static void backward(const Flatten&, const BackwardCall& c) { flatten_backward(c.ctx, c.dy, c.dx, c.end); }
};

template <>
struct Home<Concat> : NoArguments, NoParameters, AddsNothing, KeepsNothing, OnePlace, FreezesAsIs<Concat>, NoScratch {
  static std::string_view name(const Concat&) { return "Concat"; }
  static Shape shape(const Concat&, Shapes x) {
    CHECK(x.size() >= 2, "Concat takes two or more inputs, not {}", x.size());
    Shape all = x[0];
    for (const Shape& s : x.subspan(1)) {
      CHECK(s.n == all.n && s.h == all.h && s.w == all.w, "cannot concatenate [{},{},{}] and [{},{},{}]", all.c, all.h, all.w,
            s.c, s.h, s.w);
      all.c += s.c;
    }
    return all;
  }
  static int64_t flops(const Concat&, Shapes) { return 0; }
  static Facts facts(const Concat&) { return {.affine = true}; }
  static void forward(const Concat&, const ForwardCall& c) {
    int64_t channel = 0;
    for (const ConstView& part : c.x) {
      if (part.data) concat_forward(c.ctx, part, c.y, channel);
      channel += part.shape.c;
    }
  }
  static void backward(const Concat&, const BackwardCall& c) {
    int64_t channel = 0;
    for (int i = 0; i < c.input; ++i) channel += c.x[i].shape.c;
    concat_backward(c.ctx, c.dy, channel, c.dx, c.end);
  }
  static void change(const Concat&, const ChangeCall& c) {
    int64_t channel = 0;
    for (const Change& part : c.x) {
      gather_changes(c.ctx, part, c.places, c.y, channel);
      channel += part.clean.shape.c;
    }
  }
};

// Outputs that are weighted sums of a few inputs at fixed places (kernels/move/resample.h).
template <typename L>
const Resampling& resampling(const L& l, const StepWeights& s, Shape x) {
  return s.packed<Resampling>([&] { return Resampling(l, x.with_n(1)); }, {x.c, x.h, x.w});
}
template <typename L>
struct ResampleHome : KernelShape<L>, NoParameters, KeepsNothing, NoPadding, NoScratch {
  static Reach reach(const L& l, Shapes x, bool vertical) {
    const auto all = std::make_shared<const Resampling>(l, x[0].with_n(1));
    const Resampling::Tables& back = all->backward();
    return {.kind = Reach::Kind::table, .back = {all, vertical ? &back.rows : &back.columns}};
  }
  static int64_t flops(const L&, Shapes) { return 0; }
  static std::optional<GateConstants> constants(const L&) { return std::nullopt; }
  static void forward(const L& l, const ForwardCall& c) {
    resample_forward(c.ctx, resampling(l, c.weights, c.x[0].shape), c.x[0], c.y);
  }
  static void backward(const L& l, const BackwardCall& c) {
    resample_backward(c.ctx, resampling(l, c.weights, c.dx.shape), c.dy, c.dx, c.end);
  }
  static void change(const L& l, const ChangeCall& c) {
    resample_changes(c.ctx, resampling(l, c.weights, c.x[0].clean.shape), c.x[0], c.places, c.y);
  }
};
struct NoShift {
  static void shift(const auto&, const StepWeights&, Shapes, StepShift&) {}
};

template <>
struct Home<Resize> : ResampleHome<Resize>, NoShift, FreezesAsIs<Resize> {
  static std::string_view name(const Resize&) { return "Upsample"; }
  static std::string arguments(const Resize& l) {
    constexpr const char* kPlaces[] = {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric",
                                       "tf_half_pixel_for_nn", "half_pixel_symmetric"};
    constexpr const char* kModes[] = {"nearest", "bilinear", "bicubic"};
    const std::string to = l.out_h > 0 && l.out_w > 0 ? "to " + size2(l.out_h, l.out_w)
                                                      : fmt::format("by {}x{}", l.scale_h, l.scale_w);
    return fmt::format("{}, {}, {}", to, kModes[int(l.mode)], kPlaces[int(l.coordinates)]);
  }
  static int64_t flops(const Resize& l, Shapes x) {
    return (l.mode == Resize::Mode::bilinear ? 8 : l.mode == Resize::Mode::bicubic ? 32 : 0) * shape(l, x).count();
  }
  static Facts facts(const Resize&) { return {.affine = true, .output = Facts::Output::map}; }
};

// Its second input gives a size alone: the gradient there is zero, and patches end here, since that input may have maps of any
// size.
template <>
struct Home<ResizeLike> : NoArguments, NoParameters, AddsNothing, KeepsNothing, FreezesAsIs<ResizeLike>,
                          MixesPlaces<ResizeLike> {
  static std::string_view name(const ResizeLike&) { return "UpsampleLike"; }
  static Shape shape(const ResizeLike& l, Shapes x) {
    check_count(x, 2, name(l));
    return {x[0].n, x[0].c, x[1].h, x[1].w};
  }
  static int64_t flops(const ResizeLike& l, Shapes x) { return 8 * shape(l, x).count(); }
  static Facts facts(const ResizeLike&) { return {.affine = true, .output = Facts::Output::map}; }
  static void forward(const ResizeLike&, const ForwardCall& c) {
    resample_forward(c.ctx, tables(c.weights, c.x[0].shape, c.y.shape), c.x[0], c.y);
  }
  static void backward(const ResizeLike&, const BackwardCall& c) {
    if (c.input == 0) return resample_backward(c.ctx, tables(c.weights, c.dx.shape, c.dy.shape), c.dy, c.dx, c.end);
    const size_t bytes = size_t(c.dx.shape.count()) * size_of(c.dx.dtype);
    void* zeros = c.ctx.scratch.reserve(bytes);
    c.ctx.zero(zeros, bytes);
    combine_backward(c.ctx, {zeros, c.dx.shape, c.dx.dtype}, c.dx, c.end);
  }

 private:
  static const Resampling& tables(const StepWeights& s, Shape x, Shape y) {
    return s.packed<Resampling>([&] { return Resampling(bilinear_to(y.h, y.w), x.with_n(1)); }, {x.c, x.h, x.w, y.h, y.w});
  }
};

template <>
struct Home<Pad> : ResampleHome<Pad> {
  static std::string_view name(const Pad& l) {
    if (l.mode == Pad::Mode::reflect) return "ReflectionPad2d";
    if (l.mode == Pad::Mode::edge) return "ReplicationPad2d";
    return l.value == 0.f ? "ZeroPad2d" : "ConstantPad2d";
  }
  static std::string arguments(const Pad& l) {
    std::string text = fmt::format("left {} right {} top {} bottom {}", l.left, l.right, l.top, l.bottom);
    if (l.front != 0 || l.back != 0) text += fmt::format(" front {} back {}", l.front, l.back);
    return l.value == 0.f ? text : text + fmt::format(", value {}", l.value);
  }
  static Facts facts(const Pad&) { return {.affine = true, .output = Facts::Output::map}; }
  static void shift(const Pad& l, const StepWeights& w, Shapes x, StepShift& shift) {  // what it makes of zeros
    if (l.mode != Pad::Mode::constant || l.value == 0) return;
    Context host;
    const Resampling& tables = resampling(l, w, x[0]);
    const std::vector<float> zeros(x[0].item(), 0.f);
    shift.shape = tables.out();
    shift.array.values.resize(shift.shape.item());
    resample_forward(host, tables, {zeros.data(), x[0].with_n(1), DType::f32},
                     {shift.array.values.data(), shift.shape, DType::f32});
  }
  static void frozen(Pad l, const FrozenCall& c) {
    if (c.biases || l.value == 0) return forward(l, c.forward());
    l.value = 0;
    const Shape x = c.x[0].shape.with_n(1);
    const Resampling& zeros = c.weights.packed<Resampling>([&] { return Resampling(l, x); }, {x.c, x.h, x.w, 1});
    resample_forward(c.ctx, zeros, c.x[0], c.y);
  }
};

template <>
struct Home<Slice> : ResampleHome<Slice>, NoShift, FreezesAsIs<Slice> {
  static std::string_view name(const Slice&) { return "Slice"; }
  static std::string arguments(const Slice& l) {
    const auto range = [](const SliceRange& r) {
      const bool open = r.end == std::numeric_limits<int64_t>::max();
      return fmt::format("{}:{}{}", r.begin == 0 ? "" : fmt::format("{}", r.begin), open ? "" : fmt::format("{}", r.end),
                         r.step == 1 ? "" : fmt::format(":{}", r.step));
    };
    return fmt::format("{}, {}, {}", range(l.c), range(l.h), range(l.w));
  }
  static Facts facts(const Slice&) { return {.affine = true}; }
};

template <>
struct Home<ChannelShuffle> : ResampleHome<ChannelShuffle>, NoShift, FreezesAsIs<ChannelShuffle> {
  static std::string_view name(const ChannelShuffle&) { return "ChannelShuffle"; }
  static std::string arguments(const ChannelShuffle& l) { return fmt::format("{}", l.groups); }
  static Facts facts(const ChannelShuffle&) { return {.affine = true, .output = Facts::Output::map}; }
};

template <>
struct Home<Roll> : ResampleHome<Roll>, NoShift, FreezesAsIs<Roll> {
  static std::string_view name(const Roll&) { return "Roll"; }
  static std::string arguments(const Roll& l) { return fmt::format("{}, {}", l.h, l.w); }
  static Facts facts(const Roll&) { return {.affine = true, .output = Facts::Output::map}; }
};

template <>
struct Home<Take> : ResampleHome<Take>, NoShift, FreezesAsIs<Take> {
  static std::string_view name(const Take&) { return "Take"; }
  static std::string arguments(const Take& l) {
    const auto list = [](const std::vector<int64_t>& places) {
      if (places.empty()) return std::string(":");
      if (places.size() > 8) return fmt::format("{} places", places.size());
      return fmt::format("[{}]", fmt::join(places, ","));
    };
    return fmt::format("{}, {}, {}", list(l.c), list(l.h), list(l.w));
  }
  static Facts facts(const Take&) { return {.affine = true}; }
};

// Layers that move an item's elements as NCHW has them (kernels/move/rearrange.h).
template <typename L>
struct RearrangeHome : KernelShape<L>, NoParameters, AddsNothing, KeepsNothing, FreezesAsIs<L>, MixesPlaces<L> {
  static int64_t flops(const L&, Shapes) { return 0; }
  static Facts facts(const L&) { return {.affine = true, .output = Facts::Output::map}; }
  static void forward(const L& l, const ForwardCall& c) { rearrange_forward(c.ctx, {l, c.x[0].shape}, c.x[0], c.y); }
  static void backward(const L& l, const BackwardCall& c) { rearrange_backward(c.ctx, {l, c.dx.shape}, c.dy, c.dx, c.end); }
};

template <>
struct Home<Reshape> : RearrangeHome<Reshape> {
  static std::string_view name(const Reshape&) { return "Reshape"; }
  static std::string arguments(const Reshape& l) { return fmt::format("{}, {}, {}", l.c, l.h, l.w); }
};
template <>
struct Home<Permute> : RearrangeHome<Permute> {
  static std::string_view name(const Permute&) { return "Permute"; }
  static std::string arguments(const Permute& l) { return fmt::format("0, {}", fmt::join(l.axes, ", ")); }
};

// The axes of an item as memory has them (kernels/move/transpose.h).
template <>
struct Home<Transpose> : KernelShape<Transpose>, NoParameters, AddsNothing, KeepsNothing, FreezesAsIs<Transpose>,
                         MixesPlaces<Transpose> {
  static std::string_view name(const Transpose&) { return "Transpose"; }
  static std::string arguments(const Transpose& l) {
    return fmt::format("[{}] by {} to {}, {}, {}", fmt::join(l.sizes, ","), fmt::join(l.axes, ","), l.c, l.h, l.w);
  }
  static int64_t flops(const Transpose&, Shapes) { return 0; }
  static Facts facts(const Transpose&) { return {.affine = true, .output = Facts::Output::map}; }
  static void forward(const Transpose& l, const ForwardCall& c) { transpose_forward(c.ctx, l, c.x[0], c.y); }
  static void backward(const Transpose& l, const BackwardCall& c) { transpose_backward(c.ctx, l, c.dy, c.dx, c.end); }
};

}  // namespace switchback
