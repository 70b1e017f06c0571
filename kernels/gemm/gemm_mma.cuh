// Implicit GEMM on tensor cores, one element type a .cu file: each takes the compiler half a minute.
#pragma once

#include "kernels/gemm/gemm_launch.cuh"

namespace switchback::SB_DEVICE {

template <int BM, int BN, int WM, int WN, int Bytes, typename T>
void launch_mma(Context& ctx, const Launch& l, const GemmPlan& plan, const GemmArgs<T>& args) {
  launch_tile<kMmaRing, Bytes, MmaPiece<T, GemmTile<BM, BN, WM, WN>>>(ctx, l, plan, args);
}

// Shared memory bounds these kernels: the larger a warp's piece, the fewer bytes for a product. Pieces of 64 x 64 take all
// registers that there are for one sum, so that kernels with two have others.
template <int BM, int BN, typename T>
void launch_mma_large(Context& ctx, const Launch& l, const GemmPlan& plan, const GemmArgs<T>& args) {
  using Piece = MmaPiece<T, GemmTile<BM, BN, 64, 64>>;
  using SegmentedPiece = MmaPiece<T, GemmTile<BM, BN, 64, 32>>;
  launch_tile<kMmaRing, 16, Piece, SegmentedPiece>(ctx, l, plan, args);
}

template <typename T>
void launch_mma_of(Context& ctx, const Launch& l, const GemmPlan& plan, const GemmArgs<T>& args) {
  switch (plan.tile) {
    case 0: return launch_mma_large<128, 128>(ctx, l, plan, args);
    case 1: return launch_mma_large<128, 64>(ctx, l, plan, args);
    case 2:
      if (plan.narrow) return launch_mma<64, 64, 32, 32, 4>(ctx, l, plan, args);
      return launch_mma<64, 64, 32, 32, 16>(ctx, l, plan, args);
    case 3: return launch_mma<128, 32, 32, 32, 16>(ctx, l, plan, args);
    default:
      if (plan.narrow) return launch_mma<16, 64, 16, 32, 4>(ctx, l, plan, args);
      return launch_mma<16, 64, 16, 32, 16>(ctx, l, plan, args);
  }
}

}  // namespace switchback::SB_DEVICE
