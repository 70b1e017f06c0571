#include "tools/cli/labelled.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "engine/files/files.h"
#include "tools/cli/job.h"

namespace switchback {

std::vector<int64_t> class_map(const Dataset& data, const Model& model, int64_t outputs, const std::string& path) {
  if (!data.labelled())
    throw Error(fmt::format("{} has no labels", printable(path)), "give a folder with one sub-folder a class, or a .tar with labels");
  std::map<std::string, int64_t> by_name;
  for (size_t i = 0; i < model.labels.size(); ++i) by_name.emplace(model.labels[i], int64_t(i));
  std::vector<int64_t> map;
  for (const std::string& name : data.classes)
    if (const auto found = by_name.find(name); found != by_name.end()) map.push_back(found->second);
  if (map.size() == data.classes.size()) return map;
  const bool first_ones = data.numbered && int64_t(data.classes.size()) <= outputs;
  if (int64_t(data.classes.size()) != outputs && !first_ones)
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

std::vector<int64_t> numbers_of(int64_t first, int64_t last) {
  std::vector<int64_t> numbers(size_t(last - first));
  std::iota(numbers.begin(), numbers.end(), first);
  return numbers;
}

void read_batches(const Dataset& data, std::span<const int64_t> images, const Model& model, int64_t batch, int threads,
                  const ReadAhead::LeaveOut& leave_out, const std::function<void(const ReadAhead::Batch&)>& work) {
  const size_t each = size_t(std::max<int64_t>(1, batch));
  size_t asked = 0;
  ReadAhead reader(
      image_of(model).item(), threads,
      [&](int64_t image, int64_t, float* to) { load_item(data, image, model, to); }, leave_out, [&] {
        ReadAhead::Step step;
        const std::span<const int64_t> some = images.subspan(asked, std::min(each, images.size() - asked));
        step.images.assign(some.begin(), some.end());
        asked += some.size();
        return step;
      });
  for (size_t done = 0; done < images.size(); done += each) work(reader.take());
}

int64_t for_batches(Job& job, const Dataset& data, std::span<const int64_t> images, int64_t batch,
                    const std::function<void(const float* pixels, std::span<const int64_t> numbers)>& work) {
  int64_t read = 0, done = 0;
  const auto leave_out = [&](int64_t image, const Error& why) {
    if (job.options.strict) throw why;
    job.fail(data.path(image), why.what());
    ++done;
  };
  read_batches(data, images, job.model, batch, job.ctx.thread_count(), leave_out, [&](const ReadAhead::Batch& b) {
    if (!b.images.empty()) work(b.pixels.data(), b.images);
    read += int64_t(b.images.size()), done += int64_t(b.images.size());
    job.bar.update(done, int64_t(images.size()), "images");
  });
  return read;
}

}  // namespace switchback
