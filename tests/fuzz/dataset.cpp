// Data sets (engine/files/dataset.h): idx pairs, plain or gzipped, CIFAR mosaics, and .npz. (A folder of folders has no format; its
// pictures are image.cpp's.) An input is: one byte, which kind; two, the length of the images file; the images file;
// the labels file.
#include "engine/files/dataset.h"

#include <unistd.h>
#include <zlib.h>

#include "tests/fuzz/fuzz.h"

using namespace switchback;

namespace {

// Deflate unfolds at most 1032 to 1, and a label of one byte becomes an int.
constexpr fuzz::Allowance kAllowance{4 * 1100, 1 << 18};
// A mosaic of the most pixels that are tried: decoded, replicated, cut into tiles.
constexpr int64_t kMostPixels = 1280 * 64;
constexpr fuzz::Allowance kMosaicAllowance{2 * 1032, 16 * kMostPixels + (1 << 20)};

// The names by which the files find each other; what they hold comes from the input.
struct Files {
  fuzz::MemoryFile images, labels, mosaic, mosaic_labels, npz;
  std::string idx = fuzz::work_folder() + "/x-images-idx3-ubyte", png = fuzz::work_folder() + "/m_000.png",
              archive = fuzz::work_folder() + "/a.npz";
  Files() {
    link(images, idx);
    link(labels, fuzz::work_folder() + "/x-labels-idx1-ubyte");
    link(mosaic, png);
    link(mosaic_labels, fuzz::work_folder() + "/m_labels.u8");
    link(npz, archive);
  }
  static void link(const fuzz::MemoryFile& file, const std::string& name) {
    PROMISED(symlink(file.path().c_str(), name.c_str()) == 0);
  }
};

std::string gzipped(std::string_view bytes) {
  std::string out(bytes.size() + bytes.size() / 8 + 64, '\0');
  z_stream stream{};
  PROMISED(deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = uInt(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = uInt(out.size());
  PROMISED(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

void check(const Dataset& data, const std::string& path) {
  PROMISED(data.size() > 0 && !data.classes.empty());
  const Image first = data.image(0);
  for (int64_t i = 0; i < data.size(); ++i) {
    PROMISED(data.label(i) >= 0 && size_t(data.label(i)) < data.classes.size());
    const Image image = data.image(i);
    PROMISED(image.width == first.width && image.height == first.height && image.channels == first.channels);
    PROMISED(image.pixels.size() == size_t(image.width) * size_t(image.height) * size_t(image.channels));
    fuzz::touch(std::span<const uint8_t>(image.pixels));
  }
  PROMISED(data.path(0) == path + "[0]");
}

void read_idx(Files& files, std::string_view images, std::string_view labels) {
  files.images.put(images);
  files.labels.put(labels);
  fuzz::read_within(kAllowance, images.size() + labels.size(), [&] { check(open_dataset(files.idx), files.idx); });
}

// PNGs of few pixels only, as in image.cpp.
bool is_small_png(std::string_view file) {
  if (!file.starts_with("\x89PNG") || file.size() < 24) return false;
  const auto number = [&](size_t at) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | uint8_t(file[at + i]);
    return int64_t(value);
  };
  return number(16) <= 4096 && number(16) * number(20) <= kMostPixels;
}

void read_mosaic(Files& files, std::string_view images, std::string_view labels) {
  if (!is_small_png(images)) return;
  files.mosaic.put(images);
  files.mosaic_labels.put(labels);
  fuzz::read_within(kMosaicAllowance, images.size() + labels.size(),
                    [&] { check(open_dataset(files.png), files.png); });
}

// A label of one byte becomes a number of eight.
constexpr fuzz::Allowance kNpzAllowance{16 * 1100, 1 << 18};
void read_npz(Files& files, std::string_view archive) {
  files.npz.put(archive);
  fuzz::read_within(kNpzAllowance, archive.size(), [&] { check(open_dataset(files.archive), files.archive); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Files files;
  if (size < 3) return 0;
  const std::string_view rest = fuzz::text_of(data + 3, size - 3);
  const size_t length = std::min(rest.size(), size_t(data[1]) | size_t(data[2]) << 8);
  const std::string_view images = rest.substr(0, length), labels = rest.substr(length);
  switch (data[0] % 4) {
    case 0:
      read_idx(files, images, labels);
      break;
    case 1:
      read_idx(files, gzipped(images), gzipped(labels));
      break;
    case 2:
      read_mosaic(files, images, labels);
      break;
    default:
      read_npz(files, rest);
  }
  return 0;
}
