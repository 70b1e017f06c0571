// Tensor: what files, weights and users see. Row-major (C order), NCHW / OIHW as in PyTorch and NumPy.
// Activations inside a Plan are not Tensors but Views into its arena (NHWC, kernels/types.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/device/gpu.h"
#include "kernels/types.h"

namespace switchback {

using Dims = std::vector<int64_t>;
int64_t count(const Dims& dims);
std::string to_string(const Dims& dims);  // "[1,3,224,224]"

class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Dims dims) : dims_(std::move(dims)), memory_(nullptr, size_t(switchback::count(dims_)) * sizeof(float)) {}
  static Tensor zeros(Dims dims);

  const Dims& dims() const { return dims_; }
  int64_t dim(size_t i) const { return dims_.at(i); }
  int64_t count() const { return dims_.empty() ? 0 : switchback::count(dims_); }
  bool empty() const { return dims_.empty(); }
  float* data() { return memory_.as<float>(); }
  const float* data() const { return memory_.as<float>(); }
  std::span<float> values() { return {data(), size_t(count())}; }
  std::span<const float> values() const { return {data(), size_t(count())}; }
  float& operator[](int64_t i) { return data()[i]; }
  float operator[](int64_t i) const { return data()[i]; }
  Tensor clone() const;
  Tensor reshaped(Dims dims) &&;  // the same memory under other dimensions

 private:
  Dims dims_;
  Memory memory_;  // the host's
};

}  // namespace switchback
