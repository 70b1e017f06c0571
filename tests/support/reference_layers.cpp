#include "tests/support/reference_layers.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"

namespace switchback::test {
namespace {

int64_t chw(const Shape& s, int64_t c, int64_t h, int64_t w) { return (c * s.h + h) * s.w + w; }

template <typename F>
void for_each_place(Shape s, F f) {
  for (int64_t c = 0; c < s.c; ++c)
    for (int64_t h = 0; h < s.h; ++h)
      for (int64_t w = 0; w < s.w; ++w) f(c, h, w);
}

int64_t longest(const LinearMap& map, bool forward) {
  std::vector<int64_t> counts(size_t(forward ? map.out.item() : map.in.item()), 0);
  for (const LinearMap::Term& t : map.terms) ++counts[size_t(forward ? t.out : t.in)];
  return *std::max_element(counts.begin(), counts.end());
}

// --- Resize, by weights that inputs have at a place of the real axis

double place_in_input(const Resize& r, double i, double in, double out, double scale) {
  switch (r.coordinates) {
    case Resize::Coordinates::half_pixel:
      return (i + 0.5) / scale - 0.5;
    case Resize::Coordinates::pytorch_half_pixel:
      return out == 1 ? 0 : (i + 0.5) / scale - 0.5;
    case Resize::Coordinates::align_corners:
      return out == 1 ? 0 : i * (in - 1) / (out - 1);
    case Resize::Coordinates::asymmetric:
      return i / scale;
    case Resize::Coordinates::tf_half_pixel_for_nn:
      return (i + 0.5) / scale;
    case Resize::Coordinates::half_pixel_symmetric:  // as ONNX writes it
      return in / 2 * (1 - out / (scale * in)) + (i + 0.5) / scale - 0.5;
  }
  return 0;
}

// 1 for the input that is nearest in the sense of the rounding, which may lie beyond the border.
bool is_chosen(Resize::Rounding rounding, double place, double input) {
  const double ahead = input - place;
  switch (rounding) {
    case Resize::Rounding::floor:
      return ahead > -1 && ahead <= 0;
    case Resize::Rounding::ceil:
      return ahead >= 0 && ahead < 1;
    case Resize::Rounding::round_prefer_floor:
      return ahead >= -0.5 && ahead < 0.5;
    case Resize::Rounding::round_prefer_ceil:
      return ahead > -0.5 && ahead <= 0.5;
  }
  return false;
}

// weights[o][i] of one axis.
std::vector<std::vector<double>> axis_weights(const Resize& r, int64_t in, int64_t given, float scale) {
  const int64_t out = given ? given : int64_t(double(in) * double(scale) + 1e-6);
  std::vector<std::vector<double>> all;
  for (int64_t o = 0; o < out; ++o) {
    const double factor = given ? double(out) / double(in) : double(scale);
    double place = place_in_input(r, double(o), double(in), double(out), factor);
    // What falls on a whole or half place but for the rounding of the scale to f32 must be seen to fall there.
    if (r.mode == Resize::Mode::nearest) place = std::round(place * 0x1p20) * 0x1p-20;
    std::vector<double> weights(size_t(in), 0);
    if (r.mode == Resize::Mode::bilinear) {
      place = std::clamp(place, 0.0, double(in - 1));
      for (int64_t i = 0; i < in; ++i) weights[size_t(i)] = std::max(0.0, 1 - std::abs(place - double(i)));
    } else if (r.mode == Resize::Mode::bicubic) {
      const double a = r.cubic_coeff;
      double sum = 0;
      for (int64_t i = -3; i < in + 3; ++i) {
        const double d = std::abs(place - double(i)), d2 = d * d, d3 = d2 * d;
        const double w = d < 1 ? (a + 2) * d3 - (a + 3) * d2 + 1 : d < 2 ? a * d3 - 5 * a * d2 + 8 * a * d - 4 * a : 0;
        if (r.exclude_outside && (i < 0 || i >= in)) continue;
        weights[size_t(std::clamp<int64_t>(i, 0, in - 1))] += w;
        sum += w;
      }
      for (double& w : weights) w /= r.exclude_outside ? sum : 1;
    } else {
      for (int64_t i = -2; i < in + 2; ++i)
        if (is_chosen(r.rounding, place, double(i))) weights[size_t(std::clamp<int64_t>(i, 0, in - 1))] = 1;
    }
    all.push_back(weights);
  }
  return all;
}

int64_t padded_place(Pad::Mode mode, int64_t i, int64_t size) {  // -1: the constant
  if (i >= 0 && i < size) return i;
  if (mode == Pad::Mode::constant) return -1;
  if (mode == Pad::Mode::edge) return i < 0 ? 0 : size - 1;
  return i < 0 ? -i : 2 * size - 2 - i;
}

// The places that Python's begin:end:step names.
std::vector<int64_t> places_of(const SliceRange& r, int64_t size) {
  std::vector<int64_t> places;
  const int64_t begin = r.begin < 0 ? r.begin + size : r.begin, end = r.end < 0 ? r.end + size : r.end;
  for (int64_t i = std::max<int64_t>(begin, 0); i < std::min(end, size); i += r.step) places.push_back(i);
  return places;
}

}  // namespace

int64_t LinearMap::longest_forward() const { return longest(*this, true); }
int64_t LinearMap::longest_backward() const { return longest(*this, false); }

LinearMap linear_map(const Resize& r, Shape x) {
  const auto rows = axis_weights(r, x.h, r.out_h, r.scale_h), columns = axis_weights(r, x.w, r.out_w, r.scale_w);
  LinearMap map{x.with_n(1), {1, x.c, int64_t(rows.size()), int64_t(columns.size())}, {}, {}};
  for_each_place(map.out, [&](int64_t c, int64_t p, int64_t q) {
    for (int64_t h = 0; h < x.h; ++h)
      for (int64_t w = 0; w < x.w; ++w)
        if (const double weight = rows[size_t(p)][size_t(h)] * columns[size_t(q)][size_t(w)]; weight != 0)
          map.terms.push_back({chw(map.out, c, p, q), chw(x, c, h, w), weight});
  });
  return map;
}

LinearMap linear_map(const Pad& pad, Shape x) {
  LinearMap map{x.with_n(1), {1, x.c + pad.front + pad.back, x.h + pad.top + pad.bottom, x.w + pad.left + pad.right}, {}, {}};
  map.constant.assign(size_t(map.out.item()), 0);
  for_each_place(map.out, [&](int64_t p, int64_t q, int64_t r) {
    const int64_t c = padded_place(pad.mode, p - pad.front, x.c), h = padded_place(pad.mode, q - pad.top, x.h);
    const int64_t w = padded_place(pad.mode, r - pad.left, x.w), out = chw(map.out, p, q, r);
    if (c < 0 || h < 0 || w < 0) map.constant[size_t(out)] = pad.value;
    else map.terms.push_back({out, chw(x, c, h, w), 1});
  });
  return map;
}

LinearMap linear_map(const Slice& s, Shape x) {
  const auto channels = places_of(s.c, x.c), rows = places_of(s.h, x.h), columns = places_of(s.w, x.w);
  LinearMap map{x.with_n(1), {1, int64_t(channels.size()), int64_t(rows.size()), int64_t(columns.size())}, {}, {}};
  for_each_place(map.out, [&](int64_t c, int64_t h, int64_t w) {
    map.terms.push_back({chw(map.out, c, h, w), chw(x, channels[size_t(c)], rows[size_t(h)], columns[size_t(w)]), 1});
  });
  return map;
}

// As PyTorch: view as [groups, c / groups], transpose, flatten.
LinearMap linear_map(const ChannelShuffle& s, Shape x) {
  LinearMap map{x.with_n(1), x.with_n(1), {}, {}};
  for_each_place(x, [&](int64_t c, int64_t h, int64_t w) {
    const int64_t each = x.c / s.groups, group = c / each, member = c % each;
    map.terms.push_back({chw(x, member * s.groups + group, h, w), chw(x, c, h, w), 1});
  });
  return map;
}

LinearMap linear_map(const Roll& r, Shape x) {
  LinearMap map{x.with_n(1), x.with_n(1), {}, {}};
  for_each_place(x, [&](int64_t c, int64_t h, int64_t w) {
    const int64_t row = (h + r.h + 8 * x.h) % x.h, column = (w + r.w + 8 * x.w) % x.w;
    map.terms.push_back({chw(x, c, row, column), chw(x, c, h, w), 1});
  });
  return map;
}

LinearMap linear_map(const Take& t, Shape x) {
  const auto size = [](const std::vector<int64_t>& places, int64_t in) { return places.empty() ? in : int64_t(places.size()); };
  const auto from = [](const std::vector<int64_t>& places, int64_t i) { return places.empty() ? i : places[size_t(i)]; };
  LinearMap map{x.with_n(1), {1, size(t.c, x.c), size(t.h, x.h), size(t.w, x.w)}, {}, {}};
  for_each_place(map.out, [&](int64_t c, int64_t h, int64_t w) {
    map.terms.push_back({chw(map.out, c, h, w), chw(x, from(t.c, c), from(t.h, h), from(t.w, w)), 1});
  });
  return map;
}

LinearMap linear_map(const Reshape& r, Shape x) {
  Shape y{1, r.c, r.h, r.w};
  for (int64_t* size : {&y.c, &y.h, &y.w})
    if (*size < 0) *size = -x.item() / y.item();
  LinearMap map{x.with_n(1), y, {}, {}};
  for (int64_t i = 0; i < x.item(); ++i) map.terms.push_back({i, i, 1});
  return map;
}

LinearMap linear_map(const Permute& p, Shape x) {
  const int64_t size[] = {x.c, x.h, x.w};
  LinearMap map{x.with_n(1), {1, size[p.axes[0] - 1], size[p.axes[1] - 1], size[p.axes[2] - 1]}, {}, {}};
  for_each_place(x, [&](int64_t c, int64_t h, int64_t w) {
    const int64_t at[] = {c, h, w};
    map.terms.push_back({chw(map.out, at[p.axes[0] - 1], at[p.axes[1] - 1], at[p.axes[2] - 1]), chw(x, c, h, w), 1});
  });
  return map;
}

LinearMap linear_map(const Transpose& t, Shape x) {
  LinearMap map{x.with_n(1), {1, t.c, t.h, t.w}, {}, {}};
  const size_t rank = t.sizes.size();
  const auto of_memory = [](Shape s, int64_t e) { return chw(s, e % s.c, e / s.c / s.w, e / s.c % s.w); };
  for (int64_t e = 0; e < x.item(); ++e) {  // an element of x, in the order of memory
    std::vector<int64_t> at(rank);
    for (int64_t rest = e, i = int64_t(rank) - 1; i >= 0; rest /= t.sizes[size_t(i--)]) at[size_t(i)] = rest % t.sizes[size_t(i)];
    int64_t to = 0;
    for (const int64_t axis : t.axes) to = to * t.sizes[size_t(axis)] + at[size_t(axis)];
    map.terms.push_back({of_memory(map.out, to), of_memory(x, e), 1});
  }
  return map;
}

LinearMap linear_map(const Reduce& r, Shape x) {
  LinearMap map{x.with_n(1), {1, r.c ? 1 : x.c, r.h ? 1 : x.h, r.w ? 1 : x.w}, {}, {}};
  const double weight = r.mean ? double(map.out.item()) / double(x.item()) : 1;
  for_each_place(x, [&](int64_t c, int64_t h, int64_t w) {
    map.terms.push_back({chw(map.out, r.c ? 0 : c, r.h ? 0 : h, r.w ? 0 : w), chw(x, c, h, w), weight});
  });
  return map;
}

LinearMap linear_map(const ConvTranspose2d& v, Shape x, const std::vector<float>& weight, const std::vector<float>& bias,
                     const std::vector<float>& scale) {
  const int64_t group_in = v.in_channels / v.groups, group_out = v.out_channels / v.groups;
  LinearMap map{x.with_n(1), {1, v.out_channels,
                (x.h - 1) * v.stride_h - v.pad_top - v.pad_bottom + v.dilation_h * (v.kernel_h - 1) + v.output_pad_h + 1,
                (x.w - 1) * v.stride_w - v.pad_left - v.pad_right + v.dilation_w * (v.kernel_w - 1) + v.output_pad_w + 1}, {}, {}};
  const Shape& y = map.out;
  for_each_place(y, [&](int64_t c, int64_t, int64_t) { map.constant.push_back(bias.empty() ? 0 : bias[size_t(c)]); });
  for_each_place(x, [&](int64_t i, int64_t h, int64_t w) {
    for (int64_t o = 0; o < group_out; ++o)
      for (int64_t r = 0; r < v.kernel_h; ++r)
        for (int64_t s = 0; s < v.kernel_w; ++s) {
          const int64_t k = i / group_in * group_out + o;
          const int64_t p = h * v.stride_h + r * v.dilation_h - v.pad_top, q = w * v.stride_w + s * v.dilation_w - v.pad_left;
          if (p < 0 || p >= y.h || q < 0 || q >= y.w) continue;
          const double factor = weight[size_t(((i * group_out + o) * v.kernel_h + r) * v.kernel_w + s)];
          map.terms.push_back({chw(y, k, p, q), chw(x, i, h, w), factor * (scale.empty() ? 1 : scale[size_t(k)])});
        }
  });
  return map;
}

Ref apply(const LinearMap& map, const Nchw& x) {
  Ref y(map.out.with_n(x.shape.n));
  for (int64_t n = 0; n < x.shape.n; ++n) {
    double *value = &y.value.v[size_t(n * map.out.item())], *terms = &y.terms.v[size_t(n * map.out.item())];
    for (size_t i = 0; i < map.constant.size(); ++i) value[i] = map.constant[i], terms[i] = std::abs(map.constant[i]);
    for (const LinearMap::Term& t : map.terms) {
      const double a = t.weight * x.v[size_t(n * map.in.item() + t.in)];
      value[t.out] += a, terms[t.out] += std::abs(a);
    }
  }
  return y;
}

Ref apply_transposed(const LinearMap& map, const Nchw& dy) {
  Ref dx(map.in.with_n(dy.shape.n));
  for (int64_t n = 0; n < dy.shape.n; ++n)
    for (const LinearMap::Term& t : map.terms) {
      const double a = t.weight * dy.v[size_t(n * map.out.item() + t.out)];
      dx.value.v[size_t(n * map.in.item() + t.in)] += a, dx.terms.v[size_t(n * map.in.item() + t.in)] += std::abs(a);
    }
  return dx;
}

// --- Activations -----------------------------------------------------------------------------------------------------

namespace {

double slope_at(const std::vector<double>& slopes, const Shape& s, size_t i) {
  return slopes.size() == 1 ? slopes[0] : slopes[i / size_t(s.h * s.w) % size_t(s.c)];
}

// The element of a kept tensor that element i of a tensor of seeds goes with.
size_t kept_index(const Shape& s, size_t i, int64_t seeds) {
  const size_t item = size_t(s.item());
  return i / item / size_t(seeds) * item + i % item;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double normal_distribution(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
const double kGelu = std::sqrt(2 / std::acos(-1.0));
double gelu_argument(double x) { return 2 * kGelu * (x + 0.044715 * x * x * x); }

double value_of(const Smooth& f, double x) {
  const double a = double(f.a);
  switch (f.function) {
    case SmoothFunction::sigmoid:
      return sigmoid(x);
    case SmoothFunction::tanh:
      return std::tanh(x);
    case SmoothFunction::hardswish:
      return std::isnan(x) ? x : x * std::min(std::max(x + 3, 0.0), 6.0) / 6;
    case SmoothFunction::silu:
      return x * sigmoid(x);
    case SmoothFunction::gelu:
      return std::isinf(x) ? std::max(x, 0.0) : x * normal_distribution(x);
    case SmoothFunction::gelu_tanh:
      return std::isinf(x) ? std::max(x, 0.0) : x * sigmoid(gelu_argument(x));
    case SmoothFunction::elu:
      return x > 0 ? x : a * std::expm1(x);
    case SmoothFunction::celu:
      return x > 0 ? x : a * std::expm1(x / a);
    case SmoothFunction::softplus:
      return std::isnan(x) ? x : std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
    case SmoothFunction::mish:
      return std::isinf(x) ? std::max(x, 0.0) : x * std::tanh(std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))));
    case SmoothFunction::erf:
      return std::erf(x);
    case SmoothFunction::exp:
      return std::exp(x);
    case SmoothFunction::log:
      return std::log(x);
    case SmoothFunction::sqrt:
      return std::sqrt(x);
    case SmoothFunction::reciprocal:
      return 1 / x;
    case SmoothFunction::abs:
      return std::abs(x);
    case SmoothFunction::pow:
      return std::pow(x, a);
    case SmoothFunction::sin:
      return std::sin(x);
    case SmoothFunction::cos:
      return std::cos(x);
    case SmoothFunction::floor:
      return std::floor(x);
    case SmoothFunction::ceil:
      return std::ceil(x);
    case SmoothFunction::round:
      return std::nearbyint(x);
    case SmoothFunction::sign:
      return std::isnan(x) ? x : double(x > 0) - double(x < 0);
  }
  return 0;
}

// gelu_tanh's argument u of a sigmoid is rounded, which moves the value by up to |x·u·σ'(u)| a rounding.
double argument_terms(const Smooth& smooth, double x) {
  if (smooth.function != SmoothFunction::gelu_tanh || std::isinf(x)) return 0;
  const double u = gelu_argument(x), e = std::exp(-std::abs(u));
  return std::abs(x * u) * e / ((1 + e) * (1 + e));
}

// The derivative, and by how much its parts are larger than their sum.
double derivative_of(const Smooth& f, double x, double& parts) {
  const double a = double(f.a);
  const double s = sigmoid(x), e = std::exp(-std::abs(x)), slope = e / ((1 + e) * (1 + e));
  double value = 0;
  switch (f.function) {
    case SmoothFunction::sigmoid:
      value = parts = slope;
      break;
    case SmoothFunction::tanh:
      value = parts = std::pow(1 / std::cosh(x), 2);
      break;
    case SmoothFunction::hardswish:
      value = x <= -3 ? 0 : x >= 3 ? 1 : (2 * x + 3) / 6;
      parts = std::abs(x) <= 3 ? std::abs(x) / 3 + 0.5 : 1;
      break;
    case SmoothFunction::silu:
      value = s + x * slope;
      parts = s + std::abs(x * slope);
      break;
    case SmoothFunction::gelu: {
      const double share = normal_distribution(x), change = x * std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0));
      value = share + change;
      parts = share + std::abs(change);
      break;
    }
    case SmoothFunction::gelu_tanh: {
      const double u = gelu_argument(x), share = sigmoid(u), d = std::exp(-std::abs(u)), bend = d / ((1 + d) * (1 + d));
      const double inner = x * 2 * kGelu * (1 + 3 * 0.044715 * x * x);
      value = share + inner * bend;
      parts = share + std::abs(inner * bend) + std::abs(u) * bend * (1 + std::abs(inner));  // u is rounded
      break;
    }
    case SmoothFunction::elu:
    case SmoothFunction::celu: {
      const double by = f.function == SmoothFunction::elu ? 1 : a;
      value = x > 0 ? 1 : a / by * std::exp(x / by);
      parts = std::abs(value) * (x > 0 ? 1 : 1 + std::abs(x / by));  // the quotient is rounded
      break;
    }
    case SmoothFunction::softplus:
      value = parts = s;
      break;
    case SmoothFunction::mish: {
      const double share = std::tanh(std::max(x, 0.0) + std::log1p(e)), w = 1 / std::cosh(std::max(x, 0.0) + std::log1p(e));
      value = share + x * w * w * s;
      parts = share + std::abs(x) * w * w * s;
      break;
    }
    case SmoothFunction::erf:
      value = parts = 2 / std::sqrt(std::acos(-1.0)) * std::exp(-x * x);
      parts *= 1 + 2 * x * x;  // x·√2 is rounded
      break;
    case SmoothFunction::exp:
      value = parts = std::exp(x);
      break;
    case SmoothFunction::log:
      value = 1 / x, parts = std::abs(value);
      break;
    case SmoothFunction::sqrt:
      value = parts = 0.5 / std::sqrt(x);
      break;
    case SmoothFunction::reciprocal:
      value = -1 / x / x, parts = -value;
      break;
    case SmoothFunction::abs:
      value = double(x > 0) - double(x < 0), parts = 1;
      break;
    case SmoothFunction::pow:
      value = a * std::pow(x, a - 1), parts = std::abs(value);
      break;
    case SmoothFunction::sin:
      value = std::cos(x), parts = 1;
      break;
    case SmoothFunction::cos:
      value = -std::sin(x), parts = 1;
      break;
    case SmoothFunction::floor:
    case SmoothFunction::ceil:
    case SmoothFunction::round:
    case SmoothFunction::sign:
      value = parts = 0;
      break;
  }
  return value;
}

}  // namespace

