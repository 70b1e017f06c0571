// Pictures: exact pixels, exact sizes, and the maps that break careless renderers (constant, sparse, NaN, 1 x 1).
#include "viz/pictures/render.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "viz/pictures/canvas.h"
#include "viz/pictures/color_scale.h"
#include "viz/pictures/grid.h"
#include "viz/pictures/label_map.h"
#include "viz/pictures/text.h"

namespace switchback {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr Rgb kBlack = {0, 0, 0}, kWhite = {255, 255, 255}, kMid = {128, 128, 128};

Rgb pixel(const Image& image, int x, int y) {
  const uint8_t* p = &image.pixels.at((size_t(y) * image.width + x) * 3);
  return {p[0], p[1], p[2]};
}

int count_color(const Image& image, Rgb wanted) {
  int n = 0;
  for (int y = 0; y < image.height; y++) {
    for (int x = 0; x < image.width; x++) n += pixel(image, x, y) == wanted;
  }
  return n;
}

// Left, top, right, bottom (inclusive) of the pixels that are not `background`; right < left when there are none.
std::array<int, 4> ink_box(const Image& image, Rgb background) {
  std::array<int, 4> box{image.width, image.height, -1, -1};
  for (int y = 0; y < image.height; y++) {
    for (int x = 0; x < image.width; x++) {
      if (pixel(image, x, y) == background) continue;
      box = {std::min(box[0], x), std::min(box[1], y), std::max(box[2], x), std::max(box[3], y)};
    }
  }
  return box;
}

void expect_size(const Image& image, int width, int height) {
  EXPECT_EQ(image.width, width);
  EXPECT_EQ(image.height, height);
  EXPECT_EQ(image.channels, 3);
  EXPECT_EQ(image.pixels.size(), size_t(image.width) * image.height * 3);
}

TEST(ColorMaps, EndsAndMiddles) {
  EXPECT_EQ(color(ColorMap::grey, 0), kBlack);
  EXPECT_EQ(color(ColorMap::grey, 0.5f), kMid);
  EXPECT_EQ(color(ColorMap::grey, 1), kWhite);
  EXPECT_EQ(color(ColorMap::seismic, 0), (Rgb{0, 0, 76}));
  EXPECT_EQ(color(ColorMap::seismic, 0.25f), (Rgb{0, 0, 255}));
  EXPECT_EQ(color(ColorMap::seismic, 0.5f), kWhite);
  EXPECT_EQ(color(ColorMap::seismic, 0.75f), (Rgb{255, 0, 0}));
  EXPECT_EQ(color(ColorMap::seismic, 1), (Rgb{127, 0, 0}));
  EXPECT_EQ(color(ColorMap::viridis, 0), (Rgb{68, 1, 84}));
  EXPECT_EQ(color(ColorMap::viridis, 1), (Rgb{253, 231, 37}));
}

TEST(ColorMaps, ViridisIsWithinTwoOfMatplotlibBetweenTheControlPoints) {
  const std::pair<int, Rgb> known[] = {{4, {70, 7, 90}},      {60, {61, 78, 138}},   {100, {42, 118, 142}},
                                       {128, {33, 145, 140}}, {200, {112, 207, 87}}, {252, {246, 230, 32}}};
  for (const auto& [index, wanted] : known) {
    const Rgb got = color(ColorMap::viridis, float(index) / 255);
    for (int c = 0; c < 3; c++) EXPECT_NEAR(got[c], wanted[c], 2) << "entry " << index << " channel " << c;
  }
}

TEST(ColorMaps, ClampsAndMarks) {
  for (const auto& [name, map] : kColorMaps) {
    EXPECT_EQ(name_of(map), name);
    EXPECT_EQ(color(map, -3), color(map, 0));
    EXPECT_EQ(color(map, 7), color(map, 1));
    EXPECT_EQ(color(map, kNan), kNonFiniteColor);
    for (int i = 0; i <= 1000; i++) ASSERT_NE(color(map, float(i) / 1000), kNonFiniteColor) << i;
  }
}

// Entries 0, 37, 64, 100, 128, 191, 222 and 255 of matplotlib 3.10's tables.
TEST(ColorMaps, AreMatplotlibs) {
  constexpr int kEntries[] = {0, 37, 64, 100, 128, 191, 222, 255};
  const std::pair<ColorMap, std::array<Rgb, 8>> known[] = {{ColorMap::inferno,
                                                            {{{0, 0, 4},
                                                              {41, 11, 85},
                                                              {87, 16, 110},
                                                              {144, 37, 104},
                                                              {188, 55, 84},
                                                              {249, 140, 10},
                                                              {249, 199, 47},
                                                              {252, 255, 164}}}},
                                                           {ColorMap::red_blue,
                                                            {{{5, 48, 97},
                                                              {48, 122, 182},
                                                              {107, 172, 209},
                                                              {204, 226, 239},
                                                              {247, 246, 246},
                                                              {229, 131, 104},
                                                              {189, 45, 53},
                                                              {103, 0, 31}}}},
                                                           {ColorMap::coolwarm,
                                                            {{{59, 76, 192},
                                                              {104, 138, 239},
                                                              {141, 176, 254},
                                                              {190, 210, 246},
                                                              {221, 220, 220},
                                                              {244, 154, 123},
                                                              {223, 99, 78},
                                                              {180, 4, 38}}}},
                                                           {ColorMap::jet,
                                                            {{{0, 0, 128},
                                                              {0, 20, 255},
                                                              {0, 128, 255},
                                                              {35, 255, 212},
                                                              {125, 255, 122},
                                                              {255, 152, 0},
                                                              {255, 37, 0},
                                                              {128, 0, 0}}}}};
  for (const auto& [map, wanted] : known)
    for (size_t i = 0; i < wanted.size(); ++i) {
      const Rgb got = color(map, float(kEntries[i]) / 255);
      for (size_t c = 0; c < 3; ++c)
        EXPECT_NEAR(got[c], wanted[i][c], 2) << name_of(map) << " entry " << kEntries[i] << " channel " << c;
    }
}

TEST(Ranges, PercentileAsNumpy) {
  // numpy.percentile([3,1,4,1,5,9,2,6], p)
  const std::vector<float> v = {3, 1, 4, 1, 5, 9, 2, 6};
  EXPECT_FLOAT_EQ(percentile(v, 0), 1);
  EXPECT_FLOAT_EQ(percentile(v, 25), 1.75f);
  EXPECT_FLOAT_EQ(percentile(v, 50), 3.5f);
  EXPECT_FLOAT_EQ(percentile(v, 99), 8.79f);
  EXPECT_FLOAT_EQ(percentile(v, 100), 9);
  EXPECT_EQ(percentile({}, 99), 0);
  EXPECT_EQ(percentile(std::vector<float>{7}, 99), 7);
  EXPECT_FLOAT_EQ(percentile(std::vector<float>{1, kNan, 2, -kInf, 3, kInf}, 50), 2);  // the finite ones
}

TEST(Ranges, SymmetricAndPositions) {
  const Range range = symmetric_range(std::vector<float>{-4, 1, kNan, 2});
  EXPECT_EQ(range.lo, -4);
  EXPECT_EQ(range.hi, 4);
  EXPECT_EQ(symmetric_range(std::vector<float>(9, 0.0f)).hi, 1);
  std::vector<float> sparse(1000, 0.0f);
  sparse[17] = -5;
  EXPECT_EQ(symmetric_range(sparse, 99).hi, 5);  // the percentile is 0: the largest instead
  EXPECT_EQ(value_range(std::vector<float>{kNan}).hi, 0);

  EXPECT_EQ(unit_position(0, {-4, 4}), 0.5f);
  EXPECT_EQ(unit_position(5, {-4, 4}), 1);
  EXPECT_EQ(unit_position(2, {2, 2}), 0);
  EXPECT_EQ(unit_position(2, {2, 2}, 0.5f), 0.5f);
  EXPECT_EQ(unit_position(3, {2, 2}), 1);
  EXPECT_TRUE(std::isnan(unit_position(kInf, {0, 1})));
  const float most = std::numeric_limits<float>::max();
  EXPECT_EQ(unit_position(0, {-most, most}), 0.5f);  // the width does not fit a float
}

TEST(Heatmap, PixelsConstantsAndNan) {
  const float map[] = {-1, 0, 1, kNan, 9, -kInf};
  const Image image = heatmap(map, 2, 3, ColorMap::seismic, {-1, 1});
  expect_size(image, 3, 2);
  EXPECT_EQ(pixel(image, 0, 0), (Rgb{0, 0, 76}));
  EXPECT_EQ(pixel(image, 1, 0), kWhite);
  EXPECT_EQ(pixel(image, 2, 0), (Rgb{127, 0, 0}));
  EXPECT_EQ(pixel(image, 0, 1), kNonFiniteColor);
  EXPECT_EQ(pixel(image, 1, 1), (Rgb{127, 0, 0}));
  EXPECT_EQ(pixel(image, 2, 1), kNonFiniteColor);
  const std::vector<float> constant(6, 3.5f);
  EXPECT_EQ(count_color(heatmap(constant.data(), 2, 3, ColorMap::grey, value_range(constant)), kBlack), 6);
  EXPECT_EQ(count_color(heatmap(constant.data(), 2, 3, ColorMap::seismic, value_range(constant)), kWhite), 6);
  EXPECT_THROW(heatmap(map, 0, 3, ColorMap::grey, {0, 1}), Error);
}

TEST(Saliency, AbsoluteSumClippedAtThePercentile) {
  // |v| summed over two channels: 0, 1, ..., 100; the 99th percentile is 99.
  std::vector<float> chw(2 * 101);
  for (int i = 0; i <= 100; i++) {
    chw[i] = -0.25f * float(i);
    chw[101 + i] = 0.75f * float(i);
  }
  const std::vector<float> map = saliency_map(chw.data(), 2, 1, 101);
  for (int i = 0; i <= 100; i++) ASSERT_NEAR(map[i], std::min(i / 99.0, 1.0), 1e-6) << i;
  const Image image = saliency_picture(chw.data(), 2, 1, 101);
  EXPECT_EQ(pixel(image, 0, 0), kBlack);
  EXPECT_EQ(pixel(image, 33, 0), (Rgb{85, 85, 85}));
  EXPECT_EQ(pixel(image, 100, 0), kWhite);
}

TEST(Saliency, HardMaps) {
  const std::vector<float> zero(3 * 16, 0.0f);
  EXPECT_EQ(count_color(saliency_picture(zero.data(), 3, 4, 4), kBlack), 16);
  std::vector<float> sparse(400, 0.0f);
  sparse[7] = -2;
  sparse[9] = 1;
  const Image image = saliency_picture(sparse.data(), 1, 20, 20);
  EXPECT_EQ(pixel(image, 7, 0), kWhite);
  EXPECT_EQ(pixel(image, 9, 0), kMid);
  EXPECT_EQ(count_color(image, kBlack), 398);
  const float one[] = {kNan};
  EXPECT_EQ(pixel(saliency_picture(one, 1, 1, 1), 0, 0), kNonFiniteColor);
}

TEST(SignedRgb, CentredOnGrey) {
  const std::vector<float> zero(3 * 4, 0.0f);
  EXPECT_EQ(count_color(signed_rgb(zero.data(), 3, 2, 2, ChannelOrder::rgb), kMid), 4);
  EXPECT_EQ(count_color(signed_rgb(zero.data(), 1, 2, 2, ChannelOrder::rgb), kMid), 4);
  EXPECT_EQ(count_color(signed_rgb(zero.data(), 2, 2, 2, ChannelOrder::rgb), kWhite), 4);  // seismic's zero
  // Two pixels, three channels: (2,-2,0) and (1,0,NaN).
  const float chw[] = {2, 1, -2, 0, 0, kNan};
  const Image image = signed_rgb(chw, 3, 1, 2, ChannelOrder::rgb, 100);
  EXPECT_EQ(pixel(image, 0, 0), (Rgb{255, 0, 128}));
  EXPECT_EQ(pixel(image, 1, 0), kNonFiniteColor);
  const Image grey = signed_rgb(chw, 1, 1, 2, ChannelOrder::rgb, 100);
  EXPECT_EQ(pixel(grey, 0, 0), kWhite);
  EXPECT_EQ(pixel(grey, 1, 0), (Rgb{191, 191, 191}));  // 127.5 + 127.5 / 2
  // The mean of two channels, (2 + -2) / 2 and (1 + 0) / 2.
  const Image mean = signed_rgb(chw, 2, 1, 2, ChannelOrder::rgb, 100);
  EXPECT_EQ(pixel(mean, 0, 0), kWhite);
  EXPECT_EQ(pixel(mean, 1, 0), (Rgb{127, 0, 0}));
}

TEST(SignedRgb, ClipsAtThePercentile) {
  std::vector<float> map(201);
  for (int i = 0; i <= 200; i++) map[i] = float(i == 200 ? 1000000 : i);  // the 99.5th percentile is 199
  const Image image = signed_rgb(map.data(), 1, 1, 201, ChannelOrder::rgb);
  EXPECT_EQ(pixel(image, 0, 0), kMid);
  EXPECT_EQ(pixel(image, 199, 0), kWhite);
  EXPECT_EQ(pixel(image, 200, 0), kWhite);
  EXPECT_EQ(pixel(image, 100, 0)[0], std::lround(127.5 + 127.5 * 100 / 199));
}

TEST(Overlay, BilinearAndBlended) {
  const float map[] = {0, 1};
  const std::vector<float> large = bilinear_map(map, 1, 2, 1, 4);  // half-pixel centres: 0, 1/4, 3/4, 1
  EXPECT_EQ(large, (std::vector<float>{0, 0.25f, 0.75f, 1}));
  const Image photo = blank_image(4, 1, {100, 200, 50});
  EXPECT_EQ(overlay(photo, map, 1, 2, ColorMap::grey, 0, {0, 1}).pixels, photo.pixels);
  const Image half = overlay(photo, map, 1, 2, ColorMap::grey, 0.5f, {0, 1});
  EXPECT_EQ(pixel(half, 0, 0), (Rgb{50, 100, 25}));
  EXPECT_EQ(pixel(half, 3, 0), (Rgb{178, 228, 153}));
  EXPECT_EQ(pixel(overlay(photo, map, 1, 2, ColorMap::grey, 1, {0, 1}), 1, 0), (Rgb{64, 64, 64}));
  EXPECT_THROW(overlay(photo, map, 1, 2, ColorMap::grey, 1.5f, {0, 1}), Error);
  // An infinity stays where it has weight: the outer places lie on the other value alone.
  const float infinite[] = {3, kInf};
  EXPECT_EQ(bilinear_map(infinite, 1, 2, 1, 4)[0], 3);
  Image grey;
  grey.width = grey.height = grey.channels = 1;
  grey.pixels = {80};
  EXPECT_EQ(pixel(overlay(grey, map, 1, 1, ColorMap::grey, 0.5f, {0, 1}), 0, 0), (Rgb{40, 40, 40}));
}

TEST(Overlay, FadesTowardsZero) {
  const float map[] = {-2, 0, 1, 2, kNan};
  const Image photo = blank_image(5, 1, {100, 100, 100});
  const Image faded = faded_overlay(photo, map, 1, 5, ColorMap::seismic, 0.5f, {-2, 2});
  EXPECT_EQ(pixel(faded, 0, 0), (Rgb{50, 50, 88}));     // half of (0,0,76)
  EXPECT_EQ(pixel(faded, 1, 0), (Rgb{100, 100, 100}));  // the photo
  EXPECT_EQ(pixel(faded, 2, 0), (Rgb{139, 75, 75}));    // a quarter of (255,0,0)
  EXPECT_EQ(pixel(faded, 3, 0), (Rgb{114, 50, 50}));    // half of (127,0,0)
  EXPECT_EQ(pixel(faded, 4, 0), kNonFiniteColor);
}

TEST(LabelOverlay, TheBackgroundShowsThePhoto) {
  const float scores[] = {1, 0, 0, 0, 1, 0, 0, 0, 1};  // 3 classes at 3 places: class i at place i
  const LabelMap map = label_map(scores, 3, 1, 3);
  const Image photo = blank_image(3, 1, {100, 150, 200});
  const std::vector<std::string> voc = {"background", "aeroplane", "bicycle"},
                                 streets = {"road", "sidewalk", "building"};
  const Image own = label_overlay(photo, map, voc, 0.5f);
  EXPECT_EQ(pixel(own, 0, 0), (Rgb{100, 150, 200}));
  EXPECT_EQ(pixel(own, 1, 0), (Rgb{114, 75, 100}));  // half of VOC's (128,0,0)
  const Image street = label_overlay(photo, map, streets, 0.5f);
  for (size_t c = 0; c < 3; ++c) EXPECT_GE(pixel(street, 0, 0)[c], photo.pixels[c] - 4) << "class 0 darkens nothing";
  EXPECT_NE(pixel(street, 0, 0), (Rgb{100, 150, 200}));
  EXPECT_EQ(pixel(street, 1, 0), pixel(own, 1, 0));
  EXPECT_GT(label_legend(map, voc, 2).height(), 50) << "two classes and how many more";
}

TEST(Resized, NearestForWholeFactorsSmoothOtherwise) {
  Image two = blank_image(2, 1, {10, 20, 30});
  fill_rectangle(two, 1, 0, 1, 1, {210, 220, 230});
  const Image six = resized(two, 6, 3);
  expect_size(six, 6, 3);
  for (int x = 0; x < 6; x++) EXPECT_EQ(pixel(six, x, 2), pixel(two, x / 3, 0)) << x;
  const Image three = resized(two, 3, 1);  // the middle one lies halfway
  EXPECT_EQ(pixel(three, 0, 0), (Rgb{10, 20, 30}));
  EXPECT_EQ(pixel(three, 1, 0), (Rgb{110, 120, 130}));
  EXPECT_EQ(pixel(three, 2, 0), (Rgb{210, 220, 230}));
  EXPECT_EQ(pixel(resized(two, 1, 1), 0, 0), (Rgb{110, 120, 130}));
  // A checkerboard shrinks to its mean, without aliasing; a plain picture stays plain at any size.
  Image board = blank_image(64, 64, kBlack);
  for (int i = 0; i < 64 * 64; i++) {
    if ((i / 64 + i) % 2) fill_rectangle(board, i % 64, i / 64, 1, 1, kWhite);
  }
  const Image small = resized(board, 7, 9);
  for (uint8_t v : small.pixels) EXPECT_NEAR(v, 127.5, 6);
  EXPECT_EQ(count_color(resized(blank_image(13, 7, {9, 99, 199}), 31, 5), {9, 99, 199}), 31 * 5);
  expect_size(enlarge_to_at_least(blank_image(28, 14, kBlack), 100), 224, 112);
  expect_size(enlarge_to_at_least(blank_image(300, 200, kBlack), 100), 300, 200);
  EXPECT_THROW(resized(two, 0, 4), Error);
}

TEST(Text, InkStaysWithinWidthAndHeight) {
  for (double size : {9.0, 12.0, 30.0}) {
    for (const std::string text : {"Ag", "jQ|", "Été", "Ω→y", "Щука", "W\nshort", "±0.5 ∂⊙"}) {
      Image image = blank_image(400, 120, kWhite);
      draw_text(image, 20, 10, text, kBlack, size);
      const auto [left, top, right, bottom] = ink_box(image, kWhite);
      EXPECT_GE(left, 19) << text;  // a glyph may reach a little to the left of its origin
      EXPECT_GE(top, 9 - size / 9) << text;  // as far as the accents of capitals reach
      EXPECT_LE(right, 20 + text_width(text, size)) << text;
      EXPECT_LE(bottom, 10 + text_height(text, size)) << text;
      EXPECT_GT(right - left, text_width(text, size) - size) << text;
    }
  }
  Image blank = blank_image(40, 40, kWhite);
  draw_text(blank, 4, 4, " \t ", kBlack);
  EXPECT_EQ(count_color(blank, kWhite), 1600);
}

std::vector<uint8_t> drawn_text(const std::string& text) {
  Image image = blank_image(60, 24, kWhite);
  draw_text(image, 4, 4, text, kBlack);
  return image.pixels;
}

TEST(Text, LatinGreekAndCyrillicHaveGlyphsOfTheirOwn) {
  const std::vector<uint8_t> unknown = drawn_text("\xE4\xB8\xAD");  // a Chinese character: a box
  EXPECT_NE(unknown, drawn_text(" "));
  std::vector<std::vector<uint8_t>> seen = {unknown};
  std::vector<std::string> characters;
  for (char c = '!'; c <= '~'; c++) characters.push_back(std::string(1, c));
  for (const char* c : {"é", "ß", "ø", "č", "ń", "ő", "α", "Σ", "ω", "ж", "Я", "щ", "ё", "Ї", "→", "≥", "…", "⊙", "−"})
    characters.push_back(c);
  for (const std::string& c : characters) {
    EXPECT_EQ(std::count(seen.begin(), seen.end(), drawn_text(c)), 0) << c;
    seen.push_back(drawn_text(c));
  }
}

// Between paper and ink: edges are smooth. Twice the size has four times the ink.
TEST(Text, IsAntiAliased) {
  const auto ink = [](double size, int& between) {
    Image image = blank_image(300, 80, kWhite);
    draw_text(image, 4, 4, "Sao", kBlack, size);
    double sum = 0;
    for (size_t i = 0; i < image.pixels.size(); i += 3) {
      sum += 255 - image.pixels[i];
      between += image.pixels[i] > 20 && image.pixels[i] < 235;
    }
    return sum / 255;
  };
  int small = 0, large = 0;
  const double area = ink(24, small), four = ink(48, large);
  EXPECT_GT(small, 30);
  EXPECT_NEAR(four / area, 4, 0.1);
}

TEST(Text, BrokenUtf8IsMarked) {
  EXPECT_EQ(clean_text("a\xFFz"), "a\xEF\xBF\xBDz");
  EXPECT_EQ(clean_text("\xC3"), "\xEF\xBF\xBD");                       // cut off
  EXPECT_EQ(clean_text("\xC0\xAF"), "\xEF\xBF\xBD\xEF\xBF\xBD");       // too long a form of '/'
  EXPECT_EQ(clean_text("\xED\xA0\x80").substr(0, 3), "\xEF\xBF\xBD");  // a surrogate
  EXPECT_EQ(clean_text("é→\xF0\x9F\x90\xB1"), "é→\xF0\x9F\x90\xB1");
  EXPECT_EQ(clean_text("a\tb\x01\nc"), "a b \nc");
}

TEST(Text, WrapsAndNeverExceedsTheWidth) {
  EXPECT_EQ(text_width(""), 0);
  EXPECT_EQ(text_width("a\nlonger\nb"), text_width("longer"));
  EXPECT_NEAR(text_width("abcdef", 24), 2 * text_width("abcdef", 12), 1);
  EXPECT_EQ(wrapped_text("tabby cat", text_width("tabby cat")), "tabby cat");
  EXPECT_EQ(wrapped_text("tabby cat", text_width("tabby cat") - 1), "tabby\ncat");
  EXPECT_EQ(wrapped_text("read as cat, 99 %", text_width("read as cat, 99 %") - 1), "read as cat,\n99 %");
  EXPECT_EQ(wrapped_text("one two three four", text_width("one two "), kTextSize, 2), "one two\nthree…");
  const std::string name = "Égyptian_cat,lynx and_a_very_long_filename_without_spaces.png";
  std::string whole;
  for (char c : name)
    if (c != ' ') whole += c;
  for (int width = 12; width < 300; width += 7) {
    std::string joined = wrapped_text(name, width, 12);
    EXPECT_LE(text_width(joined, 12), width);
    std::erase_if(joined, [](char c) { return c == '\n' || c == ' '; });
    EXPECT_EQ(joined, whole) << "nothing is lost at " << width;
    EXPECT_LE(text_width(wrapped_text(name, width, 12, 1), 12), std::max(width, 25));
  }
}

TEST(Text, OutsideThePictureIsCutOff) {
  Image image = blank_image(5, 5, kWhite);
  for (int at : {-1000, -8, -3, 0, 3, 5, 1000}) draw_text(image, at, at, "W\nW#", kBlack, 24);
  expect_size(image, 5, 5);
  EXPECT_LT(count_color(image, kWhite), 25);
}

TEST(Canvas, PixelsAtAnyDensity) {
  Canvas canvas(20, 10);
  canvas.rectangle(2, 1, 4, 3, {1, 2, 3});
  canvas.image(blank_image(2, 2, {9, 8, 7}), 10, 4, 4, 4);
  Image image = pixels(canvas);
  expect_size(image, 20, 10);
  EXPECT_EQ(count_color(image, {1, 2, 3}), 12);
  EXPECT_EQ(pixel(image, 2, 1), (Rgb{1, 2, 3}));
  EXPECT_EQ(count_color(image, {9, 8, 7}), 16);
  image = pixels(canvas, 3);
  expect_size(image, 60, 30);
  EXPECT_EQ(count_color(image, {1, 2, 3}), 9 * 12);
  EXPECT_EQ(pixel(image, 6, 3), (Rgb{1, 2, 3}));
  EXPECT_EQ(count_color(image, {9, 8, 7}), 9 * 16);
  EXPECT_THROW(pixels(canvas, 5000), Error);
  // Placed, moved and enlarged: the same as drawn there.
  Canvas outer(60, 40);
  outer.place(canvas, 5, 6, 2);
  EXPECT_EQ(pixel(pixels(outer), 5 + 2 * 2, 6 + 2), (Rgb{1, 2, 3}));
  EXPECT_EQ(count_color(pixels(outer), {1, 2, 3}), 4 * 12);
  // A picture alone is itself.
  const Image alone = blank_image(3, 4, {5, 6, 7});
  EXPECT_EQ(pixels(alone), alone);
  ASSERT_NE(Canvas(alone).picture(), nullptr);
  EXPECT_EQ(canvas.picture(), nullptr);
  EXPECT_TRUE(Canvas().empty());
}

TEST(Canvas, SvgHasTextAsTextAndPicturesInside) {
  Canvas canvas(40, 30);
  canvas.text(20, 5, "a < b & \"c\"\nщ", {1, 2, 3}, 12, 0.5);
  canvas.image(blank_image(1, 1, {255, 0, 0}), 1, 2, 8, 8);
  canvas.line({1, 2}, {3, 4}, 2, {0, 0, 255}, 0.5);
  canvas.disc({7, 8}, 3, {0, 255, 0});
  const std::string file = svg(canvas, "{\"a\": \"<&>\"}");
  EXPECT_TRUE(file.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"40\" height=\"30\"")) << file;
  EXPECT_NE(file.find(">a &lt; b &amp; &quot;c&quot;</text>"), std::string::npos) << file;
  EXPECT_NE(file.find(">щ</text>"), std::string::npos);
  EXPECT_NE(file.find("fill=\"#010203\""), std::string::npos);
  EXPECT_NE(file.find("<metadata>{&quot;a&quot;: &quot;&lt;&amp;&gt;&quot;}</metadata>"), std::string::npos);
  EXPECT_NE(file.find("href=\"data:image/png;base64,iVBORw0KGgo"), std::string::npos);
  EXPECT_NE(file.find("<circle cx=\"7\" cy=\"8\" r=\"3\" fill=\"#00ff00\"/>"), std::string::npos);
  EXPECT_NE(file.find("stroke=\"#0000ff\" stroke-width=\"2\" stroke-linecap=\"round\" opacity=\"0.5\"/>"),
            std::string::npos);
  EXPECT_TRUE(file.ends_with("</svg>\n"));
}

