// Body of conv_im2col_avx2.cpp and conv_im2col_avx512.cpp, which define the functions' names.
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "kernels/conv_im2col.h"
#include "kernels/gemm.h"

namespace switchback {
namespace {

using namespace simd;

constexpr int64_t kBackwardRows = 16;  // rows of dx that one thread makes at a time
constexpr int64_t kSerialMacs = 200'000;  // multiply-adds below which starting threads costs more than it saves

int threads_for(Context& ctx, int64_t work) { return work < kSerialMacs ? 1 : ctx.thread_count(); }

// One row of patches: a[q][kh·kw·c] for output row p of image n.
void gather_row(const Im2colProblem& problem, int64_t n, int64_t p, float* a) {
  const Conv2d& v = problem.conv;
  const Shape x = problem.in.shape;
  const float* image = problem.in.as<float>() + n * x.item();
  const int64_t span = v.kernel_w * x.c, depth = v.kernel_h * span;
  for (int64_t r = 0; r < v.kernel_h; ++r) {
    const int64_t y = p * v.stride_h + r - v.pad_top;
    const float* row = image + y * x.w * x.c;
    for (int64_t q = 0; q < problem.out.shape.w; ++q) {
      float* to = a + q * depth + r * span;
      const int64_t left = q * v.stride_w - v.pad_left;
      const int64_t begin = std::clamp<int64_t>(-left, 0, v.kernel_w), end = std::clamp<int64_t>(x.w - left, begin, v.kernel_w);
      if (y < 0 || y >= x.h || begin == end) {
        std::memset(to, 0, size_t(span) * sizeof(float));
        continue;
      }
      if (begin > 0) std::memset(to, 0, size_t(begin * x.c) * sizeof(float));
      std::memcpy(to + begin * x.c, row + (left + begin) * x.c, size_t((end - begin) * x.c) * sizeof(float));
      if (end < v.kernel_w) std::memset(to + end * x.c, 0, size_t((v.kernel_w - end) * x.c) * sizeof(float));
    }
  }
}

// y = act(acc + bias + residual) for one row of pixels; acc [pixels][padded].
void finish_row(const Im2colProblem& problem, int64_t first_pixel, int64_t pixels, const float* acc, int64_t padded) {
  const Epilogue& e = *problem.forward;
  const int64_t k = problem.out.shape.c, words = gate_words_per_pixel(k), plane = gate_words(problem.out.shape);
  float* y = problem.out.as<float>() + first_pixel * k;
  const float* residual = e.residual ? static_cast<const float*>(e.residual) + first_pixel * k : nullptr;
  for (int64_t i = 0; i < pixels; ++i, y += k, acc += padded) {
    for (int64_t word = 0; word < words; ++word) {
      uint32_t inside = 0, above = 0;
      for (int64_t c = 32 * word; c < std::min(k, 32 * word + 32); c += kLanes) {
        const int lanes = int(std::min<int64_t>(kLanes, k - c));
        Vec v = load(acc + c);
        if (problem.bias) v = v + load_first(problem.bias + c, lanes);
        if (residual) v = v + load_first(residual + i * k + c, lanes);
        if (e.relu) {
          const uint32_t real = uint32_t((uint64_t(1) << lanes) - 1), positive = greater(v, zero()) & real;
          const uint32_t below = e.clip == kNoClip ? real : less(v, set1(e.clip));
          inside |= (positive & below) << (c % 32);
          above |= (positive & ~below) << (c % 32);
          v = max(zero(), v);
          if (e.clip != kNoClip) v = min(set1(e.clip), v);
        }
        store_first(y + c, v, lanes);
      }
      if (!e.gates) continue;
      uint32_t* gates = e.gates + (first_pixel + i) * words + word;
      gates[0] = inside;
      if (e.clip != kNoClip) gates[plane] = above;
    }
  }
}

// patch[rows][cols] = a[rows][depth] · b[depth][cols], all rows of one output row.
void multiply(int64_t rows, int64_t cols, int64_t depth, const float* a, const float* b, float* c) {
  for (int64_t i = 0; i < rows; i += kTileRows)
    multiply_panel(int(std::min<int64_t>(kTileRows, rows - i)), cols, depth, {a + i * depth, depth}, b, cols,
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
  const Conv2d& v = problem.conv;
  const Shape y = problem.out.shape;
  const int64_t depth = v.kernel_h * v.kernel_w * v.in_channels, padded = round_up(y.c, 16);
  const int threads = threads_for(ctx, y.pixels() * depth * y.c);
  const int64_t size = round_up(y.w * (depth + padded), 16);
  float* scratch = static_cast<float*>(ctx.scratch.reserve(size_t(threads * size) * sizeof(float)));
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t row = 0; row < y.n * y.h; ++row) {
    float *a = scratch + omp_get_thread_num() * size, *acc = a + y.w * depth;
    gather_row(problem, row / y.h, row % y.h, a);
    multiply(y.w, padded, depth, a, problem.packed, acc);
    finish_row(problem, row * y.w, y.w, acc, padded);
  }
}

void SWITCHBACK_IM2COL_BACKWARD(Context& ctx, const Im2colProblem& problem) {
  const Conv2d& v = problem.conv;
  const Shape dy = problem.in.shape, dx = problem.out.shape;
  const int64_t span = v.kernel_w * v.in_channels, padded = round_up(v.kernel_h * span, 16);
  const int64_t row_blocks = (dx.h + kBackwardRows - 1) / kBackwardRows;
  const int threads = threads_for(ctx, dy.pixels() * padded * dy.c);
  // A row of dx with the columns that only padding sees on both sides.
  const int64_t width = std::max(dx.w + v.pad_left, (dy.w - 1) * v.stride_w + v.kernel_w);
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
    // Output rows p whose window p·stride - pad .. + kernel meets [y0, y1).
    const int64_t first = std::max<int64_t>(0, (y0 + v.pad_top - v.kernel_h + v.stride_h) / v.stride_h);
    const int64_t last = std::min(dy.h, (y1 - 1 + v.pad_top) / v.stride_h + 1);
    for (int64_t p = first; p < last; ++p) {
      if ((p - first) % together == 0)
        multiply(std::min(together, last - p) * dy.w, padded, dy.c,
                 problem.in.as<float>() + (n * dy.h + p) * dy.w * dy.c, problem.packed, patch);
      const float* row_patch = patch + (p - first) % together * dy.w * padded;
      for (int64_t r = 0; r < v.kernel_h; ++r) {
        const int64_t y = p * v.stride_h + r - v.pad_top;
        if (y >= y0 && y < y1)
          add_patches(row_patch + r * span, padded, span, dy.w, v.stride_w * dx.c, rows + kBackwardRows * row_size,
                      rows + (y - y0) * row_size);
      }
    }
    for (int64_t y = y0; y < y1; ++y)
      std::memcpy(problem.out.as<float>() + (n * dx.h + y) * dx.w * dx.c,
                  rows + (y - y0) * row_size + v.pad_left * dx.c, size_t(dx.w * dx.c) * sizeof(float));
  }
}

}  // namespace switchback
