// Operands that are broadcast (NumPy's rule): any of their sizes may be 1 where the result's is larger.
#pragma once

#include "kernels/check.h"
#include "kernels/types.h"

namespace switchback {

// Where a thread that works on a place of the result finds its operand.
struct Operand {
  const void* data;
  bool f32;                  // else the result's element type
  int64_t item;              // elements from item to item; 0: one for all
  int64_t row, column;       // likewise within an item
  bool channels;             // one for each channel
  bool one_stride;           // place·column is the offset: neither rows nor columns are broadcast, or both are
  int32_t width;             // of the result

  template <typename T>
  SB_HOST_DEVICE const T* as() const { return static_cast<const T*>(data); }
  // Of place = h·width + w of an item: the offset of its (first) channel.
  SB_HOST_DEVICE int64_t offset(int64_t n, int32_t place) const {
    const int64_t base = n * item;
    if (one_stride) return base + place * column;
    const int32_t h = place / width;
    return base + h * row + (place - h * width) * column;
  }
};

inline Operand operand_of(ConstView v, Shape result) {
  const Shape s = v.shape;
  Operand o{v.data, v.dtype == DType::f32, s.n == 1 ? 0 : s.item(), s.h == 1 ? 0 : s.w * s.c, s.w == 1 ? 0 : s.c,
            s.c > 1, false, int32_t(result.w)};
  o.one_stride = (s.h == result.h && s.w == result.w) || (s.h == 1 && s.w == 1);
  if (o.one_stride) o.column = s.h * s.w == 1 ? 0 : s.c;
  return o;
}

}  // namespace switchback
