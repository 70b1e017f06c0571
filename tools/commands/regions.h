// `switchback regions`: what its two forms share, over a data set (regions.cpp) and over the plane of a network
// with two inputs (regions_plane.cpp).
#pragma once

#include <string>
#include <vector>

#include "tools/cli/job.h"
#include "tools/cli/options.h"

namespace switchback {

struct RegionsOptions : Options {
  std::vector<std::string> models, weights_given;  // --model and --weights, each possibly several
  std::string limit, points, range;
  bool plane = false;
};

// One network of a run: several weights of one model, or several models.
struct NetworkSpec {
  std::string model, weights;  // weights "": the model's own
  std::string name;            // in tables and pictures: the weights' or the model's
};
std::vector<NetworkSpec> network_specs(const std::vector<std::string>& given_models,
                                       const std::vector<std::string>& checkpoints);
Options options_of(const RegionsOptions& o, const NetworkSpec& spec);  // for a Job
Model open_network_of(const RegionsOptions& o, const NetworkSpec& spec);

void run_regions_plane(const RegionsOptions& o);

}  // namespace switchback
