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

// R rows and V vectors, the last of them with `lanes` lanes.
template <int R, int V, bool kWhole>
void tile(const float* a, const float* b, int last_lanes, const OuterPlaces& at, float* sums, int64_t pitch, bool apart) {
  const auto lanes = [&](int v) { return kWhole || v + 1 < V ? kLanes : last_lanes; };
  Vec acc[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) acc[r][v] = apart ? zero() : load_vec(sums + r * pitch + v * kLanes, lanes(v));
  for (int64_t row = 0; row < at.rows; ++row) {
    const float *pa = a + row * at.a_row, *pb = b + row * at.b_row;
    for (int64_t column = 0; column < at.columns; ++column, pa += at.a_column, pb += at.b_column) {
      Vec of_b[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) of_b[v] = load_vec(pb + v * kLanes, lanes(v));
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const Vec of_a = set1(pa[r]);
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) acc[r][v] = fma(of_a, of_b[v], acc[r][v]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      float* to = sums + r * pitch + v * kLanes;
      store_vec(to, apart ? load_vec(to, lanes(v)) + acc[r][v] : acc[r][v], lanes(v));
    }
}

template <int R>
void rows(const float* a, const float* b, int64_t width, const OuterPlaces& at, float* sums, int64_t pitch, bool apart) {
  int64_t c = 0;
  for (; c + kVecs * kLanes <= width; c += kVecs * kLanes) tile<R, kVecs, true>(a, b + c, kLanes, at, sums + c, pitch, apart);
  const int left = int(width - c);
  if (left > kLanes) tile<R, 2, false>(a, b + c, left - kLanes, at, sums + c, pitch, apart);
  else if (left == kLanes) tile<R, 1, true>(a, b + c, kLanes, at, sums + c, pitch, apart);
  else if (left > 0) tile<R, 1, false>(a, b + c, left, at, sums + c, pitch, apart);
}

template <int R>
int64_t while_they_fit(int64_t o, const float* a, int64_t outputs, const float* b, int64_t width, const OuterPlaces& at,
                       float* sums, int64_t pitch, bool apart) {
  for (; o + R <= outputs; o += R) rows<R>(a + o, b, width, at, sums + o * pitch, pitch, apart);
  return o;
}

void products(const float* a, int64_t outputs, const float* b, int64_t width, const OuterPlaces& at, float* sums,
              int64_t pitch, bool apart) {
  int64_t o = while_they_fit<kRows>(0, a, outputs, b, width, at, sums, pitch, apart);
  o = while_they_fit<4>(o, a, outputs, b, width, at, sums, pitch, apart);
  o = while_they_fit<2>(o, a, outputs, b, width, at, sums, pitch, apart);
  while_they_fit<1>(o, a, outputs, b, width, at, sums, pitch, apart);
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
const OuterSums SWITCHBACK_OUTER_SUMS = {products, channels};

}  // namespace switchback