TEST(ColorBar, RunsFromEndToEnd) {
  const ColorScale seismic{.map = ColorMap::seismic, .range = {-2, 2}};
  const Image bar = pixels(color_bar(seismic, 202));
  expect_size(bar, 202, color_bar_height(seismic, 202));
  EXPECT_EQ(pixel(bar, 1, 5), (Rgb{0, 0, 76}));
  EXPECT_EQ(pixel(bar, 200, 5), (Rgb{127, 0, 0}));
  EXPECT_EQ(pixel(bar, 0, 5), (Rgb{200, 200, 200}));
  EXPECT_GT(pixel(bar, 101, 5)[1], 250);
  const std::string words = svg(color_bar(seismic, 202));
  for (const char* end : {">-2</text>", ">0</text>", ">2</text>"}) EXPECT_NE(words.find(end), std::string::npos) << end;
  EXPECT_EQ(svg(color_bar({.range = {0, 1}}, 202)).find(">-"), std::string::npos);
  EXPECT_NE(svg(color_bar(seismic, 60)).find(">±2</text>"), std::string::npos) << "no room for both ends";
  EXPECT_GT(color_bar_height({.range = {0, 1}}, 60), color_bar_height(seismic, 60));
  // Three channels: a stripe each, red, green and blue.
  const Image stripes = pixels(color_bar({.kind = ColorScale::Kind::channels, .range = {-1, 1}}, 102));
  EXPECT_EQ(pixel(stripes, 100, 2), (Rgb{255, 128, 128}));
  EXPECT_EQ(pixel(stripes, 100, 5), (Rgb{128, 255, 128}));
  EXPECT_EQ(pixel(stripes, 1, 8), (Rgb{128, 128, 0}));
}

