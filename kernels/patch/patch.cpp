// Patches on the CPU. Rows of patches run in parallel; which columns of a row lie inside x's patch is decided once a
// row, and what is left are straight loops over columns and channels that lie side by side.
#include "kernels/patch/patch.h"

#include <algorithm>
#include <cstring>

#include "kernels/device/device_ops.h"
#include "kernels/parallel.h"
#include "kernels/pool/average_axis.h"
#include "kernels/simd.h"

namespace switchback {
namespace {

// --- act(s), known at compile time inside the loops: the identity, or a ReLU as in gates.h

struct Identity {
  SB_INLINE F8 operator()(F8 s) const { return s; }
};
struct Relu {
  SB_INLINE F8 operator()(F8 s) const {  // NaN passes
    return _mm256_and_ps(s, _mm256_cmp_ps(s, _mm256_setzero_ps(), _CMP_NLE_UQ));
  }
};
struct ClippedRelu {
  float clip;
  SB_INLINE F8 operator()(F8 s) const { return _mm256_min_ps(_mm256_set1_ps(clip), Relu()(s)); }  // NaN: the second
};

// Calls f(T{}, act) with the element type and the activation of x.
template <typename F>
void with_type_and_act(const Change& x, const char* op, const F& f) {
  with_type(x.patch.dtype, op, [&](auto type) {
    if (!x.relu) return f(type, Identity());
    if (x.clip == kNoClip) return f(type, Relu());
    f(type, ClippedRelu{x.clip});
  });
}

// --- rows and columns

// Those of the places first … first + count − 1 that lie in `span`, counted from `first`.
Interval overlap(int64_t first, int64_t count, Interval span) {
  const int64_t begin = std::clamp<int64_t>(span.begin - first, 0, count);
  return {begin, std::clamp<int64_t>(span.end - first, begin, count)};
}

// body(p, r) for all rows of all items; `work` is what an element of y costs.
template <typename Body>
void each_row(Context& ctx, Shape y, int64_t work, const Body& body) {
  parallel_ranges(ctx, y.n * y.h, y.w * y.c * work, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) body(r / y.h, r % y.h);
  });
}

// Channels channel … + channels − 1 of one row of y.
template <typename T>
struct Row {
  T* data;
  int64_t channels, pitch;

  Row(View y, int64_t p, int64_t r, int64_t channel, int64_t channels)
      : data(y.as<T>() + (p * y.shape.h + r) * y.shape.w * y.shape.c + channel), channels(channels), pitch(y.shape.c) {}
  Row(View y, int64_t p, int64_t r) : Row(y, p, r, 0, y.shape.c) {}

  // Elements of these columns = source(i, to, lanes): eight values for `to`, the i-th element and on, counted from the
  // first column without gaps.
  template <typename Source>
  SB_INLINE void write(Interval columns, const Source& source) const {
    const int64_t size = strip(columns);
    for (int64_t s = 0; s < strips(columns); ++s) {
      T* to = data + (columns.begin + s) * pitch;
      int64_t i = 0;
      for (; i + 8 <= size; i += 8) store8(to + i, source(s * size + i, to + i, 8));
      const int lanes = int(size - i);
      if (lanes > 0) store8(to + i, source(s * size + i, to + i, lanes), lanes);
    }
  }
  void zero(Interval columns) const {
    for (int64_t s = 0; s < strips(columns); ++s)
      std::memset(static_cast<void*>(data + (columns.begin + s) * pitch), 0, size_t(strip(columns)) * sizeof(T));
  }
  void copy(Interval columns, const T* from) const {
    for (int64_t s = 0; s < strips(columns); ++s)
      std::copy_n(from + s * strip(columns), strip(columns), data + (columns.begin + s) * pitch);
  }

 private:
  // Elements side by side: all columns' where y has no other channels, else each column's.
  int64_t strips(Interval columns) const { return channels == pitch ? 1 : columns.size(); }
  int64_t strip(Interval columns) const { return channels == pitch ? columns.size() * channels : channels; }
};

// What the ops read of x.
template <typename T, typename Act>
struct Source {
  Source(const Change& x, Act act)
      : patch(x.patch.as<T>()), clean(x.clean.as<T>()), origins(x.origins), shape(x.patch.shape),
        map(x.clean.shape), act(act) {}

