#include <algorithm>
#include <cmath>

#include "kernels/noise/noise.h"
#include "viz/methods/batches.h"
#include "viz/methods/gradient.h"

namespace switchback {
namespace {

// x' of one image, [C,H,W].
std::vector<float> baseline_of(const IntegratedOptions& options, Shape image, const float* x) {
  std::vector<float> out(size_t(image.item()), 0.f);
  if (options.baseline == IntegratedOptions::Baseline::given) {
    std::copy_n(options.given.data(), out.size(), out.begin());
  } else if (options.baseline == IntegratedOptions::Baseline::mean) {
    const int64_t pixels = image.h * image.w;
    for (int64_t c = 0; c < image.c; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < pixels; ++i) sum += x[c * pixels + i];
      std::fill_n(out.begin() + c * pixels, pixels, float(sum / double(pixels)));
    }
  }
  return out;
}

void check_baseline(const IntegratedOptions& options, Shape image) {
  if (options.baseline != IntegratedOptions::Baseline::given) return;
  const Dims plain{image.c, image.h, image.w}, batch{1, image.c, image.h, image.w};
  if (options.given.dims() != plain && options.given.dims() != batch)
    throw Error(
        fmt::format("the baseline has shape {}, the input {}", to_string(options.given.dims()), to_string(plain)),
        "both must be alike");
}

}  // namespace

double Completeness::error() const { return std::abs(sum - difference) / std::max(1.0, std::abs(difference)); }

Maps integrated(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                const std::vector<std::string>& labels, const IntegratedOptions& options) {
  const Network& network = model.network;
  const Shape image = image_shape(network, x);
  const int64_t images = x.dim(0), targets = check_target(network, image, target, labels), item = image.item();
  if (options.steps < 1) throw Error(fmt::format("--steps {} is less than 1", options.steps), "", true);
  check_baseline(options, image);
  Sampler sampler(ctx, model, image, target, options, options.steps);
  Maps maps;
  maps.batch = sampler.batch;
  maps.values = allocate_maps({images, targets, image.c, image.h, image.w});
  std::vector<float> alpha;  // midpoints of the steps
  for (int64_t k = 0; k < options.steps; ++k) alpha.push_back(float((double(k) + 0.5) / double(options.steps)));
  const Memory midpoints = floats_on_device(ctx, alpha), base = ctx.allocate(size_t(item) * sizeof(float));
  std::vector<double> sum, none;
  for (int64_t i = 0; i < images; ++i) {
    const float* pixels = x.data() + i * item;
    const std::vector<float> baseline = baseline_of(options, image, pixels);
    ctx.copy_in(base.data(), baseline.data(), base.size());
    maps.explained.push_back(explain(network, target, sampler.clean(pixels), labels));
    Explained& explained = maps.explained.back();
    const Tensor at_baseline = sampler.value(baseline.data());
    sampler.accumulate(
        explained.units, options.rule, options.steps, false,
        [&](int64_t first, View input) {
          write_interpolated_input(ctx, sampler.pixels.as<float>(), base.as<float>(), midpoints.as<float>() + first, input);
        },
        sum, none,
        [&](int64_t done) {
          if (options.progress) options.progress(i * options.steps + done, images * options.steps);
        });
    for (int64_t t = 0; t < targets; ++t) {
      Completeness complete;
      complete.difference =
          explained.scores[size_t(t)] - score_of(explained.units[size_t(t)], scoring_of(network, target), at_baseline);
      float* map = maps.values.data() + (i * targets + t) * item;
      for (int64_t e = 0; e < item; ++e) {
        const double v =
            (double(pixels[e]) - double(baseline[size_t(e)])) * sum[size_t(t * item + e)] / double(options.steps);
        complete.sum += v;
        map[e] = float(v);
      }
      explained.completeness.push_back(complete);
    }
  }
  return maps;
}

}  // namespace switchback
