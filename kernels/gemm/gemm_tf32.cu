// Implicit GEMM for f32 rounded to TF32 on tensor cores.
#include "kernels/gemm/gemm_mma.cuh"

namespace switchback::SB_DEVICE {

void launch_gemm_tf32(Context& ctx, const Launch& l, GemmPlan plan, const GemmArgs<float>& args) {
  launch_mma_of(ctx, l, plan, args);
}

}  // namespace switchback::SB_DEVICE
