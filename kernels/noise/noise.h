// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
// The same (seed, image, sample, element) gives the same number on every device and for every split into batches.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/device/context.h"
#include "kernels/types.h"

namespace switchback {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Standard normal noise of element e (NCHW order within the image): block (e/4, sample, image), lane e%4.
// counter = (block low, block high, sample, image), key = (seed low, seed high). Words (w0,w1) give lanes 0 and 1,
// (w2,w3) lanes 2 and 3: u = ((w >> 8) + 0.5)·2^-24, r = sqrt(-2 ln u1), lanes r·cos(2π u2), r·sin(2π u2).
struct Noise {
  float sigma = 0;
  uint64_t seed = 0;
  uint32_t image = 0, first_sample = 0;
  // Added to first_sample when the kernel runs: what moves on between replays of a recorded graph. Device memory, or null.
  const uint32_t* more_samples = nullptr;
};

// All pointers are the context's device's.

// y[b] = x + sigma·noise(sample first_sample + b), one image x (NCHW f32, [c,h,w]) to y's n samples (NHWC).
// With sigma = 0 a plain copy. This is the kernel that writes the first layer's input: noise is never stored.
void write_noisy_input(Context& ctx, const float* x, const Noise& noise, View y);

// y[b] = baseline + alpha[b]·(x − baseline) for b < y.n: the inputs of integrated gradients. baseline may be null (0).
void write_interpolated_input(Context& ctx, const float* x, const float* baseline, const float* alpha, View y);

// Adds the n maps of g (NHWC) in order to sum and sum of squares (NCHW order, [c,h,w], f64; square may be null).
// One element is always summed in sample order, so the result does not depend on the batch split.
void accumulate_moments(Context& ctx, ConstView g, double* sum, double* square);

// *counter += step, on the device.
void advance(Context& ctx, uint32_t* counter, uint32_t step);

}  // namespace switchback
