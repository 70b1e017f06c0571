#include "engine/files/npz_images.h"

#include <algorithm>
#include <map>

#include "engine/files/files.h"
#include "engine/files/npy.h"
#include "engine/files/zip.h"

namespace switchback {
namespace {

constexpr const char* kNames = "for example x_train and y_train, train_images and train_labels, or data and labels";

// "y_train" of "x_train", "train_labels" of "train_images", "labels" of "data"; "" where it is no name of images.
std::string labels_name(const std::string& images) {
  for (const auto& [from, to] : {std::pair<std::string, std::string>{"images", "labels"}, {"data", "labels"}, {"x", "y"}, {"X", "y"}}) {
    const size_t at = images.find(from);
    const bool letter = from.size() == 1;  // it stands at the beginning: x, x_train
    if (at == std::string::npos || (letter && (at != 0 || (images.size() > 1 && images[1] != '_')))) continue;
    return std::string(images).replace(at, from.size(), to);
  }
  return "";
}

// Where an image's element (row, column, channel) lies: [N,H,W,C], or colour by colour.
struct Layout {
  int height, width, channels;
  bool planes;
};
Layout layout_of(const std::string& what, const Dims& d) {
  const auto colours = [](int64_t c) { return c == 1 || c == 3; };
  constexpr int64_t kMost = 1 << 15;
  if (d.size() == 2 && d[1] == 3 * 32 * 32) return {32, 32, 3, true};
  if (d.size() == 3 && d[1] <= kMost && d[2] <= kMost) return {int(d[1]), int(d[2]), 1, false};
  if (d.size() == 4 && colours(d[3]) && d[1] <= kMost && d[2] <= kMost) return {int(d[1]), int(d[2]), int(d[3]), false};
  if (d.size() == 4 && colours(d[1]) && d[2] <= kMost && d[3] <= kMost) return {int(d[2]), int(d[3]), int(d[1]), true};
  throw Error(fmt::format("{}: {} are no images", what, to_string(d)), "[N,H,W], [N,H,W,C], [N,C,H,W] with one or three colours, or CIFAR's [N,3072]");
}

}  // namespace

NpzImages read_npz_images(const std::string& path, const std::string& name, int most_classes, int64_t most_bytes) {
  const MappedFile file(path);
  std::map<std::string, ZipRecord> arrays;
  const auto array = [&](const std::string& key) {
    try {
      if (int64_t(arrays.at(key).size) > most_bytes) throw Error(fmt::format("'{}' has {} bytes", printable(key), arrays.at(key).size), "give a part of it");
      return arrays.at(key).unpack();
    } catch (const Error& e) {
      throw Error(fmt::format("{}: {}", path, e.what()), e.hint);
    }
  };
  try {
    for (const ZipRecord& r : zip_records(file.bytes()))
      if (r.name.ends_with(".npy")) arrays.emplace(r.name.substr(0, r.name.size() - 4), r);
  } catch (const Error& e) {
    throw Error(fmt::format("{}: {}", path, e.what()), e.hint);
  }
  std::vector<std::string> sets;
  for (const auto& [key, record] : arrays)
    if (arrays.contains(labels_name(key))) sets.push_back(printable(key));
  if (sets.empty()) throw Error(fmt::format("{}: no images with their labels are in it", path), kNames);
  if (name.empty() && sets.size() > 1)
    throw Error(fmt::format("{} holds {}", path, fmt::join(sets, " and ")), fmt::format("name one of them: {}:{}", path, sets[0]), true);
  const std::string images = name.empty() ? sets[0] : name;
  if (std::ranges::find(sets, images) == sets.end())
    throw Error(fmt::format("{} has no images '{}' with labels", path, printable(images)), fmt::format("it holds {}", fmt::join(sets, ", ")), true);

  NpzImages out;
  const auto labels = [&](const std::string& set, int64_t count) {
    const std::string what = fmt::format("{}:{}", path, labels_name(set));
    const std::vector<std::byte> bytes = array(labels_name(set));
    Dims dims;
    const std::vector<int64_t> read = npy_integers(what, bytes, {1, 2}, dims);
    if (dims.size() == 2 && dims[1] != 1) throw Error(fmt::format("{} is {}: one label an image is needed", what, to_string(dims)), "[N] or [N,1]");
    if (count >= 0 && dims[0] != count) throw Error(fmt::format("{} has {} labels, {} has {} images", what, dims[0], set, count), kNames);
    for (const int64_t label : read) {
      if (label < 0 || label >= most_classes)
        throw Error(fmt::format("{}: label {} is not from 0 to {}", what, label, most_classes - 1), "labels count from 0");
      out.classes = std::max(out.classes, int(label) + 1);
    }
    return read;
  };
  const std::string what = fmt::format("{}:{}", path, images);
  const std::vector<std::byte> bytes = array(images);
  Dims dims;
  const std::span<const std::byte> pixels = npy_pixels(what, bytes, {2, 3, 4}, dims);
  const Layout l = layout_of(what, dims);
  out.width = l.width, out.height = l.height, out.channels = l.channels;
  for (const std::string& set : sets)  // parts of one data set have the same classes
    if (set != images) labels(set, -1);
  const std::vector<int64_t> own = labels(images, dims[0]);
  out.labels.assign(own.begin(), own.end());
  out.pixels.resize(pixels.size());
  const int64_t plane = int64_t(l.height) * l.width, channels = l.planes ? l.channels : 1, places = int64_t(pixels.size()) / channels;
  for (int64_t i = 0; i < places; ++i)  // of all images; of planes, `plane` of them an image
    for (int64_t c = 0; c < channels; ++c)
      out.pixels[i * channels + c] = uint8_t(pixels[l.planes ? (i / plane * channels + c) * plane + i % plane : i]);
  return out;
}

}  // namespace switchback
