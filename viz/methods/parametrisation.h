// From what is optimised to the network's input and back: z -> canvas (NHWC f32, input units).
#pragma once

#include "kernels/image/transform.h"
#include "viz/methods/maximize.h"
#include "viz/methods/pixels.h"

namespace switchback {

// Of n images of one size. Fourier coefficients lie [n, 2 (re, im), h, c, w/2 + 1].
class Parametrisation {
 public:
  Parametrisation(Context& ctx, const Model& model, const MaximizeOptions& options, Shape canvas);
  int64_t item() const { return item_; }            // numbers of z for one image
  View z(float* data, int64_t n) const;             // as NHWC, where it is an image
  void forward(const float* z, View canvas);
  void backward(const float* z, ConstView dcanvas, float* dz);
  const float* fill() const { return fill_.as<float>(); }  // what lies around the canvas, [C]: mid-grey, or the mean colour
  bool fourier() const { return fourier_; }
  double unit(size_t c) const { return double(scale_[c]); }  // input units of one of z

 private:
  Context& ctx_;
  Shape canvas_;
  bool fourier_;
  int64_t item_, frequencies_ = 0;
  std::vector<float> scale_;
  Memory colours_memory_, fill_, tables_, planes_, dplanes_, spectrum_;
  Colours colours_;
  const float *factors_ = nullptr, *rows_ = nullptr, *rows_back_ = nullptr, *real_ = nullptr, *imaginary_ = nullptr,
              *real_back_ = nullptr, *imaginary_back_ = nullptr;
};

}  // namespace switchback
