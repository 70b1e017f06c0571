// ONNX operators that move elements, cut and join tensors, and compute sizes.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_graph.h"

namespace switchback {
namespace {

// ---- the same elements in other dims

void identity(OnnxGraph& g, const OnnxNode& n) { g.set(n, g.value(n, 0)); }

void dropout(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"ratio", "seed", "is_test"});
  if (n.has_input(2)) CHECK(g.scalar(n, 2, "training mode") == 0, "only dropouts at inference are supported");
  identity(g, n);
}

void set_regrouped(OnnxGraph& g, const OnnxNode& n, Dims dims) {
  const OnnxValue x = g.value(n, 0);
  if (!x.constant) return g.regroup(n, x, std::move(dims));
  OnnxConstant same = *x.constant;
  same.dims = std::move(dims);
  g.set(n, std::move(same));
}

void flatten(OnnxGraph& g, const OnnxNode& n) {
  const Dims x = g.value(n, 0).dims;
  int64_t axis = n.integer("axis", 1);
  if (axis < 0) axis += int64_t(x.size());
  CHECK(axis >= 0 && axis <= int64_t(x.size()), "axis {} of {}", axis, to_string(x));
  CHECK(axis > 0 || g.value(n, 0).constant || g.batch == 1, "axis 0: it mixes the images of a batch");
  Dims dims{1, 1};
  for (size_t i = 0; i < x.size(); ++i) dims[int64_t(i) < axis ? 0 : 1] *= x[i];
  set_regrouped(g, n, dims);
}

void reshape(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue& x = g.value(n, 0);
  std::vector<int64_t> to = n.has_input(1) ? g.ints(n, 1, "shape") : n.integers("shape", {});
  for (size_t i = 0; i < to.size(); ++i)
    CHECK(to[i] == 0 || to[i] % kOpenBatch != 0 || (i == 0 && to[0] == kOpenBatch),
          "a reshape of {} that joins the batch with another axis: it mixes the images of a batch", g.text(x.dims));
  const bool data = !x.constant && !to.empty();
  if (data && g.batch > 1 && to[0] == 1) {
    // An exporter that saw one image may write down its 1 though it leaves the batch open.
    CHECK(g.batch == kOpenBatch, "a reshape of {} to {}: it mixes the images of a batch", g.text(x.dims), to_string(to));
    g.warnings.push_back(fmt::format("node '{}' reshapes a batch to [{}]: it was written for one image, and each is read "
                                     "by itself", printable(n.name()), fmt::join(to, ",")));
  }
  // A batch that the exporter fixed is as open as any other.
  if (!to.empty() && (to[0] == kOpenBatch || (data && to[0] == g.batch))) to[0] = 1;
  set_regrouped(g, n, onnx_reshape(x.dims, std::move(to), n.integer("allowzero", 0) != 0));
}

// The axes became an input with opset 13.
std::vector<int64_t> read_axes(OnnxGraph& g, const OnnxNode& n) {
  return n.has_input(1) ? g.ints(n, 1, "axes") : n.integers("axes", {});
}

void squeeze(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue& x = g.value(n, 0);
  std::set<int64_t> gone;
  for (int64_t axis : read_axes(g, n)) gone.insert(onnx_axis(axis, x.dims.size()));
  const bool all = gone.empty();
  Dims dims;
  for (size_t i = 0; i < x.dims.size(); ++i) {
    const bool batch = i == 0 && !x.constant;
    const bool goes = all ? x.dims[i] == 1 && !batch : gone.contains(int64_t(i));
    CHECK(!goes || x.dims[i] == 1, "axis {} of {} is not 1", i, to_string(x.dims));
    CHECK(!goes || !batch, "axis 0 is the batch");
    if (!goes) dims.push_back(x.dims[i]);
  }
  set_regrouped(g, n, dims);
}

void unsqueeze(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue& x = g.value(n, 0);
  const std::vector<int64_t> axes = read_axes(g, n);
  const size_t rank = x.dims.size() + axes.size();
  CHECK(rank <= 8, "a tensor with {} dimensions", rank);
  std::set<int64_t> added;
  for (int64_t axis : axes) added.insert(onnx_axis(axis, rank));
  CHECK(added.size() == axes.size(), "an axis is named twice");
  Dims dims;
  size_t next = 0;
  for (size_t i = 0; i < rank; ++i) dims.push_back(added.contains(int64_t(i)) ? 1 : x.dims[next++]);
  CHECK(x.constant || !added.contains(0), "axis 0 is the batch");
  set_regrouped(g, n, dims);
}

