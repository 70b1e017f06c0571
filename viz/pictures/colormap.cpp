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

// inferno (van der Walt, Smith; CC0) at 52 places, coolwarm (Moreland) and RdBu (ColorBrewer, Apache-2.0) at
// matplotlib's own: within 1/255 of its tables.
constexpr Rgb kInferno[] = {
    {0, 0, 4},       {2, 2, 12},      {5, 4, 23},      {10, 7, 34},    {16, 9, 45},    {22, 11, 57},   {30, 12, 69},
    {38, 12, 81},    {47, 10, 91},    {56, 9, 98},     {64, 10, 103},  {73, 11, 106},  {81, 14, 108},  {89, 16, 110},
    {97, 19, 110},   {105, 22, 110},  {113, 25, 110},  {120, 28, 109}, {128, 31, 108}, {136, 34, 106}, {144, 37, 104},
    {152, 39, 102},  {160, 42, 99},   {168, 46, 95},   {176, 49, 91},  {183, 53, 87},  {191, 57, 82},  {198, 61, 77},
    {204, 66, 72},   {211, 71, 67},   {217, 77, 61},   {223, 83, 55},  {228, 90, 49},  {233, 97, 43},  {237, 105, 37},
    {241, 113, 31},  {244, 121, 24},  {247, 130, 18},  {249, 139, 11}, {250, 148, 7},  {251, 157, 7},  {252, 166, 12},
    {252, 176, 20},  {251, 186, 31},  {250, 196, 42},  {248, 205, 55}, {246, 215, 70}, {244, 225, 86}, {242, 234, 105},
    {242, 242, 125}, {245, 249, 146}, {252, 255, 164},
};
constexpr Rgb kCoolwarm[] = {
    {59, 76, 192},   {68, 90, 204},   {77, 104, 215},  {87, 117, 225},  {98, 130, 234},  {108, 142, 241},
    {119, 154, 247}, {130, 165, 251}, {141, 176, 254}, {152, 185, 255}, {163, 194, 254}, {174, 201, 252},
    {184, 208, 249}, {194, 213, 244}, {204, 217, 238}, {213, 219, 230}, {221, 221, 221}, {229, 216, 209},
    {236, 211, 197}, {241, 204, 185}, {244, 196, 173}, {247, 187, 160}, {247, 177, 148}, {247, 166, 135},
    {244, 154, 123}, {241, 141, 111}, {236, 127, 99},  {229, 112, 88},  {222, 96, 77},   {213, 80, 66},
    {203, 62, 56},   {192, 40, 47},   {180, 4, 38},
};
constexpr Rgb kRedBlue[] = {
    {5, 48, 97},     {33, 102, 172},  {67, 147, 195}, {146, 197, 222}, {209, 229, 240}, {247, 247, 247},
    {253, 219, 199}, {244, 165, 130}, {214, 96, 77},  {178, 24, 43},   {103, 0, 31},
};

// jet has its own places for each channel: a trapezium over [0,1].
uint8_t trapezium(float t, float rise, float top, float fall, float end, float at_0, float at_1) {
  const float up = t >= top ? 1 : t <= rise ? 0 : (t - rise) / (top - rise);
  const float down = t <= fall ? 1 : t >= end ? 0 : (end - t) / (end - fall);
  return uint8_t(std::lround(255 * std::min(at_0 + (1 - at_0) * up, at_1 + (1 - at_1) * down)));
}
Rgb jet(float t) {
  return {trapezium(t, 0.35f, 0.66f, 0.89f, 1, 0, 0.5f), trapezium(t, 0.125f, 0.375f, 0.64f, 0.91f, 0, 0),
          trapezium(t, 0, 0.11f, 0.34f, 0.65f, 0.5f, 0)};
}

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

std::string_view name_of(ColorMap map) {
  return std::ranges::find(kColorMaps, map, &std::pair<std::string_view, ColorMap>::second)->first;
}

Rgb color(ColorMap map, float t) {
  if (std::isnan(t)) return kNonFiniteColor;
  t = std::clamp(t, 0.0f, 1.0f);
  switch (map) {
    case ColorMap::viridis:
      return between(kViridis, t);
    case ColorMap::inferno:
      return between(kInferno, t);
    case ColorMap::jet:
      return jet(t);
    case ColorMap::seismic:
      return between(kSeismic, t);
    case ColorMap::red_blue:
      return between(kRedBlue, t);
    case ColorMap::coolwarm:
      return between(kCoolwarm, t);
    case ColorMap::grey:
      break;
  }
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
