#include "tools/cli/labelled.h"

#include <algorithm>
#include <map>

#include "engine/files/files.h"
#include "tools/cli/job.h"

namespace switchback {

std::vector<int64_t> class_map(const Dataset& data, const Model& model, int64_t outputs, const std::string& path) {
  std::map<std::string, int64_t> by_name;
  for (size_t i = 0; i < model.labels.size(); ++i) by_name.emplace(model.labels[i], int64_t(i));
  std::vector<int64_t> map;
  for (const std::string& name : data.classes)
    if (const auto found = by_name.find(name); found != by_name.end()) map.push_back(found->second);
  if (map.size() == data.classes.size()) return map;
  if (int64_t(data.classes.size()) != outputs)
    throw Error(fmt::format("{} has {} classes, the model {} outputs, and their names do not match", printable(path),
                            data.classes.size(), outputs),
                "name the class folders as the model's labels, or by number");
  map.clear();
  for (int64_t i = 0; i < outputs; ++i) map.push_back(i);
  return map;
}

Shape image_of(const Model& model) {
  const Preprocess& p = model.preprocess;
  return {1, p.channels(), p.size[0], p.size[1]};
}

int64_t limited(const Dataset& data, const std::string& limit) {
  return limit.empty() ? data.size() : std::min(data.size(), parse_whole("--limit", limit, 1, int64_t(1) << 40));
}

void load_item(const Dataset& data, int64_t i, const Model& model, float* to) {
  const Tensor x = preprocess(data.image(i), model.preprocess);
  std::copy(x.data(), x.data() + x.count(), to);
}

int64_t for_batches(Job& job, const Dataset& data, int64_t images, Shape image, int64_t batch,
                    const std::function<void(const float* pixels, std::span<const int64_t> numbers)>& work) {
  std::vector<float> pixels(size_t(batch * image.item()));
  std::vector<int64_t> numbers;
  int64_t read = 0;
  for (int64_t i = 0; i < images; ++i) {
    try {
      load_item(data, i, job.model, pixels.data() + int64_t(numbers.size()) * image.item());
      numbers.push_back(i);
    } catch (const Error& error) {
      if (job.options.strict) throw;
      job.fail(data.path(i), error.what());
    }
    if (int64_t(numbers.size()) < batch && i + 1 < images) continue;
    if (!numbers.empty()) work(pixels.data(), numbers);
    read += int64_t(numbers.size());
    numbers.clear();
    job.bar.update(i + 1, images, "images");
  }
  if (read == 0) throw Error(fmt::format("none of {} can be read", counted(images, "image")));
  return read;
}

}  // namespace switchback
