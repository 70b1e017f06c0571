// What an ONNX graph computes without any input: mostly the sizes that exporters write down as little graphs of Shape,
// Gather, Concat and the like.
#pragma once

#include <vector>

#include "engine/onnx/onnx_file.h"
#include "kernels/pointwise/binary.h"

namespace switchback {

// -2 of 4 axes is 2; throws where there is no such axis.
int64_t onnx_axis(int64_t axis, size_t rank);

// The indices begin, begin + step, … before `end` of `size` places, with Python's rules for negative numbers.
struct OnnxRange {
  int64_t begin, count, step;
};
OnnxRange onnx_range(int64_t begin, int64_t end, int64_t step, int64_t size);

// Throws where the axes are not those of `rank` dimensions in some order.
void check_permutation(std::vector<int64_t> axes, size_t rank);

// numpy.take along one axis: indices may be negative.
OnnxConstant take(const OnnxConstant& x, int64_t axis, const std::vector<int64_t>& indices);
OnnxConstant transposed(const OnnxConstant& x, const std::vector<int64_t>& permutation);
OnnxConstant concatenated(const std::vector<const OnnxConstant*>& parts, int64_t axis);
OnnxConstant filled(const OnnxConstant& value, const std::vector<int64_t>& dims);
OnnxConstant converted(OnnxConstant x, bool to_whole);
// Broadcast by ONNX's rules.
OnnxConstant combined(BinaryFunction function, const OnnxConstant& a, const OnnxConstant& b);

// The dimensions that a Reshape of `from` to `to` gives: 0 keeps one (unless `zero_is_zero`), -1 is what the others leave.
Dims onnx_reshape(const Dims& from, std::vector<int64_t> to, bool zero_is_zero);

int64_t product(const Dims& dims, size_t from, size_t to);  // of the sizes of axes [from, to)

// Throws where a constant that is to be computed has too many elements: a few bytes of a file can ask for any size, and
// nothing that networks compute from sizes is as large as this.
void check_size(double elements, double most);
inline constexpr double kMostGrown = 1 << 20;     // of a constant that is larger than what it is made of
inline constexpr double kMostComputed = 1 << 22;  // of one that is computed: masks of a few thousand tokens

}  // namespace switchback
