// kernels/sliding.h and the axes of average pools against the definition, tap by tap, over small axes.
#include "kernels/sliding.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "kernels/pool/average_axis.h"

namespace switchback {
namespace {

constexpr int64_t kMany = 40;  // outputs and inputs on both sides of 0 that are looked at

// body(axis, in) for kernels, strides, paddings and dilations around each other.
void each_axis(const std::function<void(const SlidingAxis&, int64_t)>& body) {
  for (const int64_t kernel : {1, 2, 3, 5})
    for (const int64_t stride : {1, 2, 3, 7})
      for (const int64_t dilation : {1, 2, 3})
        for (const int64_t pad : {0, 1, 2, 5})
          for (const int64_t in : {1, 2, 5, 11}) body({kernel, stride, pad, dilation}, in);
}
std::string text(const SlidingAxis& a) {
  return "kernel " + std::to_string(a.kernel) + ", stride " + std::to_string(a.stride) + ", pad " +
         std::to_string(a.pad) + ", dilation " + std::to_string(a.dilation);
}

// The inputs that output o sees.
std::set<int64_t> seen_by(const SlidingAxis& a, int64_t o) {
  std::set<int64_t> all;
  for (int64_t k = 0; k < a.kernel; ++k) all.insert(o * a.stride - a.pad + k * a.dilation);
  return all;
}
// From the smallest to the largest.
Interval span_of(const std::set<int64_t>& all) {
  return all.empty() ? Interval{} : Interval{*all.begin(), *all.rbegin() + 1};
}

// An empty one may lie anywhere.
void expect_interval(Interval got, const std::set<int64_t>& want) {
  EXPECT_EQ(got.size(), span_of(want).size());
  if (!want.empty()) {
    EXPECT_EQ(got, span_of(want));
  }
}

TEST(Sliding, OneTap) {
  each_axis([](const SlidingAxis& a, int64_t in) {
    for (int64_t k = 0; k < a.kernel; ++k) {
      std::set<int64_t> seeing;
      for (int64_t o = 0; o < kMany; ++o)
        if (Interval{0, in}.has(a.input(o, k))) seeing.insert(o);
      expect_interval(a.at_tap(k).through({0, in}, kMany), seeing);
    }
  });
}

TEST(Sliding, Divisions) {
  for (int64_t a = -20; a <= 20; ++a)
    for (int64_t b = 1; b <= 7; ++b) {
      EXPECT_LE(floor_div(a, b) * b, a);
      EXPECT_GT((floor_div(a, b) + 1) * b, a);
      EXPECT_GE(ceil_div(a, b) * b, a);
      EXPECT_LT((ceil_div(a, b) - 1) * b, a);
    }
}

TEST(Sliding, Intervals) {
  EXPECT_EQ((Interval{3, 7}.size()), 4);
  EXPECT_EQ((Interval{7, 3}.size()), 0);
  EXPECT_TRUE((Interval{3, 7}.has(3)) && !(Interval{3, 7}.has(7)));
  EXPECT_EQ(hull({1, 2}, {5, 6}), (Interval{1, 6}));
  EXPECT_EQ(hull({}, {5, 6}), (Interval{5, 6}));
  EXPECT_EQ(hull({5, 6}, {9, 2}), (Interval{5, 6}));
  EXPECT_EQ(within({-3, 9}, 5), (Interval{0, 5}));
  EXPECT_EQ(within({1, 3}, 5), (Interval{1, 3}));
}

TEST(Sliding, InputsTapsAndOutputs) {
  each_axis([](const SlidingAxis& a, int64_t in) {
    SCOPED_TRACE(text(a) + ", " + std::to_string(in) + " inputs");
    EXPECT_EQ(a.extent(), span_of(seen_by(a, 0)).size());
    for (int64_t o = -3; o < 12; ++o) {
      EXPECT_EQ(span_of(seen_by(a, o)), a.needed({o, o + 1}));
      EXPECT_EQ((Interval{a.start(o), a.start(o + 4) + a.extent()}), a.needed({o, o + 5}));
      Interval inside{a.kernel, 0};
      for (int64_t k = 0; k < a.kernel; ++k) {
        const int64_t i = a.input(o, k);
        EXPECT_EQ(a.tap(o, i), k);
        EXPECT_EQ(a.output(i, k), o);
        for (int64_t away = 1; away < a.stride; ++away) EXPECT_EQ(a.output(i + away, k), SlidingAxis::kNowhere);
        EXPECT_EQ(a.output(i, k, o + 1), o >= 0 ? o : -1);
        EXPECT_EQ(a.output(i, k, o), -1) << "there is no such output";
        if (i >= 0 && i < in) inside = {std::min(inside.begin, k), k + 1};
      }
      const Interval taps = a.taps(o, {0, in});
      EXPECT_EQ(taps.size(), inside.size());
      if (!inside.empty()) {
        EXPECT_EQ(taps, inside);
      }
      EXPECT_TRUE(taps.begin >= 0 && taps.end <= a.kernel);
      for (int64_t i = a.start(o); i < a.start(o) + a.extent(); ++i)
        EXPECT_EQ(a.tap(o, i) >= 0, seen_by(a, o).contains(i)) << "output " << o << ", input " << i;
    }
  });
}

TEST(Sliding, ThroughAndSpread) {
  each_axis([](const SlidingAxis& a, int64_t in) {
    for (const int64_t count : {1, 4, 9})
      for (int64_t begin = 0; begin < in; ++begin)
        for (int64_t end = begin; end <= in; ++end) {
          std::set<int64_t> over, through, spread;
          for (int64_t o = -kMany; o < kMany; ++o) {
            const Interval window = a.needed({o, o + 1});
            const bool meets = begin < end && window.begin < end && window.end > begin;
            if (meets) over.insert(o);
            if (meets && o >= 0 && o < count) through.insert(o);
          }
          for (int64_t i = begin; i < end; ++i)  // transposed: what input i goes to
            for (const int64_t o : seen_by(a, i))
              if (o >= 0 && o < count) spread.insert(o);
          SCOPED_TRACE(text(a) + ", inputs " + std::to_string(begin) + " to " + std::to_string(end));
          if (begin < end) expect_interval(a.reached({begin, end}), over);
          expect_interval(a.through({begin, end}, count), through);
          // Between two taps, or past the ends, an interval may hold outputs that nothing goes to, but none are missing.
          const Interval all = a.spread({begin, end}, count);
          for (const int64_t o : spread) EXPECT_TRUE(all.has(o)) << o;
          if (a.dilation == 1 && a.stride <= a.kernel && !spread.empty()) expect_interval(all, spread);
        }
  });
}

TEST(Sliding, OutputCounts) {
  each_axis([](const SlidingAxis& a, int64_t in) {
    for (const int64_t end : {0, 1, 4}) {
      if (a.extent() > in + a.pad + end) continue;
      SCOPED_TRACE(text(a) + ", " + std::to_string(in) + " inputs and " + std::to_string(end) + " of padding");
      int64_t whole = 0;  // windows that fit
      while (a.needed({whole, whole + 1}).end <= in + end) ++whole;
      EXPECT_EQ(a.outputs(in, end), whole);
      if (end >= a.extent()) continue;  // pools have less padding
      const bool left = a.needed({whole - 1, whole}).end < in + end;
      EXPECT_EQ(a.outputs(in, end, true), left && a.start(whole) < in ? whole + 1 : whole);
    }
    // A transposed convolution of the outputs reaches every input but the last `more` that a stride leaves out.
    const int64_t out = a.outputs(in + a.extent(), 0);
    const int64_t more = in + a.extent() + a.pad - ((out - 1) * a.stride + a.extent());
    EXPECT_EQ(a.transposed_outputs(out, 0, more), in + a.extent());
    EXPECT_EQ(a.transposed_outputs(out, 2, more), in + a.extent() - 2);
  });
}

TEST(Sliding, AxesOfLayers) {
  const MaxPool2d pool{.kernel_h = 2, .kernel_w = 3, .stride_h = 4, .stride_w = 5, .pad_top = 6, .pad_left = 7,
                       .pad_bottom = 8, .pad_right = 9, .dilation_h = 10, .dilation_w = 11};
  EXPECT_EQ(sliding_rows(pool), (SlidingAxis{2, 4, 6, 10}));
  EXPECT_EQ(sliding_columns<int>(pool), (SlidingAxisOf<int>{3, 5, 7, 11}));
  EXPECT_EQ(sliding_rows(AvgPool2d{.kernel_h = 3, .stride_h = 2, .pad_top = 1}), (SlidingAxis{3, 2, 1, 1}));
}

// The window of output o holds exactly the inputs through which o is reached, and the divisor counts them.
template <typename Pool>
void check_average(const Pool& pool, Shape x) {
  const Shape y = output_shape(pool, x);
  const auto axis = average_axes<int>(pool, x, y).rows;
  for (int i = 0; i < int(x.h); ++i)
    for (int o = 0; o < int(y.h); ++o) EXPECT_EQ(axis.window(o).inputs.has(i), axis.through(i).has(o)) << o << ", " << i;
  for (int o = 0; o < int(y.h); ++o) {
    EXPECT_LE(axis.window(o).inputs.size(), axis.longest());
    EXPECT_GE(axis.window(o).size, axis.window(o).inputs.size());
  }
}

TEST(Sliding, AveragePools) {
  for (const int64_t in : {5, 8, 11})
    for (const int64_t out : {1, 3, 5, 13}) check_average(AdaptiveAvgPool2d{out, 1}, {1, 1, in, 1});
  for (const int64_t kernel : {2, 3})
    for (const int64_t stride : {1, 2, 5})
      for (const int64_t pad : {0, 1})
        for (const bool ceil : {false, true})
          for (const bool count : {false, true})
            check_average(AvgPool2d{.kernel_h = kernel, .kernel_w = 1, .stride_h = stride, .stride_w = 1, .pad_top = pad,
                                    .pad_bottom = pad, .ceil_mode = ceil, .count_include_pad = count},
                          {1, 1, 9, 1});
}

}  // namespace
}  // namespace switchback
