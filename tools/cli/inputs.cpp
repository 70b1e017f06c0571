#include "tools/cli/inputs.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "engine/files/files.h"
#include "engine/files/npy.h"
#include "tools/cli/progress.h"
#include "viz/methods/batches.h"

namespace switchback {
namespace {

namespace fs = std::filesystem;

std::string lower_extension(const std::string& path) {
  std::string extension = fs::path(path).extension().string();
  for (char& c : extension)
    if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
  return extension;
}

bool looks_like_image(const std::string& path) {
  static const std::set<std::string> known = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm"};
  return known.contains(lower_extension(path));
}

std::vector<std::string> images_in(const std::string& folder) {
  std::vector<std::string> found;
  std::string skipped;
  int others = 0;
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  if (error) throw Error(fmt::format("cannot read the folder {}: {}", printable(folder), error.message()));
  for (const fs::directory_entry& entry : entries) {
    if (entry.is_directory(error)) continue;
    if (looks_like_image(entry.path().string())) {
      found.push_back(entry.path().string());
    } else {
      if (others++ == 0) skipped = entry.path().filename().string();
    }
  }
  if (found.empty())
    throw Error(fmt::format("{} holds no images", printable(folder)),
                "png, jpg, bmp, ppm and pgm files are looked for");
  if (others > 0)
    warn(fmt::format("{}: skipped {} {} no image ({}{})", printable(folder), others,
                     others == 1 ? "file that is" : "files that are", printable(skipped), others > 1 ? ", …" : ""));
  std::sort(found.begin(), found.end());
  return found;
}

void add_file(std::vector<InputFile>& files, std::set<std::string>& stems, const std::string& path) {
  const std::string stem = fs::path(path).stem().string();
  std::string unique = stem;
  for (int i = 2; !stems.insert(unique).second; ++i) unique = fmt::format("{}_{}", stem, i);
  files.push_back({path, unique, lower_extension(path) == ".npy", int64_t(files.size())});
}

Tensor as_batch(Tensor t) {
  if (t.dims().size() == 4) return t;
  Dims dims = t.dims();
  dims.insert(dims.begin(), 1);
  return std::move(t).reshaped(std::move(dims));
}

Tensor joined(std::vector<Tensor> tensors) {
  if (tensors.size() == 1) return std::move(tensors[0]);
  Dims dims = tensors[0].dims();
  dims[0] = 0;
  for (const Tensor& t : tensors) dims[0] += t.dim(0);
  Tensor all(dims);
  float* to = all.data();
  for (const Tensor& t : tensors) {
    std::memcpy(to, t.data(), size_t(t.count()) * sizeof(float));
    to += t.count();
  }
  return all;
}

uint8_t byte(double v) { return uint8_t(std::lround(std::clamp(v, 0.0, 255.0))); }

}  // namespace

std::vector<InputFile> list_inputs(const std::vector<std::string>& arguments) {
  if (arguments.empty()) throw Error("no INPUT given", "name an image, a folder of images or a .npy file", true);
  std::vector<InputFile> files;
  std::set<std::string> stems = {kContactSheet};
  for (const std::string& argument : arguments) {
    std::error_code error;
    const fs::file_status status = fs::status(argument, error);
    if (!fs::exists(status)) throw Error(fmt::format("{}: no such file", printable(argument)));
    if (fs::is_directory(status)) {
      for (const std::string& path : images_in(argument)) add_file(files, stems, path);
    } else {
      add_file(files, stems, argument);
    }
  }
  return files;
}

bool is_single_input(const std::string& path) { return looks_like_image(path) || lower_extension(path) == ".npy"; }

int64_t count_items(const std::vector<InputFile>& files) {
  int64_t items = 0;
  for (const InputFile& file : files) {
    const Dims dims = file.array ? npy_dims(file.path, {3, 4}) : Dims{};
    items += dims.size() == 4 ? dims[0] : 1;
  }
  return items;
}

Tensor load_input(const InputFile& file, const Model& model) {
  Tensor x = file.array ? as_batch(read_npy(file.path, {3, 4})) : preprocess(load_image(file.path), model.preprocess);
  try {
    image_shape(model.network, x);
  } catch (const Error& e) {
    throw Error(fmt::format("{}: {}", printable(file.path), e.what()), e.hint, e.usage);
  }
  return x;
}

Tensor load_single(const std::string& path, const Model& model) {
  Tensor x = load_input({.path = path, .stem = "", .array = lower_extension(path) == ".npy"}, model);
  if (x.dim(0) != 1)
    throw Error(fmt::format("{} holds {} images; one is wanted", printable(path), x.dim(0)), "save [C,H,W]");
  return x;
}

void for_each_chunk(const std::vector<InputFile>& files, const Model& model, const std::function<int64_t(Shape)>& most,
                    const std::function<void(const Chunk&)>& run) {
  Chunk chunk;
  std::vector<Tensor> tensors;
  int64_t items = 0, limit = 0;
  const auto flush = [&] {
    if (tensors.empty()) return;
    chunk.x = joined(std::move(tensors));
    run(chunk);
    chunk = {};
    tensors.clear();
    items = 0;
  };
  for (const InputFile& file : files) {
    Tensor x = load_input(file, model);
    const bool same =
        !tensors.empty() && std::equal(x.dims().begin() + 1, x.dims().end(), tensors[0].dims().begin() + 1);
    if (!same || items + x.dim(0) > limit) {
      flush();
      limit = most({1, x.dim(1), x.dim(2), x.dim(3)});
    }
    chunk.parts.push_back({&file, items, x.dim(0)});
    items += x.dim(0);
    tensors.push_back(std::move(x));
  }
  flush();
}

Image input_picture(const Tensor& x, int64_t item, const Model& model, bool array) {
  const int64_t channels = x.dim(1), h = x.dim(2), w = x.dim(3), shown = channels == 3 ? 3 : 1;
  const float* values = x.data() + item * channels * h * w;
  const Preprocess& how = model.preprocess;
  const bool known = !array && how.channels() == channels;
  const auto [lo, hi] = std::minmax_element(values, values + shown * h * w);
  const double span = std::max(1e-30, double(*hi) - double(*lo));
  Image out{int(w), int(h), int(shown), std::vector<uint8_t>(size_t(shown * h * w))};
  for (int64_t c = 0; c < shown; ++c) {
    const size_t k = size_t(c);
    const double mean = k < how.mean.size() ? how.mean[k] : 0, std = k < how.std.size() ? how.std[k] : 1;
    const int64_t to = shown == 3 ? channel_of(int(c), how.order) : c;
    for (int64_t i = 0; i < h * w; ++i) {
      const double v = values[c * h * w + i];
      out.pixels[size_t(i * shown + to)] = known ? byte((v * std + mean) / how.scale) : byte(255 * (v - *lo) / span);
    }
  }
  return out;
}

std::string item_name(const InputFile& file, int64_t index) {
  const std::string name = fs::path(file.path).filename().string();
  return file.array ? fmt::format("{}[{}]", name, index) : name;
}

}  // namespace switchback
