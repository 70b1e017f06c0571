// What gradient, smoothgrad, integrated and occlusion share: inputs in, maps as arrays, pictures and a contact sheet out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tools/cli/figure.h"
#include "tools/cli/inputs.h"
#include "tools/cli/job.h"
#include "tools/cli/report.h"
#include "viz/methods/state_bytes.h"

namespace switchback {

struct MapMethod {
  std::string name;                              // in reports: "gradient", "deconv", "smoothgrad"
  std::string title;                             // in figures: "Guided backpropagation"
  std::function<std::string()> where = {};       // of the last run: "layer conv2"
  std::string command = "";                      // in names of results, where it is not the job's
  std::vector<std::string> axes{"C", "H", "W"};  // of one map
  // What is drawn of one map, as many panels for each; the contact sheet shows the last.
  std::function<std::vector<MapPanel>(const MapView&)> panels;
  bool one_chunk = false;                        // all inputs must run as one batch (tape files)
  const char* noun = "images";                   // what progress counts
  // The maps of x; `index`: of each item within its file.
  std::function<Maps(const Tensor& x, const std::vector<uint32_t>& index, const Progress& progress)> run;
  Json details = Json::object();              // the method's own settings, for the JSON document
  std::function<Json()> details_of_run = {};  // and what the last run adds to them
  std::function<double(int64_t i, int64_t target)> bias =
      {};  // of strips: beside each map a number, saved as …-bias.npy
  // What a run leaves for panels, details and finish(), as bytes, and the same of all items from that of consecutive ones
  // (keep_last): so that a run can be divided.
  std::function<std::string()> keep = {};
  std::function<void(std::span<const std::string> parts)> restore = {};
  bool pieces = false;  // run() heeds RunOptions::pieces, so that the run over one image can be divided
  // Adds to the JSON entry of item i of the last run's x; may be empty. Returns what the summary line gains.
  std::function<std::string(int64_t i, Json& entry)> finish;
};

// What such a method's run() leaves in `last`, which has `fields` and `void merge(Last&& next)`, of the items behind its own.
template <typename Last>
void keep_last(MapMethod& method, std::shared_ptr<Last> last) {
  method.keep = [last] { return state_bytes(*last); };
  method.restore = [last](std::span<const std::string> parts) {
    *last = {};
    for (const std::string& bytes : parts) {
      Last next{};
      StateReader read(bytes);
      read(next);
      read.end();
      last->merge(std::move(next));
    }
  };
}

void run_maps(Job& job, const MapMethod& method);
// The same with several checkpoints: a strip for each input, a column a checkpoint; arrays [N,E,…]. run_maps calls it.
void run_map_strips(Job& job, const MapMethod& method);

// What one run of a method gave for a chunk.
struct MapResults {
  Job& job;
  const MapMethod& method;
  const Chunk& chunk;
  const Maps& maps;
  int64_t targets() const { return maps.values.dim(1); }
  Dims map_dims() const { return {maps.values.dims().begin() + 2, maps.values.dims().end()}; }
  const float* map(int64_t item, int64_t t) const {
    int64_t size = 1;
    for (int64_t d : map_dims()) size *= d;
    return maps.values.data() + (item * targets() + t) * size;
  }
  // The map over whose positions a score is the sum; 1x1 where it is that of one unit.
  Shape summed(const Explained& explained) const {
    const Unit& unit = explained.units[0];
    if (unit.row >= 0) return {1, 1, 1, 1};
    const Shape image{1, chunk.x.dim(1), chunk.x.dim(2), chunk.x.dim(3)};
    return job.model.network.shapes(image)[size_t(unit.node)];
  }
  Image photo(const Chunk::Part& part, int64_t item) const {
    return input_picture(chunk.x, item, job.model, part.file->array);
  }
};
// What the last run says of an item goes to its JSON entry; what the summary says is returned.
std::string add_result(const MapResults& r, int64_t item, Json& entry);
std::vector<uint32_t> item_numbers(const Chunk& chunk);  // of each item within its file

// "285 Egyptian cat, 93.2 %\nlogit 12.34": of one target.
std::string figure_caption(const Job& job, const Explained& explained, size_t t);
// What every run of a method ends with: its details, the summary, and all that was written.
void finish_maps(Job& job, const MapMethod& method, Output& output, Report report, const ItemLines& lines, int64_t items,
                 int64_t batch);
// How many items of this shape run at once.
int64_t chunk_items(const Job& job, const MapMethod& method, Shape image);

// "285 Egyptian cat", "class 3", "features.28:151:6,6".
std::string unit_name(const Job& job, const Unit& unit);

// {"target", "class", "score", "probability"} of one item; lists where it has several targets. Hidden units get "unit".
void add_explained(Json& entry, const Job& job, const Explained& explained);

}  // namespace switchback
