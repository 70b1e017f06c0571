#include "engine/files/npy.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

#include "engine/files/files.h"

namespace switchback {
namespace {

constexpr std::string_view kMagic{"\x93NUMPY", 6};
constexpr size_t kMostAxes = 6;

struct Header {
  std::string descr;
  bool fortran_order = false;
  Dims shape;
};

// The header is a Python literal: {'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 8, 8), }
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : text_(text) {}

  bool parse(Header& out) {
    bool descr = false, order = false, shape = false;
    if (!take('{')) return false;
    while (!take('}')) {
      std::string key;
      if (!quoted(key) || !take(':')) return false;
      bool* seen = key == "descr" ? &descr : key == "fortran_order" ? &order : key == "shape" ? &shape : nullptr;
      if (!seen || *seen) return false;
      *seen = true;
      if (!(seen == &descr ? type(out.descr) : seen == &order ? boolean(out.fortran_order) : tuple(out.shape)))
        return false;
      if (!take(',') && peek() != '}') return false;
    }
    return descr && order && shape && peek() == '\0' && at_ == text_.size();
  }

 private:
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  bool quoted(std::string& out) {
    const char quote = peek();
    if (quote != '\'' && quote != '"') return false;
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) return false;
    out = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return true;
  }
  bool type(std::string& out) {
    if (peek() != '[') return quoted(out);
    out = "a record";  // a structured type: [('x', '<f4'), …]. It is refused anyway: skip to its end.
    const size_t end = text_.rfind(']');
    if (end == std::string_view::npos || end < at_) return false;
    at_ = end + 1;
    return true;
  }
  bool boolean(bool& out) {
    peek();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      out = value;
      return true;
    }
    return false;
  }
  bool tuple(Dims& out) {
    if (!take('(')) return false;
    while (!take(')')) {
      int64_t value = 0;
      size_t digits = 0;
      peek();
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_, ++digits) {
        if (digits == 18) return false;
        value = value * 10 + (text_[at_] - '0');
      }
      if (digits == 0 || out.size() == 64) return false;
      if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // written by Python 2
      out.push_back(value);
      if (!take(',') && peek() != ')') return false;
    }
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
};

// What an array holds: f32, or whole numbers of 1, 4 or 8 bytes.
enum class Holds { floats, integers, bytes, either };
size_t element_bytes(Holds holds, const std::string& descr) {
  if (holds == Holds::floats || (holds == Holds::either && descr == "<f4")) return descr == "<f4" ? 4 : 0;
  if (holds == Holds::bytes) return descr == "|u1" ? 1 : 0;
  return descr == "<i8" ? 8 : descr == "<i4" ? 4 : descr == "|u1" ? 1 : 0;
}

void check_header(const std::string& path, const Header& header, const std::vector<int>& ranks, Holds holds) {
  const bool floats = holds == Holds::floats || holds == Holds::either;
  const char* convert = floats                   ? "convert with numpy: np.save(f, a.astype('float32'))"
                        : holds == Holds::bytes ? "convert with numpy: a.astype('uint8')"
                                                : "convert with numpy: np.save(f, a.astype('int64'))";
  if (element_bytes(holds, header.descr) == 0) {
    throw Error(fmt::format("{}: the array's type is {}, {} is needed", path,
                            header.descr == "a record" ? header.descr : "'" + printable(header.descr) + "'",
                            floats                   ? "little-endian float32 ('<f4')"
                            : holds == Holds::bytes ? "uint8 ('|u1')"
                                                    : "int64 ('<i8'), int32 or uint8"),
                convert);
  }
  if (header.fortran_order)
    throw Error(fmt::format("{}: the array lies in Fortran order, C order is needed", path),
                "convert with numpy: np.save(f, np.ascontiguousarray(a))");
  const int rank = int(header.shape.size());
  std::vector<int> allowed = ranks;
  if (allowed.empty())
    for (int r = 1; r <= int(kMostAxes); ++r) allowed.push_back(r);
  if (std::find(allowed.begin(), allowed.end(), rank) == allowed.end())
    throw Error(fmt::format("{}: the array has {} dimensions {}, {} are needed", path, rank,
                            printable(to_string(header.shape)), fmt::join(allowed, " or ")),
                "reshape it with numpy, for example a[None] for one image more");
  if (std::find(header.shape.begin(), header.shape.end(), 0) != header.shape.end())
    throw Error(fmt::format("{}: the array {} is empty", path, to_string(header.shape)), "save one with values in it");
}

[[noreturn]] void damaged(const std::string& path, const std::string& what) {
  throw Error(fmt::format("{}: {}", path, what), "the file is damaged or incomplete: save it again with np.save");
}

