// What gradient, smoothgrad and integrated share: inputs in, maps as arrays, pictures and a contact sheet out.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/inputs.h"
#include "tools/job.h"

namespace switchback {

struct MapMethod {
  std::string suffix;           // of result files: "gradient", "deconv", "smoothgrad-guided"
  bool signed_picture = false;  // the map as RGB around grey; else its absolute sum over channels
  bool one_chunk = false;       // all inputs must run as one batch (tape files)
  // The maps of x; `index`: of each item within its file.
  std::function<Maps(const Tensor& x, const std::vector<uint32_t>& index, const Progress& progress)> run;
  Json details = Json::object();  // the method's own settings, for the JSON document
};

void run_maps(Job& job, const MapMethod& method);

// {"target", "class", "score", "probability"} of one item; lists where it has several targets. Hidden units get "unit".
void add_explained(Json& entry, const Job& job, const Explained& explained);

}  // namespace switchback
