// Shapes of all pools, and the average pools: both kinds are a list of windows per axis.
#include "kernels/pool/pool.h"

#include <vector>

#include "kernels/device/device_ops.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"

namespace switchback {

// PyTorch's rule: in ceil mode the last window must start inside the input or the padding before it.
static int64_t pooled_size(const char* op, int64_t in, int64_t kernel, int64_t stride, int64_t pad_begin,
                           int64_t pad_end, int64_t dilation, bool ceil_mode) {
  CHECK(kernel >= 1 && stride >= 1 && dilation >= 1 && pad_begin >= 0 && pad_end >= 0,
        "{}: kernel {}, stride {} and dilation {} must be positive and paddings {}, {} not negative", op, kernel,
        stride, dilation, pad_begin, pad_end);
  const int64_t extent = dilation * (kernel - 1) + 1, padded = in + pad_begin + pad_end;
  CHECK(in >= 1 && extent <= padded, "{}: kernel {} (extent {}) exceeds the padded input {}", op, kernel, extent,
        padded);
  CHECK(pad_begin < extent && pad_end < extent, "{}: paddings {}, {} must be smaller than the window's extent {}", op,
        pad_begin, pad_end, extent);
  int64_t out = (padded - extent + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  if (ceil_mode && (out - 1) * stride >= in + pad_begin) --out;
  return out;
}

Shape output_shape(const MaxPool2d& p, Shape x) {
  CHECK(p.window() <= 65536, "max pool: the window {}x{} has more than 65536 places", p.kernel_h, p.kernel_w);
  return {x.n, x.c,
          pooled_size("max pool", x.h, p.kernel_h, p.stride_h, p.pad_top, p.pad_bottom, p.dilation_h, p.ceil_mode),
          pooled_size("max pool", x.w, p.kernel_w, p.stride_w, p.pad_left, p.pad_right, p.dilation_w, p.ceil_mode)};
}

Shape output_shape(const AvgPool2d& p, Shape x) {
  return {x.n, x.c, pooled_size("average pool", x.h, p.kernel_h, p.stride_h, p.pad_top, p.pad_bottom, 1, p.ceil_mode),
          pooled_size("average pool", x.w, p.kernel_w, p.stride_w, p.pad_left, p.pad_right, 1, p.ceil_mode)};
}

Shape output_shape(const AdaptiveAvgPool2d& p, Shape x) {
  CHECK(p.out_h >= 1 && p.out_w >= 1 && x.h >= 1 && x.w >= 1, "adaptive average pool: {}x{} from {}x{}", p.out_h,
        p.out_w, x.h, x.w);
  return {x.n, x.c, p.out_h, p.out_w};
}

namespace {

// Windows [begin, end) of one axis; `size` is the axis' factor of the divisor. Windows ascend, so those that cover
// input i are the outputs [first[i], last[i]).
struct Axis {
  struct Window {
    int64_t begin, end, size;
  };
  std::vector<Window> windows;
  std::vector<int64_t> first, last;

  void index(int64_t in) {
    first.assign(in, 0);
    last.assign(in, 0);
    for (int64_t i = 0, a = 0, b = 0, out = int64_t(windows.size()); i < in; ++i) {
      while (a < out && windows[a].end <= i) ++a;
      b = std::max(a, b);
      while (b < out && windows[b].begin <= i) ++b;
      first[i] = a;
      last[i] = b;
    }
  }
};

struct Axes {
  Axis rows, columns;
};

}  // namespace

// As PyTorch's avg_pool2d: the window is clipped to the padded input for the divisor, and to the input for the sum.
static Axis average_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad_begin, int64_t pad_end,
                         bool count_include_pad) {
  Axis axis;
  for (int64_t o = 0; o < out; ++o) {
    const int64_t start = o * stride - pad_begin, stop = std::min(start + kernel, in + pad_end);
    const int64_t begin = std::max<int64_t>(start, 0), end = std::max(begin, std::min(stop, in));
    axis.windows.push_back({begin, end, count_include_pad ? stop - start : end - begin});
  }
  axis.index(in);
  return axis;
}

static Axis adaptive_axis(int64_t in, int64_t out) {
  Axis axis;
  for (int64_t o = 0; o < out; ++o) {
    const int64_t begin = o * in / out, end = ((o + 1) * in + out - 1) / out;
    axis.windows.push_back({begin, end, end - begin});
  }
  axis.index(in);
  return axis;
}

static Axes axes_of(const AvgPool2d& p, Shape x, Shape y) {
  return {average_axis(x.h, y.h, p.kernel_h, p.stride_h, p.pad_top, p.pad_bottom, p.count_include_pad),
          average_axis(x.w, y.w, p.kernel_w, p.stride_w, p.pad_left, p.pad_right, p.count_include_pad)};
}
static Axes axes_of(const AdaptiveAvgPool2d&, Shape x, Shape y) {
  return {adaptive_axis(x.h, y.h), adaptive_axis(x.w, y.w)};
}

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
      const bool empty = row.begin >= row.end || column.begin >= column.end;
      for (int64_t c = 0; c < out.c; c += 32) {
        target.write_group(p * out.c + c, 0, out.c - c, [&](int v, int lanes) SB_LAMBDA {
          F8 sum = _mm256_setzero_ps();
          for (int64_t i = row.begin; i < row.end; ++i) {
            for (int64_t j = column.begin; j < column.end; ++j) {
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
      const int64_t first_row = axes.rows.first[i], last_row = axes.rows.last[i];
      for (int64_t j = 0; j < in.w; ++j) {
        const int64_t first_column = axes.columns.first[j], last_column = axes.columns.last[j];
        for (int64_t c = 0; c < in.c; c += 32) {
          const float* from = first_share + n * out.item() + c;
          target.write_group((r * in.w + j) * in.c + c, (gate_row * in.w + j) * words + c / 32, in.c - c,
                             [&](int v, int lanes) SB_LAMBDA {
                               F8 sum = _mm256_setzero_ps();
                               for (int64_t a = first_row; a < last_row; ++a)
                                 for (int64_t b = first_column; b < last_column; ++b)
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
  const Axes axes = axes_of(pool, x.shape, y.shape);
  with_type(x.dtype, "average pool", [&](auto type) { average_forward<decltype(type)>(ctx, axes, x, y); });
}

template <typename Pool>
static void average_backward(Context& ctx, const Pool& pool, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  const Axes axes = axes_of(pool, dx.shape, dy.shape);
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
