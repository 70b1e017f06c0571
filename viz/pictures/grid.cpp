#include "viz/pictures/grid.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "viz/pictures/render.h"
#include "viz/pictures/text.h"

namespace switchback {
namespace {

constexpr Rgb kFrame = {200, 200, 200};
constexpr int kCaptionSpace = 5;          // between a picture and its caption
constexpr int kWidestRowLabel = 200;      // pixels, times the text scale
constexpr int kMinCaptionCharacters = 4;  // narrower panels go without captions
constexpr double kAspect = 4.0 / 3;       // wanted width / height of the whole

// Where everything goes; pixels.
struct Layout {
  int side, columns, rows;
  int cell_width, cell_height;  // the largest scaled picture
  int gap, scale;
  int caption_height, row_label_width, heading_height, title_height, title_scale;
  int left, top;  // of the first picture
  int width, height;

  int x(int column) const { return left + column * (cell_width + gap); }
  int y(int row) const { return top + row * (cell_height + caption_height + gap); }
};

int line_count(const std::string& text) { return 1 + int(std::count(text.begin(), text.end(), '\n')); }

int text_height(int lines, int scale) { return ((lines - 1) * kLineHeight + kGlyphHeight) * scale; }

int longer_side(const Image& picture) { return std::max(picture.width, picture.height); }

int scaled(int length, int longer, int side) {
  return std::max(1, int(std::lround(double(length) * side / std::max(longer, 1))));
}

// Small pictures are enlarged by whole factors to a size worth looking at, which is smaller the more there are.
int natural_side(int longest, size_t panels) {
  const int wanted = panels <= 16 ? 160 : panels <= 64 ? 112 : 72;
  if (longest < wanted) return longest * std::max(1, (wanted + longest / 2) / longest);
  return std::min(longest, panels <= 16 ? 400 : panels <= 64 ? 256 : 128);
}

// The parts that depend on the panels' size but not on the number of columns.
Layout sized_layout(std::span<const Panel> panels, const GridOptions& options, int side) {
  Layout l{};
  l.side = side;
  l.scale = options.text_scale > 0 ? options.text_scale : side >= 360 ? 2 : 1;
  l.gap = side >= 24 ? options.gap : std::min(options.gap, 1);
  int caption_lines = 0;
  for (const Panel& panel : panels) {
    const int longer = longer_side(panel.picture);
    l.cell_width = std::max(l.cell_width, scaled(panel.picture.width, longer, side));
    l.cell_height = std::max(l.cell_height, scaled(panel.picture.height, longer, side));
    if (!panel.label.empty()) caption_lines = std::max(caption_lines, line_count(panel.label));
  }
  const bool readable = l.cell_width >= kMinCaptionCharacters * kGlyphWidth * l.scale;
  if (caption_lines > 0 && readable) l.caption_height = kCaptionSpace + text_height(caption_lines, l.scale);
  if (!options.column_headings.empty() && readable) {
    int lines = 1;
    for (const std::string& heading : options.column_headings) lines = std::max(lines, line_count(heading));
    l.heading_height = text_height(lines, l.scale) + kCaptionSpace + 1;
  }
  if (l.cell_height + l.caption_height >= kGlyphHeight * l.scale) {
    for (const std::string& label : options.row_labels) {
      l.row_label_width = std::max(l.row_label_width, text_width(label, l.scale));
    }
    l.row_label_width = std::min(l.row_label_width, kWidestRowLabel * l.scale);
  }
  return l;
}

Layout with_columns(Layout l, size_t panels, const GridOptions& options, int columns) {
  l.columns = columns;
  l.rows = int((panels + columns - 1) / columns);
  const int margin = std::max(l.gap, 2);
  l.left = margin + (l.row_label_width > 0 ? l.row_label_width + l.gap : 0);
  l.width = l.left + columns * (l.cell_width + l.gap) - l.gap + margin;
  l.top = margin + l.heading_height;
  if (!options.title.empty()) {
    // A narrow grid is widened for its title, within reason, and stands in the middle.
    const int natural = text_width(options.title, 1) + 2 * margin;
    const int wider = std::max(l.width, std::min(natural, 480));
    l.left += (wider - l.width) / 2;
    l.width = wider;
    const int large = l.scale + 1;
    l.title_scale = text_width(options.title, large) + 2 * margin <= l.width ? large : l.scale;
    l.title_height = text_height(line_count(options.title), l.title_scale) + std::max(l.gap, 8);
    l.top += l.title_height;
  }
  l.height = l.top + l.rows * (l.cell_height + l.caption_height + l.gap) - l.gap + margin;
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
  for (int side = wanted; side >= 1; side--) {
    // Shrunk panels that still enlarge their pictures keep to whole factors.
    if (side != wanted && side > longest && side % longest != 0) continue;
    const Layout sized = sized_layout(panels, options, side);
    Layout best{};
    if (options.columns > 0) {
      best = with_columns(sized, panels.size(), options, std::min(options.columns, count));
    } else {
      // Near 4:3, hence near a square number of columns; more than three times that can not be the best.
      const double ratio =
          double(sized.cell_height + sized.caption_height + sized.gap) / (sized.cell_width + sized.gap);
      const int most = std::min(count, 4 + int(3 * std::sqrt(double(count) * kAspect * ratio)));
      for (int columns = 1; columns <= most; columns++) {
        const Layout l = with_columns(sized, panels.size(), options, columns);
        if (columns == 1 || badness(l, panels.size()) < badness(best, panels.size())) best = l;
      }
    }
    if (best.width <= kMaxPictureSide && best.height <= kMaxPictureSide) return best;
  }
  throw Error(fmt::format("{} panels do not fit into a picture of {} pixels a side", panels.size(), kMaxPictureSide),
              "choose fewer inputs, filters or channels");
}

// Lines of text, each shortened to `width` and centred in it (right = 1: flush right, left = 0: flush left).
void draw_lines(Image& image, int x, int y, int width, const std::string& text, Rgb ink, int scale, double right) {
  for (size_t start = 0; start <= text.size(); y += kLineHeight * scale) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string line = fitted_text(std::string_view(text).substr(start, end - start), width, scale);
    draw_text(image, x + int((width - text_width(line, scale) + 2 * scale) * right), y, line, ink, scale);
    start = end + 1;
  }
}

void draw_panel(Image& image, const Layout& l, const GridOptions& options, const Panel& panel, int x, int y) {
  if (panel.picture.width > 0 && panel.picture.height > 0) {
    const int longer = longer_side(panel.picture);
    const Image picture = resized(panel.picture, scaled(panel.picture.width, longer, l.side),
                                  scaled(panel.picture.height, longer, l.side));
    const int px = x + (l.cell_width - picture.width) / 2, py = y + (l.cell_height - picture.height) / 2;
    if (options.frames && l.gap >= 3) {
      fill_rectangle(image, px - 1, py - 1, picture.width + 2, picture.height + 2, kFrame);
    }
    paste(image, picture, px, py);
  }
  if (l.caption_height > 0 && !panel.label.empty()) {
    draw_lines(image, x, y + l.cell_height + kCaptionSpace, l.cell_width, panel.label, options.ink, l.scale, 0.5);
  }
}

}  // namespace

