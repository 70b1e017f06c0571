#define SWITCHBACK_MAX_POOL max_pool_avx2
#include "kernels/max_pool_rows.inl"
