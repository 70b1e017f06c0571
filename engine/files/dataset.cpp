#include "engine/files/dataset.h"

#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>

#include "engine/files/files.h"
#include "engine/files/json.h"
#include "engine/files/npz_images.h"
#include "engine/text.h"

namespace switchback {

namespace fs = std::filesystem;

// The readers of the kinds of data set; a struct only to be the data set's friend.
struct DatasetReader {
  static Dataset open(const std::string& path);
  static Dataset idx(const std::string& images, const std::string& labels);
  static Dataset mosaic(const std::string& path);
  static Dataset cifar(const std::string& path);
  static Dataset npz(const std::string& path, const std::string& name);
  static Dataset tar(const std::string& path);
  static Dataset plain_folder(const std::string& path, const std::vector<fs::path>& images);
  static Dataset folder(const std::string& path, const std::vector<fs::path>& classes);
};

namespace {

constexpr int64_t kMostBytes = int64_t(4) << 30;  // decoded, in memory
constexpr int kMostClasses = 100'000;
constexpr int64_t kLargestImage = int64_t(512) << 20;  // a file
const char* const kKinds =
    "a data set is an idx pair, a binary file or mosaic of CIFAR, an .npz, a .tar, a folder with one sub-folder a class, or one of "
    "images";

bool is_file(const fs::path& path) {
  std::error_code code;
  return fs::is_regular_file(path, code);
}
bool is_folder(const fs::path& path) {
  std::error_code code;
  return fs::is_directory(path, code);
}

std::vector<fs::path> sorted_entries(const fs::path& folder) {
  std::error_code code;
  std::vector<fs::path> out;
  for (fs::directory_iterator it(folder, code), end; !code && it != end; it.increment(code))
    if (it->path().filename().string()[0] != '.') out.push_back(it->path());
  if (code) throw Error(fmt::format("cannot read {}: {}", folder.string(), code.message()), "check the folder");
  std::sort(out.begin(), out.end(),
            [](const fs::path& a, const fs::path& b) { return a.filename().string() < b.filename().string(); });
  return out;
}

// ---- idx: 0, 0, type (8 = unsigned byte), rank; the sizes as big-endian 32-bit numbers; the bytes
struct Idx {
  std::vector<int64_t> dims;
  std::vector<uint8_t> data;
};

// Plain or gzipped. Reads what the header announces, in pieces, and that must be all there is.
Idx read_idx(const std::string& path, size_t rank) {
  const char* hint = "the file is damaged, incomplete or of another kind";
  const int64_t bytes = file_size(path);
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) throw Error(fmt::format("cannot read {}: {}", path, std::strerror(errno)), "check the file");
  const auto read = [&](uint8_t* to, int64_t count) {
    int64_t done = 0;
    while (done < count) {
      const int got = gzread(file.get(), to + done, unsigned(std::min<int64_t>(count - done, 1 << 20)));
      if (got <= 0) break;
      done += got;
    }
    int status = Z_OK;
    const char* message = gzerror(file.get(), &status);
    if (status != Z_OK && status != Z_STREAM_END)
      throw Error(fmt::format("{}: cannot be unpacked: {}", path, printable(message)), hint);
    return done;
  };
  uint8_t head[4 + 4 * 3];
  const int64_t head_bytes = int64_t(4 + 4 * rank);
  if (read(head, head_bytes) != head_bytes || head[0] != 0 || head[1] != 0 || head[2] != 8 || head[3] != rank)
    throw Error(fmt::format("{}: not an idx file of bytes with {} dimension{}", path, rank, rank == 1 ? "" : "s"),
                hint);
  // Deflate packs at most 1032 to 1, so that the file's size bounds what the header may claim.
  const int64_t most = gzdirect(file.get()) ? bytes : std::min(bytes, kMostBytes) * 1100;
  Idx out;
  int64_t count = 1;
  for (size_t i = 0; i < rank; ++i) {
    const uint8_t* p = head + 4 + 4 * i;
    out.dims.push_back(int64_t(p[0]) << 24 | p[1] << 16 | p[2] << 8 | p[3]);
    if (out.dims[i] == 0 || __builtin_mul_overflow(count, out.dims[i], &count) || count > std::min(most, kMostBytes))
      throw Error(fmt::format("{}: the header announces [{}], which {} bytes cannot hold", path,
                              fmt::join(out.dims, ","), bytes),
                  hint);
  }
  out.data.resize(count);
  const int64_t got = read(out.data.data(), count);
  if (got != count) throw Error(fmt::format("{}: {} of {} bytes are there", path, got, count), hint);
  uint8_t more;
  if (read(&more, 1) != 0) throw Error(fmt::format("{}: more than the {} bytes announced", path, count), hint);
  return out;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.rfind(from);
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

// The labels file of an images file, by the usual names; with and without .gz.
std::string labels_of(const std::string& images) {
  const fs::path path(images);
  std::string name = path.filename().string();
  if (name.find("labels") != std::string::npos && name.find("images") == std::string::npos)
    throw Error(fmt::format("{} holds labels", images), "give the images file; its labels are found by name");
  name = replaced(replaced(name, "images", "labels"), "idx3", "idx1");
  const std::string other = name.ends_with(".gz") ? name.substr(0, name.size() - 3) : name + ".gz";
  for (const std::string& candidate : {name, other})
    if (candidate != path.filename().string() && is_file(path.parent_path() / candidate))
      return (path.parent_path() / candidate).string();
  throw Error(fmt::format("{} has no labels file beside it", images), fmt::format("{} is looked for", name));
}

// The idx images file of a folder, or nothing.
std::string idx_images_in(const std::string& folder, const std::vector<fs::path>& entries) {
  std::vector<fs::path> found;
  for (const fs::path& p : entries) {
    const std::string name = p.filename().string();
    if (is_file(p) && name.find("images") != std::string::npos && name.find("idx3") != std::string::npos)
      found.push_back(p);
  }
  if (found.empty()) return "";
  for (const fs::path& p : found)
    if (p.filename().string().starts_with("t10k")) return p.string();
  if (found.size() > 1) throw Error(fmt::format("{} holds several idx images files", folder), "name one of them");
  return found[0].string();
}

bool is_idx_or_gzip(const std::string& path) {
  const MappedFile file(path);
  const auto b = file.bytes();
  const auto at = [&](size_t i) { return int(b[i]); };
  return b.size() >= 4 && ((at(0) == 0x1f && at(1) == 0x8b) || (at(0) == 0 && at(1) == 0 && at(2) == 8 && at(3) <= 4));
}

bool has_image_name(const fs::path& path) {
  std::string e = path.extension().string();
  std::transform(e.begin(), e.end(), e.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  static const std::set<std::string> known{".png", ".jpg", ".jpeg", ".webp", ".bmp", ".pgm", ".ppm"};
  return known.contains(e);
}

// A name of digits as a number, else -1.
int number_of(const std::string& name) {
  const bool digits = !name.empty() && name.size() <= 9 &&
                      std::all_of(name.begin(), name.end(), [](unsigned char c) { return c >= '0' && c <= '9'; });
  return digits ? std::stoi(name) : -1;
}

// "train" and 3 of train_003.png; the number is -1 where a name has another form.
struct MosaicName {
  std::string prefix;
  int number = -1;
};
MosaicName mosaic_name(const fs::path& file) {
  const std::string stem = file.stem().string();
  const size_t dash = stem.rfind('_');
  if (dash == std::string::npos) return {};
  return {stem.substr(0, dash), number_of(stem.substr(dash + 1))};
}

// The files PREFIX_labels*.u8 beside a mosaic.
std::vector<fs::path> mosaic_labels(const fs::path& file, const std::string& prefix) {
  std::vector<fs::path> labels;
  for (const fs::path& p : sorted_entries(file.parent_path().empty() ? fs::path(".") : file.parent_path()))
    if (p.extension() == ".u8" && p.filename().string().starts_with(prefix + "_labels")) labels.push_back(p);
  return labels;
}

// CIFAR's binary files: records of labels (one, or a coarse and a fine one) and 32x32 bytes of each colour.
constexpr int64_t kPlane = 32 * 32;
bool is_cifar(const fs::path& path) {
  if (path.extension() != ".bin" || !is_file(path)) return false;
  const int64_t bytes = file_size(path.string());
  return bytes > 0 && (bytes % (3 * kPlane + 1) == 0 || bytes % (3 * kPlane + 2) == 0);
}

// "FILE.npz" and "x_train" of "FILE.npz:x_train"; the file is "" where it is none.
std::pair<std::string, std::string> npz_name(const std::string& text) {
  const size_t colon = text.rfind(".npz:");
  const std::string file = colon == std::string::npos ? text : text.substr(0, colon + 4);
  if (!file.ends_with(".npz") || !is_file(file)) return {};
  return {file, colon == std::string::npos ? "" : text.substr(colon + 5)};
}

// The file of test images in a folder, or nothing.
std::string cifar_in(const std::vector<fs::path>& entries) {
  for (const fs::path& p : entries)
    if ((p.filename() == "test_batch.bin" || p.filename() == "test.bin") && is_cifar(p)) return p.string();
  return "";
}

// A name a line; empty lines at the end are left out.
std::vector<std::string> names_in(const fs::path& file) {
  std::vector<std::string> names = split(read_file(file.string(), 1 << 20), '\n');
  for (std::string& name : names)
    if (name.ends_with('\r')) name.pop_back();
  while (!names.empty() && names.back().empty()) names.pop_back();
  return names;
}

// All images below a folder, by name.
void add_images_below(const fs::path& folder, std::vector<std::string>& files) {
  for (const fs::path& p : sorted_entries(folder)) {
    if (is_folder(p)) add_images_below(p, files);
    else if (is_file(p) && has_image_name(p)) files.push_back(p.string());
  }
}

constexpr int kTile = 32, kTileColumns = 40, kTilesPerFile = 1000;
const std::vector<std::string> kCifarClasses{"airplane", "automobile", "bird",  "cat",  "deer",
                                             "dog",      "frog",       "horse", "ship", "truck"};

}  // namespace

Image Dataset::image(int64_t i) const {
  CHECK(i >= 0 && i < size(), "image {} of {}", i, size());
  if (!entries_.empty()) return decode_image(path(i), read_tar_entry(source(i).path, entries_[size_t(i)], kLargestImage), upright_);
  if (pixels_.empty()) return load_image(files_.at(i), upright_);
  Image out = Image::blank(width_, height_, channels_);
  std::copy_n(pixels_.data() + i * int64_t(out.pixels.size()), out.pixels.size(), out.pixels.data());
  return out;
}

std::string Dataset::path(int64_t i) const {
  CHECK(i >= 0 && i < size(), "image {} of {}", i, size());
  if (!entries_.empty()) return source(i).path + "/" + entries_[size_t(i)].name;
  return pixels_.empty() ? files_.at(i) : fmt::format("{}[{}]", source(i).path, number(i));
}

const Dataset::Source& Dataset::source(int64_t i) const {
  const auto next = std::ranges::upper_bound(sources_, i, {}, &Source::begin);
  return *std::prev(next);
}
int64_t Dataset::number(int64_t i) const { return i - source(i).begin + source(i).first; }

void Dataset::append(const Dataset& more) {
  const auto kind = [](const Dataset& d) { return std::tuple(d.pixels_.empty(), d.entries_.empty(), d.width_, d.height_, d.channels_); };
  const std::vector<std::string>& longer = more.classes.size() > classes.size() ? more.classes : classes;
  if (numbered && more.numbered && more.labelled() == labelled())
    classes = longer;
  else if (more.classes != classes)
    throw Error(fmt::format("{} has other classes than {}", printable(more.path(0)), printable(path(0))),
                "data sets that are joined must have the same");
  if (kind(more) != kind(*this))
    throw Error(fmt::format("{} has images of another kind than {}", printable(more.path(0)), printable(path(0))),
                "data sets that are joined must be all folders, or all files of one size of image");
  for (const Source& s : more.sources_) sources_.push_back({s.path, size() + s.begin, s.first});
  labels_.insert(labels_.end(), more.labels_.begin(), more.labels_.end());
  files_.insert(files_.end(), more.files_.begin(), more.files_.end());
  entries_.insert(entries_.end(), more.entries_.begin(), more.entries_.end());
  pixels_.insert(pixels_.end(), more.pixels_.begin(), more.pixels_.end());
}

Dataset DatasetReader::idx(const std::string& images, const std::string& labels) {
  Idx x = read_idx(images, 3);
  const Idx y = read_idx(labels, 1);
  if (x.dims[0] != y.dims[0])
    throw Error(fmt::format("{} holds {} images, {} holds {} labels", images, x.dims[0], labels, y.dims[0]),
                "the two files do not belong together");
  Dataset out;
  out.sources_ = {{images}};
  out.height_ = int(x.dims[1]);
  out.width_ = int(x.dims[2]);
  out.channels_ = 1;
  out.pixels_ = std::move(x.data);
  out.labels_.assign(y.data.begin(), y.data.end());
  const int last = std::max(9, *std::max_element(out.labels_.begin(), out.labels_.end()));
  for (int i = 0; i <= last; ++i) out.classes.push_back(std::to_string(i));
  return out;
}

Dataset DatasetReader::mosaic(const std::string& path) {
  const auto [prefix, number] = mosaic_name(path);
  if (number < 0)
    throw Error(fmt::format("{}: not a data set", path), fmt::format("{}; a mosaic is called PREFIX_NNN.png", kKinds));
  const std::vector<fs::path> labels = mosaic_labels(path, prefix);
  if (labels.size() != 1)
    throw Error(fmt::format("{}: {} labels files {}_labels*.u8 beside it, one is needed", path, labels.size(), prefix),
                kKinds);

  const Image all = load_image(path);
  if (all.width != kTile * kTileColumns || all.height % kTile != 0 || all.height / kTile * kTileColumns > kTilesPerFile)
    throw Error(fmt::format("{}: {}x{} is no mosaic of {}x{} tiles, {} a row, at most {}", path, all.width, all.height,
                            kTile, kTile, kTileColumns, kTilesPerFile),
                kKinds);
  const int64_t tiles = all.height / kTile * kTileColumns, first = int64_t(number) * kTilesPerFile;
  const std::string bytes = read_file(labels[0].string(), 1 << 24);
  if (int64_t(bytes.size()) < first + tiles)
    throw Error(fmt::format("{} holds {} labels, {} needs {} to {}", labels[0].string(), bytes.size(), path, first,
                            first + tiles - 1),
                "the two files do not belong together");
  Dataset out;
  out.classes = kCifarClasses;
  out.sources_ = {{path}};
  out.width_ = out.height_ = kTile;
  out.channels_ = 3;
  out.pixels_.resize(all.pixels.size());
  for (int64_t n = 0; n < tiles; ++n) {
    const int label = uint8_t(bytes[first + n]);
    if (label >= int(out.classes.size()))
      throw Error(fmt::format("{}: label {} of image {} is not below {}", labels[0].string(), label, first + n,
                              out.classes.size()),
                  "is it the right file?");
    out.labels_.push_back(label);
    const int64_t top = n / kTileColumns * kTile, left = n % kTileColumns * kTile;
    for (int64_t y = 0; y < kTile; ++y)
      std::copy_n(all.at(left, top + y), kTile * 3, out.pixels_.data() + (n * kTile + y) * kTile * 3);
  }
  return out;
}

Dataset DatasetReader::cifar(const std::string& path) {
  const std::string bytes = read_file(path, kMostBytes);
  const bool ten = bytes.size() % (3 * kPlane + 1) == 0;
  const int64_t labels = ten ? 1 : 2, record = labels + 3 * kPlane, images = int64_t(bytes.size()) / record;
  Dataset out;
  out.sources_ = {{path}};
  out.width_ = out.height_ = kTile;
  out.channels_ = 3;
  const fs::path names = fs::path(path).parent_path() / (ten ? "batches.meta.txt" : "fine_label_names.txt");
  if (is_file(names)) out.classes = names_in(names);
  else if (ten) out.classes = kCifarClasses;
  else
    for (int i = 0; i < 100; ++i) out.classes.push_back(std::to_string(i));
  out.pixels_.resize(images * 3 * kPlane);
  for (int64_t n = 0; n < images; ++n) {
    const auto* at = reinterpret_cast<const uint8_t*>(bytes.data()) + n * record;
    const int label = at[labels - 1];
    if (label >= int(out.classes.size()))
      throw Error(fmt::format("{}: label {} of image {} is not below {}", path, label, n, out.classes.size()),
                  "is it a file of CIFAR-10 or CIFAR-100, with the names of its classes beside it?");
    out.labels_.push_back(label);
    for (int64_t i = 0; i < kPlane; ++i)
      for (int64_t c = 0; c < 3; ++c) out.pixels_[(n * kPlane + i) * 3 + c] = at[labels + c * kPlane + i];
  }
  return out;
}

Dataset DatasetReader::npz(const std::string& path, const std::string& name) {
  NpzImages read = read_npz_images(path, name, kMostClasses, kMostBytes);
  Dataset out;
  out.sources_ = {{name.empty() ? path : path + ":" + name}};
  out.width_ = read.width, out.height_ = read.height, out.channels_ = read.channels;
  out.pixels_ = std::move(read.pixels), out.labels_ = std::move(read.labels);
  const bool cifar = read.classes <= 10 && read.width == kTile && read.height == kTile && read.channels == 3;
  if (cifar) out.classes = kCifarClasses;
  else
    for (int i = 0; i < read.classes; ++i) out.classes.push_back(std::to_string(i));
  return out;
}

Dataset DatasetReader::folder(const std::string& path, const std::vector<fs::path>& classes) {
  const bool numbers = std::all_of(classes.begin(), classes.end(),
                                   [](const fs::path& p) { return number_of(p.filename().string()) >= 0; });
  Dataset out;
  std::map<int, std::string> seen;
  for (size_t i = 0; i < classes.size(); ++i) {
    const std::string name = classes[i].filename().string();
    const int label = numbers ? number_of(name) : int(i);
    if (label >= kMostClasses)
      throw Error(fmt::format("{}: class {} is not below {}", path, label, kMostClasses), "rename the sub-folder");
    if (const auto [at, fresh] = seen.emplace(label, name); !fresh)
      throw Error(fmt::format("{}: the sub-folders {} and {} are the same class", path, at->second, name),
                  "rename one");
    add_images_below(classes[i], out.files_);
    out.labels_.resize(out.files_.size(), label);
  }
  out.sources_ = {{path}};
  if (out.files_.empty()) throw Error(fmt::format("{}: no images in its sub-folders", path), kKinds);
  for (int i = 0; i <= seen.rbegin()->first; ++i) out.classes.push_back(seen.contains(i) ? seen[i] : std::to_string(i));
  return out;
}

void Dataset::join_classes() {
  classes = {"all"};
  std::fill(labels_.begin(), labels_.end(), 0);
}

Dataset DatasetReader::plain_folder(const std::string& path, const std::vector<fs::path>& images) {
  Dataset out;
  out.sources_ = {{path}};
  for (const fs::path& p : images) out.files_.push_back(p.string());
  out.labels_.assign(images.size(), -1);
  return out;
}

// Consecutive files of one name, up to its first dot, are one sample.
Dataset DatasetReader::tar(const std::string& path) {
  const auto fail_at = [&](const TarEntry& e, const std::string& what) {
    throw Error(fmt::format("{}/{}: {}", path, printable(e.name), what), "labels are NAME.cls, a number, or \"label\" or \"cls\" of NAME.json");
  };
  const auto label_in = [&](const TarEntry& e) -> int {
    constexpr int64_t kLargestLabel = 1 << 20;
    std::string text = read_tar_entry(path, e, kLargestLabel);
    if (e.name.ends_with(".json")) {
      const nlohmann::json about = parse_json(text, nullptr, false);
      for (const char* key : {"label", "cls"})
        if (about.is_object() && about.contains(key) && about[key].is_number_integer()) {
          const int64_t label = about[key];
          return label >= 0 && label < kMostClasses ? int(label) : -2;
        }
      return -1;
    }
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
    const int label = number_of(text);
    if (label < 0 || label >= kMostClasses) fail_at(e, fmt::format("{} is no label from 0 to {}", printable(text), kMostClasses - 1));
    return label;
  };
  Dataset out;
  out.sources_ = {{path}};
  std::string key;
  int label = -1;
  size_t labels = 0;
  std::vector<TarEntry> images;  // of the sample
  const auto end_sample = [&] {
    for (TarEntry& image : images) out.entries_.push_back(std::move(image)), out.labels_.push_back(label), labels += label >= 0;
    images.clear();
    label = -1;
  };
  for (const TarEntry& e : read_tar_index(path)) {
    const fs::path name(e.name);
    const std::string file = name.filename().string();
    if (file.empty() || file[0] == '.') continue;
    const std::string own = (name.parent_path() / file.substr(0, file.find('.'))).string();
    if (own != key) end_sample(), key = own;
    if (has_image_name(name)) images.push_back(e);
    if (!e.name.ends_with(".cls") && !e.name.ends_with(".json")) continue;
    if (const int read = label_in(e); read >= 0) label = read;
    else if (read == -2) fail_at(e, fmt::format("its label is not from 0 to {}", kMostClasses - 1));
  }
  end_sample();
  if (out.entries_.empty()) throw Error(fmt::format("{} holds no images", path), "png, jpg, webp, bmp, ppm and pgm files are looked for");
  if (labels > 0 && labels < out.labels_.size())
    for (size_t i = 0; i < out.labels_.size(); ++i)
      if (out.labels_[i] < 0) fail_at(out.entries_[i], "has no label, but others have one");
  out.numbered = true;
  if (labels > 0)
    for (int i = 0; i <= *std::ranges::max_element(out.labels_); ++i) out.classes.push_back(std::to_string(i));
  return out;
}

Dataset DatasetReader::open(const std::string& path) {
  if (!is_folder(path)) {
    if (const auto [file, name] = npz_name(path); !file.empty()) return DatasetReader::npz(file, name);
    (void)file_size(path);  // says what is wrong with a path that is no file
    if (fs::path(path).extension() == ".tar") return DatasetReader::tar(path);
    if (is_idx_or_gzip(path)) return DatasetReader::idx(path, labels_of(path));
    return is_cifar(path) ? DatasetReader::cifar(path) : DatasetReader::mosaic(path);
  }
  const std::vector<fs::path> entries = sorted_entries(path);
  if (const std::string images = idx_images_in(path, entries); !images.empty())
    return DatasetReader::idx(images, labels_of(images));
  if (const std::string images = cifar_in(entries); !images.empty()) return DatasetReader::cifar(images);
  std::vector<fs::path> classes;
  std::copy_if(entries.begin(), entries.end(), std::back_inserter(classes), is_folder);
  if (classes.empty()) {
    std::vector<fs::path> archives, images;
    for (const fs::path& p : entries)
      if (is_file(p)) (p.extension() == ".tar" ? archives : images).push_back(p);
    std::erase_if(images, [](const fs::path& p) { return !has_image_name(p); });
    if (!images.empty()) return DatasetReader::plain_folder(path, images);
    if (archives.empty()) throw Error(fmt::format("{}: not a data set: no sub-folders and no images in it", path), kKinds);
    Dataset all = DatasetReader::tar(archives[0].string());
    for (size_t i = 1; i < archives.size(); ++i) all.append(DatasetReader::tar(archives[i].string()));
    return all;
  }
  return DatasetReader::folder(path, classes);
}

namespace {

bool is_mosaic(const std::string& path) {
  const auto [prefix, number] = mosaic_name(path);
  return number >= 0 && is_file(path) && fs::path(path).extension() == ".png" && !mosaic_labels(path, prefix).empty();
}

// "PATH[2:7]" as PATH and "2:7". What lies there under the whole name is no part.
std::pair<std::string, std::optional<std::string>> split_part(const std::string& text) {
  const size_t open = text.rfind('[');
  if (!text.ends_with(']') || open == std::string::npos || is_file(text) || is_folder(text)) return {text, {}};
  return {text.substr(0, open), text.substr(open + 1, text.size() - open - 2)};
}

// "2:7" of `size` images as 2 and 7, "3" as 3 and 4.
std::pair<int64_t, int64_t> parse_part(const std::string& path, const std::string& part, int64_t size) {
  const size_t colon = part.find(':');
  const auto number = [&](const std::string& text, int64_t otherwise) {
    return text.empty() && colon != std::string::npos ? otherwise : int64_t(number_of(text));
  };
  const int64_t first = number(part.substr(0, colon), 0);
  const int64_t last = colon == std::string::npos ? first + 1 : number(part.substr(colon + 1), size);
  if (first < 0 || last < 0 || first >= last || last > size)
    throw Error(fmt::format("{} has no images [{}]", path, printable(part)),
                fmt::format("[INDEX] or [FIRST:LAST], LAST not included, of {} images", size), true);
  return {first, last};
}

}  // namespace

Dataset Dataset::part(int64_t first, int64_t last) && {
  sources_[0].first += first;  // it has been opened just now, and has one
  labels_ = {labels_.begin() + first, labels_.begin() + last};
  if (!entries_.empty()) {
    entries_ = {entries_.begin() + first, entries_.begin() + last};
  } else if (pixels_.empty()) {
    files_ = {files_.begin() + first, files_.begin() + last};
  } else {
    const int64_t bytes = int64_t(width_) * height_ * channels_;
    pixels_ = {pixels_.begin() + first * bytes, pixels_.begin() + last * bytes};
  }
  return std::move(*this);
}

bool is_dataset(const std::string& text) {
  const auto [path, part] = split_part(text);
  if (part) return true;
  if (!npz_name(path).first.empty()) return true;
  if (!is_folder(path)) return is_file(path) && (fs::path(path).extension() == ".tar" || is_mosaic(path) || is_cifar(path) || is_idx_or_gzip(path));
  const std::vector<fs::path> entries = sorted_entries(path);
  const auto any = [&](const auto& is) { return std::any_of(entries.begin(), entries.end(), is); };
  if (any([](const fs::path& p) { return is_file(p) && has_image_name(p); })) return false;
  return any(is_folder) || any([](const fs::path& p) { return is_file(p) && p.extension() == ".tar"; }) || !idx_images_in(path, entries).empty() || !cifar_in(entries).empty();
}

std::string dataset_stem(const std::string& text) {
  const auto [path, part] = split_part(text);
  const std::string name = fs::path(path.ends_with('/') ? path.substr(0, path.size() - 1) : path).filename().string();
  const std::string stem = name.substr(0, name.find('.'));
  const auto [file, array] = npz_name(path);
  std::string suffix = (array.empty() ? "" : "-" + array) + (part ? "@" + *part : "");
  std::replace(suffix.begin(), suffix.end(), ':', '-');
  return (stem.empty() ? "dataset" : stem) + suffix;
}

Dataset open_dataset(const std::string& text, bool upright) {
  const auto [path, part] = split_part(text);
  Dataset all = DatasetReader::open(path);
  all.upright_ = upright;
  if (!part) return all;
  const auto [first, last] = parse_part(path, *part, all.size());
  return std::move(all).part(first, last);
}

}  // namespace switchback