Image grid(std::span<const Panel> panels, GridOptions options) {
  CHECK(!panels.empty(), "a grid needs at least one panel");
  CHECK(options.columns >= 0 && options.panel_side >= 0 && options.gap >= 0 && options.text_scale >= 0,
        "grid options are negative: columns {}, panel side {}, gap {}, text scale {}", options.columns,
        options.panel_side, options.gap, options.text_scale);
  int longest = 1;
  for (const Panel& panel : panels) longest = std::max(longest, longer_side(panel.picture));
  const Layout l = choose_layout(panels, options, longest);

  Image image = blank_image(l.width, l.height, options.background);
  const int margin = std::max(l.gap, 2);
  if (l.title_height > 0) {
    draw_lines(image, margin, margin, l.width - 2 * margin, options.title, options.ink, l.title_scale, 0.5);
  }
  for (int column = 0; l.heading_height > 0 && column < l.columns; column++) {
    if (size_t(column) >= options.column_headings.size()) break;
    const std::string& heading = options.column_headings[column];
    const int y = l.top - kCaptionSpace - 1 - text_height(line_count(heading), l.scale);
    draw_lines(image, l.x(column), y, l.cell_width, heading, options.ink, l.scale, 0.5);
  }
  for (int row = 0; l.row_label_width > 0 && row < l.rows; row++) {
    if (size_t(row) >= options.row_labels.size()) break;
    const std::string& label = options.row_labels[row];
    const int y = l.y(row) + (l.cell_height - text_height(line_count(label), l.scale)) / 2;
    draw_lines(image, l.left - l.gap - l.row_label_width, y, l.row_label_width, label, options.ink, l.scale, 1.0);
  }
  for (size_t i = 0; i < panels.size(); i++) {
    draw_panel(image, l, options, panels[i], l.x(int(i) % l.columns), l.y(int(i) / l.columns));
  }
  return image;
}

Image contact_sheet(std::span<const SheetRow> rows, std::vector<std::string> column_headings, GridOptions options) {
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

Image side_by_side(std::span<const Image> pictures, int gap, Rgb background) {
  CHECK(!pictures.empty() && gap >= 0, "cannot set {} pictures side by side with a gap of {}", pictures.size(), gap);
  int width = gap * int(pictures.size() - 1), height = 0;
  for (const Image& picture : pictures) {
    width += picture.width;
    height = std::max(height, picture.height);
  }
  Image out = blank_image(width, height, background);
  int x = 0;
  for (const Image& picture : pictures) {
    paste(out, to_rgb(picture), x, (height - picture.height) / 2);
    x += picture.width + gap;
  }
  return out;
}

Image one_below_other(std::span<const Image> pictures, int gap, Rgb background) {
  CHECK(!pictures.empty() && gap >= 0, "cannot set {} pictures one below the other with a gap of {}", pictures.size(),
        gap);
  int width = 0, height = gap * int(pictures.size() - 1);
  for (const Image& picture : pictures) {
    width = std::max(width, picture.width);
    height += picture.height;
  }
  Image out = blank_image(width, height, background);
  int y = 0;
  for (const Image& picture : pictures) {
    paste(out, to_rgb(picture), 0, y);
    y += picture.height + gap;
  }
  return out;
}

}  // namespace switchback
