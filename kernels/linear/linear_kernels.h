// The two loops of a linear layer, compiled for AVX2 (linear_avx2.cpp) and for AVX-512 (linear_avx512.cpp) from
// linear_kernels.inl. Both give the same bits: the same sixteen lanes, blocks and order whatever n and the split.
#pragma once

#include <cstdint>

namespace switchback {

// Weights w [out, in]: f32, or the bits of bf16. x, dy, sums, dx: f32, dense rows.
template <typename W>
struct LinearKernels {
  // sums[s][o] = sum_i w[o][i]·x[s][i] for all n samples and o in [o0, o1).
  void (*forward)(const W* w, const float* x, float* sums, int64_t n, int64_t in, int64_t out, int64_t o0, int64_t o1);
  // dx[s][i] = sum_o w[o][i]·dy[s][o] for all n samples and i in [i0, i1).
  void (*backward)(const W* w, const float* dy, float* dx, int64_t n, int64_t in, int64_t out, int64_t i0, int64_t i1);
};

extern const LinearKernels<float> linear_avx2_f32, linear_avx512_f32;
extern const LinearKernels<uint16_t> linear_avx2_bf16, linear_avx512_bf16;

}  // namespace switchback
