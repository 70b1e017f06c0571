// The CUDA C++ language as far as our kernels use it: keywords, vector types and scalar intrinsics. Everything stands
// in switchback::emulated, where the kernels are, so that a program may link the real CUDA runtime too.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)

namespace switchback::emulated {

struct uint3 { unsigned x, y, z; };
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

struct alignas(8) float2 { float x, y; };
struct float3 { float x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) int2 { int x, y; };
struct int3 { int x, y, z; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };

constexpr float2 make_float2(float x, float y) { return {x, y}; }
constexpr float3 make_float3(float x, float y, float z) { return {x, y, z}; }
constexpr float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
constexpr double2 make_double2(double x, double y) { return {x, y}; }
constexpr int2 make_int2(int x, int y) { return {x, y}; }
constexpr int3 make_int3(int x, int y, int z) { return {x, y, z}; }
constexpr int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
constexpr uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
constexpr uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
constexpr uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// min and max: CUDA's overloads, no templates; for floats a number wins against NaN.
#define SB_MIN_MAX(T)                                     \
  constexpr T min(T a, T b) { return b < a ? b : a; }     \
  constexpr T max(T a, T b) { return a < b ? b : a; }
SB_MIN_MAX(int)
SB_MIN_MAX(unsigned)
SB_MIN_MAX(long)
SB_MIN_MAX(unsigned long)
SB_MIN_MAX(long long)
SB_MIN_MAX(unsigned long long)
#undef SB_MIN_MAX
constexpr float min(float a, float b) { return a < b || b != b ? a : b; }
constexpr float max(float a, float b) { return a > b || b != b ? a : b; }
constexpr double min(double a, double b) { return a < b || b != b ? a : b; }
constexpr double max(double a, double b) { return a > b || b != b ? a : b; }

constexpr int __popc(unsigned v) { return std::popcount(v); }
constexpr int __popcll(unsigned long long v) { return std::popcount(v); }
constexpr int __ffs(int v) { return v ? std::countr_zero(unsigned(v)) + 1 : 0; }
constexpr int __clz(int v) { return std::countl_zero(unsigned(v)); }
constexpr unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }

constexpr unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
constexpr int __float_as_int(float v) { return std::bit_cast<int>(v); }
constexpr float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
constexpr float __int_as_float(int v) { return std::bit_cast<float>(v); }

// Single operations, rounded to nearest; files that need these bits are compiled with -ffp-contract=off.
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float v) { return std::sqrt(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float v) { return 1.f / std::sqrt(v); }
inline float __expf(float v) { return std::exp(v); }
inline float __logf(float v) { return std::log(v); }
inline float __powf(float a, float b) { return std::pow(a, b); }

template <typename T>
T __ldg(const T* p) { return *p; }

// Integer atomics. Threads of the emulated device never run at the same time, so these are plain updates; what depends
// on their order shows when launches are repeated in another one.
template <typename T, typename F>
T update(T* p, const F& next) {
  static_assert(std::is_integral_v<T> && sizeof(T) >= 4);
  const T old = *p;
  *p = next(old);
  return old;
}
inline void __threadfence() {}
template <typename T>
T atomicAdd(T* p, std::type_identity_t<T> v) { return update(p, [v](T old) { return T(old + v); }); }
template <typename T>
T atomicOr(T* p, std::type_identity_t<T> v) { return update(p, [v](T old) { return T(old | v); }); }
template <typename T>
T atomicAnd(T* p, std::type_identity_t<T> v) { return update(p, [v](T old) { return T(old & v); }); }
template <typename T>
T atomicMax(T* p, std::type_identity_t<T> v) { return update(p, [v](T old) { return old < v ? v : old; }); }
template <typename T>
T atomicMin(T* p, std::type_identity_t<T> v) { return update(p, [v](T old) { return v < old ? v : old; }); }

}  // namespace switchback::emulated
