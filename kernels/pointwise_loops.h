// Loops over whole tensors in groups of up to 32 channels, one gate word each. Where channels fill whole words, or no
// gate is touched, a tensor is one flat array.
#pragma once

#include <algorithm>

#include "kernels/simd.h"

namespace switchback {

// Groups of 32 channels of `pixels` pixels: group g holds channels 32·(g % per_pixel)… of pixel g / per_pixel.
struct Groups {
  Groups(int64_t pixels, int64_t channels, bool flat) {
    if (flat || channels % 32 == 0) {  // one pixel with all the channels
      channels_ = pixels * channels;
      count = (channels_ + 31) / 32;
      per_pixel_ = std::max<int64_t>(count, 1);
    } else {
      channels_ = channels;
      per_pixel_ = gate_words_per_pixel(channels);
      count = pixels * per_pixel_;
    }
  }

  // body(element, group, size)
  template <typename Body>
  SB_INLINE void each(int64_t first, int64_t last, const Body& body) const {
    int64_t pixel = first / per_pixel_, j = first % per_pixel_;
    for (int64_t g = first; g < last; ++g) {
      body(pixel * channels_ + 32 * j, g, channels_ - 32 * j);
      if (++j == per_pixel_) j = 0, ++pixel;
    }
  }

  int64_t count;

 private:
  int64_t channels_, per_pixel_;
};

}  // namespace switchback
