// Scatter charts and legends of classes (declared in viz/pictures/grid.h).
#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "viz/pictures/grid.h"
#include "viz/pictures/render.h"
#include "viz/pictures/text.h"

namespace switchback {
namespace {

constexpr double kInset = 10;  // between the outermost points and the picture's edge
constexpr Rgb kPalette[] = {{31, 119, 180},  {255, 127, 14},  {44, 160, 44},   {214, 39, 40},   {148, 103, 189},
                            {140, 86, 75},   {227, 119, 194}, {110, 110, 110}, {188, 189, 34},  {23, 190, 207},
                            {120, 160, 240}, {250, 185, 120}, {130, 205, 120}, {250, 140, 135}, {195, 170, 215},
                            {195, 155, 145}, {245, 180, 210}, {60, 60, 60},    {120, 120, 0},   {0, 100, 110}};
static_assert(std::size(kPalette) == kSeriesColors);

}  // namespace

Rgb series_color(int64_t series) { return kPalette[size_t(series) % std::size(kPalette)]; }

Canvas scatter_chart(std::span<const float> places, std::span<const Rgb> colors, const ScatterOptions& options) {
  const int64_t n = int64_t(colors.size());
  CHECK(int64_t(places.size()) == 2 * n && n > 0, "{} places for {} points", places.size() / 2, n);
  float low[2] = {places[0], places[1]}, high[2] = {places[0], places[1]};
  for (int64_t i = 0; i < n; ++i)
    for (size_t c = 0; c < 2; ++c) {
      low[c] = std::min(low[c], places[size_t(2 * i) + c]);
      high[c] = std::max(high[c], places[size_t(2 * i) + c]);
    }
  const double span = std::max({double(high[0]) - low[0], double(high[1]) - low[1], 1e-30});
  const double side = options.side, inset = kInset + (options.thumbnail ? options.thumbnail_side / 2.0 : 0);
  const auto at = [&](int64_t i) {
    const auto axis = [&](size_t c) { return (places[size_t(2 * i) + c] - (double(low[c]) + high[c]) / 2) / span * (side - 2 * inset); };
    return Point{side / 2 + axis(0), side / 2 - axis(1)};
  };
  Canvas canvas(side, side);
  const double radius = std::clamp(0.15 * side / std::sqrt(double(n)), 0.8, 3.0);
  for (int64_t i = 0; i < n; ++i) canvas.disc(at(i), radius, colors[size_t(i)], 0.85);
  if (!options.thumbnail) return canvas;
  // The first of those that would overlap.
  const double t = options.thumbnail_side, frame = 1.5, cell = t + 2 * frame;
  std::vector<Point> taken;
  for (int64_t i = 0; i < n; ++i) {
    const Point p = at(i);
    if (std::ranges::any_of(taken, [&](const Point& q) { return std::abs(p.x - q.x) < cell && std::abs(p.y - q.y) < cell; })) continue;
    taken.push_back(p);
    const Image picture = options.thumbnail(i);
    const double longest = std::max(picture.width, picture.height), w = t * picture.width / longest, h = t * picture.height / longest;
    canvas.rectangle(p.x - w / 2 - frame, p.y - h / 2 - frame, w + 2 * frame, h + 2 * frame, colors[size_t(i)]);
    canvas.image(picture, p.x - w / 2, p.y - h / 2, w, h);
  }
  return canvas;
}

Canvas series_legend(std::span<const std::string> names, std::span<const Rgb> colors, int width) {
  constexpr int kRow = 18, kSwatch = 16, kApart = 14, kMargin = 10;
  struct Place {
    int x, y;
    std::string text;
  };
  std::vector<Place> placed;
  int x = kMargin, y = 0;
  for (const std::string& name : names) {
    const std::string text = wrapped_text(name, std::max(40, width - 2 * kMargin - kSwatch), kTextSize, 1);
    const int wide = kSwatch + text_width(text);
    if (x > kMargin && x + wide > width - kMargin) x = kMargin, y += kRow;
    placed.push_back({x, y, text});
    x += wide + kApart;
  }
  Canvas canvas(width, y + kRow + kMargin);
  for (size_t i = 0; i < placed.size(); ++i) {
    canvas.disc({placed[i].x + 5.0, placed[i].y + 7.0}, 4.5, colors[i]);
    canvas.text(placed[i].x + kSwatch, placed[i].y, placed[i].text);
  }
  return canvas;
}

}  // namespace switchback
