// Pools, means and sums over axes.
#pragma once

#include "engine/layers/describe.h"
#include "engine/layers/home.h"

namespace switchback {

template <>
struct Home<MaxPool2d> : KernelShape<MaxPool2d>, NoParameters, AddsNothing, Slides, NoScratch {
  static std::string_view name(const MaxPool2d&) { return "MaxPool2d"; }
  static std::string arguments(const MaxPool2d& l) {
    return fmt::format("{}, stride {}{}{}{}", size2(l.kernel_h, l.kernel_w), size2(l.stride_h, l.stride_w), padding_text(l),
                       dilation_text(l), l.ceil_mode ? ", ceil mode" : "");
  }
  static int64_t flops(const MaxPool2d& l, Shapes x) { return shape(l, x).count() * l.window(); }
  static Facts facts(const MaxPool2d&) {
    return {.affine = true, .takes_relu = true, .selects = true, .writes_in_place = true, .output = Facts::Output::map};
  }
  static Keeps keeps(const MaxPool2d& l, Shapes) { return {.switch_bytes = l.switch_bytes()}; }
  static void forward(const MaxPool2d& l, const ForwardCall& c) {
    max_pool2d_forward(c.ctx, l, c.x[0], c.y, c.switches, c.end);
  }
  static void backward(const MaxPool2d& l, const BackwardCall& c) {
    max_pool2d_backward(c.ctx, l, c.dy, c.switches, c.dx, c.end);
  }
  static void frozen(const MaxPool2d& l, const FrozenCall& c) {
    frozen_max_pool2d_forward(c.ctx, l, c.x[0], c.switches, c.items(), c.y);
  }
  static void change(const MaxPool2d& l, const ChangeCall& c) {
    max_pool2d_changes(c.ctx, l, c.x[0], c.clean, c.places, c.y);
  }
};

template <>
struct Home<GlobalMaxPool> : NoParameters, AddsNothing, MixesPlaces<GlobalMaxPool> {
  static std::string_view name(const GlobalMaxPool&) { return "AdaptiveMaxPool2d"; }
  static std::string arguments(const GlobalMaxPool&) { return "1"; }
  static Shape shape(const GlobalMaxPool& l, Shapes x) {
    check_count(x, 1, name(l));
    return output_shape(whole_map_pool(x[0]), x[0]);
  }
  static int64_t flops(const GlobalMaxPool&, Shapes x) { return x[0].count(); }
  static Facts facts(const GlobalMaxPool&) { return {.affine = true, .takes_relu = true, .output = Facts::Output::map}; }
  static Keeps keeps(const GlobalMaxPool&, Shapes x) { return {.switch_bytes = whole_map_pool(x[0]).switch_bytes()}; }
  static void forward(const GlobalMaxPool&, const ForwardCall& c) {
    max_pool2d_forward(c.ctx, whole_map_pool(c.x[0].shape), c.x[0], c.y, c.switches, c.end);
  }
  static void backward(const GlobalMaxPool&, const BackwardCall& c) {
    max_pool2d_backward(c.ctx, whole_map_pool(c.dx.shape), c.dy, c.switches, c.dx, c.end);
  }
  static void frozen(const GlobalMaxPool&, const FrozenCall& c) {
    frozen_max_pool2d_forward(c.ctx, whole_map_pool(c.x[0].shape), c.x[0], c.switches, c.items(), c.y);
  }
};

template <>
struct Home<AvgPool2d> : KernelShape<AvgPool2d>, NoParameters, AddsNothing, KeepsNothing, Slides, FreezesAsIs<AvgPool2d>,
                         NoScratch {
  static std::string_view name(const AvgPool2d&) { return "AvgPool2d"; }
  static std::string arguments(const AvgPool2d& l) {
    return fmt::format("{}, stride {}{}{}", size2(l.kernel_h, l.kernel_w), size2(l.stride_h, l.stride_w), padding_text(l),
                       l.ceil_mode ? ", ceil mode" : "");
  }
  static int64_t flops(const AvgPool2d& l, Shapes x) { return shape(l, x).count() * l.kernel_h * l.kernel_w; }
  static Facts facts(const AvgPool2d&) { return {.affine = true, .output = Facts::Output::map}; }
  static Reach reach(const AvgPool2d& l, Shapes x, bool vertical) {
    Reach r = Slides::reach(l, x, vertical);
    r.cuts = !l.ceil_mode || !l.count_include_pad;  // where windows reach beyond the padding, the divisor says how far
    return r;
  }
  static void forward(const AvgPool2d& l, const ForwardCall& c) { avg_pool2d_forward(c.ctx, l, c.x[0], c.y); }
  static void backward(const AvgPool2d& l, const BackwardCall& c) { avg_pool2d_backward(c.ctx, l, c.dy, c.dx, c.end); }
  static void change(const AvgPool2d& l, const ChangeCall& c) { avg_pool2d_changes(c.ctx, l, c.x[0], c.places, c.y); }
};

template <>
struct Home<AdaptiveAvgPool2d> : KernelShape<AdaptiveAvgPool2d>, NoParameters, AddsNothing, KeepsNothing,
                                 FreezesAsIs<AdaptiveAvgPool2d>, MixesPlaces<AdaptiveAvgPool2d> {
  static std::string_view name(const AdaptiveAvgPool2d&) { return "AdaptiveAvgPool2d"; }
  static std::string arguments(const AdaptiveAvgPool2d& l) { return size2(l.out_h, l.out_w); }
  static int64_t flops(const AdaptiveAvgPool2d&, Shapes x) { return x[0].count(); }
  static Facts facts(const AdaptiveAvgPool2d&) { return {.affine = true, .output = Facts::Output::map}; }
  static void forward(const AdaptiveAvgPool2d& l, const ForwardCall& c) {
    adaptive_avg_pool2d_forward(c.ctx, l, c.x[0], c.y);
  }
  static void backward(const AdaptiveAvgPool2d& l, const BackwardCall& c) {
    adaptive_avg_pool2d_backward(c.ctx, l, c.dy, c.dx, c.end);
  }
};

template <>
struct Home<Reduce> : KernelShape<Reduce>, NoParameters, AddsNothing, KeepsNothing, OnePlace, FreezesAsIs<Reduce>,
                      ScratchForInputs {
  static std::string_view name(const Reduce& l) { return l.mean ? "Mean" : "Sum"; }
  static std::string arguments(const Reduce& l) {
    std::vector<std::string> axes;
    if (l.c) axes.push_back("channels");
    if (l.h) axes.push_back("rows");
    if (l.w) axes.push_back("columns");
    return fmt::format("{}", fmt::join(axes, ", "));
  }
  static int64_t flops(const Reduce&, Shapes x) { return x[0].count(); }
  static Facts facts(const Reduce&) { return {.affine = true, .output = Facts::Output::map}; }
  static void forward(const Reduce& l, const ForwardCall& c) { reduce_forward(c.ctx, l, c.x[0], c.y); }
  static void backward(const Reduce& l, const BackwardCall& c) { reduce_backward(c.ctx, l, c.dy, c.dx, c.end); }
  static void change(const Reduce& l, const ChangeCall& c) {
    gather_changes(c.ctx, c.x[0], c.places, c.scratch[0]);
    forward(l, c.forward());
  }
};

}  // namespace switchback
