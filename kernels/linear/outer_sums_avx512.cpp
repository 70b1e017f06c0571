#define SWITCHBACK_OUTER_SUMS outer_sums_avx512
#include "kernels/linear/outer_sums.inl"
