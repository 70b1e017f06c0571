// Max pooling with switches, and its backward pass as a gather: every dx element sums, in row-major order of the
// windows, those that cover it and whose switch names its place. No scatter, so any split over threads is exact.
#include <algorithm>
#include <vector>

#include "kernels/device/device_ops.h"
#include "kernels/pool/max_pool_rows.h"
#include "kernels/parallel.h"
#include "kernels/pool/pool.h"
#include "kernels/simd.h"
#include "kernels/sliding.h"

namespace switchback {

MaxPool2d max_pool2d(int64_t kernel, int64_t stride, int64_t padding, int64_t dilation, bool ceil_mode) {
  return {.kernel_h = kernel,
          .kernel_w = kernel,
          .stride_h = stride,
          .stride_w = stride,
          .pad_top = padding,
          .pad_left = padding,
          .pad_bottom = padding,
          .pad_right = padding,
          .dilation_h = dilation,
          .dilation_w = dilation,
          .ceil_mode = ceil_mode};
}

// Where an output's window begins (may be < 0), and its places that lie inside the input.
struct AxisWindow {
  int64_t start;
  Interval places;
};

static std::vector<AxisWindow> axis_windows(const SlidingAxis& axis, int64_t in, int64_t out) {
  std::vector<AxisWindow> windows;
  for (int64_t o = 0; o < out; ++o) windows.push_back({axis.start(o), axis.taps(o, {0, in})});
  return windows;
}

namespace {

// Eight channels of a Winner (winner.h).
struct Winner8 {
  F8 best = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
  I8 place;
  explicit Winner8(int first_place) : place(_mm256_set1_epi32(first_place)) {}
  SB_INLINE void meet(F8 value, int at) {
    const F8 wins = _mm256_or_ps(_mm256_cmp_ps(value, best, _CMP_GT_OQ), _mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    best = _mm256_blendv_ps(best, value, wins);
    place = _mm256_blendv_epi8(place, _mm256_set1_epi32(at), _mm256_castps_si256(wins));
  }
};

struct Window {  // places [y0,y1) x [x0,x1) of a window of width `kernel_w`, in elements of the input
  int y0, y1, x0, x1, kernel_w;
  int64_t row_step, column_step;
};

// kSize > 0: a complete kSize x kSize window, unrolled.
template <int kSize, typename T>
SB_INLINE Winner8 find_winner(const T* origin, const Window& w, int lanes) {
  if constexpr (kSize > 0) {
    Winner8 winner(0);
#pragma GCC unroll 3
    for (int y = 0; y < kSize; ++y) {
#pragma GCC unroll 3
      for (int x = 0; x < kSize; ++x) {
        winner.meet(load8(origin + y * w.row_step + x * w.column_step, lanes), y * kSize + x);
      }
    }
    return winner;
  }
  Winner8 winner(w.y0 < w.y1 && w.x0 < w.x1 ? w.y0 * w.kernel_w + w.x0 : 0);
  for (int y = w.y0; y < w.y1; ++y) {
    for (int x = w.x0; x < w.x1; ++x) {
      winner.meet(load8(origin + y * w.row_step + x * w.column_step, lanes), y * w.kernel_w + x);
    }
  }
  return winner;
}

// All the channels of one output pixel.
template <int kSize, typename T, typename Switch>
SB_INLINE void pool_pixel(const T* origin, const Window& window, int64_t channels, int64_t element, int64_t word,
                          Switch* switches, const ForwardTarget<T>& target) {
  for (int64_t c = 0; c < channels; c += 32) {
    target.write_group(element + c, word + c / 32, channels - c, [&](int v, int lanes) SB_LAMBDA {
      const Winner8 winner = find_winner<kSize>(origin + c + 8 * v, window, lanes);
      if (switches) store_switches8(switches + element + c + 8 * v, winner.place, lanes);
      return winner.best;
    });
  }
}

}  // namespace

static const MaxPoolKernels& row_kernels() { return cpu_features().avx512 ? max_pool_avx512 : max_pool_avx2; }

// Whether max_pool_rows.h has it: 2x2 and 3x3 windows that all meet the map, of f32, with nothing behind them.
static bool pools_by_rows(const MaxPool2d& pool, const std::vector<AxisWindow>& rows,
                          const std::vector<AxisWindow>& columns, DType dtype, const Epilogue& e) {
  const auto meets = [](const AxisWindow& w) { return !w.places.empty(); };
  return dtype == DType::f32 && pool.kernel_h == pool.kernel_w && (pool.kernel_h == 2 || pool.kernel_h == 3) &&
         !e.residual && !e.relu && !e.gates && !e.pitch && std::all_of(rows.begin(), rows.end(), meets) &&
         std::all_of(columns.begin(), columns.end(), meets);
}

static void forward_by_rows(Context& ctx, const MaxPool2d& pool, const std::vector<AxisWindow>& rows,
                            const std::vector<AxisWindow>& columns, ConstView x, View y, uint8_t* switches) {
  const Shape in = x.shape, out = y.shape;
  const int k = int(pool.kernel_h);
  const auto inside = [](const AxisWindow& w, int64_t place) {
    return std::clamp(place, w.places.begin, w.places.end - 1);
  };
  std::vector<WindowColumn> window_columns(columns.size());
  for (size_t q = 0; q < columns.size(); ++q)
    for (int j = 0; j < k; ++j) {
      const int64_t place = inside(columns[q], j);
      window_columns[q].offset[j] = (columns[q].start + place * pool.dilation_w) * in.c;
      window_columns[q].place[j] = uint8_t(place);
    }
  const auto run = k == 2 ? row_kernels().pool2 : row_kernels().pool3;
  parallel_ranges(ctx, out.n * out.h, out.w * out.c * pool.window(), [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const int64_t at = r * out.w * out.c;
      MaxPoolRow row{.input = {}, .place = {}, .columns = window_columns.data(), .width = out.w, .channels = out.c,
                     .y = y.as<float>() + at, .switches = switches ? switches + at : nullptr};
      const AxisWindow& window = rows[size_t(r % out.h)];
      for (int i = 0; i < k; ++i) {
        const int64_t place = inside(window, i), h = r / out.h * in.h + window.start + place * pool.dilation_h;
        row.input[i] = x.as<float>() + h * in.w * in.c;
        row.place[i] = uint8_t(k * place);
      }
      run(row);
    }
  });
}

template <typename T, typename Switch>
static void forward(Context& ctx, const MaxPool2d& pool, ConstView x, View y, Switch* switches,
                    const Epilogue& epilogue) {
  const Shape in = x.shape, out = y.shape;
  const auto rows = axis_windows(sliding_rows(pool), in.h, out.h);
  const auto columns = axis_windows(sliding_columns(pool), in.w, out.w);
  if constexpr (std::is_same_v<Switch, uint8_t>)
    if (pools_by_rows(pool, rows, columns, x.dtype, epilogue))
      return forward_by_rows(ctx, pool, rows, columns, x, y, switches);
  const int square = pool.kernel_h == pool.kernel_w ? int(pool.kernel_h) : 0;
  const ForwardTarget<T> target(y, epilogue);
  const int64_t words = gate_words_per_pixel(out.c);
  parallel_ranges(ctx, out.n * out.h, out.w * out.c * pool.window(), [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const AxisWindow& row = rows[r % out.h];
      const T* item = x.as<T>() + r / out.h * in.item();
      for (int64_t q = 0; q < out.w; ++q) {
        const AxisWindow& column = columns[q];
        const Window window{int(row.places.begin), int(row.places.end), int(column.places.begin),
                            int(column.places.end), int(pool.kernel_w), pool.dilation_h * in.w * in.c,
                            pool.dilation_w * in.c};
        const T* origin = item + (row.start * in.w + column.start) * in.c;  // may lie before the input; not read there
        const bool whole = row.places == Interval{0, square} && column.places == Interval{0, square};
        const int64_t pixel = r * out.w + q, element = pixel * out.c;
        if (whole && square == 2) {
          pool_pixel<2>(origin, window, out.c, element, pixel * words, switches, target);
        } else if (whole && square == 3) {
          pool_pixel<3>(origin, window, out.c, element, pixel * words, switches, target);
        } else {
          pool_pixel<0>(origin, window, out.c, element, pixel * words, switches, target);
        }
      }
    }
  });
}

