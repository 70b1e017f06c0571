// Context: where and how kernels run. Passed first to every op; there is no current device and no global state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "kernels/device/gpu.h"
#include "kernels/types.h"

namespace switchback {

class GemmTable;  // kernels/gemm/gemm_table.h

// How convolutions are computed. All are exact algorithms; they differ in rounding and speed.
// On the CPU:
//   automatic winograd where it is faster at about 1e-6 relative error a layer, else direct
//   direct    oneDNN's direct convolution, our product of windows where it has none for the layer
//   winograd  our F(4x4,3x3) for 3x3 stride 1, direct elsewhere (fp32 only)
// On a GPU:
//   own       our kernels, for convolutions and linear layers: the same bits in every run and for every batch split
//   direct    our plain direct kernel everywhere: the slow reference on the device
//   gemm      our implicit GEMM wherever it can: for tests and benchmarks
//   vendor    cuDNN and cuBLASLt; an error where they cannot be opened
//   automatic linear layers by cuBLASLt, convolutions by the faster of own and cuDNN, timed once per shape; own where
//             these libraries are missing
enum class ConvAlgorithm { automatic, direct, winograd, own, gemm, vendor };

struct DnnlState;  // oneDNN engine, stream and cached primitives; made at first use (kernels/conv/dnnl.h)

// Fresh host memory, 64-byte aligned and not initialised, in whole 2 MB pages where large; null when there is none.
// Freed with std::free.
void* allocate_host(size_t bytes);

// Device memory that grows to the largest request and is then reused. Contents do not survive the next call.
class Scratch {
 public:
  explicit Scratch(std::shared_ptr<Gpu> gpu) : gpu_(std::move(gpu)) {}
  void* reserve(size_t bytes);  // 64-byte aligned, not initialised; throws OutOfMemory and then holds nothing
  size_t capacity() const { return memory_.size(); }
  const void* data() const { return memory_.data(); }

 private:
  std::shared_ptr<Gpu> gpu_;
  Memory memory_;
};

// On a GPU every pointer given to an op is the device's, unless the op says otherwise, and ops return before they are
// done: copy_out and synchronize wait.
struct Context {
  explicit Context(std::shared_ptr<Gpu> gpu = nullptr);  // null: the CPU
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  const std::shared_ptr<Gpu> gpu;
  int threads = 0;  // of the CPU; 0: as many as OpenMP gives
  // On a GPU `own`, not `automatic`: a choice by the clock would make maps depend on it and on the batch.
  ConvAlgorithm conv = gpu ? ConvAlgorithm::own : ConvAlgorithm::automatic;
  bool graphs = true;   // GPU: repeated steps are recorded and replayed
  std::shared_ptr<const GemmTable> gemm_table;  // GPU: measured choices of GEMM kernels, or null: a model chooses
  Scratch scratch;      // for one op at a time
  Scratch arena;        // values and gradients of the plan that runs
  std::unique_ptr<DnnlState> dnnl;

  int thread_count() const;
  const char* device_name() const;  // "cpu", "cuda" or "emulated"
  uint32_t* counters(int64_t count);  // on the GPU, all 0; kernels that count in them leave them at 0
  const void* counters() const { return counters_.data(); }  // where they are: null before they were asked for

  // Memory on this context's device, and copies between it and the host.
  Memory allocate(size_t bytes) { return Memory(gpu, bytes); }
  void copy_in(void* device, const void* host, size_t bytes);
  void copy_out(void* host, const void* device, size_t bytes);  // waits for all work before it
  void copy(void* to, const void* from, size_t bytes);          // both on the device
  void zero(void* device, size_t bytes);
  void synchronize();

 private:
  Memory counters_;
};

// What a device's kernels do in one pass with others.
struct Fuses {
  bool pools = false;           // a convolution and the max pool behind it (conv2d_fuses_pool says which)
  bool concatenations = false;  // ops that write into a part of a concatenation (Epilogue::pitch)
  bool flattens = false;        // linear layers that read a map where it lies
  bool pieces = false;          // gains from batches in pieces that fit its cache
};
Fuses fuses(const Context& ctx);

// Opens GPU `index`; throws Error saying what is missing (driver, device, compute capability, CUDA in this build).
std::shared_ptr<Gpu> open_gpu(int index);
int gpu_count(std::string& why_none);  // usable GPUs; 0 comes with the reason

// What the processor offers, as `switchback info` prints it and as kernels choose by. SWITCHBACK_CPU=avx2 in the
// environment hides AVX-512 and beyond, SWITCHBACK_CPU=x86-64 also AVX2 (which the kernels need: a Context then throws).
struct CpuFeatures {
  std::string name;
  bool avx2 = false, avx512 = false, avx512_bf16 = false, amx_bf16 = false;
  bool fast_bf16() const { return avx512_bf16 || amx_bf16; }
};
const CpuFeatures& cpu_features();

}  // namespace switchback
