// Shapes and tables, and the gather on the CPU.
#include "kernels/move/resample.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/device/device_ops.h"
#include "kernels/pointwise/pointwise_loops.h"
#include "kernels/view_check.h"

namespace switchback {
namespace {

using Tap = Resampling::Tap;
using Table = Resampling::Table;

// --- Resize

int64_t resized(const char* what, int64_t in, int64_t out, float scale) {
  CHECK(out >= 0 && (out > 0 || scale > 0), "resize: {} {} and scale {} must be positive", what, out, scale);
  const int64_t size = out > 0 ? out : int64_t(std::floor(float(in) * scale));  // in f32, as ONNX runtimes have it
  CHECK(size > 0, "resize: scale {} leaves nothing of {} {}", scale, in, what);
  return size;
}

// The place in the input of output i, before it is moved inside.
double place_of(const Resize& r, int64_t i, int64_t in, int64_t out, int64_t fixed_out, float scale) {
  // i / s = i·in / out in one rounding where the size is what was given.
  const auto scaled = [&](double at) { return fixed_out > 0 ? at * double(in) / double(out) : at / double(scale); };
  switch (r.coordinates) {
    case Resize::Coordinates::half_pixel: return scaled(double(i) + 0.5) - 0.5;
    case Resize::Coordinates::pytorch_half_pixel: return out > 1 ? scaled(double(i) + 0.5) - 0.5 : 0;
    case Resize::Coordinates::half_pixel_symmetric:
      return scaled(double(i) + 0.5) - 0.5 + (double(in) - scaled(double(out))) / 2;
    case Resize::Coordinates::align_corners: return out > 1 ? double(i) * double(in - 1) / double(out - 1) : 0;
    case Resize::Coordinates::asymmetric: return scaled(double(i));
    case Resize::Coordinates::tf_half_pixel_for_nn: return scaled(double(i) + 0.5);
  }
  return 0;
}

double rounded(Resize::Rounding rounding, double at) {
  switch (rounding) {
    case Resize::Rounding::floor: return std::floor(at);
    case Resize::Rounding::round_prefer_floor: return std::ceil(at - 0.5);
    case Resize::Rounding::round_prefer_ceil: return std::floor(at + 0.5);
    case Resize::Rounding::ceil: return std::ceil(at);
  }
  return at;
}

// Keys' cubic convolution kernel at distance d.
double cubic_weight(double a, double d) {
  d = std::abs(d);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

// The four places around `at`; those beyond the border count for it, or not at all.
void add_cubic_taps(const Resize& r, double at, int64_t in, std::vector<Tap>& taps) {
  const auto low = int64_t(std::floor(at));
  double weights[4], sum = 0;
  for (int k = 0; k < 4; ++k) {
    const int64_t i = low - 1 + k;
    weights[k] = r.exclude_outside && (i < 0 || i >= in) ? 0 : cubic_weight(r.cubic_coeff, at - double(i));
    sum += weights[k];
  }
  const size_t first = taps.size();
  for (int k = 0; k < 4; ++k) {
    const auto from = int32_t(std::clamp<int64_t>(low - 1 + k, 0, in - 1));
    const double weight = r.exclude_outside ? weights[k] / sum : weights[k];
    if (taps.size() > first && taps.back().from == from)
      taps.back().weight = float(double(taps.back().weight) + weight);
    else if (weight != 0 || taps.size() == first)
      taps.push_back({from, float(weight)});
  }
}

Table resize_axis(const Resize& r, int64_t in, int64_t out, int64_t fixed_out, float scale) {
  Table table{{0}, {}};
  const auto inside = [&](double at) { return int32_t(std::clamp<double>(at, 0, double(in - 1))); };
  for (int64_t o = 0; o < out; ++o) {
    const double at = place_of(r, o, in, out, fixed_out, scale), low = std::floor(at);
    if (r.mode == Resize::Mode::nearest) {
      // In f32, as PyTorch and ONNX runtimes have it: 3 / 0.6f is then 5 and not a little less.
      table.taps.push_back({inside(rounded(r.rounding, double(float(at)))), 1.f});
    } else if (r.mode == Resize::Mode::bicubic) {
      add_cubic_taps(r, at, in, table.taps);
    } else if (inside(low) == inside(low + 1) || at == low) {
      table.taps.push_back({inside(low), 1.f});
    } else {
      table.taps.push_back({inside(low), float(low + 1 - at)});
      table.taps.push_back({inside(low + 1), float(at - low)});
    }
    table.first.push_back(int32_t(table.taps.size()));
  }
  return table;
}

// --- Pad, Slice: every output is one input, or the constant

Table single_taps(const std::vector<int32_t>& from) {
  Table table;
  table.first.resize(from.size() + 1);
  std::iota(table.first.begin(), table.first.end(), 0);
  for (int32_t i : from) table.taps.push_back({i, 1.f});
  return table;
}

std::vector<int32_t> padded_axis(Pad::Mode mode, int64_t in, int64_t out, int64_t before) {
  std::vector<int32_t> from;
  for (int64_t o = 0; o < out; ++o) {
    int64_t i = o - before;
    if (mode == Pad::Mode::edge) i = std::clamp<int64_t>(i, 0, in - 1);
    if (mode == Pad::Mode::reflect) i = i < 0 ? -i : i >= in ? 2 * (in - 1) - i : i;
    from.push_back(i < 0 || i >= in ? -1 : int32_t(i));
  }
  return from;
}

struct Span {
  int64_t begin, count;
};
Span span_of(const char* what, const SliceRange& r, int64_t in) {
  CHECK(r.step > 0, "slice: step {} of {} must be positive", r.step, what);
  const auto place = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + in : at, 0, in); };
  const int64_t begin = place(r.begin), end = place(r.end);
  CHECK(begin < end, "slice: {} {}:{} of {} is empty", what, r.begin, r.end, in);
  return {begin, (end - begin - 1) / r.step + 1};
}

std::vector<int32_t> sliced_axis(const char* what, const SliceRange& r, int64_t in) {
  const Span span = span_of(what, r, in);
  std::vector<int32_t> from;
  for (int64_t o = 0; o < span.count; ++o) from.push_back(int32_t(span.begin + o * r.step));
  return from;
}

std::vector<int32_t> rolled(int64_t size, int64_t by) {
  std::vector<int32_t> from;
  for (int64_t i = 0; i < size; ++i) from.push_back(int32_t(((i - by) % size + size) % size));
  return from;
}

std::vector<int32_t> taken(const std::vector<int64_t>& places, int64_t size) {
  if (!places.empty()) return {places.begin(), places.end()};
  std::vector<int32_t> all(size_t(size), 0);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// Output channel j·groups + g is input channel g·(c / groups) + j.
std::vector<int32_t> shuffled(int64_t channels, int64_t groups) {
  std::vector<int32_t> from;
  for (int64_t j = 0; j < channels / groups; ++j)
    for (int64_t g = 0; g < groups; ++g) from.push_back(int32_t(g * (channels / groups) + j));
  return from;
}

// A list of channels that changes nothing is left out: kernels then read whole vectors.
std::vector<int32_t> unless_same(std::vector<int32_t> from, int64_t in) {
  bool same = int64_t(from.size()) == in;
  for (size_t i = 0; i < from.size(); ++i) same = same && from[i] == int32_t(i);
  if (same) from.clear();
  return from;
}

// --- the way back

Table transposed(const Table& table, int64_t in) {
  Table back;
  back.first.assign(size_t(in) + 1, 0);
  for (const Tap& tap : table.taps)
    if (tap.from >= 0) ++back.first[size_t(tap.from) + 1];
  std::partial_sum(back.first.begin(), back.first.end(), back.first.begin());
  back.taps.resize(size_t(back.first.back()));
  std::vector<int32_t> next(back.first.begin(), back.first.end() - 1);
  for (size_t o = 0; o + 1 < table.first.size(); ++o)
    for (int32_t t = table.first[o]; t < table.first[o + 1]; ++t)
      if (const Tap& tap = table.taps[size_t(t)]; tap.from >= 0)
        back.taps[size_t(next[size_t(tap.from)]++)] = {int32_t(o), tap.weight};
  return back;
}

std::vector<int32_t> inverse(const std::vector<int32_t>& from, int64_t in) {
  if (from.empty()) return {};
  std::vector<int32_t> back(size_t(in), -1);
  for (size_t o = 0; o < from.size(); ++o)
    if (from[o] >= 0) back[size_t(from[o])] = int32_t(o);
  return back;
}

std::vector<int32_t> all_of(int64_t size) {
  std::vector<int32_t> from(size_t(size), 0);
  std::iota(from.begin(), from.end(), 0);
  return from;
}

void check_size(const char* op, Shape x) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  CHECK(x.c > 0 && x.h > 0 && x.w > 0 && x.item() <= kMost, "{}: an item of {} is empty or too large", op, to_string(x));
}

}  // namespace

