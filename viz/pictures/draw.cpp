#include "viz/pictures/draw.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"

namespace switchback {
namespace {

void blend(Image& image, int x, int y, Rgb color, double share) {
  uint8_t* pixel = &image.pixels[(size_t(y) * size_t(image.width) + size_t(x)) * 3];
  for (int c = 0; c < 3; ++c) pixel[c] = uint8_t(std::lround(pixel[c] + share * (color[size_t(c)] - double(pixel[c]))));
}

// Distance of p to the line from a to b.
double distance(Point p, Point a, Point b) {
  const double dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy;
  const double t = length > 0 ? std::clamp(((p.x - a.x) * dx + (p.y - a.y) * dy) / length, 0.0, 1.0) : 0;
  const double x = p.x - a.x - t * dx, y = p.y - a.y - t * dy;
  return std::sqrt(x * x + y * y);
}

int first_pixel(double at, int count) { return int(std::clamp(std::floor(at), 0.0, double(count))); }

}  // namespace

void draw_line(Image& image, Point from, Point to, double width, Rgb color, double opacity) {
  CHECK(image.channels == 3 && width > 0, "cannot draw a line of width {} into {} channels", width, image.channels);
  if (!std::isfinite(from.x + from.y + to.x + to.y)) return;
  const double reach = width / 2 + 1;
  const int top = first_pixel(std::min(from.y, to.y) - reach, image.height);
  const int bottom = first_pixel(std::max(from.y, to.y) + reach + 1, image.height);
  const double dy = to.y - from.y, slope = dy != 0 ? (to.x - from.x) / dy : 0;
  // Of each row only the columns near the line: those where it crosses the row, and what its width reaches beside them.
  const double beside = reach * std::sqrt(1 + slope * slope) + std::fabs(slope);
  for (int y = top; y < bottom; ++y) {
    double left = std::min(from.x, to.x), right = std::max(from.x, to.x);
    if (dy != 0) {
      const double x = from.x + (y + 0.5 - from.y) * slope;
      left = std::max(left, std::min(x, right) - beside);
      right = std::min(right, std::max(x, left) + beside);
    }
    const int end = first_pixel(right + reach + 1, image.width);
    for (int x = first_pixel(left - reach, image.width); x < end; ++x) {
      const double inside = width / 2 + 0.5 - distance({x + 0.5, y + 0.5}, from, to);
      if (inside > 0) blend(image, x, y, color, opacity * std::min(1.0, inside) * std::min(1.0, width));
    }
  }
}

void draw_disc(Image& image, Point centre, double radius, Rgb color, double opacity) {
  draw_line(image, centre, centre, 2 * radius, color, opacity);
}

void fill_convex(Image& image, std::span<const Point> polygon, const std::function<Rgb(Point centre)>& color) {
  CHECK(image.channels == 3, "cannot fill a polygon in {} channels", image.channels);
  double top = image.height, bottom = 0;
  for (const Point& p : polygon) top = std::min(top, p.y), bottom = std::max(bottom, p.y);
  for (int y = first_pixel(top, image.height); y < image.height && y + 0.5 < bottom; ++y) {
    double left = image.width, right = 0;
    bool crossed = false;
    for (size_t i = 0; i < polygon.size(); ++i) {
      Point a = polygon[i], b = polygon[(i + 1) % polygon.size()];
      if (a.y > b.y) std::swap(a, b);  // neighbours compute the same crossing of the edge they share
      if (!(a.y <= y + 0.5 && y + 0.5 < b.y)) continue;
      const double x = a.x + (y + 0.5 - a.y) / (b.y - a.y) * (b.x - a.x);
      left = std::min(left, x), right = std::max(right, x);
      crossed = true;
    }
    if (!crossed) continue;
    // Centres with left <= x + 0.5 < right.
    const int end = first_pixel(std::ceil(right - 0.5), image.width);
    for (int x = first_pixel(std::ceil(left - 0.5), image.width); x < end; ++x) {
      const Rgb c = color({x + 0.5, y + 0.5});
      std::copy(c.begin(), c.end(), &image.pixels[(size_t(y) * size_t(image.width) + size_t(x)) * 3]);
    }
  }
}

}  // namespace switchback
