#include "kernels/normalize/batch_norm.h"

#include <array>
#include <cmath>
#include <type_traits>

#include "kernels/device/device_ops.h"
#include "kernels/parallel.h"
#include "kernels/pointwise/pointwise_loops.h"
#include "kernels/simd.h"
#include "kernels/sliding.h"
#include "kernels/view_check.h"

namespace switchback {
namespace {

constexpr int64_t kTogether = 32;  // channels
constexpr int64_t kPlaces = 4;     // whose terms are added before they meet the sum

// Of every item and channel: `Sums` sums over the places of term(sum, element, channel), in an order that the item's shape
// fixes; then take(channel, sums) for each item in order.
template <int Sums, typename Term, typename Take>
void sum_items(Context& ctx, Shape s, const Term& term, const Take& take) {
  const int64_t places = s.h * s.w, blocks = ceil_div(s.c, kTogether);
  using Block = std::array<std::array<double, size_t(kTogether)>, Sums>;
  std::vector<Block> all(size_t(s.n * blocks));
  parallel_ranges(ctx, s.n * blocks, places * kTogether, [&, term](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      Block sums{};
      const int64_t c0 = i % blocks * kTogether, lanes = std::min(kTogether, s.c - c0), begin = i / blocks * s.item() + c0;
      // Which sum and how many rows are known when it is compiled: else it would not be done in lanes.
      const auto add_to = [&](auto which, auto width, auto rows, int64_t at) {
        double* to = sums[size_t(which)].data();
        for (int64_t k = 0; k < width; ++k) {
          double sum = term(which, at + k, c0 + k);
          for (int64_t r = 1; r < rows; ++r) sum += term(which, at + r * s.c + k, c0 + k);
          to[k] += sum;
        }
      };
      const auto add = [&](auto width, auto rows, int64_t at) {
        add_to(std::integral_constant<int, 0>(), width, rows, at);
        if constexpr (Sums == 2) add_to(std::integral_constant<int, 1>(), width, rows, at);
      };
      const auto add_all = [&](auto width) {
        int64_t p = 0;
        for (; p + kPlaces <= places; p += kPlaces) add(width, std::integral_constant<int64_t, kPlaces>(), begin + p * s.c);
        for (; p < places; ++p) add(width, std::integral_constant<int64_t, 1>(), begin + p * s.c);
      };
      // Widths that the compiler knows are a few instructions.
      if (lanes == kTogether) add_all(std::integral_constant<int64_t, kTogether>());
      else if (lanes == kTogether / 2) add_all(std::integral_constant<int64_t, kTogether / 2>());
      else add_all(lanes);
      all[size_t(i)] = sums;
    }
  });
  for (int64_t i = 0; i < s.n * blocks; ++i)
    for (int64_t c0 = i % blocks * kTogether, k = 0; k < std::min(kTogether, s.c - c0); ++k) {
      std::array<double, Sums> sums;
      for (size_t which = 0; which < Sums; ++which) sums[which] = all[size_t(i)][which][size_t(k)];
      take(c0 + k, sums);
    }
}

}  // namespace

void batch_norm_moments(Context& ctx, ConstView x, float eps, float* moments) {
  check_view("batch_norm_moments", "x", x, x.shape, DType::f32);
  CHECK(x.shape.pixels() > 1, "a batch norm of one value per channel ({}) has no variance", to_string(x.shape));
  if (ctx.gpu) return ctx.gpu->ops->batch_norm_moments(ctx, x, eps, moments);
  const int64_t channels = x.shape.c;
  const double count = double(x.shape.pixels());
  // In one pass, as distances from a value of the channel: squares of the values themselves would lose a variance that is
  // small beside the mean.
  std::vector<double> sum(size_t(channels), 0), squares(size_t(channels), 0);
  const float* in = x.as<float>();
  sum_items<2>(ctx, x.shape,
               [=](auto which, int64_t at, int64_t c) {
                 const double away = double(in[at]) - double(in[c]);
                 if constexpr (which == 0) return away;
                 else return away * away;
               },
               [&](int64_t c, const auto& sums) { sum[c] += sums[0], squares[c] += sums[1]; });
  for (int64_t c = 0; c < channels; ++c) {
    const double mean = sum[c] / count, rest = squares[c] / count - mean * mean;
    const double variance = rest < 0 ? 0 : rest;  // and no number where there was none
    moments[c] = float(double(in[c]) + mean);
    moments[channels + c] = float(variance);
    moments[2 * channels + c] = float(1 / std::sqrt(variance + double(eps)));
  }
}

void batch_norm_affine(Context& ctx, int64_t channels, const float* moments, const float* weight, const float* bias,
                       float* affine) {
  if (ctx.gpu) return ctx.gpu->ops->batch_norm_affine(ctx, channels, moments, weight, bias, affine);
  for (int64_t c = 0; c < channels; ++c) {
    const double scale = double(weight[c]) * double(moments[2 * channels + c]);
    affine[c] = float(scale);
    affine[channels + c] = float(double(bias[c]) - double(moments[c]) * scale);
  }
}