Panel plain_panel(int width, int height, Rgb rgb, std::string label = "") {
  return {blank_image(width, height, rgb), std::move(label)};
}

Image grid_pixels(std::span<const Panel> panels, const GridOptions& options = {}) {
  return pixels(grid(panels, options));
}

TEST(Grid, ExactSizeAndPlaces) {
  std::vector<Panel> panels;
  for (int i = 0; i < 5; i++) panels.push_back(plain_panel(20, 10, {uint8_t(10 + i), 0, 0}));
  const Image image = grid_pixels(panels, {.columns = 3, .panel_side = 40, .gap = 6});
  expect_size(image, 6 + 3 * 46, 6 + 2 * 26);
  for (int i = 0; i < 5; i++) {
    EXPECT_EQ(count_color(image, {uint8_t(10 + i), 0, 0}), 40 * 20) << i;
    const int x = 6 + i % 3 * 46, y = 6 + i / 3 * 26;
    EXPECT_EQ(pixel(image, x, y), (Rgb{uint8_t(10 + i), 0, 0})) << i;
    EXPECT_EQ(pixel(image, x + 39, y + 19), (Rgb{uint8_t(10 + i), 0, 0})) << i;
    EXPECT_EQ(pixel(image, x - 1, y - 1), (Rgb{200, 200, 200})) << i;  // the frame
  }
}

