// The picture of an active subgraph (declared in viz/methods/subgraph.h): a column for each layer, its vertices from top to
// bottom, in lanes side by side where there are many.
#include <algorithm>
#include <cmath>

#include "viz/methods/subgraph.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr int kLine = 15, kTextHeight = 13;                                     // pixels: from line to line; of one
constexpr int kTop = 96, kBottom = 96, kLeft = 60, kRight = 130, kGap = 180;    // pixels
constexpr int kVertexStep = 60, kLeastRoom = 240, kMostRoom = 750;               // room: of the columns, downwards
constexpr size_t kMostLines = 200;       // between two columns: the strongest
constexpr size_t kFewVertices = 30;      // up to here their values are written, too
constexpr size_t kMostNames = 14;        // in columns of several lanes: the strongest
constexpr int kMostLanes = 4, kLaneGap = 6;
constexpr Rgb kFaint = {150, 150, 150}, kFrozen = {205, 205, 205};

Rgb sign_color(double v) { return v >= 0 ? Rgb{176, 16, 24} : Rgb{24, 48, 176}; }

// Where the vertices of one layer stand.
struct Column {
  int left = 0;       // of the first lane
  int lanes = 1;      // vertex i stands in lane i % lanes
  double step = 0;    // downwards from one vertex to the next
  int tile = 0;       // side of a map's picture; 0: discs
  double radius = 0;  // of a disc
  bool alone = false;  // only one vertex is drawn, in the middle
  int side() const { return tile ? tile : int(std::ceil(2 * radius)); }
  int width() const { return lanes * side() + (lanes - 1) * kLaneGap; }
  Point middle(size_t vertex) const {
    const size_t place = alone ? 0 : vertex;
    return {left + side() / 2.0 + double(place % size_t(lanes)) * (side() + kLaneGap), kTop + step * (double(place) + 0.5)};
  }
};

// As many lanes as make tiles of 26 pixels or discs of 10 fit above each other. room: pixels downwards; last: the unit's
// own layer.
Column column_of(const SubgraphLayer& layer, int left, int room, bool last) {
  const bool maps = layer.height * layer.width > 1, alone = last && (maps || layer.vertices.size() > kFewVertices);
  const size_t shown = alone ? 1 : layer.vertices.size();
  Column c{.left = left, .step = double(room) / double(shown), .alone = alone};
  const auto lanes_for = [&](double pixels) { return std::clamp(int(std::ceil(pixels / c.step)), 1, kMostLanes); };
  c.lanes = lanes_for(maps ? 30 : 11);
  if (maps && c.step * c.lanes >= 10)
    c.tile = int(std::min(0.86 * c.step * c.lanes, shown <= 3 ? 140.0 : 56.0));
  else
    c.lanes = lanes_for(11);
  c.radius = std::clamp(0.44 * c.step * c.lanes, 1.2, 11.0);
  return c;
}

double largest_contribution(const SubgraphLayer& layer) {
  double most = 0;
  for (const auto& v : layer.vertices) most = std::max(most, std::abs(v.contribution));
  return most;
}

Canvas tile_picture(const SubgraphLayer& layer, const SubgraphLayer::Vertex& v, int side) {
  const auto [low, high] = std::minmax_element(v.map.begin(), v.map.end());
  Image picture = heatmap(v.map.data(), int(layer.height), int(layer.width), ColorMap::grey, {*low, *high});
  const double scale = double(side) / double(std::max(layer.height, layer.width));
  const int width = std::max(1, int(double(layer.width) * scale)),
            height = std::max(1, int(double(layer.height) * scale));
  Canvas tile(width, height);
  tile.image(std::move(picture), 0, 0, width, height);
  return tile;
}

void draw_tile(Canvas& canvas, const SubgraphLayer& layer, const SubgraphLayer::Vertex& v, const Column& c, Point at,
               double strength) {
  const int frame = c.tile >= 24 ? 3 : 2, left = int(at.x) - c.tile / 2, top = int(at.y) - c.tile / 2;
  Rgb color = kFrozen;
  if (v.active > 0)
    for (size_t i = 0; i < 3; ++i)
      color[i] = uint8_t(kFrozen[i] + (int(sign_color(v.contribution)[i]) - kFrozen[i]) * std::sqrt(strength));
  canvas.rectangle(left, top, c.tile, c.tile, color);
  if (v.active > 0)
    canvas.place(tile_picture(layer, v, c.tile - 2 * frame), left + frame, top + frame);
  else
    canvas.rectangle(left + 1, top + 1, c.tile - 2, c.tile - 2, kPaper);
}

void draw_disc_of(Canvas& canvas, const SubgraphLayer::Vertex& v, const Column& c, Point at, double strength) {
  canvas.disc(at, c.radius, kFrozen);
  canvas.disc(at, std::max(0.6, c.radius - 1.2), kPaper);
  if (v.active > 0) canvas.disc(at, c.radius, sign_color(v.contribution), 0.25 + 0.75 * std::sqrt(strength));
}

