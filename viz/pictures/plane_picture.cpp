// The picture of a plane (declared in viz/methods/plane.h).
#include <algorithm>
#include <cmath>

#include "viz/methods/plane.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

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

// A short line in each layer's colour with its name, below the box, in as many rows as they take. Returns where they
// end.
int draw_legend(Canvas& canvas, const PlaneMap& map, int width, int y) {
  constexpr int kRow = 16, kSwatch = 20, kApart = 14;
  int x = kMargin;
  for (size_t l = 0; l < map.layers.size(); ++l) {
    const PlaneLayer& layer = map.layers[l];
    const std::string text = fmt::format("ReLU {}: {} of {} lines", layer.name, layer.crossing, layer.units);
    const int wide = kSwatch + text_width(text);
    if (x > kMargin && x + wide > width) x = kMargin, y += kRow;
    canvas.line({x + 1.0, y + 6.5}, {x + 15.0, y + 6.5}, 2, color_of(kLayerColors, int64_t(l)));
    canvas.text(x + kSwatch, y, text);
    x += wide + kApart;
  }
  return y + kRow;
}

}  // namespace

Canvas plane_picture(const PlaneMap& map, std::span<const PlanePoint> points, int side, int density) {
  const double width = map.box.right - map.box.left, height = map.box.top - map.box.bottom;
  const double longer = std::max(width, height);
  const auto whole = [&](double length) { return std::max(1, int(std::lround(length * side / longer))); };
  const int w = whole(width), h = whole(height);
  Image regions = blank_image(w * density, h * density, kPaper);
  const Scale fine{map.box, density * side / longer}, scale{map.box, side / longer};
  for (size_t i = 0; i < map.regions.size(); ++i) draw_region(regions, fine, map.regions[i], i);
  Canvas plane(w, h);
  plane.image(std::move(regions), 0, 0, w, h);
  for (const PlaneLine& line : map.lines)
    plane.line(scale.to_pixels(line.from), scale.to_pixels(line.to), 1.3, color_of(kLayerColors, line.layer), 0.9);
  for (const PlanePoint& p : points) {
    plane.disc(scale.to_pixels(p.at), 3.2, kPaper);
    plane.disc(scale.to_pixels(p.at), 2.3, mixed(color_of(kClassColors, p.label), kInk, 0.25));
  }
  Canvas legend(w, 1);
  const int end = draw_legend(legend, map, w, h + 6);
  Canvas out(w, end);
  out.place(plane, 0, 0);
  out.place(legend, 0, 0);
  return out;
}

}  // namespace switchback
