// What the gradient methods share: the choice of the batch, the clean pass, and the loop over perturbed copies of one
// image. Not part of the public surface.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/run/backward.h"
#include "engine/run/recording.h"
#include "viz/methods/gradient.h"
#include "viz/methods/pixels.h"

namespace switchback {

// Shape of one image of x [N,C,H,W]; throws on another rank, on N = 0 and on images that the network does not take.
Shape image_shape(const Network& network, const Tensor& x);
void check_image_shape(const Network& network, Shape image);  // the same for a shape

// The largest batch that still gains from being larger.
int64_t useful_batch(const Context& ctx, Shape image);

// options.batch, or what fits into memory and still gains from more, at most `most`; less where the device then turns out
// not to have so much memory.
int64_t batch_size(Context& ctx, const Model& model, Shape image, const PlanOptions& plan,
                   const RunOptions& options, int64_t most);

// Space for results; throws where they cannot fit into the machine's memory.
Tensor allocate_maps(Dims dims);

// Maps [T,C,H,W] of one image times its pixels x [C,H,W].
void multiply_maps(std::span<float> maps, const float* x, int64_t item);

// A copy of these on the context's device.
Memory floats_on_device(Context& ctx, const std::vector<float>& values);

// Targets, scores and probabilities of one image from the clean values of the target node.
Explained explain(const Network& network, const TargetSpec& target, const Tensor& values,
                  const std::vector<std::string>& labels);

// Passes from the input to a node and back, of `batch` images at a time: as many of `most` as batch_size says.
struct Passes {
  Passes(Context& ctx, const Model& model, Shape image, int node, const RunOptions& options, int64_t most);
  Context& ctx;
  int node;
  int64_t batch;
  Plan plan;
  Backward backward;
  Tape tape;
};

// Images that follow the gradient of a cross-entropy, on the device: attacks, and fooling by gradient.
struct ClassPasses : Passes {
  ClassPasses(Context& ctx, const Model& model, Shape image, const RunOptions& options, int64_t most);
  View view(const Memory& memory, int64_t n) const { return {memory.data(), plan.shapes()[0].with_n(n), DType::f32}; }
  // Runs the first n images of x; the seeds are the loss's of `labels`, `best` each item's class.
  void read(int64_t n);
  PixelUnits units;
  DevicePixels pixels;
  Memory x, losses, labels, best;  // x: NHWC f32
};

// Copies of one image at a time, reused for all images; node: whose units are explained.
struct Sampler : Passes {
  Sampler(Context& ctx, const Model& model, Shape image, const TargetSpec& target, const RunOptions& options,
          int64_t samples);
  Scoring scoring;
  Memory pixels;   // the image that copies are made of, [C,H,W] f32, on the device
  Memory counter;  // uint32_t on the device: copies done when a batch begins

  // Takes the image over to the device; the target node's value on it.
  Tensor clean(const float* image);
  // Value on another image (a baseline).
  Tensor value(const float* image);
  // Adds up the gradients of every unit over `samples` perturbed copies: `write` fills the input with copies `first`,
  // first + 1, … For unit t, sum and square (may be empty) take [C,H,W] doubles from t · C·H·W on. Where `by_counter`,
  // `write` is given first = 0 every time and reads how many copies are done from `counter`: it then does the same for
  // every batch, and batches can be recorded and replayed. Of a run that is divided only a share of the copies is run, and
  // their gradients are kept (`pieces`).
  void accumulate(const std::vector<Unit>& units, ReluRule rule, int64_t samples, bool by_counter,
                  const std::function<void(int64_t first, View input)>& write, std::vector<double>& sum,
                  std::vector<double>& square, const std::function<void(int64_t done)>& progress,
                  const PiecesOfRun& pieces = {});
};

}  // namespace switchback
