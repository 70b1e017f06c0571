#include "engine/train/jitter.h"

#include <algorithm>
#include <cmath>

namespace switchback {
namespace {

constexpr float kRed = 0.2989f, kGreen = 0.587f, kBlue = 0.114f;  // of a grey value, as torchvision has them

float clamped(float v) { return std::clamp(v, 0.f, 1.f); }

// The planes of an image in colours.
struct Planes {
  float *red, *green, *blue;
  int64_t pixels;
  float grey(int64_t i) const { return kRed * red[i] + kGreen * green[i] + kBlue * blue[i]; }
};

// Red is 0 of a turn, green a third, blue two thirds.
void turn_hue(float turns, float& r, float& g, float& b) {
  const float most = std::max({r, g, b}), least = std::min({r, g, b}), range = most - least;
  if (range == 0) return;  // a grey has none
  float sixths = most == r ? (g - b) / range : most == g ? 2 + (b - r) / range : 4 + (r - g) / range;
  sixths += 6 * turns;
  sixths -= 6 * std::floor(sixths / 6);
  const int part = std::min(5, int(sixths));
  const float within = sixths - float(part), s = range / most;
  const float p = most * (1 - s), q = most * (1 - s * within), t = most * (1 - s * (1 - within));
  const float table[6][3] = {{most, t, p}, {q, most, p}, {p, most, t}, {p, q, most}, {t, p, most}, {most, p, q}};
  r = clamped(table[part][0]), g = clamped(table[part][1]), b = clamped(table[part][2]);
}

}  // namespace

DrawnJitter draw_jitter(const Jitter& how, const std::array<uint32_t, 4>& words, uint32_t order) {
  const auto between = [](uint32_t word, double first, double last) {
    return float(first + double(word) * 0x1p-32 * (last - first));
  };
  const auto factor = [&](uint32_t word, double a) { return between(word, std::max(0.0, 1 - a), 1 + a); };
  DrawnJitter d{.brightness = factor(words[0], how.brightness),
                .contrast = factor(words[1], how.contrast),
                .saturation = factor(words[2], how.saturation),
                .hue = between(words[3], -how.hue, how.hue)};
  // Fisher-Yates from the end, by the digits of one number below 24.
  auto digits = uint32_t(uint64_t(order) * 24 >> 32);
  for (uint32_t i = 3; i > 0; --i) std::swap(d.order[i], d.order[digits % (i + 1)]), digits /= i + 1;
  return d;
}

void apply_jitter(const DrawnJitter& drawn, Shape item, ChannelOrder order, float* pixels) {
  const int64_t plane = item.h * item.w;
  const bool colours = item.c == 3, bgr = order == ChannelOrder::bgr;
  const Planes p{pixels + (colours && bgr ? 2 * plane : 0), pixels + (colours ? plane : 0),
                 pixels + (colours && !bgr ? 2 * plane : 0), plane};
  for (const int what : drawn.order) {
    if (what == 0 && drawn.brightness != 1) {
      for (int64_t i = 0; i < item.item(); ++i) pixels[i] = clamped(drawn.brightness * pixels[i]);
    } else if (what == 1 && drawn.contrast != 1) {
      double sum = 0;
      for (int64_t i = 0; i < plane; ++i) sum += double(colours ? p.grey(i) : pixels[i]);
      const float rest = (1 - drawn.contrast) * float(sum / double(plane));
      for (int64_t i = 0; i < item.item(); ++i) pixels[i] = clamped(drawn.contrast * pixels[i] + rest);
    } else if (what == 2 && colours && drawn.saturation != 1) {
      for (int64_t i = 0; i < plane; ++i) {
        const float rest = (1 - drawn.saturation) * p.grey(i);
        for (float* v : {p.red, p.green, p.blue}) v[i] = clamped(drawn.saturation * v[i] + rest);
      }
    } else if (what == 3 && colours && drawn.hue != 0) {
      for (int64_t i = 0; i < plane; ++i) turn_hue(drawn.hue, p.red[i], p.green[i], p.blue[i]);
    }
  }
}

}  // namespace switchback