Resize bilinear_to(int64_t h, int64_t w, bool align_corners) {
  using Coordinates = Resize::Coordinates;
  return {.mode = Resize::Mode::bilinear,
          .coordinates = align_corners ? Coordinates::align_corners : Coordinates::half_pixel, .out_h = h, .out_w = w};
}
Resize bilinear_by(float scale, bool align_corners) {
  Resize r = bilinear_to(0, 0, align_corners);
  r.scale_h = r.scale_w = scale;
  return r;
}

Shape output_shape(const Resize& r, Shape x) {
  return {x.n, x.c, resized("rows", x.h, r.out_h, r.scale_h), resized("columns", x.w, r.out_w, r.scale_w)};
}

Shape output_shape(const Pad& p, Shape x) {
  CHECK(p.mode == Pad::Mode::constant || (p.front == 0 && p.back == 0), "pad: channels can only be padded with a constant");
  CHECK(p.mode != Pad::Mode::reflect || (std::max(p.top, p.bottom) < x.h && std::max(p.left, p.right) < x.w),
        "pad: a reflection of {}, {}, {}, {} needs a larger map than {}x{}", p.top, p.left, p.bottom, p.right, x.h, x.w);
  const Shape y{x.n, x.c + p.front + p.back, x.h + p.top + p.bottom, x.w + p.left + p.right};
  CHECK(y.c > 0 && y.h > 0 && y.w > 0, "pad: cutting leaves nothing of {}", to_string(x));
  return y;
}

