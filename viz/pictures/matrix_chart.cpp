// Tables as pictures (declared in viz/pictures/grid.h).
#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "viz/pictures/grid.h"
#include "viz/pictures/render.h"
#include "viz/pictures/text.h"

namespace switchback {
namespace {

constexpr int kAroundMatrix = 10, kMatrixSpace = 6;
constexpr int kWidestName = 160;   // pixels
constexpr int kLeastForName = 12;  // pixels of a cell: below, rows and columns have no names

}  // namespace

Canvas matrix_chart(std::span<const std::string> names, std::span<const double> values, const MatrixOptions& options) {
  const int n = int(names.size());
  CHECK(n > 0 && values.size() == names.size() * names.size(), "{} values for a matrix of {} rows", values.size(), n);
  const int cell = std::clamp(480 / n, 4, 48);
  const bool named = cell >= kLeastForName, numbered = cell >= 34;
  int name_width = 0;
  std::vector<std::string> rows;
  for (const std::string& name : names) {
    rows.push_back(named ? wrapped_text(name, kWidestName, kTextSize, 1) : "");
    name_width = std::max(name_width, text_width(rows.back()));
  }
  const std::string title = options.title;
  const int side = n * cell, left = kAroundMatrix + (named ? name_width + kMatrixSpace : 0);
  const int width =
      std::max(left + side + kAroundMatrix, std::min(480, text_width(title, kTitleSize) + 2 * kAroundMatrix));
  const std::string wrapped = wrapped_text(title, width - 2 * kAroundMatrix, kTitleSize);
  const int top = kAroundMatrix + (title.empty() ? 0 : text_height(wrapped, kTitleSize) + kMatrixSpace);
  const ColorScale scale{.map = options.map, .range = options.range};
  const int bar = std::min(side, 320);
  Canvas canvas(width, top + side + kMatrixSpace + (named ? text_height("") + kMatrixSpace : 0) +
                           color_bar_height(scale, bar) + kAroundMatrix);
  canvas.text(width / 2.0, kAroundMatrix, wrapped, kInk, kTitleSize, 0.5);
  Image cells = blank_image(n, n, {225, 225, 225});
  for (int i = 0; i < n * n; ++i) {
    const double v = values[size_t(i)];
    if (!std::isfinite(v)) continue;
    const float value = float(v);
    paste(cells, heatmap(&value, 1, 1, scale.map, scale.range), i % n, i / n);
  }
  canvas.image(std::move(cells), left, top, side, side);
  for (int r = 0; r < n; ++r) {
    const double middle = top + (r + 0.5) * cell;
    if (named) canvas.text(left - kMatrixSpace, middle - text_height("") / 2.0, rows[size_t(r)], kInk, kTextSize, 1);
    // Below: as much of the name as fits.
    if (named)
      canvas.text(left + (r + 0.5) * cell, top + side + kMatrixSpace / 2.0,
                  wrapped_text(names[size_t(r)], cell, kSmallSize, 1), kInk, kSmallSize, 0.5);
    for (int c = 0; numbered && c < n; ++c) {
      const double v = values[size_t(r * n + c)];
      if (!std::isfinite(v)) continue;
      const Rgb paper = color(scale.map, float((v - scale.range.lo) / (scale.range.hi - scale.range.lo)));
      const bool dark = paper[0] + 2 * paper[1] + paper[2] < 460;
      canvas.text(left + (c + 0.5) * cell, middle - text_height("", kSmallSize) / 2.0, fmt::format("{:.2f}", v),
                  dark ? Rgb{255, 255, 255} : kInk, kSmallSize, 0.5);
    }
  }
  canvas.place(color_bar(scale, bar), left + (side - bar) / 2.0,
               top + side + kMatrixSpace + (named ? text_height("") + kMatrixSpace : 0));
  return canvas;
}

}  // namespace switchback