  Interval rows(int64_t p) const { return {origins[p].row, origins[p].row + shape.h}; }
  Interval columns(int64_t p) const { return {origins[p].col, origins[p].col + shape.w}; }
  // Those of the `count` places from (row, col) on that x's patch p holds, counted from there.
  Interval inside(int64_t p, int64_t row, int64_t col, int64_t count) const {
    return rows(p).has(row) ? overlap(col, count, columns(p)) : Interval();
  }
  const T* delta_at(int64_t p, int64_t row, int64_t col) const {
    return patch + ((p * shape.h + row - origins[p].row) * shape.w + col - origins[p].col) * shape.c;
  }
  const T* clean_at(int64_t row, int64_t col) const { return clean + (row * map.w + col) * map.c; }

  SB_INLINE F8 value(const T* s, const T* delta, int lanes) const {
    return act(_mm256_add_ps(load8(s, lanes), load8(delta, lanes)));
  }
  SB_INLINE F8 change(const T* s, const T* delta, int lanes) const {
    if constexpr (std::is_same_v<Act, Identity>) return load8(delta, lanes);
    else return change(load8(s, lanes), load8(delta, lanes));
  }
  SB_INLINE F8 change(F8 s, F8 delta) const {
    if constexpr (std::is_same_v<Act, Identity>) return delta;
    else return _mm256_sub_ps(act(_mm256_add_ps(s, delta)), act(s));
  }

  const T *patch, *clean;
  const Origin* origins;
  Shape shape, map;
  Act act;
};

// --- reading a change

template <typename T, typename Act>
void gather_changes(Context& ctx, const Source<T, Act>& x, const Origin* origins, View y, int64_t channel) {
  const int64_t w = y.shape.w;
  each_row(ctx, y.shape, 1, [&](int64_t p, int64_t r) {
    const Row<T> to(y, p, r, channel, x.shape.c);
    const int64_t row = origins[p].row + r, col = origins[p].col;
    const Interval inside = x.inside(p, row, col, w);
    to.zero({0, inside.begin});
    if (inside.size() > 0) {
      const T *s = x.clean_at(row, col + inside.begin), *delta = x.delta_at(p, row, col + inside.begin);
      if constexpr (std::is_same_v<Act, Identity>) to.copy(inside, delta);
      else to.write(inside, [&](int64_t i, T*, int lanes) SB_LAMBDA { return x.change(s + i, delta + i, lanes); });
    }
    to.zero({inside.end, w});
  });
}

template <typename T, typename Act>
void add_changes(Context& ctx, const Source<T, Act>& x, const Origin* origins, View y) {
  each_row(ctx, y.shape, 1, [&](int64_t p, int64_t r) {
    const int64_t row = origins[p].row + r, col = origins[p].col;
    const Interval inside = x.inside(p, row, col, y.shape.w);
    if (inside.size() == 0) return;
    const T *s = x.clean_at(row, col + inside.begin), *delta = x.delta_at(p, row, col + inside.begin);
    Row<T>(y, p, r).write(inside, [&](int64_t i, T* to, int lanes) SB_LAMBDA {
      return _mm256_add_ps(load8(to, lanes), x.change(s + i, delta + i, lanes));
    });
  });
}

// origins null: y's patches begin at the map's corner.
template <typename T, typename Act>
void gather_values(Context& ctx, const Source<T, Act>& x, const Origin* origins, View y) {
  const int64_t w = y.shape.w;
  each_row(ctx, y.shape, 1, [&](int64_t p, int64_t r) {
    const Row<T> to(y, p, r);
    const Origin at = origins ? origins[p] : Origin();
    const int64_t row = at.row + r, col = at.col;
    const auto write_clean = [&](Interval columns) {
      const T* s = x.clean_at(row, col + columns.begin);
      to.write(columns, [&](int64_t i, T*, int lanes) SB_LAMBDA { return x.act(load8(s + i, lanes)); });
    };
    const Interval inside = x.inside(p, row, col, w);
    write_clean({0, inside.begin});
    if (inside.size() > 0) {
      const T *s = x.clean_at(row, col + inside.begin), *delta = x.delta_at(p, row, col + inside.begin);
      to.write(inside, [&](int64_t i, T*, int lanes) SB_LAMBDA { return x.value(s + i, delta + i, lanes); });
    }
    write_clean({inside.end, w});
  });
}

