#include "viz/pictures/grid.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr Rgb kFrame = {200, 200, 200};
constexpr int kCaptionSpace = 4;       // between a picture and what stands below it
constexpr int kWidestRowLabel = 200;   // pixels
constexpr int kNarrowestCaption = 28;  // pixels; narrower panels go without captions
constexpr int kWidestBar = 320;        // of the bar below all
constexpr double kAspect = 4.0 / 3;    // wanted width / height of the whole

// Where everything goes; pixels.
struct Layout {
  int side, columns, rows;
  int cell_width, cell_height;  // the largest scaled picture
  int gap;
  int bar_height, caption_height, row_label_width, heading_height;  // with the space before them
  int below;                                                        // a row's pictures: the most of any panel
  int left, top;                                                    // of the first picture
  int foot;                                                         // where the bar and the note below all begin
  int width, height;

  int x(int column) const { return left + column * (cell_width + gap); }
  int y(int row) const { return top + row * (cell_height + below + gap); }
};

int longer_side(const Canvas& picture) { return int(std::ceil(std::max(picture.width(), picture.height()))); }

int scaled(double length, int longer, int side) {
  return std::max(1, int(std::lround(length * side / std::max(longer, 1))));
}

std::string caption_text(const std::string& label, int width) {
  return wrapped_text(label, width, kTextSize, kMostCaptionLines);
}
// The height of a caption. Most fit into one line, which is found out at once.
int caption_height(const std::string& label, int natural_width, int width) {
  return text_height(natural_width <= width ? label : caption_text(label, width));
}
std::string row_label_text(const std::string& label) { return wrapped_text(label, kWidestRowLabel); }

// Small pictures are enlarged by whole factors to a size worth looking at, which is smaller the more there are.
int natural_side(int longest, size_t panels) {
  const int wanted = panels <= 16 ? 160 : panels <= 64 ? 112 : 72;
  if (longest < wanted) return longest * std::max(1, (wanted + longest / 2) / longest);
  return std::min(longest, panels <= 16 ? 400 : panels <= 64 ? 256 : 128);
}

// The parts that depend on the panels' size but not on the number of columns.
Layout sized_layout(std::span<const Panel> panels, std::span<const int> label_widths, const GridOptions& options,
                    int side) {
  Layout l{};
  l.side = side;
  l.gap = side >= 24 ? options.gap : std::min(options.gap, 1);
  for (const Panel& panel : panels) {
    const int longer = longer_side(panel.picture);
    l.cell_width = std::max(l.cell_width, scaled(panel.picture.width(), longer, side));
    l.cell_height = std::max(l.cell_height, scaled(panel.picture.height(), longer, side));
  }
  if (l.cell_width >= kNarrowestCaption) {
    int caption = 0, heading = 0;
    for (size_t i = 0; i < panels.size(); i++) {
      const Panel& panel = panels[i];
      if (!panel.label.empty())
        caption = std::max(caption, caption_height(panel.label, label_widths[i], l.cell_width));
      if (panel.colors)
        l.bar_height = std::max(l.bar_height, kCaptionSpace + 1 + color_bar_height(*panel.colors, l.cell_width));
    }
    if (caption > 0) l.caption_height = kCaptionSpace + caption;
    for (const Panel& panel : panels)
      l.below = std::max(l.below, (panel.colors ? l.bar_height : 0) + (panel.label.empty() ? 0 : l.caption_height));
    for (const std::string& text : options.column_headings)
      heading = std::max(heading, text_height(caption_text(text, l.cell_width)));
    if (heading > 0) l.heading_height = heading + kCaptionSpace + 1;
  }
  if (l.cell_height + l.below >= text_height(""))
    for (const std::string& label : options.row_labels)
      l.row_label_width = std::max(l.row_label_width, text_width(row_label_text(label)));
  return l;
}

int title_height(const std::string& title, const std::string& subtitle, int width, int gap) {
  int height = 0;
  if (!title.empty()) height += text_height(wrapped_text(title, width, kTitleSize), kTitleSize);
  if (!subtitle.empty()) height += 2 + text_height(wrapped_text(subtitle, width));
  return height > 0 ? height + std::max(gap, 8) : 0;
}

int bar_width(int width) { return std::min(width, kWidestBar); }

