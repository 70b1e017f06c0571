#include "kernels/conv/conv_backward_weights.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/conv/winograd.h"
#include "kernels/conv/winograd_weights.h"
#include "kernels/device/device_ops.h"
#include "kernels/linear/outer_sums.h"
#include "kernels/parallel.h"
#include "kernels/sliding.h"
#include "kernels/view_check.h"

namespace switchback {

namespace {

const OuterSums& outer_sums() { return cpu_features().avx512 ? outer_sums_avx512 : outer_sums_avx2; }

constexpr int64_t kOutputs = 48, kInputs = 256;  // channels whose products one thread sums up at a time
constexpr int64_t kNarrow = 16;        // channels of a group below which its windows are copied side by side first
constexpr int64_t kFewPlaces = 16;     // of an item: up to here one sum goes through all items
constexpr int64_t kRowsInPlace = 64, kPlacesInPlace = 16;  // of windows that are read where they lie
constexpr int64_t kCopied = 1 << 18;   // elements of such copies at a time

struct Problem {
  Conv2d v;
  ConstView x, dy;
  int64_t inputs = v.in_channels / v.groups, outputs = v.out_channels / v.groups;  // channels of a group
  int64_t taps = v.kernel_h * v.kernel_w;
  SlidingAxis down = sliding_rows(v), along = sliding_columns(v);
  const float* item_x(int64_t n) const { return x.as<float>() + n * x.shape.item(); }
  const float* item_dy(int64_t n) const { return dy.as<float>() + n * dy.shape.item(); }
  int64_t places() const { return dy.shape.h * dy.shape.w; }
  float* weight(float* dw, int64_t o, int64_t c, int64_t tap) const { return dw + (o * inputs + c) * taps + tap; }
};

// What one tap sees of an item.
struct Tap {
  OuterPlaces places;
  int64_t a = 0, b = 0;  // where the first of them lies in dy and x
  Tap(const Problem& p, int64_t tap) {
    const int64_t r = tap / p.v.kernel_w, s = tap % p.v.kernel_w, C = p.x.shape.c, K = p.dy.shape.c;
    const Interval rows = p.down.at_tap(r).through({0, p.x.shape.h}, p.dy.shape.h);  // the outputs that see the map
    const Interval columns = p.along.at_tap(s).through({0, p.x.shape.w}, p.dy.shape.w);
    places = {rows.size(), columns.size(), p.dy.shape.w * K, K, p.v.stride_h * p.x.shape.w * C, p.v.stride_w * C};
    if (rows.empty() || columns.empty()) return;
    a = (rows.begin * p.dy.shape.w + columns.begin) * K;
    b = (p.down.input(rows.begin, r) * p.x.shape.w + p.along.input(columns.begin, s)) * C;
  }
  bool empty() const { return places.rows <= 0 || places.columns <= 0; }
};

// One tap of some channels of a group at a time, from the map where it lies. Meanwhile the gradient is [outputs, taps, inputs].
void by_taps(Context& ctx, const Problem& p, float* dw) {
  const int64_t across = ceil_div(p.outputs, kOutputs), along = ceil_div(p.inputs, kInputs), depth = p.taps * p.inputs;
  const int64_t work = p.dy.shape.pixels() * std::min(kOutputs, p.outputs) * std::min(kInputs, p.inputs) / 16;
  float* sums = p.taps == 1 ? dw : static_cast<float*>(ctx.scratch.reserve(size_t(p.v.out_channels * depth) * sizeof(float)));
  const auto each = [&](const auto& move) {
    if (p.taps == 1) return;
    parallel_ranges(ctx, p.v.out_channels, depth, [&](int64_t first, int64_t last) {
      for (int64_t o = first; o < last; ++o)
        for (int64_t c = 0; c < p.inputs; ++c)
          for (int64_t tap = 0; tap < p.taps; ++tap) move(sums[(o * p.taps + tap) * p.inputs + c], *p.weight(dw, o, c, tap));
    });
  };
  each([](float& sum, float w) { sum = w; });
  parallel_ranges(ctx, p.v.groups * p.taps * across * along, work, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t c0 = i % along * kInputs, width = std::min(p.inputs, c0 + kInputs) - c0;
      const int64_t tap = i / along / across % p.taps, group = i / along / across / p.taps;
      const int64_t o0 = group * p.outputs + i / along % across * kOutputs, o1 = std::min((group + 1) * p.outputs, o0 + kOutputs);
      const Tap at(p, tap);
      if (at.empty()) continue;
      const auto add = [&](int64_t n, const OuterPlaces& places, OuterStart start) {
        outer_sums().products(p.item_dy(n) + at.a + o0, o1 - o0, p.item_x(n) + at.b + group * p.inputs + c0, width, places,
                              sums + (o0 * p.taps + tap) * p.inputs + c0, depth, start);
      };
      OuterPlaces all = at.places;
      all.items = p.x.shape.n, all.a_item = p.dy.shape.item(), all.b_item = p.x.shape.item();
      if (p.places() == 1) add(0, {1, all.items, 0, all.a_item, 0, all.b_item}, OuterStart::goes_on);  // items are the places
      else if (p.places() <= kFewPlaces) add(0, all, OuterStart::goes_on);
      else for (int64_t n = 0; n < p.x.shape.n; ++n) add(n, at.places, OuterStart::apart);
    }
  });
  each([](float sum, float& w) { w = sum; });
}

