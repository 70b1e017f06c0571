#include "viz/methods/parametrisation.h"

#include <algorithm>
#include <cmath>

#include "kernels/normalize/set_norm.h"
#include "viz/methods/batches.h"

namespace switchback {
namespace {

// Square roots of the colours' covariance over ImageNet (lucid, color.py); the largest of its columns' norms divides it.
constexpr double kAxes[3][3] = {{0.26, 0.09, 0.02}, {0.27, 0.00, -0.05}, {0.27, -0.09, 0.03}};

std::vector<float> colour_matrix(int64_t channels, bool decorrelated, ChannelOrder order) {
  std::vector<float> m(size_t(channels * channels), 0.f);
  for (int64_t c = 0; c < channels; ++c) m[size_t(c * channels + c)] = 1;
  if (!decorrelated || channels != 3) return m;
  double largest = 0;
  for (int d = 0; d < 3; ++d) largest = std::max(largest, std::hypot(kAxes[0][d], kAxes[1][d], kAxes[2][d]));
  for (int color = 0; color < 3; ++color)
    for (int d = 0; d < 3; ++d) m[size_t(3 * channel_of(color, order) + d)] = float(kAxes[color][d] / largest);
  return m;
}

// Input units of one of z where the input itself is driven: 1 with the inputs that torchvision's networks take, whose
// pixels deviate by about 1; a network of bytes is driven in the same deviations, since Fleuret's start, step and edges are
// of that size.
float input_unit(const PixelUnits& units, size_t c) {
  constexpr float kDeviation = 0.226f, kMostScale = 20;  // of ImageNet's pixels; torchvision's scale is 4.4, bytes' 255
  const float scale = std::abs(units.scale[c]);
  return units.known && scale > kMostScale ? scale * kDeviation : 1.f;
}

// The inverse of a matrix [3,3].
std::vector<float> inverse_of(const std::vector<float>& m) {
  const auto at = [&](int i, int j) { return double(m[size_t(3 * (i % 3) + j % 3)]); };
  const auto minor = [&](int i, int j) { return at(i + 1, j + 1) * at(i + 2, j + 2) - at(i + 1, j + 2) * at(i + 2, j + 1); };
  const double all = at(0, 0) * minor(0, 0) + at(0, 1) * minor(0, 1) + at(0, 2) * minor(0, 2);
  std::vector<float> inverse(9);
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) inverse[size_t(3 * i + j)] = float(minor(j, i) / all);
  return inverse;
}

// Frequency of coefficient k of n, in cycles a pixel: numpy.fft.fftfreq.
double frequency(int64_t k, int64_t n) { return double(k < (n + 1) / 2 ? k : k - n) / double(n); }

// Magnitudes [h,c,f] of a canvas: those of the law 1/f, or a spectrum's [C,H,F], between its rows and columns linearly, at
// the same frequencies in cycles a pixel.
std::vector<float> magnitudes(const Tensor* given, Shape canvas) {
  const int64_t h = canvas.h, w = canvas.w, c = canvas.c, f = w / 2 + 1;
  std::vector<float> all;
  for (int64_t u = 0; u < h; ++u)
    for (int64_t k = 0; k < c; ++k)
      for (int64_t v = 0; v < f; ++v) {
        const double fy = frequency(u, h), fx = double(v) / double(w);
        if (!given) {
          all.push_back(float(1 / std::max(std::hypot(fy, fx), 1.0 / double(std::max(h, w)))));
          continue;
        }
        const Tensor& spectrum = *given;
        const int64_t rows = spectrum.dim(1), columns = spectrum.dim(2);
        // Rows go round; W is not told by F, but 2·(F − 1) or one more of it are near enough.
        const double row = fy * double(rows), column = std::min(fx * 2 * double(columns - 1), double(columns - 1));
        const auto up = int64_t(std::floor(row)), left = std::min(int64_t(column), std::max<int64_t>(0, columns - 2));
        const double down = row - double(up), right = column - double(left);
        const auto value = [&](int64_t i, int64_t j) {
          return double(spectrum[(k * rows + (i % rows + rows) % rows) * columns + std::min(j, columns - 1)]);
        };
        all.push_back(float((1 - down) * ((1 - right) * value(up, left) + right * value(up, left + 1)) +
                            down * ((1 - right) * value(up + 1, left) + right * value(up + 1, left + 1))));
      }
  return all;
}

}  // namespace