// Vertices that are drawn: of the unit's own layer only the unit.
bool is_drawn(const Subgraph& graph, size_t layer, size_t vertex) {
  return layer + 1 < graph.layers.size() || vertex == size_t(graph.unit.channel);
}

// A frame around the unit's place on its map.
void mark_place(Canvas& canvas, const SubgraphLayer& layer, const Unit& unit, const Column& c) {
  const double scale = double(c.tile - 6) / double(std::max(layer.height, layer.width));
  const Point at = c.middle(0);
  const int left = int(at.x) - c.tile / 2 + 3 + int(double(unit.col) * scale), side = std::max(4, int(scale));
  const int top = int(at.y) - c.tile / 2 + 3 + int(double(unit.row) * scale);
  const Rgb mark = {255, 170, 0};
  canvas.rectangle(left, top, side, 2, mark);
  canvas.rectangle(left, top + side - 2, side, 2, mark);
  canvas.rectangle(left, top, 2, side, mark);
  canvas.rectangle(left + side - 2, top, 2, side, mark);
}

void draw_vertices(Canvas& canvas, const Subgraph& graph, size_t k, const Column& c) {
  const SubgraphLayer& layer = graph.layers[k];
  const double most = largest_contribution(layer);
  for (size_t i = 0; i < layer.vertices.size(); ++i) {
    const auto& v = layer.vertices[i];
    if (!is_drawn(graph, k, i)) continue;
    const double strength = most > 0 ? std::abs(v.contribution) / most : 0;
    if (c.tile)
      draw_tile(canvas, layer, v, c, c.middle(i), strength);
    else
      draw_disc_of(canvas, v, c, c.middle(i), strength);
  }
  if (c.alone && c.tile && graph.unit.row >= 0) mark_place(canvas, layer, graph.unit, c);
}

std::string vertex_name(const Subgraph& graph, size_t k, size_t i) {
  const SubgraphLayer& layer = graph.layers[k];
  if (k + 1 == graph.layers.size() && i == size_t(graph.unit.channel)) {
    const std::string place = graph.unit.row >= 0 && layer.height * layer.width > 1
                                  ? fmt::format(":{},{}", graph.unit.row, graph.unit.col)
                                  : "";
    return fmt::format("{}{}: {:.4g}", i, place, graph.value);
  }
  const bool valued = layer.vertices[i].map.size() == 1 && layer.vertices.size() <= kFewVertices;
  return valued ? fmt::format("{}: {:.2g}", i, layer.vertices[i].map[0]) : std::to_string(i);
}

// Numbers (and values) beside the vertices, the strongest first, as far as they do not touch each other: left of a
// column, right of the last one.
void name_vertices(Canvas& canvas, const Subgraph& graph, size_t k, const Column& c) {
  const SubgraphLayer& layer = graph.layers[k];
  const bool last = k + 1 == graph.layers.size();
  std::vector<size_t> order;
  for (size_t i = 0; i < layer.vertices.size(); ++i)
    if (last ? is_drawn(graph, k, i) || !c.alone : layer.vertices.size() > 1)
      if (c.step >= kLine || layer.vertices[i].active > 0) order.push_back(i);
  const auto stronger = [&](size_t a, size_t b) {
    return std::abs(layer.vertices[a].contribution) > std::abs(layer.vertices[b].contribution);
  };
  std::stable_sort(order.begin(), order.end(), stronger);
  if (c.lanes > 1 && order.size() > kMostNames) order.resize(kMostNames);
  std::vector<double> taken;
  for (size_t i : order) {
    const double y = c.middle(i).y;
    const auto touches = [&](double other) { return std::abs(other - y) < kTextHeight; };
    if (std::any_of(taken.begin(), taken.end(), touches)) continue;
    taken.push_back(y);
    const std::string text = vertex_name(graph, k, i);
    const int width = text_width(text), x = last ? c.left + c.width() + 6 : c.left - 6 - width;
    const int top = int(y) - kTextHeight / 2;
    if (!last) canvas.rectangle(x - 1, top, width + 1, kTextHeight, kPaper);
    canvas.text(x, top, text, layer.vertices[i].active > 0 ? kInk : kFaint);
  }
}

void draw_centred(Canvas& canvas, int middle, int y, const std::string& text, Rgb color) {
  canvas.text(middle, y, text, color, kTextSize, 0.5);
}