template <typename T>
void subtract_clean(Context& ctx, ConstView clean, const Origin* origins, View y) {
  const Shape map = clean.shape;
  each_row(ctx, y.shape, 1, [&](int64_t p, int64_t r) {
    const T* s = clean.as<T>() + ((origins[p].row + r) * map.w + origins[p].col) * map.c;
    Row<T>(y, p, r).write({0, y.shape.w}, [&](int64_t i, T* to, int lanes) SB_LAMBDA {
      return _mm256_sub_ps(load8(to, lanes), load8(s + i, lanes));
    });
  });
}

// --- pools

struct PoolAxis {
  SlidingAxis sliding;
  int64_t in;
};

// Where the window of one output begins (may be < 0), its places inside the map, and those of them inside x's patch.
struct Taps {
  Taps(const PoolAxis& axis, int64_t output, Interval patch)
      : start(axis.sliding.start(output)), inside(axis.sliding.taps(output, {0, axis.in})),
        changed(axis.sliding.taps(output, patch)) {}
  int64_t start;
  Interval inside, changed;
};

// pixel(p, place on the pooled map, rows, columns, to) for the outputs whose pooling windows meet x's patch p; all
// others become zero.
template <typename T, typename Act, typename Pixel>
void pool_changes(Context& ctx, const Source<T, Act>& x, const PoolAxis& rows, const PoolAxis& columns,
                  const Origin* origins, View y, const Pixel& pixel) {
  each_row(ctx, y.shape, rows.sliding.kernel * columns.sliding.kernel, [&](int64_t p, int64_t r) {
    const Row<T> to(y, p, r);
    const Origin at = origins[p];
    const Taps row(rows, at.row + r, x.rows(p));
    for (int64_t q = 0; q < y.shape.w; ++q) {
      const Taps column(columns, at.col + q, x.columns(p));
      if (row.changed.size() == 0 || column.changed.size() == 0) {
        to.zero({q, q + 1});
      } else {
        pixel(p, Origin{int32_t(at.row + r), int32_t(at.col + q)}, row, column, to.data + q * to.pitch);
      }
    }
  });
}

// body(c, vectors, lanes) for groups of channels from c on: four vectors, then single ones, the last of fewer lanes.
template <typename Body>
SB_INLINE void each_group(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + 32 <= channels; c += 32) body(c, std::integral_constant<int, 4>(), 8);
  for (; c < channels; c += 8) body(c, std::integral_constant<int, 1>(), int(std::min<int64_t>(8, channels - c)));
}

