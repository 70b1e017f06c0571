// Data sets as `train` reads them: a step's images, in threads and ahead of it, with what an epoch draws for each.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/files/dataset.h"
#include "engine/model.h"
#include "engine/tensor.h"
#include "engine/train/augment.h"
#include "tools/cli/read_ahead.h"

namespace switchback {

class TrainingData {
 public:
  // A labelled data set. classes: labels are wanted. Throws where images or labels do not fit the network.
  TrainingData(Dataset data, const std::string& path, const Model& model, bool classes);
  // A .npy of images [N,C,H,W] that is used as it is, with `labels` a .npy [N] of whole numbers ("": none).
  TrainingData(const std::string& array, const std::string& labels, const Model& model, bool classes);

  int64_t size() const { return images_ ? images_->dim(0) : data_->size(); }
  bool labelled() const { return !labels_.empty(); }
  const std::vector<int32_t>& labels() const { return labels_; }  // as outputs of the network
  Shape item() const { return item_; }
  bool as_it_is() const { return images_.has_value(); }  // an array, whose colours are not known
  // One image, CHW, augmented as `epoch` draws it. By any thread.
  void read(int64_t image, const Augmentation& how, uint64_t seed, int64_t epoch, float* to) const;
  // It cannot be read: warns the first time. Throws where such are more than a hundredth of all.
  void leave_out(int64_t image, const std::string& why);
  const std::map<int64_t, std::string>& unreadable() const { return unreadable_; }  // and why

 private:
  const Model& model_;
  Shape item_;
  std::optional<Dataset> data_;
  std::optional<Tensor> images_;
  std::vector<int32_t> labels_;
  ColourUnits units_;
  std::map<int64_t, std::string> unreadable_;
};

// The steps of a training run, read ahead.
ReadAhead step_reader(TrainingData& data, const Augmentation& how, uint64_t seed, int threads, std::function<ReadAhead::Step()> next);
ReadAhead::Batch take_step(ReadAhead& reader);  // throws where none of its images is there

}  // namespace switchback
