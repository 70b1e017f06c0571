// GPUs as C++ sees them that nvcc does not compile: an opened device and memory on it. What it can do stands in the
// table of kernels/device/device_ops.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace switchback {

struct Context;
struct DeviceOps;

// One opened GPU (or the emulated one). Shared by the context and by all memory on it; closed with the last of them.
// All work on a Gpu is in the order of its one stream.
struct Gpu {
  const DeviceOps* ops = nullptr;
  int index = 0;
  std::string name;          // "NVIDIA H200"
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 1;
  double clock_hz = 0;           // highest
  size_t memory = 0;             // bytes in all
  size_t shared_per_block = 0;   // bytes that a block can have when it asks
  int driver = 0, runtime = 0;   // CUDA versions, 13000 for 13.0
  void* stream = nullptr;        // cudaStream_t
  void* staging = nullptr;       // pinned host memory that copies go through
  size_t staging_bytes = 0;
  bool capturing = false;        // kernels are being recorded, not run
  std::shared_ptr<void> vendor;  // cuDNN and cuBLASLt, opened at first use (kernels/device/vendor.cu)
  std::shared_ptr<void> tuning;  // which kernels were faster when timed (kernels/conv/conv.cu)

  Gpu() = default;
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;
  ~Gpu();
};

// A recorded sequence of kernels and copies that one call replays (cudaGraphExec_t). Valid while the memory that it
// was recorded on is.
struct Graph {
  std::shared_ptr<Gpu> gpu;
  void* exec = nullptr;
  int64_t kernels = 0, copies = 0;  // nodes of each kind

  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph();
  void launch() const;
};

// Owned memory on a context's device: a GPU's, or the host's where gpu is null. Not initialised. Move-only.
class Memory {
 public:
  Memory() = default;
  Memory(std::shared_ptr<Gpu> gpu, size_t bytes);  // throws OutOfMemory
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Memory();
  void* data() const { return data_; }
  size_t size() const { return size_; }
  const std::shared_ptr<Gpu>& gpu() const { return gpu_; }
  template <typename T>
  T* as() const { return static_cast<T*>(data_); }

 private:
  void swap(Memory& other) {
    std::swap(gpu_, other.gpu_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  std::shared_ptr<Gpu> gpu_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

// Constant arrays of an op (packed weights, biases) on the GPUs that asked for them, made at first use and kept as
// long as their owner. `what` tells an owner's arrays apart.
class DeviceCache {
 public:
  // `make` gives the bytes (host) when this GPU has none of them yet.
  const void* get(Context& ctx, int what, const std::function<std::vector<char>()>& make);
  // `write` writes `bytes` bytes on the device when it has none of them yet.
  const void* get(Context& ctx, int what, size_t bytes, const std::function<void(void*)>& write);

 private:
  struct Entry {
    int what;
    Memory memory;
  };
  const void* find(Context& ctx, int what) const;  // null where this GPU has none
  std::vector<Entry> entries_;
};

}  // namespace switchback
