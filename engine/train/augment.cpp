#include "engine/train/augment.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numbers>
#include <numeric>

#include "engine/tensor.h"
#include "kernels/check.h"
#include "kernels/noise/noise.h"

namespace switchback {
namespace {

constexpr uint32_t kStream = 1u << 30;
const char* const kAugmentations =
    "crop:PADDING, flip, rotate:DEGREES, jitter:BRIGHTNESS[:CONTRAST[:SATURATION[:HUE]]], erase[:PROBABILITY], with commas between";

std::array<uint32_t, 4> words(uint64_t block, int64_t epoch, uint32_t what, uint64_t seed) {
  return philox4x32({uint32_t(block), uint32_t(epoch), what, kStream}, {uint32_t(seed), uint32_t(seed >> 32)});
}

// 0 … count − 1
int64_t below(uint32_t word, int64_t count) { return int64_t(uint64_t(word) * uint64_t(count) >> 32); }

// The numbers behind `name`, each after a colon, up to so many of them, none negative nor above `most`; false where `part` is
// none of these.
template <typename T>
bool read_part(const std::string& part, std::string_view name, T most, const std::vector<T*>& values) {
  if (!part.starts_with(name)) return false;
  const char *at = part.data() + name.size(), *end = part.data() + part.size();
  for (size_t i = 0; at != end; ++i) {
    if (*at != ':' || i == values.size()) return false;
    const auto read = std::from_chars(at + 1, end, *values[i]);
    if (read.ec != std::errc() || !(*values[i] >= 0 && *values[i] <= most)) return false;
    at = read.ptr;
  }
  return true;
}

// A plane [h,w] at a place between its pixels; `padding` outside.
float bilinear(const float* plane, int64_t h, int64_t w, double row, double column, float padding) {
  const auto r = int64_t(std::floor(row)), c = int64_t(std::floor(column));
  const auto at = [&](int64_t y, int64_t x) { return y >= 0 && y < h && x >= 0 && x < w ? plane[y * w + x] : padding; };
  const auto down = float(row - double(r)), right = float(column - double(c));
  return (1 - down) * ((1 - right) * at(r, c) + right * at(r, c + 1)) + down * ((1 - right) * at(r + 1, c) + right * at(r + 1, c + 1));
}

}  // namespace

Augmentation parse_augmentation(const std::string& text) {
  Augmentation a;
  for (size_t first = 0; first < text.size();) {
    const size_t last = std::min(text.find(',', first), text.size());
    const std::string part = text.substr(first, last - first);
    first = last + 1;
    Jitter& j = a.jitter;
    double probability = 0.5;
    if (part == "flip") a.flip = true;
    else if (read_part<int>(part, "crop", 1000, {&a.crop}) && a.crop > 0) continue;
    else if (read_part<double>(part, "rotate", 180, {&a.rotate}) && a.rotate > 0) continue;
    else if (read_part<double>(part, "jitter", 10, {&j.brightness, &j.contrast, &j.saturation, &j.hue}) && j.any() && j.hue <= 0.5) continue;
    else if (read_part<double>(part, "erase", 1, {&probability}) && probability > 0) a.erase = probability;
    else throw Error(fmt::format("there is no augmentation \"{}\"", part), kAugmentations, true);
  }
  return a;
}

std::vector<int64_t> epoch_order(int64_t images, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(images));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = images - 1; i > 0; --i)
    std::swap(order[i], order[below(words(uint64_t(i / 4), epoch, 0, seed)[i % 4], i + 1)]);
  return order;
}

