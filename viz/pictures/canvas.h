// What a picture is made of: rectangles, lines, text and pictures in pixels of the page, drawn as an Image or written
// as SVG. Everything that draws charts, grids, legends and bars draws into a Canvas, and so comes in both.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/files/image.h"
#include "viz/pictures/colormap.h"
#include "viz/pictures/draw.h"
#include "viz/pictures/text.h"

namespace switchback {

inline constexpr Rgb kPaper = {255, 255, 255}, kInk = {32, 32, 32}, kFaintInk = {110, 110, 110};

class Canvas {
 public:
  Canvas() = default;  // 0 x 0: nothing
  Canvas(double width, double height, Rgb paper = kPaper);
  Canvas(Image picture);  // NOLINT: a picture alone, at its own size
  double width() const { return width_; }
  double height() const { return height_; }
  bool empty() const { return width_ <= 0 || height_ <= 0; }
  // The picture that this is, alone and at its own size; null for anything else.
  std::shared_ptr<const Image> picture() const;

  void rectangle(double x, double y, double width, double height, Rgb color);
  void line(Point from, Point to, double width, Rgb color, double opacity = 1);  // round ends
  void disc(Point centre, double radius, Rgb color, double opacity = 1) {
    line(centre, centre, 2 * radius, color, opacity);
  }
  // y: the top of the first line. x: left of the text (anchor 0), its middle (0.5) or right of it (1), each line by
  // itself.
  void text(double x, double y, std::string_view text, Rgb color = kInk, double size = kTextSize, double anchor = 0);
  void image(Image picture, double x, double y, double width, double height);
  void image(std::shared_ptr<const Image> picture, double x, double y, double width, double height);  // RGB
  void place(const Canvas& other, double x, double y, double factor = 1);

  struct Rectangle {
    double x, y, width, height;
    Rgb color;
  };
  struct Line {
    Point from, to;
    double width;
    Rgb color;
    double opacity;
  };
  struct Words {  // of one line
    double x, y;
    std::string text;
    Rgb color;
    double size;
  };
  struct Picture {
    double x, y, width, height;
    std::shared_ptr<const Image> image;
  };
  using Mark = std::variant<Rectangle, Line, Words, Picture>;
  const std::vector<Mark>& marks() const { return marks_; }  // in the order of drawing

 private:
  double width_ = 0, height_ = 0;
  std::vector<Mark> marks_;
};

// `scale` pixels for each of the page's. Pictures in it are enlarged by `resized`, so that a map's pixels stay visible.
// Throws where there would be more than kMostPixels.
Image pixels(const Canvas& canvas, double scale = 1);

// Text as text, pictures as PNG inside. `metadata` stands in the file's <metadata>.
std::string svg(const Canvas& canvas, std::string_view metadata = "");

}  // namespace switchback
