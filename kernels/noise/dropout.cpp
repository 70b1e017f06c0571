#include "kernels/noise/dropout.h"

#include <array>

#include "kernels/device/device_ops.h"
#include "kernels/noise/noise.h"
#include "kernels/pointwise/pointwise_loops.h"
#include "kernels/view_check.h"

namespace switchback {
namespace {

constexpr int64_t kWork = 20;  // of an element, for parallel_ranges: a quarter of a Philox block

// What a group of up to 32 channels of one pixel is multiplied with.
struct Factors {
  alignas(32) std::array<float, 32> by{};
  Factors(const DropoutDraw& draw, const Group& g, int64_t channels) {
    const float kept = 1 / (1 - draw.rate);
    uint64_t block = ~uint64_t{0};
    std::array<uint32_t, 4> words{};
    for (int64_t i = 0; i < g.size; ++i) {
      const uint64_t e = uint64_t(draw.channels ? g.channel + i : g.place * channels + g.channel + i);
      if (e / 4 != block) {
        block = e / 4;
        words = philox4x32({uint32_t(block), draw.step, draw.node, draw.first_item + uint32_t(g.item)},
                           {uint32_t(draw.seed), uint32_t(draw.seed >> 32)});
      }
      by[i] = float(words[e % 4] >> 8) * 0x1p-24f >= draw.rate ? kept : 0.f;
    }
  }
};

void check_rate(const DropoutDraw& draw) {
  CHECK(draw.rate >= 0 && draw.rate < 1, "dropout of {}: must be at least 0 and below 1", draw.rate);
}

}  // namespace

void dropout_forward(Context& ctx, const DropoutDraw& draw, ConstView x, View y) {
  check_same("dropout_forward", x, y);
  check_rate(draw);
  if (ctx.gpu) return ctx.gpu->ops->dropout_forward(ctx, draw, x, y);
  with_type(y.dtype, "dropout_forward", [&](auto type) {
    using T = decltype(type);
    each_group(ctx, y.shape, 1, kWork, [=](const Group& g) {
      const Factors factors(draw, g, y.shape.c);
      for (int64_t i = 0; i < g.size; ++i) y.as<T>()[g.element + i] = T(float(x.as<T>()[g.element + i]) * factors.by[i]);
    });
  });
}

void dropout_backward(Context& ctx, const DropoutDraw& draw, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  check_same("dropout_backward", dy, dx);
  check_rate(draw);
  check_epilogue(epilogue, "dropout_backward");
  CHECK(epilogue.seeds_per_item == 1, "dropout_backward: {} seeds for an item, must be 1", epilogue.seeds_per_item);
  if (ctx.gpu) return ctx.gpu->ops->dropout_backward(ctx, draw, dy, dx, epilogue);
  with_type(dx.dtype, "dropout_backward", [&](auto type) {
    using T = decltype(type);
    const BackwardTarget<T> target(dx, epilogue);
    each_group(ctx, dx.shape, 1, kWork, [=](const Group& g) {
      const Factors factors(draw, g, dx.shape.c);
      target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
        return _mm256_mul_ps(load8(dy.as<T>() + g.element + 8 * v, lanes), _mm256_load_ps(factors.by.data() + 8 * v));
      });
    });
  });
}

}  // namespace switchback