void channel_sums(Context& ctx, ConstView dy, ConstView x, const float* moments, float* sums) {
  check_view("channel_sums", "dy", dy, dy.shape, DType::f32);
  if (x.data) check_same("channel_sums", dy, x);
  if (ctx.gpu) return ctx.gpu->ops->channel_sums(ctx, dy, x, moments, sums);
  const int64_t channels = dy.shape.c;
  std::vector<double> all(size_t(2 * channels), 0);
  const float *g = dy.as<float>(), *in = x.as<float>();
  if (!in) {
    sum_items<1>(ctx, dy.shape, [=](auto, int64_t at, int64_t) { return double(g[at]); },
                 [&](int64_t c, const auto& s) { all[c] += s[0]; });
  } else {
    sum_items<2>(ctx, dy.shape,
                 [=](auto which, int64_t at, int64_t c) {
                   const auto of_dy = double(g[at]);
                   if constexpr (which == 0) return of_dy;
                   else return of_dy * double((in[at] - moments[c]) * moments[2 * channels + c]);
                 },
                 [&](int64_t c, const auto& s) { all[c] += s[0], all[channels + c] += s[1]; });
  }
  for (int64_t i = 0; i < (in ? 2 : 1) * channels; ++i) sums[i] = float(all[i]);
}

void batch_norm_backward(Context& ctx, ConstView dy, ConstView x, const float* moments, const float* sums,
                         const float* weight, View dx, const BackwardEpilogue& epilogue) {
  check_same("batch_norm_backward", dy, dx);
  check_same("batch_norm_backward", dy, x);
  check_view("batch_norm_backward", "x", x, x.shape, DType::f32);
  check_epilogue(epilogue, "batch_norm_backward");
  if (ctx.gpu) return ctx.gpu->ops->batch_norm_backward(ctx, dy, x, moments, sums, weight, dx, epilogue);
  // As scale·dy + slope·x + shift for each channel.
  const int64_t channels = dx.shape.c;
  const double count = double(dx.shape.pixels());
  std::vector<float> terms(size_t(3 * channels));
  float *scale = terms.data(), *slope = scale + channels, *shift = slope + channels;
  for (int64_t c = 0; c < channels; ++c) {
    const double r = double(moments[2 * channels + c]), by = double(weight[c]) * r;
    const double pull = double(sums[channels + c]) / count;
    scale[c] = float(by);
    slope[c] = float(-by * pull * r);
    shift[c] = float(by * (double(moments[c]) * r * pull - double(sums[c]) / count));
  }
  const BackwardTarget<float> target(dx, epilogue);
  const float *g = dy.as<float>(), *in = x.as<float>();
  each_group(ctx, dx.shape, epilogue.seeds_per_item, 1, [=](const Group& at) SB_LAMBDA {
    target.write_group(at.element, at.word, at.size, [&](int v, int lanes) SB_LAMBDA {
      const int64_t c = at.channel + 8 * v, e = at.element + 8 * v;
      const F8 of_x = _mm256_fmadd_ps(load8(slope + c, lanes), load8(in + e, lanes), load8(shift + c, lanes));
      return _mm256_fmadd_ps(load8(scale + c, lanes), load8(g + e, lanes), of_x);
    });
  });
}

void update_running(Context& ctx, int64_t channels, float momentum, float factor, const float* of_batch, float* running) {
  if (ctx.gpu) return ctx.gpu->ops->update_running(ctx, channels, momentum, factor, of_batch, running);
  for (int64_t c = 0; c < channels; ++c) running[c] = (1 - momentum) * running[c] + momentum * (factor * of_batch[c]);
}

void add_channel_sums(Context& ctx, ConstView dy, float* sums) {
  check_view("add_channel_sums", "dy", dy, dy.shape, DType::f32);
  if (ctx.gpu) return ctx.gpu->ops->add_channel_sums(ctx, dy, sums);
  const float* g = dy.as<float>();
  sum_items<1>(ctx, dy.shape, [=](auto, int64_t at, int64_t) { return double(g[at]); },
               [=](int64_t c, const auto& s) { sums[c] += float(s[0]); });
}

void add_slope_gradients(Context& ctx, ConstView dy, ConstView x, int64_t count, float* slopes) {
  check_same("add_slope_gradients", dy, x);
  check_view("add_slope_gradients", "dy", dy, dy.shape, DType::f32);
  CHECK(count == 1 || count == dy.shape.c, "{} slopes for {} channels", count, dy.shape.c);
  if (ctx.gpu) return ctx.gpu->ops->add_slope_gradients(ctx, dy, x, count, slopes);
  const float *g = dy.as<float>(), *in = x.as<float>();
  const int64_t channels = dy.shape.c;
  std::vector<double> sums(size_t(channels), 0);  // of one item
  for (int64_t n = 0; n < dy.shape.n; ++n) {
    const int64_t first = n * dy.shape.item();
    sum_items<1>(ctx, dy.shape.with_n(1),
                 [=](int, int64_t at, int64_t) {
                   const float v = in[first + at];
                   return double(g[first + at]) * double(v > 0 ? 0.f : v);
                 },
                 [&](int64_t c, const auto& s) { sums[c] = s[0]; });
    if (count == 1) {
      double all = 0;
      for (const double sum : sums) all += sum;
      slopes[0] += float(all);
    } else {
      for (int64_t c = 0; c < channels; ++c) slopes[c] += float(sums[c]);
    }
  }
}

}  // namespace switchback