// Depthwise: channel by channel.
void by_channels(Context& ctx, const Problem& p, float* dw) {
  const int64_t width = std::min<int64_t>(64, p.v.groups), blocks = ceil_div(p.v.groups, width);
  parallel_ranges(ctx, p.taps * blocks, p.dy.shape.pixels() * width / 8, [&](int64_t first, int64_t last) {
    std::vector<float> sums(static_cast<size_t>(width));
    for (int64_t i = first; i < last; ++i) {
      const int64_t tap = i / blocks, c0 = i % blocks * width, channels = std::min(width, p.v.groups - c0);
      const Tap at(p, tap);
      if (at.empty()) continue;
      for (int64_t c = 0; c < channels; ++c) sums[c] = *p.weight(dw, c0 + c, 0, tap);
      for (int64_t n = 0; n < p.x.shape.n; ++n)
        outer_sums().channels(p.item_dy(n) + at.a + c0, p.item_x(n) + at.b + c0, channels, at.places, sums.data());
      for (int64_t c = 0; c < channels; ++c) *p.weight(dw, c0 + c, 0, tap) = sums[c];
    }
  });
}

// `rows` pieces of `length` elements, `pitch` apart, one behind the other. Pieces are short: a length that the compiler
// knows is copied in a few instructions.
template <int64_t kLength>
void copy_pieces(const float* from, int64_t pitch, int64_t rows, float* to) {
  for (int64_t r = 0; r < rows; ++r) std::memcpy(to + r * kLength, from + r * pitch, kLength * sizeof(float));
}
void copy_pieces(const float* from, int64_t pitch, int64_t rows, int64_t length, float* to) {
  switch (length) {
    case 3: return copy_pieces<3>(from, pitch, rows, to);
    case 5: return copy_pieces<5>(from, pitch, rows, to);
    case 7: return copy_pieces<7>(from, pitch, rows, to);
    case 9: return copy_pieces<9>(from, pitch, rows, to);    // 3x3 in three colours
    case 15: return copy_pieces<15>(from, pitch, rows, to);  // 5x5
    case 21: return copy_pieces<21>(from, pitch, rows, to);  // 7x7
    case 33: return copy_pieces<33>(from, pitch, rows, to);  // 11x11
  }
  for (int64_t r = 0; r < rows; ++r) std::copy_n(from + r * pitch, length, to + r * length);
}

