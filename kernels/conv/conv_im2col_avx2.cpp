#define SWITCHBACK_IM2COL_WINDOWS im2col_windows_avx2
#define SWITCHBACK_IM2COL_PATCHES im2col_patches_avx2
#include "kernels/conv/conv_im2col.inl"
