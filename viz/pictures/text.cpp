#include "viz/pictures/text.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/check.h"
#include "viz/pictures/font_data.h"

#define STB_TRUETYPE_IMPLEMENTATION
#define STBTT_STATIC
#include <stb/stb_truetype.h>

namespace switchback {
namespace {

constexpr char32_t kUnknown = 0xFFFD;

// The character that begins at text[i]; i moves behind it.
char32_t next_character(std::string_view text, size_t& i) {
  const auto byte = [&](size_t at) { return at < text.size() ? uint8_t(text[at]) : uint8_t(0); };
  const uint8_t first = byte(i++);
  if (first < 0x80) return first < 0x20 || first == 0x7F ? U' ' : char32_t(first);
  const int more = first >= 0xF0 && first < 0xF5   ? 3
                   : first >= 0xE0 && first < 0xF0 ? 2
                   : first >= 0xC2 && first < 0xE0 ? 1
                                                   : 0;
  if (more == 0) return kUnknown;
  char32_t character = first & (0x3F >> more);
  for (int k = 0; k < more; ++k) {
    if ((byte(i + size_t(k)) & 0xC0) != 0x80) return kUnknown;
    character = character << 6 | (byte(i + size_t(k)) & 0x3F);
  }
  constexpr char32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
  if (character < kLeast[more] || character > 0x10FFFF || (character >= 0xD800 && character < 0xE000)) return kUnknown;
  i += size_t(more);
  return character < 0xA0 ? U' ' : character;
}

std::u32string characters(std::string_view text) {
  std::u32string out;
  for (size_t i = 0; i < text.size();) {
    const bool line_end = text[i] == '\n';
    const char32_t character = next_character(text, i);
    out += line_end ? U'\n' : character;
  }
  return out;
}

std::string utf8(std::u32string_view text) {
  std::string out;
  for (char32_t c : text) {
    if (c < 0x80) {
      out += char(c);
    } else if (c < 0x800) {
      out += {char(0xC0 | c >> 6), char(0x80 | (c & 0x3F))};
    } else if (c < 0x10000) {
      out += {char(0xE0 | c >> 12), char(0x80 | (c >> 6 & 0x3F)), char(0x80 | (c & 0x3F))};
    } else {
      out +=
          {char(0xF0 | c >> 18), char(0x80 | (c >> 12 & 0x3F)), char(0x80 | (c >> 6 & 0x3F)), char(0x80 | (c & 0x3F))};
    }
  }
  return out;
}

std::vector<std::u32string_view> lines_of(std::u32string_view text) {
  std::vector<std::u32string_view> lines;
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find(U'\n', start), text.size());
    lines.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return lines;
}

class Font {
 public:
  Font() {
    CHECK(stbtt_InitFont(&font_, font_data(), 0), "the font that is built in cannot be read");
    em_ = stbtt_ScaleForMappingEmToPixels(&font_, 1);
  }

  // Glyphs and where they begin, in ems from the start of a line; how long the line is.
  struct Placed {
    int glyph;
    double x;
  };
  double place(std::u32string_view line, std::vector<Placed>* out = nullptr) const {
    double x = 0;
    int last = 0;
    for (char32_t c : line) {
      const int glyph = stbtt_FindGlyphIndex(&font_, int(c));
      int advance = 0, bearing = 0;
      stbtt_GetGlyphHMetrics(&font_, glyph, &advance, &bearing);
      if (last) x += em_ * stbtt_GetGlyphKernAdvance(&font_, last, glyph);
      if (out) out->push_back({glyph, x});
      x += em_ * advance;
      last = glyph;
    }
    return x;
  }

