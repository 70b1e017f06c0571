#include "kernels/frozen/frozen.h"

#include <cstring>

#include "kernels/device/device_ops.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"
#include "kernels/sliding.h"

namespace switchback {
namespace {

// Four doubles each: the running sums of eight lanes of g·weight, and of its absolute value, which needs no precision.
struct Lanes {
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
  F8 magnitude = _mm256_setzero_ps();
  SB_INLINE void add(F8 g, F8 weight) {
    const auto lower = [](F8 v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); };
    const auto upper = [](F8 v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); };
    low = _mm256_fmadd_pd(lower(g), lower(weight), low);
    high = _mm256_fmadd_pd(upper(g), upper(weight), high);
    const F8 product = _mm256_mul_ps(g, weight);
    magnitude = _mm256_add_ps(magnitude, _mm256_andnot_ps(_mm256_set1_ps(-0.f), product));
  }
  OffsetSum total() const {
    alignas(32) double sums[4];
    alignas(32) float sizes[8];
    _mm256_store_pd(sums, _mm256_add_pd(low, high));
    _mm256_store_ps(sizes, magnitude);
    OffsetSum out{sums[0] + sums[1] + sums[2] + sums[3], 0};
    for (float s : sizes) out.magnitude += double(s);
    return out;
  }
};

// Adds up `weight(word index of the pixel's group, v, first channel, lanes)` times dy. Items are cut into pieces of a
// fixed number of pixels, so that neither threads nor the batch show in the sums.
template <typename T, typename Weight>
void add_offsets(Context& ctx, ConstView dy, const Weight& weight, OffsetSum* sums) {
  const Shape s = dy.shape;
  const int64_t places = s.h * s.w, piece = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, s.c));
  const int64_t pieces = (places + piece - 1) / piece;
  auto* parts = static_cast<OffsetSum*>(ctx.scratch.reserve(size_t(s.n * pieces) * sizeof(OffsetSum)));
  parallel_ranges(ctx, s.n * pieces, std::min(piece, places) * s.c, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t item = i / pieces, begin = i % pieces * piece, end = std::min(places, begin + piece);
      Lanes lanes;
      for (int64_t p = begin; p < end; ++p) {
        const T* g = dy.as<T>() + (item * places + p) * s.c;
        for (int64_t c = 0; c < s.c; c += 8) {
          const int live = int(std::min<int64_t>(8, s.c - c));
          lanes.add(load8(g + c, live), weight(item, p, c, live));
        }
      }
      parts[i] = lanes.total();
    }
  });
  for (int64_t item = 0; item < s.n; ++item)
    for (int64_t k = 0; k < pieces; ++k) {
      sums[item].sum += parts[item * pieces + k].sum;
      sums[item].magnitude += parts[item * pieces + k].magnitude;
    }
}

}  // namespace

void add_constant_offset(Context& ctx, ConstView dy, ConstView constant, OffsetSum* sums) {
  const Shape s = dy.shape, k = constant.shape;
  CHECK(constant.dtype == DType::f32 && k.n == 1 && (k.c == 1 || k.c == s.c) && (k.h == 1 || k.h == s.h) &&
            (k.w == 1 || k.w == s.w),
        "offset: a constant [{},{},{},{}] for a gradient [{},{},{},{}]", k.n, k.c, k.h, k.w, s.n, s.c, s.h, s.w);
  if (s.count() == 0) return;
  if (ctx.gpu) return ctx.gpu->ops->add_constant_offset(ctx, dy, constant, sums);
  const float* values = constant.as<float>();
  with_type(dy.dtype, "add_constant_offset", [&](auto type) {
    using T = decltype(type);
    if (k.h == 1 && k.w == 1 && k.c == s.c)
      return add_offsets<T>(
          ctx, dy, [&](int64_t, int64_t, int64_t c, int live) SB_LAMBDA { return load8(values + c, live); }, sums);
    const int64_t row = k.h == 1 ? 0 : k.w * k.c, column = k.w == 1 ? 0 : k.c;
    add_offsets<T>(
        ctx, dy,
        [&](int64_t, int64_t p, int64_t c, int live) SB_LAMBDA {
          const float* at = values + p / s.w * row + p % s.w * column;
          return k.c == 1 ? _mm256_set1_ps(*at) : load8(at + c, live);
        },
        sums);
  });
}

namespace {

// Eight units' constants by the state of their gates; a state that no unit is in may have an infinite one.
class GateTable {
 public:
  GateTable(const uint32_t* gates, const uint32_t* above, const GateConstants& constants)
      : gates_(gates), above_(above), inside_(_mm256_set1_ps(constants.inside)),
        over_(_mm256_set1_ps(constants.above)), under_(_mm256_set1_ps(constants.below)) {}
  SB_INLINE F8 on(int64_t word, int64_t c) const { return expand_gates(gates_[word + c / 32], int(c % 32 / 8)); }
  SB_INLINE F8 constants(int64_t word, int64_t c) const {
    const F8 rest = above_ ? _mm256_blendv_ps(under_, over_, expand_gates(above_[word + c / 32], int(c % 32 / 8))) : under_;
    return _mm256_blendv_ps(rest, inside_, on(word, c));
  }

 private:
  const uint32_t *gates_, *above_;
  F8 inside_, over_, under_;
};

}  // namespace

