// Convolutions by implicit GEMM (gemm.cuh): which layers, and their weights.
#include "kernels/conv/conv.cuh"

#include <algorithm>

#include "kernels/gemm/gemm.cuh"

namespace switchback::SB_DEVICE {
namespace {

GemmProblem problem_of(const Conv2d& c, Shape x, DType dtype, bool backward, bool tf32 = false) {
  GemmProblem p = backward ? conv_backward_problem(c, {nullptr, output_shape(c, x), dtype}, x, nullptr)
                           : conv_forward_problem(c, {nullptr, x, dtype}, nullptr);
  p.tf32 = tf32;
  return p;
}

const float* bias_of(Context& ctx, const ConvWeights& weights, DType dtype) {
  return static_cast<const float*>(packed_weights(ctx, weights, ConvPacking::bias, dtype));
}

}  // namespace

bool gemm_fits(const Conv2d& c, Shape x, DType dtype, bool backward) {
  if (std::max(c.stride_h, c.stride_w) > kGemmPhases) return false;
  // Groups of few channels leave most of a tile empty; and going forward a gate word must belong to one group.
  const int64_t in = c.in_channels / c.groups, out = c.out_channels / c.groups;
  if (c.groups > 1 && (std::min(in, out) < 16 || (!backward && out % 32 != 0))) return false;
  return gemm_supports(problem_of(c, x, dtype, backward));
}

std::string gemm_name(Context& ctx, const Conv2d& c, Shape x, DType dtype, bool backward, bool tf32) {
  return gemm_kernel_name(ctx, problem_of(c, x, dtype, backward, tf32), backward);
}

GemmOffer gemm_offer(Context& ctx, const Conv2d& c, Shape x, DType dtype, bool backward, bool tf32) {
  return gemm_offer(ctx, problem_of(c, x, dtype, backward, tf32), backward);
}

bool gemm_fuses_pool(const Conv2d& c, Shape x, DType dtype, const MaxPool2d& pool) {
  const Shape y = output_shape(c, x);
  MaxPool2d floor = pool;
  floor.ceil_mode = false;  // the same where all windows are full
  return floor == max_pool2d(2, 2) && y.h % 2 == 0 && y.w % 2 == 0 && gemm_fits(c, x, dtype, false);
}

void gemm_forward(Context& ctx, const ConvWeights& weights, ConstView x, View y, const Epilogue& e) {
  const void* krsc = packed_weights(ctx, weights, ConvPacking::krsc, x.dtype, e.tf32);
  GemmProblem p = conv_forward_problem(weights.conv(), x, krsc);
  p.tf32 = e.tf32;
  p.pooled = e.pool != nullptr;
  run_gemm(ctx, "conv2d_forward", p, y, bias_of(ctx, weights, x.dtype), e);
}

void gemm_backward(Context& ctx, const ConvWeights& weights, ConstView dy, View dx, const BackwardEpilogue& e) {
  const void* crsk = packed_weights(ctx, weights, ConvPacking::crsk, dy.dtype, e.tf32);
  GemmProblem p = conv_backward_problem(weights.conv(), dy, dx.shape, crsk);
  p.tf32 = e.tf32;
  run_gemm(ctx, "conv2d_backward_data", p, dx, e);
}

}  // namespace switchback::SB_DEVICE
