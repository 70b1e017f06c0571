// From what is optimised to the network's input and back: z -> canvas (NHWC f32, input units).
#pragma once

#include <optional>

#include "kernels/image/fourier.h"
#include "kernels/image/transform.h"
#include "viz/methods/maximize.h"
#include "viz/methods/pixels.h"

namespace switchback {

// Of n images of one size. Fourier coefficients lie [n, 2 (re, im), h, c, w/2 + 1], phases [n, h, c, w/2 + 1].
class Parametrisation {
 public:
  Parametrisation(Context& ctx, const Model& model, const MaximizeOptions& options, Shape canvas);
  int64_t item() const { return item_; }            // numbers of z for one image
  View z(float* data, int64_t n) const;             // as NHWC, where it is an image
  void forward(const float* z, View canvas);
  void backward(const float* z, ConstView dcanvas, float* dz);
  const float* fill() const { return fill_.as<float>(); }  // what lies around the canvas, [C]: mid-grey, or the mean colour
  bool fourier() const { return fourier_.has_value(); }    // coefficients or phases, not an image
  double unit(size_t c) const { return double(scale_[c]); }  // input units of one of z

 private:
  Context& ctx_;
  Shape canvas_;
  bool phase_, same_ = false;  // same_: z is the input, in its own units
  int64_t item_;
  std::vector<float> scale_;
  std::optional<InverseFourier> fourier_;
  Memory colours_memory_, fill_, factors_, planes_, dplanes_;
  Memory phases_, coefficients_, even_;  // phase: of variance 1, [n,item]; their spectra; images of variance 1
  Colours colours_;
};

}  // namespace switchback
