#include "engine/files/labels.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>

#include "engine/files/files.h"

namespace switchback {
namespace {

bool begins_with_wordnet_number(std::string_view line) {
  return line.size() > 10 && line[0] == 'n' && line[9] == ' ' &&
         std::all_of(line.begin() + 1, line.begin() + 9, [](char c) { return c >= '0' && c <= '9'; });
}

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r')) s.remove_suffix(1);
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  return s;
}

}  // namespace

std::vector<std::string> load_labels(const std::string& path) {
  const std::string text = read_file(path, 16 << 20);
  const char* hint = "a labels file is UTF-8 text with one class a line";
  const bool binary =
      std::any_of(text.begin(), text.end(), [](char c) { return uint8_t(c) < 0x20 && !std::strchr("\t\r\n", c); });
  bool utf8 = true;
  try {
    (void)nlohmann::json(text).dump();  // throws where the text is not UTF-8
  } catch (const nlohmann::json::exception&) {
    utf8 = false;
  }
  if (binary || !utf8 || text.find('\0') != std::string::npos)
    throw Error(fmt::format("{}: not a text file", path), hint);

  std::string_view rest = text;
  if (rest.substr(0, 3) == "\xef\xbb\xbf") rest.remove_prefix(3);  // byte order mark
  while (!rest.empty() && std::strchr(" \t\r\n", rest.back())) rest.remove_suffix(1);
  if (rest.empty()) throw Error(fmt::format("{}: no labels in it", path), hint);
  std::vector<std::string> out;
  while (true) {
    const size_t end = rest.find('\n');
    std::string_view line = trimmed(rest.substr(0, end));
    if (line.find('\r') != std::string_view::npos)
      throw Error(fmt::format("{}: a carriage return inside line {}", path, out.size() + 1),
                  "end lines with a line feed");
    if (begins_with_wordnet_number(line)) line.remove_prefix(10);
    line = trimmed(line.substr(0, line.find(',')));
    if (line.empty()) throw Error(fmt::format("{}: line {} names no class", path, out.size() + 1), hint);
    out.emplace_back(line);
    if (end == std::string_view::npos) return out;
    rest.remove_prefix(end + 1);
  }
}

}  // namespace switchback
