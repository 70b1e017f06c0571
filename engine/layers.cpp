#include "engine/layers.h"

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

}  // namespace

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
          [](const auto&) { return std::string(); },
      },
      layer);
  return fmt::format("{}({})", type_name(layer), arguments);
}

Shape output_shape(const Layer& layer, std::span<const Shape> inputs) {
  const size_t expected = std::holds_alternative<Add>(layer) ? 2 : std::holds_alternative<Input>(layer) ? 0 : 1;
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
          [&](const auto&) { return int64_t(0); },
      },
      layer);
}

}  // namespace switchback
