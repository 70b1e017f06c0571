#include "tests/support/reference.h"

#include <algorithm>
#include <cmath>

namespace switchback::test {

Nchw tolerance(const Ref& ref, double c, DType stored) {
  Nchw out(ref.value.shape);
  for (size_t i = 0; i < out.v.size(); ++i) {
    out.v[i] = c * kEpsF32 * ref.terms.v[i] + (ref.error.v.empty() ? 0 : ref.error.v[i]);
    if (stored != DType::f32) out.v[i] += 1.01 * eps_of(stored) * (std::abs(ref.value.v[i]) + out.v[i]);
    if (stored == DType::f16) out.v[i] += 0x1p-25;  // half of its least number
  }
  return out;
}

double rounding_steps(int64_t length) { return 2 + 2 * std::sqrt(double(length)); }

// --- Convolution -----------------------------------------------------------------------------------------------------

Shape conv_shape(const Conv2d& v, Shape x) {
  const int64_t h = (x.h + v.pad_top + v.pad_bottom - v.dilation_h * (v.kernel_h - 1) - 1) / v.stride_h + 1;
  const int64_t w = (x.w + v.pad_left + v.pad_right - v.dilation_w * (v.kernel_w - 1) - 1) / v.stride_w + 1;
  return {x.n, v.out_channels, h, w};
}

namespace {

// Calls product(weight index, x index, y index, output channel) for every product of a convolution.
template <typename F>
void for_each_product(const Conv2d& v, const Nchw& x, const Nchw& y, F product) {
  const int64_t in = v.in_channels / v.groups, out = v.out_channels / v.groups;
  for (int64_t n = 0; n < y.shape.n; ++n)
    for (int64_t o = 0; o < v.out_channels; ++o)
      for (int64_t i = 0; i < in; ++i)
        for (int64_t r = 0; r < v.kernel_h; ++r)
          for (int64_t s = 0; s < v.kernel_w; ++s) {
            const int64_t weight = ((o * in + i) * v.kernel_h + r) * v.kernel_w + s, c = o / out * in + i;
            for (int64_t p = 0; p < y.shape.h; ++p) {
              const int64_t h = p * v.stride_h + r * v.dilation_h - v.pad_top;
              if (h < 0 || h >= x.shape.h) continue;
              for (int64_t q = 0; q < y.shape.w; ++q) {
                const int64_t w = q * v.stride_w + s * v.dilation_w - v.pad_left;
                if (w >= 0 && w < x.shape.w) product(weight, x.index(n, c, h, w), y.index(n, o, p, q), o);
              }
            }
          }
}

double scaled(const std::vector<float>& w, const std::vector<float>& scale, int64_t i, int64_t o) {
  return scale.empty() ? double(w[size_t(i)]) : double(w[size_t(i)]) * double(scale[size_t(o)]);
}

}  // namespace

Ref conv_forward(const Conv2d& v, const Nchw& x, const std::vector<float>& w, const std::vector<float>& bias,
                 const std::vector<float>& scale) {
  Ref y(conv_shape(v, x.shape));
  for (size_t i = 0; i < y.value.v.size() && !bias.empty(); ++i) {
    const int64_t o = int64_t(i) / (y.value.shape.h * y.value.shape.w) % v.out_channels;
    y.value.v[i] = bias[size_t(o)], y.terms.v[i] = std::abs(bias[size_t(o)]);
  }
  for_each_product(v, x, y.value, [&](int64_t wi, int64_t xi, int64_t yi, int64_t o) {
    const double a = scaled(w, scale, wi, o) * x.v[size_t(xi)];
    y.value.v[size_t(yi)] += a, y.terms.v[size_t(yi)] += std::abs(a);
  });
  return y;
}

Ref conv_backward(const Conv2d& v, const Nchw& dy, const std::vector<float>& w, const std::vector<float>& scale,
                  Shape x) {
  Ref dx(x);
  for_each_product(v, dx.value, dy, [&](int64_t wi, int64_t xi, int64_t yi, int64_t o) {
    const double a = scaled(w, scale, wi, o) * dy.v[size_t(yi)];
    dx.value.v[size_t(xi)] += a, dx.terms.v[size_t(xi)] += std::abs(a);
  });
  return dx;
}

// --- Linear ----------------------------------------------------------------------------------------------------------

Ref linear_forward(const Nchw& x, const std::vector<float>& w, const std::vector<float>& bias, int64_t out) {
  const int64_t in = x.shape.c;
  Ref y({x.shape.n, out, 1, 1});
  for (int64_t n = 0; n < x.shape.n; ++n)
    for (int64_t o = 0; o < out; ++o) {
      double sum = bias.empty() ? 0.0 : bias[size_t(o)], terms = std::abs(sum);
      for (int64_t i = 0; i < in; ++i) {
        const double a = double(w[size_t(o * in + i)]) * x(n, i, 0, 0);
        sum += a, terms += std::abs(a);
      }
      y.value(n, o, 0, 0) = sum, y.terms(n, o, 0, 0) = terms;
    }
  return y;
}

Ref linear_backward(const Nchw& dy, const std::vector<float>& w, int64_t in) {
  Ref dx({dy.shape.n, in, 1, 1});
  for (int64_t n = 0; n < dy.shape.n; ++n)
    for (int64_t o = 0; o < dy.shape.c; ++o)
      for (int64_t i = 0; i < in; ++i) {
        const double a = double(w[size_t(o * in + i)]) * dy(n, o, 0, 0);
        dx.value(n, i, 0, 0) += a, dx.terms(n, i, 0, 0) += std::abs(a);
      }
  return dx;
}

// --- Pooling ---------------------------------------------------------------------------------------------------------

namespace {

// torch's rule: in ceil mode the last window may hang over the border, but must start inside the input or its padding
// at the beginning.
int64_t pooled_size(int64_t in, int64_t kernel, int64_t stride, int64_t begin, int64_t end, int64_t dilation,
                    bool ceil) {
  const int64_t room = in + begin + end - dilation * (kernel - 1) - 1;
  int64_t out = (room + (ceil ? stride - 1 : 0)) / stride + 1;
  if (ceil && (out - 1) * stride >= in + begin) --out;
  return out;
}

}  // namespace

Shape pool_shape(const MaxPool2d& p, Shape x) {
  return {x.n, x.c, pooled_size(x.h, p.kernel_h, p.stride_h, p.pad_top, p.pad_bottom, p.dilation_h, p.ceil_mode),
          pooled_size(x.w, p.kernel_w, p.stride_w, p.pad_left, p.pad_right, p.dilation_w, p.ceil_mode)};
}

Shape pool_shape(const AvgPool2d& p, Shape x) {
  return {x.n, x.c, pooled_size(x.h, p.kernel_h, p.stride_h, p.pad_top, p.pad_bottom, 1, p.ceil_mode),
          pooled_size(x.w, p.kernel_w, p.stride_w, p.pad_left, p.pad_right, 1, p.ceil_mode)};
}

Pooled max_pool_forward(const MaxPool2d& pool, const Nchw& x) {
  Pooled out{Nchw(pool_shape(pool, x.shape)), {}};
  const Shape& y = out.value.shape;
  for (int64_t n = 0; n < y.n; ++n)
    for (int64_t c = 0; c < y.c; ++c)
      for (int64_t p = 0; p < y.h; ++p)
        for (int64_t q = 0; q < y.w; ++q) {
          int winner = -1;
          double best = 0;
          for (int64_t r = 0; r < pool.kernel_h; ++r)
            for (int64_t s = 0; s < pool.kernel_w; ++s) {
              const int64_t h = p * pool.stride_h + r * pool.dilation_h - pool.pad_top;
              const int64_t w = q * pool.stride_w + s * pool.dilation_w - pool.pad_left;
              if (h < 0 || h >= x.shape.h || w < 0 || w >= x.shape.w) continue;
              const double value = x(n, c, h, w);
              if (winner < 0 || value > best || std::isnan(value))  // as PyTorch: of several NaNs the last
                winner = int(r * pool.kernel_w + s), best = value;
            }
          out.value(n, c, p, q) = best;
          out.switches.push_back(winner);
        }
  return out;
}

Ref max_pool_backward(const MaxPool2d& pool, const Nchw& dy, const std::vector<int>& switches, Shape x, int64_t seeds) {
  Ref dx(x);
  const Shape& y = dy.shape;
  for (int64_t n = 0; n < y.n; ++n)
    for (int64_t c = 0; c < y.c; ++c)
      for (int64_t p = 0; p < y.h; ++p)
        for (int64_t q = 0; q < y.w; ++q) {
          const int winner = switches[size_t(((n / seeds * y.c + c) * y.h + p) * y.w + q)];
          const int64_t h = p * pool.stride_h + winner / pool.kernel_w * pool.dilation_h - pool.pad_top;
          const int64_t w = q * pool.stride_w + winner % pool.kernel_w * pool.dilation_w - pool.pad_left;
          dx.value(n, c, h, w) += dy(n, c, p, q);
          dx.terms(n, c, h, w) += std::abs(dy(n, c, p, q));
        }
  return dx;
}

namespace {

// One output of an averaging pool: rows [h0, h1) and columns [w0, w1) of the input, divided by `divisor`.
struct Window {
  int64_t h0, h1, w0, w1;
  double divisor;
};

Window window_of(const AvgPool2d& pool, Shape x, int64_t p, int64_t q) {
  const int64_t h0 = p * pool.stride_h - pool.pad_top, w0 = q * pool.stride_w - pool.pad_left;
  const int64_t h1 = std::min(h0 + pool.kernel_h, x.h + pool.pad_bottom);
  const int64_t w1 = std::min(w0 + pool.kernel_w, x.w + pool.pad_right);
  Window v{std::max<int64_t>(h0, 0), std::min(h1, x.h), std::max<int64_t>(w0, 0), std::min(w1, x.w), 0};
  v.divisor = pool.count_include_pad ? double((h1 - h0) * (w1 - w0)) : double((v.h1 - v.h0) * (v.w1 - v.w0));
  return v;
}

Window window_of(const AdaptiveAvgPool2d& pool, Shape x, int64_t p, int64_t q) {
  Window v{p * x.h / pool.out_h, ((p + 1) * x.h + pool.out_h - 1) / pool.out_h, q * x.w / pool.out_w,
           ((q + 1) * x.w + pool.out_w - 1) / pool.out_w, 0};
  v.divisor = double((v.h1 - v.h0) * (v.w1 - v.w0));
  return v;
}

template <typename Pool>
Ref average_forward(const Pool& pool, const Nchw& x, Shape y) {
  Ref out(y);
  for (int64_t n = 0; n < y.n; ++n)
    for (int64_t c = 0; c < y.c; ++c)
      for (int64_t p = 0; p < y.h; ++p)
        for (int64_t q = 0; q < y.w; ++q) {
          const Window v = window_of(pool, x.shape, p, q);
          for (int64_t h = v.h0; h < v.h1; ++h)
            for (int64_t w = v.w0; w < v.w1; ++w) {
              out.value(n, c, p, q) += x(n, c, h, w) / v.divisor;
              out.terms(n, c, p, q) += std::abs(x(n, c, h, w)) / v.divisor;
            }
        }
  return out;
}

template <typename Pool>
Ref average_backward(const Pool& pool, const Nchw& dy, Shape x) {
  Ref out(x);
  const Shape& y = dy.shape;
  for (int64_t n = 0; n < y.n; ++n)
    for (int64_t c = 0; c < y.c; ++c)
      for (int64_t p = 0; p < y.h; ++p)
        for (int64_t q = 0; q < y.w; ++q) {
          const Window v = window_of(pool, x, p, q);
          for (int64_t h = v.h0; h < v.h1; ++h)
            for (int64_t w = v.w0; w < v.w1; ++w) {
              out.value(n, c, h, w) += dy(n, c, p, q) / v.divisor;
              out.terms(n, c, h, w) += std::abs(dy(n, c, p, q)) / v.divisor;
            }
        }
  return out;
}

}  // namespace

Ref avg_pool_forward(const AvgPool2d& pool, const Nchw& x) {
  return average_forward(pool, x, pool_shape(pool, x.shape));
}
Ref avg_pool_backward(const AvgPool2d& pool, const Nchw& dy, Shape x) { return average_backward(pool, dy, x); }
Ref adaptive_forward(const AdaptiveAvgPool2d& pool, const Nchw& x) {
  return average_forward(pool, x, {x.shape.n, x.shape.c, pool.out_h, pool.out_w});
}
Ref adaptive_backward(const AdaptiveAvgPool2d& pool, const Nchw& dy, Shape x) { return average_backward(pool, dy, x); }

// --- Normalisation ---------------------------------------------------------------------------------------------------

namespace {

// d_c = k + alpha/size · sum x² over the window around channel c.
double lrn_denominator(const LocalResponseNorm& lrn, const Nchw& x, int64_t n, int64_t c, int64_t h, int64_t w) {
  double sum = 0;
  for (int64_t i = c - lrn.size / 2; i <= c + (lrn.size - 1) / 2; ++i)
    if (i >= 0 && i < x.shape.c) sum += x(n, i, h, w) * x(n, i, h, w);
  return double(lrn.k) + double(lrn.alpha) / double(lrn.size) * sum;
}

template <typename F>
void for_each_element(Shape s, F f) {
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t c = 0; c < s.c; ++c)
      for (int64_t h = 0; h < s.h; ++h)
        for (int64_t w = 0; w < s.w; ++w) f(n, c, h, w);
}

}  // namespace

