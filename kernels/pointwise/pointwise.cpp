#include "kernels/pointwise/pointwise.h"

#include <cstring>

#include "kernels/device/device_ops.h"
#include "kernels/parallel.h"
#include "kernels/pointwise/pointwise_loops.h"
#include "kernels/simd.h"

namespace switchback {

static void check_same(const char* op, ConstView a, ConstView b) {
  CHECK(a.shape == b.shape && a.dtype == b.dtype, "{}: operands differ: {} [{},{},{},{}] and {} [{},{},{},{}]", op,
        name_of(a.dtype), a.shape.n, a.shape.c, a.shape.h, a.shape.w, name_of(b.dtype), b.shape.n, b.shape.c, b.shape.h,
        b.shape.w);
}

// y = act(source + residual) over a whole tensor as one row of values. source(element, lanes)
template <typename T, typename Source>
static void forward_loop(Context& ctx, View y, const Epilogue& epilogue, const Source& source) {
  const ForwardTarget<T> target(y, epilogue);
  const Groups groups(y.shape.pixels(), y.shape.c, !epilogue.gates);
  parallel_ranges(ctx, groups.count, 32, [=](int64_t first, int64_t last) {
    groups.each(first, last, [&](int64_t element, int64_t group, int64_t size) SB_LAMBDA {
      target.write_group(element, group, size,
                         [&](int v, int lanes) SB_LAMBDA { return source(element + 8 * v, lanes); });
    });
  });
}

// dx = rule(gate, source + other), likewise; gates belong to item p / seeds_per_item.
template <typename T, typename Source>
static void backward_loop(Context& ctx, View dx, const BackwardEpilogue& epilogue, const Source& source) {
  const BackwardTarget<T> target(dx, epilogue);
  each_gradient_group(ctx, dx.shape, target.gates, epilogue.seeds_per_item, 0, dx.shape.n,
                      [=](int64_t element, int64_t word, int64_t size) SB_LAMBDA {
                        target.write_group(element, word, size, [&](int v, int lanes) SB_LAMBDA {
                          return source(element + 8 * v, lanes);
                        });
                      });
}

// The same where the source needs to know the pixel (of all items) and the channel: source(pixel, channel, lanes).
template <typename T, typename Source>
static void backward_loop_by_channel(Context& ctx, View dx, const BackwardEpilogue& epilogue, const Source& source) {
  const BackwardTarget<T> target(dx, epilogue);
  const int64_t hw = dx.shape.h * dx.shape.w;
  each_group(ctx, dx.shape, epilogue.seeds_per_item, 1, [=](const Group& g) SB_LAMBDA {
    target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
      return source(g.item * hw + g.place, g.channel + 8 * v, lanes);
    });
  });
}

void relu_forward(Context& ctx, ConstView x, View y, const Epilogue& epilogue) {
  check_same("relu_forward", x, y);
  if (ctx.gpu) return ctx.gpu->ops->relu_forward(ctx, x, y, epilogue);
  with_type(y.dtype, "relu_forward", [&](auto type) {
    using T = decltype(type);
    const T* in = x.as<T>();
    forward_loop<T>(ctx, y, epilogue,
                    [=](int64_t e, int lanes) SB_LAMBDA { return load8(in + e, lanes); });
  });
}

void combine_backward(Context& ctx, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  check_same("combine_backward", dy, dx);
  check_epilogue(epilogue, "combine_backward");
  if (ctx.gpu) return ctx.gpu->ops->combine_backward(ctx, dy, dx, epilogue);
  with_type(dx.dtype, "combine_backward", [&](auto type) {
    using T = decltype(type);
    const T* in = dy.as<T>();
    backward_loop<T>(ctx, dx, epilogue,
                     [=](int64_t e, int lanes) SB_LAMBDA { return load8(in + e, lanes); });
  });
}

void add_forward(Context& ctx, ConstView a, ConstView b, View y, const Epilogue& epilogue) {
  check_same("add_forward", a, b);
  check_same("add_forward", a, y);
  if (ctx.gpu) return ctx.gpu->ops->add_forward(ctx, a, b, y, epilogue);
  with_type(y.dtype, "add_forward", [&](auto type) {
    using T = decltype(type);
    const T *in_a = a.as<T>(), *in_b = b.as<T>();
    forward_loop<T>(ctx, y, epilogue, [=](int64_t e, int lanes) SB_LAMBDA {
      return _mm256_add_ps(load8(in_a + e, lanes), load8(in_b + e, lanes));
    });
  });
}

void channel_affine_forward(Context& ctx, ConstView x, const float* scale, const float* shift, View y,
                            const Epilogue& epilogue) {
  check_same("channel_affine_forward", x, y);
  if (ctx.gpu) return ctx.gpu->ops->channel_affine_forward(ctx, x, scale, shift, y, epilogue);
  with_type(y.dtype, "channel_affine_forward", [&](auto type) {
    using T = decltype(type);
    const T* in = x.as<T>();
    const ForwardTarget<T> target(y, epilogue);
    each_group(ctx, y.shape, 1, 1, [=](const Group& g) SB_LAMBDA {
      target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
        const int64_t channel = g.channel + 8 * v;
        const F8 b = shift ? load8(shift + channel, lanes) : _mm256_setzero_ps();
        return _mm256_fmadd_ps(load8(scale + channel, lanes), load8(in + g.element + 8 * v, lanes), b);
      });
    });
  });
}

