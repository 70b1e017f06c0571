// Data sets as `train` reads them: a step's images, in threads and ahead of it, with what an epoch draws for each.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/files/dataset.h"
#include "engine/model.h"
#include "engine/tensor.h"
#include "engine/train/augment.h"

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

// Reads the images of the steps to come while a step runs, on threads of its own. What a step gets depends on neither.
class ReadAhead {
 public:
  struct Step {
    std::vector<int64_t> images;  // empty: there are no more steps
    int64_t epoch = 0;
  };
  struct Batch {
    std::vector<int64_t> images;  // of the step's those that are there: what cannot be read is left out
    std::vector<float> pixels;    // NCHW
  };
  // next: the steps one after the other, asked for by the thread that takes them.
  ReadAhead(TrainingData& data, const Augmentation& how, uint64_t seed, int threads, std::function<Step()> next);
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;
  ~ReadAhead();
  Batch take();  // of the next step; throws as leave_out, and where none of its images is there

 private:
  struct Reading : Batch {
    int64_t epoch = 0;
    size_t begun = 0, done = 0;            // of the images
    std::vector<std::string> wrong;        // why they cannot be read
    std::exception_ptr failed;
  };
  void ask();
  void work();
  TrainingData& data_;
  const Augmentation how_;
  const uint64_t seed_;
  const std::function<Step()> next_;
  std::mutex lock_;
  std::condition_variable begin_, end_;
  std::deque<std::unique_ptr<Reading>> readings_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace switchback
