// Animated PNGs: the chunks that the format asks for, and every picture bit by bit.
#include "engine/files/apng.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <string>

#include "engine/files/png_chunks.h"

namespace switchback::test {
namespace {

struct Chunk {
  std::string kind, data;
};

std::vector<Chunk> chunks_of(const std::vector<uint8_t>& png) {
  std::vector<Chunk> all;
  const auto number = [&](size_t at) {
    return uint32_t(png[at]) << 24 | uint32_t(png[at + 1]) << 16 | uint32_t(png[at + 2]) << 8 | png[at + 3];
  };
  for (size_t at = 8; at + 12 <= png.size();) {
    const size_t length = number(at);
    const std::string body(png.begin() + long(at) + 4, png.begin() + long(at + 8 + length));
    EXPECT_EQ(number(at + 8 + length), uint32_t(crc32_z(0, reinterpret_cast<const Bytef*>(body.data()), body.size())));
    all.push_back({body.substr(0, 4), body.substr(4)});
    at += 12 + length;
  }
  return all;
}

TEST(Apng, HoldsEveryPicture) {
  std::vector<Image> pictures;
  for (int f = 0; f < 3; ++f) {
    Image image{.width = 5, .height = 4, .channels = 3, .pixels = std::vector<uint8_t>(60)};
    for (int i = 0; i < 60; ++i) image.pixels[size_t(i)] = uint8_t(i * (f + 1) + 7 * f);
    pictures.push_back(image);
  }
  const std::vector<uint8_t> file = apng_bytes(pictures, 250, 1500, {{"Software", "x"}});
  EXPECT_EQ(decode_image("a", {reinterpret_cast<const char*>(file.data()), file.size()}), pictures[0]);
  const std::vector<Chunk> all = chunks_of(file);
  std::string kinds, sequence;
  std::string header;
  std::vector<std::string> data(3);
  size_t frame = 0;
  for (const Chunk& c : all) {
    kinds += c.kind + " ";
    if (c.kind == "IHDR") header = c.data;
    if (c.kind == "acTL") {
      EXPECT_EQ(c.data, std::string("\0\0\0\3\0\0\0\0", 8));
    }
    if (c.kind == "fcTL") {
      sequence += c.data[3];
      EXPECT_EQ(c.data.size(), 26u);
      EXPECT_EQ(int(uint8_t(c.data[20])) << 8 | uint8_t(c.data[21]), frame == 2 ? 1500 : 250);
      ++frame;
    }
    if (c.kind == "IDAT") data[0] += c.data;
    if (c.kind == "fdAT") sequence += c.data[3], data[frame - 1] += c.data.substr(4);
  }
  EXPECT_EQ(kinds, "IHDR acTL tEXt fcTL IDAT fcTL fdAT fcTL fdAT IEND ");
  EXPECT_EQ(sequence, std::string("\0\1\2\3\4", 5));
  for (size_t f = 0; f < 3; ++f) {
    std::vector<uint8_t> png(file.begin(), file.begin() + 8);
    append_png_chunk(png, "IHDR", header);
    append_png_chunk(png, "IDAT", data[f]);
    append_png_chunk(png, "IEND", "");
    EXPECT_EQ(decode_image("b", {reinterpret_cast<const char*>(png.data()), png.size()}), pictures[f]) << f;
  }
}

}  // namespace
}  // namespace switchback::test
