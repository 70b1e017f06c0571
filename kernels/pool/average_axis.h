// One axis of an average pool, fixed or adaptive: which inputs an output averages, and by how many it divides. Said once
// for the CPU and for GPUs.
#pragma once

#include "kernels/pool/pool.h"
#include "kernels/sliding.h"

namespace switchback {

template <typename Int>
struct AverageAxisOf {
  Int in, out;
  bool adaptive;  // else what follows
  SlidingAxisOf<Int> sliding = {};
  Int pad_end = 0;
  bool count_include_pad = false;

  // The inputs of an output's window, and the axis' factor of the divisor. As PyTorch's avg_pool2d: the window is cut to
  // the input for the sum, and to the padded input for the divisor.
  struct Window {
    IntervalOf<Int> inputs;
    Int size;
  };
  SB_HOST_DEVICE constexpr Window window(Int o) const {
    if (adaptive) {
      const Int begin = Int(int64_t(o) * in / out), end = Int(((int64_t(o) + 1) * in + out - 1) / out);
      return {{begin, end}, end - begin};
    }
    const Int start = sliding.start(o), left = in + pad_end - start;
    const IntervalOf<Int> taps = sliding.taps(o, {0, in});
    const Int all = sliding.kernel < left ? sliding.kernel : left;
    return {{start + taps.begin, start + taps.end}, count_include_pad ? all : taps.size()};
  }
  // The outputs whose windows hold input i.
  SB_HOST_DEVICE constexpr IntervalOf<Int> through(Int i) const {
    if (adaptive) return {Int(int64_t(i) * out / in), Int(((int64_t(i) + 1) * out + in - 1) / in)};
    return sliding.through({i, i + 1}, out);
  }
  constexpr Int longest() const { return adaptive ? ceil_div(in, out) + 1 : sliding.kernel; }  // inputs of a window
};

template <typename Int>
struct AverageAxesOf {
  AverageAxisOf<Int> rows, columns;
};
// x, y: the pool's input and output.
template <typename Int>
AverageAxesOf<Int> average_axes(const AvgPool2d& p, Shape x, Shape y) {
  return {{Int(x.h), Int(y.h), false, sliding_rows<Int>(p), Int(p.pad_bottom), p.count_include_pad},
          {Int(x.w), Int(y.w), false, sliding_columns<Int>(p), Int(p.pad_right), p.count_include_pad}};
}
template <typename Int>
AverageAxesOf<Int> average_axes(const AdaptiveAvgPool2d&, Shape x, Shape y) {
  return {{Int(x.h), Int(y.h), true}, {Int(x.w), Int(y.w), true}};
}

}  // namespace switchback
