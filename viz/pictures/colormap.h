// Colour maps and value ranges: the small numerics between a signed float map and a picture.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

namespace switchback {

using Rgb = std::array<uint8_t, 3>;

// matplotlib's.
enum class ColorMap { grey, viridis, inferno, jet, seismic, red_blue, coolwarm };
inline constexpr std::pair<std::string_view, ColorMap> kColorMaps[] = {
    {"gray", ColorMap::grey},       {"viridis", ColorMap::viridis}, {"inferno", ColorMap::inferno},
    {"seismic", ColorMap::seismic}, {"RdBu_r", ColorMap::red_blue}, {"coolwarm", ColorMap::coolwarm},
    {"jet", ColorMap::jet}};
std::string_view name_of(ColorMap map);
// From blue by a light middle, which stands for 0, to red; for signed values.
constexpr bool is_diverging(ColorMap map) {
  return map == ColorMap::seismic || map == ColorMap::red_blue || map == ColorMap::coolwarm;
}

// A value that is NaN or infinite is never hidden: it is drawn in this colour, which no map contains.
inline constexpr Rgb kNonFiniteColor = {255, 0, 255};

// t in [0,1], clamped; NaN gives kNonFiniteColor.
Rgb color(ColorMap map, float t);

struct Range {
  float lo = 0, hi = 1;
};

// Smallest and largest finite value; {0,0} when there is none.
Range value_range(std::span<const float> values);

// The p-th percentile (0..100) of the finite values, linear between order statistics as numpy.percentile; 0 if none.
float percentile(std::span<const float> values, double p);

// {-s,+s}, s = the p-th percentile of |v| (p = 100: the largest). Sparse maps, whose percentile is 0, fall back to the
// largest |v|; an all-zero map gives {-1,1}, so that zero is always the middle.
Range symmetric_range(std::span<const float> values, double p = 100);

// Where a value lies in a range, clamped to [0,1]; NaN stays NaN, infinities become NaN. An empty range (lo == hi)
// gives `at_constant` for the value itself, 0 below and 1 above; nothing is divided by zero.
float unit_position(float value, Range range, float at_constant = 0);

// Where a map's only value goes: the middle of a signed map, the bottom of the others (matplotlib's Normalize).
inline float constant_position(ColorMap map) { return is_diverging(map) ? 0.5f : 0.0f; }

}  // namespace switchback