struct Maximum {  // the value alone of eight channels of a Winner (winner.h)
  F8 best = _mm256_set1_ps(-std::numeric_limits<float>::infinity()), nan = _mm256_setzero_ps();
  SB_INLINE void meet(F8 v) {  // max gives its second operand where one is NaN, and of equals
    best = _mm256_max_ps(v, best);
    nan = _mm256_or_ps(nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  }
  SB_INLINE F8 value() const { return _mm256_or_ps(best, nan); }
};

// The maximum of clean + Δ over a pooling window. act never falls, so the maximum of the values is act of this one.
template <int kVectors, typename T, typename Act>
SB_INLINE void find_maximum(const Source<T, Act>& x, int64_t p, const PoolAxis& rows, const PoolAxis& columns,
                            const Taps& row, const Taps& column, int64_t c, int lanes, Maximum (&best)[kVectors]) {
  const int64_t step = columns.sliding.dilation * x.shape.c;
  for (int64_t a = row.inside.begin; a < row.inside.end; ++a) {
    const int64_t i = row.start + a * rows.sliding.dilation;
    const T *s = x.clean_at(i, column.start) + c, *delta = x.delta_at(p, i, column.start) + c;
    const Interval changed = row.changed.has(a) ? column.changed : Interval();
    for (int64_t b = column.inside.begin; b < column.inside.end; ++b) {
      const T *at = s + b * step, *change = delta + b * step;
      if (changed.has(b)) {
        for (int v = 0; v < kVectors; ++v)
          best[v].meet(_mm256_add_ps(load8(at + 8 * v, lanes), load8(change + 8 * v, lanes)));
      } else {
        for (int v = 0; v < kVectors; ++v) best[v].meet(load8(at + 8 * v, lanes));
      }
    }
  }
}

template <typename T, typename Act>
void max_pool(Context& ctx, const MaxPool2d& pool, const Source<T, Act>& x, ConstView clean, const Origin* origins,
              View y) {
  const PoolAxis rows{sliding_rows(pool), x.map.h}, columns{sliding_columns(pool), x.map.w};
  pool_changes(ctx, x, rows, columns, origins, y,
               [&](int64_t p, Origin at, const Taps& row, const Taps& column, T* to) SB_LAMBDA {
                 const T* was = clean.as<T>() + (at.row * clean.shape.w + at.col) * clean.shape.c;
                 each_group(y.shape.c, [&](int64_t c, auto vectors, int lanes) SB_LAMBDA {
                   Maximum best[vectors()];
                   find_maximum(x, p, rows, columns, row, column, c, lanes, best);
                   for (int v = 0; v < vectors(); ++v)
                     store8(to + c + 8 * v, x.act(best[v].value()) - load8(was + c + 8 * v, lanes), lanes);
                 });
               });
}

template <typename T, typename Act>
void average_pool(Context& ctx, const AvgPool2d& pool, const Source<T, Act>& x, const Origin* origins, View y) {
  const PoolAxis rows{sliding_rows(pool), x.map.h}, columns{sliding_columns(pool), x.map.w};
  const auto axes = average_axes<int64_t>(pool, x.map, output_shape(pool, x.map));
  pool_changes(ctx, x, rows, columns, origins, y,
               [&](int64_t p, Origin at, const Taps& row, const Taps& column, T* to) SB_LAMBDA {
                 const F8 divisor =
                     _mm256_set1_ps(float(axes.rows.window(at.row).size * axes.columns.window(at.col).size));
                 each_group(y.shape.c, [&](int64_t c, auto vectors, int lanes) SB_LAMBDA {
                   F8 sum[vectors()] = {};
                   for (int64_t a = row.changed.begin; a < row.changed.end; ++a) {
                     const T *s = x.clean_at(row.start + a, column.start) + c;
                     const T *delta = x.delta_at(p, row.start + a, column.start) + c;
                     for (int64_t b = column.changed.begin; b < column.changed.end; ++b) {
                       const int64_t from = b * x.shape.c;
                       for (int v = 0; v < vectors(); ++v)
                         sum[v] = _mm256_add_ps(sum[v], x.change(s + from + 8 * v, delta + from + 8 * v, lanes));
                     }
                   }
                   for (int v = 0; v < vectors(); ++v) store8(to + c + 8 * v, _mm256_div_ps(sum[v], divisor), lanes);
                 });
               });
}

// --- Resize, Pad, Slice, ChannelShuffle

// The changes of eight channels of one pixel of the result; 0 where a channel is none of x's.
template <typename T, typename Act>
SB_INLINE F8 changes_of(const Source<T, Act>& x, const T* s, const T* delta, const std::vector<int32_t>& channels,
                        int64_t channel, int lanes) {
  if (channels.empty()) return x.change(s + channel, delta + channel, lanes);
  alignas(32) float before[8] = {}, by[8] = {};
  for (int i = 0; i < lanes; ++i) {
    const int32_t from = channels[size_t(channel + i)];
    if (from >= 0) before[i] = float(s[from]), by[i] = float(delta[from]);
  }
  return x.change(_mm256_load_ps(before), _mm256_load_ps(by));
}

// A constant (tap -1) lies in no patch.
template <typename T, typename Act>
void resample(Context& ctx, const Resampling::Tables& tables, const Source<T, Act>& x, const Origin* origins, View y) {
  each_row(ctx, y.shape, 2, [&](int64_t p, int64_t r) {
    const Row<T> to(y, p, r);
    const Interval rows = x.rows(p), columns = x.columns(p);
    const int32_t* row = tables.rows.first.data() + origins[p].row + r;
    const int32_t* column = tables.columns.first.data() + origins[p].col;
    for (int64_t q = 0; q < y.shape.w; ++q, ++column)
      to.write({q, q + 1}, [&](int64_t channel, T*, int lanes) SB_LAMBDA {
        F8 sum = _mm256_setzero_ps();
        for (int32_t a = row[0]; a < row[1]; ++a) {
          const Resampling::Tap h = tables.rows.taps[size_t(a)];
          if (!rows.has(h.from)) continue;
          for (int32_t b = column[0]; b < column[1]; ++b) {
            const Resampling::Tap w = tables.columns.taps[size_t(b)];
            if (!columns.has(w.from)) continue;
            const F8 change = changes_of(x, x.clean_at(h.from, w.from), x.delta_at(p, h.from, w.from), tables.channels,
                                         channel, lanes);
            sum = _mm256_fmadd_ps(_mm256_set1_ps(h.weight * w.weight), change, sum);
          }
        }
        return sum;
      });
  });
}

// --- boxes

Interval rows_of(const Box& box) { return {box.row, int64_t(box.row) + box.height}; }
Interval columns_of(const Box& box) { return {box.col, int64_t(box.col) + box.width}; }
// Those of the `count` places from (row, col) on that the box covers, counted from there.
Interval covered(const Box& box, int64_t row, int64_t col, int64_t count) {
  return rows_of(box).has(row) ? overlap(col, count, columns_of(box)) : Interval();
}

template <typename T>
void occlude_patches(Context& ctx, ConstView x, ConstView baseline, const Box* boxes, const Origin* origins, View y) {
  each_row(ctx, y.shape, 1, [&](int64_t p, int64_t r) {
    const Row<T> to(y, p, r);
    const int64_t row = origins[p].row + r, col = origins[p].col;
    const Interval inside = covered(boxes[p], row, col, y.shape.w);
    const int64_t first = (row * x.shape.w + col + inside.begin) * x.shape.c;
    to.zero({0, inside.begin});
    to.write(inside, [&](int64_t i, T*, int lanes) SB_LAMBDA {
      return _mm256_sub_ps(load8(baseline.as<T>() + first + i, lanes), load8(x.as<T>() + first + i, lanes));
    });
    to.zero({inside.end, y.shape.w});
  });
}

// Bytes are moved, not converted.
void occlude_images_on_cpu(Context& ctx, ConstView x, ConstView baseline, const Box* boxes, View y) {
  const Shape s = y.shape;
  const size_t pixel = size_t(s.c) * size_of(y.dtype), line = size_t(s.w) * pixel;
  each_row(ctx, s, 1, [&](int64_t p, int64_t r) {
    char* to = y.as<char>() + size_t(p * s.h + r) * line;
    std::memcpy(to, x.as<char>() + size_t(r) * line, line);
    const Interval inside = covered(boxes[p], r, 0, s.w);
    const size_t first = size_t(inside.begin) * pixel;
    std::memcpy(to + first, baseline.as<char>() + size_t(r) * line + first, size_t(inside.size()) * pixel);
  });
}

// --- checks

std::string text(Shape s) { return fmt::format("[{},{},{},{}]", s.n, s.c, s.h, s.w); }

// Patches of this shape fit into the map; where the host can see their origins, that they lie in it.
void check_inside(const Context& ctx, const char* op, const Origin* origins, Shape patches, Shape map) {
  CHECK(origins, "{}: patches without origins", op);
  CHECK(patches.h <= map.h && patches.w <= map.w, "{}: patches {} are larger than the map {}", op, text(patches),
        text(map));
  if (ctx.gpu) return;
  for (int64_t p = 0; p < patches.n; ++p) {
    const Origin at = origins[p];
    CHECK(at.row >= 0 && at.col >= 0 && at.row + patches.h <= map.h && at.col + patches.w <= map.w,
          "{}: patch {} of {} at row {}, column {} is not inside the map {}", op, p, text(patches), at.row, at.col,
          text(map));
  }
}

void check_shapes(const char* op, const Change& x) {
  const Shape s = x.patch.shape, map = x.clean.shape;
  CHECK(map.n == 1 && map.c == s.c && x.clean.dtype == x.patch.dtype, "{}: a clean map of {} {} for patches of {} {}",
        op, name_of(x.clean.dtype), text(map), name_of(x.patch.dtype), text(s));
}

void check_change(const Context& ctx, const char* op, const Change& x) {
  check_shapes(op, x);
  check_inside(ctx, op, x.origins, x.patch.shape, x.clean.shape);
}

// y has x's items, element type and `channels` channels.
void check_output(const char* op, Shape x, DType dtype, int64_t channels, ConstView y) {
  CHECK(y.shape.n == x.n && y.shape.c == channels && y.dtype == dtype, "{}: {} {} from patches of {} {}", op,
        name_of(y.dtype), text(y.shape), name_of(dtype), text(x));
}

void check_image(const char* op, ConstView x, ConstView baseline, const Box* boxes, ConstView y) {
  CHECK(x.shape.n == 1 && x.shape == baseline.shape && x.dtype == baseline.dtype,
        "{}: an image of {} {} and a baseline of {} {}", op, name_of(x.dtype), text(x.shape), name_of(baseline.dtype),
        text(baseline.shape));
  CHECK(boxes, "{}: there are no boxes", op);
  check_output(op, x.shape.with_n(y.shape.n), x.dtype, x.shape.c, y);
}

}  // namespace

