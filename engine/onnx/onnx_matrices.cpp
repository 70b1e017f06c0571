// ONNX operators that a matrix does along some axes of data, every result being a sum of places with known weights:
// running sums, images sampled at the places of a constant grid.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
namespace {

constexpr int64_t kMostWeights = 1 << 24;

OnnxConstant matrix(int64_t rows, int64_t columns) {
  CHECK(double(rows) * double(columns) <= double(kMostWeights),
        "{} places of {}: at most {} pairs of them are supported", rows, columns, kMostWeights);
  return {
      .dims = {rows, columns}, .whole = false, .floats = std::vector<float>(size_t(rows * columns), 0.f), .ints = {}};
}

// The axes [first, first + count) of x, as one, times weights [out,in]; they become `sizes`.
OnnxValue along(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, size_t first, size_t count,
                const OnnxConstant& weights, const Dims& sizes) {
  CHECK(size_t(x.batch.axis) < first || size_t(x.batch.axis) >= first + count, "it moves the images of a batch");
  std::vector<int64_t> order, back;
  for (size_t i = 0; i < x.dims.size(); ++i)
    if (i < first || i >= first + count) order.push_back(int64_t(i));
  for (size_t i = 0; i < count; ++i) order.push_back(int64_t(first + i));
  OnnxValue turned = with_axes(g, n, x, order);
  Dims others(turned.dims.begin(), turned.dims.end() - int64_t(count));
  turned.dims = others;
  turned.dims.push_back(weights.dims[1]);
  linear_over_last(g, n, turned, weights, false);
  OnnxValue y = g.value(n.output(0));
  y.dims = others;
  y.dims.insert(y.dims.end(), sizes.begin(), sizes.end());
  for (size_t i = 0; i < y.dims.size(); ++i)  // the sizes may be as many as the axes were
    back.push_back(i < first                  ? int64_t(i)
                   : i < first + sizes.size() ? int64_t(others.size() + i - first)
                                              : int64_t(i - sizes.size()));
  y = with_axes(g, n, y, back);
  g.set(n, y);
  return y;
}

void running_sum(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue& x = g.value(n, 0);
  CHECK(!x.constant, "its input is constant");
  const std::vector<int64_t> given = g.ints(n, 1, "axis");
  CHECK(given.size() == 1, "{} axes", given.size());
  const size_t axis = size_t(onnx_axis(given[0], x.dims.size()));
  const bool exclusive = n.integer("exclusive", 0) != 0, reverse = n.integer("reverse", 0) != 0;
  const int64_t size = x.dims[axis];
  OnnxConstant sums = matrix(size, size);
  for (int64_t i = 0; i < size; ++i)
    for (int64_t k = 0; k < size; ++k)
      sums.floats[i * size + k] = (reverse ? k > i : k < i) || (k == i && !exclusive);
  along(g, n, x, axis, 1, sums, {size});
}

// ---- GridSample, as PyTorch's grid_sample

struct Sampling {
  enum class Mode { nearest, linear, cubic } mode = Mode::linear;
  enum class Outside { zeros, border, reflection } outside = Outside::zeros;
  bool corners = false;
};

// Back from behind the borders [low, high] as often as needed.
double reflected(double x, double low, double high) {
  if (high <= low) return low;
  const double range = high - low, away = x < low ? low - x : x > high ? x - high : 0;
  if (away == 0) return x;
  const double turns = std::floor(away / range), rest = away - turns * range;
  return (std::fmod(turns, 2) == 0) == (x < low) ? low + rest : high - rest;
}

struct Taps {
  int64_t places[4];
  double weights[4] = {0, 0, 0, 0};
};
// Along one axis of `size` places: those that make the value at coordinate `at`, -1 … 1 over the axis.
Taps taps(const Sampling& how, double at, int64_t size) {
  const double low = how.corners ? 0 : -0.5, high = double(size) - (how.corners ? 1 : 0.5);
  double x = how.corners ? (at + 1) / 2 * double(size - 1) : ((at + 1) * double(size) - 1) / 2;
  const auto inside = [&](double v) {  // -1: nowhere
    if (how.outside == Sampling::Outside::border) return std::clamp(v, 0.0, double(size - 1));
    if (how.outside == Sampling::Outside::reflection) return std::clamp(reflected(v, low, high), 0.0, double(size - 1));
    return v >= 0 && v <= double(size - 1) ? v : -1;
  };
  const bool cubic = how.mode == Sampling::Mode::cubic;
  if (how.mode == Sampling::Mode::nearest) x = std::nearbyint(x);
  // A cubic's four places are put back inside one by one, of the others the coordinate is.
  if (!cubic && how.outside != Sampling::Outside::zeros) x = inside(x);
  const double first = std::floor(x), t = x - first;
  Taps all;
  if (cubic) {  // Keys 1981 with a = -0.75
    constexpr double a = -0.75;
    const auto near = [](double d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
    const auto far = [](double d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
    const double weights[4] = {far(t + 1), near(t), near(1 - t), far(2 - t)};
    std::copy(weights, weights + 4, all.weights);
  } else {
    all.weights[1] = 1 - t, all.weights[2] = t;
  }
  for (int i = 0; i < 4; ++i) {
    const double place = inside(first + i - 1);
    all.places[i] = place < 0 ? 0 : int64_t(place);
    if (place < 0) all.weights[i] = 0;
  }
  return all;
}

void grid_sample(OnnxGraph& g, const OnnxNode& n) {
  const Dims x = g.map_dims(n, 0);
  const OnnxConstant given = converted(g.constant(n, 1, "grid"), false);
  CHECK(given.dims.size() == 4 && given.dims[3] == 2, "a grid of {} for {}", to_string(given.dims), g.text(x));
  const OnnxConstant grid = g.beside({1, given.dims[1], given.dims[2], 2}, given);
  Sampling how;
  const std::string mode = n.text("mode", "linear"), outside = n.text("padding_mode", "zeros");
  using Mode = Sampling::Mode;
  using Outside = Sampling::Outside;
  const bool linear = mode == "linear" || mode == "bilinear",
             cubic = mode == "cubic" || mode == "bicubic";  // names before opset 20
  CHECK(linear || cubic || mode == "nearest", "mode {} is unknown", printable(mode));
  CHECK(outside == "zeros" || outside == "border" || outside == "reflection", "padding_mode {} is unknown",
        printable(outside));
  how.mode = linear ? Mode::linear : cubic ? Mode::cubic : Mode::nearest;
  how.outside = outside == "zeros" ? Outside::zeros : outside == "border" ? Outside::border : Outside::reflection;
  how.corners = n.integer("align_corners", 0) != 0;
  const int64_t h = x[2], w = x[3], places = grid.dims[1] * grid.dims[2];
  OnnxConstant weights = matrix(places, h * w);
  for (int64_t p = 0; p < places; ++p) {
    const double across = double(grid.floats[2 * p]), down = double(grid.floats[2 * p + 1]);
    CHECK(std::abs(across) < 1e6 && std::abs(down) < 1e6, "a grid with the coordinates {}, {}", across, down);
    const Taps rows = taps(how, down, h), columns = taps(how, across, w);
    for (int i = 0; i < 4; ++i)
      for (int k = 0; k < 4; ++k)
        weights.floats[p * h * w + rows.places[i] * w + columns.places[k]] +=
            float(rows.weights[i] * columns.weights[k]);
  }
  along(g, n, g.value(n, 0), 2, 2, weights, {grid.dims[1], grid.dims[2]});
}

}  // namespace

const OnnxOperators& onnx_matrices() {
  static const OnnxOperators operators = {{"CumSum", running_sum}, {"GridSample", grid_sample}};
  return operators;
}

}  // namespace switchback
