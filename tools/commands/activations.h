// `switchback activations`: what its forms share, over one layer (activations.cpp), several checkpoints
// (activations_strip.cpp) and pairs of layers (activations_pair.cpp).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tools/cli/figure.h"
#include "tools/cli/job.h"

namespace switchback {

enum class ChannelSort { strongest, channel };

struct ActivationOptions : Options {
  std::string channels, pairs;
  ChannelSort order = ChannelSort::strongest;
};

// The channels to show of one item, in order; unless --channels asks for others at most `most`.
std::vector<int64_t> shown_channels(const ActivationOptions& o, const Tensor& values, int64_t item, size_t most);
// "the 64 strongest of 512 channels, by mean activation; --channels all shows all"; "" where none is left out unasked.
std::string shown_note(const ActivationOptions& o, int64_t channels, size_t most);
// Signed values around zero, others from the least to the most.
ColorScale map_colors(const Options& o, std::span<const float> values);
// One map over its own range, in the colours of its layer.
ColorScale own_colors(const Options& o, const ColorScale& layer, std::span<const float> map);
std::string range_text(const ColorScale& colors, std::span<const float> map);  // "0…3.2", "±1.5"
// The maps of one item.
std::span<const float> item_values(const Tensor& values, int64_t item);
// Some items of an array, from `first` on.
Tensor items_of(const Tensor& values, int64_t first, int64_t count);
// Items whose values are held at once.
int64_t most_items(Shape values);

inline constexpr int64_t kMostActivationItems = 12;  // inputs of one file in one picture

void run_activation_strips(Job& job, const ActivationOptions& o);
void run_activation_pairs(Job& job, const ActivationOptions& o);

}  // namespace switchback