Ref slope_forward(const std::vector<double>& slopes, const Nchw& x, Gates* gates) {
  Ref y(x.shape);
  gates->assign(x.v.size(), 0);
  for (size_t i = 0; i < x.v.size(); ++i) {
    const bool open = x.v[i] > 0;
    (*gates)[i] = open;
    y.value.v[i] = open ? x.v[i] : slope_at(slopes, x.shape, i) * x.v[i];
    y.terms.v[i] = std::abs(y.value.v[i]);
  }
  return y;
}

Ref slope_backward(const std::vector<double>& slopes, const Nchw& dy, const Gates& gates, Rule rule, int64_t seeds) {
  Ref dx(dy.shape);
  for (size_t i = 0; i < dy.v.size(); ++i) {
    const bool open = gates[kept_index(dy.shape, i, seeds)] == 1, up = dy.v[i] > 0;
    const bool through = rule == Rule::gradient ? open : rule == Rule::deconv ? up : open && up;
    dx.value.v[i] = through ? dy.v[i] : slope_at(slopes, dy.shape, i) * dy.v[i];
    dx.terms.v[i] = std::abs(dx.value.v[i]);
  }
  return dx;
}

RampValue ramp_forward(double scale, double shift, double min, double max, const Nchw& x) {
  RampValue out{Ref(x.shape), Ref(x.shape), Gates(x.v.size(), 0)};
  for (size_t i = 0; i < x.v.size(); ++i) {
    const double s = scale * x.v[i] + shift;
    const bool above = std::isfinite(max) && s >= max, below = std::isfinite(min) && s <= min;
    out.s.value.v[i] = s;
    out.s.terms.v[i] = out.y.terms.v[i] = std::abs(scale * x.v[i]) + std::abs(shift);
    out.y.value.v[i] = above ? max : below ? min : s;
    out.gates[i] = above ? 2 : below || std::isnan(s) ? 0 : 1;
  }
  return out;
}

