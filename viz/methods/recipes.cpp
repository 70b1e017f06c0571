// What the authors of the recipes give; and what priors lower, measured.
#include <algorithm>
#include <cmath>

#include "viz/methods/maximize.h"
#include "viz/methods/pixels.h"

namespace switchback {

double mahendran_rate(int64_t h, int64_t w) { return double(h * w) * 0.05 * 80 * 80 / 6; }

MaximizeOptions recipe(std::string_view name) {
  using Parts = MaximizeOptions::Parts;
  MaximizeOptions o;
  if (name == "fleuret") {
    o.edges = 1;
    return o;
  }
  if (name == "amirli") {
    o.parts = Parts::pixels;
    o.start_mean = 128. / 255, o.start_noise = 0, o.start_span = 20. / 255;
    o.optimizer.weight_decay = 1e-6;
    o.mean = true;
    o.steps = 20, o.late_steps = 26, o.scales = 12, o.growth = 1.2;
    o.size = {56, 56};
    return o;
  }
  if (name.starts_with("yosinski")) {
    o.parts = Parts::bytes;
    o.start_noise = 10;
    o.update = MaximizeOptions::Update::capped;
    o.clip_pixels = o.keep_best = true;
    if (name == "yosinski") o.decay = 1e-4, o.blur = 1, o.steps = 1000, o.lr = 100, o.update = MaximizeOptions::Update::plain;
    else if (name == "yosinski-norm") o.blur = 0.5, o.small = {SmallPixels::By::norm, 50}, o.steps = 500, o.lr = 100;
    else if (name == "yosinski-decay") o.decay = 0.3, o.small = {SmallPixels::By::norm, 20}, o.steps = 750, o.lr = 100, o.update = MaximizeOptions::Update::plain;
    else if (name == "yosinski-contribution") o.blur = 0.5, o.small = {SmallPixels::By::contribution, 90}, o.steps = 1000, o.lr = 1e8;
    if (o.steps != 250) return o;
  }
  if (name == "mahendran") {
    constexpr double kBound = 80, kVariation = kBound / 6.5;
    o.parts = Parts::bytes;
    o.update = MaximizeOptions::Update::momentum;
    o.natural = {.range_weight = 1, .bound = float(kBound), .alpha = 6, .tv_weight = float(1 / (kVariation * kVariation)), .beta = 2};
    o.most_norm = 2 * kBound;
    const double reach = kBound / std::sqrt(3) / 0.95;  // 95 % of U(−1, 1) are within 0.95
    o.start_noise = 0, o.start_mean = -reach, o.start_span = 2 * reach;
    o.lr = 0;  // by the size: mahendran_rate
    o.weight = 10;
    o.steps = 300;
    o.jitter = 4;
    return o;
  }
  if (name == "lucid") {
    o.parts = Parts::fourier;
    o.decorrelated = true;
    o.mean = true;
    o.lr = 0.05, o.steps = 512;
    o.jitter = 12, o.rotate = 10, o.zoom = 0.1;
    o.redirect = 16;
    return o;
  }
  if (name == "maco") {
    o.parts = Parts::phase;
    o.decorrelated = true;
    o.mean = true;
    o.optimizer.kind = Optimizer::Kind::nadam;
    o.start_noise = 1;
    o.lr = 1, o.steps = 256;
    o.size = {512, 512};
    o.crops = 32;
    o.noise = 0.04 * std::sqrt(13. / 12);  // as N(0, 0.08²) + U(−0.04, 0.04) on pixels from −1 to 1 varies
    o.redirect = 0;
    return o;
  }
  throw Error(fmt::format("unknown recipe '{}'", name), fmt::format("one of {}", fmt::join(recipe_names(), ", ")), true);
}

std::vector<std::string> recipe_names() {
  return {"lucid", "maco", "fleuret", "amirli", "yosinski", "yosinski-norm", "yosinski-decay", "yosinski-contribution", "mahendran"};
}

ImageMeasures measure_image(const Model& model, const float* x, Shape image) {
  const PixelUnits units = pixel_units(model, image.c);
  ImageMeasures m;
  const int64_t map = image.h * image.w;
  for (int64_t c = 0; c < image.c; ++c) {
    std::vector<double> v(static_cast<size_t>(map));
    double mean = 0;
    for (int64_t i = 0; i < map; ++i) {
      v[size_t(i)] = (double(x[c * map + i]) - double(units.offset[size_t(c)])) / double(units.scale[size_t(c)]);
      mean += v[size_t(i)] / double(map);
    }
    for (int64_t i = 0; i < map; ++i) m.norm += std::pow(v[size_t(i)] - mean, 2);
    int64_t h = image.h, w = image.w;
    for (int64_t i = 0; i < map; ++i) {
      const double d1 = i % w + 1 < w ? v[size_t(i + 1)] - v[size_t(i)] : 0, d2 = i / w + 1 < h ? v[size_t(i + w)] - v[size_t(i)] : 0;
      m.variation += std::hypot(d1, d2);
    }
    constexpr double kTaps[5] = {1. / 16, 4. / 16, 6. / 16, 4. / 16, 1. / 16};
    while (std::min(h, w) > 5) {
      const auto at = [&](int64_t i, int64_t j) { return i < 0 || j < 0 || i >= h || j >= w ? 0.0 : v[size_t(i * w + j)]; };
      for (int64_t i = 0; i < h; ++i)
        for (int64_t j = 0; j < w; ++j) {
          double blurred = 0;
          for (int64_t a = -2; a <= 2; ++a)
            for (int64_t b = -2; b <= 2; ++b) blurred += kTaps[a + 2] * kTaps[b + 2] * at(i + a, j + b);
          m.edges += std::pow(at(i, j) - blurred, 2);
        }
      const int64_t half_h = h / 2 + 1, half_w = w / 2 + 1;
      std::vector<double> half(static_cast<size_t>(half_h * half_w));
      for (int64_t i = 0; i < half_h; ++i)
        for (int64_t j = 0; j < half_w; ++j)
          half[size_t(i * half_w + j)] =
              (at(2 * i - 1, 2 * j - 1) + at(2 * i - 1, 2 * j) + at(2 * i, 2 * j - 1) + at(2 * i, 2 * j)) / 4;
      v = std::move(half);
      h = half_h, w = half_w;
    }
  }
  m.norm = std::sqrt(m.norm);
  return m;
}

}  // namespace switchback
