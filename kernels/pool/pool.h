// Pooling. Max pooling stores its switches: for every output the offset ky·kernel_w + kx of the winner inside the
// (unclipped) window, one byte, or two where the window has more than 256 places. Which of them wins, row-major, is said
// in winner.h; it is part of the contract, since a tie at 0 shows under deconv.
#pragma once

#include <cstdint>

#include "kernels/device/context.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/types.h"

namespace switchback {

struct MaxPool2d {
  int64_t kernel_h = 2, kernel_w = 2;
  int64_t stride_h = 2, stride_w = 2;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int64_t dilation_h = 1, dilation_w = 1;
  bool ceil_mode = false;
  int64_t window() const { return kernel_h * kernel_w; }
  size_t switch_bytes() const { return window() > 256 ? 2 : 1; }
  bool operator==(const MaxPool2d&) const = default;
};
MaxPool2d max_pool2d(int64_t kernel, int64_t stride, int64_t padding = 0, int64_t dilation = 1, bool ceil_mode = false);

struct AvgPool2d {
  int64_t kernel_h = 2, kernel_w = 2;
  int64_t stride_h = 2, stride_w = 2;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  bool ceil_mode = false;
  bool count_include_pad = true;
  bool operator==(const AvgPool2d&) const = default;
};

// Output of fixed size, window of output i: [floor(i·H/out), ceil((i+1)·H/out)). Global average pooling is 1x1.
struct AdaptiveAvgPool2d {
  int64_t out_h = 1, out_w = 1;
  bool operator==(const AdaptiveAvgPool2d&) const = default;
};

Shape output_shape(const MaxPool2d& pool, Shape x);
Shape output_shape(const AvgPool2d& pool, Shape x);
Shape output_shape(const AdaptiveAvgPool2d& pool, Shape x);

// switches: [n,h,w,c] of y's shape, uint8_t or uint16_t (switch_bytes()), or null where they are not needed.
void max_pool2d_forward(Context& ctx, const MaxPool2d& pool, ConstView x, View y, void* switches,
                        const Epilogue& epilogue = {});
// dx = rule(gate, sum of dy over the windows that x won + other). Item p of dy uses the switches of item
// p / epilogue.seeds_per_item. This is also max unpooling: torch's max_unpool2d where windows do not overlap.
void max_pool2d_backward(Context& ctx, const MaxPool2d& pool, ConstView dy, const void* switches, View dx,
                         const BackwardEpilogue& epilogue = {});

void avg_pool2d_forward(Context& ctx, const AvgPool2d& pool, ConstView x, View y);
void avg_pool2d_backward(Context& ctx, const AvgPool2d& pool, ConstView dy, View dx, const BackwardEpilogue& epilogue = {});
void adaptive_avg_pool2d_forward(Context& ctx, const AdaptiveAvgPool2d& pool, ConstView x, View y);
void adaptive_avg_pool2d_backward(Context& ctx, const AdaptiveAvgPool2d& pool, ConstView dy, View dx,
                                  const BackwardEpilogue& epilogue = {});

}  // namespace switchback
