// The product behind attention on the CPU, compiled for AVX2 (products_avx2.cpp) and for AVX-512 (products_avx512.cpp) from
// products.inl. Every sum is made in the order of k: both give the same bits.
#pragma once

#include <cstdint>

namespace switchback {

// c[m, 0:n] (+)= a[m, 0:k] · b[k, 0:n], rows a_stride, b_stride and c_stride apart; n is a multiple of 16.
using PaddedProduct = void (*)(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_stride, const float* b,
                               int64_t b_stride, float* c, int64_t c_stride, bool accumulate);
void padded_product_avx2(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                         float* c, int64_t c_stride, bool accumulate);
void padded_product_avx512(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                           float* c, int64_t c_stride, bool accumulate);

inline constexpr int64_t kMatrixColumns = 16;  // widths of padded matrices are multiples of it

}  // namespace switchback
