#include "tools/commands/etalon_figure.h"

#include <algorithm>

#include "viz/pictures/grid.h"
#include "viz/pictures/render.h"
#include "viz/pictures/text.h"

namespace switchback {
namespace {

constexpr double kPercentile = 99.8;  // of a map's values: what is beyond is drawn in the strongest colour
constexpr int kLarge = 392, kSmall = 84;

// A bar from the strongest negative to the strongest positive colour, with its ends named; white to its left and below.
Image scale_bar(float limit, bool coloured, int width) {
  constexpr int kBar = 12, kMargin = 10;
  Image out = blank_image(width + 2 * kMargin, kBar + 4 + kGlyphHeight + kMargin, {255, 255, 255});
  std::vector<float> ramp(static_cast<size_t>(width * kBar));
  for (size_t i = 0; i < ramp.size(); ++i) ramp[i] = 2 * float(i % size_t(width)) / float(width - 1) - 1;
  const Image bar = coloured ? heatmap(ramp.data(), kBar, width, ColorMap::seismic, {-1, 1})
                             : signed_rgb_in(ramp.data(), 1, kBar, width, ChannelOrder::grey, {-1, 1});
  paste(out, bar, kMargin, 0);
  const std::string low = fmt::format("{:.2g}", -limit), high = fmt::format("{:.2g}", limit);
  draw_text(out, kMargin, kBar + 4, low, {32, 32, 32});
  draw_text(out, kMargin + (width - text_width("0")) / 2, kBar + 4, "0", {32, 32, 32});
  draw_text(out, kMargin + width - text_width(high), kBar + 4, high, {32, 32, 32});
  return out;
}

}  // namespace

EtalonFigure::EtalonFigure(Shape image, ChannelOrder order, int64_t columns, bool product)
    : image_(image), order_(order), columns_(std::min(columns, kMostColumns)), flat_(product || image.c != 3) {}

std::vector<float> EtalonFigure::kept(const float* map) const {
  const int64_t plane = image_.h * image_.w;
  if (!flat_) return {map, map + image_.item()};
  std::vector<float> sum(map, map + plane);
  for (int64_t c = 1; c < image_.c; ++c)
    for (int64_t i = 0; i < plane; ++i) sum[size_t(i)] += map[c * plane + i];
  return sum;
}

float EtalonFigure::limit() const {
  float most = 0;
  for (const Row& row : rows_)
    for (const std::vector<float>& map : row.maps)
      if (const Range range = value_range(map); range.lo < 0 || range.hi > 0)
        most = std::max(most, symmetric_range(map, kPercentile).hi);
  return most > 0 ? most : 1;
}

Json EtalonFigure::colors() const { return colors_json(flat_ ? "seismic" : "signed", {-limit(), limit()}); }

Image EtalonFigure::picture(const std::vector<float>& map, float limit) const {
  const int h = int(image_.h), w = int(image_.w);
  if (flat_) return heatmap(map.data(), h, w, ColorMap::seismic, {-limit, limit});
  return signed_rgb_in(map.data(), 3, h, w, order_, {-limit, limit});
}

Image EtalonFigure::draw(const std::string& title, const std::vector<std::string>& headings) const {
  const float most = limit();
  const bool single = rows_.size() == 1 && columns_ == 1;
  std::vector<SheetRow> sheet;
  std::vector<std::string> columns = {"input"};
  columns.insert(columns.end(), headings.begin(), headings.begin() + columns_);
  for (const Row& row : rows_) {
    SheetRow& line = sheet.emplace_back();
    line.label = single ? "" : row.label;
    line.panels.push_back({row.input, single ? row.label : ""});
    for (size_t p = 0; p < row.maps.size(); ++p) line.panels.push_back({picture(row.maps[p], most), row.captions[p]});
  }
  GridOptions options;
  options.title = title;
  const int side = int(std::max(image_.h, image_.w)), wanted = single ? kLarge : kSmall;
  options.panel_side = side * std::max(1, wanted / side);  // small images by whole factors
  if (side > wanted && !single) options.panel_side = rows_.size() * size_t(columns_) > 60 ? 112 : std::min(side, 224);
  const Image grid = contact_sheet(sheet, columns, options);
  const Image parts[] = {grid, scale_bar(most, flat_, std::min(280, grid.width - 20))};
  return one_below_other(parts, 0);
}

}  // namespace switchback
