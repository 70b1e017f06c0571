#include "tools/cli/divided_maps.h"

#include <algorithm>
#include <limits>

#include "tools/cli/shares.h"
#include "viz/methods/batches.h"

namespace switchback {
namespace {

// Images first … first + count − 1.
Tensor images_of(const Tensor& x, int64_t first, int64_t count) {
  Dims dims = x.dims();
  dims[0] = count;
  const int64_t item = x.count() / x.dim(0);
  Tensor part(dims);
  std::copy_n(x.data() + first * item, count * item, part.data());
  return part;
}

std::vector<uint32_t> numbers_of_images(const Chunk& chunk, int64_t first, int64_t count) {
  const std::vector<uint32_t> all = item_numbers(chunk);
  return {all.begin() + first, all.begin() + first + count};
}

}  // namespace

void DividedMaps::Run::add(const Maps& maps, std::string bytes) {
  Dims all = maps.values.dims();
  all[0] += dims.empty() ? 0 : dims[0];
  dims = std::move(all);
  values.insert(values.end(), maps.values.data(), maps.values.data() + maps.values.count());
  explained.insert(explained.end(), maps.explained.begin(), maps.explained.end());
  kept.push_back(std::move(bytes));
  batch = std::max(batch, maps.batch);
}

void DividedMaps::Run::merge(Run&& next) {
  if (!next.dims.empty()) {
    next.dims[0] += dims.empty() ? 0 : dims[0];
    dims = std::move(next.dims);
  }
  values.insert(values.end(), next.values.begin(), next.values.end());
  std::ranges::move(next.explained, std::back_inserter(explained));
  std::ranges::move(next.kept, std::back_inserter(kept));
  pieces.merge(std::move(next.pieces));
  batch = std::max(batch, next.batch);
}

void DividedMaps::State::merge(State&& next) {
  runs.resize(std::max(runs.size(), next.runs.size()));
  for (size_t i = 0; i < next.runs.size(); ++i) runs[i].merge(std::move(next.runs[i]));
}

DividedMaps::DividedMaps(Job& job, const MapMethod& method, Output& output, Inputs& inputs)
    : job_(job), method_(method), output_(output), inputs_(inputs), items_(inputs.count()),
      by_pieces_(method.pieces && items_ < shares().count()) {
  if (shares().divided() && method.one_chunk) throw Error("a tape file holds one batch, which is not divided", "leave out ranks and --shard", true);
}

bool DividedMaps::gather(const std::function<int64_t(Shape)>& most) {
  if (!shares().divided()) return true;
  int64_t first = 0;
  if (!shares().all_given())
    inputs_.for_each_chunk(most, [&](const Chunk& chunk) {
      for (size_t e = 0; e < std::max<size_t>(1, job_.checkpoints.size()); ++e) {
        if (job_.several()) job_.open_checkpoint(e);
        make(chunk, first, [&](int64_t done, int64_t total) { job_.bar.update(done, total, method_.noun); });
      }
      first += chunk.x.dim(0);
    });
  if (!switchback::gather(job_, output_, inputs_.files()[0].stem, inputs_.about(), state_)) return false;
  return true;
}

void DividedMaps::make(const Chunk& chunk, int64_t first, const Progress& progress) {
  const int64_t items = chunk.x.dim(0);
  if (by_pieces_) {
    for (int64_t i = 0; i < items; ++i) {
      Run& run = state_.runs.emplace_back();
      job_.run.pieces = {shares().index(), shares().count(), &run.pieces, nullptr};
      method_.run(images_of(chunk.x, i, 1), numbers_of_images(chunk, i, 1), progress);
    }
    job_.run.pieces = {};
    return;
  }
  // The last share has also what could not be counted before.
  const auto [begin, end] = shares().of(items_);
  const bool last = shares().index() + 1 == shares().count();
  const int64_t from = std::clamp<int64_t>(begin - first, 0, items), to = last ? items : std::clamp<int64_t>(end - first, from, items);
  Run& run = state_.runs.emplace_back();
  if (to > from) add_run(run, chunk, from, to - from, progress);
}

void DividedMaps::add_run(Run& run, const Chunk& chunk, int64_t first, int64_t count, const Progress& progress) {
  const Maps maps = method_.run(images_of(chunk.x, first, count), numbers_of_images(chunk, first, count), progress);
  run.add(maps, method_.keep ? method_.keep() : "");
}

Maps DividedMaps::run(const Chunk& chunk, const Progress& progress) {
  if (!shares().divided()) return method_.run(chunk.x, item_numbers(chunk), progress);
  Run all;
  for (int64_t i = 0; by_pieces_ && i < chunk.x.dim(0); ++i) {
    job_.run.pieces = {0, 1, nullptr, &state_.runs.at(next_++).pieces};
    add_run(all, chunk, i, 1, {});
  }
  job_.run.pieces = {};
  if (!by_pieces_) all = std::move(state_.runs.at(next_++));
  CHECK(!all.dims.empty() && all.dims[0] == chunk.x.dim(0), "shares have {} of {} maps", all.explained.size(), chunk.x.dim(0));
  if (method_.restore) method_.restore(all.kept);
  Maps maps{allocate_maps(all.dims), std::move(all.explained), all.batch};
  std::ranges::copy(all.values, maps.values.data());
  return maps;
}

}  // namespace switchback