// Where a picture is neither paper nor one of its panels' colours.
template <typename Visit>
void for_each_ink(const Image& image, std::initializer_list<Rgb> others, const Visit& visit) {
  for (int y = 0; y < image.height; y++)
    for (int x = 0; x < image.width; x++)
      if (const Rgb p = pixel(image, x, y); p != kWhite && std::find(others.begin(), others.end(), p) == others.end())
        visit(x, y);
}

TEST(Grid, CaptionsStandUnderTheirPanels) {
  constexpr Rgb kGreen = {10, 200, 30};  // unlike ink and its edges
  const std::string label = "a very long label indeed";
  std::vector<Panel> panels = {plain_panel(50, 50, kGreen, label), plain_panel(50, 50, kGreen, "b")};
  const Image image = grid_pixels(panels, {.columns = 2, .panel_side = 50, .gap = 10, .frames = false});
  const std::string wrapped = wrapped_text(label, 50);
  EXPECT_GE(std::count(wrapped.begin(), wrapped.end(), '\n'), 2);
  expect_size(image, 10 + 2 * 60, 10 + 50 + 4 + text_height(wrapped) + 10);
  int left = 0, right = 0;
  for_each_ink(image, {kGreen}, [&](int x, int y) {
    EXPECT_GE(y, 64) << x;
    EXPECT_TRUE((x >= 9 && x <= 60) || (x >= 69 && x <= 120)) << x << "," << y;
    (x < 65 ? left : right)++;
  });
  EXPECT_GT(left, 100);
  EXPECT_GT(right, 5);
  EXPECT_EQ(count_color(image, kGreen), 2 * 50 * 50);  // no caption lies on a picture
}

