#include "kernels/normalize/set_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/device/device_ops.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"
#include "kernels/view_check.h"

namespace switchback {
namespace {

void check_sets(const char* op, const NormSets& sets, Shape s) {
  CHECK(sets.channels > 0 && sets.places > 0 && s.c % sets.channels == 0 && s.h * s.w % sets.places == 0,
        "{}: [{},{},{}] does not divide into sets of {} channels at {} places", op, s.c, s.h, s.w, sets.channels, sets.places);
}

struct Moments {
  float mean, r;
};
struct Pulls {  // mean(g) and mean(g·x̂)
  float all, along;
};

// Items are cut into blocks: the sets of some channels (about 32 or more) at the places of one set. A block's values are
// read in the order in which they lie.
struct Blocks {
  Blocks(const NormSets& sets, Shape s)
      : sets(sets), s(s), rows(s.h * s.w / sets.places), across(s.c / sets.channels),
        at_once(std::min(across, std::max<int64_t>(1, 32 / sets.channels))), chunks((across + at_once - 1) / at_once) {}

  // body(item, first set, sets, first pixel of the item) for all blocks.
  template <typename Body>
  void each(Context& ctx, const Body& body) const {
    parallel_ranges(ctx, s.n * rows * chunks, 4 * sets.places * sets.channels * at_once, [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        const int64_t chunk = b % chunks, row = b / chunks % rows, set = chunk * at_once;
        body(b / chunks / rows, row * across + set, std::min(at_once, across - set), row * sets.places, set * sets.channels);
      }
    });
  }
  int64_t per_item() const { return rows * across; }
  int64_t set_of(int64_t pixel, int64_t channel) const { return pixel / sets.places * across + channel / sets.channels; }

  NormSets sets;
  Shape s;
  int64_t rows, across, at_once, chunks;
};

// Of every set of x: [n, sets].
template <typename T>
std::vector<Moments> moments_of(Context& ctx, const Blocks& blocks, const T* x) {
  const NormSets& sets = blocks.sets;
  const int64_t places = blocks.s.h * blocks.s.w, channels = blocks.s.c;
  const double count = double(sets.channels * sets.places);
  std::vector<Moments> all(size_t(blocks.s.n * blocks.per_item()));
  blocks.each(ctx, [&](int64_t item, int64_t set, int64_t n, int64_t pixel, int64_t channel) {
    std::vector<double> mean(size_t(n), 0), squares(size_t(n), 0);
    const T* from = x + (item * places + pixel) * channels + channel;
    const auto each_value = [&](const auto& add) {
      for (int64_t p = 0; p < sets.places; ++p)
        for (int64_t k = 0; k < n; ++k)
          for (int64_t c = 0; c < sets.channels; ++c)
            add(size_t(k), double(float(from[p * channels + k * sets.channels + c])));
    };
    each_value([&](size_t k, double v) { mean[k] += v; });
    for (double& m : mean) m /= count;
    each_value([&](size_t k, double v) { squares[k] += (v - mean[k]) * (v - mean[k]); });
    for (int64_t k = 0; k < n; ++k)
      all[size_t(item * blocks.per_item() + set + k)] = {
          float(mean[size_t(k)]), float(1 / std::sqrt(squares[size_t(k)] / count + double(sets.eps)))};
  });
  return all;
}

struct Affine {
  NormAffine a;
  int64_t places;  // of a set
  int64_t at(int64_t pixel, int64_t channel) const { return pixel % places * a.by_place + channel * a.by_channel; }
  float weight(int64_t pixel, int64_t channel) const { return a.weight ? a.weight[at(pixel, channel)] : 1.f; }
  float bias(int64_t pixel, int64_t channel) const { return a.bias ? a.bias[at(pixel, channel)] : 0.f; }
};

template <typename T>
void forward(Context& ctx, const NormSets& sets, const NormAffine& affine, ConstView x, View y) {
  const Blocks blocks(sets, x.shape);
  const std::vector<Moments> moments = moments_of(ctx, blocks, x.as<T>());
  const Affine a{affine, sets.places};
  const int64_t channels = x.shape.c, places = x.shape.h * x.shape.w;
  parallel_ranges(ctx, x.shape.pixels(), 4 * channels, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) {
      const int64_t pixel = p % places;
      const Moments* of_item = moments.data() + p / places * blocks.per_item();
      const T* from = x.as<T>() + p * channels;
      T* to = y.as<T>() + p * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const Moments m = of_item[blocks.set_of(pixel, c)];
        to[c] = T((float(from[c]) - m.mean) * m.r * a.weight(pixel, c) + a.bias(pixel, c));
      }
    }
  });
}

