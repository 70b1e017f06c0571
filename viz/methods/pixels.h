// Pixels of a network's input: input = scale·pixel + offset in each channel, with pixels from 0 to 1.
#pragma once

#include <string>
#include <vector>

#include "engine/model.h"
#include "kernels/device/context.h"
#include "kernels/image/image_step.h"

namespace switchback {

struct PixelUnits {
  std::vector<float> scale, offset;  // [C]
  bool known = true;                 // false: nobody knows how images become this input; 1 and 0, and no limits
  float lowest(size_t c) const;      // of input values; −∞ where not known
  float highest(size_t c) const;
  std::string about() const;         // "pixels, 0 to 1", "input units"
};

// By the model's preprocessing; not known where that has another number of channels (vectors, four channels).
PixelUnits pixel_units(const Model& model, int64_t channels);

// The same on a context's device.
class DevicePixels {
 public:
  DevicePixels(Context& ctx, const PixelUnits& units);
  PixelRange range() const;
  const float* offset() const { return memory_.as<float>() + 3 * channels_; }  // [C]

 private:
  size_t channels_;
  Memory memory_;  // scale, lowest, highest, offset
};

// A random word as a number of (0, 1): its upper 24 bits and a half, as kernels/noise/noise.h takes them.
inline double unit_uniform(uint32_t word) { return (double(word >> 8) + 0.5) * 0x1p-24; }

}  // namespace switchback
