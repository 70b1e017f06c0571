// Body of outer_sums_avx2.cpp and outer_sums_avx512.cpp, which define SWITCHBACK_OUTER_SUMS as the functions' name.
#include "kernels/linear/outer_sums.h"
#include "kernels/vec.h"

namespace switchback {
namespace {

using namespace simd;

constexpr int kRows = kLanes == 16 ? 12 : 6, kVecs = 2;  // 24 of 32 registers hold sums, or 12 of 16

inline Vec load_vec(const float* p, int lanes) { return lanes == kLanes ? load(p) : load_first(p, lanes); }
inline void store_vec(float* p, Vec v, int lanes) {
  if (lanes == kLanes) store(p, v);
  else store_first(p, v, lanes);
}

// Where the rows' values lie behind a place: beside each other, or anywhere.
struct Beside {
  int64_t operator[](int r) const { return r; }
};
using Offsets = const int64_t*;

// R rows and V vectors, the last of them with `lanes` lanes.
template <int R, int V, bool kWhole, typename At>
void tile(const float* a, At from, const float* b, int last_lanes, const OuterPlaces& at, float* sums, int64_t pitch, OuterStart start) {
  const auto lanes = [&](int v) { return kWhole || v + 1 < V ? kLanes : last_lanes; };
  Vec acc[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) acc[r][v] = start == OuterStart::goes_on ? load_vec(sums + r * pitch + v * kLanes, lanes(v)) : zero();
  for (int64_t i = 0, row = 0; i < at.items; row + 1 < at.rows ? ++row : (row = 0, ++i)) {
    const float *pa = a + i * at.a_item + row * at.a_row, *pb = b + i * at.b_item + row * at.b_row;
    for (int64_t column = 0; column < at.columns; ++column, pa += at.a_column, pb += at.b_column) {
      Vec of_b[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) of_b[v] = load_vec(pb + v * kLanes, lanes(v));
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Vec of_a = set1(pa[from[r]]);
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) acc[r][v] = fma(of_a, of_b[v], acc[r][v]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      float* to = sums + r * pitch + v * kLanes;
      store_vec(to, start == OuterStart::apart ? load_vec(to, lanes(v)) + acc[r][v] : acc[r][v], lanes(v));
    }
}

template <int R, typename At>
void rows(const float* a, At from, const float* b, int64_t width, const OuterPlaces& at, float* sums, int64_t pitch, OuterStart start) {
  int64_t c = 0;
  for (; c + kVecs * kLanes <= width; c += kVecs * kLanes) tile<R, kVecs, true>(a, from, b + c, kLanes, at, sums + c, pitch, start);
  const int left = int(width - c);
  if (left > kLanes) tile<R, 2, false>(a, from, b + c, left - kLanes, at, sums + c, pitch, start);
  else if (left == kLanes) tile<R, 1, true>(a, from, b + c, kLanes, at, sums + c, pitch, start);
  else if (left > 0) tile<R, 1, false>(a, from, b + c, left, at, sums + c, pitch, start);
}

template <int R>
int64_t while_they_fit(int64_t o, const float* a, int64_t outputs, const float* b, int64_t width, const OuterPlaces& at,
                       float* sums, int64_t pitch, OuterStart start) {
  for (; o + R <= outputs; o += R) rows<R>(a + o, Beside{}, b, width, at, sums + o * pitch, pitch, start);
  return o;
}

void products(const float* a, int64_t outputs, const float* b, int64_t width, const OuterPlaces& at, float* sums,
              int64_t pitch, OuterStart start) {
  int64_t o = 0;
  if constexpr (kRows > 8)  // one vector leaves room for more rows
    if (width <= kLanes) o = while_they_fit<16>(o, a, outputs, b, width, at, sums, pitch, start);
  o = while_they_fit<kRows>(o, a, outputs, b, width, at, sums, pitch, start);
  if constexpr (kRows > 8) o = while_they_fit<8>(o, a, outputs, b, width, at, sums, pitch, start);
  o = while_they_fit<4>(o, a, outputs, b, width, at, sums, pitch, start);
  o = while_they_fit<2>(o, a, outputs, b, width, at, sums, pitch, start);
  while_they_fit<1>(o, a, outputs, b, width, at, sums, pitch, start);
}

// Up to kRows rows.
template <int R>
void some_rows(int64_t count, const float* a, Offsets from, const float* b, int64_t width, const OuterPlaces& at, float* sums) {
  if constexpr (R > 1)
    if (count < R) return some_rows<R - 1>(count, a, from, b, width, at, sums);
  rows<R>(a, from, b, width, at, sums, width, OuterStart::fresh);
}

void windows(const float* a, const int64_t* offsets, int64_t rows, const float* b, int64_t width, const OuterPlaces& at, float* sums) {
  for (int64_t r = 0, parts = (rows + kRows - 1) / kRows; parts > 0; --parts) {  // about equal ones
    const int64_t some = (rows - r + parts - 1) / parts;
    some_rows<kRows>(some, a, offsets + r, b, width, at, sums + r * width);
    r += some;
  }
}

void channels(const float* a, const float* b, int64_t width, const OuterPlaces& at, float* sums) {
  for (int64_t c = 0; c < width; c += kLanes) {
    const int lanes = width - c < kLanes ? int(width - c) : kLanes;
    Vec acc = zero();
    for (int64_t row = 0; row < at.rows; ++row)
      for (int64_t column = 0; column < at.columns; ++column)
        acc = fma(load_vec(a + row * at.a_row + column * at.a_column + c, lanes),
                  load_vec(b + row * at.b_row + column * at.b_column + c, lanes), acc);
    store_vec(sums + c, load_vec(sums + c, lanes) + acc, lanes);
  }
}

}  // namespace

extern const OuterSums SWITCHBACK_OUTER_SUMS;
const OuterSums SWITCHBACK_OUTER_SUMS = {products, windows, channels};

}  // namespace switchback
