// How alike maps are within a class and between classes: Zhang ("Visualization of encoder-decoder structure of deep
// convolutional neural network", section 5) finds that images of one class get maps of one pattern.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/tensor.h"

namespace switchback {

struct MapSimilarity {
  int64_t classes = 0;
  std::vector<int64_t> maps;  // [classes], that are compared
  std::vector<double>
      matrix;  // [classes,classes]: the mean correlation over all pairs of maps; NaN where there is none
  // Over all pairs of one class, and of two classes; NaN where there are none.
  double within = 0, between = 0;
  int64_t constant = 0;  // maps of one value, which correlate with nothing and are left out
};

// maps [N,…], flattened; labels [N]. Correlation is Pearson's. All pairs are counted exactly without being formed: of
// maps z with mean 0 and norm 1, the sum over pairs of classes a and b is ⟨Σ_a z, Σ_b z⟩.
MapSimilarity map_similarity(const Tensor& maps, std::span<const int> labels, int64_t classes);

}  // namespace switchback
