#include "viz/methods/fill.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace switchback {
namespace {

// Weights of the offsets -r … r.
std::vector<double> gaussian(double sigma, int64_t r) {
  std::vector<double> weights;
  double sum = 0;
  for (int64_t i = -r; i <= r; ++i) {
    weights.push_back(std::exp(-0.5 * double(i * i) / (sigma * sigma)));
    sum += weights.back();
  }
  for (double& w : weights) w /= sum;
  return weights;
}

// One line of n values, `stride` apart, with its ends repeated.
void blur_line(const std::vector<double>& weights, const double* x, double* y, int64_t n, int64_t stride) {
  const int64_t r = int64_t(weights.size()) / 2;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0;
    for (int64_t k = -r; k <= r; ++k) sum += weights[size_t(k + r)] * x[std::clamp<int64_t>(i + k, 0, n - 1) * stride];
    y[i * stride] = sum;
  }
}

void blur_channel(const std::vector<double>& weights, const float* x, float* y, int64_t h, int64_t w) {
  const std::vector<double> in(x, x + h * w);
  std::vector<double> rows(in.size()), out(in.size());
  for (int64_t r = 0; r < h; ++r) blur_line(weights, in.data() + r * w, rows.data() + r * w, w, 1);
  for (int64_t c = 0; c < w; ++c) blur_line(weights, rows.data() + c, out.data() + c, h, w);
  for (size_t i = 0; i < out.size(); ++i) y[i] = float(out[i]);
}

float mean_of(const float* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += x[i];
  return float(sum / double(count));
}

}  // namespace

double blur_sigma(const Fill& fill, Shape image) {
  return fill.sigma > 0 ? fill.sigma : 10.0 * double(std::min(image.h, image.w)) / 224;
}

Tensor blurred(const float* x, Shape image, double sigma, int64_t radius) {
  CHECK(sigma > 0 && sigma < 1e4 && radius >= 0, "a blur of sigma {} pixels, cut off at {}", sigma, radius);
  Tensor out({image.c, image.h, image.w});
  const int64_t plane = image.h * image.w;
  const std::vector<double> weights = gaussian(sigma, radius);
  for (int64_t c = 0; c < image.c; ++c) blur_channel(weights, x + c * plane, out.data() + c * plane, image.h, image.w);
  return out;
}

Tensor baseline(const Fill& fill, const float* x, Shape image) {
  CHECK(fill.sigma >= 0 && fill.sigma < 1e4, "a blur of sigma {} pixels", fill.sigma);
  if (fill.kind == Fill::Kind::blur) {
    const double sigma = blur_sigma(fill, image);
    return blurred(x, image, sigma, int64_t(std::ceil(4 * sigma)));
  }
  Tensor out({image.c, image.h, image.w});
  const int64_t plane = image.h * image.w;
  for (int64_t c = 0; c < image.c; ++c) {
    const float* in = x + c * plane;
    float* to = out.data() + c * plane;
    switch (fill.kind) {
      case Fill::Kind::zero:
        std::fill_n(to, plane, 0.f);
        break;
      case Fill::Kind::mean:
        std::fill_n(to, plane, mean_of(in, plane));
        break;
      case Fill::Kind::value:
        std::fill_n(to, plane, fill.value);
        break;
      case Fill::Kind::blur:
        break;  // above
    }
  }
  return out;
}

void fill_box(const Box& box, const Tensor& baseline, float* x, Shape image) {
  const int64_t top = std::max<int64_t>(0, box.row), bottom = std::min<int64_t>(image.h, box.row + box.height);
  const int64_t left = std::max<int64_t>(0, box.col), right = std::min<int64_t>(image.w, box.col + box.width);
  for (int64_t c = 0; c < image.c; ++c)
    for (int64_t r = top; r < bottom; ++r)
      for (int64_t q = left; q < right; ++q) {
        const int64_t i = (c * image.h + r) * image.w + q;
        x[i] = baseline[i];
      }
}

}  // namespace switchback
