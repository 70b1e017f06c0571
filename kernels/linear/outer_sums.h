// Sums of outer products over the places of a map: what gradients of weights are made of.
//
//   sums[o][c] += Σ_places a[place][o] · b[place][c]
//
// Each sum is made place by place in row-major order, whatever tile it lies in: neither tiles nor threads nor the
// instruction set show in the results.
#pragma once

#include <cstdint>

namespace switchback {

// items × rows × columns places; a_row and so on: elements from one to the next.
struct OuterPlaces {
  int64_t rows, columns;
  int64_t a_row, a_column, b_row, b_column;
  int64_t items = 1, a_item = 0, b_item = 0;
};
// Where sums begin: they continue what is there; are made from 0 and then added to it, so that long ones have two levels; or
// are made from 0 and replace it.
enum class OuterStart { goes_on, apart, fresh };
struct OuterSums {
  // sums: [outputs, width], rows `pitch` apart.
  void (*products)(const float* a, int64_t outputs, const float* b, int64_t width, const OuterPlaces& places, float* sums,
                   int64_t pitch, OuterStart start);
  // sums[r][c] = Σ_places a[place + offsets[r]] · b[place][c], for rows of a map's windows that are read where they lie;
  // sums: [rows, width].
  void (*windows)(const float* a, const int64_t* offsets, int64_t rows, const float* b, int64_t width, const OuterPlaces& places,
                  float* sums);
  // Channel by channel, from 0 and then added: sums[c] += Σ_places a[place][c] · b[place][c].
  void (*channels)(const float* a, const float* b, int64_t width, const OuterPlaces& places, float* sums);
};
extern const OuterSums outer_sums_avx2, outer_sums_avx512;

}  // namespace switchback