// The window of one output place of an item in one group's channels: [taps, inputs], zeros in the padding.
void copy_window(const Problem& p, const float* x, int64_t row, int64_t column, float* to) {
  const int64_t left = p.along.start(column), length = p.v.kernel_w * p.inputs;
  // A row of the window is one piece of the map.
  const bool whole = p.v.dilation_w == 1 && p.v.groups == 1 && left >= 0 && left + p.v.kernel_w <= p.x.shape.w;
  const int64_t top = p.down.start(row);
  if (whole && top >= 0 && top + p.down.extent() <= p.x.shape.h)
    return copy_pieces(x + (top * p.x.shape.w + left) * p.inputs, p.v.dilation_h * p.x.shape.w * p.inputs, p.v.kernel_h, length, to);
  for (int64_t r = 0; r < p.v.kernel_h; ++r, to += length) {
    const int64_t h = p.down.input(row, r);
    if (h < 0 || h >= p.x.shape.h) {
      std::fill_n(to, length, 0.f);
    } else if (whole) {
      const float* from = x + (h * p.x.shape.w + left) * p.inputs;
      for (int64_t i = 0; i < length; ++i) to[i] = from[i];
    } else {
      for (int64_t s = 0; s < p.v.kernel_w; ++s) {
        const int64_t w = p.along.input(column, s);
        const float* from = x + (h * p.x.shape.w + w) * p.x.shape.c;
        for (int64_t c = 0; c < p.inputs; ++c) to[s * p.inputs + c] = w >= 0 && w < p.x.shape.w ? from[c] : 0.f;
      }
    }
  }
}

// Narrow groups: windows side by side, all taps in one product.
void by_windows(Context& ctx, const Problem& p, float* dw) {
  const int64_t depth = p.taps * p.inputs, at_once = std::clamp<int64_t>(kCopied / (depth * p.places()), 1, p.x.shape.n);
  auto* windows = static_cast<float*>(ctx.scratch.reserve(size_t(at_once * p.places() * depth) * sizeof(float)));
  constexpr int64_t kFew = 12, kUnit = 4;  // output channels at a time; threads share them out by the unit
  const OuterPlaces places{1, p.places(), 0, p.dy.shape.c, 0, depth};
  for (int64_t group = 0; group < p.v.groups; ++group)
    for (int64_t n0 = 0; n0 < p.x.shape.n; n0 += at_once) {
      const int64_t items = std::min(at_once, p.x.shape.n - n0);
      const int64_t height = p.dy.shape.h, width = p.dy.shape.w;
      parallel_ranges(ctx, items * height, width * depth, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
          const float* x = p.item_x(n0 + i / height) + group * p.inputs;
          for (int64_t column = 0; column < width; ++column)
            copy_window(p, x, i % height, column, windows + (i * width + column) * depth);
        }
      });
      parallel_ranges(ctx, ceil_div(p.outputs, kUnit), items * p.places() * kUnit * depth / 16, [&](int64_t first, int64_t last) {
        std::vector<float> sums(size_t(kFew * depth));
        const int64_t end = group * p.outputs + std::min(p.outputs, last * kUnit);
        for (int64_t o0 = group * p.outputs + first * kUnit, o1; o0 < end; o0 = o1) {
          o1 = std::min(end, o0 + kFew);
          const auto each = [&](const auto& move) {
            for (int64_t o = o0; o < o1; ++o)
              for (int64_t tap = 0; tap < p.taps; ++tap)
                for (int64_t c = 0; c < p.inputs; ++c)
                  move(sums[((o - o0) * p.taps + tap) * p.inputs + c], *p.weight(dw, o, c, tap));
          };
          each([](float& sum, float w) { sum = w; });
          for (int64_t n = 0; n < items; ++n)
            outer_sums().products(p.item_dy(n0 + n) + o0, o1 - o0, windows + n * p.places() * depth, depth, places, sums.data(),
                                  depth, OuterStart::apart);
          each([](float sum, float& w) { w = sum; });
        }
      });
    }
}

