#include <algorithm>

#include "kernels/noise/noise.h"
#include "viz/methods/batches.h"
#include "viz/methods/gradient.h"

namespace switchback {
namespace {

// Adds up gradients that are given, as accumulate_moments() does.
void add_given(const PieceValues& given, size_t size, std::vector<double>& sum, std::vector<double>& square) {
  CHECK(given.values.size() == given.numbers.size() * size, "{} values of {} samples", given.values.size(),
        given.numbers.size());
  sum.assign(size, 0);
  square.assign(square.size(), 0);
  for (size_t sample = 0; sample < given.numbers.size(); ++sample)
    for (size_t i = 0; i < sum.size(); ++i) {
      const double v = double(given.values[sample * sum.size() + i]);
      sum[i] += v;
      if (!square.empty()) square[i] += v * v;
    }
}

// The moment of one map from its sums: mean, mean of squares or variance, in double until the end.
void write_moment(SmoothGradOptions::Moment moment, const std::vector<double>& sum, const std::vector<double>& square,
                  int64_t samples, float* map) {
  for (size_t i = 0; i < sum.size(); ++i) {
    const double mean = sum[i] / double(samples);
    const double of_squares = square.empty() ? 0 : square[i] / double(samples);
    map[i] = float(moment == SmoothGradOptions::Moment::mean     ? mean
                   : moment == SmoothGradOptions::Moment::square ? of_squares
                                                                 : std::max(0.0, of_squares - mean * mean));
  }
}

}  // namespace

Maps smoothgrad(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                const std::vector<std::string>& labels, const SmoothGradOptions& options) {
  const Network& network = model.network;
  const Shape image = image_shape(network, x);
  const int64_t images = x.dim(0), targets = check_target(network, image, target, labels);
  if (options.samples < 1) throw Error(fmt::format("--samples {} is less than 1", options.samples), "", true);
  if (!(options.noise >= 0 && options.noise < 1e6))
    throw Error(fmt::format("--noise {} is no share of the value range", options.noise), "0.15 is usual", true);
  if (options.times_input && options.moment != SmoothGradOptions::Moment::mean)
    throw Error("--times-input is of mean gradients", "leave out --moment", true);
  CHECK(options.images.empty() || int64_t(options.images.size()) == images, "{} image numbers for {} images",
        options.images.size(), images);
  Sampler sampler(ctx, model, image, target, options, options.samples);
  Maps maps;
  maps.batch = sampler.batch;
  maps.values = allocate_maps({images, targets, image.c, image.h, image.w});
  std::vector<double> sum, square;
  if (options.moment != SmoothGradOptions::Moment::mean) square.assign(size_t(targets * image.item()), 0);
  for (int64_t i = 0; i < images; ++i) {
    const float* pixels = x.data() + i * image.item();
    maps.explained.push_back(explain(network, target, sampler.clean(pixels), labels));
    const auto [lo, hi] = std::minmax_element(pixels, pixels + image.item());
    const float sigma = float(options.noise * (double(*hi) - double(*lo)));
    const uint32_t number = options.images.empty() ? uint32_t(i) : options.images[size_t(i)];
    const auto write = [&](int64_t, View input) {
      const Noise noise{.sigma = sigma, .seed = options.seed, .image = number,
                        .more_samples = sampler.counter.as<uint32_t>()};
      write_noisy_input(ctx, sampler.pixels.as<float>(), noise, input);
    };
    const auto progress = [&](int64_t done) {
      if (options.progress) options.progress(i * options.samples + done, images * options.samples);
    };
    if (options.pieces.given)
      add_given(*options.pieces.given, size_t(targets * image.item()), sum, square);
    else
      sampler.accumulate(maps.explained.back().units, options.rule, options.samples, true, write, sum, square, progress,
                         options.pieces);
    float* map = maps.values.data() + i * targets * image.item();
    write_moment(options.moment, sum, square, options.samples, map);
    if (options.times_input) multiply_maps({map, size_t(targets * image.item())}, pixels, image.item());
  }
  return maps;
}

}  // namespace switchback