Shape output_shape(const Slice& s, Shape x) {
  return {x.n, span_of("channels", s.c, x.c).count, span_of("rows", s.h, x.h).count, span_of("columns", s.w, x.w).count};
}

Shape output_shape(const ChannelShuffle& s, Shape x) {
  CHECK(s.groups > 0 && x.c % s.groups == 0, "channel shuffle: {} channels do not divide into {} groups", x.c, s.groups);
  return x;
}

Shape output_shape(const Roll&, Shape x) { return x; }

Shape output_shape(const Take& t, Shape x) {
  const auto size = [](const char* what, const std::vector<int64_t>& places, int64_t in) {
    for (const int64_t i : places) CHECK(i >= 0 && i < in, "take: {} of {} {}", i, in, what);
    return places.empty() ? in : int64_t(places.size());
  };
  const Shape y{x.n, size("channels", t.c, x.c), size("rows", t.h, x.h), size("columns", t.w, x.w)};
  std::vector<bool> seen(size_t(t.c.empty() ? 0 : x.c), false);
  for (const int64_t i : t.c) {
    CHECK(!seen[size_t(i)], "take: channel {} twice", i);
    seen[size_t(i)] = true;
  }
  CHECK(double(y.c) * double(y.h) * double(y.w) <= double(std::numeric_limits<int32_t>::max()), "take: an item of {} is too large",
        to_string(y));
  return y;
}

Resampling::Resampling(Shape in, Shape out, Tables tables, float constant)
    : in_(in.with_n(1)), out_(out.with_n(1)), forward_(std::move(tables)), constant_(constant) {
  check_size("resample", in);
  check_size("resample", out);
  backward_ = {transposed(forward_.rows, in.h), transposed(forward_.columns, in.w), inverse(forward_.channels, in.c)};
}

Resampling::Resampling(const Resize& r, Shape x)
    : Resampling(x, output_shape(r, x),
                 {resize_axis(r, x.h, output_shape(r, x).h, r.out_h, r.scale_h),
                  resize_axis(r, x.w, output_shape(r, x).w, r.out_w, r.scale_w), {}}, 0.f) {}

Resampling::Resampling(const Pad& p, Shape x)
    : Resampling(x, output_shape(p, x),
                 {single_taps(padded_axis(p.mode, x.h, output_shape(p, x).h, p.top)),
                  single_taps(padded_axis(p.mode, x.w, output_shape(p, x).w, p.left)),
                  unless_same(padded_axis(p.mode, x.c, output_shape(p, x).c, p.front), x.c)}, p.value) {}

Resampling::Resampling(const Slice& s, Shape x)
    : Resampling(x, output_shape(s, x),
                 {single_taps(sliced_axis("rows", s.h, x.h)), single_taps(sliced_axis("columns", s.w, x.w)),
                  unless_same(sliced_axis("channels", s.c, x.c), x.c)}, 0.f) {}

Resampling::Resampling(const ChannelShuffle& s, Shape x)
    : Resampling(x, output_shape(s, x),
                 {single_taps(all_of(x.h)), single_taps(all_of(x.w)), unless_same(shuffled(x.c, s.groups), x.c)}, 0.f) {}

Resampling::Resampling(const Roll& r, Shape x)
    : Resampling(x, x, {single_taps(rolled(x.h, r.h)), single_taps(rolled(x.w, r.w)), {}}, 0.f) {}

Resampling::Resampling(const Take& t, Shape x)
    : Resampling(x, output_shape(t, x), {single_taps(taken(t.h, x.h)), single_taps(taken(t.w, x.w)), unless_same(taken(t.c, x.c), x.c)}, 0.f) {}

