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

constexpr int64_t kMostFilters = 12, kMostChannels = 16;  // of a deeper layer, unless more are asked for

// First layers: filters as pictures of their own.
bool shows_whole(const Tensor& weights, const FilterGridOptions& options) {
  return (weights.dim(1) == 1 || weights.dim(1) == 3) && options.channels.empty();
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
Canvas whole_filters(const Tensor& weights, const FilterGridOptions& options) {
  const int channels = int(weights.dim(1)), h = int(weights.dim(2)), w = int(weights.dim(3));
  const size_t size = size_t(channels) * h * w;
  float largest = 0;
  for (int f : options.filters) {
    largest = std::max(largest, symmetric_range({weights.data() + size_t(f) * size, size}).hi);
  }
  const auto scale = [&](Range range) {
    return channels == 1 ? ColorScale{.map = options.color_map, .range = range}
                         : ColorScale{.kind = ColorScale::Kind::channels, .range = range};
  };
  std::vector<Panel> panels;
  GridOptions layout = options.grid;
  if (options.shared_scale) layout.colors = scale({-largest, largest});
  for (int f : options.filters) {
    const float* filter = weights.data() + size_t(f) * size;
    const Range range = options.shared_scale ? Range{-largest, largest} : symmetric_range({filter, size});
    Image picture = channels == 1 ? heatmap(filter, h, w, options.color_map, range)
                                  : signed_rgb_in(filter, channels, h, w, options.order, range);
    const std::string own = options.shared_scale ? "" : fmt::format("\n±{}", short_number(range.hi));
    panels.push_back({std::move(picture), std::to_string(f) + own});
  }
  return grid(panels, layout);
}

// A row per filter, a column per channel. Each filter has one scale, so that its channels can be compared.
Canvas filter_channels(const Tensor& weights, const FilterGridOptions& options) {
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
    SheetRow row{fmt::format("filter {}{}", f, options.shared_scale ? "" : fmt::format("\n±{}", short_number(s))), {}};
    for (int c : options.channels) row.panels.push_back({heatmap(slice(f, c), h, w, options.color_map, {-s, s}), ""});
    rows.push_back(std::move(row));
  }
  GridOptions layout = options.grid;
  if (options.shared_scale) layout.colors = ColorScale{.map = options.color_map, .range = {-largest, largest}};
  return contact_sheet(rows, headings, layout);
}

std::string value_text(float value, bool percent) {
  if (!std::isfinite(value)) return fmt::format("{}", value);
  if (!percent) return fmt::format("{:.4g}", value);
  return fmt::format("{:.{}f} %", value * 100, value >= 0.0995f ? 1 : 2);
}

}  // namespace

std::string left_out_filters(const Tensor& weights, const FilterGridOptions& options) {
  const int64_t filters = weights.dim(0), channels = weights.dim(1);
  if (shows_whole(weights, options)) return "";
  std::vector<std::string> parts, flags;
  if (options.filters.empty() && filters > kMostFilters) {
    parts.push_back(fmt::format("the first {} of {} filters", kMostFilters, filters));
    flags.push_back("--filters all");
  }
  if (options.channels.empty() && channels > kMostChannels) {
    parts.push_back(fmt::format("the first {} of {} channels", kMostChannels, channels));
    flags.push_back("--channels all");
  }
  if (parts.empty()) return "";
  return fmt::format("{}; {} shows all", fmt::join(parts, " and "), fmt::join(flags, " "));
}

