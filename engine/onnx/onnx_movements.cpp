// ONNX operators that cut, join and pad tensors.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
namespace {

// Of data and constants, along any axis but the batch. A constant is room that its neighbour gets by padding, and then
// a sum: x + 0 and 0 + constant are exact. Rows and columns take the channels' place while they are joined.
class Joining {
 public:
  Joining(OnnxGraph& g, const OnnxNode& n, int64_t axis) : g_(g), n_(n), axis_(size_t(axis)) {}

  void run() {
    for (int i = 0; i < n_.inputs(); ++i)
      if (!g_.is_constant(n_, i)) like_ = g_.value(n_, i).dims;
    CHECK(axis_ > 0, "it joins the images of a batch");
    for (int i = 0; i < n_.inputs(); ++i) {
      const Dims& dims = g_.value(n_, i).dims;
      bool fits = dims.size() == like_.size();
      for (size_t k = 1; fits && k < dims.size(); ++k) fits = k == axis_ || dims[k] == like_[k];
      CHECK(fits, "of {} and {}", to_string(like_), to_string(dims));
      total_ += dims[axis_];
      g_.is_constant(n_, i) ? add_constant(i) : add_data(i);
    }
    Dims dims = like_;
    dims[axis_] = total_;
    const bool summed = !constants_.empty(), turned = axis_ != 1;
    int made = parts_[0];
    if (parts_.size() > 1) made = g_.add(n_, Concat{}, parts_, summed || turned ? part_name() : "");
    const BinaryConstant sum{BinaryFunction::add, summed ? constants() : std::vector<float>(), g_.shape(made)};
    if (summed) made = g_.add(n_, sum, {made}, turned ? part_name() : "");
    if (turned) made = g_.add(n_, turn(), {made});
    g_.set(n_, OnnxValue{nullptr, made, dims});
  }

 private:
  std::string part_name() const { return n_.name() + ".part"; }
  Permute turn() const {  // its own inverse
    Permute layer;
    std::swap(layer.axes[0], layer.axes[axis_ - 1]);
    return layer;
  }

  void add_data(int i) {
    int node = g_.node(n_, i);
    if (axis_ != 1) node = g_.add(n_, turn(), {node}, part_name());
    if (front_ > 0) node = g_.add(n_, Pad{.front = front_}, {node}, part_name());
    front_ = 0;
    parts_.push_back(node);
  }

  void add_constant(int i) {
    Dims dims = like_;
    dims[axis_] = g_.value(n_, i).dims[axis_];
    OnnxConstant c = converted(g_.beside(dims, *g_.value(n_, i).constant), false);
    CHECK(c.dims == dims, "of {} and {}", to_string(like_), to_string(c.dims));
    std::vector<int64_t> axes(dims.size());
    std::iota(axes.begin(), axes.end(), 0);
    std::swap(axes[1], axes[axis_]);
    constants_.emplace_back(total_ - dims[axis_], transposed(c, axes));
    if (parts_.empty())
      front_ += dims[axis_];
    else
      parts_.back() = g_.add(n_, Pad{.back = dims[axis_]}, {parts_.back()}, part_name());
  }

  // [total, …], 0 where data stand.
  std::vector<float> constants() const {
    const int64_t place = count(like_) / like_[axis_];
    std::vector<float> all(total_ * place, 0.f);
    for (const auto& [first, c] : constants_) std::copy(c.floats.begin(), c.floats.end(), all.begin() + first * place);
    return all;
  }

