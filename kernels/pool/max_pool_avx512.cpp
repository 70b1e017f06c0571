#define SWITCHBACK_MAX_POOL max_pool_avx512
#include "kernels/pool/max_pool_rows.inl"
