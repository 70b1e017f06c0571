// `switchback regions`: what its two forms share, over a data set (regions.cpp) and over the plane of a network
// with two inputs (regions_plane.cpp).
#pragma once

#include <limits>
#include <span>
#include <string>
#include <vector>

#include "tools/cli/job.h"
#include "tools/cli/options.h"
#include "viz/methods/regions.h"

namespace switchback {

struct RegionsOptions : Options {
  std::vector<std::string> models, weights_given;  // --model and --weights, each possibly several
  std::string limit, points, range;
  bool plane = false, etalons = false;
};

// One network of a run: several weights of one model, or several models.
struct NetworkSpec {
  std::string model, weights;  // weights "": the model's own
  std::string name;            // in tables and pictures: the weights' or the model's
  std::string run = {};        // the folder of `train` whose checkpoint it is
};
std::vector<NetworkSpec> network_specs(const std::vector<std::string>& given_models,
                                       const std::vector<std::string>& checkpoints);
Options options_of(const RegionsOptions& o, const NetworkSpec& spec);  // for a Job
Model open_network_of(const RegionsOptions& o, const NetworkSpec& spec);

// What a data set meets in one network.
struct NetworkRegions {
  NetworkSpec spec;
  std::string weights;  // that were loaded
  RegionReport report;
  double top1 = std::numeric_limits<double>::quiet_NaN();  // NaN where outputs are not the data set's classes
  double alike_within = top1, alike_between = top1;        // correlation of etalons of one class, of two; with --etalons
};
int64_t images_of(const RegionReport& r);
int64_t units_of(const RegionReport& r);
bool has_values(const Series& series);
Canvas charts_below(std::span<const Canvas> charts, const std::string& title);

// Whether all are checkpoints of several runs of `train`; and their charts: a colour a run, over the epochs.
bool of_several_runs(const std::vector<NetworkRegions>& networks);
Canvas picture_of_runs(const std::vector<NetworkRegions>& networks, const std::string& title);

void run_regions_plane(const RegionsOptions& o);

}  // namespace switchback
