// Filter grids and bar charts (declared in viz/pictures/grid.h).
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "viz/pictures/grid.h"
#include "viz/pictures/render.h"
#include "viz/pictures/text.h"

namespace switchback {
namespace {

std::vector<int> first_indices(int64_t count, int64_t at_most) {
  std::vector<int> out(size_t(std::min(count, at_most)));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

void check_indices(const char* what, std::span<const int> chosen, int64_t count) {
  for (int i : chosen) {
    if (i < 0 || i >= count) {
      throw Error(fmt::format("{} {} does not exist: the layer has {}", what, i, count),
                  fmt::format("choose 0..{}", count - 1), true);
    }
  }
}

// One first-layer picture per filter, all input channels at once.
Image whole_filters(const Tensor& weights, const FilterGridOptions& options) {
  const int channels = int(weights.dim(1)), h = int(weights.dim(2)), w = int(weights.dim(3));
  const size_t size = size_t(channels) * h * w;
  float largest = 0;
  for (int f : options.filters) {
    largest = std::max(largest, symmetric_range({weights.data() + size_t(f) * size, size}).hi);
  }
  std::vector<Panel> panels;
  for (int f : options.filters) {
    const float* filter = weights.data() + size_t(f) * size;
    const Range range = options.shared_scale ? Range{-largest, largest} : symmetric_range({filter, size});
    Image picture = channels == 1 ? heatmap(filter, h, w, options.color_map, range)
                                  : signed_rgb_in(filter, channels, h, w, options.order, range);
    panels.push_back({std::move(picture), std::to_string(f)});
  }
  return grid(panels, options.grid);
}

// A row per filter, a column per channel. Each filter has one scale, so that its channels can be compared.
Image filter_channels(const Tensor& weights, const FilterGridOptions& options) {
  const int h = int(weights.dim(2)), w = int(weights.dim(3));
  const size_t plane = size_t(h) * w;
  auto slice = [&](int f, int c) { return weights.data() + (size_t(f) * weights.dim(1) + c) * plane; };
  float largest = 0;
  std::vector<float> own;  // per filter: the largest |weight| among the channels shown
  for (int f : options.filters) {
    std::vector<float> shown;
    for (int c : options.channels) shown.insert(shown.end(), slice(f, c), slice(f, c) + plane);
    own.push_back(symmetric_range(shown).hi);
    largest = std::max(largest, own.back());
  }
  std::vector<SheetRow> rows;
  std::vector<std::string> headings;
  for (int c : options.channels) headings.push_back(fmt::format("ch {}", c));
  for (size_t i = 0; i < options.filters.size(); i++) {
    const int f = options.filters[i];
    const float s = options.shared_scale ? largest : own[i];
    SheetRow row{fmt::format("filter {}", f), {}};
    for (int c : options.channels) row.panels.push_back({heatmap(slice(f, c), h, w, options.color_map, {-s, s}), ""});
    rows.push_back(std::move(row));
  }
  return contact_sheet(rows, headings, options.grid);
}

std::string value_text(float value, bool percent) {
  if (!std::isfinite(value)) return fmt::format("{}", value);
  if (!percent) return fmt::format("{:.4g}", value);
  return fmt::format("{:.{}f} %", value * 100, value >= 0.0995f ? 1 : 2);
}

}  // namespace

Image filter_grid(const Tensor& weights, FilterGridOptions options) {
  CHECK(weights.dims().size() == 4 && weights.count() > 0, "filters need weights [O,I,kh,kw], not {}",
        to_string(weights.dims()));
  const int64_t filters = weights.dim(0), channels = weights.dim(1);
  const bool whole = (channels == 1 || channels == 3) && options.channels.empty();
  if (options.filters.empty()) options.filters = first_indices(filters, whole ? filters : 12);
  if (options.channels.empty()) options.channels = first_indices(channels, 16);
  check_indices("filter", options.filters, filters);
  check_indices("channel", options.channels, channels);
  if (options.grid.panel_side == 0) {  // kernels of few pixels need not be as large as pictures
    const int longer = int(std::max(weights.dim(2), weights.dim(3)));
    const int wanted = whole && options.filters.size() <= 16 ? 112 : whole && options.filters.size() <= 40 ? 84 : 48;
    options.grid.panel_side = longer * std::max(1, (wanted + longer / 2) / longer);
  }
  return whole ? whole_filters(weights, options) : filter_channels(weights, options);
}

Image bar_chart(std::span<const std::string> labels, std::span<const float> values, const BarOptions& options) {
  CHECK(labels.size() == values.size() && !labels.empty(), "bar chart of {} labels and {} values", labels.size(),
        values.size());
  const int scale = options.text_scale, margin = 10 * scale, space = 8 * scale;
  const int bar_height = 16 * scale, pitch = 22 * scale, text_offset = (bar_height - 10 * scale) / 2;
  CHECK(scale >= 1 && options.width >= 160 * scale, "a bar chart of {} pixels is too narrow for text at scale {}",
        options.width, scale);
  int label_width = 0, value_width = 0;
  Range range{0, options.percent ? 1.0f : 0.0f};  // always holds zero
  for (size_t i = 0; i < labels.size(); i++) {
    label_width = std::max(label_width, text_width(labels[i], scale));
    value_width = std::max(value_width, text_width(value_text(values[i], options.percent), scale));
    if (!std::isfinite(values[i])) continue;
    range = {std::min(range.lo, values[i]), std::max(range.hi, values[i])};
  }
  label_width = std::min(label_width, options.width * 2 / 5);
  const int left = margin + label_width + space;
  const int bar_width = std::max(1, options.width - left - space - value_width - margin);
  const int top = options.title.empty() ? margin : margin + kGlyphHeight * scale + space;
  const int height = top + pitch * int(labels.size()) - (pitch - bar_height) + margin;
  CHECK(height <= kMaxPictureSide && options.width <= kMaxPictureSide, "a bar chart of {} x {} pixels is too large",
        options.width, height);

  Image image = blank_image(options.width, height, options.background);
  const std::string title = fitted_text(options.title, options.width - 2 * margin, scale);
  draw_text(image, margin, margin - scale, title, options.ink, scale);
  const int zero = left + int(std::lround(unit_position(0, range) * float(bar_width)));
  for (size_t i = 0; i < labels.size(); i++) {
    const int y = top + int(i) * pitch;
    const std::string label = fitted_text(labels[i], label_width, scale);
    draw_text(image, left - space - text_width(label, scale), y + text_offset, label, options.ink, scale);
    fill_rectangle(image, left, y, bar_width, bar_height, {240, 240, 240});
    if (std::isfinite(values[i])) {
      int end = left + int(std::lround(unit_position(values[i], range) * float(bar_width)));
      if (values[i] > 0) end = std::max(end, zero + 1);  // small but not nothing
      if (values[i] < 0) end = std::min(end, zero - 1);
      const bool marked = std::find(options.marked.begin(), options.marked.end(), int(i)) != options.marked.end();
      fill_rectangle(image, std::min(zero, end), y, std::abs(end - zero), bar_height,
                     marked ? options.mark : options.bar);
    }
    const std::string text = value_text(values[i], options.percent);
    draw_text(image, left + bar_width + space + value_width - text_width(text, scale), y + text_offset, text,
              options.ink, scale);
  }
  return image;
}

}  // namespace switchback
