// Planes of their Fourier coefficients, of any size, and the way back (the adjoint). f32; all pointers are the context's
// device's.
//
//   y[k,j] = scale/(h·w) · Σ_u Σ_v twice_v · Re((re + i·im)[u,v]·e^(2πi·(u·k/h + v·j/w)))       v < f = w/2 + 1
//
// twice_v is 1 at v = 0 and, where w is even, at w/2, else 2. So y = scale·torch.fft.irfft2. On the CPU by mixed radices, eight
// lines at once; on a GPU by products with tables of sines.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device/context.h"

namespace switchback {

class InverseFourier {
 public:
  InverseFourier(Context& ctx, int64_t h, int64_t w, int64_t c, double scale = 1);
  int64_t frequencies() const { return f_; }
  int64_t item() const { return 2 * h_ * c_ * f_; }  // numbers of an image's coefficients

  // coefficients [n, 2 (re, im), h, c, f], each multiplied by its factor (of one item; null: 1) first; planes [n,h,c,w].
  void forward(const float* factors, int64_t n, const float* coefficients, float* planes);
  void backward(const float* factors, int64_t n, const float* dplanes, float* dcoefficients);

 private:
  Context& ctx_;
  int64_t h_, w_, c_, f_;
  float scale_;
  Memory tables_;  // GPU
  const float *rows_ = nullptr, *rows_back_ = nullptr, *real_ = nullptr, *imaginary_ = nullptr, *real_back_ = nullptr,
              *imaginary_back_ = nullptr;
};

}  // namespace switchback
