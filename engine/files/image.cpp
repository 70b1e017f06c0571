// Decoding and encoding through stb_image, stb_image_write and libwebp; stb's implementations are compiled here and only here.
// stb trusts headers more than we do: sizes, memory and the ends of files are checked around it.
#include "engine/files/image.h"

#include <webp/decode.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string_view>

#include "engine/files/files.h"
#include "engine/files/png_chunks.h"

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

using namespace std::string_view_literals;

namespace {

constexpr int64_t kLargestFile = int64_t(512) << 20;
constexpr const char* kFormats =
    "PNG, JPEG, WebP, BMP, PGM and PPM are read; others become one by `convert FILE FILE.png` of ImageMagick";
constexpr std::string_view kPngStart("\x89PNG\r\n\x1a\n", 8);

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

// The chunks of a PNG: calls `see` with the kind and data of each that is whole, until it returns false. Whether the
// last one, IEND, was met.
template <typename F>
bool for_each_png_chunk(std::string_view file, const F& see) {
  for (size_t at = kPngStart.size(); at + 12 <= file.size();) {
    const size_t bytes = size_t(big_endian(file, at, 4));
    if (bytes > file.size() - at - 12) return false;
    const std::string_view kind = file.substr(at + 4, 4);
    if (!see(kind, file.substr(at + 8, bytes)) || kind == "IEND") return true;
    at += bytes + 12;
  }
  return false;
}

Announced look_at(std::string_view file) {
  if (file.substr(0, 2) == "\xff\xd8") return look_at_jpeg(file);
  if (file.substr(0, 2) == "BM") return look_at_bmp(file);
  // stb would also take fill bytes before a JPEG's first marker.
  if (!file.starts_with(kPngStart))
    return {-1, -1, file.starts_with("GIF8")                                  ? "a GIF"
                    : file.starts_with("II*") || file.starts_with("MM\0*"sv) ? "a TIFF"
                                                                             : "unknown format"};
  if (file.size() < 24) return {-1, -1, kCutOff};
  if (file.substr(12, 4) != "IHDR") return {-1, -1, "its first chunk is not IHDR"};  // CgBI: Apple's own kind
  const bool whole = for_each_png_chunk(file, [](std::string_view, std::string_view) { return true; });
  return {big_endian(file, 16, 4), big_endian(file, 20, 4), whole ? nullptr : kCutOff};
}

// stb's words, which are meant for its own readers.
std::string why_stb_failed() {
  const char* reason = stbi_failure_reason();
  if (!reason) return "damaged";
  const std::string_view text(reason);
  if (text == "outofmem" || text == "too large") return "its data unfold to more than the picture";
  if (text == "outofdata" || text == "not enough pixels" || text == "read past buffer") return kCutOff;
  if (text == "unknown image type") return "unknown format";
  return std::string(text);
}

// ---- EXIF (CIPA DC-008): a TIFF header, then a first list of 12-byte entries

// The orientation, 1 (upright) to 8; 1 where nothing says otherwise.
int orientation_in(std::string_view exif) {
  if (exif.starts_with("Exif\0\0"sv)) exif.remove_prefix(6);
  const bool little = exif.starts_with("II*\0"sv);
  if (exif.size() < 10 || (!little && !exif.starts_with("MM\0*"sv))) return 1;
  const auto number = [&](size_t at, int bytes) {
    return size_t(little ? little_endian(exif, at, bytes) : big_endian(exif, at, bytes));
  };
  const size_t list = number(4, 4);
  if (list > exif.size() - 2) return 1;
  const size_t entries = std::min(number(list, 2), (exif.size() - list - 2) / 12);
  constexpr size_t kOrientation = 0x0112, kShort = 3;
  for (size_t i = 0; i < entries; ++i) {
    const size_t at = list + 2 + 12 * i;
    if (number(at, 2) != kOrientation || number(at + 2, 2) != kShort) continue;
    const size_t value = number(at + 8, 2);
    return value >= 1 && value <= 8 ? int(value) : 1;
  }
  return 1;
}

// The EXIF block of a JPEG (APP1), PNG (eXIf) or WebP (EXIF); empty where there is none.
std::string_view exif_of(std::string_view file) {
  std::string_view found;
  if (file.starts_with(kPngStart)) {
    for_each_png_chunk(file, [&](std::string_view kind, std::string_view data) {
      if (kind == "eXIf") found = data;
      return kind != "eXIf";
    });
  } else if (file.starts_with("RIFF")) {
    for (size_t at = 12; at + 8 <= file.size() && found.empty();) {
      const size_t bytes = size_t(little_endian(file, at + 4, 4));
      if (file.substr(at, 4) == "EXIF") found = file.substr(at + 8, bytes);
      at += 8 + bytes + bytes % 2;
    }
  } else if (file.starts_with("\xff\xd8")) {
    for (size_t at = 2; at + 4 <= file.size() && file[at] == '\xff' && found.empty();) {
      const size_t bytes = size_t(big_endian(file, at + 2, 2));
      if (uint8_t(file[at + 1]) == 0xda || bytes < 2) break;  // the picture itself
      const std::string_view data = file.substr(at + 4, bytes - 2);
      if (uint8_t(file[at + 1]) == 0xe1 && data.starts_with("Exif")) found = data;
      at += 2 + bytes;
    }
  }
  return found;
}

// Orientation 2: mirrored; 3: upside down; 4: both; 5 to 8: the same with rows and columns exchanged.
Image turned(const Image& image, int orientation) {
  if (orientation == 1) return image;
  const bool exchange = orientation >= 5;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const int width = exchange ? image.height : image.width, height = exchange ? image.width : image.height;
  Image out = Image::blank(width, height, image.channels);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const int along = exchange ? y : x, down = exchange ? x : y;  // in the file's picture
      const int column = from_right ? image.width - 1 - along : along, row = from_below ? image.height - 1 - down : down;
      std::copy_n(image.at(column, row), out.channels, out.at(x, y));
    }
  return out;
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
  if (!known) not_an_image(path, why_stb_failed());
  check_size(path, width, height, file.size());