void add_gate_offset(Context& ctx, ConstView dy, const uint32_t* gates, const uint32_t* above, int64_t seeds_per_item,
                     const GateConstants& constants, OffsetSum* sums) {
  CHECK(gates && seeds_per_item >= 1, "add_gate_offset: gates are needed, and at least one seed for an item");
  if (dy.shape.count() == 0) return;
  if (ctx.gpu) return ctx.gpu->ops->add_gate_offset(ctx, dy, gates, above, seeds_per_item, constants, sums);
  const int64_t places = dy.shape.h * dy.shape.w, words = gate_words_per_pixel(dy.shape.c);
  const GateTable table(gates, above, constants);
  with_type(dy.dtype, "add_gate_offset", [&](auto type) {
    add_offsets<decltype(type)>(
        ctx, dy,
        [&](int64_t item, int64_t p, int64_t c, int live) SB_LAMBDA {
          const F8 values = table.constants((item / seeds_per_item * places + p) * words, c);
          return _mm256_and_ps(values, _mm256_castsi256_ps(first_lanes(live)));
        },
        sums);
  });
}

void frozen_gates_forward(Context& ctx, ConstView x, const uint32_t* gates, const uint32_t* above, float scale,
                          const GateConstants& constants, int64_t items_per_tape_item, View y) {
  CHECK(x.shape == y.shape && x.dtype == y.dtype, "frozen gates: input and output differ in shape or type");
  CHECK(gates && items_per_tape_item >= 1, "frozen gates: gates are needed, and at least one item for each of the tape's");
  if (ctx.gpu) return ctx.gpu->ops->frozen_gates_forward(ctx, x, gates, above, scale, constants, items_per_tape_item, y);
  const Shape s = x.shape;
  const int64_t places = s.h * s.w, words = gate_words_per_pixel(s.c);
  const GateTable table(gates, above, constants);
  with_type(x.dtype, "frozen gates", [&](auto type) {
    using T = decltype(type);
    parallel_ranges(ctx, s.pixels(), s.c, [&](int64_t first, int64_t last) {
      for (int64_t pixel = first; pixel < last; ++pixel) {
        const int64_t word = (pixel / places / items_per_tape_item * places + pixel % places) * words;
        for (int64_t c = 0; c < s.c; c += 8) {
          const int live = int(std::min<int64_t>(8, s.c - c));
          const F8 in = _mm256_and_ps(load8(x.as<T>() + pixel * s.c + c, live), table.on(word, c));
          store8(y.as<T>() + pixel * s.c + c, _mm256_fmadd_ps(_mm256_set1_ps(scale), in, table.constants(word, c)), live);
        }
      }
    });
  });
}

namespace {

template <typename T, typename Switch>
void pick_winners(Context& ctx, const MaxPool2d& pool, ConstView x, const Switch* switches, int64_t items_per_tape_item,
                  View y) {
  const Shape in = x.shape, out = y.shape;
  const SlidingAxis rows = sliding_rows(pool), columns = sliding_columns(pool);
  parallel_ranges(ctx, out.n * out.h, out.w * out.c, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const int64_t item = r / out.h, i = r % out.h;
      const Switch* names = switches + (item / items_per_tape_item * out.h + i) * out.w * out.c;
      T* to = y.as<T>() + r * out.w * out.c;
      for (int64_t e = 0; e < out.w * out.c; ++e) {
        const int64_t h = rows.input(i, names[e] / pool.kernel_w), w = columns.input(e / out.c, names[e] % pool.kernel_w);
        const bool inside = h >= 0 && h < in.h && w >= 0 && w < in.w;
        to[e] = inside ? x.as<T>()[((item * in.h + h) * in.w + w) * in.c + e % out.c] : T(0.f);
      }
    }
  });
}

}  // namespace

void frozen_max_pool2d_forward(Context& ctx, const MaxPool2d& pool, ConstView x, const void* switches,
                               int64_t items_per_tape_item, View y) {
  const Shape want = output_shape(pool, x.shape);
  CHECK(y.shape == want && x.dtype == y.dtype, "frozen max pool: output is [{},{},{},{}], must be [{},{},{},{}]",
        y.shape.n, y.shape.c, y.shape.h, y.shape.w, want.n, want.c, want.h, want.w);
  CHECK(switches && items_per_tape_item >= 1, "frozen max pool: there are no switches");
  if (ctx.gpu) return ctx.gpu->ops->frozen_max_pool2d_forward(ctx, pool, x, switches, items_per_tape_item, y);
  with_type(x.dtype, "frozen max pool", [&](auto type) {
    using T = decltype(type);
    if (pool.switch_bytes() == 1)
      pick_winners<T>(ctx, pool, x, static_cast<const uint8_t*>(switches), items_per_tape_item, y);
    else
      pick_winners<T>(ctx, pool, x, static_cast<const uint16_t*>(switches), items_per_tape_item, y);
  });
}

void cut_out(Context& ctx, const CutOut& s, const void* from, const Corner* corners, int64_t count, void* to) {
  if (count == 0 || s.height == 0 || s.width == 0) return;
  if (ctx.gpu) return ctx.gpu->ops->cut_out(ctx, s, from, corners, count, to);
  const size_t row_bytes = size_t(s.width * s.pixel_bytes);
  parallel_ranges(ctx, count * s.height, s.width * s.pixel_bytes / 4, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const Corner& corner = corners[r / s.height];
      const int64_t row = corner.item * s.map_height + corner.row + r % s.height;
      std::memcpy(static_cast<char*>(to) + size_t(r) * row_bytes,
                  static_cast<const char*>(from) + size_t((row * s.map_width + corner.column) * s.pixel_bytes), row_bytes);
    }
  });
}

}  // namespace switchback
