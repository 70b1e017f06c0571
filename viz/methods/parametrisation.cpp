#include "viz/methods/parametrisation.h"

#include <algorithm>
#include <cmath>

#include "kernels/image/priors.h"

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

// Frequency of coefficient k of n, in cycles a pixel: numpy.fft.fftfreq.
double frequency(int64_t k, int64_t n) { return double(k < (n + 1) / 2 ? k : k - n) / double(n); }

}  // namespace

Parametrisation::Parametrisation(Context& ctx, const Model& model, const MaximizeOptions& options, Shape canvas)
    : ctx_(ctx), canvas_(canvas), fourier_(options.parts == MaximizeOptions::Parts::fourier), item_(canvas.item()) {
  using Parts = MaximizeOptions::Parts;
  const PixelUnits units = pixel_units(model, canvas.c);
  std::vector<float> all = colour_matrix(canvas.c, options.decorrelated, model.preprocess.order);
  std::vector<float> offset, fill;
  for (size_t c = 0; c < size_t(canvas.c); ++c) {
    const bool pixels = options.parts == Parts::pixels || fourier_;
    scale_.push_back(options.parts == Parts::input ? 1.f : options.parts == Parts::bytes && units.known ? units.scale[c] / 255 : units.scale[c]);
    offset.push_back(pixels ? units.offset[c] : 0.f);
    fill.push_back(fourier_ ? units.offset[c] + 0.5f * units.scale[c] : 0.f);
  }
  const size_t matrix = all.size();
  all.insert(all.end(), scale_.begin(), scale_.end());
  all.insert(all.end(), offset.begin(), offset.end());
  const auto put = [&](const std::vector<float>& values) {
    Memory memory = ctx.allocate(values.size() * sizeof(float));
    ctx.copy_in(memory.data(), values.data(), memory.size());
    return memory;
  };
  colours_memory_ = put(all);
  fill_ = put(fill);
  const float* at = colours_memory_.as<float>();
  colours_ = {at, at + matrix, at + matrix + scale_.size(), fourier_};
  if (!fourier_) return;

  // The inverse FFT as two products: along the columns on stacked real and imaginary parts, then along the rows.
  const int64_t h = canvas.h, w = canvas.w, c = canvas.c, f = w / 2 + 1;
  frequencies_ = f;
  item_ = 2 * h * c * f;
  std::vector<float> factors(static_cast<size_t>(item_)), rows(size_t(4 * h * h)), rows_back(rows.size()), tables[4];
  for (int64_t part = 0; part < 2; ++part)
    for (int64_t u = 0; u < h; ++u)
      for (int64_t k = 0; k < c; ++k)
        for (int64_t v = 0; v < f; ++v) {
          const double radius = std::hypot(frequency(u, h), frequency(v, w)), least = 1.0 / double(std::max(h, w));
          factors[size_t(((part * h + u) * c + k) * f + v)] = float(std::sqrt(double(h * w)) / std::max(radius, least));
        }
  for (int64_t k = 0; k < h; ++k)
    for (int64_t u = 0; u < h; ++u) {
      const double angle = 2 * M_PI * double(k * u % h) / double(h), co = std::cos(angle), si = std::sin(angle);
      const double values[2][2] = {{co, -si}, {si, co}};
      for (int64_t a = 0; a < 2; ++a)
        for (int64_t b = 0; b < 2; ++b) {
          rows[size_t((a * h + k) * 2 * h + b * h + u)] = float(values[a][b]);
          rows_back[size_t((b * h + u) * 2 * h + a * h + k)] = float(values[a][b]);
        }
    }
  for (std::vector<float>& t : tables) t.resize(size_t(f * w));
  for (int64_t v = 0; v < f; ++v)
    for (int64_t j = 0; j < w; ++j) {
      const double angle = 2 * M_PI * double(v * j % w) / double(w);
      const double twice = (v == 0 || 2 * v == w ? 1.0 : 2.0) / double(h * w) / 4;
      tables[0][size_t(v * w + j)] = tables[2][size_t(j * f + v)] = float(twice * std::cos(angle));
      tables[1][size_t(v * w + j)] = tables[3][size_t(j * f + v)] = float(-twice * std::sin(angle));
    }
  std::vector<float> joined = factors;
  std::vector<size_t> begins{0};
  for (const std::vector<float>* t : {&rows, &rows_back, &tables[0], &tables[1], &tables[2], &tables[3]}) {
    begins.push_back(joined.size());
    joined.insert(joined.end(), t->begin(), t->end());
  }
  tables_ = put(joined);
  const float* base = tables_.as<float>();
  factors_ = base;
  rows_ = base + begins[1], rows_back_ = base + begins[2];
  real_ = base + begins[3], imaginary_ = base + begins[4], real_back_ = base + begins[5], imaginary_back_ = base + begins[6];
  planes_ = ctx.allocate(size_t(canvas.n * canvas.item()) * sizeof(float));
  dplanes_ = ctx.allocate(planes_.size());
  spectrum_ = ctx.allocate(size_t(2 * canvas.n * item_) * sizeof(float));
}