Ref ramp_backward(double scale, const Nchw& dy, const Gates& gates, int64_t seeds) {
  Ref dx(dy.shape);
  for (size_t i = 0; i < dy.v.size(); ++i) {
    dx.value.v[i] = gates[kept_index(dy.shape, i, seeds)] == 1 ? scale * dy.v[i] : 0;
    dx.terms.v[i] = std::abs(dx.value.v[i]);
  }
  return dx;
}

Ref smooth_forward(const Smooth& function, const Nchw& x) {
  Ref y(x.shape);
  for (size_t i = 0; i < x.v.size(); ++i) {
    y.value.v[i] = value_of(function, x.v[i]);
    y.terms.v[i] = std::abs(y.value.v[i]) + argument_terms(function, x.v[i]);
  }
  return y;
}

Ref smooth_backward(const Smooth& function, const Nchw& dy, const Nchw& x, int64_t seeds) {
  Ref dx(dy.shape);
  for (size_t i = 0; i < dy.v.size(); ++i) {
    double parts = 0;
    dx.value.v[i] = dy.v[i] * derivative_of(function, x.v[kept_index(dy.shape, i, seeds)], parts);
    dx.terms.v[i] = std::abs(dy.v[i]) * parts;
  }
  return dx;
}

// --- Binary functions ------------------------------------------------------------------------------------------------