// The header, checked against the size of the file, and where the data begin.
Header read_header(const std::string& path, std::span<const std::byte> file, const std::vector<int>& ranks, size_t& data_begin,
                   Holds holds = Holds::floats) {
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  if (bytes.substr(0, 6) != kMagic)
    throw Error(fmt::format("{}: not a NumPy .npy file", path), "write one with np.save(f, a.astype('float32'))");
  if (bytes.size() < 8) damaged(path, "the header is cut off");
  const int version = uint8_t(bytes[6]);
  if (version < 1 || version > 3 || bytes[7] != 0)
    damaged(path, fmt::format("unknown format version {}.{}", version, int(uint8_t(bytes[7]))));
  const size_t prefix = version == 1 ? 10 : 12;
  if (bytes.size() < prefix) damaged(path, "the header is cut off");
  size_t length = 0;
  for (size_t i = prefix; i-- > 8;) length = length << 8 | uint8_t(bytes[i]);
  if (length > bytes.size() - prefix)
    damaged(path, fmt::format("the header would have {} bytes, the file has {}", length, bytes.size()));
  Header header;
  if (!HeaderParser(bytes.substr(prefix, length)).parse(header)) damaged(path, "the header cannot be read");
  check_header(path, header, ranks, holds);
  data_begin = prefix + length;
  int64_t needed = int64_t(element_bytes(holds, header.descr));
  for (const int64_t d : header.shape)
    if (__builtin_mul_overflow(needed, d, &needed))
      damaged(path, fmt::format("the shape {} overflows", to_string(header.shape)));
  const size_t available = bytes.size() - data_begin;
  if (uint64_t(needed) != available)
    damaged(path,
            fmt::format("{} needs {} bytes of data, the file has {}", to_string(header.shape), needed, available));
  return header;
}

}  // namespace

bool npy_holds_integers(const std::string& path) {
  size_t begin = 0;
  const MappedFile file(path);
  return read_header(path, file.bytes(), {}, begin, Holds::either).descr != "<f4";
}

Dims npy_dims(const std::string& path, const std::vector<int>& ranks) {
  size_t begin = 0;
  const MappedFile file(path);
  return read_header(path, file.bytes(), ranks, begin).shape;
}

Tensor read_npy(const std::string& path, const std::vector<int>& ranks) {
  const MappedFile file(path);
  size_t begin = 0;
  const Header header = read_header(path, file.bytes(), ranks, begin);
  Tensor out(header.shape);
  std::memcpy(out.data(), file.bytes().data() + begin, size_t(out.count()) * sizeof(float));
  for (int64_t i = 0; i < out.count(); ++i)
    if (!std::isfinite(out[i]))
      throw Error(fmt::format("{}: element {} (in C order) is {}", path, i, out[i]),
                  "remove NaN and infinity, for example with np.nan_to_num");
  return out;
}

std::vector<int64_t> read_npy_integers(const std::string& path, const std::vector<int>& ranks, Dims& dims) {
  const MappedFile file(path);
  return npy_integers(path, file.bytes(), ranks, dims);
}

std::span<const std::byte> npy_pixels(const std::string& what, std::span<const std::byte> file, const std::vector<int>& ranks, Dims& dims) {
  size_t begin = 0;
  dims = read_header(what, file, ranks, begin, Holds::bytes).shape;
  return file.subspan(begin);
}

std::vector<int64_t> npy_integers(const std::string& what, std::span<const std::byte> file, const std::vector<int>& ranks, Dims& dims) {
  size_t begin = 0;
  const Header header = read_header(what, file, ranks, begin, Holds::integers);
  dims = header.shape;
  std::vector<int64_t> out(static_cast<size_t>(count(dims)));
  const std::byte* from = file.data() + begin;
  const auto copy = [&](auto element) {
    for (size_t i = 0; i < out.size(); ++i) {
      std::memcpy(&element, from + i * sizeof element, sizeof element);
      out[i] = int64_t(element);
    }
  };
  if (header.descr == "<i8") copy(int64_t{});
  else if (header.descr == "<i4") copy(int32_t{});
  else copy(uint8_t{});
  return out;
}

std::vector<uint8_t> npy_header(const Dims& dims, const char* type) {
  CHECK(!dims.empty() && dims.size() <= kMostAxes, "an array {} cannot be saved as .npy", to_string(dims));
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", type,
                                   fmt::join(dims, ", "), dims.size() == 1 ? "," : "");
  const size_t total = (10 + header.size() + 1 + 63) / 64 * 64;  // the data begin at a multiple of 64
  header.resize(total - 10 - 1, ' ');
  header += '\n';
  std::vector<uint8_t> out(total);
  std::memcpy(out.data(), kMagic.data(), 6);
  out[6] = 1;
  out[8] = uint8_t(header.size() & 255);
  out[9] = uint8_t(header.size() >> 8);
  std::memcpy(out.data() + 10, header.data(), header.size());
  return out;
}

std::vector<uint8_t> npy_bytes(const Tensor& tensor) {
  std::vector<uint8_t> out = npy_header(tensor.dims());
  const std::span<const std::byte> values = std::as_bytes(tensor.values());
  const auto* first = reinterpret_cast<const uint8_t*>(values.data());
  out.insert(out.end(), first, first + values.size());
  return out;
}

void write_npy(const std::string& path, const Tensor& tensor) { write_file_atomically(path, npy_bytes(tensor)); }

}  // namespace switchback
