#include "viz/methods/plane.h"

#include <algorithm>
#include <cmath>

#include "viz/methods/target.h"

namespace switchback {
namespace {

constexpr size_t kMostRegions = 1'000'000;

using Polygon = std::vector<Point>;

// A unit on one polygon: x, y -> a x + b y + c. `size` bounds what was summed up to get its value anywhere in the box,
// so that size times a few epsilons bounds its rounding error.
struct Row {
  double a = 0, b = 0, c = 0, size = 0;
  double at(Point p) const { return a * p.x + b * p.y + c; }
};
using Rows = std::vector<Row>;

void add(Row& to, const Row& row, double factor) {
  to.a += factor * row.a, to.b += factor * row.b, to.c += factor * row.c;
  to.size += std::fabs(factor) * row.size;
}

// A polygon cut by the line row = level.
struct Halves {
  Polygon below, above;  // one of them is empty where the line does not cross the polygon
  Point from, to;        // the line inside the polygon, where it does
};

// Vertices nearer to the line than `reach` are taken to lie on it, so that lines that meet in one point, or a line that
// touches a corner, leave no slivers.
Halves cut(const Polygon& polygon, const Row& row, double level, double reach) {
  const double zero = reach * std::sqrt(row.a * row.a + row.b * row.b) + 1e-14 * (row.size + std::fabs(level));
  std::vector<int> side;
  bool any_above = false, any_below = false;
  for (const Point& p : polygon) {
    const double value = row.at(p) - level;
    side.push_back(value > zero ? 1 : value < -zero ? -1 : 0);
    any_above |= side.back() > 0, any_below |= side.back() < 0;
  }
  if (!any_above) return {polygon, {}, {}, {}};  // zero throughout counts as below: a ReLU is on where 0 < s
  if (!any_below) return {{}, polygon, {}, {}};
  Halves out;
  Polygon on;
  for (size_t i = 0; i < polygon.size(); ++i) {
    const size_t j = (i + 1) % polygon.size();
    if (side[i] >= 0) out.above.push_back(polygon[i]);
    if (side[i] <= 0) out.below.push_back(polygon[i]);
    if (side[i] == 0) on.push_back(polygon[i]);
    if (side[i] * side[j] >= 0) continue;
    const double from = row.at(polygon[i]) - level, to = row.at(polygon[j]) - level, t = from / (from - to);
    const Point a = polygon[i], b = polygon[j], crossing{a.x + t * (b.x - a.x), a.y + t * (b.y - a.y)};
    out.above.push_back(crossing);
    out.below.push_back(crossing);
    on.push_back(crossing);
  }
  out.from = on.front(), out.to = on.back();
  return out;
}

// A polygon with the states of one ReLU's units on it: thresholds below the value, 0 or 1, with a clip up to 2.
struct Piece {
  Polygon polygon;
  std::vector<uint8_t> states;
};

// Walks through the nodes with one polygon at a time, depth first: each ReLU cuts it, and the walk goes on with each
// piece. values[node] are the node's units on the polygon that is being walked with.
class Walk {
 public:
  Walk(const Model& model, const PlaneBox& box, PlaneMap& map)
      : model_(model),
        network_(model.network),
        last_(logit_node(network_)),
        map_(map),
        values_(network_.nodes.size()),
        reach_(1e-9 * std::max(box.right - box.left, box.top - box.bottom)) {
    values_[0] = {{1, 0, 0, std::max(std::fabs(box.left), std::fabs(box.right))},
                  {0, 1, 0, std::max(std::fabs(box.bottom), std::fabs(box.top))}};
    const List<Shape> shapes = network_.shapes(network_.input);
    for (int node = 0; node <= last_; ++node) {
      if (!std::holds_alternative<ReLU>(network_.nodes[node].layer)) continue;
      const int64_t units = shapes[node].c;
      map.layers.push_back({.name = network_.nodes[node].name, .units = units});
      relus_.push_back(node);
      on_.emplace_back(size_t(units), false);
      not_on_.emplace_back(size_t(units), false);
    }
  }

  void run(const Polygon& polygon) {
    advance(1, polygon);
    for (size_t l = 0; l < map_.layers.size(); ++l)
      for (size_t u = 0; u < on_[l].size(); ++u) {
        map_.layers[l].crossing += on_[l][u] && not_on_[l][u];
        map_.layers[l].off += !on_[l][u];
      }
  }

