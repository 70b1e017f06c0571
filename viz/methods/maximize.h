// Images that a network makes: activation maximisation and pre-images. One loop serves all recipes of the literature; a
// recipe is nothing but values of MaximizeOptions. It runs on the device: image, priors, transformations, optimiser.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model.h"
#include "kernels/image/priors.h"
#include "kernels/learn/optimizer.h"
#include "viz/methods/gradient.h"

namespace switchback {

// Seconds of steps by what they went to: the passes through the network, with seeds and values; from what is optimised to the
// image and back; moves, crops and noise; priors; the update.
struct StepTimes {
  double network = 0, image = 0, places = 0, priors = 0, update = 0;
};

struct MaximizeOptions : RunOptions {
  // What is optimised: z, of which the network's input is made in each channel.
  //   input    the input itself (of a network that takes bytes, in deviations of 0.226·255: as large as torchvision's inputs)
  //   pixels   the image, 0 to 1
  //   bytes    the image times 255, less the mean colour (0 is input 0)
  //   fourier  coefficients of a real FFT, scaled by 1 / max(f, 1/max(w, h)), f in cycles a pixel (lucid, Olah et al. 2017);
  //            the image is 1/4 of the inverse FFT, recoloured
  //   phase    phases of a real FFT, whose magnitudes stay what `spectrum` says (Fel et al. 2023); phases and image are
  //            made of mean 0 and variance 1 (eps 1e-10), the image then recoloured
  enum class Parts { input, pixels, bytes, fourier, phase } parts = Parts::input;
  bool decorrelated = false;  // fourier, phase: colours by ImageNet's principal axes, then a sigmoid; else the sigmoid alone
  // Start: z = mean + N(0, noise²), or mean + span·U(0, 1).
  std::shared_ptr<const Tensor> spectrum = {};  // phase: a mean_spectrum of any size; null: 1 / max(f, 1/max(w, h))
  double start_mean = 0, start_noise = 0.01, start_span = 0;

  // Ascent. plain: x += lr·g, capped: x += min(lr, 2/‖g‖²)·g, and then x ·= 1 − decay (Yosinski's two policies);
  // momentum: Mahendran and Vedaldi's rule.
  enum class Update { optimizer, plain, capped, momentum } update = Update::optimizer;
  Optimizer optimizer{.kind = Optimizer::Kind::adam};
  double lr = 0.1, decay = 0;
  int64_t steps = 250;
  int64_t more_steps = 0;  // momentum: further ones at lr/10 without jitter
  double most_norm = 0;    // momentum: of a pixel, over channels

  // Objective: weight · (the unit's value, or the mean over its map, or the sum).
  bool mean = false;
  double weight = 1;
  // Keeps copies apart (Olah et al. 2017): less diversity · Σ of the cosines between their Gram matrices over the unit's
  // node, over pairs of `copies` drives that follow each other.
  double diversity = 0;
  int64_t copies = 1;

  // Priors.
  double edges = 0;                                   // times Σ_s ‖x − g∗x‖², over scales (Fleuret)
  NaturalPrior natural{.range_weight = 0, .tv_weight = 0};  // per pixel of the image: divided by H·W
  double blur = 0;                                    // σ, every blur_every steps
  int64_t blur_every = 4;
  bool clip_pixels = false;                           // z into 0 … 255 before the mean is taken off (bytes)
  SmallPixels small{};                                // percentile 0: none
  double exact = 0;                                   // the same by what the value loses where a pixel is 0; 0: none
  bool keep_best = false;                             // the image of the largest value, not the last one

  // Transformations, drawn anew for each image and step.
  int64_t jitter = 0;      // whole pixels: the network sees a part of a canvas that is larger by so much; fourier: of a
                           // canvas of its own size, with grey around it
  double rotate = 0;       // degrees, ±
  double zoom = 0;         // scale 1 ± zoom

  // Crops (Fel et al. 2023): the network sees so many squares of an image of any `size` at a time, enlarged or shrunk to its
  // own; the objective is their mean. Centres are N(½, 0.15²) of the image's sides, sizes N(s, 0.05²) within 0.05 … 1, where
  // s goes from ½ to 0.05 with the steps. noise: σ, in pixels 0 to 1, of what is added to what the network sees.
  int64_t crops = 0;  // 0: it sees the image
  double noise = 0;

