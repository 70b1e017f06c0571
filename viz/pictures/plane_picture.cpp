// The picture of a plane (declared in viz/methods/plane.h).
#include <algorithm>
#include <cmath>

#include "viz/methods/plane.h"
#include "viz/pictures/render.h"
#include "viz/pictures/text.h"

namespace switchback {
namespace {

constexpr Rgb kPaper = {255, 255, 255}, kInk = {32, 32, 32};
constexpr int kMargin = 5;
// Of classes, and of layers: dark enough to be seen on any class's shades.
constexpr Rgb kClassColors[] = {{66, 133, 214}, {240, 138, 50}, {76, 170, 90},  {200, 80, 160},
                                {150, 110, 80}, {230, 190, 40}, {90, 190, 200}, {140, 140, 140}};
constexpr Rgb kLayerColors[] = {{30, 30, 40},  {176, 20, 50},  {20, 80, 170},
                                {20, 110, 50}, {130, 40, 150}, {120, 80, 0}};

template <size_t N>
Rgb color_of(const Rgb (&colors)[N], int64_t index) {
  return colors[size_t(index) % N];
}

Rgb mixed(Rgb a, Rgb b, double share_of_b) {
  Rgb out{};
  for (size_t c = 0; c < 3; ++c) out[c] = uint8_t(std::lround(a[c] + share_of_b * (double(b[c]) - double(a[c]))));
  return out;
}

// Between the box (y upwards) and pixels (y downwards).
struct Scale {
  PlaneBox box;
  double pixels;  // per unit
  Point to_pixels(Point p) const { return {(p.x - box.left) * pixels, (box.top - p.y) * pixels}; }
  Point to_box(Point p) const { return {box.left + p.x / pixels, box.top - p.y / pixels}; }
};

void draw_region(Image& image, const Scale& scale, const PlaneRegion& region, size_t index) {
  std::vector<Point> polygon;
  for (const Point& p : region.polygon) polygon.push_back(scale.to_pixels(p));
  // Shades by the golden ratio: regions that follow each other, and so lie side by side, differ.
  const double shade = 0.52 + 0.34 * std::fmod(double(index) * 0.6180339887498949, 1.0);
  fill_convex(image, polygon, [&](Point centre) {
    return mixed(color_of(kClassColors, class_at(region, scale.to_box(centre))), kPaper, shade);
  });
}

// A short line in each layer's colour with its name, below the box; what has no room is left out.
void draw_legend(Image& image, const PlaneMap& map, int y) {
  int x = kMargin;
  for (size_t l = 0; l < map.layers.size(); ++l) {
    const PlaneLayer& layer = map.layers[l];
    const std::string text = fmt::format("ReLU {}: {} of {} lines", layer.name, layer.crossing, layer.units);
    const int width = 20 + text_width(text);
    if (x > kMargin && x + width > image.width) break;
    draw_line(image, {x + 1.0, y + 6.5}, {x + 15.0, y + 6.5}, 2, color_of(kLayerColors, int64_t(l)));
    draw_text(image, x + 20, y, text, kInk);
    x += width + 14;
  }
}

}  // namespace

Image plane_picture(const PlaneMap& map, std::span<const PlanePoint> points, int side) {
  const double width = map.box.right - map.box.left, height = map.box.top - map.box.bottom;
  const Scale scale{map.box, side / std::max(width, height)};
  const auto pixels = [&](double length) { return std::max(1, int(std::lround(length * scale.pixels))); };
  Image plane = blank_image(pixels(width), pixels(height), kPaper);
  for (size_t i = 0; i < map.regions.size(); ++i) draw_region(plane, scale, map.regions[i], i);
  for (const PlaneLine& line : map.lines)
    draw_line(plane, scale.to_pixels(line.from), scale.to_pixels(line.to), 1.3, color_of(kLayerColors, line.layer),
              0.9);
  for (const PlanePoint& p : points) {
    draw_disc(plane, scale.to_pixels(p.at), 3.2, kPaper);
    draw_disc(plane, scale.to_pixels(p.at), 2.3, mixed(color_of(kClassColors, p.label), kInk, 0.25));
  }
  Image out = blank_image(plane.width, plane.height + kLineHeight + 6, kPaper);
  paste(out, plane, 0, 0);
  draw_legend(out, map, plane.height + 6);
  return out;
}

}  // namespace switchback
