// From pixels to a network's input, with torchvision's results on PIL images.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "engine/files/files.h"
#include "engine/files/image.h"
#include "engine/files/json.h"

namespace switchback {
namespace {

using nlohmann::json;
constexpr int64_t kLargestSide = 1 << 20;
constexpr std::pair<ChannelOrder, std::string_view> kOrders[] = {
    {ChannelOrder::rgb, "RGB"}, {ChannelOrder::bgr, "BGR"}, {ChannelOrder::grey, "gray"}};

void check_image(const Image& image) {
  CHECK(image.width > 0 && image.height > 0 && (image.channels == 1 || image.channels == 3) &&
            image.pixels.size() == size_t(image.width) * size_t(image.height) * size_t(image.channels),
        "image {}x{} with {} channels has {} bytes", image.width, image.height, image.channels, image.pixels.size());
}

// The taps of one axis: output i is the sum over t of weights[i * most + t] * input[first[i] + t], t < taps[i].
struct Taps {
  int most = 0;
  std::vector<int> first, taps, weights;
};

constexpr int kFractionBits = 32 - 8 - 2;  // of a weight: 255 times their sum stays inside int32

// A triangle, or the cubic kernel of Keys (1981) with a = -0.5, of a place's distance from the centre.
double weight_at(double distance, Interpolation interpolation) {
  if (interpolation == Interpolation::bilinear) return distance < 1 ? 1 - distance : 0;
  constexpr double a = -0.5;
  if (distance < 1) return ((a + 2) * distance - (a + 3)) * distance * distance + 1;
  return distance < 2 ? (((distance - 5) * distance + 8) * distance - 4) * a : 0;
}

// The kernel around each output's centre, made max(1, in/out) times as wide. The order of the operations, all in double, is
// Pillow's: its results are to be met to the last bit.
Taps make_taps(int64_t in, int64_t out, int64_t begin, int count, Interpolation interpolation) {
  const double scale = double(in) / double(out);
  const double stretch = std::max(scale, 1.0), inverse = 1.0 / stretch;
  const double width = (interpolation == Interpolation::bicubic ? 2 : 1) * stretch;
  Taps t;
  t.most = int(std::ceil(width)) * 2 + 1;
  t.first.resize(count);
  t.taps.resize(count);
  t.weights.assign(int64_t(count) * t.most, 0);
  std::vector<double> w(t.most);
  for (int i = 0; i < count; ++i) {
    const double center = (double(begin + i) + 0.5) * scale;
    const int64_t low = std::max<int64_t>(int64_t(center - width + 0.5), 0);
    const int64_t high = std::min<int64_t>(int64_t(center + width + 0.5), in);
    const int taps = int(high - low);
    double sum = 0;
    for (int k = 0; k < taps; ++k) {
      const double distance = std::abs((double(k + low) - center + 0.5) * inverse);
      w[k] = weight_at(distance, interpolation);
      sum += w[k];
    }
    for (int k = 0; k < taps; ++k) {
      const double share = sum != 0 ? w[k] / sum : w[k];
      t.weights[int64_t(i) * t.most + k] = int((share < 0 ? -0.5 : 0.5) + share * (1 << kFractionBits));
    }
    t.first[i] = int(low);
    t.taps[i] = taps;
  }
  return t;
}

uint8_t round_fixed(int sum) { return uint8_t(std::clamp(sum >> kFractionBits, 0, 255)); }
constexpr int kHalf = 1 << (kFractionBits - 1);

// Rows [row0, row0 + rows) of `image`, resampled along x.
Image resample_rows(const Image& image, const Taps& taps, int row0, int rows) {
  const int c = image.channels, width = int(taps.first.size());
  Image out = Image::blank(width, rows, c);
  for (int y = 0; y < rows; ++y) {
    uint8_t* to = out.at(0, y);
    for (int x = 0; x < width; ++x) {
      const int* w = taps.weights.data() + int64_t(x) * taps.most;
      const uint8_t* from = image.at(taps.first[x], row0 + y);
      for (int k = 0; k < c; ++k) {
        int sum = kHalf;
        for (int t = 0; t < taps.taps[x]; ++t) sum += from[t * c + k] * w[t];
        *to++ = round_fixed(sum);
      }
    }
  }
  return out;
}

// Resampled along y; row 0 of `image` is row `row0` of the taps' input.
Image resample_columns(const Image& image, const Taps& taps, int row0) {
  const int height = int(taps.first.size());
  Image out = Image::blank(image.width, height, image.channels);
  const int64_t stride = image.row_size();
  std::vector<int> sums(stride);
  for (int y = 0; y < height; ++y) {
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int t = 0; t < taps.taps[y]; ++t) {
      const int w = taps.weights[int64_t(y) * taps.most + t];
      const uint8_t* from = image.at(0, taps.first[y] - row0 + t);
      for (int64_t i = 0; i < stride; ++i) sums[i] += from[i] * w;
    }
    for (int64_t i = 0; i < stride; ++i) out.pixels[y * stride + i] = round_fixed(sums[i]);
  }
  return out;
}

Image cropped(const Image& image, int64_t left, int64_t top, int width, int height) {
  Image out = Image::blank(width, height, image.channels);
  for (int y = 0; y < height; ++y) std::copy_n(image.at(left, top + y), out.row_size(), out.at(0, y));
  return out;
}

// One axis of the centre crop: where it begins in the resized image (`from`), and where that part begins in the crop
// (`to`, behind zero padding when the image is the smaller one).
struct CropAxis {
  int64_t from = 0;
  int to = 0, length = 0;
};
CropAxis center_crop(int64_t size, int crop) {
  if (size <= crop) return {0, int((crop - size) / 2), int(size)};
  return {int64_t(std::nearbyint(double(size - crop) / 2.0)), 0, crop};  // half to even, as Python's round
}

}  // namespace