TEST(Grid, TitlesWrapAndWholeTextIsThere) {
  const std::string title =
      "Guided backpropagation, a_network_with_a_long_name, layer features.28:151:6,6 of Египетский кот";
  const Canvas canvas =
      grid(std::vector<Panel>{plain_panel(60, 60, kMid)},
           {.panel_side = 60, .title = title, .subtitle = "weights: w.safetensors", .note = "the first 1 of 2"});
  EXPECT_LE(canvas.width(), 480);
  std::string words;
  for (const Canvas::Mark& mark : canvas.marks())
    if (const auto* w = std::get_if<Canvas::Words>(&mark)) {
      words += w->text + " ";
      EXPECT_GE(w->x, 0) << w->text;
      EXPECT_LE(w->x + text_width(w->text, w->size), canvas.width()) << w->text;
    }
  EXPECT_EQ(words, title + " weights: w.safetensors the first 1 of 2 ");
}

TEST(Grid, BarsStandBetweenPictureAndCaption) {
  std::vector<Panel> panels = {plain_panel(120, 60, kMid, "map")};
  panels[0].colors = ColorScale{.map = ColorMap::viridis, .range = {0, 3.5f}};
  const Canvas canvas = grid(panels, {.columns = 1, .panel_side = 120, .gap = 10, .frames = false});
  EXPECT_EQ(canvas.height(), 10 + 60 + 5 + color_bar_height(*panels[0].colors, 120) + 4 + text_height("map") + 10);
  EXPECT_EQ(pixel(pixels(canvas), 11, 60 + 10 + 5 + 4), color(ColorMap::viridis, 0));
  // One for all, below.
  const Canvas shared = grid(std::vector<Panel>(3, plain_panel(60, 60, kMid)),
                             {.columns = 3, .panel_side = 60, .gap = 10, .colors = ColorScale{.range = {-1, 2}}});
  EXPECT_EQ(shared.height(), 10 + 60 + 10 + color_bar_height(ColorScale{.range = {-1, 2}}, 200) + 10);
}