  OnnxGraph& g_;
  const OnnxNode& n_;
  size_t axis_;
  Dims like_;
  int64_t total_ = 0, front_ = 0;
  std::vector<int> parts_;
  std::vector<std::pair<int64_t, OnnxConstant>> constants_;  // with their first places
};

// Of data in the order of memory: what lies before the axis are rows, what is joined and lies behind it channels. Constants
// are room by padding and then a sum, as above. A single value and constants along its first axis, as class tokens are,
// stay rows of the same channels.
void join_rows(OnnxGraph& g, const OnnxNode& n, size_t axis) {
  OnnxValue like;
  int data = 0;
  for (int i = 0; i < n.inputs(); ++i)
    if (!g.is_constant(n, i)) like = g.value(n, i), ++data;
  CHECK(int64_t(axis) != like.batch.axis, "it joins the images of a batch");
  const int64_t before = product(like.dims, 0, axis), behind = count(like.dims) / before / like.dims[axis];
  const bool tokens = data == 1 && before == 1;
  const std::string part_name = n.name() + ".part";
  std::vector<int> parts;
  std::vector<std::pair<int64_t, OnnxConstant>> constants;  // with their first places
  int64_t total = 0, front = 0;
  for (int i = 0; i < n.inputs(); ++i) {
    const OnnxValue x = g.value(n, i);
    bool fits = x.dims.size() == like.dims.size() && (x.constant || x.batch == like.batch);
    for (size_t k = 0; fits && k < x.dims.size(); ++k) fits = k == axis || x.dims[k] == like.dims[k] || (x.constant && k == size_t(like.batch.axis));
    CHECK(fits, "of {} and {}", to_string(like.dims), to_string(x.dims));
    const int64_t places = x.dims[axis];
    if (!x.constant) {
      int node = tokens ? g.memory_shaped(n, x, {1, behind, places, 1}) : g.memory_shaped(n, x, {1, places * behind, before, 1});
      if (front > 0) node = g.add(n, tokens ? Pad{.top = front} : Pad{.front = front * behind}, {node}, part_name);
      front = 0;
      parts.push_back(node);
    } else {
      Dims dims = like.dims;
      dims[axis] = places;
      OnnxConstant c = converted(g.beside(dims, *x.constant), false);
      CHECK(c.dims == dims, "of {} and {}", to_string(like.dims), to_string(c.dims));
      constants.emplace_back(total, std::move(c));
      if (parts.empty()) front += places;
      else parts.back() = g.add(n, tokens ? Pad{.bottom = places} : Pad{.back = places * behind}, {parts.back()}, part_name);
    }
    total += places;
  }
  int made = parts.size() > 1 ? g.add(n, Concat{}, parts, constants.empty() ? "" : part_name) : parts[0];
  Dims dims = like.dims;
  dims[axis] = total;
  if (!constants.empty()) {
    BinaryConstant sum{BinaryFunction::add, std::vector<float>(size_t(count(dims)), 0.f), g.shape(made)};
    for (const auto& [first, c] : constants)  // into the order of maps: channels first
      for (int64_t row = 0; row < before; ++row)
        for (int64_t place = 0; place < c.dims[axis]; ++place)
          for (int64_t k = 0; k < behind; ++k) {
            const float v = c.floats[(row * c.dims[axis] + place) * behind + k];
            const int64_t channel = tokens ? k : (first + place) * behind + k, at = tokens ? first + place : row;
            sum.values[channel * sum.shape.h * sum.shape.w + at] = v;
          }
    made = g.add(n, sum, {made});
  }
  g.set_rows(n, like, made, dims);
}

void concat(OnnxGraph& g, const OnnxNode& n) {
  const int64_t axis = onnx_axis(n.integer("axis", 1), g.value(n, 0).dims.size());
  if (g.all_constant(n)) {
    std::vector<const OnnxConstant*> parts;
    for (int i = 0; i < n.inputs(); ++i) parts.push_back(g.value(n, i).constant.get());
    return g.set(n, concatenated(parts, axis));
  }
  if (n.inputs() == 1) return identity(g, n);
  for (int i = 0; i < n.inputs(); ++i)
    if (!g.is_constant(n, i) && (g.in_memory_order(g.value(n, i)) || g.value(n, i).dims.size() > 4))
      return join_rows(g, n, size_t(axis));
  Joining(g, n, axis).run();
}

// Of an input-dependent tensor: `range` of its axis `axis`.
OnnxValue cut(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, int64_t axis, const OnnxRange& range,
              const std::string& name) {
  CHECK(axis != x.batch.axis, "it cuts the batch");
  CHECK(range.count > 0, "nothing is left of axis {}", axis);
  if (range.step < 0 && range.count > 1) {
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < range.count; ++i) indices.push_back(range.begin + i * range.step);
    return selected(g, n, x, axis, indices);
  }
  if (range.count == x.dims[axis] && range.step == 1) return x;
  const SliceRange part{range.begin, range.begin + (range.count - 1) * std::max<int64_t>(range.step, 1) + 1,
                        std::max<int64_t>(range.step, 1)};
  OnnxValue out = x;
  out.dims[axis] = range.count;
  if (!g.in_memory_order(x) && x.dims.size() <= 4 && x.batch.axis == 0 && x.dims[0] == 1) {
    const int from = g.node_shaped(n, x, x.dims);
    out.node = g.add(n, Slice{axis == 1 ? part : SliceRange{}, axis == 2 ? part : SliceRange{},
                              axis == 3 ? part : SliceRange{}},
                     {from}, name);
    out.order = OnnxValue::Order::maps;
    return out;
  }
  // As memory has it: what lies before the axis are rows, the axis columns, what lies behind it channels.
  const int64_t places = x.dims[axis], before = product(x.dims, 0, size_t(axis)), behind = count(x.dims) / before / places;
  out.order = OnnxValue::Order::memory;
  if (g.in_memory_order(x))
    if (const int made = g.cut_before_transpose(n, x.node, {before, places, behind}, part, name); made >= 0) {
      out.node = made;
      return out;
    }
  const bool last = behind == 1, first = before == 1;
  const bool as_rows = first && g.shape(x.node).c == behind && g.shape(x.node).h == places && g.shape(x.node).w == 1;
  const int from = last ? g.rows(n, x) : g.memory_shaped(n, x, as_rows ? Shape{1, behind, places, 1} : Shape{1, behind, before, places});
  out.node = g.add(n, Slice{last ? part : SliceRange{}, !last && as_rows ? part : SliceRange{},
                            !last && !as_rows ? part : SliceRange{}},
                   {from}, name);
  return out;
}

