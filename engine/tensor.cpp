#include "engine/tensor.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>

namespace switchback {

Buffer::Buffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  constexpr size_t kHuge = size_t(2) << 20;
  const bool large = bytes >= 2 * kHuge;
  const size_t align = large ? kHuge : 64;
  data_ = std::aligned_alloc(align, (bytes + align - 1) / align * align);
  if (!data_) throw Error(fmt::format("out of memory: {} MiB asked for", bytes >> 20), "use a smaller --batch or --memory");
  if (large) madvise(data_, bytes, MADV_HUGEPAGE);  // page faults cost as much as the arithmetic otherwise
}

Buffer::~Buffer() { std::free(data_); }

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
