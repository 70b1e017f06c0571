#include "viz/pictures/color_scale.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr int kRamp = 9, kSpace = 2, kNarrow = 100;  // pixels; narrower bars have their ends one below the other

// The colours alone, a value a column.
Image ramp(const ColorScale& scale, int width) {
  std::vector<float> values(size_t(width) * kRamp);
  for (size_t i = 0; i < values.size(); ++i) {
    const double t = width > 1 ? double(i % size_t(width)) / (width - 1) : 0;
    values[i] = float(scale.range.lo + t * (double(scale.range.hi) - scale.range.lo));
  }
  if (scale.kind == ColorScale::Kind::map) {
    const Image white = blank_image(width, kRamp, kPaper);
    return scale.fading > 0 ? faded_overlay(white, values.data(), kRamp, width, scale.map, scale.fading, scale.range)
                            : heatmap(values.data(), kRamp, width, scale.map, scale.range);
  }
  Image image = blank_image(width, kRamp, {128, 128, 128});  // a stripe for each channel
  for (int y = 0; y < kRamp; ++y)
    for (int x = 0; x < width; ++x)
      image.at(x, y)[3 * y / kRamp] = uint8_t(std::lround(255 * unit_position(values[size_t(x)], scale.range, 0.5f)));
  return image;
}

bool is_symmetric(Range range) { return range.lo == -range.hi && range.hi > 0; }

}  // namespace

std::string_view name_of(const ColorScale& scale) {
  return scale.kind == ColorScale::Kind::channels ? "signed" : name_of(scale.map);
}

std::string short_number(double value) {
  if (!std::isfinite(value)) return fmt::format("{}", value);
  return value == 0 ? "0" : fmt::format("{:.3g}", value);
}

int color_bar_height(const ColorScale& scale, int width) {
  return kRamp + 2 + kSpace + (width < kNarrow && !is_symmetric(scale.range) ? 2 : 1) * text_height("0", kSmallSize);
}

Canvas color_bar(const ColorScale& scale, int width) {
  CHECK(width > 2, "a colour bar of {} pixels is too narrow", width);
  Canvas bar(width, color_bar_height(scale, width));
  bar.rectangle(0, 0, width, kRamp + 2, {200, 200, 200});
  bar.image(ramp(scale, width - 2), 1, 1, width - 2, kRamp);
  const std::string low = short_number(scale.range.lo), high = short_number(scale.range.hi);
  const double y = kRamp + 2 + kSpace;
  if (width < kNarrow && is_symmetric(scale.range)) {
    bar.text(width / 2.0, y, "±" + high, kInk, kSmallSize, 0.5);
    return bar;
  }
  bar.text(0, y, low, kInk, kSmallSize);
  bar.text(width, width < kNarrow ? y + text_height("0", kSmallSize) : y, high, kInk, kSmallSize, 1);
  const double lo = scale.range.lo, hi = scale.range.hi;
  if (width < kNarrow || !(lo < 0 && hi > 0)) return bar;
  const double zero = width * -lo / (hi - lo), room = text_width("0", kSmallSize) + 6;
  if (zero - room > text_width(low, kSmallSize) && zero + room < width - text_width(high, kSmallSize))
    bar.text(zero, y, "0", kInk, kSmallSize, 0.5);
  return bar;
}

}  // namespace switchback
