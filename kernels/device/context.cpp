#include "kernels/device/context.h"

#include <cpuid.h>
#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels/check.h"
#include "kernels/device/device_ops.h"

namespace switchback {

void* allocate_host(size_t bytes) {
  // Whole 2 MB pages: first touch of fresh 4 KB pages costs more than most ops that ask for memory.
  constexpr size_t kHuge = size_t{2} << 20;
  const size_t align = bytes >= kHuge ? kHuge : 64;
  const size_t size = (bytes + align - 1) / align * align;
  void* data = std::aligned_alloc(align, size);
  if (data && align == kHuge) madvise(data, size, MADV_HUGEPAGE);  // advice only
  return data;
}

void* Scratch::reserve(size_t bytes) {
  if (bytes <= memory_.size()) return memory_.data();
  memory_ = Memory();  // first give back, then ask for more
  memory_ = Memory(gpu_, (bytes + 63) / 64 * 64);
  return memory_.data();
}

int Context::thread_count() const { return threads > 0 ? threads : omp_get_max_threads(); }

Fuses fuses(const Context& ctx) { return ctx.gpu ? ctx.gpu->ops->fuses : Fuses{.pieces = true}; }

const char* Context::device_name() const { return gpu ? gpu->ops->name : "cpu"; }

uint32_t* Context::counters(int64_t count) {
  const size_t bytes = size_t(count) * sizeof(uint32_t);
  if (counters_.size() < bytes) {
    counters_ = allocate(std::max<size_t>(bytes, 4096));
    zero(counters_.data(), counters_.size());
  }
  return counters_.as<uint32_t>();
}

void Context::copy_in(void* device, const void* host, size_t bytes) {
  if (bytes == 0) return;
  if (gpu) gpu->ops->copy_in(*gpu, device, host, bytes);
  else std::memcpy(device, host, bytes);
}

void Context::copy_out(void* host, const void* device, size_t bytes) {
  if (bytes == 0) return;
  if (gpu) gpu->ops->copy_out(*gpu, host, device, bytes);
  else std::memcpy(host, device, bytes);
}

void Context::copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  if (gpu) gpu->ops->copy(*gpu, to, from, bytes);
  else std::memcpy(to, from, bytes);
}

void Context::zero(void* device, size_t bytes) {
  if (bytes == 0) return;
  if (gpu) gpu->ops->zero(*gpu, device, bytes);
  else std::memset(device, 0, bytes);
}

void Context::synchronize() {
  if (gpu) gpu->ops->synchronize(*gpu);
}

std::shared_ptr<Gpu> open_gpu(int index) {
  const DeviceOps* ops = cuda_ops();
  if (!ops) throw Error("this build has no CUDA side", "configure with -DSWITCHBACK_CUDA=ON (nvcc is needed), or use --device cpu");
  std::string why;
  const int count = ops->count(why);
  if (count == 0) throw Error(why, "`switchback info` says more; --device cpu works without a GPU");
  if (index >= count)
    throw Error(fmt::format("there is no GPU {}: this machine has {} that can be used", index, count),
                count == 1 ? "use --device cuda:0" : fmt::format("use --device cuda:0 to cuda:{}", count - 1));
  return ops->open(index);
}

int gpu_count(std::string& why_none) {
  const DeviceOps* ops = cuda_ops();
  if (ops) return ops->count(why_none);
  why_none = "this build has no CUDA side";
  return 0;
}

static CpuFeatures detect() {
  CpuFeatures f;
  __builtin_cpu_init();
  f.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  f.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512cd");
  // SWITCHBACK_CPU=avx2 hides the rest, so that one machine can test both sets of kernels; x86-64 hides these, too.
  const char* limit = std::getenv("SWITCHBACK_CPU");
  if (limit && std::strcmp(limit, "x86-64") == 0) f.avx2 = f.avx512 = false;
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