Image to_rgb(const Image& image) {
  check_image(image);
  if (image.channels == 3) return image;
  Image out{image.width, image.height, 3, std::vector<uint8_t>(image.pixels.size() * 3)};
  for (size_t i = 0; i < image.pixels.size(); ++i) std::fill_n(out.pixels.data() + 3 * i, 3, image.pixels[i]);
  return out;
}

Image to_grey(const Image& image) {
  check_image(image);
  if (image.channels == 1) return image;
  Image out{image.width, image.height, 1, std::vector<uint8_t>(image.pixels.size() / 3)};
  for (size_t i = 0; i < out.pixels.size(); ++i) {
    const uint8_t* p = image.pixels.data() + 3 * i;
    // 0.299, 0.587, 0.114 in 16 fractional bits
    out.pixels[i] = uint8_t((p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 0x8000u) >> 16);
  }
  return out;
}

Image resize(const Image& image, int64_t width, int64_t height, const Crop& part, Interpolation how) {
  check_image(image);
  const int64_t largest = std::numeric_limits<int32_t>::max();
  CHECK(width > 0 && height > 0 && width <= largest * 128 && height <= largest * 128, "cannot resize to {}x{}", width,
        height);
  CHECK(part.left >= 0 && part.top >= 0 && part.width > 0 && part.height > 0 && part.left + part.width <= width &&
            part.top + part.height <= height && int64_t(part.width) * part.height <= kMostPixels,
        "cannot make the part {}x{} at {},{} of an image resized to {}x{}", part.width, part.height, part.left,
        part.top, width, height);
  const bool along_x = width != image.width, along_y = height != image.height;
  if (!along_y) {
    if (!along_x) return cropped(image, part.left, part.top, part.width, part.height);
    return resample_rows(image, make_taps(image.width, width, part.left, part.width, how), int(part.top), part.height);
  }
  // First along x, only the rows that the pass along y asks for; 8 bits in between, as in Pillow.
  const Taps y = make_taps(image.height, height, part.top, part.height, how);
  const int row0 = y.first.front(), rows = y.first.back() + y.taps.back() - row0;
  const Image between = along_x ? resample_rows(image, make_taps(image.width, width, part.left, part.width, how), row0, rows)
                                : cropped(image, part.left, row0, part.width, rows);
  return resample_columns(between, y, row0);
}

Image resize_bilinear(const Image& image, int64_t width, int64_t height, const Crop& part) {
  return resize(image, width, height, part, Interpolation::bilinear);
}

Image resize(const Image& image, int64_t width, int64_t height, Interpolation how) {
  CHECK(width > 0 && height > 0 && width <= kMostPixels && height <= kMostPixels, "cannot resize to {}x{}", width,
        height);
  return resize(image, width, height, {0, 0, int(width), int(height)}, how);
}