// Lines between two columns, and below them how many there are and what share of all strength is shown.
void draw_edges(Canvas& canvas, const std::vector<SubgraphEdge>& edges, const Column& from, const Column& to) {
  std::vector<SubgraphEdge> order = edges;
  const auto weaker = [](const SubgraphEdge& a, const SubgraphEdge& b) {
    return std::abs(a.contribution) < std::abs(b.contribution);
  };
  std::stable_sort(order.begin(), order.end(), weaker);
  const auto sum = [&] {
    double total = 0;
    for (const SubgraphEdge& e : order) total += std::abs(e.contribution);
    return total;
  };
  const double all = sum();
  if (order.size() > kMostLines) order.erase(order.begin(), order.end() - kMostLines);
  const double most = order.empty() ? 1 : std::abs(order.back().contribution);
  for (const SubgraphEdge& e : order) {  // the strongest on top
    const double strength = std::abs(e.contribution) / most;
    const Point a = from.middle(size_t(e.from)), b = to.middle(size_t(e.to));
    canvas.line({a.x + from.side() / 2.0, a.y}, {b.x - to.side() / 2.0, b.y}, 0.6 + 3.4 * strength,
                sign_color(e.contribution), 0.1 + 0.8 * std::sqrt(strength));
  }
  const int middle = (from.left + from.width() + to.left) / 2, y = int(canvas.height()) - kBottom + 8;
  const bool cut = order.size() < edges.size();
  draw_centred(canvas, middle, y,
               cut ? fmt::format("{} of {} lines,", order.size(), edges.size())
                   : fmt::format("{} line{}", edges.size(), edges.size() == 1 ? "" : "s"),
               kFaint);
  if (cut) draw_centred(canvas, middle, y + kLine, fmt::format("{:.0f} % of the sum", 100 * sum() / all), kFaint);
}

void draw_heading(Canvas& canvas, const Subgraph& graph, size_t k, const Column& c) {
  const SubgraphLayer& layer = graph.layers[k];
  const auto on = std::count_if(layer.vertices.begin(), layer.vertices.end(), [](const auto& v) { return v.active > 0; });
  const bool last = k + 1 == graph.layers.size();
  const int middle = last ? int(c.middle(size_t(graph.unit.channel)).x) : c.left + c.width() / 2;
  draw_centred(canvas, middle, kTop - 2 * kLine - 14, layer.name, kInk);
  draw_centred(canvas, middle, kTop - kLine - 12,
               last     ? "the unit"
               : k == 0 ? "input"
                        : fmt::format("{} of {} active", on, layer.vertices.size()),
               kFaint);
}

// One entry at x, and where the next one begins.
int legend_line(Canvas& canvas, int x, int y, double sign, const std::string& text) {
  canvas.line({x + 2.0, y + 6.5}, {x + 28.0, y + 6.5}, 3.4, sign_color(sign));
  canvas.text(x + 36, y, text, kInk);
  return x + 36 + text_width(text) + 24;
}

void draw_legend(Canvas& canvas, int y) {
  int x = legend_line(canvas, 10, y, 1, "adds to the unit's value");
  legend_line(canvas, x, y, -1, "takes from it; the wider, the more (of each layer's most)");
  y += kLine + 2;
  canvas.disc({17, y + 6.5}, 6, sign_color(1));
  canvas.disc({33, y + 6.5}, 6, sign_color(-1));
  canvas.text(46, y, "active, in the colour of all it adds", kInk);
  x = 46 + text_width("active, in the colour of all it adds") + 24;
  canvas.disc({x + 7.0, y + 6.5}, 6, kFrozen);
  canvas.disc({x + 7.0, y + 6.5}, 4.8, kPaper);
  canvas.rectangle(x + 18, y, 13, 13, kFrozen);
  canvas.rectangle(x + 19, y + 1, 11, 11, kPaper);
  canvas.text(x + 38, y, "frozen: its ReLU is off, nothing passes", kInk);
}

}  // namespace

Canvas subgraph_picture(const Subgraph& graph, const std::string& title) {
  const size_t count = graph.layers.size();
  size_t most = 0;
  for (const SubgraphLayer& layer : graph.layers) most = std::max(most, layer.vertices.size());
  const int room = int(std::clamp<size_t>(most * kVertexStep, kLeastRoom, kMostRoom));
  std::vector<Column> columns;
  int x = kLeft;
  for (const SubgraphLayer& layer : graph.layers) {
    columns.push_back(column_of(layer, x, room, columns.size() + 1 == count));
    x += columns.back().width() + kGap;
  }
  const int width = std::max({x - kGap + kRight, std::min(20 + text_width(title), 960), 640});
  const std::string lines = wrapped_text(title, width - 20);
  const int more = text_height(lines) - kTextHeight;  // than one line of title
  Canvas canvas(width, kTop + room + kBottom);
  for (size_t k = 0; k + 1 < count; ++k) draw_edges(canvas, graph.edges[k], columns[k], columns[k + 1]);
  for (size_t k = 0; k < count; ++k) {
    draw_vertices(canvas, graph, k, columns[k]);
    name_vertices(canvas, graph, k, columns[k]);
    draw_heading(canvas, graph, k, columns[k]);
  }
  draw_legend(canvas, int(canvas.height()) - 42);
  Canvas page(width, canvas.height() + more);
  page.place(canvas, 0, more);
  page.text(10, 10, lines);
  return page;
}

}  // namespace switchback
