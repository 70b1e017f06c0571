// Text in pictures: measuring, wrapping and drawing, in the DejaVu Sans that is part of the program (Latin, Greek and
// Cyrillic letters, punctuation, arrows, mathematical signs; a box stands for any other character). Text is UTF-8; what
// is no UTF-8 counts as U+FFFD. Sizes are in pixels: lines are 13/12 of the size tall, and 15/12 apart where there are
// several.
#pragma once

#include <string>
#include <string_view>

#include "engine/files/image.h"
#include "viz/pictures/colormap.h"

namespace switchback {

inline constexpr double kTextSize = 12, kTitleSize = 15, kSmallSize = 10;
inline constexpr const char* kFontName = "DejaVu Sans";

// Of the longest line, rounded up.
int text_width(std::string_view text, double size = kTextSize);
// Of all lines, rounded up; one line's at least.
int text_height(std::string_view text, double size = kTextSize);
inline double line_pitch(double size) { return size * 15 / 12; }
inline double baseline(double size) { return size * 10 / 12; }  // below the top of a line

// The text with line ends where it would be wider than `width`: at spaces (but not before %), in words that are too
// long anywhere. Of more than most_lines (0: any number) the last one kept ends in "…".
std::string wrapped_text(std::string_view text, int width, double size = kTextSize, int most_lines = 0);

// The text as valid UTF-8 without control characters but '\n'.
std::string clean_text(std::string_view text);

// x, y: the top left corner of the first line. Parts outside the picture are not drawn.
void draw_text(Image& image, double x, double y, std::string_view text, Rgb color, double size = kTextSize);

}  // namespace switchback