void max_pool2d_forward(Context& ctx, const MaxPool2d& pool, ConstView x, View y, void* switches,
                        const Epilogue& epilogue) {
  const Shape want = output_shape(pool, x.shape);
  CHECK(y.shape == want && x.dtype == y.dtype, "max_pool2d_forward: output is [{},{},{},{}], must be [{},{},{},{}]",
        y.shape.n, y.shape.c, y.shape.h, y.shape.w, want.n, want.c, want.h, want.w);
  if (ctx.gpu) return ctx.gpu->ops->max_pool2d_forward(ctx, pool, x, y, switches, epilogue);
  with_type(x.dtype, "max_pool2d_forward", [&](auto type) {
    using T = decltype(type);
    if (pool.switch_bytes() == 1) {
      forward<T>(ctx, pool, x, y, static_cast<uint8_t*>(switches), epilogue);
    } else {
      forward<T>(ctx, pool, x, y, static_cast<uint16_t*>(switches), epilogue);
    }
  });
}

namespace {

// The windows that cover each place of one axis, outputs ascending. From output to output it is `step` values, from
// place to place in a window `place_step`.
struct Covers {
  std::vector<PoolCover> covers;
  std::vector<int64_t> first;  // [in + 1]: those of place i are [first[i], first[i + 1])

