// Shapes of all pools, and the average pools: both kinds are a list of windows per axis.
#include "kernels/pool/pool.h"

#include <vector>

#include "kernels/device/device_ops.h"
#include "kernels/parallel.h"
#include "kernels/pool/average_axis.h"
#include "kernels/simd.h"

namespace switchback {

// `axis` is a pool's, `end` its padding behind `in` inputs.
static int64_t pooled_size(const char* op, int64_t in, const SlidingAxis& axis, int64_t end, bool ceil_mode) {
  CHECK(axis.kernel >= 1 && axis.stride >= 1 && axis.dilation >= 1 && axis.pad >= 0 && end >= 0,
        "{}: kernel {}, stride {} and dilation {} must be positive and paddings {}, {} not negative", op, axis.kernel,
        axis.stride, axis.dilation, axis.pad, end);
  const int64_t extent = axis.extent(), padded = in + axis.pad + end;
  CHECK(in >= 1 && extent <= padded, "{}: kernel {} (extent {}) exceeds the padded input {}", op, axis.kernel, extent,
        padded);
  CHECK(axis.pad < extent && end < extent, "{}: paddings {}, {} must be smaller than the window's extent {}", op,
        axis.pad, end, extent);
  return axis.outputs(in, end, ceil_mode);
}
template <typename Pool>
static Shape pooled_shape(const char* op, const Pool& p, Shape x) {
  return {x.n, x.c, pooled_size(op, x.h, sliding_rows(p), p.pad_bottom, p.ceil_mode),
          pooled_size(op, x.w, sliding_columns(p), p.pad_right, p.ceil_mode)};
}

Shape output_shape(const MaxPool2d& p, Shape x) {
  CHECK(p.window() <= 65536, "max pool: the window {}x{} has more than 65536 places", p.kernel_h, p.kernel_w);
  return pooled_shape("max pool", p, x);
}

Shape output_shape(const AvgPool2d& p, Shape x) { return pooled_shape("average pool", p, x); }

Shape output_shape(const AdaptiveAvgPool2d& p, Shape x) {
  CHECK(p.out_h >= 1 && p.out_w >= 1 && x.h >= 1 && x.w >= 1, "adaptive average pool: {}x{} from {}x{}", p.out_h,
        p.out_w, x.h, x.w);
  return {x.n, x.c, p.out_h, p.out_w};
}

namespace {

// Of one axis: each output's window, and for each input the outputs whose windows hold it.
struct Axis {
  std::vector<AverageAxisOf<int64_t>::Window> windows;
  std::vector<Interval> through;

  explicit Axis(const AverageAxisOf<int64_t>& axis) {
    for (int64_t o = 0; o < axis.out; ++o) windows.push_back(axis.window(o));
    for (int64_t i = 0; i < axis.in; ++i) through.push_back(axis.through(i));
  }
};

struct Axes {
  Axis rows, columns;

  explicit Axes(const AverageAxesOf<int64_t>& axes) : rows(axes.rows), columns(axes.columns) {}
};

}  // namespace

template <typename T>
static void average_forward(Context& ctx, const Axes& axes, ConstView x, View y) {
  const Shape in = x.shape, out = y.shape;
  const int64_t window = std::max<int64_t>(1, in.h * in.w / std::max<int64_t>(1, out.h * out.w));
  const ForwardTarget<T> target(y, {});
  parallel_ranges(ctx, out.pixels(), out.c * window, [&, target](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) {
      const auto& row = axes.rows.windows[p / out.w % out.h];
      const auto& column = axes.columns.windows[p % out.w];
      const T* item = x.as<T>() + p / (out.w * out.h) * in.item();
      const F8 divisor = _mm256_set1_ps(float(row.size * column.size));
      const bool empty = row.inputs.empty() || column.inputs.empty();
      for (int64_t c = 0; c < out.c; c += 32) {
        target.write_group(p * out.c + c, 0, out.c - c, [&](int v, int lanes) SB_LAMBDA {
          F8 sum = _mm256_setzero_ps();
          for (int64_t i = row.inputs.begin; i < row.inputs.end; ++i) {
            for (int64_t j = column.inputs.begin; j < column.inputs.end; ++j) {
              sum = _mm256_add_ps(sum, load8(item + (i * in.w + j) * in.c + c + 8 * v, lanes));
            }
          }
          return empty ? sum : _mm256_div_ps(sum, divisor);
        });
      }
    }
  });
}

