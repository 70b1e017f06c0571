// Etalon images (Molchanov et al., "Etalon images: understanding the convolution neural networks", ISPRS Archives 2017):
// around an input X a piecewise-affine network is NET(X)_p = <(W_X)_p, X> + (b_X)_p for each unit p (eq. 2). W_p is the
// unit's etalon image. All rows come from one forward pass and one batched backward pass with shared gates and switches;
// b is summed up in that same pass and never taken from the output, so that the residual of the equation is a check.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/run/backward.h"
#include "engine/run/fields.h"
#include "engine/run/frozen.h"
#include "viz/methods/gradient.h"

namespace switchback {

enum class EtalonAlgorithm {
  single_pass,  // forward once, then backward passes from all units at once
  coordinate,   // algorithm 1 of the paper: every coordinate image through the frozen network
};

struct EtalonOptions : RunOptions {
  EtalonAlgorithm algorithm = EtalonAlgorithm::single_pass;
  bool fields = true;  // units at positions: only their receptive fields are computed
  std::string load_tape;  // another program's gates and switches (engine/run/tape.h), for inputs of one run
};

// NET(x)_p against <W_p, x> + b_p for one etalon.
struct EtalonCheck {
  static constexpr double kTolerance = 1e-5;  // of the relative residual, in fp32
  double dot = 0;        // <W_p, x>
  double bias = 0;       // b_p
  double score = 0;      // NET(x)_p of the forward pass
  double votes_for = 0, votes_against = 0;  // the positive and the negative part of <W_p, x>
  double magnitude = 0;  // Σ|W_p·x| + Σ|g·bias| (coordinate: + |b_p|)
  double residual() const;  // |dot + bias − score|
  double relative() const;  // residual / magnitude
  template <typename A>
  void fields(A& a) {
    a(dot, bias, score, votes_for, votes_against, magnitude);
  }
};

struct EtalonInput {
  Explained explained;
  std::vector<EtalonCheck> checks;  // of each unit
  template <typename A>
  void fields(A& a) {
    a(explained, checks);
  }
};

// Adds what one etalon w says of an input x (both [count]) to its check.
void add_products(const float* w, const float* x, int64_t count, EtalonCheck& check);

// Plans, tapes and buffers for the etalons of one network, target and image shape; kept between runs.
class Etalons {
 public:
  // inputs: the most that will be given to one run. Throws (usage) where layers are not piecewise affine.
  Etalons(Context& ctx, const Model& model, Shape image, const TargetSpec& target,
          const std::vector<std::string>& labels, const EtalonOptions& options, int64_t inputs);
  ~Etalons();

  int64_t units() const { return units_; }  // P: etalons of each input
  int64_t batch() const { return items_; }  // inputs of one run, at most
  int64_t seeds() const { return seeds_; }  // units of each input in one backward pass

  // Etalons `first` … first + count − 1 of input `input` of this run: maps [count,C,H,W]. Valid during the call.
  using Sink = std::function<void(int64_t input, int64_t first, int64_t count, const float* maps)>;
  // x: [n,C,H,W], n <= batch(). Every etalon goes to `sink` once.
  std::vector<EtalonInput> run(const float* x, int64_t n, const Sink& sink);

 private:
  struct Group;  // units whose receptive fields have one form
  void fit_memory();
  void run_whole(const float* x, std::vector<EtalonInput>& inputs, const Sink& sink);
  void run_coordinates(const float* x, EtalonInput& input, const Sink& sink);
  // etalon_fields.cpp
  void run_fields(const float* x, EtalonInput& input, const Sink& sink);
  void group_units(const std::vector<Unit>& units);
  void prepare(Group& group);
  void run_group(Group& group, const float* x, EtalonInput& input, const Sink& sink);
  void run_places(Group& group, int64_t first, int64_t unit);

  Context& ctx_;
  Model model_;
  Shape image_;
  TargetSpec target_;
  std::vector<std::string> labels_;
  EtalonOptions options_;
  int node_;
  int64_t units_, items_ = 1, seeds_ = 1;
  bool fields_;  // whether units are run by their receptive fields
  size_t limit_;
  std::optional<Plan> plan_;
  std::optional<Backward> backward_;
  std::optional<FrozenForward> frozen_;
  Tape tape_, cut_;
  Tensor values_;  // of the target node, of this run's inputs
  std::vector<float> maps_, row_;
  std::vector<OffsetSum> sums_;
  Memory device_sums_;
  std::vector<Unit> grouped_;  // the units that the groups were made for
  std::vector<std::unique_ptr<Group>> groups_;
};

// All at once: maps [N,P,C,H,W] and biases [N,P].
struct EtalonMaps {
  Tensor maps, biases;
  std::vector<EtalonInput> inputs;
};
EtalonMaps etalons(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                   const std::vector<std::string>& labels, const EtalonOptions& options = {});

}  // namespace switchback
