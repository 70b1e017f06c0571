// The arithmetic of an axis (the rows or the columns of a map) along which a window slides: convolutions, pools and, the
// other way round, transposed convolutions. Said once, for the CPU, for GPUs and for the engine.
//
//   Output o sees the inputs  o·stride − pad + k·dilation,  k = 0 … kernel − 1.  k is called a tap.
//
// Inputs before the first and behind the last are padding. Int is int64_t, but int in GPU code, where 64-bit divisions
// are slow.
#pragma once

#include <limits>

#include "kernels/types.h"

namespace switchback {

// a / b rounded down, and up; b > 0.
template <typename Int>
SB_HOST_DEVICE constexpr Int floor_div(Int a, Int b) {
  const Int q = a / b;
  return q - Int(a - q * b < 0);
}
template <typename Int>
SB_HOST_DEVICE constexpr Int ceil_div(Int a, Int b) {
  const Int q = a / b;
  return q + Int(a - q * b > 0);
}

// Places [begin, end) of an axis; none where begin >= end.
template <typename Int>
struct IntervalOf {
  Int begin = 0, end = 0;
  SB_HOST_DEVICE constexpr bool empty() const { return begin >= end; }
  SB_HOST_DEVICE constexpr Int size() const { return empty() ? 0 : end - begin; }
  SB_HOST_DEVICE constexpr bool has(Int i) const { return i >= begin && i < end; }
  bool operator==(const IntervalOf&) const = default;
};
using Interval = IntervalOf<int64_t>;

// The shortest interval that holds both.
constexpr Interval hull(Interval a, Interval b) {
  if (a.empty()) return b;
  if (b.empty()) return a;
  return {a.begin < b.begin ? a.begin : b.begin, a.end > b.end ? a.end : b.end};
}
// Those places of `a` that a map of `size` places has.
constexpr Interval within(Interval a, int64_t size) { return {a.begin < 0 ? 0 : a.begin, a.end > size ? size : a.end}; }

template <typename Int>
struct SlidingAxisOf {
  Int kernel = 1, stride = 1, pad = 0, dilation = 1;  // pad: places before the first input

  // Places from the first tap to the last, both included.
  SB_HOST_DEVICE constexpr Int extent() const { return (kernel - 1) * dilation + 1; }
  // How many outputs `in` inputs have, `pad_end` places of padding behind them. ceil_mode is PyTorch's of pools: one more
  // where inputs are left over, but its window must start inside the input or in the padding before it.
  SB_HOST_DEVICE constexpr Int outputs(Int in, Int pad_end, bool ceil_mode = false) const {
    const Int left = in + pad + pad_end - extent();
    if (!ceil_mode) return floor_div(left, stride) + 1;
    const Int out = ceil_div(left, stride) + 1;
    return (out - 1) * stride >= in + pad ? out - 1 : out;
  }

  // The input that output o sees at tap k; its first.
  SB_HOST_DEVICE constexpr Int input(Int o, Int k) const { return start(o) + k * dilation; }
  SB_HOST_DEVICE constexpr Int start(Int o) const { return o * stride - pad; }
  // The place of an output that sees input i at tap k, be it there or not; kNowhere where i lies between two places.
  static constexpr Int kNowhere = std::numeric_limits<Int>::min();
  SB_HOST_DEVICE constexpr Int output(Int i, Int k) const {
    const Int away = i + pad - k * dilation;
    return away % stride == 0 ? away / stride : kNowhere;
  }
  // That output, or −1 where none of the `outputs` is it.
  SB_HOST_DEVICE constexpr Int output(Int i, Int k, Int outputs) const {
    const Int away = i + pad - k * dilation, o = away / stride;
    return away >= 0 && o < outputs && o * stride == away ? o : -1;
  }
  // The tap at which output o sees input i, or −1 where i falls between two of its taps; o's window reaches over i.
  SB_HOST_DEVICE constexpr Int tap(Int o, Int i) const {
    const Int away = i - start(o);
    return away % dilation == 0 ? away / dilation : -1;
  }

  // The axis of one tap alone.
  SB_HOST_DEVICE constexpr SlidingAxisOf at_tap(Int k) const { return {1, stride, pad - k * dilation, 1}; }

  // The taps at which output o sees inputs of `in`.
  SB_HOST_DEVICE constexpr IntervalOf<Int> taps(Int o, IntervalOf<Int> in) const {
    const Int begin = first_tap(in.begin - start(o)), end = first_tap(in.end - start(o));
    return {begin, end > begin ? end : begin};
  }
  // From the first input to the last that the outputs in `out` see, padding included; `out` is not empty.
  SB_HOST_DEVICE constexpr IntervalOf<Int> needed(IntervalOf<Int> out) const {
    return {start(out.begin), start(out.end - 1) + extent()};
  }
  // The outputs whose windows reach over an input of `in` (with a dilation it may fall between taps), however many
  // outputs there are: o may be negative. `in` is not empty.
  SB_HOST_DEVICE constexpr IntervalOf<Int> reached(IntervalOf<Int> in) const {
    return {ceil_div(in.begin + pad - extent() + 1, stride), floor_div(in.end - 1 + pad, stride) + 1};
  }
  // Those that there are. None for an empty interval.
  SB_HOST_DEVICE constexpr IntervalOf<Int> through(IntervalOf<Int> in, Int outputs) const {
    if (in.empty()) return {};
    const IntervalOf<Int> all = reached(in);
    return {all.begin < 0 ? 0 : all.begin, all.end > outputs ? outputs : all.end};
  }

  // Transposed, the roles change: input i goes to the outputs  i·stride − pad + k·dilation.  How many outputs there are,
  // `more` of them behind the last that is reached:
  SB_HOST_DEVICE constexpr Int transposed_outputs(Int in, Int pad_end, Int more) const {
    return (in - 1) * stride - pad - pad_end + extent() + more;
  }
  // From the first to the last of the `outputs` that inputs of `in` go to. None for an empty interval.
  SB_HOST_DEVICE constexpr IntervalOf<Int> spread(IntervalOf<Int> in, Int outputs) const {
    if (in.empty()) return {};
    const IntervalOf<Int> all = needed(in);
    return {all.begin < 0 ? 0 : all.begin, all.end > outputs ? outputs : all.end};
  }

  bool operator==(const SlidingAxisOf&) const = default;

 private:
  // The first tap at or behind the place `away` places behind the first tap.
  SB_HOST_DEVICE constexpr Int first_tap(Int away) const {
    if (away <= 0) return 0;
    const Int k = dilation == 1 ? away : (away + dilation - 1) / dilation;
    return k < kernel ? k : kernel;
  }
};
using SlidingAxis = SlidingAxisOf<int64_t>;

// The two axes of a layer with kernel_h, stride_h, pad_top and so on; without dilation_h there is no dilation.
template <typename Int = int64_t, typename L>
constexpr SlidingAxisOf<Int> sliding_rows(const L& l) {
  Int dilation = 1;
  if constexpr (requires { l.dilation_h; }) dilation = Int(l.dilation_h);
  return {Int(l.kernel_h), Int(l.stride_h), Int(l.pad_top), dilation};
}
template <typename Int = int64_t, typename L>
constexpr SlidingAxisOf<Int> sliding_columns(const L& l) {
  Int dilation = 1;
  if constexpr (requires { l.dilation_w; }) dilation = Int(l.dilation_w);
  return {Int(l.kernel_w), Int(l.stride_w), Int(l.pad_left), dilation};
}

}  // namespace switchback
