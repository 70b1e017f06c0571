// ONNX operators that give maps other sizes, and those that speak of sizes and types.
#include <algorithm>
#include <cmath>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
namespace {

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

// [N,C,H,W], and [N,C,L] as L rows of one column, which stay one.
Dims map_or_signal(const OnnxGraph& g, const OnnxNode& n) {
  Dims x = g.value(n, 0).dims;
  if (x.size() != 3) return g.map_dims(n, 0);
  x.push_back(1);
  return x;
}
template <typename T>
std::vector<T> with_columns(const OnnxGraph& g, const OnnxNode& n, std::vector<T> given) {
  if (g.value(n, 0).dims.size() == 3 && given.size() == 3) given.push_back(1);
  return given;
}

void resize(OnnxGraph& g, const OnnxNode& n) {
  const Dims x = map_or_signal(g, n);
  const bool signal = g.value(n, 0).dims.size() == 3;
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
    set_scales(layer, with_columns(g, n, g.constant(n, 1, "scales").as_floats()));
    g.make(n, layer, {g.node(n, 0)});
    return;
  }
  layer.coordinates = coordinates(n.text("coordinate_transformation_mode", "half_pixel"));
  layer.rounding = rounding(n.text("nearest_mode", "round_prefer_floor"));
  if (n.has_input(3)) {
    const std::vector<int64_t> all = signal ? Dims{g.batch, x[1], x[2]} : Dims{g.batch, x[1], x[2], x[3]};
    std::vector<int64_t> to = with_columns(g, n, for_all_axes(n, g.ints(n, 3, "sizes"), all));
    check_sizes(to, "a size", 1);
    CHECK(to.size() == 4 && (to[0] == g.batch || (to[0] == 1 && g.batch == kOpenBatch)) && to[1] == x[1],
          "sizes {} of {}: rows and columns can be scaled", to_string(to), to_string(x));
    const std::string policy = n.text("keep_aspect_ratio_policy", "stretch");
    if (policy != "stretch") {  // one scale for rows and columns
      CHECK(policy == "not_larger" || policy == "not_smaller", "keep_aspect_ratio_policy {} is unknown", printable(policy));
      const double rows = double(to[2]) / double(x[2]), columns = signal ? rows : double(to[3]) / double(x[3]);
      const double scale = policy == "not_larger" ? std::min(rows, columns) : std::max(rows, columns);
      for (size_t i = 2; i < (signal ? 3 : 4); ++i) to[i] = int64_t(std::floor(scale * double(x[i]) + 0.5));
      check_sizes(to, "a size", 1);
    }
    layer.out_h = to[2], layer.out_w = to[3];
  } else {
    n.ignore({"keep_aspect_ratio_policy"});  // of sizes
    const std::vector<float> all(signal ? 3 : 4, 1.f);
    set_scales(layer, with_columns(g, n, for_all_axes<float>(n, g.constant(n, 2, "scales").as_floats(), all)));
  }
  g.make(n, layer, {g.node(n, 0)});
}

void upsample(OnnxGraph& g, const OnnxNode& n) {  // Resize's ancestor, to opset 9
  map_or_signal(g, n);
  Resize layer;
  set_mode(layer, n.text("mode", "nearest"));
  set_scales(layer, n.has("height_scale") ? std::vector<float>{1, 1, n.real("height_scale", 1), n.real("width_scale", 1)}  // opset 1
                                          : with_columns(g, n, n.has("scales") ? n.reals("scales") : g.constant(n, 1, "scales").as_floats()));
  g.make(n, layer, {g.node(n, 0)});
}

// ---- constants

void constant(OnnxGraph& g, const OnnxNode& n) { g.set(n, n.constant()); }

void constant_of_shape(OnnxGraph& g, const OnnxNode& n) {
  std::vector<int64_t> dims = g.ints(n, 0, "dimensions");
  if (!dims.empty() && dims[0] == kOpenBatch) dims[0] = 1;  // the same for every image
  g.set(n, filled(n.constant(), dims));
}

}  // namespace

// A product with ones of the larger shape.
OnnxValue expanded(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, Dims to, const std::string& name) {
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
  if (full == part) return y;
  CHECK(full.size() <= 3, "{} expanded to {}: along more than three groups of axes", g.text(x.dims), to_string(to));
  full = padded(full, 3), part = padded(part, 3);
  CHECK(count(full) <= kMostOnnxSize * 64, "{} expanded to {}", g.text(x.dims), to_string(to));
  const int from = g.memory_shaped(n, x, {1, part[2], part[0], part[1]});
  const BinaryConstant ones{BinaryFunction::mul, std::vector<float>(size_t(count(full)), 1.f), {1, full[2], full[0], full[1]}};
  y.node = g.add(n, ones, {from}, name);
  y.order = OnnxValue::Order::memory;
  return y;
}

namespace {

void expand(OnnxGraph& g, const OnnxNode& n) {  // of data; constants: onnx_compute.cpp
  g.set(n, expanded(g, n, g.value(n, 0), g.ints(n, 1, "dimensions"), ""));
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
  if (!g.value(n, 0).constant) dims[g.value(n, 0).batch.axis] *= g.batch;
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
  if (to == kBool) return differs_from_zero(g, n);
  CHECK(!whole, "of data to whole numbers");
  identity(g, n);
}

}  // namespace

const OnnxOperators& onnx_sizes() {
  static const OnnxOperators operators = {
      {"Cast", cast}, {"CastLike", cast_like}, {"Constant", constant}, {"ConstantOfShape", constant_of_shape},
      {"DepthToSpace", depth_to_space}, {"Expand", expand}, {"Resize", resize}, {"Shape", shape}, {"Size", size},
      {"SpaceToDepth", space_to_depth}, {"Upsample", upsample}};
  return operators;
}

}  // namespace switchback
