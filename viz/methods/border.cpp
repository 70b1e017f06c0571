#include "viz/methods/border.h"

#include <algorithm>

#include "engine/run/frozen.h"
#include "viz/methods/batches.h"
#include "viz/methods/regions.h"
#include "viz/methods/target.h"

namespace switchback {
namespace {

constexpr int kHalvings = 30;  // beyond float32's 24 bits: inputs near 0 are finer

// The patterns of all images.
std::vector<Hash128> patterns(Context& ctx, const Model& model, const Tensor& x, const RunOptions& options) {
  const Shape image = image_shape(model.network, x);
  RegionCensus census(ctx, model, image, 1, options, x.dim(0));
  for (int64_t first = 0; first < x.dim(0); first += census.batch()) {
    const std::vector<int> labels(size_t(std::min(census.batch(), x.dim(0) - first)), 0);
    census.add(x.data() + first * image.item(), labels);
  }
  return census.report().hashes;
}

}  // namespace

std::vector<double> border_along(Context& ctx, const Model& model, const Tensor& x, const Tensor& to,
                                 const RunOptions& options) {
  check_piecewise_affine(model.network, logit_node(model.network));
  CHECK(x.dims() == to.dims(), "a way from {} to {}", to_string(x.dims()), to_string(to.dims()));
  RunOptions quiet = options;
  quiet.progress = {};
  const int64_t images = x.dim(0), item = x.count() / images;
  const std::vector<Hash128> own = patterns(ctx, model, x, quiet);
  std::vector<double> inside(size_t(images), 0), tried(size_t(images), 1), outside(size_t(images), 1);
  Tensor at(x.dims());
  for (int k = 0; k <= kHalvings; ++k) {
    for (int64_t i = 0; i < x.count(); ++i) {
      const double t = tried[size_t(i / item)];
      at[i] = t == 1 ? to[i] : float(double(x[i]) + t * (double(to[i]) - double(x[i])));
    }
    const std::vector<Hash128> now = patterns(ctx, model, at, quiet);
    for (size_t i = 0; i < size_t(images); ++i) {
      if (now[i] == own[i])
        inside[i] = tried[i];
      else
        outside[i] = tried[i];
      tried[i] = (inside[i] + outside[i]) / 2;
    }
    if (options.progress) options.progress(k, kHalvings);
  }
  return inside;
}

}  // namespace switchback
