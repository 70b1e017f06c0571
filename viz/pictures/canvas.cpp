#include "viz/pictures/canvas.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

Canvas::Mark moved(Canvas::Mark mark, double x, double y, double factor) {
  const auto point = [&](Point p) { return Point{x + factor * p.x, y + factor * p.y}; };
  if (auto* line = std::get_if<Canvas::Line>(&mark)) {
    line->from = point(line->from), line->to = point(line->to), line->width *= factor;
    return mark;
  }
  const auto corner = [&](auto& m) { std::tie(m.x, m.y) = std::pair(x + factor * m.x, y + factor * m.y); };
  if (auto* words = std::get_if<Canvas::Words>(&mark)) {
    corner(*words), words->size *= factor;
  } else if (auto* rectangle = std::get_if<Canvas::Rectangle>(&mark)) {
    corner(*rectangle), rectangle->width *= factor, rectangle->height *= factor;
  } else if (auto* picture = std::get_if<Canvas::Picture>(&mark)) {
    corner(*picture), picture->width *= factor, picture->height *= factor;
  }
  return mark;
}

// Edges on whole pixels, at least one pixel apart.
struct PixelBox {
  int x, y, width, height;
};
PixelBox pixel_box(double x, double y, double width, double height, double scale) {
  const auto edge = [&](double at) { return int(std::lround(std::clamp(at * scale, -1e6, 1e6))); };
  return {edge(x), edge(y), std::max(1, edge(x + width) - edge(x)), std::max(1, edge(y + height) - edge(y))};
}

// Draws marks of each kind.
struct Painter {
  Image& onto;
  double scale;
  void operator()(const Canvas::Rectangle& r) const {
    const PixelBox b = pixel_box(r.x, r.y, r.width, r.height, scale);
    fill_rectangle(onto, b.x, b.y, b.width, b.height, r.color);
  }
  void operator()(const Canvas::Line& l) const {
    const auto point = [&](Point p) { return Point{p.x * scale, p.y * scale}; };
    draw_line(onto, point(l.from), point(l.to), l.width * scale, l.color, l.opacity);
  }
  void operator()(const Canvas::Words& w) const {
    draw_text(onto, w.x * scale, w.y * scale, w.text, w.color, w.size * scale);
  }
  void operator()(const Canvas::Picture& p) const {
    const PixelBox b = pixel_box(p.x, p.y, p.width, p.height, scale);
    paste(onto, resized(*p.image, b.width, b.height), b.x, b.y);
  }
};

}  // namespace

Canvas::Canvas(double width, double height, Rgb paper) : width_(width), height_(height) {
  CHECK(width > 0 && height > 0, "cannot make a page of {} x {}", width, height);
  rectangle(0, 0, width, height, paper);
}

Canvas::Canvas(Image picture) : width_(picture.width), height_(picture.height) {
  if (!empty()) image(std::move(picture), 0, 0, width_, height_);
}

std::shared_ptr<const Image> Canvas::picture() const {
  const auto* only = marks_.size() == 1 ? std::get_if<Picture>(&marks_[0]) : nullptr;
  const bool whole = only && only->width == width_ && only->image->width == width_ && only->image->height == height_;
  return whole ? only->image : nullptr;
}

void Canvas::rectangle(double x, double y, double width, double height, Rgb color) {
  if (width > 0 && height > 0) marks_.push_back(Rectangle{x, y, width, height, color});
}

void Canvas::line(Point from, Point to, double width, Rgb color, double opacity) {
  marks_.push_back(Line{from, to, width, color, opacity});
}

void Canvas::text(double x, double y, std::string_view text, Rgb color, double size, double anchor) {
  for (size_t start = 0; start <= text.size(); y += line_pitch(size)) {
    const size_t end = std::min(text.find('\n', start), text.size());
    std::string line = clean_text(text.substr(start, end - start));
    const double left = anchor == 0 ? x : x - anchor * text_width(line, size);
    if (!line.empty()) marks_.push_back(Words{left, y, std::move(line), color, size});
    start = end + 1;
  }
}

void Canvas::image(Image picture, double x, double y, double width, double height) {
  image(std::make_shared<const Image>(picture.channels == 3 ? std::move(picture) : to_rgb(picture)), x, y, width,
        height);
}

void Canvas::image(std::shared_ptr<const Image> picture, double x, double y, double width, double height) {
  marks_.push_back(Picture{x, y, width, height, std::move(picture)});
}

void Canvas::place(const Canvas& other, double x, double y, double factor) {
  for (const Mark& mark : other.marks_) marks_.push_back(moved(mark, x, y, factor));
}

Image pixels(const Canvas& canvas, double scale) {
  CHECK(!canvas.empty() && scale > 0, "cannot draw a page of {} x {} at {}", canvas.width(), canvas.height(), scale);
  const double width = std::max(1.0, std::ceil(canvas.width() * scale - 1e-6));
  const double height = std::max(1.0, std::ceil(canvas.height() * scale - 1e-6));
  if (width * height > double(kMostPixels))
    throw Error(fmt::format("the picture would have {:.0f} x {:.0f} pixels, more than {} million", width, height,
                            kMostPixels / 1'000'000),
                "use a smaller --scale, or --save svg", true);
  if (const auto alone = canvas.picture(); alone && scale == 1) return *alone;
  Image image = blank_image(int(width), int(height), kPaper);
  for (const Canvas::Mark& mark : canvas.marks()) std::visit(Painter{image, scale}, mark);
  return image;
}

}  // namespace switchback
