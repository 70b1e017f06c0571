// Implicit GEMM for f32 on the FMA units.
#include "kernels/gemm/gemm_launch.cuh"

namespace switchback::SB_DEVICE {
namespace {

template <int BM, int BN, int WM, int WN, int Bytes>
void launch_fma(Context& ctx, const Launch& l, const GemmPlan& plan, const GemmArgs<float>& args) {
  launch_tile<kFmaRing, Bytes, FmaPiece<GemmTile<BM, BN, WM, WN>>>(ctx, l, plan, args);
}

}  // namespace

void launch_gemm_f32(Context& ctx, const Launch& l, GemmPlan plan, const GemmArgs<float>& args) {
  switch (plan.tile) {
    case 0: return launch_fma<128, 128, 64, 64, 16>(ctx, l, plan, args);
    case 1: return launch_fma<128, 64, 64, 64, 16>(ctx, l, plan, args);
    case 2: return (plan.narrow ? launch_fma<64, 64, 32, 32, 4> : launch_fma<64, 64, 32, 32, 16>)(ctx, l, plan, args);
    case 3: return launch_fma<128, 32, 32, 32, 16>(ctx, l, plan, args);
    default: return (plan.narrow ? launch_fma<16, 64, 16, 32, 4> : launch_fma<16, 64, 16, 32, 16>)(ctx, l, plan, args);
  }
}

}  // namespace switchback::SB_DEVICE