  Covers(const SlidingAxis& axis, int64_t in, int64_t out, int64_t step, int64_t place_step) {
    first.reserve(in + 1);
    for (int64_t i = 0; i < in; ++i) {
      first.push_back(int64_t(covers.size()));
      for (int64_t k = axis.kernel - 1; k >= 0; --k)
        if (const int64_t o = axis.output(i, k, out); o >= 0) covers.push_back({o * step, int(k * place_step)});
    }
    first.push_back(int64_t(covers.size()));
  }
};

template <typename T, typename Switch>
struct Source {  // of one item
  const T* dy;
  const Switch* switches;
};

// dy where the switch names `place`, else 0.
template <typename T, typename Switch>
SB_INLINE F8 selected(const Source<T, Switch>& s, int64_t element, int place, int lanes) {
  const I8 hit = _mm256_cmpeq_epi32(load_switches8(s.switches + element, lanes), _mm256_set1_epi32(place));
  return _mm256_and_ps(load8(s.dy + element, lanes), _mm256_castsi256_ps(hit));
}

// The same added to the sums of a group of channels.
template <typename T, typename Switch>
SB_INLINE void add_selected(const Source<T, Switch>& s, int64_t element, int place, int count, F8 (&sum)[4]) {
  if (count == 32) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sum[v] = _mm256_add_ps(sum[v], selected(s, element + 8 * v, place, 8));
  } else {
    for (int v = 0; 8 * v < count; ++v) {
      sum[v] = _mm256_add_ps(sum[v], selected(s, element + 8 * v, place, std::min(8, count - 8 * v)));
    }
  }
}

}  // namespace

static void backward_by_rows(Context& ctx, const Covers& rows, const Covers& columns, ConstView dy,
                             const uint8_t* switches, View dx, const BackwardEpilogue& epilogue) {
  const Shape in = dx.shape, out = dy.shape;
  const int64_t words = in.w * gate_words_per_pixel(in.c);
  const float* other = static_cast<const float*>(epilogue.other);
  const uint32_t* gates = gates_read(epilogue);
  const auto run = row_kernels().unpool;
  parallel_ranges(ctx, in.n * in.h, 2 * in.w * in.c, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const int64_t n = r / in.h, i = r % in.h, tape_item = n / epilogue.seeds_per_item, at = r * in.w * in.c;
      run({.dy = dy.as<float>() + n * out.item(), .switches = switches + tape_item * out.item(),
           .rows = rows.covers.data() + rows.first[size_t(i)],
           .rows_end = rows.covers.data() + rows.first[size_t(i) + 1],
           .columns = columns.covers.data(), .first_column = columns.first.data(), .width = in.w, .channels = in.c,
           .dx = dx.as<float>() + at, .other = other ? other + at : nullptr,
           .gates = gates ? gates + (tape_item * in.h + i) * words : nullptr,
           .positive_only = epilogue.relu && epilogue.rule.gate_gradient});
    }
  });
}