Layout with_columns(Layout l, size_t panels, const GridOptions& options, int columns) {
  l.columns = columns;
  l.rows = int((panels + size_t(columns) - 1) / size_t(columns));
  const int margin = std::max(l.gap, 2);
  l.left = margin + (l.row_label_width > 0 ? l.row_label_width + l.gap : 0);
  l.width = l.left + columns * (l.cell_width + l.gap) - l.gap + margin;
  // A narrow grid is widened for its title, within reason, and stands in the middle.
  int natural = std::max(text_width(options.title, kTitleSize), text_width(options.subtitle));
  natural = std::max(natural, options.colors ? 160 : 0);
  if (const int wider = std::max(l.width, std::min(natural + 2 * margin, 480)); wider > l.width) {
    l.left += (wider - l.width) / 2;
    l.width = wider;
  }
  const int room = l.width - 2 * margin;
  l.top = margin + title_height(options.title, options.subtitle, room, l.gap) + l.heading_height;
  l.foot = l.height = l.top + l.rows * (l.cell_height + l.below + l.gap) - l.gap;
  if (options.colors) l.height += std::max(l.gap, 8) + color_bar_height(*options.colors, bar_width(room));
  if (!options.note.empty()) l.height += std::max(l.gap, 8) + text_height(wrapped_text(options.note, room));
  l.height += margin;
  return l;
}

// How far a layout is from the wanted one: the ratio of the sides, and the places left empty.
double badness(const Layout& l, size_t panels) {
  const double empty = 1 - double(panels) / (double(l.columns) * l.rows);
  return std::fabs(std::log(double(l.width) / l.height / kAspect)) + 2 * empty;
}

Layout choose_layout(std::span<const Panel> panels, const GridOptions& options, int longest) {
  const int wanted = options.panel_side > 0 ? options.panel_side : natural_side(longest, panels.size());
  const int count = int(panels.size());
  std::vector<int> label_widths;
  for (const Panel& panel : panels) label_widths.push_back(text_width(panel.label));
  for (int side = wanted; side >= 1; side--) {
    // Shrunk panels that still enlarge their pictures keep to whole factors.
    if (side != wanted && side > longest && side % longest != 0) continue;
    const Layout sized = sized_layout(panels, label_widths, options, side);
    Layout best{};
    if (options.columns > 0) {
      best = with_columns(sized, panels.size(), options, std::min(options.columns, count));
    } else {
      // Near 4:3, hence near a square number of columns; more than three times that can not be the best.
      const double ratio = double(sized.cell_height + sized.below + sized.gap) / (sized.cell_width + sized.gap);
      const int group = std::min(options.group, count);
      const int most = std::min(count, 4 + group + int(3 * std::sqrt(double(count) * kAspect * ratio)));
      for (int columns = group; columns <= most; columns += group) {
        const Layout l = with_columns(sized, panels.size(), options, columns);
        if (columns == group || badness(l, panels.size()) < badness(best, panels.size())) best = l;
      }
    }
    if (best.width <= kMaxPictureSide && best.height <= kMaxPictureSide) return best;
  }
  throw Error(fmt::format("{} panels do not fit into a picture of {} pixels a side", panels.size(), kMaxPictureSide),
              "choose fewer inputs, filters or channels");
}

void draw_panel(Canvas& canvas, const Layout& l, const GridOptions& options, const Panel& panel, int x, int y) {
  if (!panel.picture.empty()) {
    const int longer = longer_side(panel.picture);
    const int width = scaled(panel.picture.width(), longer, l.side),
              height = scaled(panel.picture.height(), longer, l.side);
    const int px = x + (l.cell_width - width) / 2, py = y + (l.cell_height - height) / 2;
    if (options.frames && l.gap >= 3) canvas.rectangle(px - 1, py - 1, width + 2, height + 2, kFrame);
    if (const auto alone = panel.picture.picture())
      canvas.image(alone, px, py, width, height);
    else
      canvas.place(panel.picture, px, py, double(width) / panel.picture.width());
  }
  y += l.cell_height;
  if (panel.colors && l.bar_height > 0) canvas.place(color_bar(*panel.colors, l.cell_width), x, y + kCaptionSpace + 1);
  if (l.caption_height > 0)
    canvas.text(x + l.cell_width / 2.0, y + (panel.colors ? l.bar_height : 0) + kCaptionSpace,
                caption_text(panel.label, l.cell_width), kInk, kTextSize, 0.5);
}

void draw_title(Canvas& canvas, const GridOptions& options, int margin) {
  const int room = int(canvas.width()) - 2 * margin;
  const std::string title = wrapped_text(options.title, room, kTitleSize);
  canvas.text(canvas.width() / 2, margin, title, kInk, kTitleSize, 0.5);
  const int y = margin + (title.empty() ? 0 : text_height(title, kTitleSize) + 2);
  canvas.text(canvas.width() / 2, y, wrapped_text(options.subtitle, room), kFaintInk, kTextSize, 0.5);
}

