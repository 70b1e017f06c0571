#include "kernels/normalize/reduce.h"

#include "kernels/pointwise/broadcast.h"
#include "kernels/device/device_ops.h"
#include "kernels/normalize/reduce_loops.h"
#include "kernels/view_check.h"

namespace switchback {
namespace {

template <typename T>
void reduce_forward_typed(Context& ctx, float scale, ConstView x, View y) {
  const Shape s = x.shape;
  const ForwardTarget<T> target(y, {});
  const F8 factor = _mm256_set1_ps(scale);
  reduce_loop(
      ctx, s, y.shape,
      [&](int64_t item, int64_t place, int64_t channel, int lanes) SB_LAMBDA {
        return load8(x.as<T>() + (item * s.h * s.w + place) * s.c + channel, lanes);
      },
      [&](const Group& g, const F8 (&sum)[4]) SB_LAMBDA {
        target.write_group(g.element, 0, g.size, [&](int v, int) SB_LAMBDA { return _mm256_mul_ps(factor, sum[v]); });
      });
}

template <typename T>
void reduce_backward_typed(Context& ctx, float scale, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  const BackwardTarget<T> target(dx, epilogue);
  const Operand from = operand_of(dy, dx.shape);
  const F8 factor = _mm256_set1_ps(scale);
  each_group(ctx, dx.shape, epilogue.seeds_per_item, 1, [&](const Group& g) SB_LAMBDA {
    const T* p = dy.as<T>() + from.offset(g.item, int32_t(g.place)) + (from.channels ? g.channel : 0);
    target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
      return _mm256_mul_ps(factor, from.channels ? load8(p + 8 * v, lanes) : _mm256_set1_ps(float(*p)));
    });
  });
}

}  // namespace

Shape output_shape(const Reduce& r, Shape x) {
  CHECK(r.c || r.h || r.w, "reduce: neither channels, rows nor columns are to be reduced");
  CHECK(x.item() > 0, "reduce: nothing in {}", to_string(x));
  return {x.n, r.c ? 1 : x.c, r.h ? 1 : x.h, r.w ? 1 : x.w};
}

float factor_of(const Reduce& reduce, Shape x) {
  return reduce.mean ? float(1.0 / double(x.item() / output_shape(reduce, x).item())) : 1.f;
}

void reduce_forward(Context& ctx, const Reduce& reduce, ConstView x, View y) {
  check_view("reduce_forward", "the output", y, output_shape(reduce, x.shape), x.dtype);
  if (ctx.gpu) return ctx.gpu->ops->reduce_forward(ctx, reduce, x, y);
  with_type(y.dtype, "reduce_forward",
            [&](auto type) { reduce_forward_typed<decltype(type)>(ctx, factor_of(reduce, x.shape), x, y); });
}

void reduce_backward(Context& ctx, const Reduce& reduce, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  check_view("reduce_backward", "dy", dy, output_shape(reduce, dx.shape), dx.dtype);
  check_epilogue(epilogue, "reduce_backward");
  if (ctx.gpu) return ctx.gpu->ops->reduce_backward(ctx, reduce, dy, dx, epilogue);
  with_type(dx.dtype, "reduce_backward", [&](auto type) {
    reduce_backward_typed<decltype(type)>(ctx, factor_of(reduce, dx.shape), dy, dx, epilogue);
  });
}

}  // namespace switchback
