// The register tile under our own CPU kernels: rows of A (scalars, broadcast) times a panel of B (vectors of channels).
// Included by the `.inl` files that are compiled once per instruction set.
#pragma once

#include "kernels/vec.h"

namespace switchback::simd::inline SWITCHBACK_ISA {

#if defined(__AVX512F__)
inline constexpr int kTileRows = 6, kTileVecs = 4;  // 24 accumulators + 4 of B + 1 broadcast of 32 registers
#else
inline constexpr int kTileRows = 6, kTileVecs = 2;  // 12 + 2 + 1 of 16
#endif
inline constexpr int kTileCols = kTileVecs * kLanes;

// A matrix A of scalars: element (i, k) at data[i·stride + (k/16)·jump + k%16]. Rows in memory have jump = 16; panels
// that interleave six rows in pieces of 16 (stride 16, jump 96) are read front to back, which prefetchers like.
inline constexpr int64_t kPiece = 16;
struct Rows {
  const float* data;
  int64_t stride, jump = kPiece;
  static constexpr int64_t piece() { return kPiece; }
};
// The same with pieces of any length: windows of an NHWC map, whose rows of pixels are `jump` apart.
struct Windows {
  const float* data;
  int64_t stride, jump, span;
  int64_t piece() const { return span; }
};

// c[i, 0:NV·lanes] (+)= sum_{k<depth} A[i, k] · b[k·b_stride + 0:NV·lanes] for i < MR. The order of the sum depends on
// depth alone, so results do not depend on how rows are grouped.
template <int MR, int NV, typename A>
inline void micro_tile(A a, const float* b, int64_t b_stride, int64_t depth, float* c, int64_t c_stride,
                       bool accumulate) {
  Vec acc[MR][NV];
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NV; ++j) acc[i][j] = accumulate ? load(c + i * c_stride + j * kLanes) : zero();
  const float* row = a.data;
  for (int64_t k0 = 0; k0 < depth; k0 += a.piece(), row += a.jump) {
    const int64_t piece = depth - k0 < a.piece() ? depth - k0 : a.piece();
    for (int64_t k = 0; k < piece; ++k, b += b_stride) {
      Vec bv[NV];
      for (int j = 0; j < NV; ++j) bv[j] = load(b + j * kLanes);
      for (int i = 0; i < MR; ++i) {
        const Vec av = set1(row[i * a.stride + k]);
        for (int j = 0; j < NV; ++j) acc[i][j] = fma(av, bv[j], acc[i][j]);
      }
    }
  }
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NV; ++j) store(c + i * c_stride + j * kLanes, acc[i][j]);
}

template <int NV, typename A>
inline void micro_rows(int rows, A a, const float* b, int64_t b_stride, int64_t depth, float* c, int64_t c_stride,
                       bool accumulate) {
  switch (rows) {
    case 1: return micro_tile<1, NV>(a, b, b_stride, depth, c, c_stride, accumulate);
    case 2: return micro_tile<2, NV>(a, b, b_stride, depth, c, c_stride, accumulate);
    case 3: return micro_tile<3, NV>(a, b, b_stride, depth, c, c_stride, accumulate);
    case 4: return micro_tile<4, NV>(a, b, b_stride, depth, c, c_stride, accumulate);
    case 5: return micro_tile<5, NV>(a, b, b_stride, depth, c, c_stride, accumulate);
    default: return micro_tile<6, NV>(a, b, b_stride, depth, c, c_stride, accumulate);
  }
}

// One panel of up to kTileRows rows: c[rows, cols] (+)= A · b[depth, cols]; cols a multiple of the vector length.
template <typename A>
inline void multiply_panel(int rows, int64_t cols, int64_t depth, A a, const float* b, int64_t b_stride, float* c,
                           int64_t c_stride, bool accumulate) {
  int64_t j = 0;
  for (; j + kTileCols <= cols; j += kTileCols)
    micro_rows<kTileVecs>(rows, a, b + j, b_stride, depth, c + j, c_stride, accumulate);
  for (; j + 2 * kLanes <= cols; j += 2 * kLanes)
    micro_rows<2>(rows, a, b + j, b_stride, depth, c + j, c_stride, accumulate);
  for (; j < cols; j += kLanes) micro_rows<1>(rows, a, b + j, b_stride, depth, c + j, c_stride, accumulate);
}

// Few columns take more rows, or there would be fewer sums under way than the processor can add up at once.
inline constexpr int kTallRows = 12;
inline constexpr int64_t kTallCols = kTallRows * 2 <= kTileRows * kTileVecs ? 2 * kLanes : kLanes;
template <typename A>
inline void multiply_tall_panel(int64_t cols, int64_t depth, A a, const float* b, int64_t b_stride, float* c,
                                int64_t c_stride) {
  if constexpr (kTallCols > kLanes)
    if (cols == 2 * kLanes) return micro_tile<kTallRows, 2>(a, b, b_stride, depth, c, c_stride, false);
  micro_tile<kTallRows, 1>(a, b, b_stride, depth, c, c_stride, false);
}

}  // namespace switchback::simd::inline SWITCHBACK_ISA