TEST(Grid, ColumnsAreMultiplesOfTheGroup) {
  for (size_t pairs : {2, 5, 13, 40}) {
    const Canvas canvas =
        grid(std::vector<Panel>(2 * pairs, plain_panel(60, 60, kMid)), {.group = 2, .panel_side = 60});
    EXPECT_EQ(int(canvas.width() - 10) / 70 % 2, 0) << pairs;
  }
}

TEST(Grid, FromOneToAThousandPanels) {
  for (int n : {1, 2, 7, 64, 1000}) {
    std::vector<Panel> panels(size_t(n), plain_panel(224, 224, {1, 2, 3}, "n02123045"));
    const Image image = grid_pixels(panels, {.title = "a title"});
    EXPECT_LE(image.width, kMaxPictureSide) << n;
    EXPECT_LE(image.height, kMaxPictureSide) << n;
    EXPECT_EQ(count_color(image, {1, 2, 3}) % n, 0) << n;
    EXPECT_GT(count_color(image, {1, 2, 3}), n * 40 * 40) << n;
    if (n >= 64) {
      EXPECT_NEAR(double(image.width) / image.height, 4.0 / 3, 0.25) << n;
    }
  }
  const std::vector<Panel> many(1000, plain_panel(224, 224, {1, 2, 3}, "n02123045"));
  const Image column = grid_pixels(many, {.columns = 1});
  EXPECT_LE(column.height, kMaxPictureSide);
  EXPECT_EQ(count_color(column, {1, 2, 3}) % 1000, 0);
  EXPECT_GT(count_color(column, {1, 2, 3}), 0);
  EXPECT_THROW(grid({}), Error);
  EXPECT_THROW(grid(std::vector<Panel>(7000, plain_panel(1, 1, kBlack)), {.columns = 1}), Error);
}