Ref lrn_forward(const LocalResponseNorm& lrn, const Nchw& x) {
  Ref y(x.shape);
  for_each_element(x.shape, [&](int64_t n, int64_t c, int64_t h, int64_t w) {
    y.value(n, c, h, w) = x(n, c, h, w) * std::pow(lrn_denominator(lrn, x, n, c, h, w), -double(lrn.beta));
    y.terms(n, c, h, w) = std::abs(y.value(n, c, h, w));
  });
  return y;
}

// dx_j = dy_j d_j^-beta - 2 alpha beta / size · x_j · sum over the c whose window holds j of dy_c x_c d_c^(-beta-1).
Ref lrn_backward(const LocalResponseNorm& lrn, const Nchw& dy, const Nchw& x, int64_t seeds) {
  Ref dx(dy.shape);
  const double factor = 2 * double(lrn.alpha) * double(lrn.beta) / double(lrn.size);
  for_each_element(dy.shape, [&](int64_t n, int64_t j, int64_t h, int64_t w) {
    const int64_t m = n / seeds;
    double value = dy(n, j, h, w) * std::pow(lrn_denominator(lrn, x, m, j, h, w), -double(lrn.beta));
    double terms = std::abs(value);
    for (int64_t c = j - (lrn.size - 1) / 2; c <= j + lrn.size / 2; ++c) {
      if (c < 0 || c >= x.shape.c) continue;
      const double d = std::pow(lrn_denominator(lrn, x, m, c, h, w), -double(lrn.beta) - 1);
      const double a = factor * x(m, j, h, w) * dy(n, c, h, w) * x(m, c, h, w) * d;
      value -= a, terms += std::abs(a);
    }
    dx.value(n, j, h, w) = value, dx.terms(n, j, h, w) = terms;
  });
  return dx;
}

