// Layers whose outputs are each a weighted sum of one to sixteen inputs at places that do not depend on the values:
// Resize, Pad, Slice, ChannelShuffle, Roll, Take. All are separable: a table of rows, one of columns and one of channels say where an
// output comes from. The way back is the transposed table, again a gather: every input sums its outputs in ascending
// order, without atomics.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

// torch.nn.Upsample and ONNX Resize. The place in the input of output i, with s = out / in or the given scale:
//   half_pixel            (i + 0.5) / s - 0.5    PyTorch's bilinear, align_corners=False; its "nearest-exact"
//   pytorch_half_pixel    the same, 0 where out is 1
//   half_pixel_symmetric  the same, moved so that the middles meet where in·s is no whole number
//   align_corners         i·(in - 1) / (out - 1)
//   asymmetric            i / s                  PyTorch's nearest (with Rounding::floor)
//   tf_half_pixel_for_nn  (i + 0.5) / s
// Places beyond the border are moved to it; with exclude_outside bicubic's four weights along an axis are instead those of
// the places inside, which then sum to 1. The defaults are PyTorch's nearest.
struct Resize {
  enum class Mode { nearest, bilinear, bicubic };
  enum class Coordinates {
    half_pixel, pytorch_half_pixel, align_corners, asymmetric, tf_half_pixel_for_nn, half_pixel_symmetric
  };
  enum class Rounding { floor, round_prefer_floor, round_prefer_ceil, ceil };  // of nearest
  Mode mode = Mode::nearest;
  Coordinates coordinates = Coordinates::asymmetric;
  Rounding rounding = Rounding::floor;
  int64_t out_h = 0, out_w = 0;       // 0: floor(in·scale)
  float scale_h = 1.f, scale_w = 1.f;
  float cubic_coeff = -0.75f;         // a of bicubic's kernel (Keys 1981, equation 4), PyTorch's
  bool exclude_outside = false;
  bool operator==(const Resize&) const = default;
};
// torch.nn.Upsample(size or scale_factor, mode="bilinear", align_corners).
Resize bilinear_to(int64_t h, int64_t w, bool align_corners = false);
Resize bilinear_by(float scale, bool align_corners = false);

// torch.nn.ZeroPad2d, ConstantPad2d, ReflectionPad2d, ReplicationPad2d (edge); negative amounts cut off. Channels
// (front, back) with constants only.
struct Pad {
  enum class Mode { constant, reflect, edge };
  int64_t top = 0, left = 0, bottom = 0, right = 0, front = 0, back = 0;
  Mode mode = Mode::constant;
  float value = 0.f;
  bool operator==(const Pad&) const = default;
};

// x[:, c.begin : c.end : c.step, h…, w…] as in Python: negative places count from the end, places beyond it are clamped.
// Steps are positive.
struct SliceRange {
  int64_t begin = 0, end = std::numeric_limits<int64_t>::max(), step = 1;
  bool operator==(const SliceRange&) const = default;
};
struct Slice {
  SliceRange c = {}, h = {}, w = {};
  bool operator==(const Slice&) const = default;
};

// torch.nn.ChannelShuffle (Zhang et al. 2018): channels as [groups, c / groups], transposed.
struct ChannelShuffle {
  int64_t groups = 1;
  bool operator==(const ChannelShuffle&) const = default;
};

// torch.roll(x, (h, w), (2, 3)): row r of x becomes row (r + h) mod H, and likewise columns.
struct Roll {
  int64_t h = 0, w = 0;
  bool operator==(const Roll&) const = default;
};

// y[:, i, j, k] = x[:, c[i], h[j], w[k]]: places by their numbers, in any order; an empty list is all of them. Rows and columns
// may be named more than once, channels may not.
struct Take {
  std::vector<int64_t> c = {}, h = {}, w = {};
  bool operator==(const Take&) const = default;
};

Shape output_shape(const Resize& resize, Shape x);
Shape output_shape(const Pad& pad, Shape x);
Shape output_shape(const Slice& slice, Shape x);
Shape output_shape(const ChannelShuffle& shuffle, Shape x);
Shape output_shape(const Roll& roll, Shape x);
Shape output_shape(const Take& take, Shape x);

// One of these layers at one size of input: what its tables say.
class Resampling {
 public:
  Resampling(const Resize& resize, Shape x);
  Resampling(const Pad& pad, Shape x);
  Resampling(const Slice& slice, Shape x);
  Resampling(const ChannelShuffle& shuffle, Shape x);
  Resampling(const Roll& roll, Shape x);
  Resampling(const Take& take, Shape x);

  struct Tap {
    int32_t from;  // an input, or -1: the constant
    float weight;
  };
  // Output o is the sum of taps[first[o]] … taps[first[o + 1]]: backwards, the other way round.
  struct Table {
    std::vector<int32_t> first;
    std::vector<Tap> taps;
  };
  struct Tables {
    Table rows, columns;
    std::vector<int32_t> channels;  // of each output channel the input's, -1: the constant; empty: the same
  };
  Shape in() const { return in_; }    // n is 1
  Shape out() const { return out_; }
  float constant() const { return constant_; }
  const Tables& forward() const { return forward_; }
  const Tables& backward() const { return backward_; }
  DeviceCache& device() const { return *device_; }

 private:
  Resampling(Shape in, Shape out, Tables tables, float constant);
  Shape in_, out_;
  Tables forward_, backward_;
  float constant_ = 0.f;
  std::shared_ptr<DeviceCache> device_ = std::make_shared<DeviceCache>();
};

void resample_forward(Context& ctx, const Resampling& resampling, ConstView x, View y);
void resample_backward(Context& ctx, const Resampling& resampling, ConstView dy, View dx,
                       const BackwardEpilogue& epilogue = {});

}  // namespace switchback
