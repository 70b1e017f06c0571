// What device.cu collects into the table: one function an op, with the signature of the public one.
#pragma once

#include "kernels/cuda.cuh"

namespace switchback::SB_DEVICE {

const DeviceOps* ops();
std::vector<std::string> vendor_libraries(Gpu& gpu);  // vendor.cu

// conv.cu, linear.cu
void conv2d_forward(Context&, const ConvWeights&, ConstView x, View y, const Epilogue&);
void conv2d_backward_data(Context&, const ConvWeights&, ConstView dy, View dx, const BackwardEpilogue&);
std::string conv2d_algorithm(Context&, const ConvWeights&, Shape x, DType, bool backward);
bool conv2d_fuses_pool(Context&, const Conv2d&, Shape x, DType, const MaxPool2d&);
void linear_forward(Context&, const LinearWeights&, ConstView x, View y, const Epilogue&);
void linear_backward_data(Context&, const LinearWeights&, ConstView dy, View dx, const BackwardEpilogue&);
// max_pool.cu, pool.cu
void max_pool2d_forward(Context&, const MaxPool2d&, ConstView x, View y, void* switches, const Epilogue&);
void max_pool2d_backward(Context&, const MaxPool2d&, ConstView dy, const void* switches, View dx, const BackwardEpilogue&);
void avg_pool2d_forward(Context&, const AvgPool2d&, ConstView x, View y);
void avg_pool2d_backward(Context&, const AvgPool2d&, ConstView dy, View dx, const BackwardEpilogue&);
void adaptive_avg_pool2d_forward(Context&, const AdaptiveAvgPool2d&, ConstView x, View y);
void adaptive_avg_pool2d_backward(Context&, const AdaptiveAvgPool2d&, ConstView dy, View dx, const BackwardEpilogue&);
// pointwise.cu
void relu_forward(Context&, ConstView x, View y, const Epilogue&);
void combine_backward(Context&, ConstView dy, View dx, const BackwardEpilogue&);
void add_forward(Context&, ConstView a, ConstView b, View y, const Epilogue&);
void channel_affine_forward(Context&, ConstView x, const float* scale, const float* shift, View y, const Epilogue&);
void channel_affine_backward(Context&, ConstView dy, const float* scale, View dx, const BackwardEpilogue&);
void nhwc_to_nchw(Context&, ConstView x, float* y);
void nchw_to_nhwc(Context&, const float* x, View y);
void flatten_forward(Context&, ConstView x, View y);
void flatten_backward(Context&, ConstView dy, View dx, const BackwardEpilogue&);
void concat_forward(Context&, ConstView x, View y, int64_t channel);
void concat_backward(Context&, ConstView dy, int64_t channel, View dx, const BackwardEpilogue&);
void one_hot(Context&, View seed, const std::vector<SeedUnit>& units);
// normalize.cu
void lrn_forward(Context&, const LocalResponseNorm&, ConstView x, View y);
void lrn_backward(Context&, const LocalResponseNorm&, ConstView dy, ConstView x, View dx, const BackwardEpilogue&);
void softmax_forward(Context&, ConstView x, View y);
void softmax_backward(Context&, ConstView dy, ConstView y, View dx, const BackwardEpilogue&);
// noise.cu
void write_noisy_input(Context&, const float* x, const Noise&, View y);
void write_interpolated_input(Context&, const float* x, const float* baseline, const float* alpha, View y);
void accumulate_moments(Context&, ConstView g, double* sum, double* square);
void advance(Context&, uint32_t* counter, uint32_t step);

}  // namespace switchback::SB_DEVICE
