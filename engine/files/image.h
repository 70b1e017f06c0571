// Pictures: decoding and encoding, and the preprocessing that makes a network's input of them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tensor.h"

namespace switchback {

// 8 bits a channel, rows top to bottom, channels interleaved: 3 = RGB, 1 = grey.
struct Image {
  int width = 0, height = 0, channels = 0;
  std::vector<uint8_t> pixels;  // (height, width, channels)
  static Image blank(int width, int height, int channels) {  // all 0
    return {width, height, channels, std::vector<uint8_t>(size_t(int64_t(width) * height * channels))};
  }
  int64_t row_size() const { return int64_t(width) * channels; }
  uint8_t* at(int64_t x, int64_t y) { return pixels.data() + y * row_size() + x * channels; }
  const uint8_t* at(int64_t x, int64_t y) const { return pixels.data() + y * row_size() + x * channels; }
  bool operator==(const Image&) const = default;
};

// ---- files (image.cpp)
inline constexpr int64_t kMostPixels = 100'000'000;

// PNG, JPEG, WebP, BMP or binary PGM/PPM, as RGB: alpha is dropped and grey replicated, as by PIL's convert("RGB").
// `upright`: turned as its EXIF orientation says, as by PIL's ImageOps.exif_transpose; else that is ignored, as by PIL.
Image load_image(const std::string& path, bool upright = false);
Image decode_image(const std::string& name, std::string_view file, bool upright = false);  // `name`: in errors
// texts: keyword and text of tEXt chunks, both ASCII.
using PngTexts = std::vector<std::pair<std::string, std::string>>;
std::vector<uint8_t> png_bytes(const Image& image, const PngTexts& texts = {});
void write_png(const std::string& path, const Image& image);

// ---- preprocessing (preprocess.cpp)
Image to_rgb(const Image& image);
Image to_grey(const Image& image);  // PIL's convert("L")

// Part of an image, in pixels of it.
struct Crop {
  int64_t left = 0, top = 0;
  int width = 0, height = 0;
};

enum class Interpolation { bilinear, bicubic };
// Resampling with antialias, bit-equal to Pillow's Image.resize(..., BILINEAR or BICUBIC) on 8-bit images.
Image resize(const Image& image, int64_t width, int64_t height, Interpolation interpolation);
Image resize_bilinear(const Image& image, int64_t width, int64_t height);
// The same, of which only `part` (inside width x height) is computed.
Image resize(const Image& image, int64_t width, int64_t height, const Crop& part, Interpolation interpolation);
Image resize_bilinear(const Image& image, int64_t width, int64_t height, const Crop& part);

// The colours of a network's input channels 0, 1 and 2 (or of its only one).
enum class ChannelOrder { rgb, bgr, grey };
std::string_view name_of(ChannelOrder order);  // "RGB", "BGR", "gray", as in --preprocess FILE.json
// Where red, green or blue (color 0, 1, 2) lies among three channels.
inline int channel_of(int color, ChannelOrder order) { return order == ChannelOrder::bgr ? 2 - color : color; }

// How images become input: (x * scale - mean) / std with x in 0..255. The fields are those of --preprocess FILE.json.
struct Preprocess {
  enum class Resize { shorter_side_then_center_crop, direct };
  Resize resize = Resize::shorter_side_then_center_crop;
  int64_t resize_to = 256;               // the shorter side; of no effect for `direct`
  Interpolation interpolation = Interpolation::bilinear;
  std::array<int, 2> size = {224, 224};  // height, width of the input
  ChannelOrder order = ChannelOrder::rgb;  // of the input's channels; `mode` L is order grey
  double scale = 1;
  std::vector<double> mean, std;  // one for each channel, in the input's order; empty = 0 and 1
  std::string labels;             // path of the labels file, or empty
  std::string output;             // name of the output node, or empty
  bool output_is_probability = false;
  int channels() const { return order == ChannelOrder::grey ? 1 : 3; }
};

Preprocess load_preprocess(const std::string& path);
Preprocess imagenet_preprocess();  // torchvision's
Preprocess lenet_preprocess();     // grey 28x28, (x/255 - 0.1307) / 0.3081

// What preprocess() sees before normalisation: resized and cropped, RGB or grey.
Image preprocessed_picture(const Image& image, const Preprocess& how);
Tensor preprocess(const Image& image, const Preprocess& how);  // [1, C, H, W]

}  // namespace switchback
