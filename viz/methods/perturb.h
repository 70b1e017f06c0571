// Changes of an image under which a network's answer is looked at: those of Zhang ("Visualization of encoder-decoder
// structure of deep convolutional neural network", section 5.3: grey, blur, channel order, salt and pepper), severities of
// Hendrycks and Dietterich (ICLR 2019), Gaussian noise, occlusion and rotation. They are made where the network sees the
// image: after resizing and cropping, in pixels from 0 to 1.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "engine/model.h"
#include "kernels/device/context.h"
#include "kernels/patch/patch.h"

namespace switchback {

struct Perturbation {
  enum class Kind {
    grey,         // all three colours become 0.299 R + 0.587 G + 0.114 B
    channels,     // red, green and blue become `order` of them: {2,1,0} is BGR
    blur,         // a Gaussian of `amount` pixels, cut off at `radius`; beyond the border the border's pixels repeat
    salt_pepper,  // each value by itself becomes 0 or 1, with probability `amount` / 2 each
    gaussian,     // each value gains amount · normal noise and is brought back into 0 … 1
    occlude,      // `box` becomes 0 in input units: for a normalised input the mean colour of the training images
    rotate,       // about the middle by `amount` degrees, counter-clockwise, bilinear; black comes in at the corners
  };
  std::string name;  // as the user wrote it: "impulse:3"
  Kind kind = Kind::grey;
  double amount = 0;
  int64_t radius = 0;
  std::array<int, 3> order = {0, 1, 2};
  Box box = {};
  // Of Hendrycks and Dietterich, 1 to 5; 0: `amount` says it. Of salt_pepper (their impulse noise) the constants are
  // CIFAR-10-C's up to a longer side of 32, Tiny ImageNet-C's up to 64 and ImageNet-C's above; of blur ImageNet-C's.
  int severity = 0;
};

// cv2.getGaussianKernel's sigma for a window of `side` pixels, 0.3·((side − 1)/2 − 1) + 0.8.
Perturbation window_blur(int64_t side);

// Throws (usage) where the image does not allow it: colours of an input that has none, a severity that has no constants
// for this size, a box that reaches outside.
void check_perturbation(const Perturbation& p, const Model& model, Shape image);

// y = x changed, both [C,H,W] in input units on the host. Noise is that of kernels/noise/noise.h: of seed, image and the
// value's place e in NCHW order alone. Gaussian noise is sample 0's; salt and pepper take
//   u = (word e % 4 of the Philox block (e / 4, sample 1, image) >> 8, and a half) · 2^-24
// and make 0 of what has u < amount/2, 1 of what has u < amount: a smaller amount hits a part of what a larger one does.
// ctx: the CPU's.
void perturb(Context& ctx, const Perturbation& p, const Model& model, Shape image, const float* x, uint64_t seed,
             uint32_t number, float* y);

}  // namespace switchback