namespace {

// The element of an operand that a place of the result goes with.
size_t operand_index(const Shape& s, int64_t n, int64_t c, int64_t h, int64_t w) {
  const auto at = [](int64_t size, int64_t i) { return size == 1 ? 0 : i; };
  return size_t(((at(s.n, n) * s.c + at(s.c, c)) * s.h + at(s.h, h)) * s.w + at(s.w, w));
}

double result_of(BinaryFunction f, double a, double b) {
  switch (f) {
    case BinaryFunction::add:
      return a + b;
    case BinaryFunction::sub:
      return a - b;
    case BinaryFunction::mul:
      return a * b;
    case BinaryFunction::div:
      return a / b;
    case BinaryFunction::max:
      return std::isnan(a) || std::isnan(b) ? a + b : std::max(a, b);
    case BinaryFunction::min:
      return std::isnan(a) || std::isnan(b) ? a + b : std::min(a, b);
    case BinaryFunction::where:
      return b != 0 ? a : 0;
    case BinaryFunction::where_not:
      return b == 0 ? a : 0;
    case BinaryFunction::greater:
      return a > b;
    case BinaryFunction::greater_equal:
      return a >= b;
    case BinaryFunction::equal:
      return a == b;
  }
  return 0;
}

double partial(BinaryFunction f, int operand, double a, double b) {
  switch (f) {
    case BinaryFunction::add:
      return 1;
    case BinaryFunction::sub:
      return operand == 0 ? 1 : -1;
    case BinaryFunction::mul:
      return operand == 0 ? b : a;
    case BinaryFunction::div:
      return operand == 0 ? 1 / b : -a / (b * b);
    case BinaryFunction::max:
      return a == b ? 0.5 : operand == 0 ? !(a < b) : !(a > b);
    case BinaryFunction::min:
      return a == b ? 0.5 : operand == 0 ? !(a > b) : !(a < b);
    case BinaryFunction::where:
      return operand == 0 && b != 0;
    case BinaryFunction::where_not:
      return operand == 0 && b == 0;
    default:
      return 0;
  }
  return 0;
}

}  // namespace

