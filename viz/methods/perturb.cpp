#include "viz/methods/perturb.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "engine/run/plan.h"
#include "kernels/image/transform.h"
#include "kernels/noise/noise.h"
#include "viz/methods/fill.h"
#include "viz/methods/pixels.h"

namespace switchback {
namespace {

using Kind = Perturbation::Kind;

// hendrycks/robustness: impulse noise of make_cifar_c.py, make_tinyimagenet_c.py and make_imagenet_c.py; gaussian_blur of
// the last.
constexpr double kImpulseCifar[] = {0.01, 0.02, 0.03, 0.05, 0.07};
constexpr double kImpulseTiny[] = {0.01, 0.02, 0.05, 0.08, 0.14};
constexpr double kImpulse[] = {0.03, 0.06, 0.09, 0.17, 0.27};
constexpr double kBlur[] = {1, 2, 3, 4, 6};
constexpr int64_t kCifarSide = 32, kTinySide = 64;

// What the severity says for an image of this size.
Perturbation settled(Perturbation p, Shape image) {
  if (p.severity == 0) return p;
  const int64_t side = std::max(image.h, image.w);
  const size_t s = size_t(p.severity - 1);
  if (p.kind == Kind::blur) {
    p.amount = kBlur[s];
    p.radius = int64_t(std::ceil(4 * p.amount));
  } else {
    p.amount = side <= kCifarSide ? kImpulseCifar[s] : side <= kTinySide ? kImpulseTiny[s] : kImpulse[s];
  }
  return p;
}

void make_grey(const PixelUnits& units, ChannelOrder order, Shape image, const float* x, float* y) {
  constexpr float kShares[] = {0.299f, 0.587f, 0.114f};
  const int64_t plane = image.h * image.w;
  for (int64_t i = 0; i < plane; ++i) {
    float grey = 0;
    for (int color = 0; color < 3; ++color) {
      const size_t c = size_t(channel_of(color, order));
      grey += kShares[color] * (x[int64_t(c) * plane + i] - units.offset[c]) / units.scale[c];
    }
    for (int64_t c = 0; c < 3; ++c) y[c * plane + i] = grey * units.scale[size_t(c)] + units.offset[size_t(c)];
  }
}

void exchange(const Perturbation& p, const PixelUnits& units, ChannelOrder order, Shape image, const float* x, float* y) {
  const int64_t plane = image.h * image.w;
  for (int color = 0; color < 3; ++color) {
    const size_t from = size_t(channel_of(p.order[size_t(color)], order)), to = size_t(channel_of(color, order));
    const float *in = x + int64_t(from) * plane;
    float* out = y + int64_t(to) * plane;
    if (from == to) {
      std::copy_n(in, plane, out);
      continue;
    }
    for (int64_t i = 0; i < plane; ++i)
      out[i] = (in[i] - units.offset[from]) / units.scale[from] * units.scale[to] + units.offset[to];
  }
}

void add_salt_and_pepper(const Perturbation& p, const PixelUnits& units, Shape image, uint64_t seed, uint32_t number,
                         float* y) {
  const int64_t plane = image.h * image.w;
  for (int64_t e = 0; e < image.item(); e += 4) {
    const uint64_t block = uint64_t(e / 4);
    const std::array<uint32_t, 4> words = philox4x32({uint32_t(block), uint32_t(block >> 32), 1, number},
                                                     {uint32_t(seed), uint32_t(seed >> 32)});
    for (int64_t k = e; k < std::min(e + 4, image.item()); ++k) {
      const double u = unit_uniform(words[size_t(k - e)]);
      const size_t c = size_t(k / plane);
      if (u < p.amount / 2)
        y[k] = units.offset[c];
      else if (u < p.amount)
        y[k] = units.offset[c] + units.scale[c];
    }
  }
}

void add_noise(Context& ctx, const Perturbation& p, const PixelUnits& units, Shape image, const float* x, uint64_t seed,
               uint32_t number, float* y) {
  const std::vector<float> zeros(size_t(image.item()), 0.f);
  std::vector<float> normals(zeros.size());
  write_noisy_input(ctx, zeros.data(), {.sigma = 1, .seed = seed, .image = number}, {normals.data(), image, DType::f32});
  read_nchw(ctx, {normals.data(), image, DType::f32}, y);
  const int64_t plane = image.h * image.w;
  for (int64_t e = 0; e < image.item(); ++e) {
    const size_t c = size_t(e / plane);
    y[e] = std::clamp(x[e] + float(p.amount) * units.scale[c] * y[e], units.lowest(c), units.highest(c));
  }
}

// Rows and columns of the source for each place of the result, about the middle.
void turn(Context& ctx, const Perturbation& p, const PixelUnits& units, Shape image, const float* x, float* y) {
  const double angle = p.amount * std::numbers::pi / 180, cosine = std::cos(angle), sine = std::sin(angle);
  const double row = double(image.h - 1) / 2, column = double(image.w - 1) / 2;
  const float map[] = {float(cosine),  float(sine),   float(row - cosine * row - sine * column),
                       float(-sine), float(cosine), float(column + sine * row - cosine * column)};
  std::vector<float> in(size_t(image.item())), out(in.size());
  const View before{in.data(), image, DType::f32}, after{out.data(), image, DType::f32};
  write_nchw(ctx, x, before);
  affine_forward(ctx, map, units.offset.data(), before, after);
  read_nchw(ctx, after, y);
}

}  // namespace

Perturbation window_blur(int64_t side) {
  Perturbation p;
  p.kind = Kind::blur;
  p.radius = (side - 1) / 2;
  p.amount = 0.3 * (double(p.radius) - 1) + 0.8;
  return p;
}

void check_perturbation(const Perturbation& p, const Model& model, Shape image) {
  const bool known = pixel_units(model, image.c).known;
  if ((p.kind == Kind::grey || p.kind == Kind::channels) && (image.c != 3 || !known))
    throw Error(fmt::format("{} wants red, green and blue, but the input has {} channel{}{}", p.name, image.c,
                            image.c == 1 ? "" : "s", image.c == 3 ? " of unknown meaning" : ""),
                image.c == 3 ? "--preprocess FILE.json says how images become the input" : "leave it out of --kind", true);
  if (p.kind == Kind::salt_pepper && !known)
    throw Error(fmt::format("{} makes values black or white, but nobody knows how images become this input", p.name),
                "--preprocess FILE.json says it", true);
  if (p.kind == Kind::blur && p.severity > 0 && std::max(image.h, image.w) <= kTinySide)
    throw Error(fmt::format("{} has constants for ImageNet's sizes, but the input is {}x{}", p.name, image.h, image.w),
                "blur:3 and blur:5 are for any size", true);
  if (p.kind == Kind::occlude && (p.box.row < 0 || p.box.col < 0 || p.box.row + p.box.height > image.h ||
                                  p.box.col + p.box.width > image.w))
    throw Error(fmt::format("{} does not lie inside of the input", p.name),
                fmt::format("x,y,w,h with x + w <= {} and y + h <= {}", image.w, image.h), true);
}

void perturb(Context& ctx, const Perturbation& given, const Model& model, Shape image, const float* x, uint64_t seed,
             uint32_t number, float* y) {
  image.n = 1;
  check_perturbation(given, model, image);
  CHECK(!ctx.gpu, "images are changed on the CPU");
  const Perturbation p = settled(given, image);
  const PixelUnits units = pixel_units(model, image.c);
  switch (p.kind) {
    case Kind::grey:
      return make_grey(units, model.preprocess.order, image, x, y);
    case Kind::channels:
      return exchange(p, units, model.preprocess.order, image, x, y);
    case Kind::blur:
      std::ranges::copy(blurred(x, image, p.amount, p.radius).values(), y);
      return;
    case Kind::gaussian:
      return add_noise(ctx, p, units, image, x, seed, number, y);
    case Kind::rotate:
      return turn(ctx, p, units, image, x, y);
    case Kind::salt_pepper:
      std::copy_n(x, image.item(), y);
      return add_salt_and_pepper(p, units, image, seed, number, y);
    case Kind::occlude: {
      std::copy_n(x, image.item(), y);
      fill_box(p.box, Tensor::zeros({image.c, image.h, image.w}), y, image);
      return;
    }
  }
}

}  // namespace switchback
