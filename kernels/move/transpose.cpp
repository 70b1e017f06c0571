#include "kernels/move/transpose.h"

#include <limits>
#include <numeric>

#include "kernels/device/device_ops.h"
#include "kernels/pointwise/pointwise_loops.h"
#include "kernels/view_check.h"

namespace switchback {

Shape output_shape(const Transpose& t, Shape x) {
  const size_t rank = t.sizes.size();
  CHECK(t.axes.size() == rank, "transpose: {} axes of {} dimensions", t.axes.size(), rank);
  std::vector<bool> seen(rank, false);
  int64_t elements = 1;
  for (size_t i = 0; i < rank; ++i) {
    CHECK(t.axes[i] >= 0 && t.axes[i] < int64_t(rank) && !seen[size_t(t.axes[i])], "transpose: the axes are no order of {}",
          rank);
    CHECK(t.sizes[i] > 0 && t.sizes[i] <= std::numeric_limits<int32_t>::max() / elements, "transpose: an axis of {}", t.sizes[i]);
    seen[size_t(t.axes[i])] = true;
    elements *= t.sizes[i];
  }
  const Shape y{x.n, t.c, t.h, t.w};
  CHECK(elements == x.item() && t.c > 0 && t.h > 0 && t.w > 0 && y.item() == elements,
        "transpose: {} elements of {} as {}", elements, to_string(x), to_string(y));
  return y;
}

Transpose inverse(const Transpose& t, Shape x) {
  Transpose back{{}, std::vector<int64_t>(t.axes.size()), x.c, x.h, x.w};
  for (size_t i = 0; i < t.axes.size(); ++i) {
    back.sizes.push_back(t.sizes[size_t(t.axes[i])]);
    back.axes[size_t(t.axes[i])] = int64_t(i);
  }
  return back;
}

TransposedFrom transposed_from(const Transpose& t) {
  const size_t rank = t.sizes.size();
  std::vector<int64_t> stride(rank, 1);
  for (size_t i = rank; i-- > 1;) stride[i - 1] = stride[i] * t.sizes[i];
  TransposedFrom from;
  for (const int64_t axis : t.axes) {
    const int64_t size = t.sizes[size_t(axis)], step = stride[size_t(axis)];
    if (size == 1) continue;
    const size_t last = size_t(from.axes) - 1;
    if (from.axes > 0 && from.stride[last] == size * step) {  // it follows its neighbour: they are one axis
      from.size[last] *= int32_t(size), from.stride[last] = int32_t(step);
      continue;
    }
    CHECK(from.axes < TransposedFrom::kMost, "transpose: more than {} axes that move", TransposedFrom::kMost);
    from.size[size_t(from.axes)] = int32_t(size), from.stride[size_t(from.axes++)] = int32_t(step);
  }
  if (from.axes == 0) from.axes = 1, from.size[0] = from.stride[0] = 1;
  const size_t last = size_t(from.axes) - 1;
  from.run = from.stride[last] == 1 ? from.size[last] : 1;
  return from;
}

namespace {

SB_INLINE int64_t place_of(const TransposedFrom& from, int64_t element) {
  int64_t at = 0;
  for (int i = from.axes - 1; i > 0; --i) {
    const int64_t rest = element / from.size[size_t(i)];
    at += (element - rest * from.size[size_t(i)]) * from.stride[size_t(i)];
    element = rest;
  }
  return at + element * from.stride[0];
}

// Eight values from `element` of an item on.
template <typename T>
SB_INLINE F8 gathered(const TransposedFrom& from, const T* item, int64_t element, int lanes) {
  const int64_t in_run = element % from.run;
  if (in_run + lanes <= from.run) return load8(item + place_of(from, element), lanes);
  alignas(32) float values[8] = {};
  for (int lane = 0; lane < lanes; ++lane) values[lane] = float(item[place_of(from, element + lane)]);
  return _mm256_load_ps(values);
}

}  // namespace

void transpose_forward(Context& ctx, const Transpose& transpose, ConstView x, View y) {
  check_view("transpose_forward", "the output", y, output_shape(transpose, x.shape), x.dtype);
  if (ctx.gpu) return ctx.gpu->ops->transpose_forward(ctx, transpose, x, y);
  const TransposedFrom from = transposed_from(transpose);
  with_type(y.dtype, "transpose_forward", [&](auto type) {
    using T = decltype(type);
    const ForwardTarget<T> target(y, {});
    each_group(ctx, y.shape, 1, 4, [&](const Group& g) SB_LAMBDA {
      const int64_t first = g.item * y.shape.item();
      target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
        return gathered(from, x.as<T>() + first, g.element - first + 8 * v, lanes);
      });
    });
  });
}

void transpose_backward(Context& ctx, const Transpose& transpose, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  check_view("transpose_backward", "dy", dy, output_shape(transpose, dx.shape), dx.dtype);
  check_epilogue(epilogue, "transpose_backward");
  if (ctx.gpu) return ctx.gpu->ops->transpose_backward(ctx, transpose, dy, dx, epilogue);
  const TransposedFrom from = transposed_from(inverse(transpose, dx.shape));
  with_type(dx.dtype, "transpose_backward", [&](auto type) {
    using T = decltype(type);
    const BackwardTarget<T> target(dx, epilogue);
    each_group(ctx, dx.shape, epilogue.seeds_per_item, 4, [&](const Group& g) SB_LAMBDA {
      const int64_t first = g.item * dx.shape.item();
      target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
        return gathered(from, dy.as<T>() + first, g.element - first + 8 * v, lanes);
      });
    });
  });
}

}  // namespace switchback
