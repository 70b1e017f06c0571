#include "engine/tensor.h"

#include <cstring>
#include <numeric>

namespace switchback {

int64_t count(const Dims& dims) { return std::accumulate(dims.begin(), dims.end(), int64_t(1), std::multiplies<>()); }

std::string to_string(const Dims& dims) { return fmt::format("[{}]", fmt::join(dims, ",")); }

Tensor Tensor::zeros(Dims dims) {
  Tensor t(std::move(dims));
  if (t.count()) std::memset(t.data(), 0, size_t(t.count()) * sizeof(float));
  return t;
}

Tensor Tensor::clone() const {
  Tensor t(dims_);
  if (count()) std::memcpy(t.data(), data(), size_t(count()) * sizeof(float));
  return t;
}

Tensor Tensor::reshaped(Dims dims) && {
  CHECK(switchback::count(dims) == count(), "cannot view {} as {}", to_string(dims_), to_string(dims));
  dims_ = std::move(dims);
  return std::move(*this);
}

}  // namespace switchback
