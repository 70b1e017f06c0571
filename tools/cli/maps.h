// What gradient, smoothgrad, integrated and occlusion share: inputs in, maps as arrays, pictures and a contact sheet out.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/cli/inputs.h"
#include "tools/cli/job.h"

namespace switchback {

// One map and what it belongs to, for drawing.
struct MapView {
  const float* values;
  Dims dims;     // of the map: [C,H,W] or [rows,cols]
  Image photo;   // what the network saw
};

// A map as a picture, and what its colours mean (colors_json).
struct DrawnMap {
  Image image;
  Json colors;
};

struct MapMethod {
  std::string name;                              // in reports: "gradient", "deconv", "smoothgrad"
  std::string command = "";                      // in names of results, where it is not the job's
  std::vector<std::string> axes{"C", "H", "W"};  // of one map
  std::function<DrawnMap(const MapView&)> picture;
  std::function<DrawnMap(const MapView&)> sheet_picture;  // beside the photo on the contact sheet; empty: `picture`
  bool one_chunk = false;                        // all inputs must run as one batch (tape files)
  const char* noun = "images";                   // what progress counts
  // The maps of x; `index`: of each item within its file.
  std::function<Maps(const Tensor& x, const std::vector<uint32_t>& index, const Progress& progress)> run;
  Json details = Json::object();  // the method's own settings, for the JSON document; `run` may add to it
  // Adds to the JSON entry of item i of the last run's x; may be empty. Returns what the summary line gains.
  std::function<std::string(int64_t i, Json& entry)> finish;
};

void run_maps(Job& job, const MapMethod& method);

// "285 Egyptian cat", "class 3", "features.28:151:6,6".
std::string unit_name(const Job& job, const Unit& unit);

// {"target", "class", "score", "probability"} of one item; lists where it has several targets. Hidden units get "unit".
void add_explained(Json& entry, const Job& job, const Explained& explained);

}  // namespace switchback