Canvas filter_grid(const Tensor& weights, FilterGridOptions options) {
  CHECK(weights.dims().size() == 4 && weights.count() > 0, "filters need weights [O,I,kh,kw], not {}",
        to_string(weights.dims()));
  const int64_t filters = weights.dim(0), channels = weights.dim(1);
  const bool whole = shows_whole(weights, options);
  options.grid.note = left_out_filters(weights, options);
  if (options.filters.empty()) options.filters = first_indices(filters, whole ? filters : kMostFilters);
  if (options.channels.empty()) options.channels = first_indices(channels, kMostChannels);
  check_indices("filter", options.filters, filters);
  check_indices("channel", options.channels, channels);
  if (options.grid.panel_side == 0) {  // kernels of few pixels need not be as large as pictures
    const int longer = int(std::max(weights.dim(2), weights.dim(3)));
    const int wanted = whole && options.filters.size() <= 16 ? 112 : whole && options.filters.size() <= 40 ? 84 : 48;
    options.grid.panel_side = longer * std::max(1, (wanted + longer / 2) / longer);
  }
  return whole ? whole_filters(weights, options) : filter_channels(weights, options);
}

Canvas bar_chart(std::span<const std::string> labels, std::span<const float> values, const BarOptions& options) {
  CHECK(labels.size() == values.size() && !labels.empty(), "bar chart of {} labels and {} values", labels.size(),
        values.size());
  constexpr int kMargin = 10, kSpace = 8, kBar = 16, kGap = 6;
  CHECK(options.width >= 160, "a bar chart of {} pixels is too narrow for its text", options.width);
  int widest = 0, value_width = 0;
  Range range{0, options.percent ? 1.0f : 0.0f};  // always holds zero
  for (size_t i = 0; i < labels.size(); i++) {
    widest = std::max(widest, text_width(labels[i]));
    value_width = std::max(value_width, text_width(value_text(values[i], options.percent)));
    if (!std::isfinite(values[i])) continue;
    range = {std::min(range.lo, values[i]), std::max(range.hi, values[i])};
  }
  const int label_width = std::min(widest, options.width * 2 / 5);
  const int left = kMargin + label_width + kSpace;
  const int bar_width = std::max(1, options.width - left - kSpace - value_width - kMargin);
  const std::string title = wrapped_text(options.title, options.width - 2 * kMargin);
  const int top = title.empty() ? kMargin : kMargin + text_height(title) + kSpace;
  std::vector<std::string> names;  // long ones wrap, and make their rows taller
  std::vector<int> y;
  int height = top;
  for (const std::string& label : labels) {
    names.push_back(wrapped_text(label, label_width, kTextSize, 3));
    y.push_back(height);
    height += std::max(kBar, text_height(names.back())) + kGap;
  }
  height += kMargin - kGap;
  CHECK(height <= kMaxPictureSide && options.width <= kMaxPictureSide, "a bar chart of {} x {} pixels is too large",
        options.width, height);

  Canvas canvas(options.width, height);
  canvas.text(kMargin, kMargin, title);
  const int zero = left + int(std::lround(unit_position(0, range) * float(bar_width)));
  for (size_t i = 0; i < labels.size(); i++) {
    const double middle = y[i] + (std::max(kBar, text_height(names[i])) - kBar) / 2;
    const double text_top = middle + (kBar - text_height("")) / 2;
    canvas.text(left - kSpace, y[i] + (names[i].find('\n') == std::string::npos ? (kBar - text_height("")) / 2 : 0),
                names[i], kInk, kTextSize, 1);
    canvas.rectangle(left, middle, bar_width, kBar, {240, 240, 240});
    if (std::isfinite(values[i])) {
      int end = left + int(std::lround(unit_position(values[i], range) * float(bar_width)));
      if (values[i] > 0) end = std::max(end, zero + 1);  // small but not nothing
      if (values[i] < 0) end = std::min(end, zero - 1);
      const bool marked = std::find(options.marked.begin(), options.marked.end(), int(i)) != options.marked.end();
      canvas.rectangle(std::min(zero, end), middle, std::abs(end - zero), kBar, marked ? options.mark : options.bar);
    }
    canvas.text(left + bar_width + kSpace + value_width, text_top, value_text(values[i], options.percent), kInk,
                kTextSize, 1);
  }
  return canvas;
}

}  // namespace switchback