struct SliceArguments {
  std::vector<int64_t> starts, ends, axes, steps;
};

// They became inputs with opset 10.
SliceArguments slice_arguments(OnnxGraph& g, const OnnxNode& n) {
  SliceArguments a;
  if (n.opset() < 10) {
    a.starts = n.integers("starts", {}), a.ends = n.integers("ends", {}), a.axes = n.integers("axes", {});
  } else {
    a.starts = g.ints(n, 1, "starts"), a.ends = g.ints(n, 2, "ends");
    if (n.has_input(3)) a.axes = g.ints(n, 3, "axes");
    if (n.has_input(4)) a.steps = g.ints(n, 4, "steps");
  }
  if (a.axes.empty())
    for (size_t i = 0; i < a.starts.size(); ++i) a.axes.push_back(int64_t(i));
  if (a.steps.empty()) a.steps.assign(a.starts.size(), 1);
  CHECK(a.starts.size() == a.ends.size() && a.starts.size() == a.axes.size() && a.starts.size() == a.steps.size(),
        "{} starts, {} ends, {} axes and {} steps", a.starts.size(), a.ends.size(), a.axes.size(), a.steps.size());
  return a;
}

OnnxConstant sliced(const OnnxConstant& x, int64_t axis, const OnnxRange& range) {
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < range.count; ++i) indices.push_back(range.begin + i * range.step);
  return take(x, axis, indices);
}

void slice(OnnxGraph& g, const OnnxNode& n) {
  const SliceArguments a = slice_arguments(g, n);
  OnnxValue x = g.value(n, 0);
  OnnxConstant constant = x.constant ? *x.constant : OnnxConstant{};
  for (size_t i = 0; i < a.axes.size(); ++i) {
    const int64_t axis = onnx_axis(a.axes[i], x.dims.size());
    const bool batch = axis == x.batch.axis && !x.constant;
    const int64_t size = batch ? g.batch * x.dims[axis] : x.dims[axis];
    const OnnxRange range = onnx_range(a.starts[i], a.ends[i], a.steps[i], size);
    if (x.constant) {
      constant = sliced(constant, axis, range);
    } else if (batch) {
      CHECK(range.count == size && (range.step == 1 || size == 1), "it cuts the batch");
    } else {
      x = cut(g, n, x, axis, range, "");
    }
  }
  if (x.constant)
    g.set(n, std::move(constant));
  else
    g.set(n, std::move(x));
}

