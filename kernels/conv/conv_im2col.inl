// Body of conv_im2col_avx2.cpp and conv_im2col_avx512.cpp, which define the functions' names.
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "kernels/conv/conv_ends.h"
#include "kernels/conv/conv_im2col.h"
#include "kernels/linear/products.h"
#include "kernels/sliding.h"

namespace switchback {
namespace {

using namespace simd;

constexpr int64_t kPanel = kIm2colPanel;
constexpr int64_t kPixels = 48;        // of a 1x1 convolution that one thread makes at a time
constexpr int64_t kBackwardRows = 16;  // rows of dx that one thread makes at a time
constexpr int64_t kSerialMacs = 200'000;  // multiply-adds below which starting threads costs more than it saves

int threads_for(Context& ctx, int64_t work) { return work < kSerialMacs ? 1 : ctx.thread_count(); }

// y[pixel, k0 .. k0+columns] = end(windows · panel) for `pixels` pixels, of which a's row 0 is the first.
template <typename A, typename End>
__attribute__((flatten)) void multiply_and_finish(const End& end, A a, int64_t depth, int64_t first, int64_t pixels,
                                                  const float* panel, int64_t k0, int64_t columns, float* y) {
  alignas(64) float sums[kTallRows * kPanel];
  const int64_t width = round_up(columns, 16);
  for (int64_t i = 0, rows; i < pixels; i += rows, a.data += rows * a.stride) {
    if (width <= kTallCols && pixels - i >= kTallRows) {
      rows = kTallRows;
      multiply_tall_panel(width, depth, a, panel, width, sums, kPanel);
    } else {
      rows = std::min<int64_t>(kTileRows, pixels - i);
      multiply_panel(int(rows), width, depth, a, panel, width, sums, kPanel, false);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t pixel = first + i + r, gate_pixel = end.gate_pixel(pixel);
      float* to = y + pixel * end.channels + k0;
      for (int64_t k = 0; k < columns; k += kLanes) {
        const int lanes = int(std::min<int64_t>(kLanes, columns - k));
        store_some(to + k, end(load(sums + r * kPanel + k), pixel, gate_pixel, k0 + k, lanes), lanes);
      }
    }
  }
}

// Work in pieces [0, count): whole ones, or one panel of columns of each where they are too few for the threads.
// run(piece, first panel, last panel)
template <typename Run>
void share_out(int threads, int64_t count, int64_t panels, const Run& run) {
  const int64_t groups = count >= 4 * threads ? 1 : panels;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t i = 0; i < count * groups; ++i) {
    const int64_t group = i % groups;
    run(i / groups, group * panels / groups, (group + 1) * panels / groups);
  }
}

// 1x1 convolutions in both directions: out[pixel, :] = end(in[pixel, :] · packed), without any copy.
template <typename End>
void run_pointwise(Context& ctx, const Im2colProblem& problem, const End& end) {
  const Shape in = problem.in.shape;
  const int64_t pixels = in.pixels(), columns = problem.out.shape.c, panels = (columns + kPanel - 1) / kPanel;
  const int threads = threads_for(ctx, pixels * in.c * columns);
  share_out(threads, (pixels + kPixels - 1) / kPixels, panels, [&](int64_t block, int64_t first, int64_t last) {
    const int64_t begin = block * kPixels, count = std::min(kPixels, pixels - begin);
    const Rows rows{problem.in.as<float>() + begin * in.c, in.c};
    for (int64_t p = first; p < last; ++p)
      multiply_and_finish(end, rows, in.c, begin, count, problem.packed + p * kPanel * in.c, p * kPanel,
                          std::min(kPanel, columns - p * kPanel), problem.out.as<float>());
  });
}

// The rows of image n that output row p sees, with their padding: [kh][width·c].
void copy_rows(const Im2colProblem& problem, int64_t n, int64_t p, int64_t width, float* to) {
  const Conv2d& v = problem.conv;
  const Shape x = problem.in.shape;
  const int64_t left = std::min(v.pad_left, width) * x.c, all = width * x.c, middle = std::min(x.w * x.c, all - left);
  for (int64_t r = 0; r < v.kernel_h; ++r, to += all) {
    const int64_t y = sliding_rows(v).input(p, r);
    if (y < 0 || y >= x.h) {
      std::memset(to, 0, size_t(all) * sizeof(float));
      continue;
    }
    std::memset(to, 0, size_t(left) * sizeof(float));
    std::memcpy(to + left, problem.in.as<float>() + (n * x.h + y) * x.w * x.c, size_t(middle) * sizeof(float));
    std::memset(to + left + middle, 0, size_t(all - left - middle) * sizeof(float));
  }
}

// Any other: the windows of a row of outputs overlap in a copy of the rows of x that they see.
template <typename End>
void run_windows(Context& ctx, const Im2colProblem& problem, const End& end) {
  const Conv2d& v = problem.conv;
  const Shape y = problem.out.shape;
  const int64_t span = v.kernel_w * v.in_channels, depth = v.kernel_h * span, panels = (y.c + kPanel - 1) / kPanel;
  const int64_t width = sliding_columns(v).needed({0, y.w}).size(), size = round_up(v.kernel_h * width * v.in_channels, 16);
  const int threads = threads_for(ctx, y.pixels() * depth * y.c);
  float* scratch = static_cast<float*>(ctx.scratch.reserve(size_t(threads * size) * sizeof(float)));
  share_out(threads, y.n * y.h, panels, [&](int64_t row, int64_t first, int64_t last) {
    float* rows = scratch + omp_get_thread_num() * size;
    copy_rows(problem, row / y.h, row % y.h, width, rows);
    const Windows windows{rows, v.stride_w * v.in_channels, width * v.in_channels, span};
    for (int64_t p = first; p < last; ++p)
      multiply_and_finish(end, windows, depth, row * y.w, y.w, problem.packed + p * kPanel * depth, p * kPanel,
                          std::min(kPanel, y.c - p * kPanel), problem.out.as<float>());
  });
}

// patch[rows][cols] = a[rows][depth] · b[depth][cols], all rows of one output row.
void multiply(int64_t rows, int64_t cols, int64_t depth, const float* a, const float* b, float* c) {
  for (int64_t i = 0; i < rows; i += kTileRows)
    multiply_panel(int(std::min<int64_t>(kTileRows, rows - i)), cols, depth, Rows{a + i * depth, depth}, b, cols,
                   c + i * cols, cols, false);
}

// to[q·step + i] += from[q·stride + i] for i < span: the patches of one row of pixels, each over the end of the last.
// `sums` is scratch for one such row and a vector more.
void add_patches(const float* from, int64_t stride, int64_t span, int64_t pixels, int64_t step,
                 [[maybe_unused]] float* sums, float* to) {
#if defined(__AVX512F__)
  // Unfinished sums wait in a register and finished ones are only stored, each store's surplus under the next one's
  // lanes: a load so soon behind an overlapping store would wait for it.
  if (span <= kLanes && step < span) {
    const ShiftDown shift{int(step)};
    Vec sum = zero();
    for (int64_t q = 0; q < pixels; ++q, from += stride) {
      sum = sum + load_first(from, int(span));
      store(sums + q * step, sum);
      sum = shift(sum);
    }
    const int64_t width = (pixels - 1) * step + span;
    for (int64_t i = 0; i < width; i += kLanes) {
      const int lanes = int(std::min<int64_t>(kLanes, width - i));
      store_first(to + i, load_first(to + i, lanes) + load_first(sums + i, lanes), lanes);
    }
    return;
  }
#endif
  for (int64_t q = 0; q < pixels; ++q, from += stride, to += step) {
    int64_t i = 0;
    for (; i + kLanes <= span; i += kLanes) store(to + i, load(to + i) + load(from + i));
    if (i < span) {
      const int lanes = int(span - i);
      store_first(to + i, load_first(to + i, lanes) + load_first(from + i, lanes), lanes);
    }
  }
}

}  // namespace

