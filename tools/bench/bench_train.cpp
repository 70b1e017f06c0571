// A training step, as `train` takes it, and how fast data sets are read for it.
#include <memory>
#include <utility>

#include "engine/train/trainer.h"
#include "tools/bench/bench_ops.h"
#include "tools/bench/bench_values.h"
#include "tools/cli/labelled.h"
#include "tools/commands/train_data.h"

namespace switchback {

// One step of SGD with momentum and weight decay: forward, loss, gradients of all parameters, update. Images and labels
// are random: they change no time.
Work train_work(Job& job, const BenchOptions& o) {
  struct Step {  // made where it stays: a trainer's parts point to each other
    Step(Job& job, Shape item, const TrainOptions& options, uint64_t seed)
        : trainer(job.ctx, {job.model.network, std::exchange(job.model.weights, {})}, item, options),
          images(random_values(options.batch * item.item(), seed)) {}
    Trainer trainer;
    std::vector<float> images;
    std::vector<int32_t> labels;
  };
  const int64_t n = job.run.batch > 0 ? job.run.batch : 64;
  const Shape item = job.model.network.input;
  const Shape output = job.model.network.shapes(item)[job.model.network.output()];
  const bool autoencoder = output == item;  // its target is the image
  TrainOptions options{.batch = n, .loss = autoencoder ? Loss::mse : Loss::cross_entropy};
  options.optimizer = {.weight_decay = 1e-4, .momentum = 0.9};
  auto step = std::make_shared<Step>(job, item, options, parse_seed(o.seed));
  if (!autoencoder)
    for (int64_t i = 0; i < n; ++i) step->labels.push_back(int32_t(i * 7 % output.item()));
  const std::span<const float> values = autoencoder ? std::span<const float>(step->images) : std::span<const float>();
  Work work{.once = [=] { step->trainer.step(step->images.data(), n, {.labels = step->labels, .values = values}, 1e-6); },
            .items = double(n),
            .item = "image",
            .flops = 3.0 * double(n) * double(job.model.network.flops(item))};  // dx and dw cost a forward pass each
  work.details["batch"] = n;
  return work;
}

// Batches of a data set from file to the network's input, as `train` reads them ahead of its steps.
Work read_work(Job& job, const BenchOptions& o) {
  if (o.inputs.size() != 1) throw Error("--method read wants one data set", kDatasets, true);
  struct Reader {
    TrainingData data;
    int64_t next = 0;
    std::unique_ptr<ReadAhead> ahead = nullptr;
  };
  auto reader = std::make_shared<Reader>(Reader{TrainingData(open_dataset(o.inputs[0], o.exif), o.inputs[0], job.model, false)});
  const int64_t n = std::min(job.run.batch > 0 ? job.run.batch : 64, reader->data.size());
  const auto next = [r = reader.get(), n] {
    ReadAhead::Step step;
    for (int64_t i = 0; i < n; ++i) step.images.push_back(r->next++ % r->data.size());
    return step;
  };
  reader->ahead.reset(new ReadAhead(step_reader(reader->data, {}, 0, job.ctx.thread_count(), next)));
  Work work{.once = [reader] { reader->ahead->take(); },
            .items = double(n),
            .item = "image"};
  work.details["batch"] = n;
  return work;
}

}  // namespace switchback
