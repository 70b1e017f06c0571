// Line charts (declared in viz/pictures/grid.h).
#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "viz/pictures/draw.h"
#include "viz/pictures/grid.h"
#include "viz/pictures/render.h"
#include "viz/pictures/text.h"

namespace switchback {
namespace {

constexpr int kMargin = 10, kSpace = 6, kSwatch = 22;
constexpr Rgb kGridLine = {225, 225, 225};

// The vertical axis: from lo to hi in steps of 1, 2 or 5 times a power of ten.
struct Axis {
  double lo = 0, hi = 1, step = 1;
  std::vector<double> ticks() const {
    std::vector<double> out;
    for (int i = 0; lo + i * step <= hi + step / 2; ++i) out.push_back(lo + i * step);
    return out;
  }
  std::string text(double value) const {
    const int decimals = std::clamp(int(std::ceil(-std::log10(step) - 1e-9)), 0, 9);
    return fmt::format("{:.{}f}", std::fabs(value) < step / 2 ? 0.0 : value, decimals);
  }
};

Axis make_axis(std::span<const Series> series, const LineOptions& options) {
  double lo = options.least, hi = std::max(options.most, options.least);
  for (const Series& s : series)
    for (double v : s.values)
      if (std::isfinite(v)) lo = std::min(lo, v), hi = std::max(hi, v);
  if (hi - lo < 1e-9 * std::max(1.0, std::fabs(hi))) hi = lo + 1;
  Axis axis;
  const double wanted = (hi - lo) / 5, power = std::pow(10, std::floor(std::log10(wanted)));
  axis.step = power * (wanted <= power ? 1 : wanted <= 2 * power ? 2 : wanted <= 5 * power ? 5 : 10);
  axis.lo = std::floor(lo / axis.step + 1e-9) * axis.step;
  axis.hi = std::ceil(hi / axis.step - 1e-9) * axis.step;
  return axis;
}

// Where things are, in pixels.
struct Frame {
  int left, right, top, bottom;  // of the plot
  int height;                    // of the picture
  double x(size_t place, size_t places) const {
    constexpr double kInset = 12;
    if (places == 1) return 0.5 * (left + right);
    return left + kInset + (right - left - 2 * kInset) * double(place) / double(places - 1);
  }
  double y(double value, const Axis& axis) const {
    return bottom - (value - axis.lo) / (axis.hi - axis.lo) * (bottom - top);
  }
};

Frame make_frame(const Axis& axis, std::span<const Series> series, const LineOptions& options) {
  int tick = 0, legend = 0;
  for (double v : axis.ticks()) tick = std::max(tick, text_width(axis.text(v)));
  for (const Series& s : series) legend = std::max(legend, text_width(s.name));
  legend = std::min(legend, options.width / 3);
  Frame f{};
  f.left = kMargin + tick + kSpace;
  f.right = options.width - kMargin - legend - kSwatch - 2 * kSpace;
  f.top = kMargin + (options.title.empty() ? 0 : kLineHeight + kSpace);
  f.height = std::max(options.height, f.top + int(series.size()) * kLineHeight + kMargin);
  f.bottom = f.height - kMargin - kLineHeight - kSpace;
  CHECK(f.right - f.left >= 40 && f.bottom - f.top >= 40, "a line chart of {} x {} pixels has no room for its lines",
        options.width, options.height);
  CHECK(options.width <= kMaxPictureSide && f.height <= kMaxPictureSide, "a line chart of {} x {} pixels is too large",
        options.width, f.height);
  return f;
}

// Names of the places below the plot: all, or as many as fit.
void draw_places(Image& image, const Frame& f, std::span<const std::string> places, const LineOptions& options) {
  int free_from = 0;
  for (size_t i = 0; i < places.size(); ++i) {
    const std::string text = fitted_text(places[i], (f.right - f.left) / 3);
    const int width = text_width(text), middle = int(std::lround(f.x(i, places.size())));
    const int x = std::clamp(middle - width / 2, 3, std::max(3, options.width - width));
    fill_rectangle(image, middle, f.bottom, 1, 4, options.ink);
    if (x < free_from) continue;
    draw_text(image, x, f.bottom + kSpace, text, options.ink);
    free_from = x + width + kGlyphWidth;
  }
}

void draw_series(Image& image, const Frame& f, const Axis& axis, const Series& s) {
  const double width = s.bold ? 3 : 1.6;
  const auto at = [&](size_t i) { return Point{f.x(i, s.values.size()), f.y(s.values[i], axis)}; };
  for (size_t i = 0; i < s.values.size(); ++i) {
    if (!std::isfinite(s.values[i])) continue;
    if (i > 0 && std::isfinite(s.values[i - 1])) draw_line(image, at(i - 1), at(i), width, s.color);
    draw_disc(image, at(i), width + 1, s.color);
  }
}

}  // namespace

Image line_chart(std::span<const std::string> places, std::span<const Series> series, const LineOptions& options) {
  CHECK(!places.empty() && !series.empty(), "a line chart of {} series over {} places", series.size(), places.size());
  for (const Series& s : series)
    CHECK(s.values.size() == places.size(), "series {} has {} values for {} places", s.name, s.values.size(),
          places.size());
  const Axis axis = make_axis(series, options);
  const Frame f = make_frame(axis, series, options);
  Image image = blank_image(options.width, f.height, options.background);
  draw_text(image, kMargin, kMargin, fitted_text(options.title, options.width - 2 * kMargin), options.ink);
  for (double v : axis.ticks()) {
    const int y = int(std::lround(f.y(v, axis)));
    fill_rectangle(image, f.left, y, f.right - f.left, 1, kGridLine);
    const std::string text = axis.text(v);
    draw_text(image, f.left - kSpace - text_width(text), y - kGlyphHeight / 2, text, options.ink);
  }
  fill_rectangle(image, f.left, f.bottom, f.right - f.left, 1, options.ink);
  draw_places(image, f, places, options);
  for (const Series& s : series) draw_series(image, f, axis, s);
  for (size_t i = 0; i < series.size(); ++i) {
    const int x = f.right + kSpace, y = f.top + int(i) * kLineHeight;
    fill_rectangle(image, x, y + (series[i].bold ? 5 : 6), kSwatch - kSpace, series[i].bold ? 3 : 2, series[i].color);
    draw_text(image, x + kSwatch, y, fitted_text(series[i].name, options.width - kMargin - x - kSwatch), options.ink);
  }
  return image;
}

}  // namespace switchback
