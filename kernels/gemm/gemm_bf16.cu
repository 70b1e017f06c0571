// Implicit GEMM for bf16 on tensor cores.
#include "kernels/gemm/gemm_mma.cuh"

namespace switchback::SB_DEVICE {

void launch_gemm_bf16(Context& ctx, const Launch& l, GemmPlan plan, const GemmArgs<bf16>& args) {
  launch_mma_of(ctx, l, plan, args);
}

}  // namespace switchback::SB_DEVICE
