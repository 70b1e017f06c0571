// Lines, polygons and line charts.
#include "viz/pictures/draw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/temp_folder.h"
#include "viz/pictures/canvas.h"
#include "viz/pictures/grid.h"
#include "viz/pictures/render.h"

namespace switchback::test {
namespace {

constexpr Rgb kWhite = {255, 255, 255}, kBlack = {0, 0, 0};

Rgb at(const Image& image, int x, int y) {
  const uint8_t* p = &image.pixels[(size_t(y) * size_t(image.width) + size_t(x)) * 3];
  return {p[0], p[1], p[2]};
}

int count(const Image& image, Rgb color) {
  int n = 0;
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) n += at(image, x, y) == color;
  return n;
}

// Each pixel is as dark as the formula says, whatever way the line runs: no row or column of it is forgotten.
TEST(Draw, LinesCoverWhatLiesNearThem) {
  const std::pair<Point, Point> lines[] = {{{5, 5}, {35, 25}},   {{5, 25}, {35, 5}}, {{3, 10}, {38, 10}},
                                           {{20, 2}, {20, 28}},  {{2, 3}, {3, 29}},  {{-9, 8}, {60, 9}},
                                           {{30, 40}, {10, -9}}, {{9, 9}, {9, 9}}};
  for (const auto& [a, b] : lines)
    for (const double width : {1.0, 1.6, 5.0}) {
      Image image = blank_image(40, 30, kWhite);
      draw_line(image, a, b, width, kBlack);
      for (int y = 0; y < 30; ++y)
        for (int x = 0; x < 40; ++x) {
          double nearest = 1e9;  // by walking along the line
          for (int i = 0; i <= 4000; ++i) {
            const double t = i / 4000.0;
            nearest = std::min(nearest, std::hypot(a.x + t * (b.x - a.x) - x - 0.5, a.y + t * (b.y - a.y) - y - 0.5));
          }
          const double dark = std::clamp(width / 2 + 0.5 - nearest, 0.0, 1.0);
          EXPECT_NEAR(at(image, x, y)[0], 255 - 255 * dark, 2.5) << x << "," << y << " width " << width;
        }
    }
  Image image = blank_image(10, 10, kWhite);
  draw_line(image, {std::nan(""), 0}, {5, 5}, 1, kBlack);
  draw_disc(image, {100, 100}, 5, kBlack);
  EXPECT_EQ(count(image, kWhite), 100);
}

TEST(Draw, PolygonsThatShareEdgesShareNoPixel) {
  const Point corners[] = {{0, 0}, {31, 0}, {31, 23}, {0, 23}};
  for (const Point middle : {Point{17.3, 11.9}, Point{17.5, 11.5}, Point{17, 12}}) {
    Image image = blank_image(31, 23, kBlack);
    std::vector<int> hits(31 * 23, 0);
    for (int i = 0; i < 4; ++i) {
      const Point triangle[] = {corners[i], corners[(i + 1) % 4], middle};
      fill_convex(image, triangle, [&](Point p) {
        EXPECT_EQ(p.x - std::floor(p.x), 0.5);
        ++hits[size_t(int(p.y) * 31 + int(p.x))];
        return Rgb{uint8_t(50 + i), 0, 0};
      });
    }
    for (int h : hits) EXPECT_EQ(h, 1);
    EXPECT_EQ(at(image, 15, 2), (Rgb{50, 0, 0}));
    EXPECT_EQ(at(image, 28, 12), (Rgb{51, 0, 0}));
  }
  Image image = blank_image(31, 23, kBlack);
  const Point outside[] = {{-50, -50}, {-10, -50}, {-10, 80}, {-30, 300}};
  fill_convex(image, outside, [](Point) { return kWhite; });
  EXPECT_EQ(count(image, kWhite), 0);
  const Point around[] = {{-50, -50}, {90, -50}, {90, 80}, {-50, 80}};
  fill_convex(image, around, [](Point) { return kWhite; });
  EXPECT_EQ(count(image, kWhite), 31 * 23);
}

std::vector<std::string> words_of(const Canvas& canvas) {
  std::vector<std::string> words;
  for (const Canvas::Mark& mark : canvas.marks())
    if (const auto* w = std::get_if<Canvas::Words>(&mark)) words.push_back(w->text);
  return words;
}

TEST(LineChart, SeriesOfTheSameValuesShareALineAndTheirNames) {
  const double gap = std::nan("");
  const std::vector<Series> series{
      {"conv1", {1, gap, 0.5}}, {"conv2", {1, gap, 0.5}, {200, 0, 0}}, {"fc1", {1, 0.9, 0.5}}};
  const std::vector<std::string> places{"a", "b", "c"};
  const Canvas chart = line_chart(places, series);
  const std::vector<std::string> words = words_of(chart);
  EXPECT_EQ(std::count(words.begin(), words.end(), "conv1, conv2"), 1);
  EXPECT_EQ(std::count(words.begin(), words.end(), "fc1"), 1);
  EXPECT_EQ(count(pixels(chart), {200, 0, 0}), 0);
}

TEST(LineChart, TheLastNameStands) {
  std::vector<std::string> places;
  for (int k = 0; k <= 28; ++k) places.push_back(fmt::format("step {}", k));
  places.back() = "the last of all the names";
  const std::vector<Series> series{{"line", std::vector<double>(29, 0.5)}};
  const std::vector<std::string> words = words_of(line_chart(places, series));
  EXPECT_EQ(std::count(words.begin(), words.end(), places.front()), 1);
  EXPECT_EQ(std::count(words.begin(), words.end(), places.back()), 1);
  EXPECT_EQ(std::count(words.begin(), words.end(), places[27]), 0) << "has no room beside it";
}

TEST(LineChart, LinesStandWhereTheirValuesAre) {
  const std::vector<std::string> places{"a", "b", "c"};
  const Rgb red{200, 0, 0}, blue{0, 0, 200};
  const std::vector<Series> series{{"up", {0, 0.5, 1}, red}, {"gap", {1, std::nan(""), 1}, blue}};
  const Image chart = pixels(line_chart(places, series, {.title = "t"}));
  EXPECT_EQ(chart.width, 720);
  EXPECT_EQ(chart.height, 360);
  int lowest = 0, highest = chart.height, blue_in_the_middle = 0, middle = 0;
  for (int y = 0; y < chart.height; ++y)
    for (int x = 0; x < 600; ++x) {
      if (at(chart, x, y) == red)
        lowest = std::max(lowest, y), highest = std::min(highest, y), middle = std::max(middle, x);
    }
  for (int y = 0; y < chart.height; ++y) blue_in_the_middle += at(chart, middle / 2, y) == blue;
  EXPECT_GT(lowest - highest, 250) << "from 0 at the bottom to 1 at the top";
  EXPECT_EQ(blue_in_the_middle, 0) << "a gap stays one";
  EXPECT_GT(count(chart, blue), 20) << "its ends are there";
  // Where points are close together there are no dots, which would make a thick line; one by itself is a dot still.
  std::vector<double> flat(500, 0.5);
  flat[400] = flat[402] = std::nan("");
  const std::vector<std::string> close(flat.size(), "");
  const Image line = pixels(line_chart(close, std::vector<Series>{{"flat", flat, red}}, {.width = 900}));
  int thick = 0, thickest = 0;
  for (int x = 200; x < 800; ++x) {
    int here = 0;
    for (int y = 0; y < line.height; ++y) here += at(line, x, y) != at(line, 100, 20) && at(line, x, y)[0] > 190 && at(line, x, y)[1] < 90;
    thick += here > 2, thickest = std::max(thickest, here);
  }
  EXPECT_GT(thickest, 2) << "the point between two gaps";
  EXPECT_LT(thick, 10) << "the line";
  // Many names are thinned, a long legend makes the chart higher, and constants and tiny ranges have an axis.
  std::vector<std::string> many;
  for (int i = 0; i < 80; ++i) many.push_back("checkpoint_" + std::to_string(i));
  std::vector<Series> lines(50, {"layer", std::vector<double>(80, 3e-7), red});
  for (size_t i = 0; i < lines.size(); ++i) lines[i].values[0] = double(i) * 1e-9;
  EXPECT_GT(line_chart(many, lines).height(), 700);
  lines = {{"none", std::vector<double>(80, std::nan("")), red}};
  line_chart(many, lines);
  lines[0].values.pop_back();
  expect_error(
      "79 values for 80 places", [&] { line_chart(many, lines); }, false);
  expect_error(
      "no room", [&] { line_chart(places, series, {.width = 60}); }, false);
}

}  // namespace
}  // namespace switchback::test
