// Decoding and encoding through stb_image and stb_image_write, whose implementations are compiled here and only here.
// stb trusts headers more than we do: sizes, memory and the ends of files are checked around it.
#include "engine/files/image.h"

#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string_view>

#include "engine/files/files.h"

namespace switchback {
namespace {

// No single block that the decoder asks for may be larger than the picture explains (a PNG's compressed data can
// otherwise unfold to gigabytes). Zeroed, so that data missing from a damaged file are at least always the same.
thread_local size_t largest_block = 0;
void* bounded_malloc(size_t bytes) { return bytes > largest_block ? nullptr : std::calloc(1, bytes); }
void* bounded_realloc(void* p, size_t bytes) { return bytes > largest_block ? nullptr : std::realloc(p, bytes); }

unsigned char* deflate_png(unsigned char* data, int bytes, int* out_bytes, int quality) {
  uLongf size = compressBound(uLong(bytes));
  auto* out = static_cast<unsigned char*>(std::malloc(size));
  if (!out) return nullptr;
  if (compress2(out, &size, data, uLong(bytes), quality) != Z_OK || size > uLongf(std::numeric_limits<int>::max())) {
    std::free(out);
    return nullptr;
  }
  *out_bytes = int(size);
  return out;
}

}  // namespace
}  // namespace switchback

#define STBI_MALLOC(size) switchback::bounded_malloc(size)
#define STBI_REALLOC(p, size) switchback::bounded_realloc(p, size)
#define STBI_FREE(p) std::free(p)
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_MAX_DIMENSIONS 1000000
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

#define STBIW_ZLIB_COMPRESS switchback::deflate_png
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>

