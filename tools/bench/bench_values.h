// Random operands for what `switchback bench` times.
#pragma once

#include <memory>
#include <vector>

#include "kernels/device/context.h"
#include "kernels/types.h"

namespace switchback {

std::vector<float> random_values(int64_t count, uint64_t seed);  // uniform in [-1, 1)
double median(std::vector<double> v);                            // of at least one
double clock_seconds();                                          // steady

// An activation of normal values of deviation 0.5, drawn on the device. Its memory is in whole 16 bytes.
struct Activation {
  Memory memory;
  View view;
};
std::shared_ptr<Activation> activation(Context& ctx, Shape shape, DType dtype, uint64_t seed);

}  // namespace switchback
