#include "viz/methods/pixels.h"

#include <algorithm>
#include <limits>

namespace switchback {

float PixelUnits::lowest(size_t c) const {
  return known ? std::min(offset[c], offset[c] + scale[c]) : -std::numeric_limits<float>::infinity();
}

float PixelUnits::highest(size_t c) const {
  return known ? std::max(offset[c], offset[c] + scale[c]) : std::numeric_limits<float>::infinity();
}

std::string PixelUnits::about() const { return known ? "pixels, 0 to 1" : "input units"; }

PixelUnits pixel_units(const Model& model, int64_t channels) {
  const Preprocess& how = model.preprocess;
  PixelUnits units;
  units.known = channels == how.channels();
  for (size_t c = 0; c < size_t(channels); ++c) {
    const double mean = c < how.mean.size() ? how.mean[c] : 0, std = c < how.std.size() ? how.std[c] : 1;
    units.scale.push_back(units.known ? float(255 * how.scale / std) : 1.f);
    units.offset.push_back(units.known ? float(-mean / std) : 0.f);
  }
  return units;
}

DevicePixels::DevicePixels(Context& ctx, const PixelUnits& units)
    : channels_(units.scale.size()), memory_(ctx.allocate(4 * units.scale.size() * sizeof(float))) {
  std::vector<float> all = units.scale;
  for (size_t c = 0; c < channels_; ++c) all.push_back(units.lowest(c));
  for (size_t c = 0; c < channels_; ++c) all.push_back(units.highest(c));
  all.insert(all.end(), units.offset.begin(), units.offset.end());
  ctx.copy_in(memory_.data(), all.data(), memory_.size());
}

PixelRange DevicePixels::range() const {
  const float* at = memory_.as<float>();
  return {at, at + channels_, at + 2 * channels_};
}

}  // namespace switchback