Ref softmax_forward(const Nchw& x) {
  Ref y(x.shape);
  for_each_element(x.shape, [&](int64_t n, int64_t c, int64_t h, int64_t w) {
    double top = -HUGE_VAL, sum = 0;
    for (int64_t i = 0; i < x.shape.c; ++i) top = std::max(top, x(n, i, h, w));
    for (int64_t i = 0; i < x.shape.c; ++i) sum += std::exp(x(n, i, h, w) - top);
    y.value(n, c, h, w) = std::exp(x(n, c, h, w) - top) / sum;
    // The rounding of x - top is relative to its size and becomes a relative error of the exponential.
    y.terms(n, c, h, w) = y.value(n, c, h, w) * (1 + top - x(n, c, h, w));
  });
  return y;
}

Ref softmax_backward(const Nchw& dy, const Nchw& y, int64_t seeds) {
  Ref dx(dy.shape);
  for_each_element(dy.shape, [&](int64_t n, int64_t c, int64_t h, int64_t w) {
    double dot = 0, terms = 0;
    for (int64_t i = 0; i < y.shape.c; ++i) {
      const double a = dy(n, i, h, w) * y(n / seeds, i, h, w);
      dot += a, terms += std::abs(a);
    }
    dx.value(n, c, h, w) = y(n / seeds, c, h, w) * (dy(n, c, h, w) - dot);
    dx.terms(n, c, h, w) = y(n / seeds, c, h, w) * (std::abs(dy(n, c, h, w)) + terms);
  });
  return dx;
}

