// Small matrices of floats in scratch memory, as products.h wants them: rows padded with zeros to whole vectors.
#pragma once

#include <vector>

#include "kernels/attention/products.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"

namespace switchback {

inline PaddedProduct padded_product() { return cpu_features().avx512 ? padded_product_avx512 : padded_product_avx2; }

struct Matrix {
  int64_t rows = 0, columns = 0, stride = 0;
  std::vector<float> values;  // columns behind the last one are 0
  void resize(int64_t new_rows, int64_t new_columns) {
    rows = new_rows, columns = new_columns;
    stride = (columns + kMatrixColumns - 1) / kMatrixColumns * kMatrixColumns;
    values.assign(size_t(rows * stride), 0.f);
  }
  float* row(int64_t i) { return values.data() + i * stride; }
  const float* row(int64_t i) const { return values.data() + i * stride; }
};

// Rows of `columns` elements that lie side by side.
template <typename T>
void read_rows(const T* from, int64_t rows, int64_t columns, Matrix& to) {
  to.resize(rows, columns);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; j += 8) {
      const int lanes = int(std::min<int64_t>(8, columns - j));
      store8(to.row(i) + j, load8(from + i * columns + j, lanes), lanes);
    }
}
template <typename T>
void read_transposed(const T* from, int64_t rows, int64_t columns, Matrix& to) {
  to.resize(columns, rows);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) to.row(j)[i] = float(from[i * columns + j]);
}
inline void transpose_rows(const Matrix& from, Matrix& to) {
  to.resize(from.columns, from.rows);
  for (int64_t i = 0; i < from.rows; ++i)
    for (int64_t j = 0; j < from.columns; ++j) to.row(j)[i] = from.row(i)[j];
}
// c (+)= a · b
inline void multiply(const Matrix& a, const Matrix& b, Matrix& c, bool accumulate = false) {
  if (!accumulate) c.resize(a.rows, b.columns);
  padded_product()(a.rows, b.stride, a.columns, a.values.data(), a.stride, b.values.data(), b.stride, c.values.data(), c.stride,
                   accumulate);
}

// Rows of a result, from pixel `pixel` on; kept_pixel: that of the tape.
template <typename T>
void write_rows(const ForwardTarget<T>& target, const Matrix& m, int64_t pixel) {
  const int64_t words = gate_words_per_pixel(m.columns);
  for (int64_t i = 0; i < m.rows; ++i)
    for (int64_t c = 0; c < m.columns; c += 32)
      target.write_group((pixel + i) * m.columns + c, (pixel + i) * words + c / 32, m.columns - c,
                         [&](int v, int lanes) SB_LAMBDA { return load8(m.row(i) + c + 8 * v, lanes); });
}
template <typename T>
void write_rows(const BackwardTarget<T>& target, const Matrix& m, int64_t pixel, int64_t kept_pixel) {
  const int64_t words = gate_words_per_pixel(m.columns);
  for (int64_t i = 0; i < m.rows; ++i)
    for (int64_t c = 0; c < m.columns; c += 32)
      target.write_group((pixel + i) * m.columns + c, (kept_pixel + i) * words + c / 32, m.columns - c,
                         [&](int v, int lanes) SB_LAMBDA { return load8(m.row(i) + c + 8 * v, lanes); });
}

}  // namespace switchback