void split(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = g.value(n, 0);
  const int64_t axis = onnx_axis(n.integer("axis", 0), x.dims.size()), size = x.dims[axis];
  const int64_t parts = n.outputs();
  n.ignore({"num_outputs"});
  std::vector<int64_t> lengths = n.has_input(1) ? g.ints(n, 1, "lengths") : n.integers("split", {});
  if (lengths.empty()) lengths.assign(parts, (size + parts - 1) / std::max<int64_t>(parts, 1));
  CHECK(int64_t(lengths.size()) == parts, "{} lengths for {} outputs", lengths.size(), parts);
  int64_t begin = 0;
  for (int i = 0; i < parts; ++i) {
    const int64_t length = std::min(lengths[i], size - begin);  // the last part may be smaller
    CHECK(length > 0, "part {} of {} has nothing of {} places", i, parts, size);
    const OnnxRange range{begin, length, 1};
    if (x.constant)
      g.set(n, sliced(*x.constant, axis, range), i);
    else if (!n.output(i).empty())
      g.set(n, cut(g, n, x, axis, range, n.output(i)), i);
    begin += length;
  }
  CHECK(begin == size, "its parts have {} of {} places", begin, size);
}

// As PyTorch's exporter writes as_strided: all values of the batch side by side, gathered to [N,…] by indices that count on from
// image to image. Where they leave an image's values in order, it is a reshape.
bool gather_all(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const OnnxConstant& which) {
  const int64_t images = g.batch == kOpenBatch ? kImagesTried : g.batch, values = x.dims[0];
  if (n.integer("axis", 0) != 0 || x.constant || x.dims.size() != 1 || x.batch != OnnxValue::Batch{} || which.dims.size() < 2 || which.dims[0] != images ||
      which.count() != images * values)
    return false;
  const std::vector<int64_t>& indices = which.as_ints("its indices");
  for (int64_t i = 0; i < which.count(); ++i)
    if (indices[i] != i) return false;
  Dims dims = which.dims;
  dims[0] = 1;
  g.regroup(n, x, dims);
  return true;
}

void gather(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = g.value(n, 0);
  const OnnxConstant& which = g.constant(n, 1, "indices");
  if (gather_all(g, n, x, which)) return;
  const std::vector<int64_t>& indices = which.as_ints("its indices");
  const int64_t axis = onnx_axis(n.integer("axis", 0), x.dims.size()), size = x.dims[axis];
  CHECK(!indices.empty(), "it takes nothing");
  if (x.constant) {
    OnnxConstant y = take(*x.constant, axis, indices);
    if (which.dims.empty()) y.dims.erase(y.dims.begin() + axis);
    return g.set(n, std::move(y));
  }
  std::vector<int64_t> places = indices;
  bool even = true;  // with equal distances: a cut
  for (size_t i = 0; i < places.size(); ++i) {
    if (places[i] < 0) places[i] += size;
    CHECK(places[i] >= 0 && places[i] < size, "index {} of {}", indices[i], size);
    even = even && (i == 0 || (places[i] > places[i - 1] && places[i] - places[i - 1] == places[1] - places[0]));
  }
  const int64_t step = places.size() > 1 ? places[1] - places[0] : 1;
  const OnnxValue part = even ? cut(g, n, x, axis, {places[0], int64_t(places.size()), step}, "") : selected(g, n, x, axis, places);
  if (which.dims.size() == 1) return g.set(n, part);
  Dims dims = part.dims;  // the axis becomes those of the indices
  dims.erase(dims.begin() + axis);
  dims.insert(dims.begin() + axis, which.dims.begin(), which.dims.end());
  const int64_t more = int64_t(which.dims.size()) - 1;
  g.regroup(n, part, dims, {part.batch.axis > axis ? part.batch.axis + more : part.batch.axis, part.batch.before});
}

// The amounts before and behind each of four axes: attributes before opset 11, inputs since; 18 may name the axes.
std::vector<int64_t> pad_amounts(OnnxGraph& g, const OnnxNode& n, size_t rank) {
  const std::vector<int64_t> given = n.opset() < 11 ? n.integers(n.has("paddings") ? "paddings" : "pads", {}) : g.ints(n, 1, "amounts");
  if (!n.has_input(3)) return given;
  const std::vector<int64_t> axes = g.ints(n, 3, "axes");
  CHECK(given.size() == 2 * axes.size(), "{} amounts for {} axes", given.size(), axes.size());
  std::vector<int64_t> all(2 * rank, 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const size_t axis = size_t(onnx_axis(axes[i], rank));
    all[axis] = given[i], all[rank + axis] = given[axes.size() + i];
  }
  return all;
}

