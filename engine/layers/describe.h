// How layers describe their sizes: "kernel 3x3, stride 2, padding 1".
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace switchback {

inline std::string size2(int64_t h, int64_t w) { return h == w ? fmt::format("{}", h) : fmt::format("{}x{}", h, w); }

template <typename L>
std::string padding_text(const L& l) {
  if (l.pad_top == 0 && l.pad_left == 0 && l.pad_bottom == 0 && l.pad_right == 0) return "";
  if (l.pad_top == l.pad_bottom && l.pad_left == l.pad_right)
    return fmt::format(", padding {}", size2(l.pad_top, l.pad_left));
  return fmt::format(", padding top {} left {} bottom {} right {}", l.pad_top, l.pad_left, l.pad_bottom, l.pad_right);
}

template <typename L>
std::string dilation_text(const L& l) {
  return l.dilation_h == 1 && l.dilation_w == 1 ? "" : fmt::format(", dilation {}", size2(l.dilation_h, l.dilation_w));
}

}  // namespace switchback
