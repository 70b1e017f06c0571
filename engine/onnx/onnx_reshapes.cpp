// ONNX operators that leave elements as they are, in other dims or another order.
#include <algorithm>
#include <cmath>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
void identity(OnnxGraph& g, const OnnxNode& n) { g.set(n, g.value(n, 0)); }

namespace {

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
  const auto open_size = [&] {  // of -1
    int64_t rest = 1;
    for (size_t k = 0; k < to.size(); ++k)
      if (const int64_t size = size_of(k); size > 0 && rest <= kMostOnnxSize * kMostOnnxSize / size) rest *= size;
    return all / rest;
  };
  const auto fits = [&](size_t i) {
    const int64_t before = sizes_before(i);
    if (before <= 0 || outside % before != 0) return false;
    int64_t size = size_of(i) == -1 ? open_size() : size_of(i);
    if (to[i] > 0 && g.batch > 1 && size % g.batch == 0) size /= g.batch;
    return size > 0 && size % (outside / before) == 0;
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
  if (g.batch == 1) look([&](size_t i) { return exactly(i) && (size_of(i) == -1 ? open_size() : size_of(i)) == 1; });
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
  if (written && g.batch > 1 && to[found] > 0) to[found] /= g.batch;
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
  for (int64_t axis : order) sizes.push_back(x.dims[axis]);
  for (int64_t axis : axes) moved.push_back(std::ranges::find(order, axis) - order.begin());
  const auto unmoved = [&](size_t turn) {  // the result, read from axis `turn` on and round, is memory's order
    std::vector<int64_t> seen;
    for (size_t i = 0; i < rank; ++i)
      if (const int64_t axis = moved[(i + turn) % rank]; sizes[axis] > 1) seen.push_back(axis);
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

}  // namespace

const OnnxOperators& onnx_reshapes() {
  static const OnnxOperators operators = {
      {"Dropout", dropout}, {"Flatten", flatten}, {"Identity", identity}, {"Reshape", reshape}, {"Squeeze", squeeze},
      {"Transpose", transpose}, {"Unsqueeze", unsqueeze}};
  return operators;
}

}  // namespace switchback
