// PTX text: where its kernels stand, and their instructions cut into words. What an instruction does is decided in
// operations.cpp.
#include <algorithm>
#include <cctype>

#include "kernels/check.h"
#include "tests/ptx/decoder.h"

namespace switchback::ptx {
namespace {

// Type names and their bytes; 0: no such type.
uint32_t bytes_of(std::string_view type) {
  if (type.size() < 2) return 0;
  const std::string_view digits = type.substr(1);
  return digits == "8" ? 1 : digits == "16" ? 2 : digits == "32" ? 4 : digits == "64" ? 8 : 0;
}

bool in_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '.' || c == '%';
}

// Reads words and signs, skipping comments, and counts lines.
class Cursor {
 public:
  Cursor(std::string_view text, uint32_t line) : text_(text), line(line) { skip(); }
  bool done() const { return at_ >= text_.size(); }
  char peek() const { return done() ? '\0' : text_[at_]; }
  std::string_view word() {  // empty: none here
    const size_t from = at_;
    while (at_ < text_.size() && in_word(text_[at_])) ++at_;
    const std::string_view w = text_.substr(from, at_ - from);
    skip();
    return w;
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    skip();
    return true;
  }
  // Everything up to `end` at depth 0 of brackets; `end` is taken.
  std::string_view until(char end) {
    const size_t from = at_;
    int depth = 0;
    while (at_ < text_.size() && (depth > 0 || text_[at_] != end)) {
      const char c = text_[at_++];
      depth += (c == '{' || c == '[' || c == '(') - (c == '}' || c == ']' || c == ')');
      if (c == '\n') ++line;
    }
    const std::string_view all = text_.substr(from, at_ - from);
    take(end);
    return all;
  }
  void rest_of_line() {
    while (at_ < text_.size() && text_[at_] != '\n') ++at_;
    skip();
  }
  size_t position() const { return at_; }

 private:
  void skip() {
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\n')
        ++line;
      else if (c == '/' && text_.substr(at_, 2) == "//") {
        while (at_ + 1 < text_.size() && text_[at_ + 1] != '\n') ++at_;
      } else if (c != ' ' && c != '\t' && c != '\r') {
        return;
      }
    }
  }
  std::string_view text_;
  size_t at_ = 0;

 public:
  uint32_t line;
};

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.front()))) s.remove_prefix(1);
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.back()))) s.remove_suffix(1);
  return s;
}

// `.param .align 8 .b8 name[56]`, `.param .u64 name`, `.param .u64 .ptr .align 1 name`: laid out one behind the other,
// each at its own alignment.
Parameter parameter_of(std::string_view declared, const Kernel& kernel) {
  Cursor c(declared, 0);
  Parameter p;
  uint32_t element = 0, alignment = 0;
  bool pointer = false;
  while (!c.done()) {
    const std::string_view w = c.word();
    if (w == ".param" || w == ".global") continue;
    if (w == ".ptr")
      pointer = true;
    else if (w == ".align")
      (pointer ? element : alignment) = pointer ? element : uint32_t(std::stoul(std::string(c.word())));
    else if (!w.empty() && w[0] == '.')
      element = bytes_of(w.substr(1));
    else if (!w.empty() && !std::isdigit(static_cast<unsigned char>(w[0])))
      p.name = w;
    else if (c.take('['))
      element *= uint32_t(std::stoul(std::string(c.until(']'))));
    else if (w.empty())
      break;
  }
  CHECK(element > 0 && !p.name.empty(), "{}: {}: unknown parameter `{}`", kernel.file, kernel.name, declared);
  p.bytes = element;
  p.alignment = alignment ? alignment : element;
  return p;
}

void read_parameters(Kernel& kernel, std::string_view list) {
  uint32_t end = 0;
  for (const std::string_view one : split(list)) {
    Parameter p = parameter_of(one, kernel);
    p.offset = (end + p.alignment - 1) / p.alignment * p.alignment;
    end = p.offset + p.bytes;
    kernel.parameters.push_back(std::move(p));
  }
  kernel.parameter_bytes = end;
}

}  // namespace

