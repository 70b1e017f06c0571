// Colour maps and value ranges: the small numerics between a signed float map and a picture.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace switchback {

using Rgb = std::array<uint8_t, 3>;

enum class ColorMap {
  grey,     // black -> white
  seismic,  // dark blue -> white -> dark red; for signed maps, white = the middle of the range
  viridis,  // matplotlib's perceptually uniform map; for maps that are never negative
};

// A value that is NaN or infinite is never hidden: it is drawn in this colour, which no map contains.
inline constexpr Rgb kNonFiniteColor = {255, 0, 255};

ColorMap color_map_by_name(std::string_view name);  // "grey"/"gray", "seismic", "viridis"

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
inline float constant_position(ColorMap map) { return map == ColorMap::seismic ? 0.5f : 0.0f; }

}  // namespace switchback
