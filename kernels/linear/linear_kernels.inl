// Body of linear_avx2.cpp and linear_avx512.cpp, which define V16, sixteen f32 lanes with zero, load, load_part,
// broadcast, fma, add, store and store_part. Nothing here may be a function with external linkage, or the linker could
// pick the AVX-512 copy for everyone.
//
// Weights stream from memory once per 64 samples; a block of them stays in the caches while all samples pass, and the
// next block is prefetched meanwhile, since rows are too far apart for the hardware to guess.

namespace switchback {
namespace {

#define SB_LINEAR_INLINE inline __attribute__((always_inline))

constexpr int64_t kLanes = 16;
constexpr int64_t kDepth = 1024;       // columns of a forward block: 16 lane sums over it, then added to the total
constexpr int64_t kTotals = 512;       // lane totals kept on the stack by the forward pass (32 KB)
constexpr int64_t kMostSamples = 64;   // per pass over the weights
constexpr int64_t kBackRows = 32;      // rows (outputs) summed before they are added to dx
constexpr int64_t kBackColumns = 960;  // a multiple of both tile widths, 32 and 48

struct alignas(64) LaneTotal {
  float lane[kLanes];
};

// total[r][s] += lane sums of w[r]·x[s] over `length` columns; w, x: row strides in elements.
template <int R, int S, typename W>
SB_LINEAR_INLINE void forward_tile(const W* w, int64_t w_stride, const float* x, int64_t x_stride, int64_t length,
                                   LaneTotal* total, int64_t total_stride, int64_t prefetch) {
  V16 sum[R][S];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s) sum[r][s] = V16::zero();
  }
  int64_t k = 0;
  for (; k + kLanes <= length; k += kLanes) {
    V16 row[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) row[r] = V16::load(w + r * w_stride + k);
    if (prefetch) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) __builtin_prefetch(w + r * w_stride + k + prefetch, 0, 2);
    }
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s) {
      const V16 sample = V16::load(x + s * x_stride + k);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sum[r][s] = V16::fma(row[r], sample, sum[r][s]);
    }
  }
  if (k < length) {
    V16 row[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) row[r] = V16::load_part(w + r * w_stride + k, int(length - k));
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s) {
      const V16 sample = V16::load_part(x + s * x_stride + k, int(length - k));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sum[r][s] = V16::fma(row[r], sample, sum[r][s]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s) {
      float* t = total[r * total_stride + s].lane;
      V16::add(V16::load(t), sum[r][s]).store(t);
    }
  }
}

// All samples, in tiles of S, S/2, … 1.
template <int R, int S, typename W>
SB_LINEAR_INLINE void forward_rows(const W* w, int64_t w_stride, const float* x, int64_t x_stride, int64_t n,
                                   int64_t length, LaneTotal* total, int64_t total_stride, int64_t prefetch) {
  for (; n >= S; n -= S, x += S * x_stride, total += S, prefetch = 0) {
    forward_tile<R, S>(w, w_stride, x, x_stride, length, total, total_stride, prefetch);
  }
  if constexpr (S > 1) {
    if (n > 0) forward_rows<R, S / 2>(w, w_stride, x, x_stride, n, length, total, total_stride, prefetch);
  }
}

