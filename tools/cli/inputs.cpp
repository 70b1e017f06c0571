#include "tools/cli/inputs.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <set>

#include "engine/files/npy.h"
#include "tools/cli/job.h"
#include "tools/cli/labelled.h"
#include "tools/cli/shares.h"
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
  static const std::set<std::string> known = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm"};
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
                "png, jpg, webp, bmp, ppm and pgm files are looked for");
  if (others > 0)
    warn(fmt::format("{}: skipped {} {} no image ({}{})", printable(folder), others,
                     others == 1 ? "file that is" : "files that are", printable(skipped), others > 1 ? ", …" : ""));
  std::sort(found.begin(), found.end());
  return found;
}

// Where the file takes [N,H,W,C], so may the array.
Tensor channels_first(Tensor t, Shape taken, const std::string& path) {
  const Dims& d = t.dims();
  const bool first = d[1] == taken.c && (d[3] != taken.c || (d[2] == taken.h && d[3] == taken.w));
  if (first && d[3] == taken.c)
    warn(fmt::format("{} is read as [N,C,H,W], though it could be [N,H,W,C], the layout of the model's file", printable(path)));
  if (first || d[3] != taken.c) return t;
  warn(fmt::format("{} is read as [N,H,W,C], the layout of the model's file; results are [N,C,H,W]", printable(path)));
  Tensor turned(Dims{d[0], d[3], d[1], d[2]});
  const int64_t places = d[1] * d[2], c = d[3];
  for (int64_t i = 0; i < t.count(); ++i) turned[(i / c / places * c + i % c) * places + i / c % places] = t[i];
  return turned;
}

Tensor as_batch(Tensor t, Shape taken) {
  if (t.dims().size() == 4) return t;
  Dims dims = t.dims();
  if (dims.size() == 2)
    dims.insert(dims.end(), {1, 1});  // vectors [N,C]
  else if (taken.w == 1 && (taken.h > 1 ? dims[2] != 1 : dims[1] == taken.c && dims[2] == 1))
    dims.push_back(1);  // signals [N,C,L], which networks take as maps of one column
  else
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

std::string standard_input() {
  constexpr size_t kMost = size_t(512) << 20;
  std::string bytes;
  char block[1 << 16];
  while (const size_t got = std::fread(block, 1, sizeof block, stdin)) {
    bytes.append(block, got);
    if (bytes.size() > kMost) throw Error("standard input holds more than 512 MiB", "- reads one image");
  }
  return bytes;
}

// All images of a data set at once.
Tensor load_dataset(const Dataset& data, const Model& model, int threads) {
  const Preprocess& how = model.preprocess;
  Tensor x = allocate_maps({data.size(), how.channels(), how.size[0], how.size[1]});
  const int64_t each = x.count() / x.dim(0);
  const std::vector<int64_t> images = numbers_of(0, data.size());
  read_batches(data, images, model, 64, threads, kLeaveNoneOut, [&](const ReadAhead::Batch& batch) {
    std::copy(batch.pixels.begin(), batch.pixels.end(), x.data() + batch.images[0] * each);
  });
  return x;
}

Tensor read_input(const InputFile& file, const Model& model, bool upright, int threads) {
  const Shape taken = model.network.input;
  const std::vector<int> ranks = taken.h * taken.w == 1 ? std::vector<int>{2, 3, 4} : std::vector<int>{3, 4};
  Tensor x = file.dataset          ? load_dataset(*file.dataset, model, threads)
             : file.array          ? as_batch(read_npy(file.path, ranks), taken)
             : file.path == "-"    ? preprocess(decode_image("standard input", standard_input(), upright), model.preprocess)
                                   : preprocess(load_image(file.path, upright), model.preprocess);
  if (file.array && model.channels_last) x = channels_first(std::move(x), taken, file.path);
  try {
    image_shape(model.network, x);
  } catch (const Error& e) {
    throw Error(fmt::format("{}: {}", printable(file.path), e.what()), e.hint, e.usage);
  }
  return x;
}

}  // namespace

bool is_array(const std::string& path) { return lower_extension(path) == ".npy"; }
bool is_single_input(const std::string& path) { return looks_like_image(path) || is_array(path); }

Inputs::Inputs(Job& job, Output& output) : job_(job), output_(output) {
  const std::vector<std::string>& arguments = job.options.inputs;
  if (arguments.empty())
    throw Error("no INPUT given",
                "name an image, a folder of images, a .npy file or a data set; - reads an image from standard input", true);
  if (std::count(arguments.begin(), arguments.end(), "-") > 1)
    throw Error("- is given twice", "standard input holds one image", true);
  if (shares().divided() && std::count(arguments.begin(), arguments.end(), "-") > 0)
    throw Error("standard input is read once, but this run is divided", "give a file", true);
  for (const std::string& argument : arguments) add(argument);
  if (files_.empty()) none_read();
}

void Inputs::none_read() const {
  throw Error("none of the inputs could be read", fmt::format("the first: {}", job_.failed.front().second));
}

bool Inputs::attempt(const std::string& path, const std::function<void()>& read) {
  const bool alone = job_.options.strict || (job_.options.inputs.size() == 1 && files_.size() <= 1);
  try {
    read();
    return true;
  } catch (const Error& e) {
    if (alone || e.usage) throw;
    // All ranks read all inputs, and the first one tells.
    if (shares().later_rank())
      job_.failed.emplace_back(path, e.what());
    else
      job_.fail(path, e.what());
    return false;
  }
}