namespace switchback {
namespace {

constexpr int64_t kLargestFile = int64_t(512) << 20;
constexpr const char* kFormats = "PNG, JPEG, BMP, PGM and PPM are read";

int64_t little_endian(std::string_view bytes, size_t at, int count) {
  int64_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | uint8_t(bytes[at + size_t(i)]);
  return value;
}
int64_t big_endian(std::string_view bytes, size_t at, int count) {
  int64_t value = 0;
  for (int i = 0; i < count; ++i) value = value << 8 | uint8_t(bytes[at + size_t(i)]);
  return value;
}

// What a look at the headers says. stb gives no reason for a size that it refuses, fills up what is missing at the end
// of JPEG and BMP files without a word, and (2.27) writes beyond its arrays for a JPEG Huffman table of over 256 codes.
// So it is given nothing that was not looked at.
struct Announced {
  int64_t width = -1, height = -1;  // -1: not found
  const char* problem = nullptr;
};
constexpr const char* kCutOff = "its data are cut off";

// Whether the Huffman tables of one DHT segment have at most 256 codes each; `at` is moved behind them.
bool huffman_tables_fit(std::string_view file, size_t& at) {
  int64_t left = big_endian(file, at, 2) - 2;
  at += 2;
  while (left > 0) {
    if (at + 17 > file.size()) return false;
    int64_t codes = 0;
    for (size_t i = 1; i <= 16; ++i) codes += uint8_t(file[at + i]);
    if (codes > 256) return false;
    at += size_t(17 + codes);
    left -= 17 + codes;
  }
  return true;
}

// Goes from marker to marker, through all scans, as stb does.
Announced look_at_jpeg(std::string_view file) {
  Announced out;
  bool in_scans = false;
  for (size_t at = 2; true;) {
    at = file.find('\xff', at);
    if (at != std::string_view::npos) at = file.find_first_not_of('\xff', at);
    if (at == std::string_view::npos || at + 3 > file.size()) {
      const bool ended = at != std::string_view::npos && uint8_t(file[at]) == 0xd9;
      if (!ended && in_scans) out.problem = kCutOff;  // without a scan it is for the decoder to judge
      return out;
    }
    const int marker = uint8_t(file[at++]);
    if (marker == 0xd9) return out;                                                  // end of image
    if (marker == 0 || marker == 1 || (marker >= 0xd0 && marker <= 0xd8)) continue;  // an escaped FF; no length
    if (marker == 0xc4) {
      if (huffman_tables_fit(file, at)) continue;
      out.problem = "a Huffman table is damaged";
      return out;
    }
    const bool frame = marker == 0xc0 || (marker > 0xc0 && marker <= 0xcf && marker % 4 != 0);
    if (frame && out.width == -1 && at + 7 <= file.size()) {
      out.height = big_endian(file, at + 3, 2);
      out.width = big_endian(file, at + 5, 2);
    }
    if (marker == 0xda) in_scans = true;
    at += size_t(big_endian(file, at, 2));
  }
}

Announced look_at_bmp(std::string_view file) {
  Announced out;
  if (file.size() < 30) return {-1, -1, kCutOff};
  const bool old = little_endian(file, 14, 4) == 12;  // OS/2 header
  out.width = old ? little_endian(file, 18, 2) : int32_t(little_endian(file, 18, 4));
  out.height = old ? little_endian(file, 20, 2) : std::abs(int64_t(int32_t(little_endian(file, 22, 4))));
  const int64_t bits = little_endian(file, old ? 24 : 28, 2), row = (out.width * bits + 31) / 32 * 4;
  // Sizes beyond the limit are refused for that; the products must not overflow here.
  const bool refused = out.width < 1 || out.width > kMostPixels || out.height > kMostPixels ||
                       out.width * out.height > kMostPixels;
  if (!refused && int64_t(file.size()) < little_endian(file, 10, 4) + row * out.height) out.problem = kCutOff;
  return out;
}

Announced look_at(std::string_view file) {
  if (file.substr(0, 2) == "\xff\xd8") return look_at_jpeg(file);
  if (file.substr(0, 2) == "BM") return look_at_bmp(file);
  // stb would also take fill bytes before a JPEG's first marker.
  if (file.substr(0, 8) != "\x89PNG\r\n\x1a\n") return {-1, -1, "unknown format"};
  if (file.size() < 24) return {-1, -1, kCutOff};
  if (file.substr(12, 4) != "IHDR") return {-1, -1, "its first chunk is not IHDR"};  // CgBI: Apple's own kind
  return {big_endian(file, 16, 4), big_endian(file, 20, 4)};
}

[[noreturn]] void not_an_image(const std::string& path, const std::string& why) {
  throw Error(fmt::format("{}: not an image that can be read ({})", path, printable(why)), kFormats);
}

void check_size(const std::string& path, int64_t width, int64_t height, size_t file_bytes) {
  if (width < 1 || height < 1) throw Error(fmt::format("{}: the image is {}x{}", path, width, height), "it is empty");
  if (width > kMostPixels || height > kMostPixels || width * height > kMostPixels)
    throw Error(
        fmt::format("{}: the image is {}x{}, more than {} megapixels", path, width, height, kMostPixels / 1'000'000),
        "scale it down first");
  // No format packs more than 8192 pixels into a byte (1-bit PNG at deflate's best).
  if (width * height / 16384 > int64_t(file_bytes))
    throw Error(
        fmt::format("{}: {} bytes cannot hold the {}x{} pixels that are announced", path, file_bytes, width, height),
        "the file is damaged");
}

// Binary PGM (P5) or PPM (P6) with 255 as the largest value: "P6 width height 255\n" and the bytes.
Image decode_pnm(const std::string& path, std::string_view file) {
  size_t at = 2;
  int64_t numbers[3];
  for (int64_t& number : numbers) {
    const auto space = [&] { return at < file.size() && std::strchr(" \t\r\n\v\f", file[at]) && file[at]; };
    while (space() || (at < file.size() && file[at] == '#')) {
      if (file[at] == '#') {
        at = std::min(file.find('\n', at), file.size());
      } else {
        ++at;
      }
    }
    number = -1;
    for (; at < file.size() && file[at] >= '0' && file[at] <= '9'; ++at) {
      number = (number < 0 ? 0 : number) * 10 + (file[at] - '0');
      if (number > 1'000'000'000) not_an_image(path, "a number in its header is too large");
    }
    if (number < 0) not_an_image(path, "its header is damaged");
  }
  ++at;  // the one whitespace behind the header
  const int64_t channels = file[1] == '6' ? 3 : 1;
  check_size(path, numbers[0], numbers[1], file.size());
  if (numbers[2] != 255) not_an_image(path, fmt::format("largest value {} where 255 is needed", numbers[2]));
  const size_t needed = size_t(numbers[0] * numbers[1] * channels);
  if (at > file.size() || file.size() - at < needed) not_an_image(path, "its data are cut off");
  Image out{int(numbers[0]), int(numbers[1]), int(channels), {}};
  out.pixels.assign(file.begin() + int64_t(at), file.begin() + int64_t(at + needed));
  return out;
}

Image decode_stb(const std::string& path, std::string_view file) {
  const auto* bytes = reinterpret_cast<const stbi_uc*>(file.data());
  int width = 0, height = 0, channels = 0;
  const Announced announced = look_at(file);
  if (announced.width != -1) check_size(path, announced.width, announced.height, file.size());
  if (announced.problem) not_an_image(path, announced.problem);
  largest_block = size_t(1) << 20;
  const bool known = stbi_info_from_memory(bytes, int(file.size()), &width, &height, &channels);
  if (!known) not_an_image(path, stbi_failure_reason() ? stbi_failure_reason() : "unknown format");
  check_size(path, width, height, file.size());

  largest_block = file.size() * 2 + 16 * size_t(width + 64) * size_t(height + 64);
  struct Free {
    void operator()(stbi_uc* p) const { std::free(p); }
  };
  const std::unique_ptr<stbi_uc, Free> pixels(
      stbi_load_from_memory(bytes, int(file.size()), &width, &height, &channels, 0));
  if (!pixels) not_an_image(path, stbi_failure_reason() ? stbi_failure_reason() : "damaged");
  CHECK(channels >= 1 && channels <= 4, "{}: {} channels", path, channels);
  // Alpha (the second of two channels, the fourth of four) is dropped.
  Image out{width, height, channels < 3 ? 1 : 3, {}};
  const size_t count = size_t(width) * size_t(height), keep = size_t(out.channels);
  out.pixels.resize(count * keep);
  for (size_t i = 0; i < count; ++i)
    std::memcpy(out.pixels.data() + i * keep, pixels.get() + i * size_t(channels), keep);
  return out;
}

}  // namespace

Image load_image(const std::string& path) {
  const std::string file = read_file(path, kLargestFile);
  if (file.empty()) throw Error(fmt::format("{}: the file is empty", path), kFormats);
  if (file.size() > 2 && file[0] == 'P' && (file[1] == '5' || file[1] == '6')) return to_rgb(decode_pnm(path, file));
  return to_rgb(decode_stb(path, file));
}

std::vector<uint8_t> png_bytes(const Image& image) {
  CHECK(image.width > 0 && image.height > 0 && (image.channels == 1 || image.channels == 3) &&
            image.pixels.size() == size_t(image.width) * size_t(image.height) * size_t(image.channels),
        "an image {}x{} with {} channels and {} bytes cannot be saved", image.width, image.height, image.channels,
        image.pixels.size());
  CHECK(image.pixels.size() + size_t(image.height) < size_t(1) << 30, "an image {}x{} is too large for a PNG",
        image.width, image.height);
  std::vector<uint8_t> out;
  const auto append = [](void* to, void* data, int bytes) {
    const auto* from = static_cast<const uint8_t*>(data);
    static_cast<std::vector<uint8_t>*>(to)->insert(static_cast<std::vector<uint8_t>*>(to)->end(), from, from + bytes);
  };
  const int done = stbi_write_png_to_func(append, &out, image.width, image.height, image.channels, image.pixels.data(),
                                          image.width * image.channels);
  CHECK(done && !out.empty(), "out of memory for a PNG of {}x{}", image.width, image.height);
  return out;
}

void write_png(const std::string& path, const Image& image) { write_file_atomically(path, png_bytes(image)); }

}  // namespace switchback