void SWITCHBACK_IM2COL_FORWARD(Context& ctx, const Im2colProblem& problem) {
  with_end(*problem.forward, problem.bias, problem.out.shape, [&](const auto& end) {
    is_pointwise(problem.conv) ? run_pointwise(ctx, problem, end) : run_windows(ctx, problem, end);
  });
}

void SWITCHBACK_IM2COL_BACKWARD(Context& ctx, const Im2colProblem& problem) {
  if (is_pointwise(problem.conv))
    return with_end(*problem.backward, problem.out.shape, [&](const auto& end) { run_pointwise(ctx, problem, end); });
  const Conv2d& v = problem.conv;
  const Shape dy = problem.in.shape, dx = problem.out.shape;
  const int64_t span = v.kernel_w * v.in_channels, padded = round_up(v.kernel_h * span, 16);
  const int64_t row_blocks = (dx.h + kBackwardRows - 1) / kBackwardRows;
  const int threads = threads_for(ctx, dy.pixels() * padded * dy.c);
  // A row of dx with the columns that only padding sees on both sides.
  const int64_t width = std::max(dx.w + v.pad_left, sliding_columns(v).needed({0, dy.w}).size());
  const int64_t row_size = round_up(width * dx.c, 16);
  // Rows of dy that are multiplied at a time: narrow maps fill a register tile only together.
  const int64_t together = std::clamp<int64_t>(48 / dy.w, 1, dy.h), patch_size = round_up(together * dy.w * padded, 16);
  const int64_t size = patch_size + (kBackwardRows + 1) * row_size + 16;
  float* scratch = static_cast<float*>(ctx.scratch.reserve(size_t(threads * size) * sizeof(float)));
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t item = 0; item < dx.n * row_blocks; ++item) {
    float *patch = scratch + omp_get_thread_num() * size, *rows = patch + patch_size;
    const int64_t n = item / row_blocks, y0 = item % row_blocks * kBackwardRows, y1 = std::min(dx.h, y0 + kBackwardRows);
    std::memset(rows, 0, size_t((y1 - y0) * row_size) * sizeof(float));
    const Interval seen = sliding_rows(v).through({y0, y1}, dy.h);  // by these rows of outputs
    for (int64_t p = seen.begin; p < seen.end; ++p) {
      if ((p - seen.begin) % together == 0)
        multiply(std::min(together, seen.end - p) * dy.w, padded, dy.c,
                 problem.in.as<float>() + (n * dy.h + p) * dy.w * dy.c, problem.packed, patch);
      const float* row_patch = patch + (p - seen.begin) % together * dy.w * padded;
      for (int64_t r = 0; r < v.kernel_h; ++r) {
        const int64_t y = sliding_rows(v).input(p, r);
        if (y >= y0 && y < y1)
          add_patches(row_patch + r * span, padded, span, dy.w, v.stride_w * dx.c, rows + kBackwardRows * row_size,
                      rows + (y - y0) * row_size);
      }
    }
    for (int64_t y = y0; y < y1; ++y)
      std::memcpy(problem.out.as<float>() + (n * dx.h + y) * dx.w * dx.c,
                  rows + (y - y0) * row_size + v.pad_left * dx.c, size_t(dx.w * dx.c) * sizeof(float));
  }
  apply_epilogue(ctx, problem.out, *problem.backward, 0, dx.n);
}

}  // namespace switchback
