#include "engine/train/augment.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numbers>
#include <numeric>

#include "kernels/check.h"
#include "kernels/noise/noise.h"

namespace switchback {
namespace {

constexpr uint32_t kStream = 1u << 30;

std::array<uint32_t, 4> words(uint64_t block, int64_t epoch, uint32_t what, uint64_t seed) {
  return philox4x32({uint32_t(block), uint32_t(epoch), what, kStream}, {uint32_t(seed), uint32_t(seed >> 32)});
}

// 0 … count − 1
int64_t below(uint32_t word, int64_t count) { return int64_t(uint64_t(word) * uint64_t(count) >> 32); }

// The number behind `name:`; false where `part` is none of these.
template <typename T>
bool read_part(const std::string& part, std::string_view name, T most, T& value) {
  if (!part.starts_with(name)) return false;
  const char *begin = part.data() + name.size(), *end = part.data() + part.size();
  const auto read = std::from_chars(begin, end, value);
  return read.ec == std::errc() && read.ptr == end && value > 0 && value <= most;
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
    if (part == "flip") a.flip = true;
    else if (!read_part(part, "crop:", 1000, a.crop) && !read_part(part, "rotate:", 180.0, a.rotate))
      throw Error(fmt::format("there is no augmentation \"{}\"", part), "crop:PADDING, flip, rotate:DEGREES, with commas between", true);
  }
  return a;
}

std::vector<int64_t> epoch_order(int64_t images, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(images));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = images - 1; i > 0; --i)
    std::swap(order[size_t(i)], order[size_t(below(words(uint64_t(i / 4), epoch, 0, seed)[size_t(i % 4)], i + 1))]);
  return order;
}

void augment(const Augmentation& how, uint64_t seed, int64_t epoch, int64_t image, Shape item, std::span<const float> padding,
             float* pixels) {
  if (how.crop == 0 && !how.flip && how.rotate == 0) return;
  const auto drawn = words(uint64_t(image), epoch, 1, seed);
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
          to = padding[size_t(c)];
        } else if (how.rotate == 0) {
          to = plane[row * item.w + column];
        } else {
          const double r = double(row) - middle_row, s = double(column) - middle_column;
          to = bilinear(plane, item.h, item.w, middle_row + cosine * r + sine * s, middle_column + cosine * s - sine * r, padding[size_t(c)]);
        }
      }
  }
}

}  // namespace switchback
