// What device.cu collects into the table: one function an op, with the signature of the public one.
#pragma once

#include "kernels/device/cuda.cuh"

namespace switchback::SB_DEVICE {

const DeviceOps* ops();
std::vector<std::string> vendor_libraries(Gpu& gpu);  // vendor.cu

// gemm.cu, compare.cu, and beside their ops in conv.cu and linear.cu
std::vector<GemmVariant> gemm_variants();
std::optional<GemmOffer> conv2d_gemm(Context&, const Conv2d&, Shape x, DType, bool backward);
std::optional<GemmOffer> linear_gemm(Context&, const Linear&, int64_t n, DType, bool backward);
void count_differences(Context&, const void* a, const void* b, size_t bytes, uint32_t* count);
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
// set_norm.cu
void set_norm_forward(Context&, const NormSets&, const NormAffine&, ConstView x, View y);
void set_norm_backward(Context&, const NormSets&, const NormAffine&, ConstView dy, ConstView x, View dx,
                       const BackwardEpilogue&);
// activation.cu
void slope_forward(Context&, const Slopes&, ConstView x, View y, uint32_t* gates);
void slope_backward(Context&, const Slopes&, ConstView dy, const uint32_t* gates, ReluRule, View dx,
                    const BackwardEpilogue&);
void ramp_forward(Context&, const Ramp&, ConstView x, View y, uint32_t* gates);
void ramp_backward(Context&, const Ramp&, ConstView dy, const uint32_t* gates, View dx, const BackwardEpilogue&);
void smooth_forward(Context&, const Smooth&, ConstView x, View y);
void smooth_backward(Context&, const Smooth&, ConstView dy, ConstView x, View dx, const BackwardEpilogue&);
// binary.cu, reduce.cu, resample.cu, rearrange.cu
void binary_forward(Context&, const Binary&, ConstView a, ConstView b, View y, const Epilogue&);
void binary_backward(Context&, const Binary&, int operand, ConstView dy, ConstView a, ConstView b, View dx,
                     const BackwardEpilogue&);
void reduce_forward(Context&, const Reduce&, ConstView x, View y);
void reduce_backward(Context&, const Reduce&, ConstView dy, View dx, const BackwardEpilogue&);
void resample_forward(Context&, const Resampling&, ConstView x, View y);
void resample_backward(Context&, const Resampling&, ConstView dy, View dx, const BackwardEpilogue&);
void rearrange_forward(Context&, const Rearrangement&, ConstView x, View y);
void rearrange_backward(Context&, const Rearrangement&, ConstView dy, View dx, const BackwardEpilogue&);
// noise.cu
void write_noisy_input(Context&, const float* x, const Noise&, View y);
void write_interpolated_input(Context&, const float* x, const float* baseline, const float* alpha, View y);
void accumulate_moments(Context&, ConstView g, double* sum, double* square);
void advance(Context&, uint32_t* counter, uint32_t step);
// window.cu
void gather_changes(Context&, const Change& x, const Origin* origins, View y, int64_t channel);
void add_changes(Context&, const Change& x, const Origin* origins, View y);
void gather_values(Context&, const Change& x, const Origin* origins, View y);
void subtract_clean(Context&, ConstView clean, const Origin* origins, View y);
void expand_patches(Context&, const Change& x, View y);
void max_pool2d_changes(Context&, const MaxPool2d&, const Change& x, ConstView clean, const Origin* origins, View y);
void avg_pool2d_changes(Context&, const AvgPool2d&, const Change& x, const Origin* origins, View y);
void resample_changes(Context&, const Resampling&, const Change& x, const Origin* origins, View y);
void occlude_patches(Context&, ConstView x, ConstView baseline, const Box* boxes, const Origin* origins, View y);
void occlude_images(Context&, ConstView x, ConstView baseline, const Box* boxes, View y);
// frozen.cu
void add_constant_offset(Context&, ConstView dy, ConstView constant, OffsetSum* sums);
void add_gate_offset(Context&, ConstView dy, const uint32_t* gates, const uint32_t* above, int64_t seeds_per_item,
                     const GateConstants&, OffsetSum* sums);
void frozen_gates_forward(Context&, ConstView x, const uint32_t* gates, const uint32_t* above, float scale,
                          const GateConstants&, int64_t items_per_tape_item, View y);
void frozen_max_pool2d_forward(Context&, const MaxPool2d&, ConstView x, const void* switches,
                               int64_t items_per_tape_item, View y);
void cut_out(Context&, const CutOut&, const void* from, const Corner* corners, int64_t count, void* to);

}  // namespace switchback::SB_DEVICE