namespace {
// Where eight channels of the result, from a multiple of eight on, come from.
enum class Eight : uint8_t { anywhere, beside, nowhere };
std::vector<Eight> eights_of(const std::vector<int32_t>& channels) {
  std::vector<Eight> all;
  for (size_t c = 0; c < channels.size(); c += 8) {
    const size_t end = std::min(channels.size(), c + 8);
    bool beside = channels[c] >= 0, nowhere = true;
    for (size_t i = c; i < end; ++i) {
      beside = beside && channels[i] == channels[c] + int32_t(i - c);
      nowhere = nowhere && channels[i] < 0;
    }
    all.push_back(beside ? Eight::beside : nowhere ? Eight::nowhere : Eight::anywhere);
  }
  return all;
}

// The sums of one pixel of the result.
template <typename T>
struct Gather {
  const Resampling::Tables& tables;
  const T* x;
  Shape in;
  int64_t width;  // of the result
  float constant;
  std::vector<Eight> eights = eights_of(tables.channels);

  // Eight values, of channels from `channel` on.
  SB_INLINE F8 operator()(int64_t item, int64_t place, int64_t channel, int lanes) const {
    const uint32_t h = uint32_t(place) / uint32_t(width), w = uint32_t(place) % uint32_t(width);  // half as long as in 64 bits
    F8 sum = _mm256_setzero_ps();
    for (int32_t r = tables.rows.first[h]; r < tables.rows.first[h + 1]; ++r) {
      const Tap row = tables.rows.taps[size_t(r)];
      for (int32_t c = tables.columns.first[w]; c < tables.columns.first[w + 1]; ++c) {
        const Tap column = tables.columns.taps[size_t(c)];
        if (row.from < 0 || column.from < 0) return _mm256_set1_ps(constant);
        const T* pixel = x + ((item * in.h + row.from) * in.w + column.from) * in.c;
        sum = _mm256_fmadd_ps(_mm256_set1_ps(row.weight * column.weight), channels_of(pixel, channel, lanes), sum);
      }
    }
    return sum;
  }

 private:
  SB_INLINE F8 channels_of(const T* pixel, int64_t channel, int lanes) const {
    if (tables.channels.empty()) return load8(pixel + channel, lanes);
    const Eight eight = eights[size_t(channel / 8)];
    if (eight == Eight::beside) return load8(pixel + tables.channels[size_t(channel)], lanes);
    if (eight == Eight::nowhere) return _mm256_set1_ps(constant);
    alignas(32) float values[8] = {};
    for (int i = 0; i < lanes; ++i) {
      const int32_t from = tables.channels[size_t(channel + i)];
      values[i] = from < 0 ? constant : float(pixel[from]);
    }
    return _mm256_load_ps(values);
  }
};

template <typename T>
void resample_forward_typed(Context& ctx, const Resampling& r, ConstView x, View y) {
  const Gather<T> gather{r.forward(), x.as<T>(), x.shape, y.shape.w, r.constant()};
  const ForwardTarget<T> target(y, {});
  each_group(ctx, y.shape, 1, 2, [&](const Group& g) SB_LAMBDA {
    target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
      return gather(g.item, g.place, g.channel + 8 * v, lanes);
    });
  });
}

template <typename T>
void resample_backward_typed(Context& ctx, const Resampling& r, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  const Gather<T> gather{r.backward(), dy.as<T>(), dy.shape, dx.shape.w, 0.f};
  const BackwardTarget<T> target(dx, epilogue);
  const int64_t taps = std::max<int64_t>(1, dy.shape.h * dy.shape.w / (dx.shape.h * dx.shape.w));
  each_group(ctx, dx.shape, epilogue.seeds_per_item, 2 * taps, [&](const Group& g) SB_LAMBDA {
    target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
      return gather(g.item, g.place, g.channel + 8 * v, lanes);
    });
  });
}

}  // namespace

void resample_forward(Context& ctx, const Resampling& r, ConstView x, View y) {
  check_view("resample_forward", "the input", x, r.in().with_n(x.shape.n), y.dtype);
  check_view("resample_forward", "the output", y, r.out().with_n(x.shape.n), y.dtype);
  if (ctx.gpu) return ctx.gpu->ops->resample_forward(ctx, r, x, y);
  with_type(y.dtype, "resample_forward", [&](auto type) { resample_forward_typed<decltype(type)>(ctx, r, x, y); });
}

void resample_backward(Context& ctx, const Resampling& r, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  check_view("resample_backward", "dy", dy, r.out().with_n(dx.shape.n), dx.dtype);
  check_view("resample_backward", "dx", dx, r.in().with_n(dx.shape.n), dx.dtype);
  check_epilogue(epilogue, "resample_backward");
  if (ctx.gpu) return ctx.gpu->ops->resample_backward(ctx, r, dy, dx, epilogue);
  with_type(dx.dtype, "resample_backward",
            [&](auto type) { resample_backward_typed<decltype(type)>(ctx, r, dy, dx, epilogue); });
}

}  // namespace switchback
