// A bare emulated device for the tests of the emulator itself. Compiled with SB_EMULATED.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/device/cuda.cuh"
#include "kernels/emulator/emulated.h"

namespace switchback::emulated {

inline constexpr int kThreads = 64;

// A stream and nothing else; launches are repeated in several orders unless a test says otherwise.
class EmulatorTest : public testing::Test {
 protected:
  EmulatorTest() : gpu_(std::make_shared<Gpu>()), ctx(gpu_) {
    cudaStream_t stream = nullptr;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    gpu_->stream = stream;
    set_emulator_mode(EmulatorMode::thorough);
  }
  ~EmulatorTest() override {
    for (void* p : allocations_) cudaFree(p);
    cudaStreamDestroy(stream());
    set_emulator_mode(EmulatorMode::automatic);
  }

  cudaStream_t stream() { return static_cast<cudaStream_t>(gpu_->stream); }

  template <typename T>
  T* allocate(size_t count) {
    T* p = nullptr;
    EXPECT_EQ(cudaMalloc(&p, count * sizeof(T)), cudaSuccess);
    allocations_.push_back(p);
    return p;
  }
  template <typename T>
  T* upload(const std::vector<T>& host) {
    T* p = allocate<T>(host.size());
    EXPECT_EQ(cudaMemcpyAsync(p, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice, stream()), cudaSuccess);
    return p;
  }
  template <typename T>
  std::vector<T> download(const T* p, size_t count) {
    std::vector<T> host(count);
    EXPECT_EQ(cudaMemcpyAsync(host.data(), p, count * sizeof(T), cudaMemcpyDeviceToHost, stream()), cudaSuccess);
    return host;
  }

  // What a launch of one block says; empty: nothing wrong.
  template <typename... P, typename... A>
  std::string run(void (*kernel)(P...), size_t shared, A... args) {
    return run_blocks(1, kThreads, kernel, shared, args...);
  }
  template <typename... P, typename... A>
  std::string run_blocks(unsigned blocks, unsigned threads, void (*kernel)(P...), size_t shared, A... args) {
    try {
      launch(ctx, {"planted", {1, 2, 3, 4}, blocks, threads, shared}, kernel, args...);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }

 private:
  std::shared_ptr<Gpu> gpu_;
  std::vector<void*> allocations_;

 protected:
  Context ctx;
};

inline void expect_says(const std::string& message, const std::string& words) {
  EXPECT_NE(message.find(words), std::string::npos) << "said: " << message;
}

inline std::vector<float> counting(size_t n) {
  std::vector<float> v(n);
  std::iota(v.begin(), v.end(), 0.f);
  return v;
}

inline __global__ void add_one(float* y, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] += 1.f;
}

}  // namespace switchback::emulated
