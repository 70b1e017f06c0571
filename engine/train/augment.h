// What a run draws for each epoch and image: the order of the images, and how each is turned, shifted and mirrored. By counter
// (Philox, kernels/noise/noise.h), so that neither threads nor an interruption change anything:
//
//   order    Fisher-Yates from the end; place i draws from word i % 4 of block (i / 4, epoch, 0, 2^30), key = seed
//   image    words 0, 1: rows and columns of the shift; word 2: mirrored where odd; word 3: the angle; block (image, epoch, 1,
//            2^30)
//   colours  brightness, contrast, saturation, hue; block (image, epoch, 2, 2^30). Their order: word 0 of (image, epoch, 3, 2^30)
//   erasing  whether: word 1 of that block. The t-th try: area, ratio, row, column; block (image, epoch, 4 + t, 2^30)
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/train/jitter.h"
#include "kernels/types.h"

namespace switchback {

struct Augmentation {
  int crop = 0;  // padding of a random crop: shifts by −crop … crop rows and columns
  bool flip = false;
  double rotate = 0;  // turned about the centre by −rotate … rotate degrees, bilinearly, before the crop
  Jitter jitter = {};
  double erase = 0;  // how probable it is that a box is erased, as torchvision's RandomErasing does: 0 in input units
  bool any() const { return crop > 0 || flip || rotate > 0 || jitter.any() || erase > 0; }
};
// "crop:4,flip,rotate:20,jitter:0.4:0.4:0.4:0.1,erase:0.5"; throws (usage).
Augmentation parse_augmentation(const std::string& text);

// What an image's values mean: black by channel, and how colours become 0 … 1, v·by + add.
struct ColourUnits {
  ChannelOrder order = ChannelOrder::rgb;
  std::vector<float> black = {}, by = {}, add = {};
};
ColourUnits colour_units(const Preprocess& how);

// The images of an epoch in the order of their steps.
std::vector<int64_t> epoch_order(int64_t images, uint64_t seed, int64_t epoch);

// One image [c,h,w] in place; black comes in from outside.
void augment(const Augmentation& how, uint64_t seed, int64_t epoch, int64_t image, Shape item, const ColourUnits& units, float* pixels);

}  // namespace switchback
