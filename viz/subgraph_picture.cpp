#include <algorithm>
#include <cmath>

#include "viz/draw.h"
#include "viz/render.h"
#include "viz/subgraph.h"
#include "viz/text.h"

namespace switchback {
namespace {

constexpr int kHeight = 860, kTop = 64, kBottom = 56, kMargin = 40, kColumnGap = 210;
constexpr size_t kMostLines = 900;  // between two columns: the strongest
constexpr Rgb kInk = {32, 32, 32}, kFrozen = {205, 205, 205}, kPaper = {255, 255, 255};

Rgb sign_color(double v) { return v >= 0 ? Rgb{176, 16, 24} : Rgb{24, 48, 176}; }

// Where the vertices of one column stand.
struct Column {
  int x;           // the middle
  double step;     // from one vertex to the next
  int tile;        // side of a map's picture; 0: discs
  double radius;   // of a disc
  double y(size_t vertex) const { return kTop + step * (double(vertex) + 0.5); }
};

Column column_of(const SubgraphLayer& layer, int x) {
  Column c{.x = x, .step = double(kHeight - kTop - kBottom) / double(layer.vertices.size()), .tile = 0, .radius = 0};
  const bool maps = layer.height * layer.width > 1;
  if (maps && c.step >= 9) c.tile = int(std::min(0.9 * c.step, layer.vertices.size() <= 3 ? 140.0 : 56.0));
  c.radius = std::clamp(0.4 * c.step, 1.2, 11.0);
  return c;
}

double largest_contribution(const SubgraphLayer& layer) {
  double most = 0;
  for (const auto& v : layer.vertices) most = std::max(most, std::abs(v.contribution));
  return most;
}

Image tile_picture(const SubgraphLayer& layer, const SubgraphLayer::Vertex& v, int side) {
  const auto [low, high] = std::minmax_element(v.map.begin(), v.map.end());
  const Image picture = heatmap(v.map.data(), int(layer.height), int(layer.width), ColorMap::grey, {*low, *high});
  const double scale = double(side) / double(std::max(layer.height, layer.width));
  return resized(picture, std::max(1, int(double(layer.width) * scale)), std::max(1, int(double(layer.height) * scale)));
}

void draw_tile(Image& image, const SubgraphLayer& layer, const SubgraphLayer::Vertex& v, const Column& c, double y,
               double strength) {
  const int frame = c.tile >= 24 ? 3 : 2, left = c.x - c.tile / 2, top = int(y) - c.tile / 2;
  Rgb color = kFrozen;
  if (v.active > 0)
    for (size_t i = 0; i < 3; ++i)
      color[i] = uint8_t(kFrozen[i] + (int(sign_color(v.contribution)[i]) - kFrozen[i]) * std::sqrt(strength));
  fill_rectangle(image, left - frame, top - frame, c.tile + 2 * frame, c.tile + 2 * frame, color);
  if (v.active > 0)
    paste(image, tile_picture(layer, v, c.tile), left, top);
  else
    fill_rectangle(image, left, top, c.tile, c.tile, kPaper);
}

void draw_disc_of(Image& image, const SubgraphLayer::Vertex& v, const Column& c, double y, double strength) {
  const Point centre{double(c.x), y};
  draw_disc(image, centre, c.radius, kFrozen);
  if (c.radius > 3) draw_disc(image, centre, c.radius - 1.5, kPaper);
  if (v.active > 0) draw_disc(image, centre, c.radius, sign_color(v.contribution), 0.25 + 0.75 * std::sqrt(strength));
}

// The number and value of each vertex beside it, where there is room.
void name_vertices(Image& image, const SubgraphLayer& layer, const Column& c, bool last) {
  if (c.step < kLineHeight) return;
  for (size_t i = 0; i < layer.vertices.size(); ++i) {
    const auto& v = layer.vertices[i];
    const bool valued = v.map.size() == 1 && (layer.vertices.size() <= 30 || last);
    const std::string text = valued ? fmt::format("{}: {:.2g}", i, v.map[0]) : std::to_string(i);
    const int side = c.tile ? c.tile / 2 + 6 : int(c.radius) + 5;
    const int x = last ? c.x + side : c.x - side - text_width(text);
    draw_text(image, x, int(c.y(i)) - kGlyphHeight / 2, text, v.active > 0 ? kInk : Rgb{150, 150, 150});
  }
}

void draw_edges(Image& image, const std::vector<SubgraphEdge>& edges, const Column& from, const Column& to) {
  std::vector<SubgraphEdge> order = edges;
  const auto weaker = [](const SubgraphEdge& a, const SubgraphEdge& b) {
    return std::abs(a.contribution) < std::abs(b.contribution);
  };
  std::stable_sort(order.begin(), order.end(), weaker);
  if (order.size() > kMostLines) order.erase(order.begin(), order.end() - kMostLines);
  if (order.empty()) return;
  const double most = std::abs(order.back().contribution);
  const auto beside = [](const Column& c) { return c.tile ? c.tile / 2 + 3.0 : c.radius; };
  for (const SubgraphEdge& e : order) {  // the strongest on top
    const double strength = std::abs(e.contribution) / most;
    draw_line(image, {from.x + beside(from), from.y(size_t(e.from))}, {to.x - beside(to), to.y(size_t(e.to))},
              0.6 + 2.6 * strength, sign_color(e.contribution), 0.08 + 0.8 * std::sqrt(strength));
  }
}

std::string column_title(const SubgraphLayer& layer, bool last) {
  if (last) return layer.name;
  const auto on = std::count_if(layer.vertices.begin(), layer.vertices.end(), [](const auto& v) { return v.active > 0; });
  return fmt::format("{}\n{} of {} active", layer.name, on, layer.vertices.size());
}

}  // namespace

Image subgraph_picture(const Subgraph& graph, const std::string& title) {
  const size_t count = graph.layers.size();
  constexpr int kSides = kMargin + 60;
  Image image = blank_image(2 * kSides + int(count - 1) * kColumnGap, kHeight, kPaper);
  std::vector<Column> columns;
  for (size_t k = 0; k < count; ++k) columns.push_back(column_of(graph.layers[k], kSides + int(k) * kColumnGap));
  for (size_t k = 0; k + 1 < count; ++k) draw_edges(image, graph.edges[k], columns[k], columns[k + 1]);
  for (size_t k = 0; k < count; ++k) {
    const SubgraphLayer& layer = graph.layers[k];
    const Column& c = columns[k];
    const double most = largest_contribution(layer);
    for (size_t i = 0; i < layer.vertices.size(); ++i) {
      const auto& v = layer.vertices[i];
      const double strength = most > 0 ? std::abs(v.contribution) / most : 0;
      if (c.tile)
        draw_tile(image, layer, v, c, c.y(i), strength);
      else
        draw_disc_of(image, v, c, c.y(i), strength);
    }
    name_vertices(image, layer, c, k + 1 == count);
    const std::string text = column_title(layer, k + 1 == count);
    draw_text(image, c.x - text_width(text) / 2, 30, text, kInk);
  }
  draw_text(image, 10, 8, title, kInk);
  draw_text(image, 10, kHeight - 40,
            "red: adds to the unit's value, blue: takes from it, the stronger the wider (the strongest of each layer)\n"
            "grey: frozen, a ReLU is off there: nothing passes",
            kInk);
  return image;
}

}  // namespace switchback
