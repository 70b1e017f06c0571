// Convolutions and transposed convolutions.
#pragma once

#include <algorithm>

#include "engine/layers/describe.h"
#include "engine/layers/norm.h"
#include "kernels/conv/winograd_weights.h"

namespace switchback {

// A convolution's bias with a batch norm folded in, and by what that scales each output channel (empty: by nothing).
struct Folded {
  std::vector<float> bias, scale;
};
inline Folded folded(const StepWeights& s) {
  const std::span<const float> own = s.parameter("bias");
  Folded f{{own.begin(), own.end()}, {}};
  if (s.batch_norm < 0) return f;
  const ChannelAffine& norm = channel_affine(s.alone(s.batch_norm));
  f.scale = norm.scale.values;
  if (f.bias.empty()) {
    f.bias = norm.shift.values;
  } else {
    for (size_t o = 0; o < f.bias.size(); ++o) f.bias[o] = f.bias[o] * f.scale[o] + norm.shift.values[o];
  }
  return f;
}

// Without the bias; what is packed of the one is packed of the other too.
template <typename C>
C without_bias(C conv) {
  conv.has_bias = false;
  return conv;
}

inline const ConvWeights& conv_weights(const StepWeights& s) {
  return s.packed<ConvWeights>([&] {
    Folded f = folded(s);
    return ConvWeights(s.layer_of<Conv2d>(s.node), s.parameter("weight").data(), std::move(f.bias), std::move(f.scale));
  });
}
// Without the bias, under the padding of `conv`.
inline const ConvWeights& conv_weights(const StepWeights& s, const Conv2d& conv) {
  return s.packed<ConvWeights>([&] { return conv_weights(s).without_bias(without_bias(conv)); },
                               {conv.pad_top, conv.pad_left, conv.pad_bottom, conv.pad_right});
}

inline const ConvTransposeWeights& conv_transpose_weights(const StepWeights& s) {
  return s.packed<ConvTransposeWeights>([&] {
    const Folded f = folded(s);
    return ConvTransposeWeights(s.layer_of<ConvTranspose2d>(s.node), s.parameter("weight").data(), f.bias, f.scale);
  });
}

template <>
struct Home<Conv2d> : KernelShape<Conv2d>, Slides, KeepsNothing, LearnsFromInputs {
  static std::string_view name(const Conv2d&) { return "Conv2d"; }
  static std::string arguments(const Conv2d& l) {
    return fmt::format("{}, {}, kernel {}{}{}{}{}", l.in_channels, l.out_channels, size2(l.kernel_h, l.kernel_w),
                       l.stride_h == 1 && l.stride_w == 1 ? "" : ", stride " + size2(l.stride_h, l.stride_w),
                       padding_text(l), dilation_text(l), l.groups == 1 ? "" : fmt::format(", groups {}", l.groups));
  }
  static std::vector<ParameterSpec> parameters(const Conv2d& l) {
    return weight_and_bias({l.out_channels, l.in_channels / l.groups, l.kernel_h, l.kernel_w}, l.has_bias, l.out_channels);
  }
  static int64_t flops(const Conv2d& l, Shapes x) {
    return 2 * shape(l, x).count() * (l.in_channels / l.groups) * l.kernel_h * l.kernel_w;
  }
  static Facts facts(const Conv2d& l) {
    // It prepares its weights in every call (kernels/conv/winograd.h).
    const bool prepares = l.groups == 1 && l.kernel_h * l.kernel_w > 1;
    return {.affine = true, .takes_relu = true, .takes_sum = true, .writes_in_place = true, .multiplies = true,
            .output = Facts::Output::map, .pixels_at_a_time = prepares ? 3000 : 1};
  }
  static void shift(const Conv2d&, const StepWeights& w, Shapes, StepShift& shift) { set_shift(shift, folded(w).bias); }
  static std::optional<GateConstants> constants(const Conv2d&) { return std::nullopt; }
  static void forward(const Conv2d&, const ForwardCall& c) {
    conv2d_forward(c.ctx, conv_weights(c.weights), c.x[0], c.y, c.end);
  }
  static void backward(const Conv2d& l, const BackwardCall& c) {
    const ConvWeights& whole = conv_weights(c.weights);
    conv2d_backward_data(c.ctx, l == whole.conv() ? whole : conv_weights(c.weights, l), c.dy, c.dx, c.end);
  }
  static void learn(const Conv2d& l, const LearnCall& c) {
    (c.whole ? conv2d_backward_weights_whole : conv2d_backward_weights)(c.ctx, l, c.x[0], c.dy, c.of("weight"));
    learn_bias(c);
  }
  static void frozen(const Conv2d& l, const FrozenCall& c) {
    conv2d_forward(c.ctx, c.biases ? conv_weights(c.weights) : conv_weights(c.weights, l), c.x[0], c.y, c.end());
  }
  // What the patches read, padding included: the convolution itself then has none.
  static std::vector<PatchScratch> scratch(const Conv2d& l, Shapes x, PatchSize, PatchSize y) {
    const PatchSize read{(y.h - 1) * l.stride_h + (l.kernel_h - 1) * l.dilation_h + 1,
                         (y.w - 1) * l.stride_w + (l.kernel_w - 1) * l.dilation_w + 1};
    return {{x[0].c, read, false, l.stride_h, l.stride_w, l.pad_top, l.pad_left}};
  }
  static void change(const Conv2d& l, const ChangeCall& c) {
    gather_changes(c.ctx, c.x[0], c.scratch_places[0], c.scratch[0]);
    conv2d_forward(c.ctx, conv_weights(c.weights, repadded(l, {})), c.read[0], c.y, c.end());
  }
};

template <>
struct Home<ConvTranspose2d> : KernelShape<ConvTranspose2d>, NoPadding, KeepsNothing, LearnsFromInputs {
  static std::string_view name(const ConvTranspose2d&) { return "ConvTranspose2d"; }
  static std::string arguments(const ConvTranspose2d& l) {
    std::string text = fmt::format("{}, {}, kernel {}", l.in_channels, l.out_channels, size2(l.kernel_h, l.kernel_w));
    if (l.stride_h != 1 || l.stride_w != 1) text += ", stride " + size2(l.stride_h, l.stride_w);
    text += padding_text(l);
    if (l.output_pad_h != 0 || l.output_pad_w != 0) text += ", output padding " + size2(l.output_pad_h, l.output_pad_w);
    text += dilation_text(l);
    return l.groups == 1 ? text : text + fmt::format(", groups {}", l.groups);
  }
  static std::vector<ParameterSpec> parameters(const ConvTranspose2d& l) {
    return weight_and_bias({l.in_channels, l.out_channels / l.groups, l.kernel_h, l.kernel_w}, l.has_bias, l.out_channels);
  }
  static int64_t flops(const ConvTranspose2d& l, Shapes x) {
    return 2 * x[0].count() * (l.out_channels / l.groups) * l.kernel_h * l.kernel_w;
  }
  static Facts facts(const ConvTranspose2d&) {
    return {.affine = true, .takes_relu = true, .takes_sum = true, .multiplies = true, .output = Facts::Output::map};
  }
  static Reach reach(const ConvTranspose2d& l, Shapes, bool vertical) { return sliding(l, vertical, Reach::Kind::spread); }
  static void shift(const ConvTranspose2d&, const StepWeights& w, Shapes, StepShift& shift) {
    set_shift(shift, folded(w).bias);
  }
  static std::optional<GateConstants> constants(const ConvTranspose2d&) { return std::nullopt; }
  static void forward(const ConvTranspose2d&, const ForwardCall& c) {
    conv_transpose2d_forward(c.ctx, conv_transpose_weights(c.weights), c.x[0], c.y, c.end);
  }
  static void backward(const ConvTranspose2d&, const BackwardCall& c) {
    conv_transpose2d_backward_data(c.ctx, conv_transpose_weights(c.weights), c.dy, c.dx, c.end);
  }
  static void learn(const ConvTranspose2d& l, const LearnCall& c) {
    conv_transpose2d_backward_weights(c.ctx, l, c.x[0], c.dy, c.of("weight"));
    learn_bias(c);
  }
  static void frozen(const ConvTranspose2d& l, const FrozenCall& c) {
    const auto& weights = c.biases ? conv_transpose_weights(c.weights) : bare(l, c.weights);
    conv_transpose2d_forward(c.ctx, weights, c.x[0], c.y, c.end());
  }
  // All that the input's patches reach, cut to the output's afterwards: padding of this kind cuts.
  static std::vector<PatchScratch> scratch(const ConvTranspose2d& l, Shapes x, PatchSize in, PatchSize) {
    const Shape reached = output_shape(uncut(l), {1, x[0].c, in.h, in.w});
    return {{x[0].c, in, true},
            {l.out_channels, {reached.h, reached.w}, true, l.stride_h, l.stride_w, l.pad_top, l.pad_left}};
  }
  static void change(const ConvTranspose2d& l, const ChangeCall& c) {
    gather_changes(c.ctx, c.x[0], c.scratch_places[0], c.scratch[0]);
    conv_transpose2d_forward(c.ctx, bare(uncut(l), c.weights), c.read[0], c.scratch[1], c.end());
    gather_changes(c.ctx, {.patch = c.read[1], .origins = c.scratch_places[1], .clean = c.clean}, c.places, c.y);
  }

 private:
  static ConvTranspose2d uncut(ConvTranspose2d l) {
    l.pad_top = l.pad_left = l.pad_bottom = l.pad_right = l.output_pad_h = l.output_pad_w = 0;
    return l;
  }
  static const ConvTransposeWeights& bare(const ConvTranspose2d& l, const StepWeights& s) {
    return s.packed<ConvTransposeWeights>([&] { return conv_transpose_weights(s).without_bias(without_bias(l)); },
                                          {l.pad_top, l.pad_left, l.pad_bottom, l.pad_right, l.output_pad_h, l.output_pad_w});
  }
};

}  // namespace switchback
