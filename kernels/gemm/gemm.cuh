// Implicit GEMM: convolutions in both directions and linear layers as one kind of matrix product.
//
//   out[m, j] = sum over taps t, channels c of  in[pixel(m, t), c] · weight[j][t][c]
//
// m counts output pixels (n, i, l), j the output channels of one group. Nothing is unfolded in memory: the kernels
// (gemm_kernel.cuh) find pixel(m, t) while they load. A backward-data with stride S is S·S products, its *phases*: the
// outputs of one phase all meet the same taps (GemmAxis). Groups are products of their own, too.
//
// Sums. K is walked tap by tap, channel by channel, in steps of 64 bytes of a row; it is cut into `segments` whose
// sums, each begun at 0, are added in order. Segments are a function of the layer and one image's shape. Everything
// else (the tile; segments in blocks of their own or one after the other in one block) changes speed but no bit of the
// result, so it may follow the batch and the GPU, and what was measured on it (gemm_table.h).
#pragma once

#include <string>

#include "kernels/conv/conv.h"
#include "kernels/device/cuda.cuh"
#include "kernels/epilogue/epilogue.cuh"
#include "kernels/gemm/gemm_table.h"
#include "kernels/pool/pool.h"

namespace switchback::SB_DEVICE {

inline constexpr int kGemmPhases = 8;      // per axis: backward-data takes strides up to this
inline constexpr int kGemmStepBytes = 64;  // of a row of either operand in one step of K

// One axis (rows or columns of the map) of one phase. Output position i is off + i·mul; tap t < taps meets it at input
// position i·step + base + t·spacing (outside the input: zero) with the weight of kernel offset first + t·skip.
struct GemmAxis {
  int outs = 1, off = 0, mul = 1;
  int step = 1, base = 0, spacing = 0;
  int taps = 1, first = 0, skip = 1;
};

// A product. Plain data, given to kernels by value.
struct GemmProblem {
  const void* in = nullptr;      // [n][in_h][in_w][groups·depth]
  const void* weight = nullptr;  // [groups·columns][kernel_h][kernel_w][depth]
  DType dtype = DType::f32;      // of in, weight and out
  int n = 0;
  int in_h = 1, in_w = 1;
  int out_h = 1, out_w = 1;
  int depth = 0;    // input channels of a group
  int columns = 0;  // output channels of a group
  int groups = 1;
  int kernel_h = 1, kernel_w = 1;
  int phases_h = 1, phases_w = 1;
  GemmAxis rows[kGemmPhases] = {}, cols[kGemmPhases] = {};
  bool pooled = false;     // m counts the four pixels of a 2x2 window one after the other, windows in the order of y
  bool tf32 = false;       // f32 products are rounded to TF32: `weight` is already, `in` on its way
  bool whole_map = false;  // backward: out is [n, columns], column j being channel j % C of pixel j / C of dx
  int segments = 1;        // at most, of any phase
  int segment_steps = 1;   // steps of K in each but the last
};

GemmProblem conv_forward_problem(const Conv2d&, ConstView x, const void* krsc);
GemmProblem conv_backward_problem(const Conv2d&, ConstView dy, Shape dx, const void* crsk);
// out[n][out_features] = in[n][in_features] · weight[out_features][in_features]ᵀ, for either direction (backward with
// the transposed weight). For a convolution that covers the whole map set `whole_map` on the way back; dx is then
// [n,c,h,w].
GemmProblem linear_problem(DType, int64_t n, int64_t in_features, int64_t out_features, const void* in,
                           const void* weight);

// Whether there are kernels for this product, for any n: 16-bit elements go in pairs, and offsets must fit.
bool gemm_supports(const GemmProblem&);
// The kernel that would run: "gemm_f32_128x64", "gemm_mma_bf16_64x64_split8".
std::string gemm_kernel_name(const Context&, const GemmProblem&, bool backward);
GemmOffer gemm_offer(const Context&, const GemmProblem&, bool backward);
// y = act(product + bias + residual), bias f32 on the device or null. `op` names the launches.
void run_gemm(Context&, const char* op, const GemmProblem&, View y, const float* bias, const Epilogue&);
// dx = rule(gate, product + other).
void run_gemm(Context&, const char* op, const GemmProblem&, View dx, const BackwardEpilogue&);

}  // namespace switchback::SB_DEVICE