void gather_changes(Context& ctx, const Change& x, const Origin* origins, View y, int64_t channel) {
  const char* op = "gather_changes";
  if (x.relu) check_change(ctx, op, x);
  else check_shapes(op, x);
  check_output(op, x.patch.shape, x.patch.dtype, y.shape.c, y);
  CHECK(x.origins && origins, "{}: patches without origins", op);
  CHECK(channel >= 0 && channel + x.patch.shape.c <= y.shape.c, "{}: {} channels from channel {} on of {}", op,
        x.patch.shape.c, channel, y.shape.c);
  if (ctx.gpu) return ctx.gpu->ops->gather_changes(ctx, x, origins, y, channel);
  with_type_and_act(x, op, [&](auto type, auto act) {
    gather_changes(ctx, Source<decltype(type), decltype(act)>(x, act), origins, y, channel);
  });
}

void add_changes(Context& ctx, const Change& x, const Origin* origins, View y) {
  const char* op = "add_changes";
  check_change(ctx, op, x);
  check_output(op, x.patch.shape, x.patch.dtype, x.patch.shape.c, y);
  check_inside(ctx, op, origins, y.shape, x.clean.shape);
  if (ctx.gpu) return ctx.gpu->ops->add_changes(ctx, x, origins, y);
  with_type_and_act(x, op, [&](auto type, auto act) {
    add_changes(ctx, Source<decltype(type), decltype(act)>(x, act), origins, y);
  });
}

