#include "kernels/context.h"

#include <cpuid.h>
#include <omp.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "kernels/check.h"

namespace switchback {

Scratch::~Scratch() { std::free(data_); }

void* Scratch::reserve(size_t bytes) {
  if (bytes <= capacity_) return data_;
  // Whole 2 MB pages: first touch of fresh 4 KB pages costs more than most ops that ask for scratch.
  constexpr size_t kHuge = size_t{2} << 20;
  const size_t align = bytes >= kHuge ? kHuge : 64;
  const size_t size = (bytes + align - 1) / align * align;
  std::free(data_);
  capacity_ = 0;
  data_ = std::aligned_alloc(align, size);
  CHECK(data_, "out of memory: {} bytes of scratch", size);
  if (align == kHuge) madvise(data_, size, MADV_HUGEPAGE);  // advice only
  capacity_ = size;
  return data_;
}

int Context::thread_count() const { return threads > 0 ? threads : omp_get_max_threads(); }

static CpuFeatures detect() {
  CpuFeatures f;
  __builtin_cpu_init();
  f.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  f.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512cd");
  // SWITCHBACK_CPU=avx2 hides the rest, so that one machine can test both sets of kernels.
  const char* limit = std::getenv("SWITCHBACK_CPU");
  if (limit && std::strcmp(limit, "avx2") == 0) f.avx512 = false;
  f.avx512_bf16 = f.avx512 && __builtin_cpu_supports("avx512bf16");
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
    f.amx_bf16 = f.avx512 && (d >> 22 & 1) && (d >> 24 & 1);  // AMX-BF16, AMX-TILE
  char brand[49] = {};
  for (unsigned i = 0; i < 3; ++i) {
    if (!__get_cpuid(0x80000002u + i, &a, &b, &c, &d)) break;
    const unsigned words[4] = {a, b, c, d};
    std::memcpy(brand + 16 * i, words, 16);
  }
  f.name = brand;
  const size_t begin = f.name.find_first_not_of(' '), end = f.name.find_last_not_of(' ');
  f.name = begin == std::string::npos ? "unknown" : f.name.substr(begin, end - begin + 1);
  return f;
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

}  // namespace switchback