namespace {

struct Draws {  // of one image in one epoch
  uint64_t seed;
  int64_t epoch, image;
  std::array<uint32_t, 4> operator()(uint32_t what) const { return words(uint64_t(image), epoch, what, seed); }
};

void move(const Augmentation& how, const Draws& draws, Shape item, std::span<const float> black, float* pixels) {
  const auto drawn = draws(1);
  const int64_t down = how.crop > 0 ? below(drawn[0], 2 * how.crop + 1) - how.crop : 0;
  const int64_t right = how.crop > 0 ? below(drawn[1], 2 * how.crop + 1) - how.crop : 0;
  const bool mirrored = how.flip && drawn[2] % 2 == 1;
  const double angle = how.rotate * (double(drawn[3]) * 0x1p-31 - 1) * std::numbers::pi / 180;
  const double cosine = std::cos(angle), sine = std::sin(angle), middle_row = double(item.h - 1) / 2, middle_column = double(item.w - 1) / 2;
  const std::vector<float> from(pixels, pixels + item.item());
  for (int64_t c = 0; c < item.c; ++c) {
    const float* plane = from.data() + c * item.h * item.w;
    for (int64_t y = 0; y < item.h; ++y)
      for (int64_t x = 0; x < item.w; ++x) {
        const int64_t row = y + down, column = (mirrored ? item.w - 1 - x : x) + right;
        float& to = pixels[(c * item.h + y) * item.w + x];
        if (row < 0 || row >= item.h || column < 0 || column >= item.w) {
          to = black[c];
        } else if (how.rotate == 0) {
          to = plane[row * item.w + column];
        } else {
          const double r = double(row) - middle_row, s = double(column) - middle_column;
          to = bilinear(plane, item.h, item.w, middle_row + cosine * r + sine * s, middle_column + cosine * s - sine * r, black[c]);
        }
      }
  }
}

void change_colours(const Augmentation& how, const Draws& draws, Shape item, const ColourUnits& units, float* pixels) {
  const int64_t plane = item.h * item.w;
  for (int64_t i = 0; i < item.item(); ++i) pixels[i] = pixels[i] * units.by[i / plane] + units.add[i / plane];
  apply_jitter(draw_jitter(how.jitter, draws(2), draws(3)[0]), item, units.order, pixels);
  for (int64_t i = 0; i < item.item(); ++i) pixels[i] = (pixels[i] - units.add[i / plane]) / units.by[i / plane];
}

// torchvision's RandomErasing: a box of 2 to 33 hundredths of the area, its height to its width 0.3 to 3.3; ten tries.
void erase_box(const Augmentation& how, const Draws& draws, Shape item, float* pixels) {
  constexpr int kTries = 10;
  constexpr double kLeast = 0.02, kMost = 0.33, kFlat = 0.3, kTall = 3.3;
  if (double(draws(3)[1]) * 0x1p-32 >= how.erase) return;
  for (uint32_t t = 0; t < kTries; ++t) {
    const auto drawn = draws(4 + t);
    const double area = double(item.h * item.w) * (kLeast + double(drawn[0]) * 0x1p-32 * (kMost - kLeast));
    const double ratio = kFlat * std::pow(kTall / kFlat, double(drawn[1]) * 0x1p-32);
    const int64_t h = std::llround(std::sqrt(area * ratio)), w = std::llround(std::sqrt(area / ratio));
    if (h >= item.h || w >= item.w) continue;
    const int64_t top = below(drawn[2], item.h - h + 1), left = below(drawn[3], item.w - w + 1);
    for (int64_t c = 0; c < item.c; ++c)
      for (int64_t y = top; y < top + h; ++y) std::fill_n(pixels + (c * item.h + y) * item.w + left, w, 0.f);
    return;
  }
}

}  // namespace

ColourUnits colour_units(const Preprocess& how) {
  ColourUnits units{.order = how.order, .black = {}, .by = {}, .add = {}};
  const Tensor black = preprocess(Image::blank(how.size[1], how.size[0], 3), how);
  for (size_t c = 0; c < size_t(how.channels()); ++c) {
    const double mean = how.mean.empty() ? 0 : how.mean[c], std = how.std.empty() ? 1 : how.std[c];
    units.black.push_back(black[int64_t(c) * how.size[0] * how.size[1]]);
    units.by.push_back(float(std / (255 * how.scale)));
    units.add.push_back(float(mean / (255 * how.scale)));
  }
  return units;
}

void augment(const Augmentation& how, uint64_t seed, int64_t epoch, int64_t image, Shape item, const ColourUnits& units, float* pixels) {
  const Draws draws{seed, epoch, image};
  if (how.crop > 0 || how.flip || how.rotate > 0) move(how, draws, item, units.black, pixels);
  if (how.jitter.any()) change_colours(how, draws, item, units, pixels);
  if (how.erase > 0) erase_box(how, draws, item, pixels);
}

}  // namespace switchback