void transpose(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = g.value(n, 0);
  std::vector<int64_t> backwards(x.dims.size());
  for (size_t i = 0; i < backwards.size(); ++i) backwards[i] = int64_t(backwards.size() - 1 - i);
  const std::vector<int64_t> axes = n.integers("perm", backwards);
  if (x.constant) return g.set(n, transposed(*x.constant, axes));
  check_permutation(axes, x.dims.size());
  CHECK(axes[0] == 0, "it moves the batch");
  // Axes of one place can go anywhere.
  std::vector<int64_t> moved, dims;
  for (int64_t axis : axes) {
    dims.push_back(x.dims[axis]);
    if (dims.back() != 1) moved.push_back(axis);
  }
  if (std::is_sorted(moved.begin(), moved.end())) return g.regroup(n, x, dims);
  if (axes == std::vector<int64_t>{0, 2, 1, 3, 4}) {  // [groups, channels of each]: a channel shuffle
    const Dims& d = x.dims;
    const int map = g.node_shaped(n, x, {1, d[1] * d[2], d[3], d[4]});
    return g.set(n, OnnxValue{nullptr, g.add(n, ChannelShuffle{d[1]}, {map}), {1, d[2], d[1], d[3], d[4]}});
  }
  CHECK(axes.size() <= 4, "axes {}; of five dimensions only the channel shuffle 0,2,1,3,4 is supported", to_string(axes));
  Permute layer;
  for (size_t i = 1; i < axes.size(); ++i) layer.axes[i - 1] = axes[i];
  g.make(n, layer, {g.node(n, 0)}, axes.size());
}

// ---- cutting and joining

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
    std::vector<float> all(size_t(total_ * place), 0.f);
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

void concat(OnnxGraph& g, const OnnxNode& n) {
  const int64_t axis = onnx_axis(n.integer("axis", 1), g.value(n, 0).dims.size());
  if (g.all_constant(n)) {
    std::vector<const OnnxConstant*> parts;
    for (int i = 0; i < n.inputs(); ++i) parts.push_back(g.value(n, i).constant.get());
    return g.set(n, concatenated(parts, axis));
  }
  if (n.inputs() == 1) return identity(g, n);
  Joining(g, n, axis).run();
}

