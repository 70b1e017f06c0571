// Adversarial inputs: images that are changed a little and read as another class. x [N,C,H,W] in input units; how far an
// image may go is said in pixels, 0 to 1, whatever the normalisation (pixels.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model.h"
#include "viz/methods/gradient.h"

namespace switchback {

struct AdversarialOptions : RunOptions {
  // ascent   x += step·∂loss/∂x in input units, without any limit (Fleuret, Deep learning, 2022)
  // fgsm     one step of ε·sign (Goodfellow et al. 2015)
  // pgd      step·sign, back to |x − clean| ≤ ε (Madry et al. 2018); pgd_l2: along the gradient, ‖x − clean‖ ≤ ε
  enum class Method { ascent, fgsm, pgd, pgd_l2 } method = Method::pgd;
  double epsilon = 8. / 255;  // in pixels; pgd_l2: of the whole image's change
  double step = 2. / 255;     // in pixels; ascent: of the gradient in input units
  int64_t steps = 10;
  bool random_start = true;   // pgd: uniform in the ball of L∞; pgd_l2: a random direction, at up to ε. Not of the others
  bool stop_early = false;    // an image that has reached its goal stays as it is
  int64_t target = -1;        // the class to be read as; -1: any but the image's own
  int64_t sphere = 0;         // samples on the sphere of twice the change's norm, to be read; 0: none
  uint64_t seed = 0;
  std::vector<uint32_t> images;  // the random numbers' image number of each image; empty: 0, 1, 2, …
};

struct Attacked {
  int64_t label = 0;             // the class that is attacked: the given one, or what the clean image is read as
  std::vector<int32_t> classes;  // what the image is read as before each step and after the last one, [steps + 1]
  int64_t clean = 0, now = 0;    // read as: the clean image (which a random start is not), and the result
  double clean_probability = 0, now_probability = 0;  // of these two classes
  double linf = 0, l2 = 0;       // the change's norms, in pixels
  bool reached = false;          // now is the target, or not the label
  int64_t sphere_same = 0;       // samples on the sphere that are read as the clean image is
};

struct Adversarial {
  Tensor x;  // [N,C,H,W], input units
  std::vector<Attacked> items;
  int64_t batch = 0;
};

// labels: [N], or empty: each image's own class is what it is read as. Random numbers are those of kernels/noise/noise.h:
// of image i of the run, as uniform ones from the first half of the samples (24 bits of each word), for the directions and
// the sphere normal ones from sample 2^31 on. Throws (usage) on options out of range and on networks that name no classes.
Adversarial adversarial(Context& ctx, const Model& model, const Tensor& x, const std::vector<int64_t>& labels,
                        const AdversarialOptions& options);

}  // namespace switchback