// A narrow group without padding: its windows are rows, read where they lie, and output channels lanes. Items in parallel,
// their sums added in order.
bool windows_lie_whole(const Problem& p) {
  return p.v.groups == 1 && p.v.pad_top + p.v.pad_left + p.v.pad_bottom + p.v.pad_right == 0 && p.outputs >= kNarrow &&
         p.taps * p.inputs <= kRowsInPlace && p.places() >= kPlacesInPlace;
}
void by_rows(Context& ctx, const Problem& p, float* dw) {
  const int64_t rows = p.taps * p.inputs, size = rows * p.outputs, columns = p.x.shape.w * p.inputs;
  std::vector<int64_t> offsets;
  for (int64_t r = 0; r < p.v.kernel_h; ++r)
    for (int64_t s = 0; s < p.v.kernel_w; ++s)
      for (int64_t c = 0; c < p.inputs; ++c) offsets.push_back(r * p.v.dilation_h * columns + s * p.v.dilation_w * p.inputs + c);
  auto* sums = static_cast<float*>(ctx.scratch.reserve(size_t(p.x.shape.n * size) * sizeof(float)));
  const OuterPlaces places{p.dy.shape.h, p.dy.shape.w, p.v.stride_h * columns, p.v.stride_w * p.inputs, p.dy.shape.w * p.outputs, p.outputs};
  parallel_ranges(ctx, p.x.shape.n, p.places() * size / 16, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n)
      outer_sums().windows(p.item_x(n), offsets.data(), rows, p.item_dy(n), p.outputs, places, sums + n * size);
  });
  for (int64_t n = 0; n < p.x.shape.n; ++n)
    for (int64_t tap = 0; tap < p.taps; ++tap)
      for (int64_t c = 0; c < p.inputs; ++c)
        for (int64_t o = 0; o < p.outputs; ++o) *p.weight(dw, o, c, tap) += sums[n * size + (tap * p.inputs + c) * p.outputs + o];
}

// Few tiles save nothing: turning their sums into kernels takes as long. Maps of less than a tile are mostly padding.
constexpr int64_t kFewTiles = 9;
bool worth_winograd(const Context& ctx, const Problem& p, bool whole) {
  const int64_t tiles = ceil_div(p.dy.shape.h, int64_t{4}) * ceil_div(p.dy.shape.w, int64_t{4});
  return ctx.conv != ConvAlgorithm::direct && winograd_fits(p.v, DType::f32) && std::max(p.v.in_channels, p.v.out_channels) <= 512 &&
         std::min(p.dy.shape.h, p.dy.shape.w) >= 4 && (whole || tiles >= kFewTiles);
}
void by_winograd(Context& ctx, const Problem& p, float* dw, bool whole) {
  const Shape x = p.x.shape, dy = p.dy.shape;
  const WinogradWeightsProblem problem{p.x.as<float>(), x.n, x.h, x.w, x.c, p.dy.as<float>(), dy.h, dy.w, dy.c,
                                       p.v.pad_top, p.v.pad_left, dw, whole};
  cpu_features().avx512 ? winograd_weights_avx512(ctx, problem) : winograd_weights_avx2(ctx, problem);
}

}  // namespace

void conv2d_backward_weights(Context& ctx, const Conv2d& conv, ConstView x, ConstView dy, float* dw) {
  check_view("conv2d_backward_weights", "dy", dy, output_shape(conv, x.shape), DType::f32);
  check_view("conv2d_backward_weights", "x", x, x.shape, DType::f32);
  if (ctx.gpu) return ctx.gpu->ops->conv2d_backward_weights(ctx, conv, x, dy, dw);
  const Problem p{conv, x, dy};
  if (worth_winograd(ctx, p, false)) by_winograd(ctx, p, dw, false);
  else if (p.inputs == 1 && p.outputs == 1) by_channels(ctx, p, dw);
  else if (windows_lie_whole(p)) by_rows(ctx, p, dw);
  else if (p.inputs < kNarrow) by_windows(ctx, p, dw);
  else by_taps(ctx, p, dw);
}

void conv2d_backward_weights_whole(Context& ctx, const Conv2d& conv, ConstView x, ConstView dy, float* dw) {
  const Problem p{conv, x, dy};
  if (ctx.gpu || !worth_winograd(ctx, p, true)) return conv2d_backward_weights(ctx, conv, x, dy, dw);
  check_view("conv2d_backward_weights", "dy", dy, output_shape(conv, x.shape), DType::f32);
  check_view("conv2d_backward_weights", "x", x, x.shape, DType::f32);
  by_winograd(ctx, p, dw, true);
}

void linear_backward_weights(Context& ctx, const Linear& linear, ConstView x, ConstView dy, float* dw) {
  conv2d_backward_weights(ctx, conv2d(linear.in_features, linear.out_features, 1), x, dy, dw);
}

void conv_transpose2d_backward_weights(Context& ctx, const ConvTranspose2d& conv, ConstView x, ConstView dy, float* dw) {
  check_view("conv_transpose2d_backward_weights", "dy", dy, output_shape(conv, x.shape), DType::f32);
  conv2d_backward_weights(ctx, mirror_of(conv), dy, x, dw);
}

}  // namespace switchback
