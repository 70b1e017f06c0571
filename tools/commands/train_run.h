// A training run: its epochs, and its folder RUN, whose files are replaced whole (tools/README.md).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/train/schedule.h"
#include "engine/train/trainer.h"
#include "tools/cli/job.h"
#include "tools/commands/train_data.h"

namespace switchback {

// What was asked for.
struct TrainRequest : Options {
  std::string validate, image_labels, order, augment, schedule = "constant", optimizer = "adam";
  Loss loss = Loss::cross_entropy;
  double rate = 0, momentum = 0, weight_decay = 0, label_smoothing = 0, clip_norm = 0;
  bool nesterov = false, resume = false;
  int64_t epochs = 0, batch_size = 64, steps = 0, save_every = 0, warm_up = 0;
  std::vector<std::string> freeze, no_decay;
};

struct EpochLine {
  int64_t epoch = 0;
  double loss = 0, accuracy = 0, validation_loss = 0, validation_accuracy = 0;  // NaN where there is none
  double rate = 0, seconds = 0, images_per_second = 0;
};

class TrainingRun {
 public:
  TrainingRun(Job& job, const TrainRequest& request, TrainingData& data, TrainingData* validation, Json settings);
  void run();  // to the end, from where the folder's state is
  const std::vector<EpochLine>& epochs() const { return lines_; }
  int64_t steps() const { return trainer_.steps(); }

 private:
  struct Sums {  // of the epoch so far
    double loss = 0;
    int64_t right = 0, images = 0;
    double seconds = 0;
  };
  std::string path(const std::string& name) const { return request_.output + "/" + name; }
  int64_t steps_per_epoch() const;
  int64_t all_steps() const;
  double rate(int64_t step) const;
  std::vector<int64_t> order(int64_t epoch) const;
  void step(ReadAhead& reader);
  [[noreturn]] void stop_at(const std::string& what, double lr);
  void check_weights();
  void end_epoch(int64_t epoch);
  void validate(EpochLine& line);
  void save();
  void resume();
  Json line_json(const EpochLine& line) const;
  void print_epoch(const EpochLine& line) const;
  Image curves() const;

  Job& job_;
  const TrainRequest& request_;
  TrainingData& data_;
  TrainingData* validation_;
  Json settings_;
  Schedule schedule_;
  Augmentation augmentation_;
  std::vector<int64_t> given_order_;
  Trainer trainer_;
  std::unique_ptr<Plan> validation_plan_;
  Sums sums_;
  std::vector<EpochLine> lines_;
  std::string epoch_log_, step_log_;
};

Optimizer optimizer_of(const TrainRequest& request);

}  // namespace switchback