template <typename T, typename Switch>
static void backward_any(Context& ctx, const MaxPool2d& pool, ConstView dy, const Switch* switches, View dx,
                         const BackwardEpilogue& epilogue) {
  const Shape in = dx.shape, out = dy.shape;
  const Covers rows(sliding_rows(pool), in.h, out.h, out.w * out.c, pool.kernel_w);
  const Covers columns(sliding_columns(pool), in.w, out.w, out.c, 1);
  if constexpr (std::is_same_v<T, float> && std::is_same_v<Switch, uint8_t>)
    return backward_by_rows(ctx, rows, columns, dy, switches, dx, epilogue);
  const BackwardTarget<T> target(dx, epilogue);
  const int64_t words = gate_words_per_pixel(in.c);
  parallel_ranges(ctx, in.n * in.h, 2 * in.w * in.c, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const int64_t n = r / in.h, i = r % in.h, tape_item = n / epilogue.seeds_per_item;
      const Source<T, Switch> source{dy.as<T>() + n * out.item(), switches + tape_item * out.item()};
      for (int64_t j = 0; j < in.w; ++j) {
        const int64_t element = (r * in.w + j) * in.c, word = ((tape_item * in.h + i) * in.w + j) * words;
        for (int64_t c = 0; c < in.c; c += 32) {
          F8 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
          const int count = int(std::min<int64_t>(32, in.c - c));
          for (int64_t a = rows.first[i]; a < rows.first[i + 1]; ++a) {
            for (int64_t b = columns.first[j]; b < columns.first[j + 1]; ++b) {
              const PoolCover &row = rows.covers[a], &column = columns.covers[b];
              add_selected(source, row.offset + column.offset + c, row.place + column.place, count, sum);
            }
          }
          target.write_group(element + c, word + c / 32, count, [&](int v, int) SB_LAMBDA { return sum[v]; });
        }
      }
    }
  });
}

// KxK windows side by side that cover the input exactly: each window writes its places.
template <typename T, int K>
static void backward_tiled(Context& ctx, ConstView dy, const uint8_t* switches, View dx,
                           const BackwardEpilogue& epilogue) {
  const Shape in = dx.shape, out = dy.shape;
  const BackwardTarget<T> target(dx, epilogue);
  const int64_t words = gate_words_per_pixel(in.c);
  parallel_ranges(ctx, out.n * out.h, K * K * out.w * out.c, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const int64_t n = r / out.h, i = r % out.h, tape_item = n / epilogue.seeds_per_item;
      const Source<T, uint8_t> source{dy.as<T>() + n * out.item(), switches + tape_item * out.item()};
      for (int64_t j = 0; j < out.w; ++j) {
        const int64_t pixel = (n * in.h + K * i) * in.w + K * j;
        const int64_t gate_pixel = (tape_item * in.h + K * i) * in.w + K * j;
        for (int64_t c = 0; c < in.c; c += 32) {
          const int64_t from = (i * out.w + j) * out.c + c;
#pragma GCC unroll 9
          for (int place = 0; place < K * K; ++place) {
            const int64_t step = place / K * in.w + place % K;
            target.write_group((pixel + step) * in.c + c, (gate_pixel + step) * words + c / 32, in.c - c,
                               [&](int v, int lanes)
                                   SB_LAMBDA { return selected(source, from + 8 * v, place, lanes); });
          }
        }
      }
    }
  });
}

void max_pool2d_backward(Context& ctx, const MaxPool2d& pool, ConstView dy, const void* switches, View dx,
                         const BackwardEpilogue& epilogue) {
  const Shape want = output_shape(pool, dx.shape);
  CHECK(dy.shape == want && dx.dtype == dy.dtype, "max_pool2d_backward: dy is [{},{},{},{}], must be [{},{},{},{}]",
        dy.shape.n, dy.shape.c, dy.shape.h, dy.shape.w, want.n, want.c, want.h, want.w);
  CHECK(switches, "max_pool2d_backward: there are no switches");
  check_epilogue(epilogue, "max_pool2d_backward");
  if (ctx.gpu) return ctx.gpu->ops->max_pool2d_backward(ctx, pool, dy, switches, dx, epilogue);
  const auto tiled = [&](int64_t k) {
    return pool.kernel_h == k && pool.kernel_w == k && pool.stride_h == k && pool.stride_w == k &&
           pool.dilation_h == 1 && pool.dilation_w == 1 && pool.pad_top == 0 && pool.pad_left == 0 &&
           dx.shape.h == k * dy.shape.h && dx.shape.w == k * dy.shape.w;
  };
  with_type(dx.dtype, "max_pool2d_backward", [&](auto type) {
    using T = decltype(type);
    if (tiled(2)) {
      backward_tiled<T, 2>(ctx, dy, static_cast<const uint8_t*>(switches), dx, epilogue);
    } else if (tiled(3)) {
      backward_tiled<T, 3>(ctx, dy, static_cast<const uint8_t*>(switches), dx, epilogue);
    } else if (pool.switch_bytes() == 1) {
      backward_any<T>(ctx, pool, dy, static_cast<const uint8_t*>(switches), dx, epilogue);
    } else {
      backward_any<T>(ctx, pool, dy, static_cast<const uint16_t*>(switches), dx, epilogue);
    }
  });
}

}  // namespace switchback
