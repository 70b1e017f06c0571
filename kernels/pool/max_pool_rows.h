// Max pooling of f32 maps row by row, forward and backward: compiled for AVX2 (max_pool_avx2.cpp) and for AVX-512
// (max_pool_avx512.cpp) from max_pool_rows.inl. Both give the bits and switches of the plain loops in max_pool.cpp,
// which serve all else. Offsets are in values, of switches of one byte too.
#pragma once

#include <cstdint>

namespace switchback {

// The columns of one output pixel's window. One that lies outside is read as its neighbour inside: a value that is met
// a second time changes neither the maximum nor which is the first (or for NaN the last) of the winners.
struct WindowColumn {
  int64_t offset[3];  // from the start of an input row
  uint8_t place[3];   // which columns of the window are read
};

// One row of output pixels of KxK windows, K = 2 or 3.
struct MaxPoolRow {
  const float* input[3];   // the rows of the windows, likewise inside
  uint8_t place[3];        // of their first columns: K·row
  const WindowColumn* columns;
  int64_t width, channels;  // of the output
  float* y;
  uint8_t* switches;  // or null
};

// An output row or column that covers a given one of the input.
struct PoolCover {
  int64_t offset;
  int place;  // what it adds to the place in the window
};

// One row of dx. The sum at each place runs over the rows' covers, and for each over the columns', in their order.
struct MaxUnpoolRow {
  const float* dy;  // of the item
  const uint8_t* switches;
  const PoolCover *rows, *rows_end;
  const PoolCover* columns;
  const int64_t* first_column;  // the covers of column j are [first_column[j], first_column[j + 1])
  int64_t width, channels;      // of dx
  float* dx;
  const float* other;     // of this row, or null
  const uint32_t* gates;  // likewise
  bool positive_only;     // multiply with [g > 0]
};

struct MaxPoolKernels {
  void (*pool2)(const MaxPoolRow&);
  void (*pool3)(const MaxPoolRow&);
  void (*unpool)(const MaxUnpoolRow&);
};
extern const MaxPoolKernels max_pool_avx2, max_pool_avx512;

}  // namespace switchback
