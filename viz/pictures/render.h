// Maps -> pictures. Every picture is an RGB Image of 8 bits (row-major, interleaved). Maps are row-major floats:
// [h,w], or [c,h,w] where said. Values are never changed by drawing; scaling is for the picture alone.
#pragma once

#include <vector>

#include "engine/files/image.h"
#include "viz/pictures/colormap.h"

namespace switchback {

Image blank_image(int width, int height, Rgb color);

// map [h,w], linear from range.lo to range.hi.
Image heatmap(const float* map, int h, int w, ColorMap color_map, Range range);

// chw [c,h,w] -> [h,w]: the sum over channels of |v|; their mean.
std::vector<float> absolute_sum(const float* chw, int c, int h, int w);
std::vector<float> channel_mean(const float* chw, int c, int h, int w);

// chw [c,h,w] -> [h,w] in [0,1]: the sum over channels of |v|, clipped at its 99th percentile and min-max normalised,
// as SmoothGrad's own code and Captum show it. Non-finite values stay NaN; a constant map becomes 0.
std::vector<float> saliency_map(const float* chw, int c, int h, int w, double clip_percentile = 99);

// What it maps to 0 and 1: the least sum, and the percentile (the largest where that is the least).
Range saliency_range(const float* chw, int c, int h, int w, double clip_percentile = 99);

// saliency_map in white on black.
Image saliency_picture(const float* chw, int c, int h, int w, double clip_percentile = 99);

// Signed maps, zero = mid-grey (128), +-s = white / black in each channel, s = the percentile of |v| over the whole
// map. c == 3: as RGB, where `order` says which channel is red; c == 1: grey; other c: the mean over channels in
// `seismic`, where zero is white.
Image signed_rgb(const float* chw, int c, int h, int w, ChannelOrder order, double clip_percentile = 99.5);

// What it draws in the darkest and the brightest colour: -s and +s.
Range signed_range(const float* chw, int c, int h, int w, double clip_percentile = 99.5);

// The same for c = 1 or 3 over a range of the caller's, for pictures that are to be compared with each other.
Image signed_rgb_in(const float* chw, int c, int h, int w, ChannelOrder order, Range range);

// Photo with the map, enlarged bilinearly to the photo's size, blended over it: (1 - alpha) photo + alpha colour.
Image overlay(const Image& photo, const float* map, int h, int w, ColorMap color_map, float alpha, Range range);

// The same with an opacity that follows strength: (1 - s) photo + s colour, s = alpha · |v| / the range's furthest end,
// so that the photo shows where the map is near 0.
Image faded_overlay(const Image& photo, const float* map, int h, int w, ColorMap color_map, float alpha, Range range);

// map [h,w] -> [out_h,out_w], bilinear between pixel centres, edges repeated (align_corners = False in PyTorch).
std::vector<float> bilinear_map(const float* map, int h, int w, int out_h, int out_w);

// Enlarging by whole factors, or by 4 and more, keeps the pixels visible (nearest); everything else is smooth
// (resize_bilinear, which does not alias when shrinking).
Image resized(const Image& image, int width, int height);

// The smallest whole multiple whose shorter side reaches `min_side`; unchanged if it already does.
Image enlarge_to_at_least(const Image& image, int min_side);

// Puts `picture` with its top left corner at x, y; parts outside are cut off.
void paste(Image& onto, const Image& picture, int x, int y);

void fill_rectangle(Image& image, int x, int y, int width, int height, Rgb color);

}  // namespace switchback