// --- Epilogues -------------------------------------------------------------------------------------------------------

Activated finish_forward(Ref& op, const Nchw* residual, bool relu, double clip) {
  for (size_t i = 0; residual && i < op.value.v.size(); ++i)
    op.value.v[i] += residual->v[i], op.terms.v[i] += std::abs(residual->v[i]);
  Activated out{op.value, Gates(op.value.v.size(), 0)};
  for (size_t i = 0; relu && i < op.value.v.size(); ++i) {
    double& s = op.value.v[i];
    out.gates[i] = s > 0 ? (s >= clip && std::isfinite(clip) ? 2 : 1) : 0;  // NaN: 0
    s = s < 0 ? 0 : s > clip ? clip : s;                                    // NaN passes
  }
  return out;
}

std::vector<uint8_t> undecided_gates(const Nchw& s, const Nchw& tolerance, double clip) {
  std::vector<uint8_t> out(s.v.size());
  for (size_t i = 0; i < s.v.size(); ++i)
    out[i] = tolerance.v[i] > 0 && (std::abs(s.v[i]) <= tolerance.v[i] || std::abs(s.v[i] - clip) <= tolerance.v[i]);
  return out;
}

const char* name_of(Rule rule) {
  return rule == Rule::gradient ? "gradient" : rule == Rule::deconv ? "deconv" : "guided";
}