Image resize_bilinear(const Image& image, int64_t width, int64_t height) {
  return resize(image, width, height, Interpolation::bilinear);
}

Preprocess imagenet_preprocess() {
  Preprocess p;
  p.scale = 1.0 / 255;
  p.mean = {0.485, 0.456, 0.406};
  p.std = {0.229, 0.224, 0.225};
  return p;
}

Preprocess lenet_preprocess() {
  Preprocess p;
  p.resize = Preprocess::Resize::direct;
  p.size = {28, 28};
  p.order = ChannelOrder::grey;
  p.scale = 1.0 / 255;
  p.mean = {0.1307};
  p.std = {0.3081};
  return p;
}

Image preprocessed_picture(const Image& image, const Preprocess& how) {
  const Image source = how.order == ChannelOrder::grey ? to_grey(image) : to_rgb(image);
  const int height = how.size[0], width = how.size[1];
  CHECK(height > 0 && width > 0 && how.resize_to > 0, "preprocessing to {}x{} by way of {}", width, height,
        how.resize_to);
  if (how.resize == Preprocess::Resize::direct) return resize(source, width, height, how.interpolation);
  // The shorter side becomes resize_to; the longer one is truncated to an integer.
  const int64_t shorter = std::min(source.width, source.height), longer = std::max(source.width, source.height);
  const int64_t long_side = how.resize_to * longer / shorter;
  const int64_t new_width = source.width <= source.height ? how.resize_to : long_side;
  const int64_t new_height = source.width <= source.height ? long_side : how.resize_to;
  const CropAxis x = center_crop(new_width, width), y = center_crop(new_height, height);
  Image part = resize(source, new_width, new_height, {x.from, y.from, x.length, y.length}, how.interpolation);
  if (x.length == width && y.length == height) return part;
  Image out = Image::blank(width, height, part.channels);
  for (int row = 0; row < y.length; ++row) std::copy_n(part.at(0, row), part.row_size(), out.at(x.to, y.to + row));
  return out;
}

Tensor preprocess(const Image& image, const Preprocess& how) {
  const Image picture = preprocessed_picture(image, how);
  const int64_t channels = how.channels(), pixels = int64_t(picture.width) * picture.height;
  CHECK(how.mean.empty() || int64_t(how.mean.size()) == channels, "{} means for {} channels", how.mean.size(),
        channels);
  CHECK(how.std.empty() || int64_t(how.std.size()) == channels, "{} stds for {} channels", how.std.size(), channels);
  Tensor out({1, channels, picture.height, picture.width});
  for (int64_t c = 0; c < channels; ++c) {
    float values[256];
    for (int v = 0; v < 256; ++v)
      values[v] = float((v * how.scale - (how.mean.empty() ? 0 : how.mean[c])) /
                        (how.std.empty() ? 1 : how.std[c]));
    const int64_t from = how.channels() == 3 ? channel_of(int(c), how.order) : c;
    for (int64_t i = 0; i < pixels; ++i) out[c * pixels + i] = values[picture.pixels[i * channels + from]];
  }
  return out;
}

namespace {

// Reads one key after the other of a preprocessing file; what is wrong is named.
class PreprocessReader {
 public:
  PreprocessReader(std::string path, json root) : path_(std::move(path)), root_(std::move(root)) {}

