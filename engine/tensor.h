// Tensor: what files, weights and users see. Row-major (C order), NCHW / OIHW as in PyTorch and NumPy.
// Activations inside a Plan are not Tensors but Views into its arena (NHWC, kernels/types.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/types.h"

namespace switchback {

// Owned memory, 64-byte aligned and not initialised; large blocks ask for huge pages. Move-only.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer();
  void* data() { return data_; }
  const void* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  void* data_ = nullptr;
  size_t size_ = 0;
};

using Dims = std::vector<int64_t>;
int64_t count(const Dims& dims);
std::string to_string(const Dims& dims);  // "[1,3,224,224]"

class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Dims dims) : dims_(std::move(dims)), buffer_(size_t(switchback::count(dims_)) * sizeof(float)) {}
  static Tensor zeros(Dims dims);

  const Dims& dims() const { return dims_; }
  int64_t dim(size_t i) const { return dims_.at(i); }
  int64_t count() const { return dims_.empty() ? 0 : switchback::count(dims_); }
  bool empty() const { return dims_.empty(); }
  float* data() { return static_cast<float*>(buffer_.data()); }
  const float* data() const { return static_cast<const float*>(buffer_.data()); }
  std::span<float> values() { return {data(), size_t(count())}; }
  std::span<const float> values() const { return {data(), size_t(count())}; }
  float& operator[](int64_t i) { return data()[i]; }
  float operator[](int64_t i) const { return data()[i]; }
  Tensor clone() const;
  Tensor reshaped(Dims dims) &&;  // the same memory under other dimensions

 private:
  Dims dims_;
  Buffer buffer_;
};

}  // namespace switchback
