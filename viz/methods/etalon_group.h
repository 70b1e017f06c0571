// Units at different places whose receptive fields have one form, equally many at every place: one backward pass takes
// the cut-outs of many places as its items. Not part of the public surface.
#pragma once

#include "viz/methods/etalon.h"

namespace switchback {

struct Etalons::Group {
  struct Place {
    Field field;
    std::vector<int64_t> units;  // which of the target's
  };
  std::vector<Place> places;
  int64_t at_once = 1;  // places in one pass
  int64_t seeds = 1;    // units of each
  std::optional<Backward> backward;
};

}  // namespace switchback