Ref binary_forward(BinaryFunction f, const Nchw& a, const Nchw& b) {
  const auto larger = [](int64_t p, int64_t q) { return std::max(p, q); };
  Ref y({larger(a.shape.n, b.shape.n), larger(a.shape.c, b.shape.c), larger(a.shape.h, b.shape.h),
         larger(a.shape.w, b.shape.w)});
  const Shape& s = y.value.shape;
  for (int64_t n = 0; n < s.n; ++n)
    for_each_place(s, [&](int64_t c, int64_t h, int64_t w) {
      const double u = a.v[operand_index(a.shape, n, c, h, w)], v = b.v[operand_index(b.shape, n, c, h, w)];
      y.value(n, c, h, w) = result_of(f, u, v);
      y.terms(n, c, h, w) = f == BinaryFunction::add || f == BinaryFunction::sub ? std::abs(u) + std::abs(v)
                                                                                : std::abs(result_of(f, u, v));
    });
  return y;
}

Ref binary_backward(BinaryFunction f, int operand, const Nchw& dy, const Nchw& a, const Nchw& b, int64_t seeds) {
  const Shape own = (operand == 0 ? a : b).shape, s = dy.shape;
  Ref dx(own.with_n(s.n));
  for (int64_t n = 0; n < s.n; ++n)
    for_each_place(s, [&](int64_t c, int64_t h, int64_t w) {
      const double u = a.v[operand_index(a.shape, n / seeds, c, h, w)], v = b.v[operand_index(b.shape, n / seeds, c, h, w)];
      const double g = dy(n, c, h, w) * partial(f, operand, u, v);
      const size_t at = size_t(n * own.item()) + operand_index(own.with_n(1), 0, c, h, w);
      dx.value.v[at] += g, dx.terms.v[at] += std::abs(g);
    });
  return dx;
}

