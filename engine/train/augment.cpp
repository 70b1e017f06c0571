#include "engine/train/augment.h"

#include <algorithm>
#include <array>
#include <charconv>
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

}  // namespace

Augmentation parse_augmentation(const std::string& text) {
  Augmentation a;
  for (size_t first = 0; first < text.size();) {
    const size_t last = std::min(text.find(',', first), text.size());
    const std::string part = text.substr(first, last - first);
    first = last + 1;
    if (part == "flip") {
      a.flip = true;
      continue;
    }
    const bool crop = part.starts_with("crop:");
    const char* end = part.data() + part.size();
    const auto read = crop ? std::from_chars(part.data() + 5, end, a.crop) : std::from_chars_result{};
    if (!crop || read.ec != std::errc() || read.ptr != end || a.crop < 1 || a.crop > 1000)
      throw Error(fmt::format("there is no augmentation \"{}\"", part), "crop:PADDING, flip, or both with a comma", true);
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
  if (how.crop == 0 && !how.flip) return;
  const auto drawn = words(uint64_t(image), epoch, 1, seed);
  const int64_t down = how.crop > 0 ? below(drawn[0], 2 * how.crop + 1) - how.crop : 0;
  const int64_t right = how.crop > 0 ? below(drawn[1], 2 * how.crop + 1) - how.crop : 0;
  const bool mirrored = how.flip && drawn[2] % 2 == 1;
  const std::vector<float> from(pixels, pixels + item.item());
  for (int64_t c = 0; c < item.c; ++c)
    for (int64_t y = 0; y < item.h; ++y)
      for (int64_t x = 0; x < item.w; ++x) {
        const int64_t row = y + down, column = (mirrored ? item.w - 1 - x : x) + right;
        const bool inside = row >= 0 && row < item.h && column >= 0 && column < item.w;
        pixels[(c * item.h + y) * item.w + x] = inside ? from[size_t((c * item.h + row) * item.w + column)] : padding[size_t(c)];
      }
}

}  // namespace switchback
