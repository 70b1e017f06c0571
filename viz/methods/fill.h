// What takes the place of an image's pixels where it is occluded.
#pragma once

#include "engine/tensor.h"
#include "kernels/types.h"
#include "kernels/patch/patch.h"

namespace switchback {

struct Fill {
  enum class Kind {
    zero,   // 0 in input units; for a normalised input that is the mean colour of the training images
    mean,   // each channel's mean over this image
    value,  // a constant, in input units
    blur,   // the image itself, blurred: no new edges and colours, as a constant brings them
  } kind = Kind::zero;
  float value = 0;
  double sigma = 0;  // of the blur, in pixels; 0: 10 for a shorter side of 224, and in proportion to it
};

// The sigma that a blur of this image has, in pixels.
double blur_sigma(const Fill& fill, Shape image);

// x [C,H,W] blurred by a Gaussian of sigma pixels, cut off at `radius`, as baseline() does it.
Tensor blurred(const float* x, Shape image, double sigma, int64_t radius);

// The whole image as the fill has it, [C,H,W] of x [C,H,W]. The blur is a Gaussian cut off at ceil(4 sigma) pixels and
// normalised to sum 1, along rows and then along columns in double; beyond the border the border's pixels repeat.
Tensor baseline(const Fill& fill, const float* x, Shape image);

// x [C,H,W] with the pixels of `box` taken from `baseline`. What a box has outside of the image is nothing.
void fill_box(const Box& box, const Tensor& baseline, float* x, Shape image);

}  // namespace switchback
