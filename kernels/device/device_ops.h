// The table of what a GPU can do. Every .cu file is compiled up to twice: by nvcc into namespace switchback::cuda and,
// for the tests, by the C++ compiler against kernels/emulator/ into switchback::emulated. device.cu fills one table in
// each. The public function of an op (foo.cpp) checks its arguments and then calls `ctx.gpu->ops->foo` where the
// context is a GPU's. So the library links without nvcc, and shipped programs without the emulator.
#pragma once

#include <optional>

#include "kernels/attention/attention.h"
#include "kernels/attention/matmul.h"
#include "kernels/pointwise/activation.h"
#include "kernels/pointwise/binary.h"
#include "kernels/device/context.h"
#include "kernels/conv/conv.h"
#include "kernels/conv/conv_backward_weights.h"
#include "kernels/frozen/frozen.h"
#include "kernels/gemm/gemm_table.h"
#include "kernels/device/gpu.h"
#include "kernels/image/image_step.h"
#include "kernels/image/priors.h"
#include "kernels/image/transform.h"
#include "kernels/learn/loss.h"
#include "kernels/learn/optimizer.h"
#include "kernels/linear/linear.h"
#include "kernels/noise/dropout.h"
#include "kernels/noise/noise.h"
#include "kernels/normalize/batch_norm.h"
#include "kernels/normalize/normalize.h"
#include "kernels/pointwise/pointwise.h"
#include "kernels/pool/pool.h"
#include "kernels/move/rearrange.h"
#include "kernels/move/transpose.h"
#include "kernels/normalize/reduce.h"
#include "kernels/normalize/set_norm.h"
#include "kernels/move/resample.h"
#include "kernels/patch/patch.h"

namespace switchback {

// The ops of a device: functions with the names and the signatures of the public ones, whose headers are included above.
// A new op is its neighbourhood and its name here.
// clang-format off
#define SB_DEVICE_OPS(OP)                                                                                             \
  OP(conv2d_forward) OP(conv2d_backward_data) OP(conv2d_algorithm) OP(conv2d_fuses_pool)                              \
  OP(linear_forward) OP(linear_backward_data)                                                                         \
  OP(max_pool2d_forward) OP(max_pool2d_backward) OP(avg_pool2d_forward) OP(avg_pool2d_backward)                       \
  OP(adaptive_avg_pool2d_forward) OP(adaptive_avg_pool2d_backward)                                                    \
  OP(relu_forward) OP(combine_backward) OP(add_forward) OP(channel_affine_forward) OP(channel_affine_backward)        \
  OP(nhwc_to_nchw) OP(nchw_to_nhwc) OP(flatten_forward) OP(flatten_backward) OP(concat_forward) OP(concat_backward)   \
  OP(one_hot)                                                                                                         \
  OP(lrn_forward) OP(lrn_backward) OP(softmax_forward) OP(softmax_backward) OP(set_norm_forward) OP(set_norm_backward) \
  OP(slope_forward) OP(slope_backward) OP(ramp_forward) OP(ramp_backward) OP(smooth_forward) OP(smooth_backward)      \
  OP(binary_forward) OP(binary_backward)                                                                              \
  OP(reduce_forward) OP(reduce_backward) OP(resample_forward) OP(resample_backward) OP(rearrange_forward)             \
  OP(rearrange_backward) OP(transpose_forward) OP(transpose_backward)                                                 \
  OP(matmul_forward) OP(matmul_backward) OP(attention_forward) OP(attention_backward)                                 \
  OP(write_noisy_input) OP(write_interpolated_input) OP(accumulate_moments) OP(advance)                               \
  OP(gather_changes) OP(add_changes) OP(gather_values) OP(subtract_clean) OP(expand_patches) OP(max_pool2d_changes)   \
  OP(avg_pool2d_changes) OP(resample_changes) OP(occlude_patches) OP(occlude_images)                                  \
  OP(add_constant_offset) OP(add_gate_offset) OP(frozen_gates_forward) OP(frozen_max_pool2d_forward) OP(cut_out)          \
  OP(conv2d_backward_weights) OP(batch_norm_moments) OP(batch_norm_affine) OP(channel_sums) OP(batch_norm_backward)   \
  OP(update_running) OP(add_channel_sums) OP(set_norm_backward_affine) OP(add_slope_gradients)                        \
  OP(dropout_forward) OP(dropout_backward) OP(cross_entropy) OP(distance_loss)                                        \
  OP(optimizer_step) OP(add_squares) OP(scale_array)                                                                  \
  OP(image_step) OP(scale_to_sphere) OP(filter_image) OP(mix) OP(add_natural_gradient) OP(momentum_step)              \
  OP(clip_small_pixels) OP(scale_by) OP(affine_forward) OP(affine_backward) OP(colours_forward) OP(colours_backward)      \
  OP(matrix_product) OP(polar_forward) OP(polar_backward) OP(add_absolute)
// clang-format on

struct DeviceOps {
  const char* name;  // "cuda" or "emulated"
  Fuses fuses;

  // --- services (device.cu), sizes in bytes; all throw Error, allocate OutOfMemory
  int (*count)(std::string& why_none);  // devices that can be used; 0 comes with the reason
  std::shared_ptr<Gpu> (*open)(int index);
  void (*close)(Gpu&) noexcept;
  void* (*allocate)(Gpu&, size_t bytes);
  void (*release)(Gpu&, void*) noexcept;
  size_t (*free_memory)(Gpu&);
  void (*copy_in)(Gpu&, void* device, const void* host, size_t bytes);   // `host` may be reused at once
  void (*copy_out)(Gpu&, void* host, const void* device, size_t bytes);  // waits
  void (*copy)(Gpu&, void* to, const void* from, size_t bytes);          // on the device
  void (*zero)(Gpu&, void* device, size_t bytes);
  void (*synchronize)(Gpu&);
  double (*milliseconds)(Gpu&, const std::function<void()>& work);  // of the device, by events around the work
  void (*begin_capture)(Gpu&);
  std::unique_ptr<Graph> (*end_capture)(Gpu&);
  void (*launch_graph)(const Graph&);
  void (*destroy_graph)(Graph&) noexcept;
  std::vector<std::string> (*vendor_libraries)(Gpu&);  // what `info` says of cuDNN and cuBLASLt, a line each

  // --- for the sweep over GEMM kernels (tools/bench/sweep.h)
  std::vector<GemmVariant> (*gemm_variants)();  // all that this build has
  // How the context would compute a layer by GEMM; nothing where other kernels do.
  std::optional<GemmOffer> (*conv2d_gemm)(Context&, const Conv2d&, Shape x, DType, bool backward, bool tf32);
  std::optional<GemmOffer> (*linear_gemm)(Context&, const Linear&, int64_t n, DType, bool backward, bool tf32);
  // Adds to *count (on the device) how many 32-bit words of two arrays differ. Both and `bytes` are aligned to 16.
  void (*count_differences)(Context&, const void* a, const void* b, size_t bytes, uint32_t* count);

  // --- ops
#define SB_MEMBER(op) decltype(&switchback::op) op;
  SB_DEVICE_OPS(SB_MEMBER)
#undef SB_MEMBER
};

const DeviceOps* cuda_ops();  // null in a build without nvcc; says nothing about whether there is a GPU

}  // namespace switchback
