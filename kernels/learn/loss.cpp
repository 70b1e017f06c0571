#include "kernels/learn/loss.h"

#include "kernels/device/device_ops.h"
#include "kernels/learn/loss_math.h"
#include "kernels/parallel.h"
#include "kernels/view_check.h"

namespace switchback {

void cross_entropy(Context& ctx, const CrossEntropy& loss, ConstView x, const int32_t* labels, double scale, View dx,
                   double* losses, int32_t* best) {
  check_same("cross_entropy", x, dx);
  check_view("cross_entropy", "x", x, {x.shape.n, x.shape.c, 1, 1}, DType::f32);
  if (ctx.gpu) return ctx.gpu->ops->cross_entropy(ctx, loss, x, labels, scale, dx, losses, best);
  const int64_t k = x.shape.c;
  parallel_ranges(ctx, x.shape.n, 40 * k, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n)
      cross_entropy_item(loss, k, x.as<float>() + n * k, labels[n], scale, dx.as<float>() + n * k, losses + n, best + n);
  });
}

void distance_loss(Context& ctx, Distance distance, ConstView x, ConstView target, double scale, View dx, double* losses) {
  check_same("distance_loss", x, dx);
  check_same("distance_loss", x, target);
  check_view("distance_loss", "x", x, x.shape, DType::f32);
  if (ctx.gpu) return ctx.gpu->ops->distance_loss(ctx, distance, x, target, scale, dx, losses);
  const int64_t size = x.shape.item();
  parallel_ranges(ctx, x.shape.n, size * (distance == Distance::bce ? 20 : 1), [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      constexpr int64_t kSums = 16;  // side by side: one alone would wait for itself at every value
      double sums[kSums] = {}, sum = 0;
      const auto add = [&](Distance which, int64_t i, double& to) {
        to += distance_value(which, double(x.as<float>()[i]), double(target.as<float>()[i]), scale, dx.as<float>() + i);
      };
      int64_t i = n * size;
      for (; distance == Distance::mse && i + kSums <= (n + 1) * size; i += kSums)
        for (int64_t k = 0; k < kSums; ++k) add(Distance::mse, i + k, sums[k]);
      for (; i < (n + 1) * size; ++i) add(distance, i, sum);
      for (const double s : sums) sum += s;
      losses[n] = sum;
    }
  });
}

}  // namespace switchback