  // Growing (Amirli): `scales` sizes, each `growth` times the one before; enlarged bicubically, then a 5x5 box blur.
  int64_t scales = 1, late_steps = 0;  // late_steps: instead of `steps`, from the eighth scale on
  double growth = 1.2;
  std::array<int64_t, 2> size = {0, 0};  // of the first scale; 0: the network's own

  int64_t redirect = 0;  // for so many steps a gradient that is zero throughout is redirected (dream.h: Redirection)
  int64_t frames = 0;    // images of the way, the last one included
  uint64_t seed = 0;
  StepTimes* times = nullptr;  // added to, where it is given; a GPU is then waited for after each part
};

// fleuret, amirli, yosinski, yosinski-decay, yosinski-norm, yosinski-contribution, mahendran, lucid, maco: the values that
// their authors give (sources in viz/README.md). Throws (usage) naming them.
MaximizeOptions recipe(std::string_view name);
std::vector<std::string> recipe_names();
// The step size of Mahendran and Vedaldi's update follows from the image's size.
double mahendran_rate(int64_t h, int64_t w);

// What one image is to drive, and the number of its random stream (kernels/noise/noise.h: the image number).
struct Drive {
  Unit unit;
  uint32_t stream = 0;
  std::vector<float> direction = {};  // [C] over the unit's node, instead of its channel; empty: the channel
};

struct Driven {
  double start = 0, value = 0;  // of the first and the last image, by the objective without its weight
  bool dead = false;            // its gradient was zero throughout
  int64_t stopped = -1;         // the step after which values were not finite any more; the image is the one before
};

struct Maximized {
  Tensor x;                     // [N,C,H,W], input units
  std::vector<Driven> items;    // N
  Tensor weight;                // [N,1,H,W], where there are crops: Σ over steps and channels of |∂/∂pixel|
  std::vector<Tensor> frames;   // [N,C,H,W] each
  std::vector<int64_t> frame_steps;
  int64_t batch = 0, steps = 0;
};

// All drives are of one node. start: [C,H,W] or empty: noise. Throws (usage) on sizes that the network does not take.
Maximized maximize(Context& ctx, const Model& model, std::span<const Drive> drives, const Tensor& start,
                   const MaximizeOptions& options);

// What drives are worth on values of their node, [N,C,H,W] or [N,C] for as many drives: sums or means as the objective has them.
std::vector<double> drive_values(std::span<const Drive> drives, const Tensor& values, bool mean);

// Σ over pairs of cosines between Gram matrices, G = A·Aᵀ with A [C,H·W], of n items of values [n,C,H,W], and its gradient.
// Items of `copies` that follow each other are compared.
double similarity(const Tensor& values, int64_t copies, Tensor& gradient);

// Pre-images (Mahendran and Vedaldi): minimises weight·‖Φ(x) − Φ0‖² / ‖Φ0‖² and the priors, for x of one image [1,C,H,W];
// caricature: maximises ⟨Φ(x), relu(Φ0)⟩ / ‖Φ0‖² instead. channels: those of the node that count, empty: all.
struct Inverted {
  Maximized image;       // one
  double error = 0;      // ‖Φ(x) − Φ0‖ / ‖Φ0‖ over the channels that count
};
Inverted invert(Context& ctx, const Model& model, const Tensor& photo, int node, bool caricature,
                const std::vector<int64_t>& channels, const MaximizeOptions& options);

// The mean of |rfft2| over images [N,C,H,W] in input units, of their pixels 0 to 1, for `phase`: [C,H,W/2+1]. decorrelated:
// of the colours' principal axes.
Tensor mean_spectrum(Context& ctx, const Model& model, const Tensor& images, bool decorrelated);

// What priors lower, of one image [C,H,W] in pixels: Σ_s ‖x − g∗x‖² over scales, total variation Σ √(d1² + d2²), and the
// norm of x less its mean colour.
struct ImageMeasures {
  double edges = 0, variation = 0, norm = 0;
};
ImageMeasures measure_image(const Model& model, const float* x, Shape image);

}  // namespace switchback
