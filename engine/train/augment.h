// What a run draws for each epoch and image: the order of the images, and how each is turned, shifted and mirrored. By counter
// (Philox, kernels/noise/noise.h), so that neither threads nor an interruption change anything:
//
//   order    Fisher-Yates from the end; place i draws from word i % 4 of block (i / 4, epoch, 0, 2^30), key = seed
//   image    words 0, 1: rows and columns of the shift; word 2: mirrored where odd; word 3: the angle; block (image, epoch, 1,
//            2^30)
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/types.h"

namespace switchback {

struct Augmentation {
  int crop = 0;  // padding of a random crop: shifts by −crop … crop rows and columns
  bool flip = false;
  double rotate = 0;  // turned about the centre by −rotate … rotate degrees, bilinearly, before the crop
};
Augmentation parse_augmentation(const std::string& text);  // "crop:4,flip,rotate:20"; throws (usage)

// The images of an epoch in the order of their steps.
std::vector<int64_t> epoch_order(int64_t images, uint64_t seed, int64_t epoch);

// One image [c,h,w] in place; `padding`: what comes in from outside, by channel.
void augment(const Augmentation& how, uint64_t seed, int64_t epoch, int64_t image, Shape item, std::span<const float> padding,
             float* pixels);

}  // namespace switchback