Parametrisation::Parametrisation(Context& ctx, const Model& model, const MaximizeOptions& options, Shape canvas)
    : ctx_(ctx), canvas_(canvas), phase_(options.parts == MaximizeOptions::Parts::phase), item_(canvas.item()) {
  using Parts = MaximizeOptions::Parts;
  const bool fourier = phase_ || options.parts == Parts::fourier;
  const PixelUnits units = pixel_units(model, canvas.c);
  std::vector<float> all = colour_matrix(canvas.c, options.decorrelated, model.preprocess.order);
  std::vector<float> offset, fill;
  for (size_t c = 0; c < size_t(canvas.c); ++c) {
    const bool pixels = options.parts == Parts::pixels || fourier;
    scale_.push_back(options.parts == Parts::input ? input_unit(units, c) : options.parts == Parts::bytes && units.known ? units.scale[c] / 255 : units.scale[c]);
    offset.push_back(pixels ? units.offset[c] : 0.f);
    fill.push_back(fourier ? units.offset[c] + 0.5f * units.scale[c] : 0.f);
  }
  same_ = options.parts == Parts::input && std::ranges::all_of(scale_, [](float s) { return s == 1.f; });
  const size_t matrix = all.size();
  all.insert(all.end(), scale_.begin(), scale_.end());
  all.insert(all.end(), offset.begin(), offset.end());
  colours_memory_ = floats_on_device(ctx, all);
  fill_ = floats_on_device(ctx, fill);
  const float* at = colours_memory_.as<float>();
  colours_ = {fourier ? at : nullptr, at + matrix, at + matrix + scale_.size(), fourier};
  if (!fourier) return;

  fourier_.emplace(ctx, canvas.h, canvas.w, canvas.c, 0.25);
  item_ = phase_ ? fourier_->item() / 2 : fourier_->item();
  std::vector<float> factors = magnitudes(options.spectrum.get(), canvas);
  if (!phase_) {  // of both parts
    for (float& v : factors) v *= float(std::sqrt(double(canvas.h * canvas.w)));
    const std::vector<float> once = factors;
    factors.insert(factors.end(), once.begin(), once.end());
  }
  factors_ = floats_on_device(ctx, factors);
  planes_ = ctx.allocate(size_t(canvas.n * canvas.item()) * sizeof(float));
  dplanes_ = ctx.allocate(planes_.size());
  if (!phase_) return;
  phases_ = ctx.allocate(size_t(canvas.n * item_) * sizeof(float));
  coefficients_ = ctx.allocate(2 * phases_.size());
  even_ = ctx.allocate(planes_.size());
}

View Parametrisation::z(float* data, int64_t n) const {
  if (fourier_) return {data, {n, 1, 1, item_}, DType::f32};
  return {data, canvas_.with_n(n), DType::f32};
}

// Mean 0 and variance 1 over an item.
static NormSets whole_items(int64_t item) { return {.channels = item, .places = 1, .eps = 1e-10f}; }
static View items(void* data, int64_t n, int64_t item) { return {data, {n, item, 1, 1}, DType::f32}; }

void Parametrisation::forward(const float* z, View canvas) {
  const int64_t n = canvas.shape.n, plane = canvas.shape.item();
  if (same_) return ctx_.copy(canvas.data, z, size_t(canvas.shape.count()) * sizeof(float));
  if (!fourier_) return colours_forward(ctx_, colours_, false, {z, canvas.shape, DType::f32}, canvas);
  if (!phase_) {
    fourier_->forward(factors_.as<float>(), n, z, planes_.as<float>());
    return colours_forward(ctx_, colours_, true, {planes_.data(), canvas.shape, DType::f32}, canvas);
  }
  set_norm_forward(ctx_, whole_items(item_), {}, items(const_cast<float*>(z), n, item_), items(phases_.data(), n, item_));
  polar_forward(ctx_, factors_.as<float>(), n, item_, phases_.as<float>(), coefficients_.as<float>());
  fourier_->forward(nullptr, n, coefficients_.as<float>(), planes_.as<float>());
  set_norm_forward(ctx_, whole_items(plane), {}, items(planes_.data(), n, plane), items(even_.data(), n, plane));
  colours_forward(ctx_, colours_, true, {even_.data(), canvas.shape, DType::f32}, canvas);
}

