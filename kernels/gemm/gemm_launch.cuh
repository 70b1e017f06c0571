// Which instances of the kernel in gemm_kernel.cuh there are, by their rings.
#pragma once

#include <array>

#include "kernels/gemm/gemm_kernel.cuh"

namespace switchback::SB_DEVICE {

// Slots of the ring. Builds with SWITCHBACK_LAB have kernels with others, too, where rows are aligned: more than twice
// the code, so that a sweep can tell whether any of them is worth it. (f32 64x64 with 4 and tf32 128x128 with 2 spill a
// few bytes; no kernel of other builds spills.)
// Where one block adds up segments their sum lies behind the ring.
inline constexpr int kFmaRing = 3, kMmaRing = 4, kSegmentedRing = 3;
#if SWITCHBACK_LAB
inline constexpr std::array kGemmRings = {2, 3, 4};
#else
inline constexpr std::array<int, 0> kGemmRings = {};
#endif

template <int Stages, int Bytes, bool Segmented, class Piece, typename T>
void launch_kernel(Context& ctx, Launch l, const GemmArgs<T>& args) {
  using Tile = typename Piece::Block;
  l.block = dim3(Tile::kThreads);
  l.shared = gemm_shared_bytes<Tile, Stages, Segmented>();
  launch(ctx, l, gemm_kernel<Tile, Stages, Bytes, Segmented, Piece>, args);
}

template <int Stages, int SegmentedStages, int Bytes, class Piece, typename T>
void launch_ring(Context& ctx, const Launch& l, const GemmPlan& plan, const GemmArgs<T>& args) {
  if (args.problem.segments > 1 && !plan.split)
    launch_kernel<SegmentedStages, Bytes, true, Piece>(ctx, l, args);
  else
    launch_kernel<Stages, Bytes, false, Piece>(ctx, l, args);
}

// Launches a kernel of the tile's shape. `Stages`: its ring where the plan asks for none.
template <int Stages, int Bytes, class Piece, typename T>
void launch_tile(Context& ctx, const Launch& l, const GemmPlan& plan, const GemmArgs<T>& args) {
#if SWITCHBACK_LAB
  if constexpr (Bytes == 16) {
    switch (plan.ring) {
      case 2:
        return launch_ring<2, 2, Bytes, Piece>(ctx, l, plan, args);
      case 3:
        return launch_ring<3, 3, Bytes, Piece>(ctx, l, plan, args);
      case 4:
        return launch_ring<4, 4, Bytes, Piece>(ctx, l, plan, args);
      default:
        break;
    }
  }
#endif
  launch_ring<Stages, kSegmentedRing, Bytes, Piece>(ctx, l, plan, args);
}

}  // namespace switchback::SB_DEVICE
