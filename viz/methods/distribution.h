// How a layer's channels are distributed over a data set (Fleuret's "distributions of activations on a population"):
// moments, exact zeros, quantiles and what they say of classes, kept while images stream by.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "engine/run/plan.h"
#include "viz/methods/gradient.h"
#include "viz/methods/ordered_sum.h"

namespace switchback {

// Counts of values in bins of equal relative width: 2^bits of them for each power of two of |v|, and one bin for all
// below 2^-24. What it tells of a value is its bin's middle, at most 2^-(bits + 1) of it away. Counts are whole numbers:
// the order of values, and how they were merged, leave no trace.
class ValueSketch {
 public:
  explicit ValueSketch(int bits = 6);
  void add(float value);  // finite
  void merge(const ValueSketch& other);
  int64_t count() const { return count_; }
  double error() const;  // relative, of quantiles
  // The value that a share of `share` (0 to 1) of all values lie at or below. NaN of none.
  double quantile(double share) const;
  // Counts of values by `bins` equal intervals from `least` to `most`; those outside are left out. A bin of the sketch that
  // several intervals share is spread over them evenly; one that an end cuts counts as inside. `without`: so many values of exactly 0 are not counted.
  std::vector<double> histogram(double least, double most, int bins, int64_t without = 0) const;
  template <typename A>
  void fields(A& a) {
    a(bits_, first_, count_, counts_);
  }

 private:
  friend double wasserstein1(const ValueSketch& a, const ValueSketch& b);
  struct Edges {
    double low, middle, high;
  };
  int bin_of(float value) const;
  Edges edges(int bin) const;
  int bits_;
  int first_ = 0;  // the bin of counts_[0]
  int64_t count_ = 0;
  std::vector<int64_t> counts_;
};

// The area between both distribution functions (the first Wasserstein distance), in units of the values: by how much
// values must be moved, on average, to turn one into the other. Both sketches have the same bits. NaN where one is empty.
double wasserstein1(const ValueSketch& a, const ValueSketch& b);

// Of some values: their number, mean, and sums of powers of deviations from it.
struct Moments {
  int64_t count = 0;
  double mean = 0, m2 = 0, m3 = 0;
  void merge(const Moments& next);
  template <typename A>
  void fields(A& a) {
    a(count, mean, m2, m3);
  }
};
struct ChannelMoments {
  std::vector<Moments> of;  // [channels], or none
  void merge(const ChannelMoments& next);
  template <typename A>
  void fields(A& a) {
    a(of);
  }
};

// Of all values that a channel took, at all places of all images.
struct ChannelStatistics : Moments {
  int64_t zeros = 0, open = 0;  // zeros: values of exactly 0; open: those above
  float least = std::numeric_limits<float>::infinity(), most = -std::numeric_limits<float>::infinity();
  ValueSketch values;
  // By class, coarsely; the mean of max(v, 0) and its sum, and how many values there are.
  std::vector<ValueSketch> of_class;
  std::vector<double> positive;
  std::vector<ExactSum> positive_sums;
  std::vector<int64_t> counts;

  double deviation() const;  // of the population
  double skew() const;       // E (v − mean)³ / deviation³; NaN of a constant
  bool dead() const { return count > 0 && most <= 0; }  // a ReLU behind it never opens
  // Class selectivity (Morcos et al. 2018): (μ − μ') / (μ + μ'), μ the highest of the classes' means of max(v, 0), μ' the
  // mean of the other classes' means. 0: the same for all classes, 1: one class alone. NaN of a dead channel and of fewer
  // than two classes. selective_class: the one with μ.
  double selectivity() const;
  int selective_class() const;
  // Of later images; moments and `positive` are left to DistributionLayer::finished.
  void merge(const ChannelStatistics& next);
  template <typename A>
  void fields(A& a) {
    a(zeros, open, least, most, values, of_class, positive_sums, counts);
  }
};

// What is kept of one layer while images stream by.
struct DistributionLayer {
  std::vector<ChannelStatistics> channels;  // but their moments and `positive`
  OrderedTree<ChannelMoments> moments;      // by image
  std::vector<ChannelStatistics> finished() const;
  void merge(DistributionLayer&& next);  // of the images behind these
  template <typename A>
  void fields(A& a) {
    a(channels, moments);
  }
};

class Distribution {
 public:
  // nodes: whose channels are followed, all in one forward pass. classes: how many labels there are; 0: none, or too many
  // to keep each one's. most: images of one call of add(). first: the number of the first image that may come.
  Distribution(Context& ctx, const Model& model, Shape image, std::vector<int> nodes, int64_t classes,
               const RunOptions& options, int64_t most, int64_t first = 0);
  int64_t batch() const { return plan_.capacity(); }
  // images: [n,C,H,W]; numbers: theirs, ascending from call to call; labels: theirs, below `classes`, or none. Throws
  // where a value is not finite, with the layer and the image. Sums go image by image in the order of an OrderedTree:
  // neither batch nor threads nor a division of the images change them.
  void add(const float* images, std::span<const int64_t> numbers, std::span<const int> labels);
  std::vector<ChannelStatistics> channels(size_t node) const { return layers_[node].finished(); }
  std::vector<DistributionLayer> take_layers(int64_t last) &&;  // of the images before `last`, of each node

 private:
  Context& ctx_;
  std::vector<int> nodes_;
  int64_t classes_;
  Plan plan_;
  std::vector<DistributionLayer> layers_;  // of each node
};

}  // namespace switchback