namespace {

// The set that element (c, h, w) of an item belongs to, and its affine index.
struct SetPlace {
  int64_t set, affine;
};
SetPlace set_place(const NormCase& norm, Shape s, size_t i) {
  const int64_t at = int64_t(i) % s.item(), c = at / (s.h * s.w), place = at % (s.h * s.w);
  const NormSets& n = norm.sets;
  return {place / n.places * (s.c / n.channels) + c / n.channels, place % n.places * norm.by_place + c * norm.by_channel};
}
double factor(const std::vector<double>& values, int64_t at, double otherwise) {
  return values.empty() ? otherwise : values[size_t(at)];
}
// mean over the set of element i's item of f(j) for its elements j.
template <typename F>
double set_mean(const NormCase& norm, Shape s, size_t i, F f) {
  const size_t first = i / size_t(s.item()) * size_t(s.item());
  const int64_t set = set_place(norm, s, i).set;
  double sum = 0, count = 0;
  for (size_t j = first; j < first + size_t(s.item()); ++j)
    if (set_place(norm, s, j).set == set) sum += f(j), count += 1;
  return sum / count;
}
struct Normed {
  double along, r, terms;  // x̂ and what its rounding errors are judged by
};
Normed normed(const NormCase& norm, const Nchw& x, size_t i) {
  const double mean = set_mean(norm, x.shape, i, [&](size_t j) { return x.v[j]; });
  const double variance = set_mean(norm, x.shape, i, [&](size_t j) { return (x.v[j] - mean) * (x.v[j] - mean); });
  const double r = 1 / std::sqrt(variance + double(norm.sets.eps));
  return {(x.v[i] - mean) * r, r, (std::abs(x.v[i]) + std::abs(mean)) * r};
}

}  // namespace

