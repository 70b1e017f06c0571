// What device.cu collects into the table (device_ops.h), declared for the .cu files that define it.
#pragma once

#include "kernels/device/cuda.cuh"

namespace switchback::SB_DEVICE {

const DeviceOps* ops();

#define SB_DECLARE(op) decltype(switchback::op) op;
SB_DEVICE_OPS(SB_DECLARE)
#undef SB_DECLARE

// What has no public function has the signature of the table's member.
template <typename Member>
using FunctionOf = std::remove_pointer_t<Member>;
FunctionOf<decltype(DeviceOps::vendor_libraries)> vendor_libraries;    // vendor.cu
FunctionOf<decltype(DeviceOps::gemm_variants)> gemm_variants;          // gemm.cu
FunctionOf<decltype(DeviceOps::conv2d_gemm)> conv2d_gemm;              // conv.cu
FunctionOf<decltype(DeviceOps::linear_gemm)> linear_gemm;              // linear.cu
FunctionOf<decltype(DeviceOps::count_differences)> count_differences;  // compare.cu

}  // namespace switchback::SB_DEVICE
