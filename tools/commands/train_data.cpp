#include "tools/commands/train_data.h"

#include <algorithm>
#include <exception>
#include <mutex>

#include "engine/files/files.h"
#include "engine/files/npy.h"
#include "tools/cli/inputs.h"
#include "tools/cli/labelled.h"

namespace switchback {
namespace {

void check_labels(const std::string& path, const std::vector<int64_t>& labels, int64_t outputs) {
  for (size_t i = 0; i < labels.size(); ++i)
    if (labels[i] < 0 || labels[i] >= outputs)
      throw Error(fmt::format("{}: label {} is {}, the network has outputs 0 to {}", path, i, labels[i], outputs - 1),
                  "labels count from 0");
}

}  // namespace

TrainingData::TrainingData(const std::string& path, const std::string& labels, const Model& model, bool classes,
                           bool upright)
    : model_(model), item_(model.network.input) {
  const int64_t outputs = model.network.shapes(item_)[model.network.output()].c;
  if (is_array(path)) {
    images_ = read_npy(path, {4});
    const Dims& d = images_->dims();
    if (Shape{1, d[1], d[2], d[3]} != item_)
      throw Error(fmt::format("{}: images of [{},{},{}], but {} takes [{},{},{}]", path, d[1], d[2], d[3], model.network.name,
                              item_.c, item_.h, item_.w),
                  "arrays are used as they are");
    padding_.assign(size_t(item_.c), 0.f);
    if (!classes) return;
    if (labels.empty()) throw Error(fmt::format("{} has no labels, and a cross entropy needs them", path), "give --labels FILE.npy", true);
    Dims dims;
    const std::vector<int64_t> read = read_npy_integers(labels, {1}, dims);
    if (dims[0] != d[0])
      throw Error(fmt::format("{} has {} labels, {} {} images", labels, dims[0], path, d[0]), "give one label an image");
    check_labels(labels, read, outputs);
    labels_.assign(read.begin(), read.end());
    return;
  }
  if (!labels.empty()) throw Error("--labels belong to a .npy of images", "data sets have labels of their own", true);
  data_ = open_dataset(path, upright);
  item_ = {1, model.preprocess.channels(), model.preprocess.size[0], model.preprocess.size[1]};
  if (item_ != model.network.input)
    throw Error(fmt::format("{} takes [{},{},{}], its preprocessing makes [{},{},{}]", model.network.name, model.network.input.c,
                            model.network.input.h, model.network.input.w, item_.c, item_.h, item_.w),
                "give a --preprocess that fits");
  const Tensor black = preprocess(Image::blank(item_.w, item_.h, 3), model.preprocess);
  for (int64_t c = 0; c < item_.c; ++c) padding_.push_back(black[c * item_.h * item_.w]);
  if (!classes) return;
  const std::vector<int64_t> map = class_map(*data_, model, outputs, path);
  for (int64_t i = 0; i < data_->size(); ++i) labels_.push_back(int32_t(map[data_->label(i)]));
}

void TrainingData::load(std::span<const int64_t> which, const Augmentation& how, uint64_t seed, int64_t epoch, float* to) const {
  std::exception_ptr failed;
  std::mutex lock;
#pragma omp parallel for schedule(dynamic, 8)
  for (size_t i = 0; i < which.size(); ++i) {
    try {
      float* pixels = to + int64_t(i) * item_.item();
      if (images_) std::copy_n(images_->data() + which[i] * item_.item(), item_.item(), pixels);
      else load_item(*data_, which[i], model_, pixels);
      augment(how, seed, epoch, which[i], item_, padding_, pixels);
    } catch (...) {  // an exception must not leave a parallel loop
      const std::lock_guard hold(lock);
      failed = std::current_exception();
    }
  }
  if (failed) std::rethrow_exception(failed);
}

}  // namespace switchback