void channel_affine_backward(Context& ctx, ConstView dy, const float* scale, View dx,
                             const BackwardEpilogue& epilogue) {
  check_same("channel_affine_backward", dy, dx);
  check_epilogue(epilogue, "channel_affine_backward");
  if (ctx.gpu) return ctx.gpu->ops->channel_affine_backward(ctx, dy, scale, dx, epilogue);
  with_type(dx.dtype, "channel_affine_backward", [&](auto type) {
    using T = decltype(type);
    const T* in = dy.as<T>();
    const int64_t c = dx.shape.c;
    backward_loop_by_channel<T>(ctx, dx, epilogue, [=](int64_t pixel, int64_t channel, int lanes) SB_LAMBDA {
      return _mm256_mul_ps(load8(scale + channel, lanes), load8(in + pixel * c + channel, lanes));
    });
  });
}

// One item as a matrix: y[c][p] = x[p][c] (or back) in tiles, so that neither side is walked with a long stride only.
// `part` says which.
constexpr int64_t kTile = 16;
struct Tiles {
  int64_t first_row, last_row, first_column, last_column;
};
template <typename From, typename To>
static void transpose(const From* x, int64_t rows, int64_t columns, const Tiles& part, To* y) {
  for (int64_t r0 = part.first_row; r0 < part.last_row; r0 += kTile) {
    const int64_t r1 = std::min(part.last_row, r0 + kTile);
    for (int64_t c0 = part.first_column; c0 < part.last_column; c0 += kTile) {
      const int64_t c1 = std::min(part.last_column, c0 + kTile);
      for (int64_t c = c0; c < c1; ++c) {
        for (int64_t r = r0; r < r1; ++r) y[c * rows + r] = To(x[r * columns + c]);
      }
    }
  }
}

// [rows, columns] -> [columns, rows] of every item, the longer side in strips.
template <typename From, typename To>
static void transpose_items(Context& ctx, const From* x, int64_t items, int64_t rows, int64_t columns, To* y) {
  if (rows == 1 || columns == 1) {
    parallel_ranges(ctx, items * rows * columns, 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) y[i] = To(x[i]);
    });
    return;
  }
  constexpr int64_t kStrip = 16 * kTile;
  const bool by_rows = rows >= columns;
  const int64_t length = std::max(rows, columns), strips = (length + kStrip - 1) / kStrip;
  parallel_ranges(ctx, items * strips, rows * columns / strips, [=](int64_t first, int64_t last) {
    for (int64_t s = first; s < last; ++s) {
      const int64_t item = s / strips * rows * columns;
      const int64_t begin = s % strips * kStrip, end = std::min(length, begin + kStrip);
      const Tiles part = by_rows ? Tiles{begin, end, 0, columns} : Tiles{0, rows, begin, end};
      transpose(x + item, rows, columns, part, y + item);
    }
  });
}

void nhwc_to_nchw(Context& ctx, ConstView x, float* y) {
  if (ctx.gpu) return ctx.gpu->ops->nhwc_to_nchw(ctx, x, y);
  with_type(x.dtype, "nhwc_to_nchw", [&](auto type) {
    using T = decltype(type);
    transpose_items(ctx, x.as<T>(), x.shape.n, x.shape.h * x.shape.w, x.shape.c, y);
  });
}

void nchw_to_nhwc(Context& ctx, const float* x, View y) {
  if (ctx.gpu) return ctx.gpu->ops->nchw_to_nhwc(ctx, x, y);
  with_type(y.dtype, "nchw_to_nhwc", [&](auto type) {
    using T = decltype(type);
    transpose_items(ctx, x, y.shape.n, y.shape.c, y.shape.h * y.shape.w, y.as<T>());
  });
}

static void check_flat(const char* op, ConstView x, ConstView flat) {
  CHECK(flat.shape == (Shape{x.shape.n, x.shape.item(), 1, 1}) && x.dtype == flat.dtype,
        "{}: [{},{},{},{}] does not flatten to [{},{},{},{}]", op, x.shape.n, x.shape.c, x.shape.h, x.shape.w,
        flat.shape.n, flat.shape.c, flat.shape.h, flat.shape.w);
}

static void check_part(const char* op, ConstView part, ConstView whole, int64_t channel) {
  const Shape a = part.shape, b = whole.shape;
  CHECK(a.n == b.n && a.h == b.h && a.w == b.w && channel >= 0 && channel + a.c <= b.c && part.dtype == whole.dtype,
        "{}: [{},{},{},{}] from channel {} on is no part of [{},{},{},{}]", op, a.n, a.c, a.h, a.w, channel, b.n, b.c,
        b.h, b.w);
}

