// Body of products_avx2.cpp and products_avx512.cpp, which define SWITCHBACK_PADDED_PRODUCT as the function's name.
#include "kernels/attention/products.h"
#include "kernels/linear/products.h"

namespace switchback {

void SWITCHBACK_PADDED_PRODUCT(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_stride, const float* b,
                               int64_t b_stride, float* c, int64_t c_stride, bool accumulate) {
  using namespace simd;
  for (int64_t row = 0; row < m;) {
    const int64_t rows = std::min<int64_t>(kTileRows, m - row);
    multiply_panel(int(rows), n, Rows{a + row * a_stride, a_stride, k}, b, b_stride, c + row * c_stride, c_stride, accumulate);
    row += rows;
  }
}

}  // namespace switchback