  largest_block = file.size() * 2 + 16 * size_t(width + 64) * size_t(height + 64);
  struct Free {
    void operator()(stbi_uc* p) const { std::free(p); }
  };
  const std::unique_ptr<stbi_uc, Free> pixels(
      stbi_load_from_memory(bytes, int(file.size()), &width, &height, &channels, 0));
  if (!pixels) not_an_image(path, why_stb_failed());
  CHECK(channels >= 1 && channels <= 4, "{}: {} channels", path, channels);
  // Alpha (the second of two channels, the fourth of four) is dropped.
  Image out = Image::blank(width, height, channels < 3 ? 1 : 3);
  for (int64_t i = 0; i < int64_t(width) * height; ++i)
    std::copy_n(pixels.get() + i * channels, out.channels, out.at(i, 0));
  return out;
}

Image decode_webp(const std::string& path, std::string_view file) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(file.data());
  WebPBitstreamFeatures features;
  const VP8StatusCode found = WebPGetFeatures(bytes, file.size(), &features);
  if (found == VP8_STATUS_NOT_ENOUGH_DATA) not_an_image(path, kCutOff);
  if (found != VP8_STATUS_OK) not_an_image(path, "damaged");
  if (features.has_animation) not_an_image(path, "a WebP animation, not a picture");
  // One colour all over takes a few bytes, whatever the size: there is no bound by the file's.
  check_size(path, features.width, features.height, size_t(kMostPixels));
  Image out = Image::blank(features.width, features.height, 3);
  if (!WebPDecodeRGBInto(bytes, file.size(), out.pixels.data(), out.pixels.size(), out.width * 3))
    not_an_image(path, int64_t(file.size()) < little_endian(file, 4, 4) + 8 ? kCutOff : "damaged");
  return out;
}

}  // namespace

void append_png_chunk(std::vector<uint8_t>& out, std::string_view kind, std::string_view data) {
  const auto number = [&](uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) out.push_back(uint8_t(value >> shift));
  };
  number(uint32_t(data.size()));
  const size_t begin = out.size();
  out.insert(out.end(), kind.begin(), kind.end());
  out.insert(out.end(), data.begin(), data.end());
  number(uint32_t(crc32_z(0, out.data() + begin, out.size() - begin)));
}

Image decode_image(const std::string& name, std::string_view file, bool upright) {
  if (file.empty()) throw Error(fmt::format("{}: the file is empty", name), kFormats);
  const bool pnm = file.size() > 2 && file[0] == 'P' && (file[1] == '5' || file[1] == '6');
  const bool webp = file.starts_with("RIFF") && file.substr(0, 12).ends_with("WEBP");
  const Image image = to_rgb(pnm ? decode_pnm(name, file) : webp ? decode_webp(name, file) : decode_stb(name, file));
  return upright ? turned(image, orientation_in(exif_of(file))) : image;
}

Image load_image(const std::string& path, bool upright) { return decode_image(path, read_file(path, kLargestFile), upright); }

std::vector<uint8_t> png_bytes(const Image& image, const PngTexts& texts) {
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
  if (texts.empty()) return out;
  constexpr size_t kHeader = 8 + 12 + 13;  // signature and IHDR
  std::vector<uint8_t> with_texts(out.begin(), out.begin() + kHeader);
  for (const auto& [key, text] : texts) append_png_chunk(with_texts, "tEXt", key + std::string(1, '\0') + text);
  with_texts.insert(with_texts.end(), out.begin() + kHeader, out.end());
  return with_texts;
}

void write_png(const std::string& path, const Image& image) { write_file_atomically(path, png_bytes(image)); }

}  // namespace switchback
