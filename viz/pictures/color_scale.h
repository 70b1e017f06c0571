// What a picture's colours mean, and the bar that says it.
#pragma once

#include <string>

#include "viz/pictures/canvas.h"
#include "viz/pictures/colormap.h"

namespace switchback {

struct ColorScale {
  enum class Kind {
    map,       // `map` over `range`
    channels,  // red, green and blue each from none at range.lo to all at range.hi, grey in the middle (signed_rgb, c =
               // 3)
  };
  Kind kind = Kind::map;
  ColorMap map = ColorMap::grey;
  Range range;
  float fading = 0;  // over a photo: the opacity of the strongest, less the nearer to 0 (faded_overlay); 0: none
};

// {"map", "from", "to"} are its words in JSON: "channels" are called "signed".
std::string_view name_of(const ColorScale& scale);

// The colours from range.lo to range.hi with the values of the ends, and of 0 where it lies between; `width` pixels
// wide. Below narrow bars stands "±0.5", or the ends one below the other.
Canvas color_bar(const ColorScale& scale, int width);
int color_bar_height(const ColorScale& scale, int width);

// "0.0123", "-3.4e-05", "12"
std::string short_number(double value);

}  // namespace switchback
