// Linear regions that a data set meets. A network of linear layers, ReLUs and max pools is affine on the set of inputs
// that open the same gates and choose the same switches (Montufar et al. 2014, section 2; Molchanov et al., eq. 1).
// Each such pattern is one convex region; how many of them a data set meets, and how far apart the patterns of its
// classes are, is the question that Molchanov et al. (sections 2 and 5) raise about under- and overfitting.
//
//   RegionCensus census(ctx, model, image, classes, options, most);
//   while (...) census.add(pixels, labels);   // class by class
//   RegionReport report = census.report();
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/run/plan.h"
#include "viz/methods/gradient.h"
#include "viz/methods/hash128.h"

namespace switchback {

// A ReLU (a state for each unit: off or on, of a clipped one also saturated) or a max pool (which place of its window
// wins). The switch of a pool whose ReLU is off counts as 0: its unit gives 0 (or the clip) whoever won.
struct RegionLayer {
  std::string name;  // of the node
  bool switches = false;
  int64_t units = 0;
  int64_t states = 2;
  template <typename A>
  void fields(A& a) {
    a(name, switches, units, states);
  }
};

// The patterns of one layer, or of all layers together.
struct PatternStatistics {
  int64_t distinct = 0;                    // patterns met
  int64_t largest = 0;                     // inputs with the commonest pattern
  int64_t mixed = 0;                       // patterns met by more than one class
  int64_t constant = 0;                    // units with the same state for all inputs
  std::vector<int64_t> distinct_of_class;  // [classes]
  // Hamming distance, the number of units whose state differs: its mean over all pairs of inputs of one class, and over
  // all pairs of inputs of different classes. NaN where there are no such pairs.
  double within = 0, between = 0;
  std::vector<double> within_class;  // [classes]
};

struct RegionReport {
  std::vector<int64_t> inputs;  // [classes]
  std::vector<RegionLayer> layers;
  std::vector<PatternStatistics> of_layer;
  PatternStatistics total;               // of all layers: `distinct` is the number of linear regions
  std::vector<std::string> not_counted;  // smooth layers, "norm1 (LocalResponseNorm)": they have no states
  std::vector<Hash128> hashes;           // of each input's whole pattern, in the order of add()
};

// What has been counted of one layer. How many inputs have state v of each place, v = 1 .. states - 1 (state 0: the rest), as
// [states - 1, places]; places are bits of the gates' words, or words of switches.
struct RegionLayerCounts {
  RegionLayer about;
  int64_t places = 0;
  std::vector<uint32_t> head;              // of the first class, once a second one has begun
  std::vector<uint32_t> of_class, of_all;  // of the last class; of those between
  std::vector<uint64_t> differing;         // [classes] between: units that differ, summed over pairs of inputs of the class
  std::vector<Hash128> hashes;             // [inputs]
  template <typename A>
  void fields(A& a) {
    a(about, places, head, of_class, of_all, differing, hashes);
  }
};

// What has been counted of inputs that came class by class. The first and the last class may go on in another run's counts.
class RegionCounts {
 public:
  std::vector<int64_t> inputs;  // [classes]
  std::vector<int> labels;      // of all inputs so far
  std::vector<RegionLayerCounts> layers;
  std::vector<std::string> smooth;
  int threads = 1;

  void close_class();                // the last class is complete
  void merge(RegionCounts&& next);   // of the inputs behind these
  RegionReport report();             // of these inputs; nothing can be added afterwards
  template <typename A>
  void fields(A& a) {
    a(inputs, labels, layers, smooth, open_);
  }

 private:
  friend class RegionCensus;
  bool open_ = false;  // inputs of class labels.back() are counted, but not yet their pairs
};

class RegionCensus {
 public:
  // `most`: inputs in all. Throws where the network has neither ReLUs nor max pools.
  RegionCensus(Context& ctx, const Model& model, Shape image, int64_t classes, const RunOptions& options,
               int64_t most);
  ~RegionCensus();
  RegionCensus(RegionCensus&&) noexcept;

  int64_t batch() const;
  // labels.size() <= batch() inputs, NCHW f32 on the host. Inputs come class by class, in the order of their labels, so
  // that one class's counts are enough memory. Returns their logits.
  Tensor add(const float* images, std::span<const int> labels);
  RegionReport report();  // after the last add()
  RegionCounts& counts();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchback
