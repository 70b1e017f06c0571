// Body of max_pool_avx2.cpp and max_pool_avx512.cpp, which define SWITCHBACK_MAX_POOL as the kernels' name.
#include <cstring>

#include "kernels/pool/max_pool_rows.h"
#include "kernels/vec.h"

namespace switchback {
namespace {

using namespace simd;

// The winner of N values (winner.h), lane by lane, and which of them it is. Without kNan it is right only where
// all_numbers().
template <int N, bool kSlots, bool kNan>
struct FirstMaximum {
#if defined(__AVX512F__)
  __m512 best;
  __m512i slot = _mm512_setzero_si512();
  __mmask16 numbers = 0xffff;
  template <typename Load>
  inline explicit FirstMaximum(const Load& load_value) {
    __m512 last = best = load_value(0).v;
#pragma GCC unroll 8
    for (int i = 1; i < N; ++i) {
      const __m512 value = load_value(i).v;
      if (i % 2 == 1 || i + 1 == N) numbers = _mm512_mask_cmp_ps_mask(numbers, last, value, _CMP_ORD_Q);
      __mmask16 wins = _mm512_cmp_ps_mask(value, best, _CMP_GT_OQ);
      if constexpr (kNan) wins |= _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
      if constexpr (kSlots) slot = _mm512_mask_mov_epi32(slot, wins, _mm512_set1_epi32(i));
      if constexpr (kNan) best = _mm512_mask_mov_ps(best, wins, value);
      else best = _mm512_max_ps(value, best);  // of equals the second: 0 and -0 are equal
      last = value;
    }
  }
  bool all_numbers() const { return numbers == 0xffff; }
  void put_places(__m128i places, uint8_t* to, int lanes) const {
    const __m128i found = _mm_shuffle_epi8(places, _mm512_cvtepi32_epi8(slot));
    if (lanes == kLanes) _mm_storeu_si128(reinterpret_cast<__m128i*>(to), found);
    else _mm_mask_storeu_epi8(to, __mmask16((1u << lanes) - 1), found);
  }
#else
  __m256 best;
  __m256i slot = _mm256_setzero_si256();
  __m256 numbers;
  template <typename Load>
  inline explicit FirstMaximum(const Load& load_value) {
    __m256 last = best = load_value(0).v;
    numbers = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
#pragma GCC unroll 8
    for (int i = 1; i < N; ++i) {
      const __m256 value = load_value(i).v;
      if (i % 2 == 1 || i + 1 == N) numbers = _mm256_and_ps(numbers, _mm256_cmp_ps(last, value, _CMP_ORD_Q));
      __m256 wins = _mm256_cmp_ps(value, best, _CMP_GT_OQ);
      if constexpr (kNan) wins = _mm256_or_ps(wins, _mm256_cmp_ps(value, value, _CMP_UNORD_Q));
      if constexpr (kSlots) slot = _mm256_blendv_epi8(slot, _mm256_set1_epi32(i), _mm256_castps_si256(wins));
      if constexpr (kNan) best = _mm256_blendv_ps(best, value, wins);
      else best = _mm256_max_ps(value, best);  // of equals the second: 0 and -0 are equal
      last = value;
    }
  }
  bool all_numbers() const { return _mm256_movemask_ps(numbers) == 0xff; }
  void put_places(__m128i places, uint8_t* to, int lanes) const {
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(slot), _mm256_extracti128_si256(slot, 1));
    const __m128i found = _mm_shuffle_epi8(places, _mm_packus_epi16(words, words));
    alignas(16) uint8_t bytes[16];
    if (lanes == kLanes) return _mm_storel_epi64(reinterpret_cast<__m128i*>(to), found);
    _mm_store_si128(reinterpret_cast<__m128i*>(bytes), found);
    std::memcpy(to, bytes, size_t(lanes));
  }
#endif
};

// One output pixel: its window's columns at their first channels, and the places that these are.
template <int K>
struct WindowOf {
  const float* at[K * K];
  alignas(16) uint8_t place[16] = {};