// What lies beside the places of one axis, if not a constant: the places that a padded axis is made of.
std::vector<int64_t> padded_places(int64_t size, int64_t before, int64_t behind, const std::string& mode) {
  CHECK(mode != "reflect" || std::max(before, behind) < size, "{} and {} reflected places beside {}", before, behind, size);
  std::vector<int64_t> places;
  for (int64_t i = -before; i < size + behind; ++i)
    places.push_back(mode == "edge"   ? std::clamp<int64_t>(i, 0, size - 1)
                     : mode == "wrap" ? ((i % size) + size) % size
                     : i < 0          ? -i
                     : i < size       ? i
                                      : 2 * (size - 1) - i);
  return places;
}

void pad(OnnxGraph& g, const OnnxNode& n) {
  OnnxValue x = g.value(n, 0);
  const size_t rank = x.dims.size();
  std::vector<int64_t> amounts = pad_amounts(g, n, rank);
  const std::string mode = n.text("mode", "constant");
  CHECK(amounts.size() == 2 * rank, "{} amounts for {} dimensions", amounts.size(), rank);
  check_sizes(amounts, "an amount", -kMostOnnxSize);
  CHECK(mode == "constant" || mode == "reflect" || mode == "edge" || mode == "wrap",
        "mode {} (supported: constant, reflect, edge, wrap)", printable(mode));
  const float value = mode != "constant" ? 0 : n.has_input(2) && n.opset() >= 11 ? g.scalar(n, 2, "value") : n.real("value", 0);
  if (std::ranges::all_of(amounts, [](int64_t amount) { return amount == 0; }))  // exporters write it where sizes need none
    return n.ignore({"value"}), identity(g, n);
  const size_t batch = size_t(x.batch.axis);
  CHECK(amounts[batch] == 0 && amounts[rank + batch] == 0, "it pads the batch");
  const bool map = rank <= 4 && batch == 0 && x.dims[0] == 1;
  const bool channels = rank > 1 && (amounts[1] != 0 || amounts[rank + 1] != 0);
  if (mode == "wrap" || (mode != "constant" && (channels || !map))) {
    for (size_t axis = 0; axis < rank; ++axis)
      if (amounts[axis] != 0 || amounts[rank + axis] != 0) {
        const std::vector<int64_t> places = padded_places(x.dims[axis], amounts[axis], amounts[rank + axis], mode);
        CHECK(!places.empty(), "nothing is left of axis {}", axis);
        x = selected(g, n, x, int64_t(axis), places);
      }
    return g.set(n, x);
  }
  CHECK(map, "of {}: with a constant, maps, signals and vectors can be padded", g.text(x.dims));
  Dims dims = x.dims;  // of a map: behind the last axis are places of one
  dims.resize(4, 1);
  std::vector<int64_t> all(8, 0);
  for (size_t axis = 0; axis < rank; ++axis) all[axis] = amounts[axis], all[4 + axis] = amounts[rank + axis];
  Pad layer{.top = all[2], .left = all[3], .bottom = all[6], .right = all[7], .front = all[1], .back = all[5]};
  layer.mode = mode == "constant" ? Pad::Mode::constant : mode == "edge" ? Pad::Mode::edge : Pad::Mode::reflect;
  layer.value = value;
  g.make(n, layer, {g.node_shaped(n, x, dims)}, rank);
}

void tile(OnnxGraph& g, const OnnxNode& n) {
  OnnxValue x = g.value(n, 0);
  const std::vector<int64_t> repeats = g.ints(n, 1, "repeats");
  CHECK(repeats.size() == x.dims.size(), "{} repeats for {}", repeats.size(), g.text(x.dims));
  check_sizes(repeats, "a repeat", 1);
  OnnxConstant c = x.constant ? *x.constant : OnnxConstant{};
  for (size_t axis = 0; axis < repeats.size(); ++axis) {
    if (repeats[axis] == 1) continue;
    std::vector<int64_t> indices(
        size_t(x.dims[axis] * std::min<int64_t>(repeats[axis], kMostOnnxSize / x.dims[axis] + 1)));
    for (size_t i = 0; i < indices.size(); ++i) indices[i] = int64_t(i) % x.dims[axis];
    if (x.constant)
      c = take(c, int64_t(axis), indices);
    else
      x = selected(g, n, x, int64_t(axis), indices);
  }
  x.constant ? g.set(n, std::move(c)) : g.set(n, std::move(x));
}

