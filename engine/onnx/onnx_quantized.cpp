// ONNX operators of quantised weights: whole numbers, each a step of its tensor, channel or block. Of constants alone.
#include <algorithm>
#include <cmath>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
namespace {

// TensorProto's element types.
enum { kUint8 = 2, kInt8 = 3, kUint16 = 4, kInt16 = 5, kInt32 = 6 };

// Which of the scales, or zero points, each element of x has.
class Steps {
 public:
  Steps(const OnnxNode& n, const OnnxConstant& x, const OnnxConstant& of) : count_(of.count()) {
    if (count_ == 1) return;
    const size_t axis = size_t(onnx_axis(n.integer("axis", 1), x.dims.size()));
    const int64_t block = n.integer("block_size", 0);
    behind_ = product(x.dims, axis + 1, x.dims.size()), size_ = x.dims[axis];
    if (block == 0) {
      CHECK(of.dims == Dims{size_}, "steps of {} for axis {} of {}", to_string(of.dims), axis, to_string(x.dims));
      return;
    }
    Dims wanted = x.dims;
    CHECK(block > 0, "blocks of {}", block);
    wanted[axis] = (size_ + block - 1) / block;
    CHECK(of.dims == wanted, "steps of {} for blocks of {} along axis {} of {}", to_string(of.dims), block, axis,
          to_string(x.dims));
    block_ = block;
  }
  int64_t of(int64_t i) const {
    if (count_ == 1) return 0;
    const int64_t place = i / behind_ % size_;
    if (block_ == 0) return place;
    const int64_t blocks = (size_ + block_ - 1) / block_;
    return (i / behind_ / size_ * blocks + place / block_) * behind_ + i % behind_;
  }

 private:
  int64_t count_, behind_ = 1, size_ = 1, block_ = 0;
};

// Zero points of the scales' shape, or zeros.
std::vector<float> zero_points(OnnxGraph& g, const OnnxNode& n, const OnnxConstant& scales) {
  if (!n.has_input(2)) return std::vector<float>(size_t(scales.count()), 0.f);
  const OnnxConstant& points = g.constant(n, 2, "zero points");
  CHECK(points.count() == scales.count(), "{} zero points for {} scales", points.count(), scales.count());
  return points.as_floats();
}

void dequantize(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"output_dtype"});
  const OnnxConstant &x = g.constant(n, 0, "values"), &scales = g.constant(n, 1, "scales");
  const Steps steps(n, x, scales);
  if (scales.count() == 1) n.ignore({"axis", "block_size"});
  const std::vector<float> by = scales.as_floats(), zero = zero_points(g, n, scales);
  OnnxConstant y{.dims = x.dims, .whole = false, .floats = x.as_floats(), .ints = {}};
  for (int64_t i = 0; i < y.count(); ++i) {
    const size_t step = size_t(steps.of(i));
    y.floats[i] = (y.floats[i] - zero[step]) * by[step];
  }
  g.set(n, std::move(y));
}

void quantize(OnnxGraph& g, const OnnxNode& n) {
  n.ignore({"saturate", "precision"});
  const OnnxConstant &x = g.constant(n, 0, "values"), &scales = g.constant(n, 1, "scales");
  const Steps steps(n, x, scales);
  if (scales.count() == 1) n.ignore({"axis", "block_size"});
  int64_t type = n.integer("output_dtype", 0);
  if (type == 0) type = n.has_input(2) ? g.constant(n, 2, "zero points").type : int64_t(kUint8);
  CHECK(type == kUint8 || type == kInt8 || type == kUint16 || type == kInt16,
        "to type {} (whole numbers of 8 and 16 bits are supported)", type);
  const int bits = type == kUint8 || type == kInt8 ? 8 : 16;
  const bool negative = type == kInt8 || type == kInt16;
  const float low = negative ? -std::ldexp(1.f, bits - 1) : 0, high = low + std::ldexp(1.f, bits) - 1;
  const std::vector<float> by = scales.as_floats(), zero = zero_points(g, n, scales), values = x.as_floats();
  OnnxConstant y{.dims = x.dims, .whole = true, .floats = {}, .ints = {}};
  for (int64_t i = 0; i < x.count(); ++i) {
    const size_t step = size_t(steps.of(i));
    const float v = std::nearbyint(values[i] / by[step]) + zero[step];
    CHECK(!std::isnan(v), "a value of {} in steps of {}", values[i], by[step]);
    y.ints.push_back(int64_t(std::clamp(v, low, high)));
  }
  y.type = int(type);
  g.set(n, std::move(y));
}

}  // namespace

const OnnxOperators& onnx_quantized() {
  static const OnnxOperators operators = {{"DequantizeLinear", dequantize}, {"QuantizeLinear", quantize}};
  return operators;
}

}  // namespace switchback
