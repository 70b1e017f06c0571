// The SVG of a canvas (declared in viz/pictures/canvas.h).
#include <fmt/format.h>

#include <cmath>

#include "viz/pictures/canvas.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

std::string escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

std::string base64(std::span<const uint8_t> bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t left = bytes.size() - i;
    const uint32_t three =
        uint32_t(bytes[i]) << 16 | (left > 1 ? uint32_t(bytes[i + 1]) << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
    out += {kDigits[three >> 18], kDigits[three >> 12 & 63], left > 1 ? kDigits[three >> 6 & 63] : '=',
            left > 2 ? kDigits[three & 63] : '='};
  }
  return out;
}

std::string hex(Rgb c) { return fmt::format("#{:02x}{:02x}{:02x}", c[0], c[1], c[2]); }

// Up to three decimals.
std::string number(double v) {
  std::string text = fmt::format("{:.3f}", v);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string opacity(double v) { return v < 1 ? fmt::format(" opacity=\"{}\"", number(v)) : ""; }

struct Writer {
  std::string& out;
  void operator()(const Canvas::Rectangle& r) const {
    out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>\n", number(r.x), number(r.y),
                       number(r.width), number(r.height), hex(r.color));
  }
  void operator()(const Canvas::Line& l) const {
    if (!std::isfinite(l.from.x + l.from.y + l.to.x + l.to.y)) return;
    if (l.from.x == l.to.x && l.from.y == l.to.y)
      out += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\"{}/>\n", number(l.from.x), number(l.from.y),
                         number(l.width / 2), hex(l.color), opacity(l.opacity));
    else
      out += fmt::format(
          "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{}\" stroke-width=\"{}\" "
          "stroke-linecap=\"round\"{}/>\n",
          number(l.from.x), number(l.from.y), number(l.to.x), number(l.to.y), hex(l.color), number(l.width),
          opacity(l.opacity));
  }
  // textLength: as wide as planned where the viewer has another font.
  void operator()(const Canvas::Words& w) const {
    out += fmt::format(
        "<text x=\"{}\" y=\"{}\" font-size=\"{}\" fill=\"{}\" textLength=\"{}\" "
        "lengthAdjust=\"spacingAndGlyphs\">{}</text>\n",
        number(w.x), number(w.y + baseline(w.size)), number(w.size), hex(w.color), text_width(w.text, w.size),
        escaped(w.text));
  }
  void operator()(const Canvas::Picture& p) const {
    // Where a map's pixels are to stay visible, as in the PNG, they are enlarged here: not all viewers know
    // "pixelated".
    const bool enlarged = p.width >= 2 * p.image->width;
    const int factor = enlarged ? 2 * int(std::ceil(p.width / p.image->width)) : 1;
    const Image picture = resized(*p.image, p.image->width * factor, p.image->height * factor);
    out += fmt::format(
        "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\"{} "
        "href=\"data:image/png;base64,{}\"/>\n",
        number(p.x), number(p.y), number(p.width), number(p.height),
        enlarged ? " style=\"image-rendering:pixelated\"" : "", base64(png_bytes(picture)));
  }
};

}  // namespace

std::string svg(const Canvas& canvas, std::string_view metadata) {
  const std::string width = number(canvas.width()), height = number(canvas.height());
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"'{2}', Verdana, sans-serif\">\n",
      width, height, kFontName);
  if (!metadata.empty()) out += fmt::format("<metadata>{}</metadata>\n", escaped(clean_text(metadata)));
  for (const Canvas::Mark& mark : canvas.marks()) std::visit(Writer{out}, mark);
  return out + "</svg>\n";
}

}  // namespace switchback
