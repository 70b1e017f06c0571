// Context: where and how kernels run. Passed first to every op; there is no current device and no global state.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "kernels/types.h"

namespace switchback {

enum class Device { cpu };  // cuda and emulated come with the CUDA backend

// How convolutions are computed. All are exact algorithms; they differ in rounding and speed.
//   direct    oneDNN's direct convolution
//   winograd  our F(4x4,3x3) for 3x3 stride 1, direct elsewhere (fp32 only; about 1e-6 relative error a layer)
//   automatic winograd where it is faster at that error, else direct
enum class ConvAlgorithm { automatic, direct, winograd };

struct DnnlState;  // oneDNN engine, stream and cached primitives; made at first use (kernels/dnnl.h)

// Scratch memory that grows to the largest request and is then reused. Contents do not survive the next call.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch();
  void* reserve(size_t bytes);  // 64-byte aligned, not initialised
  size_t capacity() const { return capacity_; }

 private:
  void* data_ = nullptr;
  size_t capacity_ = 0;
};

struct Context {
  Context();
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Device device = Device::cpu;
  int threads = 0;  // 0: as many as OpenMP gives
  ConvAlgorithm conv = ConvAlgorithm::automatic;
  Scratch scratch;  // for one op at a time
  Scratch arena;    // values and gradients of the plan that runs
  std::unique_ptr<DnnlState> dnnl;

  int thread_count() const;
};

// What the processor offers, as `switchback info` prints it and as kernels choose by. SWITCHBACK_CPU=avx2 in the
// environment hides AVX-512 and beyond.
struct CpuFeatures {
  std::string name;
  bool avx2 = false, avx512 = false, avx512_bf16 = false, amx_bf16 = false;
  bool fast_bf16() const { return avx512_bf16 || amx_bf16; }
};
const CpuFeatures& cpu_features();

}  // namespace switchback