Ref set_norm_forward(const NormCase& norm, const Nchw& x) {
  Ref y(x.shape);
  for (size_t i = 0; i < x.v.size(); ++i) {
    const Normed n = normed(norm, x, i);
    const int64_t at = set_place(norm, x.shape, i).affine;
    const double w = factor(norm.weight, at, 1), b = factor(norm.bias, at, 0);
    y.value.v[i] = n.along * w + b;
    y.terms.v[i] = n.terms * std::abs(w) + std::abs(b);
  }
  return y;
}

Ref set_norm_backward(const NormCase& norm, const Nchw& dy, const Nchw& x, int64_t seeds) {
  Ref dx(dy.shape);
  std::vector<Normed> kept;
  for (size_t i = 0; i < x.v.size(); ++i) kept.push_back(normed(norm, x, i));
  const auto of = [&](size_t i) { return kept[kept_index(dy.shape, i, seeds)]; };
  const auto pull = [&](size_t i) { return dy.v[i] * factor(norm.weight, set_place(norm, dy.shape, i).affine, 1); };
  for (size_t i = 0; i < dy.v.size(); ++i) {
    const Normed n = of(i);
    const auto mean = [&](auto f) { return set_mean(norm, dy.shape, i, f); };
    const double all = mean(pull), along = mean([&](size_t j) { return pull(j) * of(j).along; });
    dx.value.v[i] = n.r * (pull(i) - all - n.along * along);
    dx.terms.v[i] = n.r * (std::abs(pull(i)) + mean([&](size_t j) { return std::abs(pull(j)); }) +
                           n.terms * mean([&](size_t j) { return std::abs(pull(j)) * of(j).terms; }));
  }
  return dx;
}

}  // namespace switchback::test
