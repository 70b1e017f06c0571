#define SWITCHBACK_WINOGRAD winograd_avx2
#include "kernels/conv/winograd.inl"
