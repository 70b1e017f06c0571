#include "viz/methods/occlusion.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "viz/methods/batches.h"
#include "viz/methods/occlusion_runs.h"

namespace switchback {
namespace {

// Where masks begin along one axis.
std::vector<int64_t> starts(const char* axis, int64_t size, int64_t mask, int64_t stride, bool cover) {
  if (mask < 1 || stride < 1)
    throw Error(fmt::format("a mask of {} pixels at every {}th", mask, stride), "both are at least 1", true);
  if (mask > size)
    throw Error(fmt::format("a mask of {} pixels does not fit the image's {} of {}", mask, axis, size),
                fmt::format("--mask can be at most {}", size), true);
  std::vector<int64_t> all;
  for (int64_t at = 0; at + mask <= size; at += stride) all.push_back(at);
  if (cover && all.back() + mask < size) all.push_back(size - mask);
  return all;
}

// Writes score(x) − score(x occluded) of every unit for one run of places.
class Scores {
 public:
  Scores(const Explained& explained, Scoring scoring, int64_t places, float* map)
      : explained_(explained), scoring_(scoring), places_(places), map_(map) {}

  // values: of the target node, one item for each of `at`. Kept where the run is divided.
  void write(const Tensor& values, std::span<const size_t> at, PieceValues* keep) {
    for (size_t i = 0; i < at.size(); ++i) {
      const Tensor item = batch_item(values, int64_t(i));
      if (keep) keep->numbers.push_back(int64_t(at[i]));
      for (size_t t = 0; t < explained_.units.size(); ++t) {
        float& drop = map_[int64_t(t) * places_ + int64_t(at[i])];
        drop = float(explained_.scores[t] - score_of(explained_.units[t], scoring_, item));
        if (keep) keep->values.push_back(drop);
      }
    }
  }

  void take(const PieceValues& given) {
    const size_t units = explained_.units.size();
    CHECK(int64_t(given.numbers.size()) == places_ && given.values.size() == given.numbers.size() * units, "{} of {} places",
          given.numbers.size(), places_);
    for (size_t i = 0; i < given.values.size(); ++i)
      map_[int64_t(i % units) * places_ + given.numbers[i / units]] = given.values[i];
  }

