#define SWITCHBACK_WINOGRAD winograd_avx512
#include "kernels/conv/winograd.inl"
