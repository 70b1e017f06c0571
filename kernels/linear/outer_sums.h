// Sums of outer products over the places of a map: what gradients of weights are made of.
//
//   sums[o][c] += Σ_places a[place][o] · b[place][c]
//
// Each sum is made place by place in row-major order, whatever tile it lies in: neither tiles nor threads nor the
// instruction set show in the results.
#pragma once

#include <cstdint>

namespace switchback {

// rows × columns places; a_row and so on: elements from one to the next.
struct OuterPlaces {
  int64_t rows, columns;
  int64_t a_row, a_column, b_row, b_column;
};
struct OuterSums {
  // sums: [outputs, width], rows `pitch` apart. apart: the places are summed up from 0 and then added, so that long sums
  // have two levels; else they continue what sums holds.
  void (*products)(const float* a, int64_t outputs, const float* b, int64_t width, const OuterPlaces& places, float* sums,
                   int64_t pitch, bool apart);
  // Channel by channel, from 0 and then added: sums[c] += Σ_places a[place][c] · b[place][c].
  void (*channels)(const float* a, const float* b, int64_t width, const OuterPlaces& places, float* sums);
};
extern const OuterSums outer_sums_avx2, outer_sums_avx512;

}  // namespace switchback