 private:
  const Explained& explained_;
  Scoring scoring_;
  int64_t places_;
  float* map_;
};

void check_score(Score score, const Network& network, Shape image, const TargetSpec& target) {
  const Shape y = network.shapes(image)[size_t(target_node(network, target))];
  if (score != Score::logit && y.h * y.w > 1)
    throw Error(fmt::format("probabilities need a vector of outputs, not {}x{} maps", y.h, y.w), "use --score logit",
                true);
}

template <typename Method>
void run_images(Method& method, const Network& network, const Tensor& x, const TargetSpec& target,
                const std::vector<std::string>& labels, const OcclusionOptions& options, OcclusionMaps& maps) {
  const Shape image = image_shape(network, x);
  const int64_t images = x.dim(0), places = int64_t(maps.places.boxes.size());
  for (int64_t i = 0; i < images; ++i) {
    const float* pixels = x.data() + i * image.item();
    maps.explained.push_back(
        explain(network, target, method.set_image(pixels, baseline(options.fill, pixels, image)), labels));
    Scores scores(maps.explained.back(), scoring_of(network, target), places,
                  maps.values.data() + i * maps.values.dim(1) * places);
    int64_t done = i * places;
    if (options.pieces.given) scores.take(*options.pieces.given);
    method.run([&](std::span<const size_t> at, const Tensor& values) {
      scores.write(values, at, options.pieces.keep);
      done += int64_t(at.size());
      if (options.progress) options.progress(done, images * places);
    });
  }
  maps.batch = method.batch;
  maps.groups = method.groups();
  maps.flop_ratio = method.flop_ratio;
}

OcclusionMaps empty_maps(const Network& network, const Tensor& x, const TargetSpec& target,
                         const std::vector<std::string>& labels, const OcclusionOptions& options) {
  const Shape image = image_shape(network, x);
  OcclusionMaps maps;
  maps.places = occlusion_places(options, image);
  check_score(target.score, network, image, target);
  maps.values =
      allocate_maps({x.dim(0), check_target(network, image, target, labels), maps.places.rows, maps.places.cols});
  return maps;
}

}  // namespace

Places occlusion_places(const OcclusionOptions& options, Shape image) {
  Places places;
  if (!options.boxes.empty()) {
    for (const Box& b : options.boxes)
      if (b.row < 0 || b.col < 0 || b.height < 1 || b.width < 1 || b.row + int64_t(b.height) > image.h ||
          b.col + int64_t(b.width) > image.w)
        throw Error(
            fmt::format("the box {},{},{},{} does not lie inside of the image", b.col, b.row, b.width, b.height),
            fmt::format("x,y,w,h with x + w <= {} and y + h <= {}", image.w, image.h), true);
    places.boxes = options.boxes;
    places.rows = 1;
    places.cols = int64_t(options.boxes.size());
    return places;
  }
  const std::vector<int64_t> rows = starts("height", image.h, options.mask_h, options.stride_h, options.cover);
  const std::vector<int64_t> cols = starts("width", image.w, options.mask_w, options.stride_w, options.cover);
  for (int64_t r : rows)
    for (int64_t c : cols)
      places.boxes.push_back({int32_t(r), int32_t(c), int32_t(options.mask_h), int32_t(options.mask_w)});
  places.rows = int64_t(rows.size());
  places.cols = int64_t(cols.size());
  return places;
}

OcclusionMaps occlusion(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                        const std::vector<std::string>& labels, const OcclusionOptions& options) {
  const Network& network = model.network;
  OcclusionMaps maps = empty_maps(network, x, target, labels, options);
  const Shape image = image_shape(network, x);
  const int node = target_node(network, target);
  const auto run = [&](auto&& method) { run_images(method, network, x, target, labels, options, maps); };
  if (options.algorithm == OcclusionOptions::Algorithm::full)
    run(FullOcclusion(ctx, model, image, node, options, maps.places));
  else
    run(IncrementalOcclusion(ctx, model, image, node, options, maps.places));
  return maps;
}

OcclusionMaps occlusion_preview(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                                const std::vector<std::string>& labels, const OcclusionOptions& options) {
  const Network& network = model.network;
  OcclusionMaps maps = empty_maps(network, x, target, labels, options);
  GradientOptions gradient_options;
  static_cast<RunOptions&>(gradient_options) = options;
  gradient_options.batch = 0;  // that of the occlusion counts places
  const Maps gradients = gradient(ctx, model, x, target, labels, gradient_options);
  maps.explained = gradients.explained;
  maps.batch = gradients.batch;
  const Shape image = image_shape(network, x);
  const int64_t targets = maps.values.dim(1), places = int64_t(maps.places.boxes.size());
  std::vector<double> sums(size_t((image.h + 1) * (image.w + 1)));  // of all pixels above and left of a corner
  for (int64_t map = 0; map < x.dim(0) * targets; ++map) {
    const float* pixels = x.data() + map / targets * image.item();
    const float* g = gradients.values.data() + map * image.item();
    const Tensor filled = baseline(options.fill, pixels, image);
    for (int64_t r = 0; r < image.h; ++r) {
      double row = 0;
      for (int64_t c = 0; c < image.w; ++c) {
        for (int64_t k = 0; k < image.c; ++k) {
          const int64_t at = (k * image.h + r) * image.w + c;
          row += double(g[at]) * (double(pixels[at]) - double(filled[at]));
        }
        sums[size_t((r + 1) * (image.w + 1) + c + 1)] = row + sums[size_t(r * (image.w + 1) + c + 1)];
      }
    }
    const auto corner = [&](int64_t r, int64_t c) { return sums[size_t(r * (image.w + 1) + c)]; };
    for (int64_t p = 0; p < places; ++p) {
      const Box& b = maps.places.boxes[size_t(p)];
      maps.values[map * places + p] = float(corner(b.row + b.height, b.col + b.width) - corner(b.row, b.col + b.width) -
                                            corner(b.row + b.height, b.col) + corner(b.row, b.col));
    }
  }
  return maps;
}

double rank_correlation(std::span<const float> a, std::span<const float> b) {
  CHECK(a.size() == b.size(), "ranks of {} and {} values", a.size(), b.size());
  const auto ranks = [](std::span<const float> v) {
    std::vector<size_t> order(v.size());
    std::iota(order.begin(), order.end(), size_t(0));
    std::sort(order.begin(), order.end(), [&](size_t i, size_t j) { return v[i] < v[j]; });
    std::vector<double> rank(v.size());
    for (size_t i = 0, j; i < order.size(); i = j) {
      for (j = i + 1; j < order.size() && v[order[j]] == v[order[i]];) ++j;
      for (size_t k = i; k < j; ++k) rank[order[k]] = double(i + j - 1) / 2;
    }
    return rank;
  };
  const std::vector<double> x = ranks(a), y = ranks(b);
  const double mean = (double(x.size()) - 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : std::numeric_limits<double>::quiet_NaN();
}

std::vector<float> pixel_average(const Places& places, const float* map, int64_t h, int64_t w) {
  std::vector<double> sum(size_t(h * w), 0);
  std::vector<int> count(size_t(h * w), 0);
  for (size_t p = 0; p < places.boxes.size(); ++p) {
    const Box& b = places.boxes[p];
    for (int64_t r = b.row; r < b.row + b.height; ++r)
      for (int64_t c = b.col; c < b.col + b.width; ++c) {
        sum[size_t(r * w + c)] += double(map[p]);
        ++count[size_t(r * w + c)];
      }
  }
  std::vector<float> mean(size_t(h * w));
  for (size_t i = 0; i < mean.size(); ++i)
    mean[i] = count[i] ? float(sum[i] / count[i]) : std::numeric_limits<float>::quiet_NaN();
  return mean;
}

}  // namespace switchback
