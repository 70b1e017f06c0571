#include "tools/cli/names.h"

#include <zlib.h>

#include <algorithm>
#include <cctype>

#include "engine/files/files.h"
#include "kernels/check.h"

namespace switchback {
namespace {

constexpr size_t kLongestPart = 60, kLongestSuffix = 120;  // file names hold 255 bytes

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// "~3fa9c1d2"
std::string checksum(std::string_view text) {
  return fmt::format("~{:08x}", uint32_t(crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size())));
}

std::string shortened(const std::string& text, size_t most, std::string_view whole) {
  return text.size() <= most ? text : text.substr(0, most - 9) + checksum(whole);
}

std::string part_of(const Setting& s) {
  if (s.form == Setting::Form::option) return "-" + s.option;
  const std::string value = name_part(s.given);
  if (s.form == Setting::Form::value) return "-" + value;
  const bool number = !value.empty() && (is_digit(value[0]) || value[0] == '-' || value[0] == '.');
  return fmt::format("-{}{}{}", s.option, number ? "" : "_", value);
}

}  // namespace

std::string name_part(std::string_view text) {
  std::string out;
  bool replaced = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool dash = c == '-' && !(i + 1 < text.size() && is_letter(text[i + 1]));  // "-1", "0-15", but no "-option"
    if (is_letter(c) || is_digit(c) || dash || std::string_view(".,+_=").find(c) != std::string_view::npos) {
      out += c;
    } else if (c == ':') {
      out += '@';
    } else {
      out += '_', replaced = true;
    }
  }
  if (replaced) out = out.substr(0, kLongestPart - 9) + checksum(text);
  return shortened(out, kLongestPart, text);
}

std::string name_suffix(std::span<const Setting> settings, bool picture) {
  std::string suffix;
  for (const Setting& s : settings)
    if (s.given != s.standard && (picture || !s.pictures_only)) suffix += part_of(s);
  return shortened(suffix, kLongestSuffix, suffix);
}

std::string name_by_template(std::string_view text, const NameFields& fields) {
  const std::pair<std::string_view, std::string> known[] = {
      {"stem", fields.stem},   {"command", fields.command}, {"options", fields.options},
      {"model", fields.model}, {"layer", fields.layer},     {"target", fields.target},
      {"index", std::to_string(fields.index)}};
  const auto wrong = [&](const std::string& why) {
    std::vector<std::string> names;
    for (const auto& [name, value] : known) names.push_back(fmt::format("{{{}}}", name));
    throw Error(fmt::format("--name '{}' {}", printable(text), why),
                fmt::format("a file name without its ending, which may hold {}", fmt::join(names, ", ")), true);
  };
  std::string out;
  for (size_t at = 0; at < text.size();) {
    if (text[at] != '{') {
      out += text[at++];
      continue;
    }
    const size_t end = text.find('}', at);
    const std::string_view name = end == std::string_view::npos ? "" : text.substr(at + 1, end - at - 1);
    const auto found = std::find_if(std::begin(known), std::end(known), [&](const auto& k) { return k.first == name; });
    if (found == std::end(known)) wrong(fmt::format("holds an unknown {}", printable(text.substr(at, end - at + 1))));
    out += found->second;
    at = end + 1;
  }
  if (text.find('/') != std::string_view::npos) wrong("holds a folder, which belongs to --output");
  if (out.empty() || out[0] == '.') wrong("gives no visible name");
  return out;
}

}  // namespace switchback
