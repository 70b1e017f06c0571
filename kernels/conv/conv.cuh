// The GPU's convolution kernels, each in a file of its own; conv.cu chooses among them by the layer and one image's
// shape, never by the batch, so that results do not depend on how a batch is split.
#pragma once

#include "kernels/conv/conv.h"
#include "kernels/device/cuda.cuh"
#include "kernels/epilogue/epilogue.cuh"
#include "kernels/sliding.h"

namespace switchback::SB_DEVICE {

// Which arrays of a ConvWeights lie in its DeviceCache: layout x element type.
//   krsc      [k][r][s][c]: for each output channel its taps, c = in_channels / groups fastest
//   crsk      [c][r][s][k]: transposed for backward-data; c over all in_channels, k = out_channels / groups fastest
//   rsck      [r][s][c][k]: k = out_channels fastest, c = in_channels / groups (lanes over k read it coalesced)
enum class ConvPacking { krsc, crsk, rsck, bias };
// Device pointer to the packed weights (scale applied; of f32 ones, where `tf32`, a copy rounded for tensor cores) or to
// the f32 bias (null when there is none).
const void* packed_weights(Context& ctx, const ConvWeights& weights, ConvPacking packing, DType dtype, bool tf32 = false);

// A convolution at one size of input: y [n,p,q,k] from x [n,h,w,c]. One image's elements count in 32 bits.
struct ConvSize {
  int n, h, w, c, p, q, k;
  SlidingAxisOf<int> rows, columns;
  int group_c, group_k;  // channels of one group
};
ConvSize conv_size(const Conv2d& conv, Shape x);

// Launches with `per_image` blocks along x and images along y and z, or with a warp for each of an image's `units`.
// Inside, the last blocks may be of images past the end, and the last warps of units past the end.
dim3 image_grid(int64_t per_image, int64_t images);
Launch warp_launch(const char* op, Shape shape, int64_t units);
__device__ __forceinline__ int image() { return int(blockIdx.z * gridDim.y + blockIdx.y); }
__device__ __forceinline__ int warp_unit() { return int(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32); }

// Four neighbouring elements, aligned to their size.
template <typename T>
__device__ __forceinline__ float4 load_four(const T* p) {
  if constexpr (sizeof(T) == 4) {
    return load_as<float4>(p);
  } else {
    const uint2 raw = load_as<uint2>(p);
    T v[4];
    v[0].bits = uint16_t(raw.x), v[1].bits = uint16_t(raw.x >> 16);
    v[2].bits = uint16_t(raw.y), v[3].bits = uint16_t(raw.y >> 16);
    return {to_float(v[0]), to_float(v[1]), to_float(v[2]), to_float(v[3])};
  }
}
// Whether rows of `channels` can be read that way.
inline bool rows_aligned(const void* data, int channels) {
  return channels % 4 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

// conv_direct.cu: any convolution; one warp computes 32 channels of some pixels. Also with a fused max pool whose
// windows are whole and do not overlap (epilogue.pool). `y` of direct_fuses_pool: the convolution's output.
void direct_forward(Context&, const ConvWeights&, ConstView x, View y, const Epilogue&);
void direct_backward(Context&, const ConvWeights&, ConstView dy, View dx, const BackwardEpilogue&);
bool direct_fuses_pool(const MaxPool2d&, Shape y);

// conv_depthwise.cu: groups == in_channels (any multiplier).
bool depthwise_fits(const Conv2d&);
void depthwise_forward(Context&, const ConvWeights&, ConstView x, View y, const Epilogue&);
void depthwise_backward(Context&, const ConvWeights&, ConstView dy, View dx, const BackwardEpilogue&);

// conv_first.cu: at most 4 input channels, one group.
bool first_layer_fits(const Conv2d&, bool backward);
void first_layer_forward(Context&, const ConvWeights&, ConstView x, View y, const Epilogue&);
void first_layer_backward(Context&, const ConvWeights&, ConstView dy, View dx, const BackwardEpilogue&);
// conv_first_mma.cu: those of 16-bit elements with small kernels, which the two above hand on.
bool first_layer_on_tensor_cores(const Conv2d&, DType, bool backward);
void first_layer_forward_mma(Context&, const ConvWeights&, ConstView x, View y, const Epilogue&);
void first_layer_backward_mma(Context&, const ConvWeights&, ConstView dy, View dx, const BackwardEpilogue&);

// linear.cu: a kernel that covers the whole input without padding, in one group, is a linear layer over (h, w, c).
bool whole_map_fits(const Conv2d&, Shape x);
void whole_map_forward(Context&, const ConvWeights&, ConstView x, View y, const Epilogue&);
void whole_map_backward(Context&, const ConvWeights&, ConstView dy, View dx, const BackwardEpilogue&);

// conv_gemm.cu: implicit GEMM; f32 in FMA, bf16 / f16 / TF32 on tensor cores. Each group a product of its own.
bool gemm_fits(const Conv2d&, Shape x, DType, bool backward);
std::string gemm_name(Context&, const Conv2d&, Shape x, DType, bool backward, bool tf32);  // "gemm_f32_128x64", …
GemmOffer gemm_offer(Context&, const Conv2d&, Shape x, DType, bool backward, bool tf32);
bool gemm_fuses_pool(const Conv2d&, Shape x, DType, const MaxPool2d&);
void gemm_forward(Context&, const ConvWeights&, ConstView x, View y, const Epilogue&);
void gemm_backward(Context&, const ConvWeights&, ConstView dy, View dx, const BackwardEpilogue&);

// cudnn.cu: cuDNN's legacy API in NHWC; our epilogue runs behind it as a pass of its own. `fits`: found, and it has a
// deterministic algorithm for this shape and symmetric padding; forward and backward throw where it does not fit.
bool cudnn_found(Context&, std::string& why_not);
bool cudnn_fits(Context&, const Conv2d&, Shape x, DType, bool backward, bool tf32, std::string& why_not);
void cudnn_forward(Context&, const ConvWeights&, ConstView x, View y, const Epilogue&);
void cudnn_backward(Context&, const ConvWeights&, ConstView dy, View dx, const BackwardEpilogue&);

// epilogue.cu: y = act(y + residual) in place with gates; dx = rule(dx + other) in place.
void epilogue_pass(Context&, View y, const float* bias, const Epilogue&);
void epilogue_pass(Context&, View dx, const BackwardEpilogue&);

}  // namespace switchback::SB_DEVICE
