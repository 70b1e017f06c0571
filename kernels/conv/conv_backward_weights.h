// Gradients of the weights of convolutions and linear layers, added to what is there:
//
//   dw[o,c,r,s] += sum_{n,p,q} dy[n,o,p,q] · x[n, g·C/G + c, p·stride_h + r·dilation_h - pad_top, q·stride_w + …]
//
// The sum over one item is made first, its places in row-major order, and then added: item after item. (Where items have
// few places, one sum goes through all of them.) So the result depends neither on threads nor on how a batch is split over
// several calls.
#pragma once

#include "kernels/conv/conv.h"
#include "kernels/conv/conv_transpose.h"
#include "kernels/linear/linear.h"

namespace switchback {

// x [n,C,H,W] and dy [n,K,P,Q], f32 -> dw [K, C/groups, kernel_h, kernel_w] (OIHW, as in files), f32.
void conv2d_backward_weights(Context& ctx, const Conv2d& conv, ConstView x, ConstView dy, float* dw);
// The same by the mirror, whose x is dy and whose dy is x: dw [C, K/groups, kernel_h, kernel_w].
void conv_transpose2d_backward_weights(Context& ctx, const ConvTranspose2d& conv, ConstView x, ConstView dy, float* dw);
// x [n,I,1,1] and dy [n,O,1,1] -> dw [O,I].
void linear_backward_weights(Context& ctx, const Linear& linear, ConstView x, ConstView dy, float* dw);

}  // namespace switchback
