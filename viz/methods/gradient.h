// Maps made of gradients: gradient, deconv and guided maps, SmoothGrad, integrated gradients. Each is a function over a
// Model: inputs are NCHW f32 tensors in the network's input units, maps come back NCHW f32, signed and unscaled.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/run/plan.h"
#include "viz/methods/target.h"

namespace switchback {

// Called after every batch with the items (images, samples, steps) done and in all.
using Progress = std::function<void(int64_t done, int64_t total)>;

// What an image's map is made of, SmoothGrad's noisy copies or occlusion's places, by their numbers: values that are [T,…] each.
struct PieceValues {
  std::vector<int64_t> numbers;
  std::vector<float> values;
  void merge(PieceValues&& next) {
    numbers.insert(numbers.end(), next.numbers.begin(), next.numbers.end());
    values.insert(values.end(), next.values.begin(), next.values.end());
  }
  template <typename A>
  void fields(A& a) {
    a(numbers, values);
  }
};

// For a run over one image that is divided: a share of the pieces is computed and kept (the maps are then of no use), or all
// are given and none is computed. Only SmoothGrad and occlusion look at it.
struct PiecesOfRun {
  int64_t index = 0, count = 1;
  PieceValues* keep = nullptr;
  const PieceValues* given = nullptr;
  int64_t first_of(int64_t n) const { return n * index / count; }  // of a row of n pieces
  int64_t last_of(int64_t n) const { return n * (index + 1) / count; }
};

struct RunOptions {
  Precision precision = Precision::fp32;
  int64_t batch = 0;  // 0: chosen from memory
  size_t memory = 0;  // bytes that a run may take beyond the weights; 0: half of what is free
  Progress progress;  // may be empty
  PiecesOfRun pieces = {};
};

struct GradientOptions : RunOptions {
  ReluRule rule = kGradient;
  bool times_input = false;          // map ⊙ x
  std::string save_tape, load_tape;  // tape files (engine/run/tape.h); all images are then run as one batch
};

struct SmoothGradOptions : RunOptions {
  ReluRule rule = kGradient;
  int64_t samples = 50;
  double noise = 0.15;  // σ as a share of (max − min) of that image's input tensor
  uint64_t seed = 0;
  enum class Moment { mean, square, variance } moment = Moment::mean;  // E g, E g², E g² − (E g)²
  std::vector<uint32_t> images;  // the noise's image number of each image in x; empty: 0, 1, 2, …
  bool times_input = false;      // map ⊙ x; of the mean alone
};

struct IntegratedOptions : RunOptions {
  ReluRule rule = kGradient;
  int64_t steps = 50;
  enum class Baseline { zero, mean, given } baseline = Baseline::zero;  // mean: of each channel over that image
  Tensor given;                                                         // [C,H,W] or [1,C,H,W], for every image
};

// How far an integrated-gradients map keeps its promise Σ map = score(x) − score(baseline).
struct Completeness {
  double sum = 0, difference = 0;
  double error() const;  // |sum − difference| / max(1, |difference|)
  template <typename A>
  void fields(A& a) {
    a(sum, difference);
  }
};

// What the clean forward pass of one image said: its units (T of them) with their scores and probabilities.
struct Explained {
  std::vector<Unit> units;
  std::vector<double> scores, probabilities;  // probability: NaN for hidden units and for outputs that are maps
  std::vector<Completeness> completeness;     // integrated gradients only
  template <typename A>
  void fields(A& a) {
    a(units, scores, probabilities, completeness);
  }
};

struct Maps {
  Tensor values;                     // [N,T,C,H,W]; T = units of each image (equal for all images)
  std::vector<Explained> explained;  // one per image
  int64_t batch = 0;                 // items of one forward pass
};

// x: [N,C,H,W].
Maps gradient(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
              const std::vector<std::string>& labels, const GradientOptions& options = {});
// Smilkov et al. 2017; targets are fixed on the clean input. Noise is that of kernels/noise/noise.h. Sums are in double and
// in sample order, so the batch does not change them.
Maps smoothgrad(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                const std::vector<std::string>& labels, const SmoothGradOptions& options = {});
// Sundararajan et al. 2017 with the midpoint rule: (x − x') ⊙ mean over steps of the gradient at x' + (k−½)/steps·(x −
// x').
Maps integrated(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                const std::vector<std::string>& labels, const IntegratedOptions& options = {});

}  // namespace switchback
