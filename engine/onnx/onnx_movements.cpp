// ONNX operators that move elements, cut and join tensors, and compute sizes.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
namespace {

// ---- the same elements in other dims

void identity(OnnxGraph& g, const OnnxNode& n) { g.set(n, g.value(n, 0)); }

void dropout(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"ratio", "seed", "is_test"});
  if (n.has_input(2)) CHECK(g.scalar(n, 2, "training mode") == 0, "only dropouts at inference are supported");
  identity(g, n);
}

void set_regrouped(OnnxGraph& g, const OnnxNode& n, Dims dims, OnnxValue::Batch batch = {}) {
  const OnnxValue x = g.value(n, 0);
  if (!x.constant) return g.regroup(n, x, std::move(dims), batch);
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

OnnxValue::Order memory_or_maps(const OnnxGraph& g, int node) {
  return g.alike(node) ? OnnxValue::Order::maps : OnnxValue::Order::memory;
}

// Where the batch is behind a reshape of data; of that axis' size, only what one image has of it stays in `to`.
OnnxValue::Batch take_batch(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, std::vector<int64_t>& to, bool zero_is_zero) {
  // What lies outside the batch is as much before as behind the reshape.
  const int64_t outside = product(x.dims, 0, size_t(x.batch.axis)) * x.batch.before, all = count(x.dims);
  const auto size_of = [&](size_t k) { return to[k] == 0 && !zero_is_zero && k < x.dims.size() ? x.dims[k] : to[k]; };
  // Sizes outside axis i if it is the batch's; -1 is what the others leave.
  const auto sizes_before = [&](size_t i) {
    int64_t sizes = 1, rest = 1;
    bool open = false;
    for (size_t k = 0; k < to.size(); ++k) {
      int64_t size = size_of(k);
      if (k == i && to[k] > 0 && g.batch > 1 && size % g.batch == 0) size /= g.batch;
      if (size == -1) open = open || k < i;
      else if (size > 0 && rest <= kMostOnnxSize * kMostOnnxSize / size) rest *= size;
      if (size > 0 && k < i && sizes <= kMostOnnxSize * kMostOnnxSize / size) sizes *= size;
    }
    return open ? sizes * std::max<int64_t>(all / rest, 1) : sizes;
  };
  const auto fits = [&](size_t i) {
    const int64_t before = sizes_before(i);
    if (before <= 0 || outside % before != 0) return false;
    int64_t size = size_of(i);
    if (to[i] > 0 && g.batch > 1 && size % g.batch == 0) size /= g.batch;
    return size == -1 || size % (outside / before) == 0;
  };
  const auto takes = [&](size_t i) {  // the batch's own size
    if (to[i] == 0 && !zero_is_zero) return int64_t(i) == x.batch.axis;
    return to[i] == -1 || (to[i] > 0 && g.batch > 1 && to[i] % g.batch == 0);
  };
  const auto exactly = [&](size_t i) { return fits(i) && sizes_before(i) == outside; };
  int64_t found = -1;
  const auto look = [&](const auto& right) {
    for (size_t i = 0; found < 0 && i < to.size(); ++i)
      if (right(i)) found = int64_t(i);
  };
  if (g.batch == kOpenBatch) look([&](size_t i) { return to[i] != -1 && takes(i); });
  look([&](size_t i) { return to[i] != -1 && takes(i) && exactly(i); });
  const bool for_one = g.batch == kOpenBatch && found < 0 && outside == 1 && !to.empty() && to[0] == 1;  // [1,-1]
  if (for_one) found = 0;
  look([&](size_t i) { return takes(i) && exactly(i); });
  look([&](size_t i) { return takes(i) && fits(i); });
  const bool written = found >= 0 && !for_one;
  if (g.batch == 1 || g.batch == kOpenBatch) {  // one image, or an exporter that saw one
    look(exactly);
    look(fits);
  }
  CHECK(found >= 0 && fits(size_t(found)), "a reshape of {} to {}: it mixes the images of a batch", g.text(x.dims), to_string(to));
  if (!written && g.batch == kOpenBatch)
    g.warnings.push_back(fmt::format("node '{}' reshapes a batch to [{}]: it was written for one image, and each is read "
                                     "by itself", printable(n.name()), fmt::join(to, ",")));
  const OnnxValue::Batch batch{found, outside / sizes_before(size_t(found))};
  // A batch that the exporter fixed is as open as any other.
  if (written && g.batch > 1 && to[size_t(found)] > 0) to[size_t(found)] /= g.batch;
  return batch;
}

void reshape(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue& x = g.value(n, 0);
  std::vector<int64_t> to = n.has_input(1) ? g.ints(n, 1, "shape") : n.integers("shape", {});
  const bool zero_is_zero = n.integer("allowzero", 0) != 0;
  OnnxValue::Batch batch;
  if (!x.constant && !to.empty()) {
    batch = take_batch(g, n, x, to, zero_is_zero);
    for (size_t i = 0; i < to.size(); ++i)
      CHECK(to[i] <= 0 || to[i] % kOpenBatch != 0,
            "a reshape of {} that joins the batch with another axis: it mixes the images of a batch", g.text(x.dims));
  } else if (!to.empty() && to[0] == kOpenBatch) {
    to[0] = 1;
  }
  set_regrouped(g, n, onnx_reshape(x.dims, std::move(to), zero_is_zero), batch);
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
  int64_t batch_axis = 0;
  for (size_t i = 0; i < x.dims.size(); ++i) {
    const bool batch = int64_t(i) == x.batch.axis && !x.constant;
    const bool goes = all ? x.dims[i] == 1 && !batch : gone.contains(int64_t(i));
    CHECK(!goes || x.dims[i] == 1, "axis {} of {} is not 1", i, to_string(x.dims));
    CHECK(!goes || !batch, "axis {} is the batch", i);
    if (batch) batch_axis = int64_t(dims.size());
    if (!goes) dims.push_back(x.dims[i]);
  }
  set_regrouped(g, n, dims, {batch_axis, x.batch.before});
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
  int64_t batch_axis = 0;
  for (size_t i = 0; i < rank; ++i) {
    const bool fresh = added.contains(int64_t(i));
    if (!fresh && int64_t(next) == x.batch.axis) batch_axis = int64_t(i);
    dims.push_back(fresh ? 1 : x.dims[next++]);
  }
  set_regrouped(g, n, dims, {batch_axis, x.batch.before});
}

// Of data in the order of memory, or of maps whose channels are whole axes: one layer, or none where only the order's name
// changes. Returns whether it was one of these.
bool transpose_rows(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const std::vector<int64_t>& axes, const Dims& dims,
                    OnnxValue::Batch batch) {
  const Shape has = g.shape(x.node);
  const bool in_memory = g.in_memory_order(x);
  const size_t rank = axes.size();
  size_t channels = 0;  // axes of maps that count the channels
  if (!in_memory) {
    int64_t size = 1;
    while (channels < rank && size < has.c) size *= x.dims[channels++];
    if (size != has.c) return false;
  }
  // The axes as memory has them: those of the channels behind the others.
  std::vector<int64_t> order, sizes, moved;
  for (size_t i = channels; i < rank; ++i) order.push_back(int64_t(i));
  for (size_t i = 0; i < channels; ++i) order.push_back(int64_t(i));
  for (int64_t axis : order) sizes.push_back(x.dims[size_t(axis)]);
  for (int64_t axis : axes) moved.push_back(std::ranges::find(order, axis) - order.begin());
  const auto unmoved = [&](size_t turn) {  // the result, read from axis `turn` on and round, is memory's order
    std::vector<int64_t> seen;
    for (size_t i = 0; i < rank; ++i)
      if (const int64_t axis = moved[(i + turn) % rank]; sizes[size_t(axis)] > 1) seen.push_back(axis);
    return std::is_sorted(seen.begin(), seen.end());
  };
  if (unmoved(0)) return g.set(n, OnnxValue{nullptr, x.node, dims, memory_or_maps(g, x.node), batch}), true;
  int64_t front = 1;
  for (size_t turn = 1; turn < rank; ++turn) {
    front *= dims[turn - 1];
    if (front == has.c && unmoved(turn))  // channels come first: a map again
      return g.set(n, OnnxValue{nullptr, x.node, dims, OnnxValue::Order::maps, batch}), true;
  }
  if (!in_memory && rank <= 4 && batch.axis == 0 && dims[0] == 1) return false;
  const int64_t columns = rank > 2 ? dims[rank - 2] : 1, c = dims.back();
  const int made = g.transposed(n, x.node, {sizes, moved, c, count(dims) / c / columns, columns});
  g.set(n, OnnxValue{nullptr, made, dims, memory_or_maps(g, made), batch});
  return true;
}

void transpose(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = g.value(n, 0);
  std::vector<int64_t> backwards(x.dims.size());
  for (size_t i = 0; i < backwards.size(); ++i) backwards[i] = int64_t(backwards.size() - 1 - i);
  const std::vector<int64_t> axes = n.integers("perm", backwards);
  if (x.constant) return g.set(n, transposed(*x.constant, axes));
  check_permutation(axes, x.dims.size());
  const OnnxValue::Batch batch{std::ranges::find(axes, x.batch.axis) - axes.begin(), x.batch.before};
  // Axes of one place can go anywhere.
  std::vector<int64_t> moved, dims;
  for (int64_t axis : axes) {
    dims.push_back(x.dims[axis]);
    if (dims.back() != 1) moved.push_back(axis);
  }
  if (std::is_sorted(moved.begin(), moved.end())) return g.regroup(n, x, dims, batch);
  if (!g.in_memory_order(x) && axes == std::vector<int64_t>{0, 2, 1, 3, 4}) {  // [groups, channels of each]: a channel shuffle
    const Dims& d = x.dims;
    const int map = g.node_shaped(n, x, {1, d[1] * d[2], d[3], d[4]});
    return g.set(n, OnnxValue{nullptr, g.add(n, ChannelShuffle{d[1]}, {map}), {1, d[2], d[1], d[3], d[4]}});
  }
  if (transpose_rows(g, n, x, axes, dims, batch)) return;
  if (axes.size() > 4 || batch.axis != 0 || dims[0] != 1 || axes[0] != 0) {
    OnnxValue turned = x;
    turned.node = g.memory_shaped(n, x, {1, x.dims.back(), count(x.dims) / x.dims.back(), 1});
    turned.order = OnnxValue::Order::memory;
    CHECK(transpose_rows(g, n, turned, axes, dims, batch), "axes {} of {}", to_string(axes), to_string(x.dims));
    return;
  }
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
            const float v = c.floats[size_t((row * c.dims[axis] + place) * behind + k)];
            const int64_t channel = tokens ? k : (first + place) * behind + k, at = tokens ? first + place : row;
            sum.values[size_t(channel * sum.shape.h * sum.shape.w + at)] = v;
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

// As PyTorch's exporter writes as_strided: all values of the batch side by side, gathered to [N,…] by indices that count on from
// image to image. Where they leave an image's values in order, it is a reshape.
bool gather_all(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const OnnxConstant& which) {
  const int64_t images = g.batch == kOpenBatch ? kImagesTried : g.batch, values = x.dims[0];
  if (n.integer("axis", 0) != 0 || x.constant || x.dims.size() != 1 || x.batch != OnnxValue::Batch{} || which.dims.size() < 2 || which.dims[0] != images ||
      which.count() != images * values)
    return false;
  const std::vector<int64_t>& indices = which.as_ints("its indices");
  for (int64_t i = 0; i < which.count(); ++i)
    if (indices[size_t(i)] != i) return false;
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
  CHECK(which.dims.size() <= 1 && !indices.empty(), "indices of dimensions {}", to_string(which.dims));
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
  if (!which.dims.empty()) return g.set(n, part);
  Dims dims = part.dims;
  dims.erase(dims.begin() + axis);
  g.regroup(n, part, dims, {part.batch.axis > axis ? part.batch.axis - 1 : part.batch.axis, part.batch.before});
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

void pad(OnnxGraph& g, const OnnxNode& n) {
  const std::vector<int64_t> all = pad_amounts(g, n, g.value(n, 0).dims.size());
  if (std::ranges::all_of(all, [](int64_t amount) { return amount == 0; })) {  // exporters write it where sizes need none
    n.ignore({"mode", "value"});
    return identity(g, n);
  }
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
    std::vector<int64_t> to = for_all_axes(n, g.ints(n, 3, "sizes"), {g.batch, x[1], x[2], x[3]});
    check_sizes(to, "a size", 1);
    CHECK(to.size() == 4 && (to[0] == g.batch || (to[0] == 1 && g.batch == kOpenBatch)) && to[1] == x[1],
          "sizes {} of {}: rows and columns can be scaled", to_string(to), to_string(x));
    const std::string policy = n.text("keep_aspect_ratio_policy", "stretch");
    if (policy != "stretch") {  // one scale for rows and columns
      CHECK(policy == "not_larger" || policy == "not_smaller", "keep_aspect_ratio_policy {} is unknown", printable(policy));
      const double rows = double(to[2]) / double(x[2]), columns = double(to[3]) / double(x[3]);
      const double scale = policy == "not_larger" ? std::min(rows, columns) : std::max(rows, columns);
      for (size_t i : {2, 3}) to[i] = int64_t(std::floor(scale * double(x[i]) + 0.5));
      check_sizes(to, "a size", 1);
    }
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
  set_scales(layer, n.has("height_scale") ? std::vector<float>{1, 1, n.real("height_scale", 1), n.real("width_scale", 1)}  // opset 1
                                          : n.has("scales") ? n.reals("scales") : g.constant(n, 1, "scales").as_floats());
  g.make(n, layer, {g.node(n, 0)});
}

// ---- constants

void constant(OnnxGraph& g, const OnnxNode& n) { g.set(n, n.constant()); }

void constant_of_shape(OnnxGraph& g, const OnnxNode& n) {
  std::vector<int64_t> dims = g.ints(n, 0, "dimensions");
  if (!dims.empty() && dims[0] == kOpenBatch) dims[0] = 1;  // the same for every image
  g.set(n, filled(n.constant(), dims));
}

// Of data (constants: onnx_compute.cpp): a product with ones of the larger shape.
void expand(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue x = g.value(n, 0);
  Dims to = g.ints(n, 1, "dimensions");
  const size_t rank = std::max(to.size(), x.dims.size()), batch = size_t(x.batch.axis) + rank - x.dims.size();
  CHECK(rank == x.dims.size() || g.batch == 1, "{} expanded to {}: it mixes the images of a batch", g.text(x.dims), to_string(to));
  to = padded(to, rank);
  if (g.batch > 1 && to[batch] % g.batch == 0) to[batch] /= g.batch;
  OnnxValue y = x;
  y.dims = padded(x.dims, rank);
  y.batch.axis = int64_t(batch);
  Dims full, part;  // neighbours that are both expanded, or both not, in one
  for (size_t i = 0; i < rank; ++i) {
    CHECK(to[i] == y.dims[i] || to[i] == 1 || (y.dims[i] == 1 && to[i] > 0 && (i != batch || g.batch == 1)),
          "{} expanded to {}", g.text(x.dims), to_string(to));
    const int64_t size = std::max(to[i], y.dims[i]);
    if (size > 1) {
      if (full.empty() || (part.back() == 1) != (y.dims[i] == 1)) full.push_back(1), part.push_back(1);
      full.back() *= size, part.back() *= y.dims[i];
    }
    y.dims[i] = size;
  }
  if (full == part) return g.set(n, y);
  CHECK(full.size() <= 3, "{} expanded to {}: along more than three groups of axes", g.text(x.dims), to_string(to));
  full = padded(full, 3), part = padded(part, 3);
  CHECK(count(full) <= kMostOnnxSize * 64, "{} expanded to {}", g.text(x.dims), to_string(to));
  const int from = g.memory_shaped(n, x, {1, part[2], part[0], part[1]});
  const BinaryConstant ones{BinaryFunction::mul, std::vector<float>(size_t(count(full)), 1.f), {1, full[2], full[0], full[1]}};
  y.node = g.add(n, ones, {from});
  y.order = OnnxValue::Order::memory;
  g.set(n, y);
}

// Channels [b,b,c] (DCR) or [c,b,b] (CRD) become b × b places: as memory has them, a transpose.
void depth_to_space(OnnxGraph& g, const OnnxNode& n) {
  const Dims x = g.map_dims(n, 0);
  const int64_t b = n.integer("blocksize", 0);
  const std::string mode = n.text("mode", "DCR");
  CHECK(b > 0 && b <= kMostOnnxSize && x[1] % (b * b) == 0, "blocks of {} for {} channels", b, x[1]);
  CHECK(mode == "DCR" || mode == "CRD", "mode {} is unknown", printable(mode));
  const int64_t c = x[1] / (b * b);
  Transpose layer{{x[2], x[3], b, b, c}, {0, 2, 1, 3, 4}, c, x[2] * b, x[3] * b};
  if (mode == "CRD") layer.sizes = {x[2], x[3], c, b, b}, layer.axes = {0, 3, 1, 4, 2};
  g.make(n, layer, {g.node(n, 0)});
}

void space_to_depth(OnnxGraph& g, const OnnxNode& n) {
  const Dims x = g.map_dims(n, 0);
  const int64_t b = n.integer("blocksize", 0);
  CHECK(b > 0 && x[2] % b == 0 && x[3] % b == 0, "blocks of {} for {}", b, g.text(x));
  const std::string mode = n.text("mode", "DCR");  // since opset 28
  CHECK(mode == "DCR" || mode == "CRD", "mode {} is unknown", printable(mode));
  Transpose layer{{x[2] / b, b, x[3] / b, b, x[1]}, {0, 2, 1, 3, 4}, b * b * x[1], x[2] / b, x[3] / b};
  if (mode == "CRD") layer.axes = {0, 2, 4, 1, 3};
  g.make(n, layer, {g.node(n, 0)});
}

void shape(OnnxGraph& g, const OnnxNode& n) {
  Dims dims = g.value(n, 0).dims;
  if (!g.value(n, 0).constant) dims[size_t(g.value(n, 0).batch.axis)] *= g.batch;
  const int64_t rank = int64_t(dims.size());
  const OnnxRange range = onnx_range(n.integer("start", 0), n.integer("end", rank), 1, rank);
  OnnxConstant sizes{.dims = {range.count}, .whole = true, .floats = {}, .ints = {}};
  sizes.ints.assign(dims.begin() + range.begin, dims.begin() + range.begin + range.count);
  g.set(n, std::move(sizes));
}

void size(OnnxGraph& g, const OnnxNode& n) {
  const OnnxValue& x = g.value(n, 0);
  g.set(n, OnnxConstant{.dims = {}, .whole = true, .floats = {}, .ints = {count(x.dims) * (x.constant ? 1 : g.batch)}});
}

void cast_like(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"saturate", "round_mode"});
  const OnnxValue &x = g.value(n, 0), &like = g.value(n, 1);
  const bool whole = like.constant && like.constant->whole;
  if (x.constant) return g.set(n, converted(*x.constant, whole));
  CHECK(!whole, "of data to whole numbers");
  identity(g, n);
}

void cast(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"saturate", "round_mode"});  // of types with 8 bits
  enum { kFloat = 1, kInt32 = 6, kInt64 = 7, kBool = 9, kFloat16 = 10, kDouble = 11, kBfloat16 = 16 };
  const int64_t to = n.integer("to", 0);
  const bool whole = to == kInt32 || to == kInt64 || to == kBool;
  CHECK(whole || to == kFloat || to == kFloat16 || to == kDouble || to == kBfloat16, "to type {}", to);
  const OnnxValue& x = g.value(n, 0);
  if (x.constant && to == kBool) {
    OnnxConstant y{.dims = x.constant->dims, .whole = true, .floats = {}, .ints = {}};
    for (float v : x.constant->as_floats()) y.ints.push_back(v != 0);
    return g.set(n, std::move(y));
  }
  if (x.constant) return g.set(n, converted(*x.constant, whole));
  CHECK(!whole, "of data to whole numbers");
  identity(g, n);
}

}  // namespace

const OnnxOperators& onnx_movements() {
  static const OnnxOperators operators = {
      {"Cast", cast}, {"CastLike", cast_like}, {"Concat", concat}, {"Constant", constant}, {"ConstantOfShape", constant_of_shape},
      {"DepthToSpace", depth_to_space}, {"Dropout", dropout}, {"Expand", expand}, {"Flatten", flatten}, {"Gather", gather}, {"Identity", identity},
      {"Pad", pad},
      {"Reshape", reshape}, {"Resize", resize}, {"Shape", shape}, {"Size", size}, {"Slice", slice}, {"SpaceToDepth", space_to_depth}, {"Split", split},
      {"Squeeze", squeeze}, {"Transpose", transpose}, {"Unsqueeze", unsqueeze}, {"Upsample", upsample}};
  return operators;
}

}  // namespace switchback
