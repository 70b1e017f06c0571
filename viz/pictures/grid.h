// Pictures made of pictures: labelled grids, contact sheets, filter grids, and bar and line charts to stand beside them.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/files/image.h"
#include "engine/tensor.h"
#include "viz/pictures/canvas.h"
#include "viz/pictures/color_scale.h"
#include "viz/pictures/colormap.h"

namespace switchback {

inline constexpr int kMaxPictureSide = 6000;  // pixels; grids shrink their panels to stay within

struct Panel {
  Canvas picture;                         // an empty one (0 x 0) leaves its place blank
  std::string label;                      // below it; wraps, in at most kMostCaptionLines
  std::optional<ColorScale> colors = {};  // a bar between the two
};
inline constexpr int kMostCaptionLines = 5;

struct GridOptions {
  int columns = 0;     // 0: chosen so that the whole is near 4:3
  int group = 1;       // chosen columns are a multiple of it
  int panel_side = 0;  // longer side of every picture, in pixels; 0: chosen from the pictures' own size and number
  int gap = 10;        // between panels, and around the grid
  bool frames = true;  // a thin grey line around each picture, so that white maps do not melt into the page
  std::string title = {};                         // all text wraps
  std::string subtitle = {};                      // smaller, below the title
  std::string note = {};                          // smaller, below the panels: what the picture leaves out
  std::optional<ColorScale> colors = {};          // one bar for all, below the panels
  std::vector<std::string> row_labels = {};       // left of the rows; fewer than rows is fine
  std::vector<std::string> column_headings = {};  // above the columns
};

// Row by row. All pictures are scaled to the same longer side; captions and bars are left out where panels get too
// narrow for four characters. Throws if even panels of one pixel would exceed kMaxPictureSide.
Canvas grid(std::span<const Panel> panels, GridOptions options = {});

// One row per input, one column per method.
struct SheetRow {
  std::string label;
  std::vector<Panel> panels;  // rows may differ in length
};
Canvas contact_sheet(std::span<const SheetRow> rows, std::vector<std::string> column_headings,
                     GridOptions options = {});

// Weights [O,I,kh,kw], zero = mid-grey (or white in seismic). I == 3: filters as colour pictures, I == 1: as grey ones,
// labelled with their number; deeper layers, or when channels are chosen: a row per filter, a column per channel. A
// note below the grid says what is left out unasked.
struct FilterGridOptions {
  std::vector<int> filters = {};        // empty: all of a first layer, the first 12 of a deeper one
  std::vector<int> channels = {};       // empty: RGB / the one channel of a first layer, the first 16 of a deeper one
  ChannelOrder order = ChannelOrder::rgb;  // of the channels where I == 3
  bool shared_scale = false;            // one scale for all that is shown; else each filter picture has its own
  ColorMap color_map = ColorMap::grey;  // of single channels
  GridOptions grid = {};
};
// "12 of 64 filters and 16 of 32 channels; --filters all --channels all shows all", "" where nothing is left out.
std::string left_out_filters(const Tensor& weights, const FilterGridOptions& options);
Canvas filter_grid(const Tensor& weights, FilterGridOptions options = {});

// Horizontal bars with their values, for class probabilities (percent = true: a full bar is 1) or any other values
// (the largest fills the width; negative ones go left from a common zero).
struct BarOptions {
  std::string title = {};
  int width = 560;  // of the whole chart, pixels
  bool percent = true;
  Rgb bar = {49, 104, 142};
  std::vector<int> marked = {};  // bars in another colour
  Rgb mark = {222, 110, 30};
};
Canvas bar_chart(std::span<const std::string> labels, std::span<const float> values, const BarOptions& options = {});

// Values over an ordered set of places (layers, epochs), one line a series, with a legend on the right. Series of the
// same values share a line and an entry of the legend.
struct Series {
  std::string name;
  std::vector<double> values;  // [places]; one that is not finite leaves a gap
  Rgb color = {49, 104, 142};
  bool bold = false;
};
struct LineOptions {
  std::string title = {};
  int width = 720, height = 360;  // of the whole chart, pixels; a long legend makes it higher
  double least = 0, most = 0;     // what the vertical axis holds at least
};
Canvas line_chart(std::span<const std::string> places, std::span<const Series> series, const LineOptions& options = {});

// Upright bars in their order, with a scale: for the many channels of a layer. Bars are whole pixels wide and have no
// names of their own; the plot is as wide as they need, at least `width`. Of more than 2000 values, neighbours share a
// bar, which shows the one furthest from 0.
struct ColumnOptions {
  std::string title = {};
  int width = 512, height = 160;  // of the plot alone, pixels
  Range range = {0, 0};           // of the scale, which always holds 0; {0,0}: the values' own
  std::vector<int64_t> marked = {};  // bars in another colour
  Rgb bar = {49, 104, 142};
  Rgb mark = {222, 110, 30};
};
Canvas column_chart(std::span<const float> values, const ColumnOptions& options = {});

// A square table, row by row, as colours, with its numbers where cells are wide enough; what is not finite stays grey.
struct MatrixOptions {
  std::string title = {};
  ColorMap map = ColorMap::red_blue;
  Range range = {-1, 1};
};
Canvas matrix_chart(std::span<const std::string> names, std::span<const double> values,
                    const MatrixOptions& options = {});

// Points on a plane, y upwards, on one scale for both axes, which have no meaning of their own. places [n,2].
struct ScatterOptions {
  int side = 420;  // of the whole chart, pixels
  // Where given: the picture of point i is drawn in a frame of its colour, of the points that leave each other room.
  std::function<Image(int64_t i)> thumbnail = {};
  int thumbnail_side = 22;
};
Canvas scatter_chart(std::span<const float> places, std::span<const Rgb> colors, const ScatterOptions& options = {});
// Colours of classes beside each other; from the 21st on they begin again.
inline constexpr size_t kSeriesColors = 20;
Rgb series_color(int64_t series);
// Their names behind discs of the colours, in as many rows as they take.
Canvas series_legend(std::span<const std::string> names, std::span<const Rgb> colors, int width);

// Pictures in one row, centred on each other's middle; in one column, from a common left edge.
Canvas side_by_side(std::span<const Canvas> pictures, int gap = 12);
Canvas one_below_other(std::span<const Canvas> pictures, int gap = 12);

}  // namespace switchback
