#define SWITCHBACK_IM2COL_FORWARD im2col_forward_avx2
#define SWITCHBACK_IM2COL_BACKWARD im2col_backward_avx2
#include "kernels/conv/conv_im2col.inl"
