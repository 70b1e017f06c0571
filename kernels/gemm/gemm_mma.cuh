// Implicit GEMM on tensor cores, one element type a .cu file: each takes the compiler half a minute.
#pragma once

#include "kernels/gemm/gemm_launch.cuh"

namespace switchback::SB_DEVICE {

// Shared memory bounds these kernels: the larger a warp's piece, the fewer bytes for a product.
template <int BM, int BN, int WM, int WN, int Bytes, typename T>
void launch_mma(Context& ctx, const Launch& l, const GemmPlan& plan, const GemmArgs<T>& args) {
  launch_tile<kMmaRing, Bytes, MmaPiece<T, GemmTile<BM, BN, WM, WN>>>(ctx, l, plan, args);
}

template <typename T>
void launch_mma_of(Context& ctx, const Launch& l, const GemmPlan& plan, const GemmArgs<T>& args) {
  switch (plan.tile) {
    case 0: return launch_mma<128, 128, 64, 64, 16>(ctx, l, plan, args);
    case 1: return launch_mma<128, 64, 64, 64, 16>(ctx, l, plan, args);
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
