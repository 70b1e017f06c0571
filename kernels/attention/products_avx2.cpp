#define SWITCHBACK_PADDED_PRODUCT padded_product_avx2
#include "kernels/attention/products.inl"
