#include "viz/pictures/colormap.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/check.h"

namespace switchback {
namespace {

// Control points, evenly spaced over [0,1] and joined linearly.
// matplotlib's seismic: (0,0,.3) (0,0,1) (1,1,1) (1,0,0) (.5,0,0).
constexpr Rgb kSeismic[] = {{0, 0, 76}, {0, 0, 255}, {255, 255, 255}, {255, 0, 0}, {127, 0, 0}};

// viridis (Smith, van der Walt, Firing; CC0) at 33 places; the joined line stays within 2/255 of matplotlib's table.
constexpr Rgb kViridis[] = {
    {68, 1, 84},    {71, 13, 96},   {72, 24, 106},  {72, 35, 116},  {71, 45, 123},  {69, 54, 129},  {66, 64, 134},
    {63, 73, 137},  {59, 82, 139},  {55, 90, 141},  {51, 99, 141},  {47, 106, 142}, {44, 114, 142}, {41, 122, 142},
    {38, 129, 142}, {35, 137, 142}, {33, 144, 140}, {31, 152, 139}, {31, 159, 136}, {33, 166, 133}, {40, 174, 128},
    {49, 181, 123}, {62, 188, 116}, {76, 194, 108}, {93, 201, 99},  {110, 206, 88}, {130, 211, 76}, {150, 216, 63},
    {171, 220, 50}, {192, 223, 36}, {213, 226, 26}, {234, 229, 26}, {253, 231, 37},
};

Rgb between(std::span<const Rgb> points, float t) {
  const float place = t * float(points.size() - 1);
  const size_t i = std::min(size_t(place), points.size() - 2);
  const float part = place - float(i);
  Rgb out;
  for (int c = 0; c < 3; c++) {
    out[c] = uint8_t(std::lround(float(points[i][c]) * (1 - part) + float(points[i + 1][c]) * part));
  }
  return out;
}

std::vector<float> finite(std::span<const float> values) {
  std::vector<float> out;
  out.reserve(values.size());
  std::copy_if(values.begin(), values.end(), std::back_inserter(out), [](float v) { return std::isfinite(v); });
  return out;
}

}  // namespace

ColorMap color_map_by_name(std::string_view name) {
  if (name == "grey" || name == "gray") return ColorMap::grey;
  if (name == "seismic") return ColorMap::seismic;
  if (name == "viridis") return ColorMap::viridis;
  throw Error(fmt::format("unknown colour map '{}'", name), "use grey, seismic or viridis", true);
}

Rgb color(ColorMap map, float t) {
  if (std::isnan(t)) return kNonFiniteColor;
  t = std::clamp(t, 0.0f, 1.0f);
  if (map == ColorMap::seismic) return between(kSeismic, t);
  if (map == ColorMap::viridis) return between(kViridis, t);
  const auto grey = uint8_t(std::lround(t * 255));
  return {grey, grey, grey};
}

Range value_range(std::span<const float> values) {
  Range range{std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest()};
  for (float v : values) {
    if (!std::isfinite(v)) continue;
    range.lo = std::min(range.lo, v);
    range.hi = std::max(range.hi, v);
  }
  if (range.lo > range.hi) return {0, 0};
  return range;
}

float percentile(std::span<const float> values, double p) {
  std::vector<float> sorted = finite(values);
  if (sorted.empty()) return 0;
  const double place = std::clamp(p, 0.0, 100.0) / 100 * double(sorted.size() - 1);
  const auto below = size_t(place);
  std::nth_element(sorted.begin(), sorted.begin() + below, sorted.end());
  const double low = sorted[below];
  if (below + 1 == sorted.size()) return float(low);
  const double high = *std::min_element(sorted.begin() + below + 1, sorted.end());
  return float(low + (high - low) * (place - double(below)));
}

Range symmetric_range(std::span<const float> values, double p) {
  std::vector<float> size(values.begin(), values.end());
  for (float& v : size) v = std::fabs(v);
  float s = p >= 100 ? value_range(size).hi : percentile(size, p);
  if (s == 0) s = value_range(size).hi;
  if (s == 0) s = 1;
  return {-s, s};
}

float unit_position(float value, Range range, float at_constant) {
  if (!std::isfinite(value)) return std::numeric_limits<float>::quiet_NaN();
  // Doubles: hi - lo of two floats may exceed the largest float, and a subnormal width is still a width.
  const double width = double(range.hi) - double(range.lo);
  if (!(width > 0)) return value < range.lo ? 0.0f : value > range.hi ? 1.0f : at_constant;
  return float(std::clamp((double(value) - double(range.lo)) / width, 0.0, 1.0));
}

}  // namespace switchback
