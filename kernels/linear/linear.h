// Fully connected layer: y[n,o] = bias[o] + sum_i w[o,i] x[n,i], and dx[n,i] = sum_o w[o,i] dy[n,o].
#pragma once

#include <memory>
#include <vector>

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

struct Linear {
  int64_t in_features = 0, out_features = 0;
  bool has_bias = true;
  bool operator==(const Linear&) const = default;
};

Shape output_shape(const Linear& linear, Shape x);

// `weight` is OI, f32, used where it lies in both directions (no copies: VGG's are 494 MB); it must outlive this
// object. A bf16 copy is packed at first use in that precision.
struct LinearWeights {
  Linear linear;
  const float* weight = nullptr;  // [out_features, in_features]
  const float* bias = nullptr;    // [out_features] or null
  struct Packed {
    std::vector<bf16> weight_bf16;
    DeviceCache device;
  };
  std::shared_ptr<Packed> packed = std::make_shared<Packed>();  // filled at first use
};

// x [n, in_features, 1, 1] -> y [n, out_features, 1, 1], both f32 or both bf16 (GPUs: or f16).
void linear_forward(Context& ctx, const LinearWeights& weights, ConstView x, View y, const Epilogue& epilogue = {});
void linear_backward_data(Context& ctx, const LinearWeights& weights, ConstView dy, View dx,
                          const BackwardEpilogue& epilogue = {});

}  // namespace switchback
