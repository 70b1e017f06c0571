// The table of what a GPU can do. Every .cu file is compiled up to twice: by nvcc into namespace switchback::cuda and,
// for the tests, by the C++ compiler against kernels/emulator/ into switchback::emulated. device.cu fills one table in
// each. The public function of an op (foo.cpp) checks its arguments and then calls `ctx.gpu->ops->foo` where the
// context is a GPU's. So the library links without nvcc, and shipped programs without the emulator.
#pragma once

#include <optional>

#include "kernels/pointwise/activation.h"
#include "kernels/pointwise/binary.h"
#include "kernels/device/context.h"
#include "kernels/conv/conv.h"
#include "kernels/frozen/frozen.h"
#include "kernels/gemm/gemm_table.h"
#include "kernels/device/gpu.h"
#include "kernels/linear/linear.h"
#include "kernels/noise/noise.h"
#include "kernels/normalize/normalize.h"
#include "kernels/pointwise/pointwise.h"
#include "kernels/pool/pool.h"
#include "kernels/move/rearrange.h"
#include "kernels/normalize/reduce.h"
#include "kernels/normalize/set_norm.h"
#include "kernels/move/resample.h"
#include "kernels/patch/patch.h"

namespace switchback {

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
  std::optional<GemmOffer> (*conv2d_gemm)(Context&, const Conv2d&, Shape x, DType, bool backward);
  std::optional<GemmOffer> (*linear_gemm)(Context&, const Linear&, int64_t n, DType, bool backward);
  // Adds to *count (on the device) how many 32-bit words of two arrays differ. Both and `bytes` are aligned to 16.
  void (*count_differences)(Context&, const void* a, const void* b, size_t bytes, uint32_t* count);

  // --- ops, as the public functions of the same names
  decltype(&switchback::conv2d_forward) conv2d_forward;
  decltype(&switchback::conv2d_backward_data) conv2d_backward_data;
  std::string (*conv2d_algorithm)(Context&, const ConvWeights&, Shape x, DType, bool backward);
  bool (*conv2d_fuses_pool)(Context&, const Conv2d&, Shape x, DType, const MaxPool2d&);
  decltype(&switchback::linear_forward) linear_forward;
  decltype(&switchback::linear_backward_data) linear_backward_data;
  decltype(&switchback::max_pool2d_forward) max_pool2d_forward;
  decltype(&switchback::max_pool2d_backward) max_pool2d_backward;
  decltype(&switchback::avg_pool2d_forward) avg_pool2d_forward;
  decltype(&switchback::avg_pool2d_backward) avg_pool2d_backward;
  decltype(&switchback::adaptive_avg_pool2d_forward) adaptive_avg_pool2d_forward;
  decltype(&switchback::adaptive_avg_pool2d_backward) adaptive_avg_pool2d_backward;
  decltype(&switchback::relu_forward) relu_forward;
  decltype(&switchback::combine_backward) combine_backward;
  decltype(&switchback::add_forward) add_forward;
  decltype(&switchback::channel_affine_forward) channel_affine_forward;
  decltype(&switchback::channel_affine_backward) channel_affine_backward;
  decltype(&switchback::nhwc_to_nchw) nhwc_to_nchw;
  decltype(&switchback::nchw_to_nhwc) nchw_to_nhwc;
  decltype(&switchback::flatten_forward) flatten_forward;
  decltype(&switchback::flatten_backward) flatten_backward;
  decltype(&switchback::concat_forward) concat_forward;
  decltype(&switchback::concat_backward) concat_backward;
  decltype(&switchback::one_hot) one_hot;
  decltype(&switchback::lrn_forward) lrn_forward;
  decltype(&switchback::lrn_backward) lrn_backward;
  decltype(&switchback::softmax_forward) softmax_forward;
  decltype(&switchback::softmax_backward) softmax_backward;
  decltype(&switchback::set_norm_forward) set_norm_forward;
  decltype(&switchback::set_norm_backward) set_norm_backward;
  decltype(&switchback::slope_forward) slope_forward;
  decltype(&switchback::slope_backward) slope_backward;
  decltype(&switchback::ramp_forward) ramp_forward;
  decltype(&switchback::ramp_backward) ramp_backward;
  decltype(&switchback::smooth_forward) smooth_forward;
  decltype(&switchback::smooth_backward) smooth_backward;
  decltype(&switchback::binary_forward) binary_forward;
  decltype(&switchback::binary_backward) binary_backward;
  decltype(&switchback::reduce_forward) reduce_forward;
  decltype(&switchback::reduce_backward) reduce_backward;
  decltype(&switchback::resample_forward) resample_forward;
  decltype(&switchback::resample_backward) resample_backward;
  decltype(&switchback::rearrange_forward) rearrange_forward;
  decltype(&switchback::rearrange_backward) rearrange_backward;
  decltype(&switchback::write_noisy_input) write_noisy_input;
  decltype(&switchback::write_interpolated_input) write_interpolated_input;
  decltype(&switchback::accumulate_moments) accumulate_moments;
  decltype(&switchback::advance) advance;
  decltype(&switchback::gather_changes) gather_changes;
  decltype(&switchback::add_changes) add_changes;
  decltype(&switchback::gather_values) gather_values;
  decltype(&switchback::subtract_clean) subtract_clean;
  decltype(&switchback::expand_patches) expand_patches;
  decltype(&switchback::max_pool2d_changes) max_pool2d_changes;
  decltype(&switchback::avg_pool2d_changes) avg_pool2d_changes;
  decltype(&switchback::resample_changes) resample_changes;
  decltype(&switchback::occlude_patches) occlude_patches;
  decltype(&switchback::occlude_images) occlude_images;
  decltype(&switchback::add_constant_offset) add_constant_offset;
  decltype(&switchback::add_gate_offset) add_gate_offset;
  decltype(&switchback::frozen_gates_forward) frozen_gates_forward;
  decltype(&switchback::frozen_max_pool2d_forward) frozen_max_pool2d_forward;
  decltype(&switchback::cut_out) cut_out;
};

const DeviceOps* cuda_ops();  // null in a build without nvcc; says nothing about whether there is a GPU

}  // namespace switchback
