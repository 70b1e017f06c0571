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
constexpr double kDotsApart = 9;  // pixels, of dots and ticks
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

Frame make_frame(const Axis& axis, std::span<const Series> series, const LineOptions& options,
                 const std::string& title) {
  int tick = 0, legend = 0;
  for (double v : axis.ticks()) tick = std::max(tick, text_width(axis.text(v)));
  for (const Series& s : series) legend = std::max(legend, text_width(s.name));
  legend = std::min(legend, options.width / 3);
  int legend_height = 0;
  for (const Series& s : series) legend_height += text_height(wrapped_text(s.name, legend)) + 2;
  Frame f{};
  f.left = kMargin + tick + kSpace;
  f.right = options.width - kMargin - legend - kSwatch - 2 * kSpace;
  f.top = kMargin + (title.empty() ? 0 : text_height(title) + kSpace + 2);
  f.height = std::max(options.height, f.top + legend_height + kMargin);
  f.bottom = f.height - kMargin - text_height("") - kSpace;
  CHECK(f.right - f.left >= 40 && f.bottom - f.top >= 40, "a line chart of {} x {} pixels has no room for its lines",
        options.width, options.height);
  CHECK(options.width <= kMaxPictureSide && f.height <= kMaxPictureSide, "a line chart of {} x {} pixels is too large",
        options.width, f.height);
  return f;
}

// Names of the places below the plot: all, or as many as fit; the last has its room before those that would lie too close.
void draw_places(Canvas& canvas, const Frame& f, std::span<const std::string> places) {
  constexpr int kApart = 7;
  int free_from = 0;
  const bool close = places.size() > 1 && f.x(1, places.size()) - f.x(0, places.size()) < kDotsApart;  // then ticks at names alone
  struct Name {
    std::string text;
    int width, middle, x;
  };
  const auto name_of = [&](size_t i) {
    Name n{wrapped_text(places[i], (f.right - f.left) / 3, kTextSize, 1), 0, int(std::lround(f.x(i, places.size()))), 0};
    n.width = text_width(n.text);
    n.x = std::clamp(n.middle - n.width / 2, 3, std::max(3, int(canvas.width()) - n.width));
    return n;
  };
  const int last_from = places.empty() ? 0 : name_of(places.size() - 1).x;
  for (size_t i = 0; i < places.size(); ++i) {
    const Name n = name_of(i);
    const bool first = i == 0, last = i + 1 == places.size();
    const bool fits = last || (n.x >= free_from && (first || n.x + n.width + kApart <= last_from));
    if (close && !fits) continue;
    canvas.rectangle(n.middle, f.bottom, 1, 4, kInk);
    if (!fits) continue;
    canvas.text(n.x, f.bottom + kSpace, n.text);
    free_from = n.x + n.width + kApart;
  }
}

void draw_series(Canvas& canvas, const Frame& f, const Axis& axis, const Series& s) {
  const double width = s.bold ? 3 : 1.6;
  const auto at = [&](size_t i) { return Point{f.x(i, s.values.size()), f.y(s.values[i], axis)}; };
  const size_t n = s.values.size();
  const auto there = [&](size_t i) { return i < n && std::isfinite(s.values[i]); };
  const bool dots = n < 2 || f.x(1, n) - f.x(0, n) >= kDotsApart;  // closer together they would make a thick line
  for (size_t i = 0; i < n; ++i) {
    if (!there(i)) continue;
    if (i > 0 && there(i - 1)) canvas.line(at(i - 1), at(i), width, s.color);
    if (dots || (!there(i - 1) && !there(i + 1))) canvas.disc(at(i), width + 1, s.color);
  }
}

// Series of the same values are drawn once, under all their names.
std::vector<Series> distinct(std::span<const Series> series) {
  const auto same = [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); };
  std::vector<Series> out;
  for (const Series& s : series) {
    const auto twin =
        std::ranges::find_if(out, [&](const Series& o) { return std::ranges::equal(o.values, s.values, same); });
    if (twin == out.end()) {
      out.push_back(s);
    } else {
      twin->name += ", " + s.name;
      if (s.bold && !twin->bold) twin->bold = true, twin->color = s.color;
    }
  }
  return out;
}

}  // namespace

Canvas line_chart(std::span<const std::string> places, std::span<const Series> given, const LineOptions& options) {
  CHECK(!places.empty() && !given.empty(), "a line chart of {} series over {} places", given.size(), places.size());
  for (const Series& s : given)
    CHECK(s.values.size() == places.size(), "series {} has {} values for {} places", s.name, s.values.size(),
          places.size());
  const std::vector<Series> series = distinct(given);
  const Axis axis = make_axis(series, options);
  const std::string title = wrapped_text(options.title, options.width - 2 * kMargin);
  const Frame f = make_frame(axis, series, options, title);
  Canvas canvas(options.width, f.height);
  canvas.text(kMargin, kMargin, title);
  for (double v : axis.ticks()) {
    const int y = int(std::lround(f.y(v, axis)));
    canvas.rectangle(f.left, y, f.right - f.left, 1, kGridLine);
    canvas.text(f.left - kSpace, y - text_height("") / 2, axis.text(v), kInk, kTextSize, 1);
  }
  canvas.rectangle(f.left, f.bottom, f.right - f.left, 1, kInk);
  draw_places(canvas, f, places);
  for (const Series& s : series) draw_series(canvas, f, axis, s);
  int y = f.top;
  for (const Series& s : series) {
    const int x = f.right + kSpace;
    const std::string name = wrapped_text(s.name, options.width - kMargin - x - kSwatch);
    canvas.rectangle(x, y + (s.bold ? 5 : 6), kSwatch - kSpace, s.bold ? 3 : 2, s.color);
    canvas.text(x + kSwatch, y, name);
    y += text_height(name) + 2;
  }
  return canvas;
}

}  // namespace switchback