TEST(Grid, OnePixelAndUnequalPictures) {
  std::vector<Panel> panels = {plain_panel(1, 1, {9, 9, 9}, "1"), plain_panel(1, 1000, {8, 8, 8}, "2"), Panel{}};
  const Image image = grid_pixels(panels, {.columns = 3, .panel_side = 30});
  EXPECT_EQ(count_color(image, {9, 9, 9}), 30 * 30);
  EXPECT_EQ(count_color(image, {8, 8, 8}), 30);  // one pixel wide at least
  EXPECT_EQ(grid_pixels(std::vector<Panel>{plain_panel(1, 1, {9, 9, 9})}).channels, 3);
}

TEST(ContactSheet, HeadingsAndRowLabels) {
  std::vector<SheetRow> rows(2);
  rows[0] = {"cat.jpg", {plain_panel(60, 60, {1, 1, 1}), plain_panel(60, 60, {2, 2, 2})}};
  rows[1] = {"dog.jpg\ntarget 5", {plain_panel(60, 60, {3, 3, 3})}};  // shorter: its last place stays blank
  const Image image =
      pixels(contact_sheet(rows, {"input", "gradient"}, {.panel_side = 60, .gap = 10, .frames = false}));
  const int labels = text_width("target 5");
  const int left = 10 + labels + 10, top = 10 + text_height("input") + 5;
  expect_size(image, left + 2 * 70, top + 2 * 70);
  EXPECT_EQ(pixel(image, left, top), (Rgb{1, 1, 1}));
  EXPECT_EQ(pixel(image, left + 70, top), (Rgb{2, 2, 2}));
  EXPECT_EQ(pixel(image, left, top + 70), (Rgb{3, 3, 3}));
  EXPECT_EQ(pixel(image, left + 70 + 30, top + 70 + 30), kWhite);
  int heading = 0, label = 0;
  for_each_ink(image, {Rgb{1, 1, 1}, Rgb{2, 2, 2}, Rgb{3, 3, 3}}, [&](int x, int y) {
    EXPECT_TRUE(y < top || x < left - 8) << x << "," << y;
    (y < top ? heading : label)++;
  });
  EXPECT_GT(heading, 50);
  EXPECT_GT(label, 100);
}

