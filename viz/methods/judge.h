// How good a map is: metrics over one image's map, in which every pixel [H,W] has a strength. Places of equal strength are
// taken in the order of rows and columns.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/patch/patch.h"
#include "viz/methods/inspect.h"
#include "viz/methods/target.h"

namespace switchback {

// What one image is judged by: its values and its class's unit (an output).
struct Judged {
  Shape image;     // [1,C,H,W]
  const float* x;  // [C,H,W] in input units
  Unit unit;
  Scoring scoring = Score::probability;
};

// Throws where a map has another number of places than the image, or holds what is no number. A constant map is one: all
// its places are equal.
void check_map(std::span<const float> map, Shape image, std::string_view what = "the map");

// Petsiuk, Das and Saenko (BMVC 2018): the score after k = 0 … K steps, each of which takes the next 1/K of the pixels,
// strongest first. Deletion: pixels of x become those of `other`; insertion: those of `other` become x's.
//   area = (Σ_k s_k − (s_0 + s_K) / 2) / K
struct Curve {
  std::vector<double> scores;  // [K+1]
  double area() const;
};
// Scores of the image and of `other`, which all maps' curves share.
struct CurveEnds {
  double image = 0, other = 0;
};
CurveEnds curve_ends(Forward& forward, const Judged& judged, const Tensor& other);
Curve deletion(Forward& forward, const Judged& judged, std::span<const float> map, const Tensor& other, CurveEnds ends, int64_t steps);
Curve insertion(Forward& forward, const Judged& judged, std::span<const float> map, const Tensor& other, CurveEnds ends, int64_t steps);

// μFidelity (Bhatt, Weller and Moura, IJCAI 2020): over `subsets` S of the cells of a grid, drawn by Philox of seed and
// number, the rank correlation (xplique) of Σ_{i∈S} map_i and f(x) − f(x with S taken from `other`). NaN where all are equal.
struct FidelityOptions {
  int64_t grid = 9, subsets = 200;
  double share = 0.2;  // of the cells in each subset
  uint64_t seed = 0;
  uint32_t number = 0;  // of the image
};
double fidelity(Forward& forward, const Judged& judged, std::span<const float> map, const Tensor& other,
                const FidelityOptions& options);

// ROAD, remove and debias (Rong et al., ICML 2022): pixels are removed by noisy linear imputation, the most relevant first and
// the least relevant first, int(share · H·W) of them; scores of what is left, one for each share.
struct RoadOptions {
  std::vector<double> shares = {0.2, 0.4, 0.6, 0.8};
  double noise = 0.01;  // sigma, in input units
  uint64_t seed = 0;
  uint32_t number = 0;  // of the image
};
struct Road {
  std::vector<double> most_first, least_first;  // [shares]
  double combined() const;                      // the mean of (least_first − most_first) / 2, as pytorch-grad-cam's ROADCombined
};
Road road(Forward& forward, const Judged& judged, std::span<const float> map, const RoadOptions& options);
// The imputation alone: each missing place of x [C,H,W] becomes the weighted mean of its neighbours, 1/6 of each that shares
// a side and 1/12 of each that shares a corner (at the border of those there are), all missing places together.
Tensor linear_imputation(const float* x, Shape image, std::span<const char> missing);

// Infidelity (Yeh et al., NeurIPS 2019), scaled as they and Captum (normalize=True) do: over `samples` I = sigma · normal noise,
//   min over β of the mean of (β ⟨I, map⟩ − (f(x) − f(x − I)))²
// map: [C,H,W], or [H,W] of which each channel has the same.
struct NoiseOptions {
  int64_t samples = 10;
  double size = 0.1;  // sigma; the radius of sensitivity; in input units
  uint64_t seed = 0;
  uint32_t number = 0;
};
double infidelity(Forward& forward, const Judged& judged, std::span<const float> map, const NoiseOptions& options);

// Sensitivity (Yeh et al.): over `samples` copies of x with uniform noise of ±size, ‖map(copy) − map(x)‖ / ‖map(x)‖: the largest
// and the mean. mapper: the maps of copies [N,C,H,W], [N,…], of x's class. NaN where the map is 0.
using Mapper = std::function<Tensor(const Tensor& copies)>;
struct Sensitivity {
  double most = 0, mean = 0;
};
Sensitivity sensitivity(const Mapper& mapper, const Judged& judged, std::span<const float> map, const NoiseOptions& options);

// Structural similarity (Wang et al. 2004) of two maps [h,w], as scikit-image has it by default: windows of 7x7 (or of the
// largest odd side there is) that lie inside, equal weights, sample covariances, the range that of both maps together; their mean.
// NaN where both are one constant.
double structural_similarity(std::span<const float> a, std::span<const float> b, int64_t h, int64_t w);

// Model parameter randomisation (Adebayo et al., NeurIPS 2018): layers with parameters, from the output down. `from`'s values
// of one of them take the place of `weights`'.
std::vector<int> layers_from_top(const Weights& weights);
void take_layer(Weights& weights, const Weights& from, int node);
// Another class than `target` for the random logit test (Sixt et al., ICML 2020), by Philox of seed and number.
int64_t other_class(int64_t target, int64_t classes, uint64_t seed, uint32_t number);

// Sparseness (Chalasani et al., ICML 2020): the Gini index of |map|, sorted upwards, Σ_i (2i − n − 1) m_i / (n Σ_i m_i).
double gini(std::span<const float> map);

// Pointing game (Zhang et al., ECCV 2016): 1 where the strongest place lies in one of the boxes (tolerance 0), else 0.
double pointing(std::span<const float> map, Shape image, std::span<const Box> boxes);
// Energy in the boxes (Wang et al., CVPR 2020, Score-CAM): Σ_{in a box} max(map, 0) / Σ max(map, 0).
double energy(std::span<const float> map, Shape image, std::span<const Box> boxes);

// What maps have to beat. Random: uniform numbers by counter; edges: the length of the image's gradient by Sobel's filters,
// summed over channels, border pixels repeated.
std::vector<float> random_map(Shape image, uint64_t seed, uint32_t number);
std::vector<float> edge_map(const float* x, Shape image);

// Paired bootstrap: the mean of a − b over `draws` resamples of the pairs; where 0 lies outside of low … high, the middle 95
// %, the difference is larger than chance.
struct PairedDifference {
  double mean = 0, low = 0, high = 0;
};
PairedDifference paired_bootstrap(std::span<const double> a, std::span<const double> b, uint64_t seed, int64_t draws = 2000);

}  // namespace switchback
