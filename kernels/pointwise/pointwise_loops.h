// Loops over whole tensors in groups of up to 32 channels, one gate word each. Where channels fill whole words, or no
// gate is touched, a tensor is one flat array.
#pragma once

#include <algorithm>

#include "kernels/parallel.h"
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

// body(element, word, size) for all groups of items [first_item, last_item) of a gradient; `word` is the index of the
// gate word. Item n's gates are those of item n / seeds_per_item; without gates the whole tensor is one item.
template <typename Body>
void each_gradient_group(Context& ctx, Shape s, bool gates, int64_t seeds_per_item, int64_t first_item,
                         int64_t last_item, const Body& body) {
  const bool as_one = !gates || seeds_per_item == 1;
  const int64_t hw = s.h * s.w, pixels = as_one ? (last_item - first_item) * hw : hw;
  const int64_t items = as_one ? 1 : last_item - first_item;
  const Groups groups(pixels, s.c, !gates);
  const int64_t item_groups = Groups(hw, s.c, false).count;
  parallel_ranges(ctx, items * groups.count, 32, [=](int64_t first, int64_t last) {
    while (first < last) {
      const int64_t item = first / groups.count, begin = item * groups.count, n = first_item + item;
      const int64_t stop = std::min(last, begin + groups.count);
      const int64_t element = n * s.item(), word = n / seeds_per_item * item_groups;
      groups.each(first - begin, stop - begin, [&](int64_t e, int64_t group, int64_t size) SB_LAMBDA {
        body(element + e, word + group, size);
      });
      first = stop;
    }
  });
}

// Up to 32 channels of one pixel, and where the tape has what it kept of them: item n of a tensor goes with item
// n / seeds_per_item of the tape.
struct Group {
  int64_t item, kept_item, place;  // place = h·width + w
  int64_t element;                 // of the first channel in the tensor
  int64_t kept;                    // of the first channel in a kept value
  int64_t word;                    // in a plane of gates of the tape
  int64_t channel, size;
};

// body(group) for all groups of a tensor; `work` stands for the cost of an element.
template <typename Body>
void each_group(Context& ctx, Shape s, int64_t seeds_per_item, int64_t work, const Body& body) {
  const int64_t hw = s.h * s.w, words = gate_words_per_pixel(s.c);
  parallel_ranges(ctx, s.pixels(), s.c * work, [=](int64_t first, int64_t last) {
    int64_t item = first / hw, place = first % hw, kept_item = item / seeds_per_item;
    for (int64_t p = first; p < last; ++p) {
      const int64_t kept_pixel = kept_item * hw + place;
      for (int64_t j = 0; j < words; ++j)
        body(Group{item, kept_item, place, p * s.c + 32 * j, kept_pixel * s.c + 32 * j, kept_pixel * words + j, 32 * j,
                   std::min<int64_t>(32, s.c - 32 * j)});
      if (++place == hw) place = 0, ++item, kept_item = item / seeds_per_item;
    }
  });
}

}  // namespace switchback