  // One glyph's ink, its origin at (x, y) in pixels. Across it is placed exactly, its baseline on a whole pixel.
  void draw(Image& image, int glyph, double x, int y, Rgb color, double size) const {
    const float scale = float(size * em_);
    const double whole = std::floor(x);
    int left = 0, top = 0, right = 0, bottom = 0;
    stbtt_GetGlyphBitmapBoxSubpixel(&font_, glyph, scale, scale, float(x - whole), 0, &left, &top, &right, &bottom);
    const int width = right - left, height = bottom - top;
    if (width <= 0 || height <= 0) return;
    std::vector<uint8_t> ink(size_t(width) * size_t(height));
    stbtt_MakeGlyphBitmapSubpixel(&font_, ink.data(), width, height, width, scale, scale, float(x - whole), 0, glyph);
    const int64_t x0 = int64_t(whole) + left, y0 = int64_t(y) + top;
    for (int64_t r = std::max<int64_t>(0, -y0); r < std::min<int64_t>(height, image.height - y0); ++r)
      for (int64_t c = std::max<int64_t>(0, -x0); c < std::min<int64_t>(width, image.width - x0); ++c) {
        const int share = ink[size_t(r * width + c)];
        uint8_t* pixel = image.at(x0 + c, y0 + r);
        for (size_t k = 0; k < 3; ++k) pixel[k] = uint8_t((pixel[k] * (255 - share) + color[k] * share + 127) / 255);
      }
  }

 private:
  stbtt_fontinfo font_{};
  double em_ = 0;  // of one of the font's units
};

const Font& font() {
  static const Font it;
  return it;
}

double width_of(std::u32string_view line, double size) { return size * font().place(line); }

std::u32string_view without_end_spaces(std::u32string_view line) {
  while (!line.empty() && line.back() == U' ') line.remove_suffix(1);
  return line;
}

// As many characters of the line as are not wider, one at least.
size_t fitting(std::u32string_view line, double width, double size) {
  size_t count = 1;
  while (count < line.size() && width_of(line.substr(0, count + 1), size) <= width) ++count;
  return count;
}

}  // namespace

int text_width(std::string_view text, double size) {
  const std::u32string all = characters(text);
  double widest = 0;
  for (std::u32string_view line : lines_of(all)) widest = std::max(widest, width_of(line, size));
  return int(std::ceil(widest - 1e-6));
}

int text_height(std::string_view text, double size) {
  const auto ends = double(std::count(text.begin(), text.end(), '\n'));
  return int(std::ceil(ends * line_pitch(size) + size * 13 / 12 - 1e-6));
}

std::string wrapped_text(std::string_view text, int width, double size, int most_lines) {
  const std::u32string all = characters(text);
  std::vector<std::u32string> lines;
  for (std::u32string_view line : lines_of(all)) {
    while (width_of(line, size) > width && line.size() > 1) {
      const size_t count = fitting(line, width, size);
      size_t space = line.substr(0, count + 1).rfind(U' ');
      if (space != std::u32string_view::npos && line.substr(space).starts_with(U" %"))
        space = line.substr(0, space).rfind(U' ');
      const size_t cut = space == std::u32string_view::npos || space == 0 ? count : space;
      lines.emplace_back(without_end_spaces(line.substr(0, cut)));
      line.remove_prefix(cut);
      while (!line.empty() && line.front() == U' ') line.remove_prefix(1);
    }
    if (!line.empty() || lines.empty()) lines.emplace_back(line);
  }
  if (most_lines > 0 && lines.size() > size_t(most_lines)) {
    lines.resize(size_t(most_lines));
    std::u32string& last = lines.back();
    while (last.size() > 1 && width_of(last + U"\u2026", size) > width) last.pop_back();
    last += U"\u2026";
  }
  std::u32string out = lines.front();
  for (size_t i = 1; i < lines.size(); ++i) out += U"\n" + lines[i];
  return utf8(out);
}

std::string clean_text(std::string_view text) { return utf8(characters(text)); }

void draw_text(Image& image, double x, double y, std::string_view text, Rgb color, double size) {
  CHECK(image.channels == 3 && size > 0, "cannot write text of size {} into {} channels", size, image.channels);
  const std::u32string all = characters(text);
  double base = y + baseline(size);
  for (std::u32string_view line : lines_of(all)) {
    std::vector<Font::Placed> glyphs;
    font().place(line, &glyphs);
    for (const Font::Placed& g : glyphs)
      if (const double at = x + size * g.x; std::fabs(at) < 1e6 && std::fabs(base) < 1e6)
        font().draw(image, g.glyph, at, int(std::lround(base)), color, size);
    base += line_pitch(size);
  }
}

}  // namespace switchback
