#include "tools/commands/train_data.h"

#include <algorithm>
#include <utility>

#include "engine/files/files.h"
#include "engine/files/npy.h"
#include "tools/cli/labelled.h"
#include "tools/cli/progress.h"

namespace switchback {
namespace {

void check_labels(const std::string& path, const std::vector<int64_t>& labels, int64_t outputs) {
  for (size_t i = 0; i < labels.size(); ++i)
    if (labels[i] < 0 || labels[i] >= outputs)
      throw Error(fmt::format("{}: label {} is {}, the network has outputs 0 to {}", path, i, labels[i], outputs - 1),
                  "labels count from 0");
}

int64_t outputs_of(const Model& model) { return model.network.shapes(model.network.input)[model.network.output()].c; }

}  // namespace

TrainingData::TrainingData(Dataset data, const std::string& path, const Model& model, bool classes)
    : model_(model), item_(image_of(model)),
      data_(std::move(data)) {
  const Shape want = model.network.input;
  if (item_ != want)
    throw Error(fmt::format("{} takes [{},{},{}], its preprocessing makes [{},{},{}]", model.network.name, want.c, want.h, want.w,
                            item_.c, item_.h, item_.w),
                "give a --preprocess that fits");
  units_ = colour_units(model.preprocess);
  if (!classes) return;
  const std::vector<int64_t> map = class_map(*data_, model, outputs_of(model), path);
  for (int64_t i = 0; i < data_->size(); ++i) labels_.push_back(int32_t(map[data_->label(i)]));
}

TrainingData::TrainingData(const std::string& array, const std::string& labels, const Model& model, bool classes)
    : model_(model), item_(model.network.input), images_(read_npy(array, {4})) {
  const Dims& d = images_->dims();
  if (Shape{1, d[1], d[2], d[3]} != item_)
    throw Error(fmt::format("{}: images of [{},{},{}], but {} takes [{},{},{}]", array, d[1], d[2], d[3], model.network.name,
                            item_.c, item_.h, item_.w),
                "arrays are used as they are");
  units_.black.assign(size_t(item_.c), 0.f);
  if (!classes) return;
  if (labels.empty()) throw Error(fmt::format("{} has no labels, and a cross entropy needs them", array), "give --labels FILE.npy", true);
  Dims dims;
  const std::vector<int64_t> read = read_npy_integers(labels, {1}, dims);
  if (dims[0] != d[0])
    throw Error(fmt::format("{} has {} labels, {} {} images", labels, dims[0], array, d[0]), "give one label an image");
  check_labels(labels, read, outputs_of(model));
  labels_.assign(read.begin(), read.end());
}

void TrainingData::leave_out(int64_t image, const std::string& why) {
  if (!unreadable_.emplace(image, why).second) return;
  warn(fmt::format("left out: {}", why));
  if (int64_t(unreadable_.size()) * 100 > size())
    throw Error(fmt::format("{} of {} images cannot be read, the last of them: {}", unreadable_.size(), size(), why),
                "more than a hundredth is too much: take them away, or mend them");
}

void TrainingData::read(int64_t image, const Augmentation& how, uint64_t seed, int64_t epoch, float* to) const {
  if (images_) std::copy_n(images_->data() + image * item_.item(), item_.item(), to);
  else load_item(*data_, image, model_, to);
  augment(how, seed, epoch, image, item_, units_, to);
}

ReadAhead step_reader(TrainingData& data, const Augmentation& how, uint64_t seed, int threads, std::function<ReadAhead::Step()> next) {
  return {data.item().item(), threads,
          [&data, how, seed](int64_t image, int64_t epoch, float* to) { data.read(image, how, seed, epoch, to); },
          [&data](int64_t image, const Error& why) { data.leave_out(image, why.what()); }, std::move(next)};
}

ReadAhead::Batch take_step(ReadAhead& reader) {
  ReadAhead::Batch batch = reader.take();
  if (batch.images.empty()) throw Error("a step has no image that can be read", "take a larger --batch-size");
  return batch;
}

}  // namespace switchback
