// From what is optimised to what the network sees: an image's Fourier coefficients, its colours, its place. f32; all
// pointers are the context's device's.
#pragma once

#include <cstdint>

#include "kernels/device/context.h"
#include "kernels/types.h"

namespace switchback {

// y[n,i,j] = x at row m0·i + m1·j + m2 and column m3·i + m4·j + m5, bilinear between places; `fill` [c] beyond the border.
// maps: six numbers an item of y. y may hold several items for each of x, side by side. Backward is the transposed map, as
// a gather, of one item of dy after the other; `add`: to what is there, so that items may come in several calls.
void affine_forward(Context& ctx, const float* maps, const float* fill, ConstView x, View y);
void affine_backward(Context& ctx, const float* maps, ConstView dy, View dx, bool add = false);

// y[n,2,count] = magnitude·cos(phase), magnitude·sin(phase) of phase [n,count], and the way back.
void polar_forward(Context& ctx, const float* magnitude, int64_t n, int64_t count, const float* phase, float* y);
void polar_backward(Context& ctx, const float* magnitude, int64_t n, int64_t count, const float* phase, const float* dy,
                    float* dphase);

// y_k = scale_k·f(Σ_d matrix_kd·z_d) + offset_k, f the sigmoid or nothing. matrix [c,c] (null: channels
// by themselves), scale, offset [c].
struct Colours {
  const float *matrix = nullptr, *scale = nullptr, *offset = nullptr;
  bool sigmoid = false;
};
// z: as y, NHWC, or with `rows` [n,h,c,w] (z.shape is logical in both cases).
void colours_forward(Context& ctx, const Colours& colours, bool rows, ConstView z, View y);
void colours_backward(Context& ctx, const Colours& colours, bool rows, ConstView z, ConstView dy, View dz);

// c = a·b, or c += a·b: row-major a [m,k], b [k,n], c [m,n], `batch` of them; a_step, b_step, c_step elements apart (0: the
// same one for all). Fourier transforms of any size are such products (viz/methods/parametrisation.h).
struct MatrixProduct {
  int64_t batch = 1, m = 0, n = 0, k = 0;
  int64_t a_step = 0, b_step = 0, c_step = 0;
  bool add = false;
};
void matrix_product(Context& ctx, const MatrixProduct& p, const float* a, const float* b, float* c);

}  // namespace switchback
