// Plain data shared by every kernel: element types, shapes and views.
//
// Memory layout: activations lie NHWC (channel fastest), whatever their type; `Shape` is logical (n, c, h, w).
// Weights lie KRSC for convolutions once packed, OI for linear layers. Files and users see NCHW / OIHW.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define SB_HOST_DEVICE __host__ __device__
#else
#define SB_HOST_DEVICE
#endif

namespace switchback {

enum class DType : uint8_t { f32, f16, bf16 };

constexpr size_t size_of(DType t) { return t == DType::f32 ? 4 : 2; }
constexpr const char* name_of(DType t) { return t == DType::f32 ? "float32" : t == DType::f16 ? "float16" : "bfloat16"; }

// bfloat16: the upper half of a float, rounded to nearest even.
struct bf16 {
  uint16_t bits = 0;
  bf16() = default;
  SB_HOST_DEVICE constexpr bf16(float f) {  // NOLINT: converts like a number on purpose
    const uint32_t u = std::bit_cast<uint32_t>(f);
    bits = (u & 0x7fffffffu) > 0x7f800000u ? uint16_t((u >> 16) | 0x40)
                                           : uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  SB_HOST_DEVICE constexpr operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
};

// IEEE binary16, rounded to nearest even; overflow gives infinity. GPUs only: the CPU kernels take f32 and bf16.
struct f16 {
  uint16_t bits = 0;
  f16() = default;
  SB_HOST_DEVICE constexpr f16(float f) {  // NOLINT: converts like a number on purpose
    const uint32_t u = std::bit_cast<uint32_t>(f), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
      bits = uint16_t(sign | 0x7e00u);  // NaN
    } else if (magnitude >= 0x477ff000u) {
      bits = uint16_t(sign | 0x7c00u);  // 65520 and above round to infinity
    } else if (magnitude >= 0x38800000u) {  // normal: 10 of the 23 mantissa bits stay
      const uint32_t rebased = magnitude - 0x38000000u;
      bits = uint16_t(sign | ((rebased + 0xfffu + (rebased >> 13 & 1u)) >> 13));
    } else {  // subnormal: adding 0.5 leaves the value's multiple of 2^-24 in the low bits, correctly rounded
      bits = uint16_t(sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u));
    }
  }
  SB_HOST_DEVICE constexpr operator float() const {
    const uint32_t sign = uint32_t(bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    if (magnitude >= 0x400u) return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
    const float value = float(magnitude) * 0x1p-24f;
    return sign ? -value : value;
  }
};

// Logical shape of an activation. A vector of features is (n, c, 1, 1).
struct Shape {
  int64_t n = 0, c = 0, h = 1, w = 1;
  SB_HOST_DEVICE constexpr int64_t item() const { return c * h * w; }  // elements of one sample
  SB_HOST_DEVICE constexpr int64_t count() const { return n * item(); }
  SB_HOST_DEVICE constexpr int64_t pixels() const { return n * h * w; }
  constexpr Shape with_n(int64_t batch) const { return {batch, c, h, w}; }
  bool operator==(const Shape&) const = default;
};

// A view of an NHWC activation; kernels take these by value.
struct ConstView {
  const void* data = nullptr;
  Shape shape;
  DType dtype = DType::f32;
  template <typename T>
  const T* as() const { return static_cast<const T*>(data); }
};
struct View {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::f32;
  template <typename T>
  T* as() const { return static_cast<T*>(data); }
  operator ConstView() const { return {data, shape, dtype}; }
};

}  // namespace switchback
