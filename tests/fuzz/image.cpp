// Pictures (engine/files/image.h).
#include "engine/files/image.h"

#include <webp/decode.h>

#include "tests/fuzz/fuzz.h"

using namespace switchback;

namespace {

// Larger pictures that are read at all are left out: they go the same way and take long.
constexpr int64_t kMostPixelsHere = 1 << 16;

// The decoder's blocks follow the picture's sizes and, in a PNG, what deflate can make of the file (1032 to 1; a block
// grows by doubling). A JPEG of 65536 x 1 pixels is padded to 32 rows, with three components and their coefficients.
constexpr fuzz::Allowance kAllowance{4 * 1032, 32 << 20};

bool too_large(int64_t width, int64_t height) {
  if (width > kMostPixels || height > kMostPixels || width * height > kMostPixels) return false;  // refused at once
  return width * height > kMostPixelsHere;
}

// Whether some place may announce a large picture. PGM and PPM cannot be larger than their file.
bool may_be_large(std::string_view file) {
  const auto big = [&](size_t at, int bytes) {
    int64_t value = 0;
    for (int i = 0; i < bytes; ++i) value = value << 8 | uint8_t(file[at + size_t(i)]);
    return value;
  };
  const auto little = [&](size_t at) { return int32_t(__builtin_bswap32(uint32_t(big(at, 4)))); };
  if (file.starts_with("\x89PNG")) return file.size() >= 24 && too_large(big(16, 4), big(20, 4));
  if (file.starts_with("BM")) {
    const bool old = file.size() >= 26 && little(14) == 12;  // OS/2 header
    return file.size() >= 26 && too_large(old ? little(18) & 0xffff : std::abs(int64_t(little(18))),
                                          old ? little(18) >> 16 & 0xffff : std::abs(int64_t(little(22))));
  }
  int width = 0, height = 0;
  if (file.starts_with("RIFF"))
    return WebPGetInfo(reinterpret_cast<const uint8_t*>(file.data()), file.size(), &width, &height) && too_large(width, height);
  if (!file.starts_with("\xff\xd8")) return false;
  for (size_t at = 2; at + 8 < file.size(); ++at)  // FF, C0 to C2, length, precision, height, width
    if (file[at] == '\xff' && uint8_t(file[at + 1]) >= 0xc0 && uint8_t(file[at + 1]) <= 0xc2 &&
        too_large(big(at + 5, 2), big(at + 7, 2)))
      return true;
  return false;
}

void check_written_again(const Image& image) {
  static fuzz::MemoryFile file;
  const std::vector<uint8_t> png = png_bytes(image);
  PROMISED(load_image(file.put(fuzz::text_of(png.data(), png.size()))) == image);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::MemoryFile file;
  const std::string_view bytes = fuzz::text_of(data, size);
  if (may_be_large(bytes)) return 0;
  file.put(bytes);
  fuzz::read_within(kAllowance, size, [&] {
    const Image image = load_image(file.path());
    PROMISED(image.width > 0 && image.height > 0 && image.channels == 3);
    PROMISED(image.pixels.size() == size_t(image.width) * size_t(image.height) * 3);
    fuzz::touch(std::span<const uint8_t>(image.pixels));
    if (image.pixels.size() <= 3 * 1024) check_written_again(image);
  });
  return 0;
}