void gather_values(Context& ctx, const Change& x, const Origin* origins, View y) {
  const char* op = "gather_values";
  check_change(ctx, op, x);
  check_output(op, x.patch.shape, x.patch.dtype, x.patch.shape.c, y);
  check_inside(ctx, op, origins, y.shape, x.clean.shape);
  if (ctx.gpu) return ctx.gpu->ops->gather_values(ctx, x, origins, y);
  with_type_and_act(x, op, [&](auto type, auto act) {
    gather_values(ctx, Source<decltype(type), decltype(act)>(x, act), origins, y);
  });
}

void subtract_clean(Context& ctx, ConstView clean, const Origin* origins, View y) {
  const char* op = "subtract_clean";
  CHECK(clean.shape.n == 1, "{}: a clean map of {}", op, text(clean.shape));
  check_output(op, clean.shape.with_n(y.shape.n), clean.dtype, clean.shape.c, y);
  check_inside(ctx, op, origins, y.shape, clean.shape);
  if (ctx.gpu) return ctx.gpu->ops->subtract_clean(ctx, clean, origins, y);
  with_type(y.dtype, op, [&](auto type) { subtract_clean<decltype(type)>(ctx, clean, origins, y); });
}

void expand_patches(Context& ctx, const Change& x, View y) {
  const char* op = "expand_patches";
  check_change(ctx, op, x);
  check_output(op, x.patch.shape, x.patch.dtype, x.patch.shape.c, y);
  CHECK(y.shape == x.clean.shape.with_n(y.shape.n), "{}: {} where the map is {}", op, text(y.shape),
        text(x.clean.shape));
  if (ctx.gpu) return ctx.gpu->ops->expand_patches(ctx, x, y);
  with_type_and_act(x, op, [&](auto type, auto act) {
    gather_values(ctx, Source<decltype(type), decltype(act)>(x, act), nullptr, y);
  });
}

