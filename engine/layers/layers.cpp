#include "engine/layers/layers.h"

#include <fmt/ranges.h>

namespace switchback {
namespace {

std::string size2(int64_t h, int64_t w) { return h == w ? fmt::format("{}", h) : fmt::format("{}x{}", h, w); }

template <typename L>
std::string padding_of(const L& l) {
  if (l.pad_top == 0 && l.pad_left == 0 && l.pad_bottom == 0 && l.pad_right == 0) return "";
  if (l.pad_top == l.pad_bottom && l.pad_left == l.pad_right)
    return fmt::format(", padding {}", size2(l.pad_top, l.pad_left));
  return fmt::format(", padding top {} left {} bottom {} right {}", l.pad_top, l.pad_left, l.pad_bottom, l.pad_right);
}

template <typename L>
std::string dilation_of(const L& l) {
  return l.dilation_h == 1 && l.dilation_w == 1 ? "" : fmt::format(", dilation {}", size2(l.dilation_h, l.dilation_w));
}

const char* name_of(SmoothFunction f) {
  switch (f) {
    case SmoothFunction::sigmoid: return "Sigmoid";
    case SmoothFunction::tanh: return "Tanh";
    case SmoothFunction::hardswish: return "Hardswish";
    case SmoothFunction::silu: return "SiLU";
  }
  return "";
}

const char* name_of(BinaryFunction f) {
  switch (f) {
    case BinaryFunction::add: return "Add";
    case BinaryFunction::sub: return "Sub";
    case BinaryFunction::mul: return "Mul";
    case BinaryFunction::div: return "Div";
  }
  return "";
}

const char* name_of(const Pad& p) {
  if (p.mode == Pad::Mode::reflect) return "ReflectionPad2d";
  if (p.mode == Pad::Mode::edge) return "ReplicationPad2d";
  return p.value == 0.f ? "ZeroPad2d" : "ConstantPad2d";
}

std::string describe(const ConvTranspose2d& l) {
  std::string text = fmt::format("{}, {}, kernel {}", l.in_channels, l.out_channels, size2(l.kernel_h, l.kernel_w));
  if (l.stride_h != 1 || l.stride_w != 1) text += ", stride " + size2(l.stride_h, l.stride_w);
  text += padding_of(l);
  if (l.output_pad_h != 0 || l.output_pad_w != 0) text += ", output padding " + size2(l.output_pad_h, l.output_pad_w);
  text += dilation_of(l);
  return l.groups == 1 ? text : text + fmt::format(", groups {}", l.groups);
}

std::string describe(const Resize& l) {
  constexpr const char* kPlaces[] = {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric",
                                     "tf_half_pixel_for_nn", "half_pixel_symmetric"};
  const std::string to = l.out_h > 0 && l.out_w > 0 ? "to " + size2(l.out_h, l.out_w)
                                                    : fmt::format("by {}x{}", l.scale_h, l.scale_w);
  return fmt::format("{}, {}, {}", to, l.mode == Resize::Mode::nearest ? "nearest" : "bilinear", kPlaces[int(l.coordinates)]);
}

std::string describe(const Pad& l) {
  std::string text = fmt::format("left {} right {} top {} bottom {}", l.left, l.right, l.top, l.bottom);
  if (l.front != 0 || l.back != 0) text += fmt::format(" front {} back {}", l.front, l.back);
  return l.value == 0.f ? text : text + fmt::format(", value {}", l.value);
}

std::string describe(const Slice& l) {
  const auto range = [](const SliceRange& r) {
    const bool open = r.end == std::numeric_limits<int64_t>::max();
    return fmt::format("{}:{}{}", r.begin == 0 ? "" : fmt::format("{}", r.begin), open ? "" : fmt::format("{}", r.end),
                       r.step == 1 ? "" : fmt::format(":{}", r.step));
  };
  return fmt::format("{}, {}, {}", range(l.c), range(l.h), range(l.w));
}

std::string describe(const BinaryConstant& l) {
  const std::string what = l.values.size() == 1 ? fmt::format("{}", l.values[0])
                                                : fmt::format("[{},{},{}]", l.shape.c, l.shape.h, l.shape.w);
  return l.reversed ? what + ", x" : "x, " + what;
}

std::string describe(const Reduce& l) {
  std::vector<std::string> axes;
  if (l.c) axes.push_back("channels");
  if (l.h) axes.push_back("rows");
  if (l.w) axes.push_back("columns");
  return fmt::format("{}", fmt::join(axes, ", "));
}

}  // namespace

Layer clip_layer(float min, float max) {
  if (min == 0.f) return ReLU{max};
  return Clip{min, max};
}

BinaryConstant by_scalar(BinaryFunction function, float value, bool reversed) {
  return {.function = function, .values = {value}, .reversed = reversed};
}

MaxPool2d whole_map_pool(Shape x) {
  return {.kernel_h = x.h, .kernel_w = x.w, .stride_h = x.h, .stride_w = x.w};
}

std::string_view type_name(const Layer& layer) {
  return std::visit(overloaded{
                        [](const Input&) { return "Input"; },
                        [](const Conv2d&) { return "Conv2d"; },
                        [](const Linear&) { return "Linear"; },
                        [](const MaxPool2d&) { return "MaxPool2d"; },
                        [](const AvgPool2d&) { return "AvgPool2d"; },
                        [](const AdaptiveAvgPool2d&) { return "AdaptiveAvgPool2d"; },
                        [](const ReLU& l) { return l.clip == kNoClip ? "ReLU" : l.clip == 6.f ? "ReLU6" : "ClippedReLU"; },
                        [](const BatchNorm2d&) { return "BatchNorm2d"; },
                        [](const LocalResponseNorm&) { return "LocalResponseNorm"; },
                        [](const Softmax&) { return "Softmax"; },
                        [](const Dropout&) { return "Dropout"; },
                        [](const Flatten&) { return "Flatten"; },
                        [](const Add&) { return "Add"; },
                        [](const Concat&) { return "Concat"; },
                        [](const ConvTranspose2d&) { return "ConvTranspose2d"; },
                        [](const GlobalMaxPool&) { return "AdaptiveMaxPool2d"; },
                        [](const LeakyReLU&) { return "LeakyReLU"; },
                        [](const PReLU&) { return "PReLU"; },
                        [](const Clip&) { return "Clip"; },
                        [](const Hardsigmoid&) { return "Hardsigmoid"; },
                        [](const Smooth& l) { return name_of(l.function); },
                        [](const Binary& l) { return name_of(l.function); },
                        [](const BinaryConstant& l) { return name_of(l.function); },
                        [](const Reduce& l) { return l.mean ? "Mean" : "Sum"; },
                        [](const Resize&) { return "Upsample"; },
                        [](const Pad& l) { return name_of(l); },
                        [](const Slice&) { return "Slice"; },
                        [](const ChannelShuffle&) { return "ChannelShuffle"; },
                        [](const Reshape&) { return "Reshape"; },
                        [](const Permute&) { return "Permute"; },
                    },
                    layer);
}

std::string describe(const Layer& layer) {
  const std::string arguments = std::visit(
      overloaded{
          [](const Conv2d& l) {
            return fmt::format("{}, {}, kernel {}{}{}{}{}", l.in_channels, l.out_channels, size2(l.kernel_h, l.kernel_w),
                               l.stride_h == 1 && l.stride_w == 1 ? "" : ", stride " + size2(l.stride_h, l.stride_w),
                               padding_of(l), dilation_of(l), l.groups == 1 ? "" : fmt::format(", groups {}", l.groups));
          },
          [](const Linear& l) { return fmt::format("{}, {}", l.in_features, l.out_features); },
          [](const MaxPool2d& l) {
            return fmt::format("{}, stride {}{}{}{}", size2(l.kernel_h, l.kernel_w), size2(l.stride_h, l.stride_w),
                               padding_of(l), dilation_of(l), l.ceil_mode ? ", ceil mode" : "");
          },
          [](const AvgPool2d& l) {
            return fmt::format("{}, stride {}{}{}", size2(l.kernel_h, l.kernel_w), size2(l.stride_h, l.stride_w),
                               padding_of(l), l.ceil_mode ? ", ceil mode" : "");
          },
          [](const AdaptiveAvgPool2d& l) { return size2(l.out_h, l.out_w); },
          [](const BatchNorm2d& l) { return fmt::format("{}", l.features); },
          [](const LocalResponseNorm& l) { return fmt::format("{}", l.size); },
          [](const GlobalMaxPool&) { return std::string("1"); },
          [](const LeakyReLU& l) { return fmt::format("{}", l.slope); },
          [](const PReLU& l) { return fmt::format("{}", l.parameters); },
          [](const Clip& l) { return fmt::format("{}, {}", l.min, l.max); },
          [](const Hardsigmoid& l) { return fmt::format("{}, {}", l.alpha, l.beta); },
          [](const ChannelShuffle& l) { return fmt::format("{}", l.groups); },
          [](const Reshape& l) { return fmt::format("{}, {}, {}", l.c, l.h, l.w); },
          [](const Permute& l) { return fmt::format("0, {}", fmt::join(l.axes, ", ")); },
          [](const ConvTranspose2d& l) { return describe(l); },
          [](const BinaryConstant& l) { return describe(l); },
          [](const Reduce& l) { return describe(l); },
          [](const Resize& l) { return describe(l); },
          [](const Pad& l) { return describe(l); },
          [](const Slice& l) { return describe(l); },
          [](const auto&) { return std::string(); },
      },
      layer);
  return fmt::format("{}({})", type_name(layer), arguments);
}

Shape output_shape(const Layer& layer, std::span<const Shape> inputs) {
  const bool two = std::holds_alternative<Add>(layer) || std::holds_alternative<Binary>(layer);
  const size_t expected = two ? 2 : std::holds_alternative<Input>(layer) ? 0 : 1;
  if (std::holds_alternative<Concat>(layer))
    CHECK(inputs.size() >= 2, "Concat takes two or more inputs, not {}", inputs.size());
  else
    CHECK(std::holds_alternative<Input>(layer) || inputs.size() == expected, "{} takes {} inputs, not {}",
          type_name(layer), expected, inputs.size());
  return std::visit(
      overloaded{
          [&](const Input&) { return inputs.empty() ? Shape{} : inputs[0]; },
          [&](const Conv2d& l) { return output_shape(l, inputs[0]); },
          [&](const Linear& l) { return output_shape(l, inputs[0]); },
          [&](const MaxPool2d& l) { return output_shape(l, inputs[0]); },
          [&](const AvgPool2d& l) { return output_shape(l, inputs[0]); },
          [&](const AdaptiveAvgPool2d& l) { return output_shape(l, inputs[0]); },
          [&](const BatchNorm2d& l) {
            CHECK(l.features == inputs[0].c, "batch norm of {} channels on an input of {}", l.features, inputs[0].c);
            return inputs[0];
          },
          [&](const Flatten&) { return Shape{inputs[0].n, inputs[0].item(), 1, 1}; },
          [&](const Add&) {
            const Shape a = inputs[0], b = inputs[1];
            CHECK(a == b, "cannot add [{},{},{}] and [{},{},{}]", a.c, a.h, a.w, b.c, b.h, b.w);
            return a;
          },
          [&](const Concat&) {
            Shape all = inputs[0];
            for (const Shape& s : inputs.subspan(1)) {
              CHECK(s.n == all.n && s.h == all.h && s.w == all.w, "cannot concatenate [{},{},{}] and [{},{},{}]", all.c,
                    all.h, all.w, s.c, s.h, s.w);
              all.c += s.c;
            }
            return all;
          },
          [&](const ConvTranspose2d& l) { return output_shape(l, inputs[0]); },
          [&](const GlobalMaxPool&) { return output_shape(whole_map_pool(inputs[0]), inputs[0]); },
          [&](const PReLU& l) {
            CHECK(l.parameters == 1 || l.parameters == inputs[0].c, "{} slopes for an input of {} channels", l.parameters,
                  inputs[0].c);
            return inputs[0];
          },
          [&](const Clip& l) {
            CHECK(l.min <= l.max, "clip: min {} is above max {}", l.min, l.max);
            return inputs[0];
          },
          [&](const Binary& l) { return broadcast(l, inputs[0], inputs[1]); },
          [&](const BinaryConstant& l) {
            CHECK(l.shape.n == 1 && l.shape.item() == int64_t(l.values.size()), "a constant [{},{},{},{}] with {} values",
                  l.shape.n, l.shape.c, l.shape.h, l.shape.w, l.values.size());
            return broadcast({l.function}, inputs[0], l.shape);
          },
          [&](const Reduce& l) { return output_shape(l, inputs[0]); },
          [&](const Resize& l) { return output_shape(l, inputs[0]); },
          [&](const Pad& l) { return output_shape(l, inputs[0]); },
          [&](const Slice& l) { return output_shape(l, inputs[0]); },
          [&](const ChannelShuffle& l) { return output_shape(l, inputs[0]); },
          [&](const Reshape& l) { return output_shape(l, inputs[0]); },
          [&](const Permute& l) { return output_shape(l, inputs[0]); },
          [&](const auto&) { return inputs[0]; },
      },
      layer);
}

std::vector<ParameterSpec> parameters(const Layer& layer) {
  return std::visit(
      overloaded{
          [](const Conv2d& l) {
            std::vector<ParameterSpec> p{{"weight", {l.out_channels, l.in_channels / l.groups, l.kernel_h, l.kernel_w}}};
            if (l.has_bias) p.push_back({"bias", {l.out_channels}});
            return p;
          },
          [](const ConvTranspose2d& l) {
            std::vector<ParameterSpec> p{{"weight", {l.in_channels, l.out_channels / l.groups, l.kernel_h, l.kernel_w}}};
            if (l.has_bias) p.push_back({"bias", {l.out_channels}});
            return p;
          },
          [](const PReLU& l) { return std::vector<ParameterSpec>{{"weight", {l.parameters}}}; },
          [](const Linear& l) {
            std::vector<ParameterSpec> p{{"weight", {l.out_features, l.in_features}}};
            if (l.has_bias) p.push_back({"bias", {l.out_features}});
            return p;
          },
          [](const BatchNorm2d& l) {
            return std::vector<ParameterSpec>{
                {"weight", {l.features}}, {"bias", {l.features}}, {"running_mean", {l.features}}, {"running_var", {l.features}}};
          },
          [](const auto&) { return std::vector<ParameterSpec>{}; },
      },
      layer);
}

int64_t flops(const Layer& layer, std::span<const Shape> inputs) {
  const Shape y = output_shape(layer, inputs);
  return std::visit(
      overloaded{
          [&](const Input&) { return int64_t(0); },
          [&](const Conv2d& l) { return 2 * y.count() * (l.in_channels / l.groups) * l.kernel_h * l.kernel_w; },
          [&](const Linear& l) { return 2 * y.count() * l.in_features; },
          [&](const MaxPool2d& l) { return y.count() * l.window(); },
          [&](const AvgPool2d& l) { return y.count() * l.kernel_h * l.kernel_w; },
          [&](const AdaptiveAvgPool2d&) { return inputs[0].count(); },
          [&](const BatchNorm2d&) { return 2 * y.count(); },
          [&](const LocalResponseNorm& l) { return y.count() * (2 * l.size + 2); },
          [&](const Softmax&) { return 3 * y.count(); },
          [&](const ReLU&) { return y.count(); },
          [&](const Add&) { return y.count(); },
          [&](const ConvTranspose2d& l) {
            return 2 * inputs[0].count() * (l.out_channels / l.groups) * l.kernel_h * l.kernel_w;
          },
          [&](const GlobalMaxPool&) { return inputs[0].count(); },
          [&](const LeakyReLU&) { return 2 * y.count(); },
          [&](const PReLU&) { return 2 * y.count(); },
          [&](const Clip&) { return 2 * y.count(); },
          [&](const Hardsigmoid&) { return 4 * y.count(); },
          [&](const Smooth&) { return 4 * y.count(); },
          [&](const Binary&) { return y.count(); },
          [&](const BinaryConstant&) { return y.count(); },
          [&](const Reduce&) { return inputs[0].count(); },
          [&](const Resize& l) { return l.mode == Resize::Mode::bilinear ? 8 * y.count() : 0; },
          [&](const auto&) { return int64_t(0); },
      },
      layer);
}

}  // namespace switchback