  WindowOf(const MaxPoolRow& row, const WindowColumn& column) {
    for (int i = 0; i < K; ++i)
      for (int j = 0; j < K; ++j) {
        at[K * i + j] = row.input[i] + column.offset[j];
        place[K * i + j] = uint8_t(row.place[i] + column.place[j]);
      }
  }
};

template <int K, bool kSwitches, bool kNan>
inline bool pool_channels(const WindowOf<K>& window, int64_t c, int lanes, float* y, uint8_t* switches) {
  const bool whole = lanes == kLanes;
  const FirstMaximum<K * K, kSwitches, kNan> found(
      [&](int i) { return whole ? load(window.at[i] + c) : load_first(window.at[i] + c, lanes); });
  if (!kNan && !found.all_numbers()) return false;
  if (whole) store(y + c, {found.best});
  else store_first(y + c, {found.best}, lanes);
  if constexpr (kSwitches)
    found.put_places(_mm_load_si128(reinterpret_cast<const __m128i*>(window.place)), switches + c, lanes);
  return true;
}

template <int K, bool kSwitches>
[[gnu::noinline]] void pool_nan(const WindowOf<K>& window, int64_t c, int lanes, float* y, uint8_t* switches) {
  pool_channels<K, kSwitches, true>(window, c, lanes, y, switches);
}

template <int K, bool kSwitches>
void pool_row(const MaxPoolRow& row) {
  float* y = row.y;
  uint8_t* switches = row.switches;
  for (int64_t q = 0; q < row.width; ++q) {
    const WindowOf<K> window(row, row.columns[q]);
    const auto pool_lanes = [&](int64_t c, int lanes) {
      if (!pool_channels<K, kSwitches, false>(window, c, lanes, y, switches))
        pool_nan<K, kSwitches>(window, c, lanes, y, switches);
    };
    int64_t c = 0;
    for (; c + kLanes <= row.channels; c += kLanes) pool_lanes(c, kLanes);
    if (c < row.channels) pool_lanes(c, int(row.channels - c));
    y += row.channels;
    if (kSwitches) switches += row.channels;
  }
}

template <int K>
void pool(const MaxPoolRow& row) {
  row.switches ? pool_row<K, true>(row) : pool_row<K, false>(row);
}

// sum += dy where the switch is `place`, for V vectors of channels. A sum is never -0: it starts at 0.
#if defined(__AVX512F__)
template <int V>
inline void add_selected(const float* dy, const uint8_t* switches, int place, Vec (&sum)[V]) {
  uint64_t hits;
  if constexpr (V == 4)
    hits = _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(switches), _mm512_set1_epi8(char(place)));
  else
    hits = _mm_cmpeq_epi8_mask(_mm_loadu_si128(reinterpret_cast<const __m128i*>(switches)), _mm_set1_epi8(char(place)));
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v)
    sum[v].v = _mm512_mask_add_ps(sum[v].v, __mmask16(hits >> (16 * v)), sum[v].v, load(dy + 16 * v).v);
}
inline void add_selected(const float* dy, const uint8_t* switches, int place, int lanes, Vec& sum) {
  const __mmask16 there = __mmask16((1u << lanes) - 1);
  const __m128i bytes = _mm_maskz_loadu_epi8(there, switches);
  const __mmask16 hits = _mm_mask_cmpeq_epi8_mask(there, bytes, _mm_set1_epi8(char(place)));
  sum.v = _mm512_mask_add_ps(sum.v, hits, sum.v, _mm512_maskz_loadu_ps(there, dy));
}
#else
inline __m256 where(__m128i switches, int place) {
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_cvtepu8_epi32(switches), _mm256_set1_epi32(place)));
}
template <int V>
inline void add_selected(const float* dy, const uint8_t* switches, int place, Vec (&sum)[V]) {
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(switches + 8 * v));
    sum[v] = sum[v] + Vec{_mm256_and_ps(load(dy + 8 * v).v, where(bytes, place))};
  }
}
inline void add_selected(const float* dy, const uint8_t* switches, int place, int lanes, Vec& sum) {
  alignas(16) uint8_t bytes[16] = {};
  std::memcpy(bytes, switches, size_t(lanes));
  const __m256 hits = where(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes)), place);
  sum = sum + Vec{_mm256_and_ps(load_first(dy, lanes).v, hits)};
}
#endif

// One pixel of dx: the covers of its column, and the epilogue.
struct Unpool {
  const MaxUnpoolRow& row;
  const PoolCover *columns, *columns_end;
  int64_t pixel;

  template <typename Add>
  inline void each_cover(const Add& add) const {
    for (const PoolCover* r = row.rows; r < row.rows_end; ++r)
      for (const PoolCover* q = columns; q < columns_end; ++q) add(r->offset + q->offset, r->place + q->place);
  }
  inline Vec finish(Vec g, int64_t c, int lanes) const {
    const bool whole = lanes == kLanes;
    const float* other = row.other + pixel * row.channels + c;
    if (row.other) g = g + (whole ? load(other) : load_first(other, lanes));
    if (row.positive_only) g = keep(g, greater(g, zero()));
    if (row.gates) g = keep(g, get_bits(row.gates + pixel * ((row.channels + 31) / 32), c));
    return g;
  }
  template <int V>
  inline void whole_vectors(int64_t c) const {
    Vec sum[V];
    for (Vec& s : sum) s = zero();
    each_cover([&](int64_t at, int place) { add_selected<V>(row.dy + at + c, row.switches + at + c, place, sum); });
    float* dx = row.dx + pixel * row.channels;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(dx + c + v * kLanes, finish(sum[v], c + v * kLanes, kLanes));
  }
  inline void part(int64_t c, int lanes) const {
    Vec sum = zero();
    each_cover([&](int64_t at, int place) { add_selected(row.dy + at + c, row.switches + at + c, place, lanes, sum); });
    store_first(row.dx + pixel * row.channels + c, finish(sum, c, lanes), lanes);
  }
};

void unpool(const MaxUnpoolRow& row) {
  for (int64_t j = 0; j < row.width; ++j) {
    const Unpool at{row, row.columns + row.first_column[j], row.columns + row.first_column[j + 1], j};
    int64_t c = 0;
    for (; c + 4 * kLanes <= row.channels; c += 4 * kLanes) at.whole_vectors<4>(c);
    for (; c + kLanes <= row.channels; c += kLanes) at.whole_vectors<1>(c);
    if (c < row.channels) at.part(c, int(row.channels - c));
  }
}

}  // namespace

const MaxPoolKernels SWITCHBACK_MAX_POOL = {pool<2>, pool<3>, unpool};

}  // namespace switchback