SB_LINEAR_INLINE float reduce(const LaneTotal& t) {  // the order is part of the result
  const __m256 eight = _mm256_add_ps(_mm256_load_ps(t.lane), _mm256_load_ps(t.lane + 8));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

template <typename W>
void forward(const W* w, const float* x, float* sums, int64_t n, int64_t in, int64_t out, int64_t o0, int64_t o1) {
  LaneTotal total[kTotals];
  for (int64_t s0 = 0; s0 < n; s0 += kMostSamples) {
    const int64_t samples = n - s0 < kMostSamples ? n - s0 : kMostSamples;
    const int64_t most_rows = samples <= 16 ? 32 : kTotals / samples / 4 * 4;
    for (int64_t row = o0; row < o1; row += most_rows) {
      const int64_t rows = o1 - row < most_rows ? o1 - row : most_rows;
      __builtin_memset(total, 0, sizeof(LaneTotal) * size_t(rows * samples));
      for (int64_t k = 0; k < in; k += kDepth) {
        const bool last = in - k <= kDepth;
        const int64_t length = last ? in - k : kDepth;
        // Next is the block to the right, or behind the last one the first block of the rows below.
        const int64_t prefetch = !last ? kDepth : row + rows < o1 ? rows * in - k : 0;
        int64_t r = 0;
        for (; r + kForwardR <= rows; r += kForwardR) {
          forward_rows<kForwardR, kForwardS>(w + (row + r) * in + k, in, x + s0 * in + k, in, samples, length,
                                             total + r * samples, samples, prefetch);
        }
        for (; r < rows; ++r) {
          forward_rows<1, kForwardS>(w + (row + r) * in + k, in, x + s0 * in + k, in, samples, length,
                                     total + r * samples, samples, prefetch);
        }
      }
      for (int64_t s = 0; s < samples; ++s) {
        for (int64_t r = 0; r < rows; ++r) sums[(s0 + s) * out + row + r] = reduce(total[r * samples + s]);
      }
    }
  }
}

// dx[s][0 … 16·V) += sum over `rows` rows of w[r]·dy[s][r]; lanes < 16·V only in the partial form (V = 1).
template <int V, int S, typename W>
SB_LINEAR_INLINE void backward_tile(const W* w, int64_t w_stride, const float* dy, int64_t dy_stride, int64_t rows,
                                    float* dx, int64_t dx_stride, int lanes, bool first, int64_t prefetch) {
  V16 sum[V][S];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s) sum[v][s] = V16::zero();
  }
  for (int64_t r = 0; r < rows; ++r) {
    const W* row = w + r * w_stride;
    V16 column[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      column[v] = V == 1 ? V16::load_part(row, lanes) : V16::load(row + v * kLanes);
    }
    if (prefetch) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) __builtin_prefetch(row + v * kLanes + prefetch, 0, 2);
    }
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s) {
      const V16 g = V16::broadcast(dy + s * dy_stride + r);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[v][s] = V16::fma(column[v], g, sum[v][s]);
    }
  }
#pragma GCC unroll 8
  for (int s = 0; s < S; ++s) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      float* d = dx + s * dx_stride + v * kLanes;
      if (V == 1) {
        (first ? sum[v][s] : V16::add(V16::load_part(d, lanes), sum[v][s])).store_part(d, lanes);
      } else {
        (first ? sum[v][s] : V16::add(V16::load(d), sum[v][s])).store(d);
      }
    }
  }
}

template <int S, typename W>
SB_LINEAR_INLINE void backward_columns(const W* w, int64_t in, const float* dy, int64_t out, int64_t rows, float* dx,
                                       int64_t columns, bool first, int64_t prefetch) {
  int64_t i = 0;
  for (; i + kBackV * kLanes <= columns; i += kBackV * kLanes) {
    backward_tile<kBackV, S>(w + i, in, dy, out, rows, dx + i, in, kLanes, first, prefetch);
  }
  for (; i < columns; i += kLanes) {
    const int lanes = int(columns - i < kLanes ? columns - i : kLanes);
    backward_tile<1, S>(w + i, in, dy, out, rows, dx + i, in, lanes, first, prefetch);
  }
}

// All samples of one block of weights, in tiles of S, S/2, … 1.
template <int S, typename W>
SB_LINEAR_INLINE void backward_block(const W* w, int64_t in, const float* dy, int64_t out, int64_t rows, float* dx,
                                     int64_t columns, int64_t samples, bool first, int64_t prefetch) {
  for (; samples >= S; samples -= S, dy += S * out, dx += S * in, prefetch = 0) {
    backward_columns<S>(w, in, dy, out, rows, dx, columns, first, prefetch);
  }
  if constexpr (S > 1) {
    if (samples > 0) backward_block<S / 2>(w, in, dy, out, rows, dx, columns, samples, first, prefetch);
  }
}

template <typename W>
void backward(const W* w, const float* dy, float* dx, int64_t n, int64_t in, int64_t out, int64_t i0, int64_t i1) {
  for (int64_t s0 = 0; s0 < n; s0 += kMostSamples) {
    const int64_t s1 = n - s0 < kMostSamples ? n : s0 + kMostSamples;
    for (int64_t o = 0; o < out; o += kBackRows) {
      const int64_t rows = out - o < kBackRows ? out - o : kBackRows;
      for (int64_t i = i0; i < i1; i += kBackColumns) {
        const int64_t columns = i1 - i < kBackColumns ? i1 - i : kBackColumns;
        // Next is the block to the right, or the first one of the rows below.
        const int64_t prefetch = i + columns < i1 ? columns : o + rows < out ? rows * in - (i - i0) : 0;
        backward_block<kBackS>(w + o * in + i, in, dy + s0 * out + o, out, rows, dx + s0 * in + i, columns, s1 - s0,
                               o == 0, prefetch);
      }
    }
  }
}

}  // namespace
}  // namespace switchback