// Of an input-dependent tensor: `range` of its axis `axis`.
OnnxValue cut(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, int64_t axis, const OnnxRange& range,
              const std::string& name) {
  CHECK(axis > 0, "it cuts the batch");
  CHECK(range.count > 0, "nothing is left of axis {}", axis);
  CHECK(range.step > 0 || range.count == 1, "a step of {} on axis {} (positive ones are supported)", range.step, axis);
  if (range.count == x.dims[axis] && range.step == 1) return x;
  const SliceRange part{range.begin, range.begin + (range.count - 1) * std::max<int64_t>(range.step, 1) + 1,
                        std::max<int64_t>(range.step, 1)};
  const int from = g.node_shaped(n, x, x.dims);
  const int made = g.add(n, Slice{axis == 1 ? part : SliceRange{}, axis == 2 ? part : SliceRange{},
                                  axis == 3 ? part : SliceRange{}},
                         {from}, name);
  Dims dims = x.dims;
  dims[axis] = range.count;
  return {nullptr, made, dims};
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
    const bool batch = axis == 0 && !x.constant;
    const int64_t size = batch ? g.batch : x.dims[axis];
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
  if (lengths.empty()) lengths.assign(size_t(parts), (size + parts - 1) / std::max<int64_t>(parts, 1));
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

void gather(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = g.value(n, 0);
  const OnnxConstant& which = g.constant(n, 1, "indices");
  const std::vector<int64_t>& indices = which.as_ints("its indices");
  const int64_t axis = onnx_axis(n.integer("axis", 0), x.dims.size()), size = x.dims[axis];
  CHECK(which.dims.size() <= 1 && !indices.empty(), "indices of dimensions {}", to_string(which.dims));
  if (x.constant) {
    OnnxConstant y = take(*x.constant, axis, indices);
    if (which.dims.empty()) y.dims.erase(y.dims.begin() + axis);
    return g.set(n, std::move(y));
  }
  const int64_t first = indices[0] < 0 ? indices[0] + size : indices[0];
  const int64_t step = indices.size() > 1 ? indices[1] - indices[0] : 1;
  for (size_t i = 0; i < indices.size(); ++i) {
    const int64_t place = indices[i] < 0 ? indices[i] + size : indices[i];
    CHECK(place >= 0 && place < size && place == first + int64_t(i) * step && step > 0,
          "indices {}; on data only such with equal distances are supported", to_string(indices));
  }
  const OnnxValue part = cut(g, n, x, axis, {first, int64_t(indices.size()), step}, "");
  if (!which.dims.empty()) return g.set(n, part);
  Dims dims = part.dims;
  dims.erase(dims.begin() + axis);
  g.regroup(n, part, dims);
}

// The amounts before and behind each of four axes: attributes before opset 11, inputs since; 18 may name the axes.
std::vector<int64_t> pad_amounts(OnnxGraph& g, const OnnxNode& n, size_t rank) {
  const std::vector<int64_t> given = n.opset() < 11 ? n.integers("pads", {}) : g.ints(n, 1, "amounts");
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

void pad(OnnxGraph& g, const OnnxNode& n) {
  g.map_dims(n, 0);
  const std::vector<int64_t> amounts = pad_amounts(g, n, 4);
  CHECK(amounts.size() == 8, "{} amounts for 4 dimensions", amounts.size());
  check_sizes(amounts, "an amount", -kMostOnnxSize);
  CHECK(amounts[0] == 0 && amounts[4] == 0, "it pads the batch");
  const std::string mode = n.text("mode", "constant");
  CHECK(mode == "constant" || mode == "reflect" || mode == "edge", "mode {} (supported: constant, reflect, edge)",
        printable(mode));
  Pad layer{.top = amounts[2], .left = amounts[3], .bottom = amounts[6], .right = amounts[7], .front = amounts[1],
            .back = amounts[5]};
  layer.mode = mode == "constant" ? Pad::Mode::constant : mode == "edge" ? Pad::Mode::edge : Pad::Mode::reflect;
  if (mode == "constant") layer.value = n.has_input(2) && n.opset() >= 11 ? g.scalar(n, 2, "value") : n.real("value", 0);
  g.make(n, layer, {g.node(n, 0)});
}

// ---- sizes of maps

Resize::Coordinates coordinates(const std::string& name) {
  using enum Resize::Coordinates;
  if (name == "half_pixel") return half_pixel;
  if (name == "half_pixel_symmetric") return half_pixel_symmetric;
  if (name == "pytorch_half_pixel") return pytorch_half_pixel;
  if (name == "align_corners") return align_corners;
  if (name == "asymmetric") return asymmetric;
  CHECK(name == "tf_half_pixel_for_nn",
        "coordinates {} (supported: half_pixel, half_pixel_symmetric, pytorch_half_pixel, align_corners, asymmetric, "
        "tf_half_pixel_for_nn)", printable(name));
  return tf_half_pixel_for_nn;
}

Resize::Rounding rounding(const std::string& name) {
  using enum Resize::Rounding;
  if (name == "floor") return floor;
  if (name == "ceil") return ceil;
  if (name == "round_prefer_ceil") return round_prefer_ceil;
  CHECK(name == "round_prefer_floor", "nearest_mode {} is unknown", printable(name));
  return round_prefer_floor;
}

void set_mode(Resize& layer, const std::string& mode) {
  CHECK(mode == "nearest" || mode == "linear" || mode == "cubic", "mode {} (supported: nearest, linear, cubic)",
        printable(mode));
  layer.mode = mode == "linear" ? Resize::Mode::bilinear : mode == "cubic" ? Resize::Mode::bicubic : Resize::Mode::nearest;
}

void set_scales(Resize& layer, const std::vector<float>& scales) {
  CHECK(scales.size() == 4 && scales[0] == 1 && scales[1] == 1, "scales [{}]: rows and columns can be scaled",
        fmt::join(scales, ","));
  for (float s : {scales[2], scales[3]}) CHECK(s > 0 && s <= 1024, "a scale of {}", s);
  layer.scale_h = scales[2], layer.scale_w = scales[3];
}

// Opset 18 may name the axes that `given` is about; the others stay as `otherwise` has them.
template <typename T>
std::vector<T> for_all_axes(const OnnxNode& n, const std::vector<T>& given, std::vector<T> otherwise) {
  if (!n.has("axes")) return given;
  const std::vector<int64_t> axes = n.integers("axes", {});
  CHECK(given.size() == axes.size(), "{} numbers for {} axes", given.size(), axes.size());
  for (size_t i = 0; i < axes.size(); ++i) otherwise[onnx_axis(axes[i], otherwise.size())] = given[i];
  return otherwise;
}

void resize(OnnxGraph& g, const OnnxNode& n) {
  const Dims x = g.map_dims(n, 0);
  Resize layer;
  set_mode(layer, n.text("mode", "nearest"));
  n.ignore({"extrapolation_value"});  // of a mode that is refused
  layer.cubic_coeff = n.real("cubic_coeff_a", -0.75f);
  layer.exclude_outside = n.integer("exclude_outside", 0) != 0 && layer.mode == Resize::Mode::bicubic;
  CHECK(std::abs(layer.cubic_coeff) <= 16, "cubic_coeff_a {}", layer.cubic_coeff);
  CHECK(n.integer("antialias", 0) == 0, "antialias is not supported");
  if (n.opset() < 11) {
    layer.coordinates = Resize::Coordinates::asymmetric;
    layer.rounding = Resize::Rounding::floor;
    set_scales(layer, g.constant(n, 1, "scales").as_floats());
    g.make(n, layer, {g.node(n, 0)});
    return;
  }
  layer.coordinates = coordinates(n.text("coordinate_transformation_mode", "half_pixel"));
  layer.rounding = rounding(n.text("nearest_mode", "round_prefer_floor"));
  if (n.has_input(3)) {
    const std::vector<int64_t> to = for_all_axes(n, g.ints(n, 3, "sizes"), {g.batch, x[1], x[2], x[3]});
    const std::string policy = n.text("keep_aspect_ratio_policy", "stretch");
    CHECK(policy == "stretch", "keep_aspect_ratio_policy {} (supported: stretch)", printable(policy));
    check_sizes(to, "a size", 1);
    CHECK(to.size() == 4 && (to[0] == g.batch || (to[0] == 1 && g.batch == kOpenBatch)) && to[1] == x[1],
          "sizes {} of {}: rows and columns can be scaled", to_string(to), to_string(x));
    layer.out_h = to[2], layer.out_w = to[3];
  } else {
    n.ignore({"keep_aspect_ratio_policy"});  // of sizes
    set_scales(layer, for_all_axes<float>(n, g.constant(n, 2, "scales").as_floats(), {1, 1, 1, 1}));
  }
  g.make(n, layer, {g.node(n, 0)});
}

void upsample(OnnxGraph& g, const OnnxNode& n) {  // Resize's ancestor, to opset 9
  g.map_dims(n, 0);
  Resize layer;
  set_mode(layer, n.text("mode", "nearest"));
  set_scales(layer, g.constant(n, 1, "scales").as_floats());
  g.make(n, layer, {g.node(n, 0)});
}

// ---- constants

void constant(OnnxGraph& g, const OnnxNode& n) { g.set(n, n.constant()); }

void constant_of_shape(OnnxGraph& g, const OnnxNode& n) {
  std::vector<int64_t> dims = g.ints(n, 0, "dimensions");
  if (!dims.empty() && dims[0] == kOpenBatch) dims[0] = 1;  // the same for every image
  g.set(n, filled(n.constant(), dims));
}

void expand(OnnxGraph& g, const OnnxNode& n) {
  std::vector<int64_t> dims = g.ints(n, 1, "dimensions");
  const OnnxConstant& x = g.constant(n, 0, "values");
  if (!dims.empty() && dims[0] == kOpenBatch) dims[0] = 1;
  OnnxConstant one = converted(OnnxConstant{.dims = {}, .whole = false, .floats = {1}, .ints = {}}, x.whole);
  g.set(n, combined(BinaryFunction::mul, x, filled(one, dims)));
}

void shape(OnnxGraph& g, const OnnxNode& n) {
  Dims dims = g.value(n, 0).dims;
  if (!g.value(n, 0).constant) dims[0] = g.batch;
  const int64_t rank = int64_t(dims.size());
  const OnnxRange range = onnx_range(n.integer("start", 0), n.integer("end", rank), 1, rank);
  OnnxConstant sizes{.dims = {range.count}, .whole = true, .floats = {}, .ints = {}};
  sizes.ints.assign(dims.begin() + range.begin, dims.begin() + range.begin + range.count);
  g.set(n, std::move(sizes));
}

void cast(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"saturate", "round_mode"});  // of types with 8 bits
  enum { kFloat = 1, kInt32 = 6, kInt64 = 7, kFloat16 = 10, kDouble = 11, kBfloat16 = 16 };
  const int64_t to = n.integer("to", 0);
  const bool whole = to == kInt32 || to == kInt64;
  CHECK(whole || to == kFloat || to == kFloat16 || to == kDouble || to == kBfloat16, "to type {}", to);
  const OnnxValue& x = g.value(n, 0);
  if (x.constant) return g.set(n, converted(*x.constant, whole));
  CHECK(!whole, "of data to whole numbers");
  identity(g, n);
}

}  // namespace

const OnnxOperators& onnx_movements() {
  static const OnnxOperators operators = {
      {"Cast", cast}, {"Concat", concat}, {"Constant", constant}, {"ConstantOfShape", constant_of_shape},
      {"Dropout", dropout}, {"Expand", expand}, {"Flatten", flatten}, {"Gather", gather}, {"Identity", identity},
      {"Pad", pad},
      {"Reshape", reshape}, {"Resize", resize}, {"Shape", shape}, {"Slice", slice}, {"Split", split},
      {"Squeeze", squeeze}, {"Transpose", transpose}, {"Unsqueeze", unsqueeze}, {"Upsample", upsample}};
  return operators;
}

}  // namespace switchback
