#include "kernels/move/rearrange.h"

#include <algorithm>
#include <limits>

#include "kernels/device/device_ops.h"
#include "kernels/pointwise/pointwise_loops.h"
#include "kernels/view_check.h"

namespace switchback {

Shape output_shape(const Reshape& r, Shape x) {
  std::array<int64_t, 3> size{r.c, r.h, r.w};
  int64_t known = 1, open = -1;
  for (int i = 0; i < 3; ++i) {
    CHECK(size[size_t(i)] > 0 || (size[size_t(i)] == -1 && open < 0),
          "reshape: {}x{}x{}: sizes must be positive, and one of them may be -1", r.c, r.h, r.w);
    if (size[size_t(i)] > 0) known *= size[size_t(i)];
    else open = i;
  }
  if (open >= 0) size[size_t(open)] = x.item() / known;
  const Shape y{x.n, size[0], size[1], size[2]};
  CHECK(y.item() == x.item(), "reshape: {}x{}x{} does not hold the {} elements of {}x{}x{}", r.c, r.h, r.w, x.item(), x.c,
        x.h, x.w);
  return y;
}

Shape output_shape(const Permute& p, Shape x) {
  std::array<int64_t, 3> sorted = p.axes;
  std::sort(sorted.begin(), sorted.end());
  CHECK((sorted == std::array<int64_t, 3>{1, 2, 3}), "permute: axes {}, {}, {} are no order of 1, 2, 3", p.axes[0],
        p.axes[1], p.axes[2]);
  const std::array<int64_t, 3> size{x.c, x.h, x.w};
  const auto of = [&](size_t i) { return size[size_t(p.axes[i] - 1)]; };
  return {x.n, of(0), of(1), of(2)};
}

namespace {

void check_size(const char* op, Shape x) {
  CHECK(x.item() > 0 && x.item() <= std::numeric_limits<int32_t>::max(), "{}: an item of {} is empty or too large", op,
        to_string(x));
}

// Of a permuted tensor: its axis i is axis axes[i] of one with sizes `from`.
Rearrangement::Map permuted(std::array<int64_t, 3> from, std::array<int64_t, 3> axes) {
  const std::array<int64_t, 3> stride{from[1] * from[2], from[2], 1};
  Rearrangement::Map map;
  for (size_t i = 0; i < 3; ++i) map.size[i] = from[size_t(axes[i] - 1)], map.stride[i] = stride[size_t(axes[i] - 1)];
  return map;
}

std::array<int64_t, 3> inverse(std::array<int64_t, 3> axes) {
  std::array<int64_t, 3> back;
  for (size_t i = 0; i < 3; ++i) back[size_t(axes[i] - 1)] = int64_t(i) + 1;
  return back;
}

}  // namespace

Rearrangement::Rearrangement(const Reshape& r, Shape x)
    : in(x.with_n(1)), out(output_shape(r, x).with_n(1)), forward{{1, 1, x.item()}, {0, 0, 1}}, backward(forward) {
  check_size("reshape", x);
}

Rearrangement::Rearrangement(const Permute& p, Shape x)
    : in(x.with_n(1)), out(output_shape(p, x).with_n(1)), forward(permuted({x.c, x.h, x.w}, p.axes)),
      backward(permuted({out.c, out.h, out.w}, inverse(p.axes))) {
  check_size("permute", x);
}

namespace {

// Eight values of a rearranged tensor, of channels from `channel` on.
template <typename T>
struct Moved {
  Rearrangement::Map map;
  const T* x;
  Shape in, out;
  SB_INLINE F8 operator()(int64_t item, int64_t place, int64_t channel, int lanes) const {
    const int32_t jk = int32_t(map.size[1] * map.size[2]), k = int32_t(map.size[2]), hw = int32_t(in.h * in.w);
    alignas(32) float values[8] = {};
    for (int lane = 0; lane < lanes; ++lane) {
      const int32_t at = int32_t((channel + lane) * out.h * out.w + place), rest = at % jk;
      const int64_t from = at / jk * map.stride[0] + rest / k * map.stride[1] + rest % k * map.stride[2];
      const int32_t c = int32_t(from) / hw, spot = int32_t(from) % hw;
      values[lane] = float(x[item * in.item() + spot * in.c + c]);
    }
    return _mm256_load_ps(values);
  }
};

}  // namespace

void rearrange_forward(Context& ctx, const Rearrangement& how, ConstView x, View y) {
  check_view("rearrange_forward", "the input", x, how.in.with_n(x.shape.n), y.dtype);
  check_view("rearrange_forward", "the output", y, how.out.with_n(x.shape.n), y.dtype);
  if (ctx.gpu) return ctx.gpu->ops->rearrange_forward(ctx, how, x, y);
  with_type(y.dtype, "rearrange_forward", [&](auto type) {
    using T = decltype(type);
    const Moved<T> moved{how.forward, x.as<T>(), how.in, how.out};
    const ForwardTarget<T> target(y, {});
    each_group(ctx, y.shape, 1, 8, [&](const Group& g) SB_LAMBDA {
      target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
        return moved(g.item, g.place, g.channel + 8 * v, lanes);
      });
    });
  });
}

void rearrange_backward(Context& ctx, const Rearrangement& how, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  check_view("rearrange_backward", "dy", dy, how.out.with_n(dx.shape.n), dx.dtype);
  check_view("rearrange_backward", "dx", dx, how.in.with_n(dx.shape.n), dx.dtype);
  check_epilogue(epilogue, "rearrange_backward");
  if (ctx.gpu) return ctx.gpu->ops->rearrange_backward(ctx, how, dy, dx, epilogue);
  with_type(dx.dtype, "rearrange_backward", [&](auto type) {
    using T = decltype(type);
    const Moved<T> moved{how.backward, dy.as<T>(), how.out, how.in};
    const BackwardTarget<T> target(dx, epilogue);
    each_group(ctx, dx.shape, epilogue.seeds_per_item, 8, [&](const Group& g) SB_LAMBDA {
      target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
        return moved(g.item, g.place, g.channel + 8 * v, lanes);
      });
    });
  });
}

}  // namespace switchback
