#define SWITCHBACK_PADDED_PRODUCT padded_product_avx512
#include "kernels/attention/products.inl"
