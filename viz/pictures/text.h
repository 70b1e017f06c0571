// Text in pictures: one built-in 7x13 bitmap font, drawn at whole multiples so that it stays sharp.
#pragma once

#include <string>
#include <string_view>

#include "engine/files/image.h"
#include "viz/pictures/colormap.h"

namespace switchback {

inline constexpr int kGlyphWidth = 7;    // 5, and two columns of space on the right
inline constexpr int kGlyphHeight = 13;  // capitals 9, ascent 11, descent 2
inline constexpr int kLineHeight = 15;   // of one line in text of several

// Characters drawn: each ASCII character counts 1, each UTF-8 sequence outside ASCII counts 1 (a '?').
int text_width(std::string_view text, int scale = 1);  // pixels, of the longest line

// The text, shortened to end in "..." (fewer dots where under 6 characters fit) if it is wider than `width`
// pixels; "" where not even one character fits.
std::string fitted_text(std::string_view text, int width, int scale = 1);

// x, y = the top left corner, in pixels; '\n' starts a new line. Parts outside the picture are not drawn.
void draw_text(Image& image, int x, int y, std::string_view text, Rgb color, int scale = 1);

}  // namespace switchback
