#define SWITCHBACK_WINOGRAD_WEIGHTS winograd_weights_avx2
#define SWITCHBACK_OUTER_SUMS outer_sums_avx2
#include "kernels/conv/winograd_weights.inl"
