// The register tile under our own CPU kernels: rows of A (scalars, broadcast) times a panel of B (vectors of channels).
// Included by the `.inl` files that are compiled once per instruction set.
#pragma once

#include <algorithm>

#include "kernels/vec.h"

namespace switchback::simd::inline SWITCHBACK_ISA {

#if defined(__AVX512F__)
inline constexpr int kTileRows = 6, kTileVecs = 4;  // 24 accumulators + 4 of B + 1 broadcast of 32 registers
#else
inline constexpr int kTileRows = 6, kTileVecs = 2;  // 12 + 2 + 1 of 16
#endif
inline constexpr int kTileCols = kTileVecs * kLanes;

// A matrix A of scalars, whose rows are `stride` apart, in pieces of its columns: piece p of row i is data[i·stride +
// from(p)], length(p) long, and meets the rows of B from first(p) on.
inline constexpr int64_t kPiece = 16;
struct Rows {  // pieces of 16 that are `jump` apart: 16 for rows in memory. Panels that interleave six rows in such pieces
  const float* data;  // (stride 16, jump 96) are read front to back, which prefetchers like.
  int64_t stride, depth, jump = kPiece;
  static constexpr bool kLongPieces = false;
  int64_t pieces() const { return (depth + kPiece - 1) / kPiece; }
  int64_t from(int64_t p) const { return p * jump; }
  int64_t first(int64_t p) const { return p * kPiece; }
  int64_t length(int64_t p) const { return std::min(kPiece, depth - p * kPiece); }
};
struct Piece {
  int64_t from, first, length;
};
struct Windows {  // of an NHWC map: any pieces
  const float* data;
  int64_t stride;
  const Piece* piece;
  int64_t count;
  static constexpr bool kLongPieces = true;  // worth unrolling
  int64_t pieces() const { return count; }
  int64_t from(int64_t p) const { return piece[p].from; }
  int64_t first(int64_t p) const { return piece[p].first; }
  int64_t length(int64_t p) const { return piece[p].length; }
};

// c[i, 0:NV·lanes] (+)= sum_k A[i, k] · b[k·b_stride + 0:NV·lanes] for i < MR. The order of the sum depends on A's pieces
// alone, so results do not depend on how rows are grouped. A sum begins at 0 and is added to c when it is done: callers cut
// long ones, as the rounding error of K additions in a row grows with √K.
template <int MR, int NV, typename A>
inline void micro_tile(A a, const float* b, int64_t b_stride, float* c, int64_t c_stride, bool accumulate) {
  Vec acc[MR][NV];
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NV; ++j) acc[i][j] = zero();
  for (int64_t p = 0; p < a.pieces(); ++p) {
    const float *row = a.data + a.from(p), *bk = b + a.first(p) * b_stride;
    const int64_t length = a.length(p);
    const auto add = [&](int64_t k) __attribute__((always_inline)) {
      Vec bv[NV];
      for (int j = 0; j < NV; ++j) bv[j] = load(bk + j * kLanes);
      for (int i = 0; i < MR; ++i) {
        const Vec av = set1(row[i * a.stride + k]);
        for (int j = 0; j < NV; ++j) acc[i][j] = fma(av, bv[j], acc[i][j]);
      }
      bk += b_stride;
    };
    if constexpr (A::kLongPieces) {
#pragma GCC unroll 4
      for (int64_t k = 0; k < length; ++k) add(k);
    } else {
      for (int64_t k = 0; k < length; ++k) add(k);
    }
  }
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NV; ++j) {
      float* to = c + i * c_stride + j * kLanes;
      store(to, accumulate ? load(to) + acc[i][j] : acc[i][j]);
    }
}

// The same for any number of rows up to MR.
template <int MR, int NV, typename A>
inline void micro_rows(int rows, A a, const float* b, int64_t b_stride, float* c, int64_t c_stride, bool accumulate) {
  if constexpr (MR > 1)
    if (rows < MR) return micro_rows<MR - 1, NV>(rows, a, b, b_stride, c, c_stride, accumulate);
  micro_tile<MR, NV>(a, b, b_stride, c, c_stride, accumulate);
}

// One panel of up to kTileRows rows: c[rows, cols] (+)= A · b[depth, cols]; cols a multiple of the vector length.
template <typename A>
inline void multiply_panel(int rows, int64_t cols, A a, const float* b, int64_t b_stride, float* c, int64_t c_stride,
                           bool accumulate) {
  int64_t j = 0;
  for (; j + kTileCols <= cols; j += kTileCols)
    micro_rows<kTileRows, kTileVecs>(rows, a, b + j, b_stride, c + j, c_stride, accumulate);
  if constexpr (kTileVecs > 2)
    for (; j + 2 * kLanes <= cols; j += 2 * kLanes)
      micro_rows<kTileRows, 2>(rows, a, b + j, b_stride, c + j, c_stride, accumulate);
  for (; j < cols; j += kLanes) micro_rows<kTileRows, 1>(rows, a, b + j, b_stride, c + j, c_stride, accumulate);
}

// Few columns take more rows, or there would be fewer sums under way than the processor can add up at once.
inline constexpr int kTallRows = 12;
inline constexpr int64_t kTallCols = kTallRows * 2 <= kTileRows * kTileVecs ? 2 * kLanes : kLanes;
template <typename A>
inline void multiply_tall_panel(int rows, int64_t cols, A a, const float* b, int64_t b_stride, float* c, int64_t c_stride,
                                bool accumulate) {
  if constexpr (kTallCols > kLanes)
    if (cols == 2 * kLanes) return micro_rows<kTallRows, 2>(rows, a, b, b_stride, c, c_stride, accumulate);
  micro_rows<kTallRows, 1>(rows, a, b, b_stride, c, c_stride, accumulate);
}

// Into how many rows to cut `left` rows next, so that the tiles are about equal.
inline int64_t tile_rows(int64_t left, int64_t cols) {
  const int64_t most = cols <= kTallCols ? kTallRows : kTileRows, tiles = (left + most - 1) / most;
  return (left + tiles - 1) / tiles;
}

}  // namespace switchback::simd::inline SWITCHBACK_ISA