// What each window sends to its places: dy by the window's size, f32 in dy's layout. Divided once, not at every place.
template <typename T>
static const float* shares(Context& ctx, const Axes& axes, ConstView dy) {
  const Shape out = dy.shape;
  float* all = static_cast<float*>(ctx.scratch.reserve(size_t(out.count()) * sizeof(float)));
  parallel_ranges(ctx, out.pixels(), out.c, [&, to = all, from = dy.as<T>()](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) {
      const int64_t size = axes.rows.windows[p / out.w % out.h].size * axes.columns.windows[p % out.w].size;
      const F8 divisor = _mm256_set1_ps(float(size));
      for (int64_t c = 0; c < out.c; c += 8) {
        const int lanes = int(std::min<int64_t>(8, out.c - c));
        store8(to + p * out.c + c, _mm256_div_ps(load8(from + p * out.c + c, lanes), divisor), lanes);
      }
    }
  });
  return all;
}

template <typename T>
static void average_backward(Context& ctx, const Axes& axes, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  const Shape in = dx.shape, out = dy.shape;
  const BackwardTarget<T> target(dx, epilogue);
  const float* share = shares<T>(ctx, axes, dy);
  const int64_t words = gate_words_per_pixel(in.c);
  parallel_ranges(ctx, in.n * in.h, in.w * in.c, [&, target, first_share = share](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const int64_t n = r / in.h, i = r % in.h, gate_row = n / epilogue.seeds_per_item * in.h + i;
      const Interval rows = axes.rows.through[i];
      for (int64_t j = 0; j < in.w; ++j) {
        const Interval columns = axes.columns.through[j];
        for (int64_t c = 0; c < in.c; c += 32) {
          const float* from = first_share + n * out.item() + c;
          target.write_group((r * in.w + j) * in.c + c, (gate_row * in.w + j) * words + c / 32, in.c - c,
                             [&](int v, int lanes) SB_LAMBDA {
                               F8 sum = _mm256_setzero_ps();
                               for (int64_t a = rows.begin; a < rows.end; ++a)
                                 for (int64_t b = columns.begin; b < columns.end; ++b)
                                   sum = _mm256_add_ps(sum, load8(from + (a * out.w + b) * out.c + 8 * v, lanes));
                               return sum;
                             });
        }
      }
    }
  });
}

template <typename Pool>
static void check_forward(const Pool& pool, ConstView x, ConstView y) {
  const Shape want = output_shape(pool, x.shape);
  CHECK(y.shape == want && x.dtype == y.dtype, "average pool: output is [{},{},{},{}], must be [{},{},{},{}]",
        y.shape.n, y.shape.c, y.shape.h, y.shape.w, want.n, want.c, want.h, want.w);
}

template <typename Pool>
static void check_backward(const Pool& pool, ConstView dy, ConstView dx, const BackwardEpilogue& epilogue) {
  const Shape want = output_shape(pool, dx.shape);
  CHECK(dy.shape == want && dx.dtype == dy.dtype, "average pool: dy is [{},{},{},{}], must be [{},{},{},{}]",
        dy.shape.n, dy.shape.c, dy.shape.h, dy.shape.w, want.n, want.c, want.h, want.w);
  check_epilogue(epilogue, "average pool");
}

template <typename Pool>
static void average_forward(Context& ctx, const Pool& pool, ConstView x, View y) {
  const Axes axes(average_axes<int64_t>(pool, x.shape, y.shape));
  with_type(x.dtype, "average pool", [&](auto type) { average_forward<decltype(type)>(ctx, axes, x, y); });
}

template <typename Pool>
static void average_backward(Context& ctx, const Pool& pool, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  const Axes axes(average_axes<int64_t>(pool, dx.shape, dy.shape));
  with_type(dx.dtype, "average pool",
            [&](auto type) { average_backward<decltype(type)>(ctx, axes, dy, dx, epilogue); });
}

void avg_pool2d_forward(Context& ctx, const AvgPool2d& pool, ConstView x, View y) {
  check_forward(pool, x, y);
  if (ctx.gpu) return ctx.gpu->ops->avg_pool2d_forward(ctx, pool, x, y);
  average_forward(ctx, pool, x, y);
}
void avg_pool2d_backward(Context& ctx, const AvgPool2d& pool, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  check_backward(pool, dy, dx, epilogue);
  if (ctx.gpu) return ctx.gpu->ops->avg_pool2d_backward(ctx, pool, dy, dx, epilogue);
  average_backward(ctx, pool, dy, dx, epilogue);
}
void adaptive_avg_pool2d_forward(Context& ctx, const AdaptiveAvgPool2d& pool, ConstView x, View y) {
  check_forward(pool, x, y);
  if (ctx.gpu) return ctx.gpu->ops->adaptive_avg_pool2d_forward(ctx, pool, x, y);
  average_forward(ctx, pool, x, y);
}
void adaptive_avg_pool2d_backward(Context& ctx, const AdaptiveAvgPool2d& pool, ConstView dy, View dx,
                                  const BackwardEpilogue& epilogue) {
  check_backward(pool, dy, dx, epilogue);
  if (ctx.gpu) return ctx.gpu->ops->adaptive_avg_pool2d_backward(ctx, pool, dy, dx, epilogue);
  average_backward(ctx, pool, dy, dx, epilogue);
}

}  // namespace switchback
