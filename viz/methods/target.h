// What is explained: output units or hidden units, and how their score is differentiated.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/run/plan.h"

namespace switchback {

enum class Score { logit, probability, nll };

// What a network's outputs are, by how it ends.
enum class Outputs {
  classes,        // one of them holds: probabilities are a softmax, the network's own or one put behind its logits
  labels,         // each holds or not by itself: probabilities are a sigmoid, the network's own
  value,          // one number without a probability
  probabilities,  // probabilities as they are, made by no layer that is known as such
};

// A score with what it needs to know of the outputs.
struct Scoring {
  Score score = Score::logit;
  Outputs outputs = Outputs::classes;
  Scoring(Score score, Outputs outputs = Outputs::classes) : score(score), outputs(outputs) {}
};

// A unit of node `node`: channel `channel` at (row, col), or with row = -1 the sum of the channel over its positions.
struct Unit {
  int node = 0;
  int64_t channel = 0, row = -1, col = -1;
  bool operator==(const Unit&) const = default;
  template <typename A>
  void fields(A& a) {
    a(node, channel, row, col);
  }
};

// `--target` and `--layer` as the user wrote them.
struct TargetSpec {
  std::string target = "max";  // max | all | C[,C…] | a label (of the output's classes)
  std::string layer;           // "" or NAME[:C[,C…]|max|all[:ROW,COL|max|all]]; NAME alone means NAME:max
  Score score = Score::logit;
  bool output_is_probability = false;  // told by a file's preprocessing: no softmax belongs behind the outputs
};

// The output before a final softmax or sigmoid (and what changes no element behind it): where logits are read and
// explained.
int logit_node(const Network& network);
Outputs outputs_of(const Network& network, bool output_is_probability);
std::string_view name_of(Outputs outputs);  // "classes", …
Scoring scoring_of(const Network& network, const TargetSpec& spec);
// What people call a score: "logit" of classes and labels, "value", "output", "probability", "nll".
std::string_view score_word(const Network& network, const TargetSpec& spec);
// The node whose units are meant: logit_node, or the layer of the spec. Throws (usage) naming the nearest layer.
int target_node(const Network& network, const TargetSpec& spec);
// Before the first image is run: how many units each image will have. Throws (usage) on classes, labels and positions
// that do not exist, naming the nearest label or the valid range.
int64_t check_target(const Network& network, Shape input, const TargetSpec& spec,
                     const std::vector<std::string>& labels);
// Whether units at positions are meant, not sums over maps.
bool targets_places(const Network& network, const TargetSpec& spec);
// The units for one image, decided on its clean values: `values` is the target node's value, [1,C,H,W] (or [1,C]).
// The first of equal values wins.
std::vector<Unit> resolve_target(const Network& network, const TargetSpec& spec, const Tensor& values,
                                 const std::vector<std::string>& labels);

// The score: value of the unit (or the sum over its positions), its probability, or −log of it. `values`: of one item,
// [1,C,H,W] or [1,C]; probability and nll need a vector of outputs.
double score_of(const Unit& unit, Scoring scoring, const Tensor& values);
// d score / d values for one unit, NCHW: for logit a one-hot (or a channel of ones); of classes for probability
// p_t (δ − p), for nll p − δ; of labels p_t (1 − p_t) and p_t − 1 in place t.
std::vector<float> seed_values(const Unit& unit, Scoring scoring, const Tensor& values);

// Writes the seeds of n = seed.shape.n backward passes: pass p explains units[p] with the values of item
// p / seeds_per_item of `values` ([n,C], as Plan::read gives them; not looked at for the logit score).
void write_seeds(Context& ctx, std::span<const Unit> units, Scoring scoring, const Tensor& values, int64_t seeds_per_item,
                 View seed);

// A copy of item i of a batch, [1,…].
Tensor batch_item(const Tensor& batch, int64_t i);

// Softmax over one item's values, in double.
std::vector<double> softmax(std::span<const float> logits);
// Of each of one item's outputs the probability; NaN where there is none. Throws where a value that is said to be one
// (Outputs::probabilities) lies outside of 0..1.
std::vector<double> probabilities(std::span<const float> values, Outputs outputs);

}  // namespace switchback