template <typename T>
void backward(Context& ctx, const NormSets& sets, const NormAffine& affine, ConstView dy, ConstView x, View dx,
              const BackwardEpilogue& epilogue) {
  const Blocks blocks(sets, dx.shape), kept_blocks(sets, x.shape);
  const std::vector<Moments> moments = moments_of(ctx, kept_blocks, x.as<T>());
  const Affine a{affine, sets.places};
  const int64_t channels = dx.shape.c, places = dx.shape.h * dx.shape.w, words = gate_words_per_pixel(channels);
  const double count = double(sets.channels * sets.places);
  std::vector<Pulls> pulls(size_t(dx.shape.n * blocks.per_item()));
  blocks.each(ctx, [&](int64_t item, int64_t set, int64_t n, int64_t pixel, int64_t channel) {
    std::vector<double> all(size_t(n), 0), along(size_t(n), 0);
    const Moments* m = moments.data() + item / epilogue.seeds_per_item * blocks.per_item() + set;
    for (int64_t p = pixel; p < pixel + sets.places; ++p) {
      const T* g = dy.as<T>() + (item * places + p) * channels;
      const T* v = x.as<T>() + (item / epilogue.seeds_per_item * places + p) * channels;
      for (int64_t k = 0; k < n; ++k)
        for (int64_t c = channel + k * sets.channels; c < channel + (k + 1) * sets.channels; ++c) {
          const double pull = double(float(g[c])) * double(a.weight(p, c));
          all[size_t(k)] += pull;
          along[size_t(k)] += pull * double((float(v[c]) - m[k].mean) * m[k].r);
        }
    }
    for (int64_t k = 0; k < n; ++k)
      pulls[size_t(item * blocks.per_item() + set + k)] = {float(all[size_t(k)] / count), float(along[size_t(k)] / count)};
  });
  const BackwardTarget<T> target(dx, epilogue);
  parallel_ranges(ctx, dx.shape.pixels(), 8 * channels, [&](int64_t first, int64_t last) {
    std::vector<float> gradient(size_t(channels + 7));
    for (int64_t p = first; p < last; ++p) {
      const int64_t item = p / places, pixel = p % places, kept = item / epilogue.seeds_per_item;
      const T *g = dy.as<T>() + p * channels, *v = x.as<T>() + (kept * places + pixel) * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t set = blocks.set_of(pixel, c);
        const Moments m = moments[size_t(kept * blocks.per_item() + set)];
        const Pulls pull = pulls[size_t(item * blocks.per_item() + set)];
        const float along = (float(v[c]) - m.mean) * m.r;
        gradient[size_t(c)] = m.r * (float(g[c]) * a.weight(pixel, c) - pull.all - along * pull.along);
      }
      for (int64_t c = 0; c < channels; c += 32)
        target.write_group(p * channels + c, (kept * places + pixel) * words + c / 32, channels - c,
                           [&](int i, int lanes) SB_LAMBDA { return load8(gradient.data() + c + 8 * i, lanes); });
    }
  });
}

}  // namespace

void set_norm_forward(Context& ctx, const NormSets& sets, const NormAffine& affine, ConstView x, View y) {
  check_same("set_norm_forward", x, y);
  check_sets("set_norm_forward", sets, x.shape);
  if (ctx.gpu) return ctx.gpu->ops->set_norm_forward(ctx, sets, affine, x, y);
  with_type(x.dtype, "set_norm_forward", [&](auto type) { forward<decltype(type)>(ctx, sets, affine, x, y); });
}

void set_norm_backward(Context& ctx, const NormSets& sets, const NormAffine& affine, ConstView dy, ConstView x, View dx,
                       const BackwardEpilogue& epilogue) {
  check_same("set_norm_backward", dy, dx);
  check_kept("set_norm_backward", dx, x, epilogue.seeds_per_item);
  check_sets("set_norm_backward", sets, dx.shape);
  check_epilogue(epilogue, "set_norm_backward");
  if (ctx.gpu) return ctx.gpu->ops->set_norm_backward(ctx, sets, affine, dy, x, dx, epilogue);
  with_type(dx.dtype, "set_norm_backward",
            [&](auto type) { backward<decltype(type)>(ctx, sets, affine, dy, x, dx, epilogue); });
}

void set_norm_backward_affine(Context& ctx, const NormSets& sets, ConstView dy, ConstView x, const NormGradients& g) {
  check_same("set_norm_backward_affine", dy, x);
  check_view("set_norm_backward_affine", "x", x, x.shape, DType::f32);
  check_sets("set_norm_backward_affine", sets, x.shape);
  if (ctx.gpu) return ctx.gpu->ops->set_norm_backward_affine(ctx, sets, dy, x, g);
  const Blocks blocks(sets, x.shape);
  const std::vector<Moments> moments = moments_of(ctx, blocks, x.as<float>());
  const int64_t channels = x.shape.c, places = x.shape.h * x.shape.w;
  // Channels with values of their own are summed up side by side.
  const int64_t ranges = g.by_channel == 0 ? 1 : channels;
  parallel_ranges(ctx, ranges, x.shape.count() / ranges, [&](int64_t first, int64_t last) {
    const int64_t c0 = ranges == 1 ? 0 : first, c1 = ranges == 1 ? channels : last;
    std::vector<double> along(size_t(g.count)), all(along.size());
    for (int64_t n = 0; n < x.shape.n; ++n) {
      std::fill(along.begin(), along.end(), 0.0);
      std::fill(all.begin(), all.end(), 0.0);
      for (int64_t p = 0; p < places; ++p)
        for (int64_t c = c0; c < c1; ++c) {
          const Moments m = moments[n * blocks.per_item() + blocks.set_of(p, c)];
          const int64_t e = (n * places + p) * channels + c, at = p % sets.places * g.by_place + c * g.by_channel;
          const double pull = double(dy.as<float>()[e]);
          all[at] += pull;
          along[at] += pull * double((x.as<float>()[e] - m.mean) * m.r);
        }
      const auto add = [&](int64_t at) {
        if (g.weight) g.weight[at] += float(along[at]);
        if (g.bias) g.bias[at] += float(all[at]);
      };
      const int64_t of_channel = g.by_place == 0 ? 1 : sets.places;
      for (int64_t c = c0; c < (ranges == 1 ? c0 + 1 : c1); ++c)
        for (int64_t p = 0; p < of_channel; ++p) add(p * g.by_place + c * g.by_channel);
    }
  });
}

}  // namespace switchback
