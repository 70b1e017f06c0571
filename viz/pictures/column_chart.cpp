// The chart of many upright bars (declared in viz/pictures/grid.h).
#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "viz/pictures/grid.h"
#include "viz/pictures/render.h"
#include "viz/pictures/text.h"

namespace switchback {
namespace {

constexpr int kMargin = 10, kSpace = 6, kTick = 4;

// A round number (1, 2 or 5 times a power of ten) of values, so that marks of the scale lie at least `least` apart.
int64_t round_step(double least) {
  int64_t step = 1;
  for (int64_t power = 1;; power *= 10)
    for (int64_t factor : {1, 2, 5}) {
      step = factor * power;
      if (double(step) >= least) return step;
    }
}

// Where the bars of a column chart go.
struct Columns {
  int64_t values, each;  // values in all, values that share a bar
  int bars, bar_width;
  int width() const { return bars * bar_width; }
  int x(int64_t value) const { return int(value / each) * bar_width; }
};

Columns place_columns(int64_t values, int width) {
  constexpr int64_t kMostBars = 2000;
  const int64_t each = (values + kMostBars - 1) / kMostBars;
  const int bars = int((values + each - 1) / each);
  return {values, each, bars, (width + bars - 1) / bars};
}

// The value of the bar that begins with `first`: the one furthest from 0.
float bar_value(std::span<const float> values, size_t first, size_t each) {
  float furthest = values[first];
  for (size_t i = first; i < std::min(values.size(), first + each); ++i)
    if (std::abs(values[i]) > std::abs(furthest)) furthest = values[i];
  return furthest;
}

// The plot within its picture.
struct Plot {
  Columns columns;
  Range range;
  int left, top, bottom;
  int y(float value) const { return bottom - int(std::lround(unit_position(value, range) * float(bottom - top))); }
};

void draw_bars(Canvas& canvas, const Plot& plot, std::span<const float> values, const ColumnOptions& options) {
  const Columns& columns = plot.columns;
  canvas.rectangle(plot.left, plot.top, columns.width(), plot.bottom - plot.top, {240, 240, 240});
  const int zero = plot.y(0);
  for (int b = 0; b < columns.bars; ++b) {
    const int64_t first = b * columns.each;
    const float value = bar_value(values, size_t(first), size_t(columns.each));
    if (!std::isfinite(value)) continue;
    const bool marked = std::any_of(options.marked.begin(), options.marked.end(),
                                    [&](int64_t m) { return m >= first && m < first + columns.each; });
    canvas.rectangle(plot.left + b * columns.bar_width, std::min(plot.y(value), zero),
                     columns.bar_width - (columns.bar_width > 3), std::abs(plot.y(value) - zero),
                     marked ? options.mark : options.bar);
  }
  canvas.rectangle(plot.left, zero, columns.width(), 1, kInk);
}

void draw_scales(Canvas& canvas, const Plot& plot) {
  const auto write_left = [&](const std::string& text, float value) {
    canvas.text(plot.left - kSpace, plot.y(value) - text_height(text) / 2, text, kInk, kTextSize, 1);
  };
  if (plot.range.hi > 0) write_left(fmt::format("{:.4g}", plot.range.hi), plot.range.hi);
  if (plot.range.lo < 0) write_left(fmt::format("{:.4g}", plot.range.lo), plot.range.lo);
  const auto is_free = [&](float end) { return end == 0 || std::abs(plot.y(end) - plot.y(0)) > text_height(""); };
  if (is_free(plot.range.hi) && is_free(plot.range.lo)) write_left("0", 0);
  const Columns& columns = plot.columns;
  const int64_t step = round_step(48.0 * double(columns.each) / columns.bar_width);
  for (int64_t v = 0; v < columns.values; v += step) {
    const std::string text = std::to_string(v);
    const int x = plot.left + columns.x(v) + columns.bar_width / 2;
    canvas.rectangle(x, plot.bottom, 1, kTick, kInk);
    canvas.text(x + 0.5, plot.bottom + kTick, text, kInk, kTextSize, 0.5);
  }
}

}  // namespace

Canvas column_chart(std::span<const float> values, const ColumnOptions& options) {
  CHECK(!values.empty() && options.width > 0 && options.height > 0, "a chart of {} values, {} x {} pixels",
        values.size(), options.width, options.height);
  Range range = options.range.lo < options.range.hi ? options.range : value_range(values);
  range = {std::min(range.lo, 0.f), std::max(range.hi, 0.f)};
  if (range.lo == range.hi) range.hi = 1;
  const int label = std::max(text_width(fmt::format("{:.4g}", range.hi)), text_width(fmt::format("{:.4g}", range.lo)));
  const Columns columns = place_columns(int64_t(values.size()), options.width);
  const int left = kMargin + label + kSpace, width = left + columns.width() + 3 * kMargin;
  std::string title = options.title;
  if (columns.each > 1) title += fmt::format(" ({} a bar: the one furthest from 0)", columns.each);
  title = wrapped_text(title, width - 2 * kMargin);
  const int top = title.empty() ? kMargin : kMargin + text_height(title) + kSpace;
  const Plot plot{columns, range, left, top, top + options.height};
  Canvas canvas(width, plot.bottom + kTick + text_height("") + kMargin);
  canvas.text(kMargin, kMargin - 1, title);
  draw_bars(canvas, plot, values, options);
  draw_scales(canvas, plot);
  return canvas;
}

}  // namespace switchback