// Rows of the first axes, which indices [...,k] name together.
void gather_nd(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = g.value(n, 0);
  CHECK(!x.constant, "its input is constant");
  CHECK(n.integer("batch_dims", 0) == 0, "batch_dims {} of data", n.integer("batch_dims", 0));
  const OnnxConstant& indices = g.constant(n, 1, "indices");
  const std::vector<int64_t> at = indices.as_ints("indices");
  const size_t k = indices.dims.empty() ? 0 : size_t(indices.dims.back());
  CHECK(k >= 1 && k <= x.dims.size() && !at.empty(), "indices of {} into {}", to_string(indices.dims), g.text(x.dims));
  const int64_t rows = product(x.dims, 0, k), wanted = int64_t(at.size() / k);
  CHECK(size_t(x.batch.axis) >= k, "it moves the images of a batch");
  check_sizes({wanted}, "a number of places", 1);
  std::vector<int64_t> row_of(size_t(wanted), 0);
  for (int64_t i = 0; i < wanted; ++i)
    for (size_t axis = 0; axis < k; ++axis) {
      const int64_t place = at[size_t(i) * k + axis], size = x.dims[axis];
      CHECK(place >= -size && place < size, "index {} of {}", place, size);
      row_of[i] = row_of[i] * size + (place < 0 ? place + size : place);
    }
  OnnxValue merged = x;  // the axes that are named, as one
  merged.dims.erase(merged.dims.begin(), merged.dims.begin() + int64_t(k));
  merged.dims.insert(merged.dims.begin(), rows);
  merged.batch.axis -= int64_t(k) - 1;
  const OnnxValue part = selected(g, n, merged, 0, row_of);
  Dims dims(indices.dims.begin(), indices.dims.end() - 1);
  const int64_t more = int64_t(dims.size()) - 1;
  dims.insert(dims.end(), part.dims.begin() + 1, part.dims.end());
  g.regroup(n, part, dims, {part.batch.axis + more, part.batch.before});
}

// x's channels by their numbers. One that is named again begins another part; -1 where that would be many.
int take_channels(OnnxGraph& g, const OnnxNode& n, int from, const std::vector<int64_t>& indices) {
  constexpr size_t kMostParts = 8;
  std::vector<std::vector<int64_t>> parts(1);
  std::set<int64_t> seen;
  for (const int64_t i : indices) {
    if (!seen.insert(i).second) {
      if (parts.size() == kMostParts) return -1;
      parts.emplace_back();
      seen = {i};
    }
    parts.back().push_back(i);
  }
  if (parts.size() == 1) return g.add(n, Take{.c = indices}, {from});
  std::vector<int> nodes;
  for (std::vector<int64_t>& part : parts) nodes.push_back(g.add(n, Take{.c = std::move(part)}, {from}, n.name() + ".part"));
  return g.add(n, Concat{}, nodes);
}

}  // namespace

OnnxValue selected(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, int64_t axis, const std::vector<int64_t>& indices) {
  CHECK(axis != x.batch.axis, "it moves the images of a batch");
  check_sizes({int64_t(indices.size())}, "a number of places", 1);
  OnnxValue out = x;
  out.dims[axis] = int64_t(indices.size());
  if (!g.in_memory_order(x) && x.dims.size() <= 4 && x.batch.axis == 0 && x.dims[0] == 1) {
    const int from = g.node_shaped(n, x, x.dims);
    out.order = OnnxValue::Order::maps;
    out.node = axis == 1 ? take_channels(g, n, from, indices)
                         : g.add(n, axis == 2 ? Take{.h = indices} : Take{.w = indices}, {from});
    if (out.node >= 0) return out;
  }
  // As memory has it (cut, above). The last axis are channels.
  out.order = OnnxValue::Order::memory;
  const int64_t places = x.dims[axis], before = product(x.dims, 0, size_t(axis)), behind = count(x.dims) / before / places;
  if (behind == 1 && before > 1)
    if (out.node = take_channels(g, n, g.rows(n, x), indices); out.node >= 0) return out;
  if (before == 1) out.node = g.add(n, Take{.h = indices}, {g.memory_shaped(n, x, {1, behind, places, 1})});
  else out.node = g.add(n, Take{.w = indices}, {g.memory_shaped(n, x, {1, behind, before, places})});
  return out;
}

const OnnxOperators& onnx_movements() {
  static const OnnxOperators operators = {
      {"Concat", concat}, {"Gather", gather}, {"GatherND", gather_nd}, {"Pad", pad}, {"Slice", slice}, {"Split", split}, {"Tile", tile}};
  return operators;
}

}  // namespace switchback
