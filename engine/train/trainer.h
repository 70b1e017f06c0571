// Trainer: one step of training after the other. Same seed, same bits, for any number of threads and however a batch is
// split to fit the memory.
//
//   Trainer trainer(ctx, {network, initial_weights(network, 0)}, network.input, {.batch = 64, .optimizer = adam});
//   for (…) loss = trainer.step(images, {.labels = labels}, 1e-3).loss;
//   save_weights(network, trainer.weights(), "trained.safetensors");
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/run/backward.h"
#include "engine/run/plan.h"
#include "kernels/learn/loss.h"
#include "kernels/learn/optimizer.h"

namespace switchback {

enum class Loss { cross_entropy, mse, bce };

struct TrainOptions {
  int64_t batch = 64;  // items of a step, at most
  int64_t piece = 0;   // of them at a time; 0: all. Batch norms over the batch need all
  Loss loss = Loss::cross_entropy;
  float label_smoothing = 0;
  std::vector<float> class_weights = {};  // of the cross entropy; empty: 1
  Optimizer optimizer = {};
  double clip_norm = 0;          // of all gradients together; 0: none
  float running_momentum = 0.1f;  // of running statistics
  uint64_t seed = 0;             // of dropouts
  std::vector<std::string> frozen = {};    // beginnings of names (NODE.name) of parameters that stay as they are
  std::vector<std::string> no_decay = {};  // of those without weight decay
};

// What the outputs are held against: labels of a cross entropy, or values of the output's shape, NCHW.
struct Targets {
  std::span<const int32_t> labels = {};
  std::span<const float> values = {};
};
struct StepResult {
  double loss = 0;           // mean over the batch, before the step
  int64_t right = 0;         // items whose largest output is the label's
  double gradient_norm = 0;  // where gradients are clipped
};

// Of the values that a step kept: where the largest finite one is, and the first layer with others.
struct LargestActivation {
  std::string layer;
  double value = 0;
  std::string not_finite;  // empty: none
};

class Trainer {
 public:
  // Throws where the loss does not fit the network's output. Whoever gives its model away spares a copy of the weights.
  Trainer(Context& ctx, Model model, Shape item, TrainOptions options);
  Trainer(const Trainer&) = delete;  // its parts point to each other
  Trainer& operator=(const Trainer&) = delete;

  StepResult step(const float* x, int64_t n, const Targets& targets, double rate);  // x: NCHW, as preprocessed
  int64_t steps() const { return steps_; }
  bool whole_batches() const { return plan_.whole_batches(); }  // a layer takes its moments over the batch
  LargestActivation largest_activation();  // of the last step's forward pass: why a loss may have become NaN
  const Network& network() const { return plan_.network(); }
  const Weights& weights() const { return plan_.weights(); }

  // All that the next steps depend on: weights (NODE.name), optimiser arrays (NODE.name.0, .1) and the count of steps.
  void save_state(const std::string& path, const std::map<std::string, std::string>& more = {});
  void load_state(const std::string& path);

 private:
  void check_output() const;
  double scale(const Targets& targets, int64_t n) const;
  void add_piece(const float* x, int64_t first, int64_t n, const Targets& targets, double scale, StepResult& result);
  bool trained(const Parameter& p) const;
  double clip();
  void update(double rate);

  Context& ctx_;
  TrainOptions options_;
  Plan plan_;
  Backward backward_;
  Tape tape_;
  int64_t count_ = 0;        // of all parameters' values
  Memory gradients_, states_[2], weights_;  // laid out as the weights; weights_: on a GPU
  Memory labels_, losses_, best_, class_weights_, targets_, sum_;
  int64_t steps_ = 0;
};

}  // namespace switchback