ReluRule relu_rule(Rule rule) { return rule == Rule::gradient ? kGradient : rule == Rule::deconv ? kDeconv : kGuided; }

double rule_value(Rule rule, bool active, double g) {
  switch (rule) {
    case Rule::gradient:
      return active ? g : 0;
    case Rule::deconv:
      return g > 0 ? g : 0;
    case Rule::guided:
      return active && g > 0 ? g : 0;
  }
  return 0;
}

void finish_backward(Ref& op, const Nchw* other, const Gates* gates, Rule rule, int64_t seeds) {
  const int64_t item = op.value.shape.item();
  for (size_t i = 0; i < op.value.v.size(); ++i) {
    if (other) op.value.v[i] += other->v[i], op.terms.v[i] += std::abs(other->v[i]);
    if (!gates) continue;
    const int64_t n = int64_t(i) / item;
    op.value.v[i] = rule_value(rule, (*gates)[size_t(n / seeds * item + int64_t(i) % item)] == 1, op.value.v[i]);
  }
}

// --- Noise -----------------------------------------------------------------------------------------------------------

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(0xD2511F53u) * c[0], b = uint64_t(0xCD9E8D57u) * c[2];
    c = {uint32_t(b >> 32) ^ c[1] ^ k[0], uint32_t(b), uint32_t(a >> 32) ^ c[3] ^ k[1], uint32_t(a)};
    k = {k[0] + 0x9E3779B9u, k[1] + 0xBB67AE85u};
  }
  return c;
}

double normal_noise(uint64_t seed, uint32_t image, uint32_t sample, uint64_t element) {
  const uint64_t block = element / 4;
  const std::array<uint32_t, 4> w =
      philox({uint32_t(block), uint32_t(block >> 32), sample, image}, {uint32_t(seed), uint32_t(seed >> 32)});
  const size_t pair = element % 4 / 2 * 2;
  const double u1 = ((w[pair] >> 8) + 0.5) * 0x1p-24, u2 = ((w[pair + 1] >> 8) + 0.5) * 0x1p-24;
  const double r = std::sqrt(-2 * std::log(u1)), angle = 2 * 3.14159265358979323846 * u2;
  return element % 2 == 0 ? r * std::cos(angle) : r * std::sin(angle);
}

}  // namespace switchback::test
