#include "engine/files/apng.h"

#include <algorithm>
#include <string>

#include "engine/files/png_chunks.h"
#include "kernels/check.h"

namespace switchback {
namespace {

constexpr size_t kSignature = 8, kFrame = 12;  // a chunk's length, kind and checksum

std::string number(uint32_t value, int bytes = 4) {
  std::string text;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) text.push_back(char(uint8_t(value >> shift)));
  return text;
}

struct Chunk {
  std::string_view kind, data;
};
std::vector<Chunk> chunks(std::string_view png) {
  std::vector<Chunk> all;
  for (size_t at = kSignature; at + kFrame <= png.size();) {
    size_t length = 0;
    for (size_t i = 0; i < 4; ++i) length = length << 8 | uint8_t(png[at + i]);
    all.push_back({png.substr(at + 4, 4), png.substr(at + 8, length)});
    at += kFrame + length;
  }
  return all;
}

}  // namespace

std::vector<uint8_t> apng_bytes(std::span<const Image> pictures, int milliseconds, int last, const PngTexts& texts) {
  CHECK(!pictures.empty() && milliseconds > 0 && last > 0 && std::max(milliseconds, last) < 65536,
        "an animation of {} pictures", pictures.size());
  std::vector<uint8_t> out;
  uint32_t sequence = 0;
  for (size_t i = 0; i < pictures.size(); ++i) {
    const Image& picture = pictures[i];
    CHECK(picture.width == pictures[0].width && picture.height == pictures[0].height &&
              picture.channels == pictures[0].channels,
          "pictures of different sizes in one animation");
    const std::vector<uint8_t> png = png_bytes(picture, i == 0 ? texts : PngTexts{});
    if (i == 0) out.assign(png.begin(), png.begin() + kSignature);
    const auto control = [&] {  // size, place, time in thousandths, nothing is kept of the picture before
      const int time = i + 1 == pictures.size() ? last : milliseconds;
      append_png_chunk(out, "fcTL",
                       number(sequence++) + number(uint32_t(picture.width)) + number(uint32_t(picture.height)) +
                           number(0) + number(0) + number(uint32_t(time), 2) + number(1000, 2) + number(0, 1) +
                           number(0, 1));
    };
    bool begun = false;
    for (const Chunk& c : chunks({reinterpret_cast<const char*>(png.data()), png.size()})) {
      if (c.kind == "IDAT") {
        if (!begun) control();
        begun = true;
        if (i == 0)
          append_png_chunk(out, "IDAT", c.data);
        else
          append_png_chunk(out, "fdAT", number(sequence++) + std::string(c.data));
      } else if (i == 0 && c.kind != "IEND") {
        append_png_chunk(out, c.kind, c.data);
        if (c.kind == "IHDR") append_png_chunk(out, "acTL", number(uint32_t(pictures.size())) + number(0));
      }
    }
  }
  append_png_chunk(out, "IEND", "");
  return out;
}

}  // namespace switchback