void concat_forward(Context& ctx, ConstView x, View y, int64_t channel) {
  check_part("concat_forward", x, y, channel);
  if (ctx.gpu) return ctx.gpu->ops->concat_forward(ctx, x, y, channel);
  const size_t size = size_of(x.dtype), bytes = size_t(x.shape.c) * size, pitch = size_t(y.shape.c) * size;
  const char* from = x.as<char>();
  char* to = y.as<char>() + size_t(channel) * size;
  parallel_ranges(ctx, x.shape.pixels(), x.shape.c, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) std::memcpy(to + size_t(p) * pitch, from + size_t(p) * bytes, bytes);
  });
}

void concat_backward(Context& ctx, ConstView dy, int64_t channel, View dx, const BackwardEpilogue& epilogue) {
  check_part("concat_backward", dx, dy, channel);
  check_epilogue(epilogue, "concat_backward");
  if (ctx.gpu) return ctx.gpu->ops->concat_backward(ctx, dy, channel, dx, epilogue);
  with_type(dx.dtype, "concat_backward", [&](auto type) {
    using T = decltype(type);
    const int64_t pitch = dy.shape.c;
    const T* in = dy.as<T>() + channel;
    backward_loop_by_channel<T>(ctx, dx, epilogue, [=](int64_t pixel, int64_t i, int lanes) SB_LAMBDA {
      return load8(in + pixel * pitch + i, lanes);
    });
  });
}

void flatten_forward(Context& ctx, ConstView x, View y) {
  check_flat("flatten_forward", x, y);
  if (ctx.gpu) return ctx.gpu->ops->flatten_forward(ctx, x, y);
  // Bits are moved, not converted.
  const int64_t hw = x.shape.h * x.shape.w;
  if (size_of(x.dtype) == 4) {
    transpose_items(ctx, x.as<uint32_t>(), x.shape.n, hw, x.shape.c, y.as<uint32_t>());
  } else {
    transpose_items(ctx, x.as<uint16_t>(), x.shape.n, hw, x.shape.c, y.as<uint16_t>());
  }
}

template <typename T>
static void flatten_backward_typed(Context& ctx, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  const BackwardTarget<T> target(dx, epilogue);
  const int64_t c = dx.shape.c, hw = dx.shape.h * dx.shape.w, words = gate_words_per_pixel(c);
  const T* in = dy.as<T>();
  parallel_ranges(ctx, dx.shape.pixels(), c, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) {
      const int64_t n = p / hw, place = p % hw, gate_pixel = n / epilogue.seeds_per_item * hw + place;
      for (int64_t j = 0; j < words; ++j) {
        const int64_t count = std::min<int64_t>(32, c - 32 * j);
        alignas(32) float values[32] = {};
        const T* column = in + n * c * hw + 32 * j * hw + place;
        for (int64_t i = 0; i < count; ++i) values[i] = float(column[i * hw]);
        target.write_group(p * c + 32 * j, gate_pixel * words + j, count,
                           [&](int v, int) SB_LAMBDA { return _mm256_load_ps(values + 8 * v); });
      }
    }
  });
}

void flatten_backward(Context& ctx, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  check_flat("flatten_backward", dx, dy);
  check_epilogue(epilogue, "flatten_backward");
  if (ctx.gpu) return ctx.gpu->ops->flatten_backward(ctx, dy, dx, epilogue);
  with_type(dx.dtype, "flatten_backward",
            [&](auto type) { flatten_backward_typed<decltype(type)>(ctx, dy, dx, epilogue); });
}

template <typename T>
static void one_hot_typed(View seed, const std::vector<SeedUnit>& units) {
  const Shape s = seed.shape;
  std::memset(seed.data, 0, size_t(s.count()) * sizeof(T));
  for (int64_t n = 0; n < s.n; ++n) {
    const SeedUnit& u = units[size_t(n)];
    T* channel = seed.as<T>() + n * s.item() + u.channel;
    if (u.row >= 0) {
      channel[(u.row * s.w + u.col) * s.c] = T(1.f);
    } else {
      for (int64_t p = 0; p < s.h * s.w; ++p) channel[p * s.c] = T(1.f);
    }
  }
}

void one_hot(Context& ctx, View seed, const std::vector<SeedUnit>& units) {
  const Shape s = seed.shape;
  CHECK(int64_t(units.size()) == s.n, "{} units for {} seeds", units.size(), s.n);
  for (const SeedUnit& u : units) {
    CHECK(u.channel >= 0 && u.channel < s.c && u.row < s.h && u.col < s.w && (u.row < 0 || u.col >= 0),
          "unit {}:{},{} is outside {}x{}x{}", u.channel, u.row, u.col, s.c, s.h, s.w);
  }
  if (ctx.gpu) return ctx.gpu->ops->one_hot(ctx, seed, units);
  with_type(seed.dtype, "one_hot", [&](auto type) { one_hot_typed<decltype(type)>(seed, units); });
}

}  // namespace switchback