void max_pool2d_changes(Context& ctx, const MaxPool2d& pool, const Change& x, ConstView clean, const Origin* origins,
                        View y) {
  const char* op = "max_pool2d_changes";
  check_change(ctx, op, x);
  check_output(op, x.patch.shape, x.patch.dtype, x.patch.shape.c, y);
  const Shape pooled = output_shape(pool, x.clean.shape);
  CHECK(clean.shape == pooled && clean.dtype == y.dtype, "{}: the clean pooled map is {} {}, must be {} {}", op,
        name_of(clean.dtype), text(clean.shape), name_of(y.dtype), text(pooled));
  check_inside(ctx, op, origins, y.shape, pooled);
  if (ctx.gpu) return ctx.gpu->ops->max_pool2d_changes(ctx, pool, x, clean, origins, y);
  with_type_and_act(x, op, [&](auto type, auto act) {
    max_pool(ctx, pool, Source<decltype(type), decltype(act)>(x, act), clean, origins, y);
  });
}

void avg_pool2d_changes(Context& ctx, const AvgPool2d& pool, const Change& x, const Origin* origins, View y) {
  const char* op = "avg_pool2d_changes";
  check_change(ctx, op, x);
  check_output(op, x.patch.shape, x.patch.dtype, x.patch.shape.c, y);
  check_inside(ctx, op, origins, y.shape, output_shape(pool, x.clean.shape));
  if (ctx.gpu) return ctx.gpu->ops->avg_pool2d_changes(ctx, pool, x, origins, y);
  with_type_and_act(x, op, [&](auto type, auto act) {
    average_pool(ctx, pool, Source<decltype(type), decltype(act)>(x, act), origins, y);
  });
}

void resample_changes(Context& ctx, const Resampling& r, const Change& x, const Origin* origins, View y) {
  const char* op = "resample_changes";
  check_change(ctx, op, x);
  CHECK(x.clean.shape == r.in(), "{}: a map of {} for tables of {}", op, text(x.clean.shape), text(r.in()));
  check_output(op, x.patch.shape, x.patch.dtype, r.out().c, y);
  check_inside(ctx, op, origins, y.shape, r.out());
  if (ctx.gpu) return ctx.gpu->ops->resample_changes(ctx, r, x, origins, y);
  with_type_and_act(x, op, [&](auto type, auto act) {
    resample(ctx, r.forward(), Source<decltype(type), decltype(act)>(x, act), origins, y);
  });
}

void occlude_patches(Context& ctx, ConstView x, ConstView baseline, const Box* boxes, const Origin* origins, View y) {
  const char* op = "occlude_patches";
  check_image(op, x, baseline, boxes, y);
  check_inside(ctx, op, origins, y.shape, x.shape);
  if (ctx.gpu) return ctx.gpu->ops->occlude_patches(ctx, x, baseline, boxes, origins, y);
  with_type(y.dtype, op, [&](auto type) { occlude_patches<decltype(type)>(ctx, x, baseline, boxes, origins, y); });
}

void occlude_images(Context& ctx, ConstView x, ConstView baseline, const Box* boxes, View y) {
  const char* op = "occlude_images";
  check_image(op, x, baseline, boxes, y);
  CHECK(y.shape == x.shape.with_n(y.shape.n), "{}: {} from an image of {}", op, text(y.shape), text(x.shape));
  if (ctx.gpu) return ctx.gpu->ops->occlude_images(ctx, x, baseline, boxes, y);
  occlude_images_on_cpu(ctx, x, baseline, boxes, y);
}

}  // namespace switchback
