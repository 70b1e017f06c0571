// Which value of a window wins a max pool: the first of the largest, and NaN before all numbers (the last of several),
// as in PyTorch. +0 and −0 are equal. Said once; the CPU's vector code is tested against it.
#pragma once

#include <limits>

#include "kernels/types.h"

namespace switchback {

// Whether `value` takes the place of `best`, which came before it.
SB_HOST_DEVICE constexpr bool wins(float value, float best) { return value > best || value != value; }

// The maximum of the values met so far, and where in the window it was.
struct Winner {
  float best = -std::numeric_limits<float>::infinity();
  int place = 0;
  SB_HOST_DEVICE constexpr void meet(float value, int at) {
    if (wins(value, best)) best = value, place = at;
  }
};

}  // namespace switchback