TEST(FilterGrid, FirstLayerAndDeeper) {
  Tensor first = Tensor::zeros({2, 3, 2, 2});
  first[0] = 4;    // filter 0: red in its first place
  first[12] = -1;  // filter 1: less red in its first place
  const FilterGridOptions small{.grid = {.columns = 2, .panel_side = 24, .gap = 4, .frames = false}};
  const Image own = pixels(filter_grid(first, small));
  expect_size(own, 4 + 2 * 28, 4 + 28);  // panels too narrow for captions
  EXPECT_EQ(pixel(own, 4, 4), (Rgb{255, 128, 128}));
  EXPECT_EQ(pixel(own, 4 + 23, 4 + 23), kMid);
  EXPECT_EQ(pixel(own, 32, 4), (Rgb{0, 128, 128}));
  FilterGridOptions shared = small;
  shared.shared_scale = true;
  EXPECT_GE(count_color(pixels(filter_grid(first, shared)), {96, 128, 128}), 12 * 12);  // 127.5 - 127.5 / 4

  Tensor deep = Tensor::zeros({40, 20, 3, 3});
  deep[(7 * 20 + 5) * 9] = 2;  // filter 7, channel 5
  FilterGridOptions chosen{.filters = {3, 7}, .channels = {5}, .color_map = ColorMap::seismic, .grid = small.grid};
  const Image picture = pixels(filter_grid(deep, chosen));
  EXPECT_EQ(count_color(picture, {127, 0, 0}), 8 * 8);  // a third of 24 pixels each way
  EXPECT_GT(filter_grid(deep).width(), 16 * 40);        // 12 x 16 by default
  chosen.filters = {40};
  EXPECT_THROW(filter_grid(deep, chosen), Error);
  EXPECT_THROW(filter_grid(Tensor::zeros({4, 4})), Error);
}

TEST(SignedRgb, RedIsWhereTheOrderSays) {
  const float chw[] = {-1, 0, 1};
  EXPECT_EQ(pixel(signed_rgb(chw, 3, 1, 1, ChannelOrder::rgb, 100), 0, 0), (Rgb{0, 128, 255}));
  EXPECT_EQ(pixel(signed_rgb(chw, 3, 1, 1, ChannelOrder::bgr, 100), 0, 0), (Rgb{255, 128, 0}));
  Tensor filter({1, 3, 1, 1});
  std::copy(chw, chw + 3, filter.data());
  FilterGridOptions options{.order = ChannelOrder::bgr, .grid = {.panel_side = 8, .gap = 4, .frames = false}};
  EXPECT_EQ(count_color(pixels(filter_grid(filter, options)), {255, 128, 0}), 64);
}

TEST(BarChart, LengthsFollowTheValues) {
  const std::vector<std::string> labels = {"all", "half", "tiny", "none", "not a number"};
  const std::vector<float> values = {1, 0.5f, 1e-6f, 0, kNan};
  const BarOptions options;
  const Image image = pixels(bar_chart(labels, values, options));
  expect_size(image, 560, 10 + 5 * 22 - 6 + 10);
  auto length = [&](const Image& chart, int i) {
    int n = 0;
    for (int x = 0; x < chart.width; x++) n += pixel(chart, x, 10 + i * 22 + 1) == options.bar;
    return n;
  };
  const int full = length(image, 0);
  EXPECT_GT(full, 300);
  EXPECT_NEAR(length(image, 1), full / 2.0, 0.5);
  EXPECT_EQ(length(image, 2), 1);
  EXPECT_EQ(length(image, 3), 0);
  EXPECT_EQ(length(image, 4), 0);
  const Image logits =
      pixels(bar_chart(std::vector<std::string>{"a", "b"}, std::vector<float>{3, -1}, {.percent = false}));
  EXPECT_NEAR(length(logits, 0), 3.0 * length(logits, 1), 2);
  const Image zeros = pixels(bar_chart(std::vector<std::string>{"a"}, std::vector<float>{0}, {.percent = false}));
  EXPECT_EQ(length(zeros, 0), 0);
  EXPECT_THROW(bar_chart(labels, std::vector<float>{1}), Error);
}

TEST(SideBySide, CentredInOneRow) {
  const std::vector<Canvas> pictures = {blank_image(10, 20, {1, 1, 1}), blank_image(30, 8, {2, 2, 2})};
  const Image image = pixels(side_by_side(pictures, 5));
  expect_size(image, 45, 20);
  EXPECT_EQ(pixel(image, 15, 6), (Rgb{2, 2, 2}));
  EXPECT_EQ(pixel(image, 15, 5), kWhite);
  EXPECT_EQ(pixel(image, 12, 0), kWhite);
  EXPECT_EQ(pixel(image, 9, 19), (Rgb{1, 1, 1}));
}

}  // namespace
}  // namespace switchback