void draw_foot(Canvas& canvas, const Layout& l, const GridOptions& options, int margin) {
  const int room = l.width - 2 * margin, space = std::max(l.gap, 8);
  int y = l.foot + space;
  if (options.colors) {
    const Canvas bar = color_bar(*options.colors, bar_width(room));
    canvas.place(bar, (l.width - bar.width()) / 2, y);
    y += int(bar.height()) + space;
  }
  canvas.text(l.width / 2.0, y, wrapped_text(options.note, room), kFaintInk, kTextSize, 0.5);
}

}  // namespace

Canvas grid(std::span<const Panel> panels, GridOptions options) {
  CHECK(!panels.empty(), "a grid needs at least one panel");
  CHECK(options.columns >= 0 && options.panel_side >= 0 && options.gap >= 0 && options.group >= 1,
        "grid options are negative: columns {}, panel side {}, gap {}, group {}", options.columns, options.panel_side,
        options.gap, options.group);
  int longest = 1;
  for (const Panel& panel : panels) longest = std::max(longest, longer_side(panel.picture));
  const Layout l = choose_layout(panels, options, longest);

  Canvas canvas(l.width, l.height);
  const int margin = std::max(l.gap, 2);
  draw_title(canvas, options, margin);
  for (int column = 0; l.heading_height > 0 && column < l.columns; column++) {
    if (size_t(column) >= options.column_headings.size()) break;
    const std::string heading = caption_text(options.column_headings[size_t(column)], l.cell_width);
    canvas.text(l.x(column) + l.cell_width / 2.0, l.top - kCaptionSpace - 1 - text_height(heading), heading, kInk,
                kTextSize, 0.5);
  }
  for (int row = 0; l.row_label_width > 0 && row < l.rows; row++) {
    if (size_t(row) >= options.row_labels.size()) break;
    const std::string label = row_label_text(options.row_labels[size_t(row)]);
    canvas.text(l.left - l.gap, l.y(row) + (l.cell_height - text_height(label)) / 2, label, kInk, kTextSize, 1);
  }
  for (size_t i = 0; i < panels.size(); i++) {
    draw_panel(canvas, l, options, panels[i], l.x(int(i) % l.columns), l.y(int(i) / l.columns));
  }
  draw_foot(canvas, l, options, margin);
  return canvas;
}

Canvas contact_sheet(std::span<const SheetRow> rows, std::vector<std::string> column_headings, GridOptions options) {
  CHECK(!rows.empty(), "a contact sheet needs at least one row");
  size_t columns = column_headings.size();
  for (const SheetRow& row : rows) columns = std::max(columns, row.panels.size());
  CHECK(columns > 0, "a contact sheet needs at least one column");
  std::vector<Panel> panels(rows.size() * columns);
  options.row_labels.clear();
  for (size_t r = 0; r < rows.size(); r++) {
    std::copy(rows[r].panels.begin(), rows[r].panels.end(), panels.begin() + int64_t(r * columns));
    options.row_labels.push_back(rows[r].label);
  }
  options.column_headings = std::move(column_headings);
  options.columns = int(columns);
  return grid(panels, std::move(options));
}

Canvas side_by_side(std::span<const Canvas> pictures, int gap) {
  CHECK(!pictures.empty() && gap >= 0, "cannot set {} pictures side by side with a gap of {}", pictures.size(), gap);
  double width = gap * double(pictures.size() - 1), height = 0;
  for (const Canvas& picture : pictures) {
    width += picture.width();
    height = std::max(height, picture.height());
  }
  Canvas out(width, height);
  double x = 0;
  for (const Canvas& picture : pictures) {
    out.place(picture, x, std::floor((height - picture.height()) / 2));
    x += picture.width() + gap;
  }
  return out;
}

Canvas one_below_other(std::span<const Canvas> pictures, int gap) {
  CHECK(!pictures.empty() && gap >= 0, "cannot set {} pictures one below the other with a gap of {}", pictures.size(),
        gap);
  double width = 0, height = gap * double(pictures.size() - 1);
  for (const Canvas& picture : pictures) {
    width = std::max(width, picture.width());
    height += picture.height();
  }
  Canvas out(width, height);
  double y = 0;
  for (const Canvas& picture : pictures) {
    out.place(picture, 0, y);
    y += picture.height() + gap;
  }
  return out;
}

}  // namespace switchback
