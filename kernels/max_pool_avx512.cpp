#define SWITCHBACK_MAX_POOL max_pool_avx512
#include "kernels/max_pool_rows.inl"