 private:
  const Rows& input(int node, size_t i = 0) const { return values_[size_t(network_.nodes[size_t(node)].inputs[i])]; }

  void advance(int node, const Polygon& polygon) {
    for (; node <= last_; ++node) {
      const auto* relu = std::get_if<ReLU>(&network_.nodes[size_t(node)].layer);
      if (relu) return split(node, *relu, polygon);
      values_[size_t(node)] = affine(node);
    }
    if (map_.regions.size() == kMostRegions)
      throw Error(fmt::format("{} has more than {} regions here", network_.name, kMostRegions),
                  "take a smaller network or part of the plane");
    PlaneRegion region{polygon, {}};
    for (const Row& row : values_[size_t(last_)]) region.outputs.push_back({row.a, row.b, row.c});
    map_.regions.push_back(std::move(region));
  }

  // Units of a layer that is affine.
  Rows affine(int node) const {
    const Node& n = network_.nodes[size_t(node)];
    return std::visit(overloaded{
                          [&](const Linear& l) { return linear(l, node, input(node)); },
                          [&](const BatchNorm2d& l) { return normalized(l, node, input(node)); },
                          [&](const Add&) {
                            Rows sum = input(node);
                            for (size_t u = 0; u < sum.size(); ++u) add(sum[u], input(node, 1)[u], 1);
                            return sum;
                          },
                          [&](const Concat&) {
                            Rows all;
                            for (size_t i = 0; i < n.inputs.size(); ++i)
                              all.insert(all.end(), input(node, i).begin(), input(node, i).end());
                            return all;
                          },
                          [&](const Flatten&) { return input(node); },
                          [&](const Dropout&) { return input(node); },
                          [&](const auto&) -> Rows { fail("{} is a {}", n.name, type_name(n.layer)); },
                      },
                      n.layer);
  }

  Rows linear(const Linear& l, int node, const Rows& x) const {
    const std::span<const float> weight = model_.weights.values(node, "weight"), bias = model_.weights.values(node, "bias");
    Rows y(size_t(l.out_features));
    for (size_t u = 0; u < y.size(); ++u) {
      for (size_t i = 0; i < x.size(); ++i) add(y[u], x[i], double(weight[u * x.size() + i]));
      if (l.has_bias) add(y[u], {0, 0, 1, 1}, double(bias[u]));
    }
    return y;
  }

  Rows normalized(const BatchNorm2d& l, int node, const Rows& x) const {
    const auto of = [&](const char* name) { return model_.weights.values(node, name); };
    const std::span<const float> weight = of("weight"), bias = of("bias"), mean = of("running_mean"), variance = of("running_var");
    Rows y(x.size());
    for (size_t u = 0; u < y.size(); ++u) {
      const double scale = double(weight[u]) / std::sqrt(double(variance[u]) + double(l.eps));
      add(y[u], x[u], scale);
      add(y[u], {0, 0, 1, 1}, double(bias[u]) - scale * double(mean[u]));
    }
    return y;
  }

  void split(int node, const ReLU& relu, const Polygon& polygon) {
    const int layer = int(std::find(relus_.begin(), relus_.end(), node) - relus_.begin());
    const Rows& s = input(node);
    std::vector<Piece> pieces{{polygon, std::vector<uint8_t>(s.size(), 0)}};
    for (size_t u = 0; u < s.size(); ++u) {
      split_unit(layer, u, s[u], 0, pieces);
      if (relu.clip != kNoClip) split_unit(layer, u, s[u], double(relu.clip), pieces);
    }
    map_.layers[size_t(layer)].regions += int64_t(pieces.size());
    for (const Piece& piece : pieces) {
      Rows& y = values_[size_t(node)];
      y.assign(s.size(), {});
      for (size_t u = 0; u < s.size(); ++u) {
        (piece.states[u] == 1 ? on_ : not_on_)[size_t(layer)][u] = true;
        if (piece.states[u] == 1) y[u] = s[u];
        if (piece.states[u] == 2) y[u] = {0, 0, double(relu.clip), double(relu.clip)};
      }
      advance(node + 1, piece.polygon);
    }
  }

