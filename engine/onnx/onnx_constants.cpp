#include "engine/onnx/onnx_constants.h"

#include <algorithm>
#include <cmath>

namespace switchback {
int64_t product(const Dims& dims, size_t from, size_t to) {
  int64_t n = 1;
  for (size_t i = from; i < to; ++i) n *= dims[i];
  return n;
}

void check_size(double elements, double most) {
  CHECK(elements <= most, "a computed constant of {} elements (at most {} are supported)", elements, most);
}

namespace {

// y with x's kind of values, element i of it being x's element index(i).
template <typename Index>
OnnxConstant gathered(const OnnxConstant& x, Dims dims, Index index) {
  OnnxConstant y;
  y.whole = x.whole;
  const int64_t n = dims.empty() ? 1 : product(dims, 0, dims.size());
  y.dims = std::move(dims);
  for (int64_t i = 0; i < n; ++i) {
    if (x.whole)
      y.ints.push_back(x.ints[index(i)]);
    else
      y.floats.push_back(x.floats[index(i)]);
  }
  return y;
}

int64_t combine(BinaryFunction function, int64_t a, int64_t b) {
  CHECK(std::abs(double(a)) < 0x1p40 && std::abs(double(b)) < 0x1p40, "sizes {} and {}", a, b);
  switch (function) {
    case BinaryFunction::add: return a + b;
    case BinaryFunction::sub: return a - b;
    case BinaryFunction::mul:
      CHECK(std::abs(double(a) * double(b)) < 0x1p62, "the product of sizes {} and {}", a, b);
      return a * b;
    case BinaryFunction::div: CHECK(b != 0, "a division of sizes by zero"); return a / b;
    default: fail("whole numbers are compared or chosen");  // as floats, or by onnx_compute.cpp
  }
}

float combine(BinaryFunction function, float a, float b) {
  switch (function) {
    case BinaryFunction::add: return a + b;
    case BinaryFunction::sub: return a - b;
    case BinaryFunction::mul: return a * b;
    case BinaryFunction::div: return a / b;
    case BinaryFunction::max: return a != a || a > b ? a : b;
    case BinaryFunction::min: return a != a || a < b ? a : b;
    case BinaryFunction::where: return b != 0 ? a : 0;
    case BinaryFunction::where_not: return b == 0 ? a : 0;
    case BinaryFunction::greater: return a > b;
    case BinaryFunction::greater_equal: return a >= b;
    case BinaryFunction::equal: return a == b;
  }
  return 0;
}

}  // namespace

int64_t onnx_axis(int64_t axis, size_t rank) {
  const int64_t found = axis < 0 ? axis + int64_t(rank) : axis;
  CHECK(found >= 0 && found < int64_t(rank), "axis {} of a tensor with {} dimensions", axis, rank);
  return found;
}

OnnxRange onnx_range(int64_t begin, int64_t end, int64_t step, int64_t size) {
  CHECK(step != 0 && std::abs(double(step)) < 0x1p40, "a slice with step {}", step);
  const auto clamped = [&](int64_t place, int64_t low, int64_t high) {
    if (place < 0) place = place < -size ? low : place + size;
    return std::clamp(place, low, high);
  };
  const int64_t from = step > 0 ? clamped(begin, 0, size) : clamped(begin, -1, size - 1);
  // Backwards, an end of -1 - size or less means "to the first place", which is kept.
  const int64_t to = step > 0 ? clamped(end, 0, size) : clamped(end, -1, size - 1);
  const int64_t distance = step > 0 ? to - from : from - to, stride = std::abs(step);
  return {from, std::max<int64_t>((distance + stride - 1) / stride, 0), step};
}

void check_permutation(std::vector<int64_t> axes, size_t rank) {
  CHECK(axes.size() == rank, "a transpose of {} axes for {} dimensions", axes.size(), rank);
  std::sort(axes.begin(), axes.end());
  for (size_t i = 0; i < rank; ++i) CHECK(axes[i] == int64_t(i), "a transpose whose axes are no permutation");
}

OnnxConstant take(const OnnxConstant& x, int64_t axis, const std::vector<int64_t>& indices) {
  const size_t a = size_t(onnx_axis(axis, x.dims.size()));
  const int64_t size = x.dims[a], count = int64_t(indices.size());
  for (int64_t i : indices) CHECK(i >= -size && i < size, "index {} of {}", i, size);
  const int64_t before = product(x.dims, 0, a), after = product(x.dims, a + 1, x.dims.size());
  if (count > size) check_size(double(before) * double(after) * double(count), kMostGrown);
  Dims dims = x.dims;
  dims[a] = count;
  if (before * after * count == 0) return gathered(x, dims, [](int64_t) { return 0; });
  return gathered(x, dims, [&](int64_t i) {
    const int64_t place = indices[i / after % count];
    return (i / (after * count) * size + (place < 0 ? place + size : place)) * after + i % after;
  });
}

OnnxConstant transposed(const OnnxConstant& x, const std::vector<int64_t>& permutation) {
  const size_t rank = x.dims.size();
  check_permutation(permutation, rank);
  Dims dims(rank), stride(rank);
  for (size_t i = 0; i < rank; ++i) {
    dims[i] = x.dims[permutation[i]];
    stride[i] = product(x.dims, size_t(permutation[i]) + 1, rank);
  }
  return gathered(x, dims, [&](int64_t i) {
    int64_t from = 0;
    for (size_t k = rank; k-- > 0; i /= dims[k]) from += i % dims[k] * stride[k];
    return from;
  });
}

OnnxConstant concatenated(const std::vector<const OnnxConstant*>& parts, int64_t axis) {
  CHECK(!parts.empty(), "a concatenation of nothing");
  const OnnxConstant& first = *parts[0];
  const size_t a = size_t(onnx_axis(axis, first.dims.size()));
  OnnxConstant y{.dims = first.dims, .whole = first.whole, .floats = {}, .ints = {}};
  y.dims[a] = 0;
  double elements = 0;
  for (const OnnxConstant* part : parts) {
    Dims same = part->dims;
    CHECK(same.size() == first.dims.size() && part->whole == first.whole, "a concatenation of different constants");
    y.dims[a] += same[a];
    same[a] = first.dims[a];
    CHECK(same == first.dims, "a concatenation of {} and {}", to_string(first.dims), to_string(part->dims));
    elements += double(part->count());
  }
  check_size(elements, kMostGrown);
  for (int64_t block = 0; block < product(first.dims, 0, a); ++block)
    for (const OnnxConstant* part : parts) {
      const int64_t n = product(part->dims, a, part->dims.size());
      if (y.whole)
        y.ints.insert(y.ints.end(), part->ints.begin() + block * n, part->ints.begin() + (block + 1) * n);
      else
        y.floats.insert(y.floats.end(), part->floats.begin() + block * n, part->floats.begin() + (block + 1) * n);
    }
  return y;
}

OnnxConstant filled(const OnnxConstant& value, const std::vector<int64_t>& dims) {
  CHECK(value.count() == 1, "a filling of {} values", value.count());
  double elements = 1;
  for (int64_t d : dims) {
    CHECK(d >= 0, "a constant of dimensions {}", to_string(dims));
    elements *= double(d);
  }
  check_size(elements, kMostGrown);
  return gathered(value, dims, [](int64_t) { return 0; });
}

OnnxConstant converted(OnnxConstant x, bool to_whole) {
  if (x.whole == to_whole) return x;
  if (to_whole) {
    for (float v : x.floats) {
      CHECK(std::abs(v) < 0x1p62f, "{} as a whole number", v);
      x.ints.push_back(int64_t(v));
    }
    x.floats.clear();
  } else {
    x.floats = x.as_floats();
    x.ints.clear();
  }
  x.whole = to_whole;
  return x;
}

OnnxConstant combined(BinaryFunction function, const OnnxConstant& a, const OnnxConstant& b) {
  CHECK(a.whole == b.whole, "whole numbers combined with others");
  const size_t rank = std::max(a.dims.size(), b.dims.size());
  const auto dim = [&](const OnnxConstant& c, size_t axis) {
    return axis + c.dims.size() < rank ? 1 : c.dims[axis + c.dims.size() - rank];
  };
  OnnxConstant y{.dims = Dims(rank), .whole = a.whole, .floats = {}, .ints = {}};
  double elements = 1;
  for (size_t i = 0; i < rank; ++i) {
    CHECK(dim(a, i) == dim(b, i) || dim(a, i) == 1 || dim(b, i) == 1, "constants of {} and {} combined",
          to_string(a.dims), to_string(b.dims));
    y.dims[i] = dim(a, i) == 1 ? dim(b, i) : dim(a, i);
    elements *= double(y.dims[i]);
  }
  if (elements > double(std::max(a.count(), b.count()))) check_size(elements, kMostGrown);
  for (int64_t i = 0; i < int64_t(elements); ++i) {
    size_t ia = 0, ib = 0;
    int64_t rest = i, of_a = 1, of_b = 1;
    for (size_t k = rank; k-- > 0; rest /= y.dims[k]) {
      const int64_t place = rest % y.dims[k];
      if (dim(a, k) > 1) ia += size_t(place * of_a);
      if (dim(b, k) > 1) ib += size_t(place * of_b);
      of_a *= dim(a, k), of_b *= dim(b, k);
    }
    if (y.whole)
      y.ints.push_back(combine(function, a.ints[ia], b.ints[ib]));
    else
      y.floats.push_back(combine(function, a.floats[ia], b.floats[ib]));
  }
  return y;
}

Dims onnx_reshape(const Dims& from, std::vector<int64_t> to, bool zero_is_zero) {
  double known = 1, all = 1;
  int open = 0;
  for (int64_t d : from) all *= double(d);
  for (size_t i = 0; i < to.size(); ++i) {
    if (to[i] == 0 && !zero_is_zero) {
      CHECK(i < from.size(), "a reshape of {} to {}", to_string(from), to_string(to));
      to[i] = from[i];
    }
    CHECK(to[i] >= -1, "a reshape to {}", to_string(to));
    if (to[i] == -1) {
      ++open;
    } else {
      known *= double(to[i]);
    }
  }
  const Dims asked = to;
  CHECK(open <= 1 && known <= 0x1p52 && all <= 0x1p52, "a reshape of {} to {}", to_string(from), to_string(asked));
  for (int64_t& d : to)
    if (d == -1) {
      d = known > 0 ? int64_t(all / known) : 0;
      known *= double(d);
    }
  CHECK(known == all, "a reshape of {} to {}", to_string(from), to_string(asked));
  return to;
}

}  // namespace switchback
