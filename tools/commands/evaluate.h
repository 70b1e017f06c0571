// `switchback evaluate`: what its figures and tables (evaluate.cpp) and its maps (evaluate_maps.cpp) share.
#pragma once

#include <string>
#include <vector>

#include "engine/files/dataset.h"
#include "tools/cli/job.h"
#include "tools/commands/map_methods.h"

namespace switchback {

struct EvaluateOptions : Options {
  std::string limit;
  std::string grid, method = "cam";  // --map
  bool similarity = false;
  int64_t cases = 24, per_class = 20;
  MapFlags flags;
  bool maps() const { return !grid.empty() || similarity; }
};

struct Case {
  int64_t index = 0;
  int64_t label = 0, predicted = 0;
  double probability = 0, loss = 0;  // of the predicted class; −log p of the true one
  template <typename A>
  void fields(A& a) {
    a(index, label, predicted, probability, loss);
  }
};

std::string shown_class(const Job& job, int64_t c);  // its name, or its number
Json case_json(const Job& job, const Dataset& data, const Case& c);
void check_evaluate_maps(const EvaluateOptions& o);  // throws (usage)

// Grids of right and wrong predictions with their maps, and how alike maps are. right: the first ones of each class (by
// output); wrong: the largest losses first. Adds its pictures to `files` and its fields to `details`; returns what the
// summary says.
std::vector<std::string> evaluate_maps(Job& job, const EvaluateOptions& o, Output& output, const Dataset& data,
                                       const std::vector<std::vector<Case>>& right, const std::vector<Case>& wrong,
                                       const std::string& stem, Json& files, Json& details);

}  // namespace switchback
