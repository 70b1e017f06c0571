// Implicit GEMM for f16 on tensor cores.
#include "kernels/gemm/gemm_mma.cuh"

namespace switchback::SB_DEVICE {

void launch_gemm_f16(Context& ctx, const Launch& l, GemmPlan plan, const GemmArgs<f16>& args) {
  launch_mma_of(ctx, l, plan, args);
}

}  // namespace switchback::SB_DEVICE
