#define SWITCHBACK_IM2COL_WINDOWS im2col_windows_avx512
#define SWITCHBACK_IM2COL_PATCHES im2col_patches_avx512
#include "kernels/conv/conv_im2col.inl"