View Parametrisation::z(float* data, int64_t n) const {
  if (fourier_) return {data, {n, 1, 1, item_}, DType::f32};
  return {data, canvas_.with_n(n), DType::f32};
}

void Parametrisation::forward(const float* z, View canvas) {
  const int64_t n = canvas.shape.n;
  if (!fourier_) return colours_forward(ctx_, colours_, false, {z, canvas.shape, DType::f32}, canvas);
  const int64_t h = canvas.shape.h, w = canvas.shape.w, c = canvas.shape.c, f = frequencies_;
  float *scaled = spectrum_.as<float>(), *turned = scaled + n * item_;
  const Shape line{n, 1, 1, item_};
  scale_by(ctx_, factors_, {z, line, DType::f32}, {scaled, line, DType::f32});
  matrix_product(ctx_, {.batch = n, .m = 2 * h, .n = c * f, .k = 2 * h, .a_step = 0, .b_step = item_, .c_step = item_}, rows_,
                 scaled, turned);
  MatrixProduct along{.batch = n, .m = h * c, .n = w, .k = f, .a_step = item_, .b_step = 0, .c_step = h * c * w};
  matrix_product(ctx_, along, turned, real_, planes_.as<float>());
  along.add = true;
  matrix_product(ctx_, along, turned + h * c * f, imaginary_, planes_.as<float>());
  colours_forward(ctx_, colours_, true, {planes_.data(), canvas.shape, DType::f32}, canvas);
}

void Parametrisation::backward(const float* z, ConstView dcanvas, float* dz) {
  const int64_t n = dcanvas.shape.n;
  if (!fourier_)
    return colours_backward(ctx_, colours_, false, {z, dcanvas.shape, DType::f32}, dcanvas, {dz, dcanvas.shape, DType::f32});
  const int64_t h = dcanvas.shape.h, w = dcanvas.shape.w, c = dcanvas.shape.c, f = frequencies_;
  float *turned = spectrum_.as<float>() + n * item_, *scaled = spectrum_.as<float>();
  const View planes{planes_.data(), dcanvas.shape, DType::f32}, dplanes{dplanes_.data(), dcanvas.shape, DType::f32};
  colours_backward(ctx_, colours_, true, planes, dcanvas, dplanes);
  const MatrixProduct along{.batch = n, .m = h * c, .n = f, .k = w, .a_step = h * c * w, .b_step = 0, .c_step = item_};
  matrix_product(ctx_, along, dplanes.as<float>(), real_back_, turned);
  matrix_product(ctx_, along, dplanes.as<float>(), imaginary_back_, turned + h * c * f);
  matrix_product(ctx_, {.batch = n, .m = 2 * h, .n = c * f, .k = 2 * h, .a_step = 0, .b_step = item_, .c_step = item_},
                 rows_back_, turned, scaled);
  const Shape line{n, 1, 1, item_};
  scale_by(ctx_, factors_, {scaled, line, DType::f32}, {dz, line, DType::f32});
}

}  // namespace switchback
