#define SWITCHBACK_MATRIX_PRODUCT matrix_product_avx2
#include "kernels/attention/products.inl"
