// Which boxes share patch sizes. Every group has its own sizes, so few groups waste work and many leave small batches.
#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <tuple>

#include "engine/run/patches.h"

namespace switchback {
namespace {

// Boxes that reach equally far along one axis.
struct Class {
  std::vector<int64_t> sizes;  // of the patch of every step, along this axis
  int64_t boxes = 0;
};

struct Axis {
  List<Class> classes;
  List<int> of_box;  // its class
};

// The work for one box of a class, as if it were square.
double cost(const PatchNetwork& shared, bool vertical, const std::vector<int64_t>& sizes) {
  double sum = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const Step& step = shared.steps()[i];
    const Shape map = shared.shape(step.output);
    const double share = double(sizes[i]) / double(vertical ? map.h : map.w);
    sum += shared.flops(step) * (share * share > PatchPlan::kMostOfMap ? 1 : share * share);
  }
  return sum;
}

std::vector<int64_t> larger(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  std::vector<int64_t> c(a.size());
  std::transform(a.begin(), a.end(), b.begin(), c.begin(), [](int64_t x, int64_t y) { return std::max(x, y); });
  return c;
}

Axis sort(const PatchNetwork& shared, std::span<const Box> boxes, bool vertical) {
  Axis axis;
  std::map<std::vector<int64_t>, int> known;
  std::map<std::pair<int64_t, int64_t>, int> by_interval;
  for (const Box& box : boxes) {
    const Interval change = vertical ? Interval{box.row, box.row + box.height} : Interval{box.col, box.col + box.width};
    auto [place, fresh] = by_interval.try_emplace({change.begin, change.end}, 0);
    if (fresh) {
      const List<Interval> reach = vertical ? shared.rows(change) : shared.columns(change);
      std::vector<int64_t> sizes;
      for (const Step& step : shared.steps()) sizes.push_back(reach[step.output].size());
      const auto [number, added] = known.try_emplace(sizes, int(axis.classes.size()));
      if (added) axis.classes.push_back({std::move(sizes)});
      place->second = number->second;
    }
    ++axis.classes[place->second].boxes;
    axis.of_box.push_back(place->second);
  }
  return axis;
}

// Joins the two classes that cost least together, again and again.
void join(const PatchNetwork& shared, bool vertical, int most, Axis& axis) {
  const size_t count = axis.classes.size();
  std::vector<double> costs(count);
  std::vector<int> joined(count);
  std::iota(joined.begin(), joined.end(), 0);
  for (size_t i = 0; i < count; ++i) costs[i] = cost(shared, vertical, axis.classes[i].sizes);
  const auto more = [&](size_t a, size_t b) {
    const Class &x = axis.classes[a], &y = axis.classes[b];
    return double(x.boxes + y.boxes) * cost(shared, vertical, larger(x.sizes, y.sizes)) - double(x.boxes) * costs[a] -
           double(y.boxes) * costs[b];
  };
  std::vector<std::vector<double>> price(count, std::vector<double>(count));
  for (size_t a = 0; a < count; ++a)
    for (size_t b = a + 1; b < count; ++b) price[a][b] = more(a, b);
  for (size_t left = count; left > size_t(std::max(most, 1)); --left) {
    double best = std::numeric_limits<double>::infinity();
    size_t into = 0, from = 0;
    for (size_t a = 0; a < count; ++a)
      for (size_t b = a + 1; b < count; ++b)
        if (joined[a] == int(a) && joined[b] == int(b) && price[a][b] < best) best = price[a][b], into = a, from = b;
    Class& kept = axis.classes[into];
    kept.sizes = larger(kept.sizes, axis.classes[from].sizes);
    kept.boxes += axis.classes[from].boxes;
    costs[into] = cost(shared, vertical, kept.sizes);
    for (int& j : joined)
      if (j == int(from)) j = int(into);
    for (size_t other = 0; other < count; ++other)
      if (joined[other] == int(other) && other != into)
        price[std::min(into, other)][std::max(into, other)] = more(std::min(into, other), std::max(into, other));
  }
  for (int& c : axis.of_box) c = joined[c];
}

}  // namespace

std::vector<std::vector<size_t>> group_boxes(const PatchNetwork& shared, std::span<const Box> boxes, int most) {
  Axis rows = sort(shared, boxes, true), columns = sort(shared, boxes, false);
  join(shared, true, most, rows);
  join(shared, false, most, columns);
  std::map<std::pair<int, int>, std::vector<size_t>> groups;
  for (size_t i = 0; i < boxes.size(); ++i) groups[{rows.of_box[i], columns.of_box[i]}].push_back(i);
  std::vector<std::vector<size_t>> all;
  for (auto& [key, group] : groups) all.push_back(std::move(group));
  return all;
}

}  // namespace switchback
