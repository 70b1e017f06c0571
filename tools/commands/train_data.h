// Data sets as `train` reads them: a step's images, in threads, with what an epoch draws for each.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/files/dataset.h"
#include "engine/model.h"
#include "engine/tensor.h"
#include "engine/train/augment.h"

namespace switchback {

class TrainingData {
 public:
  // A labelled data set, or a .npy of images [N,C,H,W] that is used as it is, with `labels` a .npy [N] of whole numbers ("":
  // none). classes: labels are wanted. Throws where images or labels do not fit the network.
  TrainingData(const std::string& path, const std::string& labels, const Model& model, bool classes, bool upright);

  int64_t size() const { return images_ ? images_->dim(0) : data_->size(); }
  bool labelled() const { return !labels_.empty(); }
  const std::vector<int32_t>& labels() const { return labels_; }  // as outputs of the network
  Shape item() const { return item_; }
  // Images `which`, NCHW, augmented as `epoch` draws it.
  void load(std::span<const int64_t> which, const Augmentation& how, uint64_t seed, int64_t epoch, float* to) const;

 private:
  const Model& model_;
  Shape item_;
  std::optional<Dataset> data_;
  std::optional<Tensor> images_;
  std::vector<int32_t> labels_;
  std::vector<float> padding_;  // black, by channel
};

}  // namespace switchback
