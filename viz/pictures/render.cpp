#include "viz/pictures/render.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/check.h"

namespace switchback {
namespace {

void check_map(const float* map, int c, int h, int w) {
  CHECK(map != nullptr && c > 0 && h > 0 && w > 0, "cannot draw a map of {} channels, {} x {}", c, h, w);
}

void check_image(const Image& image) {
  CHECK(image.width > 0 && image.height > 0 && image.channels > 0 &&
            image.pixels.size() == size_t(image.width) * image.height * image.channels,
        "picture of {} x {} x {} holds {} bytes", image.width, image.height, image.channels, image.pixels.size());
}

void set_pixel(Image& image, size_t i, Rgb color) { std::copy(color.begin(), color.end(), &image.pixels[i * 3]); }

uint8_t to_byte(float v) { return uint8_t(std::lround(std::clamp(v, 0.0f, 255.0f))); }

Image resized_nearest(const Image& image, int width, int height) {
  Image out = blank_image(width, height, {0, 0, 0});
  for (int y = 0; y < height; y++) {
    const uint8_t* row = &image.pixels[size_t(int64_t(y) * image.height / height) * image.width * 3];
    uint8_t* to = &out.pixels[size_t(y) * width * 3];
    for (int x = 0; x < width; x++) std::copy_n(row + int64_t(x) * image.width / width * 3, 3, to + x * 3);
  }
  return out;
}

}  // namespace

Image blank_image(int width, int height, Rgb color) {
  CHECK(width > 0 && height > 0, "cannot make a picture of {} x {}", width, height);
  Image image;
  image.width = width;
  image.height = height;
  image.channels = 3;
  image.pixels.resize(size_t(width) * height * 3);
  for (size_t i = 0; i < size_t(width) * height; i++) set_pixel(image, i, color);
  return image;
}

Image heatmap(const float* map, int h, int w, ColorMap color_map, Range range) {
  check_map(map, 1, h, w);
  Image out = blank_image(w, h, {0, 0, 0});
  for (size_t i = 0; i < size_t(h) * w; i++) {
    set_pixel(out, i, color(color_map, unit_position(map[i], range, constant_position(color_map))));
  }
  return out;
}

std::vector<float> absolute_sum(const float* chw, int c, int h, int w) {
  check_map(chw, c, h, w);
  const size_t plane = size_t(h) * w;
  std::vector<float> sum(plane);
  for (int channel = 0; channel < c; channel++) {
    for (size_t i = 0; i < plane; i++) sum[i] += std::fabs(chw[channel * plane + i]);
  }
  return sum;
}

namespace {

Range clipped_range(std::span<const float> sum, double clip_percentile) {
  Range range = value_range(sum);
  // A map with few non-zero places may have its percentile at its minimum; then nothing is clipped.
  if (const float clip = percentile(sum, clip_percentile); clip > range.lo) range.hi = clip;
  return range;
}

}  // namespace

std::vector<float> channel_mean(const float* chw, int c, int h, int w) {
  const size_t plane = size_t(h) * w;
  std::vector<float> mean(plane);
  for (int channel = 0; channel < c; channel++) {
    for (size_t i = 0; i < plane; i++) mean[i] += chw[channel * plane + i] / float(c);
  }
  return mean;
}

std::vector<float> saliency_map(const float* chw, int c, int h, int w, double clip_percentile) {
  std::vector<float> sum = absolute_sum(chw, c, h, w);
  const Range range = clipped_range(sum, clip_percentile);
  for (float& v : sum) v = unit_position(v, range, 0);
  return sum;
}

Range saliency_range(const float* chw, int c, int h, int w, double clip_percentile) {
  return clipped_range(absolute_sum(chw, c, h, w), clip_percentile);
}

Image saliency_picture(const float* chw, int c, int h, int w, double clip_percentile) {
  return heatmap(saliency_map(chw, c, h, w, clip_percentile).data(), h, w, ColorMap::grey, {0, 1});
}

Image signed_rgb(const float* chw, int c, int h, int w, ChannelOrder order, double clip_percentile) {
  const Range range = signed_range(chw, c, h, w, clip_percentile);
  if (c == 1 || c == 3) return signed_rgb_in(chw, c, h, w, order, range);
  return heatmap(channel_mean(chw, c, h, w).data(), h, w, ColorMap::seismic, range);
}

Range signed_range(const float* chw, int c, int h, int w, double clip_percentile) {
  check_map(chw, c, h, w);
  if (c == 1 || c == 3) return symmetric_range({chw, size_t(c) * h * w}, clip_percentile);
  return symmetric_range(channel_mean(chw, c, h, w), clip_percentile);
}

Image signed_rgb_in(const float* chw, int c, int h, int w, ChannelOrder order, Range range) {
  check_map(chw, c, h, w);
  CHECK(c == 1 || c == 3, "signed RGB pictures have 1 or 3 channels, not {}", c);
  const size_t plane = size_t(h) * w;
  Image out = blank_image(w, h, {0, 0, 0});
  for (size_t i = 0; i < plane; i++) {
    Rgb rgb;
    bool finite = true;
    for (int k = 0; k < 3; k++) {
      const float t = unit_position(chw[(c == 1 ? 0 : channel_of(k, order)) * plane + i], range, 0.5f);
      finite = finite && !std::isnan(t);
      rgb[k] = finite ? to_byte(t * 255) : 0;
    }
    set_pixel(out, i, finite ? rgb : kNonFiniteColor);
  }
  return out;
}

std::vector<float> bilinear_map(const float* map, int h, int w, int out_h, int out_w) {
  check_map(map, 1, h, w);
  CHECK(out_h > 0 && out_w > 0, "cannot enlarge a map to {} x {}", out_h, out_w);
  // The two sources of each output place along one axis and the weight of the second.
  struct Pair {
    int a, b;
    float part;
  };
  auto pairs = [](int from, int to) {
    std::vector<Pair> out(to);
    for (int o = 0; o < to; o++) {
      const double place = std::clamp((o + 0.5) * from / to - 0.5, 0.0, double(from - 1));
      const int a = int(place), b = std::min(a + 1, from - 1);
      out[o] = {a, b, float(place - a)};
    }
    return out;
  };
  // A weight of exactly 0 leaves its value out, so that an infinity spreads no further than it must.
  auto mix = [](float a, float b, float part) { return part == 0 ? a : a * (1 - part) + b * part; };
  const std::vector<Pair> rows = pairs(h, out_h), columns = pairs(w, out_w);
  std::vector<float> out(size_t(out_h) * out_w);
  for (int y = 0; y < out_h; y++) {
    const float *upper = map + size_t(rows[y].a) * w, *lower = map + size_t(rows[y].b) * w;
    for (int x = 0; x < out_w; x++) {
      const auto [a, b, part] = columns[x];
      out[size_t(y) * out_w + x] = mix(mix(upper[a], upper[b], part), mix(lower[a], lower[b], part), rows[y].part);
    }
  }
  return out;
}

namespace {

// share(v): of the colour of a value.
template <typename Share>
Image blended(const Image& photo, const float* map, int h, int w, ColorMap color_map, float alpha, Range range,
              const Share& share) {
  CHECK(alpha >= 0 && alpha <= 1, "overlay strength {} is outside 0..1", alpha);
  check_image(photo);
  Image out = to_rgb(photo);
  const std::vector<float> large = bilinear_map(map, h, w, out.height, out.width);
  const Image colors = heatmap(large.data(), out.height, out.width, color_map, range);
  for (size_t i = 0; i < out.pixels.size(); i++) {
    const float s = share(large[i / 3]);
    out.pixels[i] = to_byte(float(out.pixels[i]) * (1 - s) + float(colors.pixels[i]) * s);
  }
  return out;
}

}  // namespace

Image overlay(const Image& photo, const float* map, int h, int w, ColorMap color_map, float alpha, Range range) {
  return blended(photo, map, h, w, color_map, alpha, range, [&](float) { return alpha; });
}

Image faded_overlay(const Image& photo, const float* map, int h, int w, ColorMap color_map, float alpha, Range range) {
  const float most = std::max(std::fabs(range.lo), std::fabs(range.hi));
  return blended(photo, map, h, w, color_map, alpha, range, [&](float v) {
    if (!std::isfinite(v)) return 1.0f;
    return most > 0 ? alpha * std::min(1.0f, std::fabs(v) / most) : 0.0f;
  });
}

Image resized(const Image& image, int width, int height) {
  CHECK(width > 0 && height > 0, "cannot resize a picture to {} x {}", width, height);
  check_image(image);
  const Image rgb = to_rgb(image);
  if (width == rgb.width && height == rgb.height) return rgb;
  const bool whole = width % rgb.width == 0 && height % rgb.height == 0;
  const bool large = width >= 4 * rgb.width && height >= 4 * rgb.height;
  return whole || large ? resized_nearest(rgb, width, height) : resize_bilinear(rgb, width, height);
}

Image enlarge_to_at_least(const Image& image, int min_side) {
  check_image(image);
  const int side = std::min(image.width, image.height);
  const int factor = std::max(1, (min_side + side - 1) / side);
  return resized(image, image.width * factor, image.height * factor);
}

void paste(Image& onto, const Image& picture, int x, int y) {
  CHECK(onto.channels == 3 && picture.channels == 3, "pasting needs RGB pictures, not {} and {} channels",
        onto.channels, picture.channels);
  const int left = std::max(x, 0), right = std::min(x + picture.width, onto.width);
  if (left >= right) return;
  for (int row = std::max(y, 0); row < std::min(y + picture.height, onto.height); row++) {
    const uint8_t* from = &picture.pixels[(size_t(row - y) * picture.width + (left - x)) * 3];
    std::copy_n(from, size_t(right - left) * 3, &onto.pixels[(size_t(row) * onto.width + left) * 3]);
  }
}

void fill_rectangle(Image& image, int x, int y, int width, int height, Rgb color) {
  for (int row = std::max(y, 0); row < std::min(y + height, image.height); row++) {
    for (int column = std::max(x, 0); column < std::min(x + width, image.width); column++) {
      set_pixel(image, size_t(row) * image.width + column, color);
    }
  }
}

}  // namespace switchback