// At commas outside of brackets.
std::vector<std::string_view> split(std::string_view list) {
  std::vector<std::string_view> out;
  int depth = 0;
  size_t from = 0;
  for (size_t i = 0; i <= list.size(); ++i) {
    const char c = i < list.size() ? list[i] : ',';
    depth += (c == '{' || c == '[' || c == '(') - (c == '}' || c == ']' || c == ')');
    if (c != ',' || depth > 0) continue;
    if (const std::string_view one = trimmed(list.substr(from, i - from)); !one.empty()) out.push_back(one);
    from = i + 1;
  }
  return out;
}

const Parameter* Kernel::parameter(std::string_view wanted) const {
  for (const Parameter& p : parameters)
    if (p.name == wanted) return &p;
  return nullptr;
}

std::string Kernel::instruction_text(uint32_t wanted) const {
  size_t from = 0;
  for (uint32_t l = line; l < wanted && from != std::string::npos; ++l) {
    from = text.find('\n', from);
    if (from != std::string::npos) ++from;
  }
  if (from == std::string::npos) return "";
  return std::string(trimmed(std::string_view(text).substr(from, text.find('\n', from) - from)));
}

std::vector<std::unique_ptr<Kernel>> read_kernels(const std::string& file, const std::string& text) {
  CHECK(text.find(".version") != std::string::npos && text.find(".address_size 64") != std::string::npos,
        "{} is no PTX of 64-bit addresses", file);
  std::vector<std::unique_ptr<Kernel>> out;
  uint32_t line = 1;
  size_t counted = 0;
  for (size_t at = 0; (at = text.find(".entry ", at)) != std::string::npos;) {
    line += uint32_t(std::count(text.begin() + ptrdiff_t(counted), text.begin() + ptrdiff_t(at), '\n'));
    counted = at;
    auto kernel = std::make_unique<Kernel>();
    kernel->file = file;
    kernel->line = line;
    Cursor c(std::string_view(text).substr(at), line);
    c.word();
    kernel->name = c.word();
    CHECK(c.take('('), "{}:{}: `.entry {}` without parameters", file, line, kernel->name);
    read_parameters(*kernel, c.until(')'));
    c.until('{');
    c.until('}');
    kernel->text = text.substr(at, c.position());
    at += kernel->text.size();
    out.push_back(std::move(kernel));
  }
  return out;
}

void decode(Kernel& kernel) {
  if (kernel.decoded) return;
  Decoder decoder(kernel);
  Cursor c(kernel.text, kernel.line);
  c.until('{');
  while (!c.done()) {
    if (c.take('{') || c.take('}') || c.take(';')) continue;
    const uint32_t line = c.line;
    std::string_view guard;
    if (c.take('@')) {
      const bool negated = c.take('!');
      guard = c.word();
      decoder.guard(guard, negated);
    }
    const std::string_view word = c.word();
    if (word == ".loc") {
      c.rest_of_line();
    } else if (word == ".pragma") {
      c.until(';');
    } else if (word == ".reg") {
      const std::string_view type = c.word();
      for (const std::string_view one : split(c.until(';'))) {
        const size_t many = one.find('<');
        const uint32_t count = many == one.npos ? 1 : uint32_t(std::stoul(std::string(one.substr(many + 1))));
        decoder.declare(one.substr(0, many), many != one.npos, count, type == ".pred" ? 0 : bytes_of(type.substr(1)),
                        line);
      }
    } else if (word == ".local") {
      decoder.declare_local(trimmed(c.until(';')), line);
    } else if (c.take(':')) {
      decoder.label(word);
    } else {
      decoder.instruction(word, split(c.until(';')), line);
    }
  }
  decoder.finish();
  kernel.decoded = true;
}

}  // namespace switchback::ptx
