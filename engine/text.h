// Small helpers for text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace switchback {

// What stands before, between and behind the separators: one part more than there are separators, some perhaps empty.
inline std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (;;) {
    const size_t at = text.find(separator);
    parts.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

}  // namespace switchback