  [[noreturn]] void wrong(const std::string& key, const std::string& need) const {
    const std::string is = root_.contains(key) ? "is " + printable(root_[key].dump()) : "is missing";
    throw Error(fmt::format("{}: \"{}\" {}, it must be {}", path_, key, is, need), "tools/README.md has a table of all keys");
  }
  bool has(const std::string& key) const { return root_.contains(key) && !root_[key].is_null(); }
  std::string text(const std::string& key, const std::string& otherwise) const {
    if (!has(key)) return otherwise;
    if (!root_[key].is_string()) wrong(key, "a text");
    return root_[key].get<std::string>();
  }
  std::string choice(const std::string& key, const std::string& otherwise, const std::vector<std::string>& list) const {
    const std::string value = text(key, otherwise);
    if (std::find(list.begin(), list.end(), value) == list.end())
      wrong(key, fmt::format("\"{}\"", fmt::join(list, "\" or \"")));
    return value;
  }
  static int64_t as_side(const json& v) {
    return v.is_number_unsigned() && v.get<uint64_t>() <= uint64_t(kLargestSide) ? v.get<int64_t>() : 0;
  }
  int64_t side(const std::string& key) const {
    if (!has(key) || as_side(root_[key]) == 0) wrong(key, fmt::format("a whole number from 1 to {}", kLargestSide));
    return as_side(root_[key]);
  }
  std::array<int, 2> size(const std::string& key) const {
    const std::string need = "[height, width], whole numbers, at most 100 megapixels";
    if (!has(key) || !root_[key].is_array() || root_[key].size() != 2) wrong(key, need);
    const int64_t h = as_side(root_[key][0]), w = as_side(root_[key][1]);
    if (h == 0 || w == 0 || h * w > kMostPixels) wrong(key, need);
    return {int(h), int(w)};
  }
  double number(const std::string& key, double otherwise) const {
    if (!has(key)) return otherwise;
    if (!root_[key].is_number() || root_[key].get<double>() == 0) wrong(key, "a number other than 0");
    return root_[key].get<double>();
  }
  std::vector<double> numbers(const std::string& key, int count, bool zero_allowed) const {
    if (!has(key)) return {};
    const std::string need =
        fmt::format("a list of {} number{}{}", count, count == 1 ? "" : "s", zero_allowed ? "" : " other than 0");
    if (!root_[key].is_array() || int(root_[key].size()) != count) wrong(key, need);
    std::vector<double> out;
    for (const json& v : root_[key]) {
      if (!v.is_number() || (!zero_allowed && v.get<double>() == 0)) wrong(key, need);
      out.push_back(v.get<double>());
    }
    return out;
  }
  bool boolean(const std::string& key) const {
    if (!has(key)) return false;
    if (!root_[key].is_boolean()) wrong(key, "true or false");
    return root_[key].get<bool>();
  }

 private:
  std::string path_;
  json root_;
};

}  // namespace

std::string_view name_of(ChannelOrder order) {
  return std::find_if(std::begin(kOrders), std::end(kOrders), [&](const auto& o) { return o.first == order; })->second;
}

Preprocess load_preprocess(const std::string& path) {
  const std::string text = read_file(path, 1 << 20);
  json root;
  try {
    const auto shallow = [](int depth, json::parse_event_t, json&) {
      if (depth > 64) throw Error("nested too deeply");
      return true;
    };
    root = parse_json(text, shallow);
  } catch (const std::exception& e) {
    throw Error(fmt::format("{}: not valid JSON: {}", path, printable(e.what())), "tools/README.md has a table of all keys");
  }
  if (!root.is_object()) throw Error(fmt::format("{}: not a JSON object", path), "tools/README.md has a table of all keys");
  const PreprocessReader in(path, std::move(root));

  Preprocess out;
  const bool direct = in.choice("resize", "", {"shorter_side_then_center_crop", "direct"}) == "direct";
  out.resize = direct ? Preprocess::Resize::direct : Preprocess::Resize::shorter_side_then_center_crop;
  out.size = in.size("size");
  if (!direct) out.resize_to = in.side("resize_to");
  if (in.choice("interpolation", "bilinear", {"bilinear", "bicubic"}) == "bicubic") out.interpolation = Interpolation::bicubic;
  const std::string mode = in.has("mode") ? in.choice("mode", "", {"RGB", "L"}) : "";
  std::vector<std::string> orders;
  for (const auto& [order, name] : kOrders) orders.emplace_back(name);
  const std::string order = in.choice("channel_order", mode == "L" ? "gray" : "RGB", orders);
  out.order = kOrders[std::find(orders.begin(), orders.end(), order) - orders.begin()].first;
  if (!mode.empty() && (mode == "L") != (out.order == ChannelOrder::grey))
    in.wrong("channel_order", mode == "L" ? "\"gray\" for mode L" : "\"RGB\" or \"BGR\" for mode RGB");
  out.scale = in.number("scale", 1);
  out.mean = in.numbers("mean", out.channels(), true);
  out.std = in.numbers("std", out.channels(), false);
  // The labels file is looked for in the folder of this file.
  const std::string labels = in.text("labels", "");
  if (!labels.empty()) out.labels = (std::filesystem::path(path).parent_path() / labels).string();
  out.output = in.text("output", "");
  out.output_is_probability = in.boolean("output_is_probability");
  return out;
}

}  // namespace switchback
