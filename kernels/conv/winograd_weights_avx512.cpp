#define SWITCHBACK_WINOGRAD_WEIGHTS winograd_weights_avx512
#define SWITCHBACK_OUTER_SUMS outer_sums_avx512
#include "kernels/conv/winograd_weights.inl"
