#define SWITCHBACK_MAX_POOL max_pool_avx2
#include "kernels/pool/max_pool_rows.inl"
