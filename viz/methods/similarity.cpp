#include "viz/methods/similarity.h"

#include <cmath>
#include <limits>

#include "kernels/check.h"

namespace switchback {

MapSimilarity map_similarity(const Tensor& maps, std::span<const int> labels, int64_t classes) {
  const int64_t count = maps.dim(0), size = maps.count() / count;
  CHECK(int64_t(labels.size()) == count, "{} labels for {} maps", labels.size(), count);
  MapSimilarity result{.classes = classes, .maps = std::vector<int64_t>(size_t(classes), 0), .matrix = {}};
  std::vector<double> sums(size_t(classes * size), 0);  // Σ z of each class
  std::vector<double> z(size_t(size), 0);
  for (int64_t i = 0; i < count; ++i) {
    const float* map = maps.data() + i * size;
    double mean = 0, norm = 0, magnitude = 0;
    for (int64_t k = 0; k < size; ++k) mean += map[k] / double(size);
    for (int64_t k = 0; k < size; ++k) {
      z[size_t(k)] = map[k] - mean;
      norm += z[size_t(k)] * z[size_t(k)];
      magnitude += double(map[k]) * map[k];
    }
    if (norm <= 1e-12 * magnitude) {  // nothing but rounding
      ++result.constant;
      continue;
    }
    const int64_t label = labels[size_t(i)];
    ++result.maps[size_t(label)];
    double* sum = sums.data() + label * size;
    for (int64_t k = 0; k < size; ++k) sum[k] += z[size_t(k)] / std::sqrt(norm);
  }
  const double none = std::numeric_limits<double>::quiet_NaN();
  double within = 0, between = 0, pairs_within = 0, pairs_between = 0;
  for (int64_t a = 0; a < classes; ++a)
    for (int64_t b = 0; b < classes; ++b) {
      const double n = double(result.maps[size_t(a)]), m = double(result.maps[size_t(b)]);
      double dot = 0;
      for (int64_t k = 0; k < size; ++k) dot += sums[size_t(a * size + k)] * sums[size_t(b * size + k)];
      const double pairs = a == b ? n * (n - 1) : n * m, sum = a == b ? dot - n : dot;  // less each map with itself
      result.matrix.push_back(pairs > 0 ? sum / pairs : none);
      (a == b ? within : between) += sum;
      (a == b ? pairs_within : pairs_between) += pairs;
    }
  result.within = pairs_within > 0 ? within / pairs_within : none;
  result.between = pairs_between > 0 ? between / pairs_between : none;
  return result;
}

}  // namespace switchback