void Parametrisation::backward(const float* z, ConstView dcanvas, float* dz) {
  const int64_t n = dcanvas.shape.n, plane = dcanvas.shape.item();
  if (same_) return ctx_.copy(dz, dcanvas.data, size_t(dcanvas.shape.count()) * sizeof(float));
  if (!fourier_)
    return colours_backward(ctx_, colours_, false, {z, dcanvas.shape, DType::f32}, dcanvas, {dz, dcanvas.shape, DType::f32});
  const View on{(phase_ ? even_ : planes_).data(), dcanvas.shape, DType::f32}, dplanes{dplanes_.data(), dcanvas.shape, DType::f32};
  colours_backward(ctx_, colours_, true, on, dcanvas, dplanes);
  if (!phase_) return fourier_->backward(factors_.as<float>(), n, dplanes.as<float>(), dz);
  set_norm_backward(ctx_, whole_items(plane), {}, items(dplanes_.data(), n, plane), items(planes_.data(), n, plane),
                    items(even_.data(), n, plane));  // what is even now is made anew in the next step
  fourier_->backward(nullptr, n, even_.as<float>(), coefficients_.as<float>());
  polar_backward(ctx_, factors_.as<float>(), n, item_, phases_.as<float>(), coefficients_.as<float>(), phases_.as<float>());
  set_norm_backward(ctx_, whole_items(item_), {}, items(phases_.data(), n, item_), items(const_cast<float*>(z), n, item_),
                    items(dz, n, item_));
}

Tensor mean_spectrum(Context& ctx, const Model& model, const Tensor& images, bool decorrelated) {
  const int64_t n = images.dim(0), c = images.dim(1), h = images.dim(2), w = images.dim(3), f = w / 2 + 1;
  const PixelUnits units = pixel_units(model, c);
  const std::vector<float> colours = colour_matrix(c, decorrelated, model.preprocess.order);
  const std::vector<float> axes = decorrelated && c == 3 ? inverse_of(colours) : colours;
  // The transform's adjoint: twice_v / (h·w) times the transform itself, where scale is 1.
  InverseFourier fourier(ctx, h, w, c);
  const Memory planes = ctx.allocate(size_t(h * c * w) * sizeof(float)), spectrum = ctx.allocate(size_t(fourier.item()) * sizeof(float));
  std::vector<double> sums(size_t(c * h * f), 0);
  std::vector<float> rows(size_t(h * c * w)), parts(size_t(fourier.item()));
  for (int64_t i = 0; i < n; ++i) {
    const float* x = images.data() + i * c * h * w;
    for (int64_t k = 0; k < c; ++k)
      for (int64_t p = 0; p < h * w; ++p) {
        double sum = 0;
        for (int64_t d = 0; d < c; ++d)
          sum += double(axes[size_t(k * c + d)]) * (double(x[d * h * w + p]) - double(units.offset[size_t(d)])) / double(units.scale[size_t(d)]);
        rows[size_t((p / w * c + k) * w + p % w)] = float(sum);
      }
    ctx.copy_in(planes.data(), rows.data(), planes.size());
    fourier.backward(nullptr, 1, planes.as<float>(), spectrum.as<float>());
    ctx.copy_out(parts.data(), spectrum.data(), spectrum.size());
    for (int64_t u = 0; u < h; ++u)
      for (int64_t k = 0; k < c; ++k)
        for (int64_t v = 0; v < f; ++v) {
          const size_t e = size_t((u * c + k) * f + v);
          const double back = double(h * w) / (v == 0 || 2 * v == w ? 1 : 2);
          sums[size_t((k * h + u) * f + v)] += back * std::hypot(double(parts[e]), double(parts[e + size_t(h * c * f)])) / double(n);
        }
  }
  Tensor mean({c, h, f});
  std::ranges::copy(sums, mean.data());
  return mean;
}

}  // namespace switchback
