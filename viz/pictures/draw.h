// Lines, discs and polygons, with smooth edges. Places are in pixels from the top left corner: pixel (0,0) covers the
// square from (0,0) to (1,1). Parts outside the picture are cut off.
#pragma once

#include <functional>
#include <span>

#include "engine/files/image.h"
#include "viz/pictures/colormap.h"

namespace switchback {

struct Point {
  double x = 0, y = 0;
};

// A straight line with round ends. opacity 0 .. 1.
void draw_line(Image& image, Point from, Point to, double width, Rgb color, double opacity = 1);
void draw_disc(Image& image, Point centre, double radius, Rgb color, double opacity = 1);

// Every pixel whose centre lies inside gets the colour that `color` gives for its centre: polygons that share an edge
// share no pixel and leave none out.
void fill_convex(Image& image, std::span<const Point> polygon, const std::function<Rgb(Point centre)>& color);

}  // namespace switchback
