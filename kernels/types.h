// Plain data shared by every kernel: element types, shapes, views, gate bits and the ReLU rule.
//
// Memory layout: activations lie NHWC (channel fastest), whatever their type; `Shape` is logical (n, c, h, w).
// Weights lie KRSC for convolutions once packed, OI for linear layers. Files and users see NCHW / OIHW.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace switchback {

enum class DType : uint8_t { f32, f16, bf16 };

constexpr size_t size_of(DType t) { return t == DType::f32 ? 4 : 2; }
constexpr const char* name_of(DType t) { return t == DType::f32 ? "float32" : t == DType::f16 ? "float16" : "bfloat16"; }

// bfloat16: the upper half of a float, rounded to nearest even.
struct bf16 {
  uint16_t bits = 0;
  bf16() = default;
  bf16(float f) {  // NOLINT: converts like a number on purpose
    const uint32_t u = std::bit_cast<uint32_t>(f);
    bits = (u & 0x7fffffffu) > 0x7f800000u ? uint16_t((u >> 16) | 0x40)
                                           : uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
};

// Logical shape of an activation. A vector of features is (n, c, 1, 1).
struct Shape {
  int64_t n = 0, c = 0, h = 1, w = 1;
  constexpr int64_t item() const { return c * h * w; }  // elements of one sample
  constexpr int64_t count() const { return n * item(); }
  constexpr int64_t pixels() const { return n * h * w; }
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

// Gate bits of a ReLU: for every pixel ceil(c/32) words, bit (c % 32) of word c/32 set where the unit is active
// (0 < s, for a clipped ReLU 0 < s < clip). A clipped ReLU has a second plane of the same size behind the first,
// set where s >= clip.
constexpr int64_t gate_words_per_pixel(int64_t channels) { return (channels + 31) / 32; }
constexpr int64_t gate_words(Shape s) { return s.pixels() * gate_words_per_pixel(s.c); }

// What a ReLU lets through on the way back (Zeiler & Fergus 2014; Springenberg et al. 2015).
struct ReluRule {
  bool gate_forward = true;    // multiply with the forward gate [s > 0]
  bool gate_gradient = false;  // multiply with [g > 0]
  bool operator==(const ReluRule&) const = default;
};
inline constexpr ReluRule kGradient{true, false}, kDeconv{false, true}, kGuided{true, true};

constexpr float apply(ReluRule rule, bool gate, float g) {
  return (!rule.gate_forward || gate) && (!rule.gate_gradient || g > 0.f) ? g : 0.f;
}

inline constexpr float kNoClip = std::numeric_limits<float>::infinity();

}  // namespace switchback
