#define SWITCHBACK_MATRIX_PRODUCT matrix_product_avx512
#include "kernels/attention/products.inl"
