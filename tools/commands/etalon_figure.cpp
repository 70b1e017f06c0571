#include "tools/commands/etalon_figure.h"

#include <algorithm>

#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr int kLarge = 392, kSmall = 84;
constexpr int64_t kMostInARow = 10;

}  // namespace

EtalonFigure::EtalonFigure(const Options& options, Shape image, ChannelOrder order, int64_t columns, bool product)
    : options_(options),
      image_(image),
      order_(order),
      columns_(std::min(columns, kMostColumns)),
      flat_(product || image.c != 3 || options.colormap) {}

std::vector<float> EtalonFigure::kept(const float* map) const {
  const int64_t plane = image_.h * image_.w;
  if (!flat_) return {map, map + image_.item()};
  std::vector<float> sum(map, map + plane);
  for (int64_t c = 1; c < image_.c; ++c)
    for (int64_t i = 0; i < plane; ++i) sum[size_t(i)] += map[c * plane + i];
  return sum;
}

ColorScale EtalonFigure::scale_of(const std::vector<float>& map) const {
  return {.kind = flat_ ? ColorScale::Kind::map : ColorScale::Kind::channels,
          .map = options_.map_or(ColorMap::seismic),
          .range = symmetric_range(map, options_.clip_or(flat_ ? 99.8 : 99))};
}

MapPanel EtalonFigure::panel(const float* map) const {
  std::vector<float> values = kept(map);
  const ColorScale scale = scale_of(values);
  return {.label = {}, .colors = scale, .draw = [figure = *this, values = std::move(values)](const ColorScale& s) {
            return figure.picture(values, s);
          }};
}

ColorScale EtalonFigure::shared_scale() const {
  ColorScale all = scale_of({});
  float most = 0;
  for (const Row& row : rows_)
    for (const std::vector<float>& map : row.maps)
      if (const Range range = value_range(map); range.lo < 0 || range.hi > 0)
        most = std::max(most, scale_of(map).range.hi);
  if (most > 0) all.range = {-most, most};
  return all;
}

Json EtalonFigure::colors() const {
  const ColorScale shared = shared_scale();
  if (own()) return {{"map", name_of(shared)}, {"scale", "own"}};
  return colors_json(name_of(shared), shared.range);
}

Image EtalonFigure::picture(const std::vector<float>& map, const ColorScale& scale) const {
  const int h = int(image_.h), w = int(image_.w);
  if (flat_) return heatmap(map.data(), h, w, scale.map, scale.range);
  return signed_rgb_in(map.data(), 3, h, w, order_, scale.range);
}

int EtalonFigure::side(bool single) const {
  const int longer = int(std::max(image_.h, image_.w)), wanted = single ? kLarge : kSmall;
  if (longer > wanted && !single) return rows_.size() * size_t(columns_) > 60 ? 112 : std::min(longer, 224);
  return longer * std::max(1, (wanted + longer / 2) / longer);  // small images by whole factors
}

Canvas EtalonFigure::draw(GridOptions words, const std::vector<std::string>& headings) const {
  std::vector<const Row*> rows;
  for (const Row& row : rows_) rows.push_back(&row);
  std::stable_sort(rows.begin(), rows.end(), [](const Row* a, const Row* b) { return a->order < b->order; });
  const ColorScale shared = shared_scale();
  const auto panel = [&](const Row& row, size_t p, const std::string& label) {
    const ColorScale scale = own() ? scale_of(row.maps[p]) : shared;
    Panel out{picture(row.maps[p], scale), label};
    if (own() && !options_.plain) out.colors = scale;
    return out;
  };
  const bool single = rows_.size() == 1 && columns_ == 1;
  words.panel_side = side(single);
  if (options_.plain) {
    std::vector<Panel> panels;
    for (const Row* row : rows)
      for (size_t p = 0; p < row->maps.size(); ++p) panels.push_back(panel(*row, p, ""));
    return grid(panels, {.columns = options_.columns > 0 ? options_.columns
                                    : rows_.size() > 1   ? int(columns_)
                                                         : 0,
                         .panel_side = words.panel_side});
  }
  if (!own()) words.colors = shared;
  // One input: its etalons have their names below them.
  if (rows_.size() == 1 && (single || columns_ > kMostInARow || options_.columns > 0)) {
    const Row& row = *rows[0];
    std::vector<Panel> panels = {{row.input, row.label}};
    for (size_t p = 0; p < row.maps.size(); ++p) panels.push_back(panel(row, p, headings[p] + "\n" + row.captions[p]));
    words.columns = single ? 2 : options_.columns;
    return grid(panels, words);
  }
  std::vector<SheetRow> sheet;
  std::vector<std::string> columns = {"input"};
  columns.insert(columns.end(), headings.begin(), headings.begin() + columns_);
  for (const Row* row : rows) {
    SheetRow& line = sheet.emplace_back();
    line.label = row->label;
    line.panels.push_back({row->input, ""});
    for (size_t p = 0; p < row->maps.size(); ++p) line.panels.push_back(panel(*row, p, row->captions[p]));
  }
  return contact_sheet(sheet, columns, words);
}

}  // namespace switchback