void Inputs::add(const std::string& argument) {
  attempt(argument, [&] {
    std::error_code error;
    if (argument == "-") {
      add_file(argument, "stdin");
    } else if (is_dataset(argument)) {
      auto data = std::make_shared<Dataset>(open_dataset(argument, job_.options.exif));
      add_file(argument, dataset_stem(argument), std::move(data));
    } else if (const fs::file_status status = fs::status(argument, error); !fs::exists(status)) {
      throw Error(fmt::format("{}: no such file", printable(argument)));
    } else if (fs::is_directory(status)) {
      for (const std::string& path : images_in(argument)) add(path);
    } else {
      add_file(argument, fs::path(argument).stem().string());
    }
  });
}

void Inputs::add_file(const std::string& path, std::string stem, std::shared_ptr<const Dataset> dataset) {
  std::string unique = stem;
  const auto taken = [&] {
    return unique == kContactSheet || (unique == kAverage && job_.command == "channels") ||
           std::any_of(files_.begin(), files_.end(), [&](const InputFile& file) { return file.stem == unique; });
  };
  for (int i = 2; taken(); ++i) unique = fmt::format("{}_{}", stem, i);
  loaded_ += dataset != nullptr;
  files_.push_back({path, unique, !dataset && is_array(path), int64_t(files_.size()), std::move(dataset)});
}

int64_t Inputs::count_of(const InputFile& file) {
  if (file.dataset) return file.dataset->size();
  Dims dims;
  try {
    if (file.array) dims = npy_dims(file.path, {2, 3, 4});
  } catch (const Error&) {  // load() tells
  }
  return dims.size() == 4 || dims.size() == 2 ? dims[0] : 1;
}

nlohmann::ordered_json Inputs::about() const {
  uint32_t names = 0;
  for (const InputFile& file : files_) names = uint32_t(crc32_z(names, reinterpret_cast<const Bytef*>(file.path.data()), file.path.size()));
  return {{"inputs", files_.size()}, {"images", count()}, {"paths", names}};
}

int64_t Inputs::count() const {
  int64_t items = 0;
  for (const InputFile& file : files_) items += count_of(file);
  return items;
}

std::optional<Tensor> Inputs::load(const InputFile& file) {
  std::optional<Tensor> x;
  attempt(file.path, [&] { x = read_input(file, job_.model, job_.options.exif, job_.ctx.thread_count()); });
  if (x && job_.input_recorder) {
    const Shape image{1, x->dim(1), x->dim(2), x->dim(3)};
    job_.input_recorder->add(output_, x->data(), x->dim(0), image);
  }
  ++(x ? loaded_ : unread_);
  if (loaded_ == 0 && &file == &files_.back()) none_read();
  return x;
}

void Inputs::for_each_chunk(const std::function<int64_t(Shape)>& most, const std::function<void(const Chunk&)>& run) {
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
  for (const InputFile& file : files_) {
    std::optional<Tensor> x = load(file);
    if (!x) continue;
    const bool same =
        !tensors.empty() && std::equal(x->dims().begin() + 1, x->dims().end(), tensors[0].dims().begin() + 1);
    if (!same || items + x->dim(0) > limit) {
      flush();
      limit = most({1, x->dim(1), x->dim(2), x->dim(3)});
    }
    chunk.parts.push_back({&file, items, x->dim(0)});
    items += x->dim(0);
    tensors.push_back(std::move(*x));
  }
  flush();
}

void InputRecorder::add(Output& output, const float* items, int64_t n, Shape image) {
  const auto dims = [&](int64_t count) { return Dims{count, image.c, image.h, image.w}; };
  if (!file_) {
    file_ = &output.add_file(path_);
    image_ = image;
    const std::vector<uint8_t> header = npy_header(dims(1));  // as long as the one that takes its place
    file_->write(std::as_bytes(std::span(header)));
  }
  if (image != image_)
    throw Error("--save-input writes one array, but the inputs differ in shape", "give them in several runs", true);
  file_->write(std::as_bytes(std::span(items, size_t(n * image.item()))));
  count_ += n;
}

void InputRecorder::finish() {
  if (!file_) return;
  const std::vector<uint8_t> header = npy_header({count_, image_.c, image_.h, image_.w});
  CHECK(header.size() == npy_header({1, image_.c, image_.h, image_.w}).size(), "{}: {} items", path_, count_);
  file_->write_at(0, std::as_bytes(std::span(header)));
}

Tensor load_file(const std::string& path, const Job& job) {
  return read_input({.path = path, .stem = "", .array = is_array(path)}, job.model, job.options.exif, job.ctx.thread_count());
}

Tensor load_single(const std::string& path, const Job& job) {
  Tensor x = load_file(path, job);
  if (x.dim(0) != 1)
    throw Error(fmt::format("{} holds {} images; one is wanted", printable(path), x.dim(0)), "save [C,H,W]");
  return x;
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
  if (file.dataset) {
    const fs::path at(file.dataset->path(index));
    const bool own_file = !at.string().ends_with(']');
    return (own_file ? at.parent_path().filename() / at.filename() : at.filename()).string();
  }
  const std::string name = file.path == "-" ? "standard input" : fs::path(file.path).filename().string();
  return file.array ? fmt::format("{}[{}]", name, index) : name;
}

int64_t item_number(const InputFile& file, int64_t index) { return file.dataset ? file.dataset->number(index) : index; }

nlohmann::ordered_json item_json(const InputFile& file, int64_t index) {
  nlohmann::ordered_json entry = {{"path", file.dataset ? file.dataset->path(index) : file.path},
                                  {"index", item_number(file, index)}};
  if (file.dataset) entry["label"] = file.dataset->labelled() ? nlohmann::ordered_json(file.dataset->label(index)) : nullptr;
  return entry;
}

}  // namespace switchback
