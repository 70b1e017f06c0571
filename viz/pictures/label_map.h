// Segmentations: of networks whose outputs are maps, the class with the highest score at every place.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/files/image.h"
#include "viz/pictures/canvas.h"
#include "viz/pictures/colormap.h"

namespace switchback {

struct LabelMap {
  int h = 0, w = 0;
  std::vector<int32_t> labels;  // [h,w]
  struct Share {
    int32_t label;
    double share;  // of the places
  };
  std::vector<Share> shares;  // of the classes that are there, largest first
};

// scores [classes,h,w]; the first of equal ones wins.
LabelMap label_map(const float* scores, int classes, int h, int w);

// The colours of PASCAL VOC: bits of the class are spread over red, green and blue. Class 0, black there, has VOC's
// colour of what is not labelled, a light grey: black would only darken the photo.
Rgb label_color(int32_t label);

// Whether a class is called the background, or unlabelled: the photo shows there as it is.
bool is_background(const std::vector<std::string>& names, int32_t label);

// The map in these colours over the photo (alpha 0: the photo, 1: the colours alone), at the photo's size; without the
// background.
Image label_overlay(const Image& photo, const LabelMap& map, const std::vector<std::string>& names, float alpha);

// Squares of the colours with the names and shares of at most `most` classes, below each other. The background's is
// empty.
Canvas label_legend(const LabelMap& map, const std::vector<std::string>& names, size_t most);

}  // namespace switchback
