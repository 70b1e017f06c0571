#include "kernels/learn/optimizer.h"

#include <vector>

#include "kernels/check.h"
#include "kernels/device/device_ops.h"
#include "kernels/learn/optimizer_math.h"
#include "kernels/parallel.h"
#include "kernels/sliding.h"

namespace switchback {
namespace {

constexpr int64_t kBlock = 4096;  // values that are summed up together

void check_array(const Optimizer& o, const OptimizedArray& a) {
  const int kept = (a.state0 ? 1 : 0) + (a.state1 ? 1 : 0);
  CHECK(kept == o.states(), "an optimiser that keeps {} arrays was given {}", o.states(), kept);
}

}  // namespace

void optimizer_step(Context& ctx, const Optimizer& o, double lr, int64_t step, const OptimizedArray& a) {
  check_array(o, a);
  CHECK(step >= 1, "an optimiser's first step is 1, not {}", step);
  if (ctx.gpu) return ctx.gpu->ops->optimizer_step(ctx, o, lr, step, a);
  const OptimizerScalars s(o, lr, step);
  parallel_ranges(ctx, a.count, 1, [=](int64_t first, int64_t last) {
    float *w = a.w, *state0 = a.state0, *state1 = a.state1;
    const float* g = a.gradient;
    switch (o.kind) {
      case Optimizer::Kind::sgd:
        if (!state0) {
          for (int64_t i = first; i < last; ++i) sgd_value(s, false, w[i], g[i], nullptr);
        } else {
          for (int64_t i = first; i < last; ++i) sgd_value(s, o.nesterov, w[i], g[i], state0 + i);
        }
        break;
      case Optimizer::Kind::adam:
        for (int64_t i = first; i < last; ++i) adam_value(s, w[i], g[i], state0[i], state1[i]);
        break;
      case Optimizer::Kind::nadam:
        for (int64_t i = first; i < last; ++i) nadam_value(s, w[i], g[i], state0[i], state1[i]);
        break;
      case Optimizer::Kind::adadelta:
        for (int64_t i = first; i < last; ++i) adadelta_value(s, w[i], g[i], state0[i], state1[i]);
        break;
    }
  });
}

void add_squares(Context& ctx, const float* v, int64_t count, double* sum) {
  if (ctx.gpu) return ctx.gpu->ops->add_squares(ctx, v, count, sum);
  std::vector<double> parts(size_t(ceil_div(count, kBlock)), 0);
  parallel_ranges(ctx, int64_t(parts.size()), kBlock, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b)
      for (int64_t i = b * kBlock; i < std::min(count, (b + 1) * kBlock); ++i) parts[b] += double(v[i]) * double(v[i]);
  });
  for (const double part : parts) *sum += part;
}

void scale_array(Context& ctx, float* v, int64_t count, float by) {
  if (ctx.gpu) return ctx.gpu->ops->scale_array(ctx, v, count, by);
  parallel_ranges(ctx, count, 1, [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) v[i] *= by;
  });
}

}  // namespace switchback