  // Cuts every piece at the line where unit u is `level`; above it the unit's state is one higher.
  void split_unit(int layer, size_t u, const Row& row, double level, std::vector<Piece>& pieces) {
    for (size_t i = 0, count = pieces.size(); i < count; ++i) {
      Halves c = cut(pieces[i].polygon, row, level, reach_);
      if (c.above.empty()) continue;
      if (c.below.empty()) {
        ++pieces[i].states[u];
        continue;
      }
      map_.lines.push_back({layer, int64_t(u), c.from, c.to});
      Piece above{std::move(c.above), pieces[i].states};
      ++above.states[u];
      pieces[i].polygon = std::move(c.below);
      pieces.push_back(std::move(above));
    }
    if (pieces.size() > kMostRegions)
      throw Error(fmt::format("{} has more than {} regions here", network_.name, kMostRegions),
                  "take a smaller network or part of the plane");
  }

  const Model& model_;
  const Network& network_;
  int last_;  // the node that gives the outputs
  PlaneMap& map_;
  std::vector<Rows> values_;
  double reach_;
  std::vector<int> relus_;                      // node of each of map_.layers
  std::vector<std::vector<bool>> on_, not_on_;  // [layers][units]: seen so somewhere
};

void check_network(const Network& network) {
  const Shape in = network.input;
  if (in.c != 2 || in.h != 1 || in.w != 1)
    throw Error(fmt::format("{} takes inputs of {}x{}x{}, not of two numbers", network.name, in.c, in.h, in.w),
                "--plane draws networks with two inputs, for example --model mlp:2-16-16-2", true);
  bool relu = false;
  for (int node = 1; node <= logit_node(network); ++node) {
    const Node& n = network.nodes[size_t(node)];
    relu |= std::holds_alternative<ReLU>(n.layer);
    if (!std::visit(overloaded{[](const Linear&) { return true; }, [](const ReLU&) { return true; },
                               [](const BatchNorm2d&) { return true; }, [](const Add&) { return true; },
                               [](const Concat&) { return true; }, [](const Flatten&) { return true; },
                               [](const Dropout&) { return true; }, [](const auto&) { return false; }},
                    n.layer))
      throw Error(fmt::format("--plane cannot cut the plane at {}, a {}", n.name, type_name(n.layer)),
                  "it takes Linear, ReLU, BatchNorm2d, Add, Concat, Flatten and Dropout", true);
  }
  if (!relu) throw Error(fmt::format("{} has no ReLU, so no linear regions", network.name), "it is one affine map");
}

// The smallest distance inside of the polygon's edges; negative outside.
double depth(const Polygon& polygon, Point at) {
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < polygon.size(); ++i) {
    const Point a = polygon[i], b = polygon[(i + 1) % polygon.size()];
    const double length = std::sqrt((b.x - a.x) * (b.x - a.x) + (b.y - a.y) * (b.y - a.y));
    if (length > 0) least = std::min(least, ((b.x - a.x) * (at.y - a.y) - (b.y - a.y) * (at.x - a.x)) / length);
  }
  return least;
}

}  // namespace

PlaneMap plane_map(const Model& model, const PlaneBox& box) {
  check_network(model.network);
  CHECK(box.left < box.right && box.bottom < box.top && std::isfinite(box.right - box.left + box.top - box.bottom),
        "the box from ({},{}) to ({},{}) is empty", box.left, box.bottom, box.right, box.top);
  PlaneMap map;
  map.box = box;
  Walk(model, box, map)
      .run({{box.left, box.bottom}, {box.right, box.bottom}, {box.right, box.top}, {box.left, box.top}});
  return map;
}

int64_t class_at(const PlaneRegion& region, Point at) {
  const auto value = [&](size_t k) {
    const std::array<double, 3>& o = region.outputs[k];
    return o[0] * at.x + o[1] * at.y + o[2];
  };
  if (region.outputs.size() == 1) return value(0) > 0;
  size_t best = 0;
  for (size_t k = 1; k < region.outputs.size(); ++k)
    if (value(k) > value(best)) best = k;
  return int64_t(best);
}

int64_t region_of(const PlaneMap& map, Point at) {
  const PlaneBox& box = map.box;
  if (!(at.x >= box.left && at.x <= box.right && at.y >= box.bottom && at.y <= box.top)) return -1;
  int64_t best = -1;  // of a point on a border, either side's: the deepest
  double best_depth = -std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < map.regions.size() && best_depth < 0; ++i) {
    const double d = depth(map.regions[i].polygon, at);
    if (d > best_depth) best_depth = d, best = int64_t(i);
  }
  return best;
}

}  // namespace switchback
