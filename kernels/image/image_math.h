// The formulas of this room for one value, the same on every device: compiled without contraction.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/image/image_step.h"
#include "kernels/image/priors.h"
#include "kernels/image/transform.h"

namespace switchback::image_math {

// ---- image_step

SB_HOST_DEVICE inline bool stopped(const StopRule& stop, int64_t n) {
  return stop.best && (stop.best[n] == stop.labels[n]) == stop.equal;
}
// What a gradient is multiplied by, besides the scale; norm: ‖scale·g‖ for l2, ‖g‖ for capped.
SB_HOST_DEVICE inline float step_factor(const ImageStep& s, double norm) {
  if (s.rule == ImageStep::Rule::l2) return norm > 0 ? float(double(s.step) / norm) : 0.f;
  if (s.rule == ImageStep::Rule::capped && double(s.step) * norm * norm > 2) return float(2 / (norm * norm));
  return s.step;
}
SB_HOST_DEVICE inline float stepped(const ImageStep& s, float x, float g, float scale, float factor) {
  if (s.rule == ImageStep::Rule::sign) return x + fabsf(scale) * factor * (g > 0.f ? 1.f : g < 0.f ? -1.f : g);
  if (s.rule == ImageStep::Rule::l2) return x + scale * scale * factor * g;
  return x + factor * g;
}
// NaNs stay NaNs.
SB_HOST_DEVICE inline float clamped(float x, float least, float most) { return x < least ? least : x > most ? most : x; }
SB_HOST_DEVICE inline float finished(const ImageStep& s, float x, float least, float most) {
  x = clamped(x, least, most);
  return s.decay != 0.f ? x * (1.f - s.decay) : x;
}
SB_HOST_DEVICE inline float within_inf(const ImageStep& s, float x, float clean, float scale) {
  const float most = s.epsilon * fabsf(scale);
  return clamped(x, clean - most, clean + most);
}

// ---- priors: functors over the elements of an NHWC array, one call an element (or a pixel)

// Along one axis: `stride` elements between neighbours, `length` places.
struct FilterPass {
  SymmetricFilter filter;
  const float* x;
  float* y;
  int64_t stride, length;
  SB_HOST_DEVICE float at(int64_t base, int64_t p) const {
    if (p >= 0 && p < length) return x[base + p * stride];
    if (filter.border == SymmetricFilter::Border::zero) return 0.f;
    const int64_t period = 2 * length;
    p = ((p % period) + period) % period;
    return x[base + (p < length ? p : period - 1 - p) * stride];
  }
  SB_HOST_DEVICE void operator()(int64_t i) const {
    const int64_t p = i / stride % length, base = i - p * stride;
    float sum = filter.taps[0] * x[i];
    if (p >= filter.radius && p + filter.radius < length) {
      for (int k = 1; k <= filter.radius; ++k) sum += filter.taps[k] * (x[i - k * stride] + x[i + k * stride]);
    } else {
      for (int k = 1; k <= filter.radius; ++k) sum += filter.taps[k] * (at(base, p - k) + at(base, p + k));
    }
    y[i] = sum;
  }
};

struct Mix {
  float a, b;
  const float* x;
  float* y;
  SB_HOST_DEVICE void operator()(int64_t i) const { y[i] = a * x[i] + b * y[i]; }
};

struct AddAbsolute {
  const float* x;
  float* y;
  SB_HOST_DEVICE void operator()(int64_t i) const { y[i] += fabsf(x[i]); }
};

struct ScaledBy {
  int64_t period;
  const float *factors, *x;
  float* y;
  SB_HOST_DEVICE void operator()(int64_t i) const { y[i] = factors[i % period] * x[i]; }
};

// One pixel, all its channels.
struct NaturalGradient {
  NaturalPrior prior;
  int64_t h, w, c;
  const float* x;
  float* g;
  // (d1² + d2²)^(β/2 − 1) of the forward differences at (row, col), and these.
  SB_HOST_DEVICE float power(const float* at, bool last_col, bool last_row, float& d1, float& d2) const {
    d1 = last_col ? 0.f : at[c] - at[0];
    d2 = last_row ? 0.f : at[w * c] - at[0];
    if (prior.beta == 2.f) return 1.f;
    const float v = d1 * d1 + d2 * d2;
    return powf(v > 1e-10f ? v : 1e-10f, prior.beta / 2 - 1);
  }
  // norm^(α − 2); with the usual α of 6 two products.
  SB_HOST_DEVICE float raised(float norm) const {
    if (prior.alpha == 6.f) return norm * norm * (norm * norm);
    return powf(norm, prior.alpha - 2);
  }
  SB_HOST_DEVICE void operator()(int64_t pixel) const { at_place(pixel, pixel / w % h, pixel % w); }
  SB_HOST_DEVICE void at_place(int64_t pixel, int64_t row, int64_t col) const {
    const float* at = x + pixel * c;
    float* to = g + pixel * c;
    float pull = 0.f;
    if (prior.range_weight != 0.f) {
      float squares = 0.f;
      for (int64_t k = 0; k < c; ++k) squares += at[k] * at[k];
      const float norm = sqrtf(squares) / prior.bound;
      pull = prior.range_weight * prior.alpha * raised(norm) / (prior.bound * prior.bound);
    }
    for (int64_t k = 0; k < c; ++k) {
      float sum = 0.f, d1, d2;
      if (prior.tv_weight != 0.f) {
        const float own = power(at + k, col == w - 1, row == h - 1, d1, d2);
        sum -= own * (d1 + d2);
        if (col > 0) {
          const float left = power(at + k - c, false, row == h - 1, d1, d2);
          sum += left * d1;
        }
        if (row > 0) {
          const float above = power(at + k - w * c, col == w - 1, false, d1, d2);
          sum += above * d2;
        }
      }
      to[k] += prior.sign * (pull * at[k] + prior.tv_weight * prior.beta * sum);
    }
  }
};

struct MomentumPixel {
  MomentumRule rule;
  int64_t c;
  float *x, *momentum, *squares;
  const float* g;
  SB_HOST_DEVICE void operator()(int64_t pixel) const {
    float norm = 0.f;
    for (int64_t i = pixel * c; i < (pixel + 1) * c; ++i) {
      squares[i] = rule.keep * squares[i] + g[i] * g[i];
      momentum[i] = rule.keep * momentum[i] + g[i] / (1.f / rule.rate + sqrtf(squares[i]));
      x[i] = x[i] + momentum[i];
      norm += x[i] * x[i];
    }
    norm = sqrtf(norm);
    if (norm > rule.most)
      for (int64_t i = pixel * c; i < (pixel + 1) * c; ++i) x[i] = x[i] * (rule.most / norm);
  }
};

// What a pixel's place among the small ones is decided by.
SB_HOST_DEVICE inline float pixel_score(SmallPixels::By by, int64_t c, const float* x, const float* g) {
  float sum = 0.f;
  if (by == SmallPixels::By::norm) {
    for (int64_t k = 0; k < c; ++k) sum += x[k] * x[k];
    return sqrtf(sum);
  }
  for (int64_t k = 0; k < c; ++k) sum += x[k] * g[k];
  return fabsf(sum);
}
// numpy.percentile of `count` values: between order statistics `lower` and the next one, `share` of the way.
struct Rank {
  int64_t lower;
  float share;
};
SB_HOST_DEVICE inline Rank rank_of(double percentile, int64_t count) {
  const double place = percentile / 100 * double(count - 1);
  const int64_t lower = int64_t(place);
  return {lower, float(place - double(lower))};
}

// ---- transform

struct AffineForward {
  int64_t h, w, c, out_h, out_w, per;  // per: outputs of each image
  const float *x, *maps, *fill;
  float* y;
  SB_HOST_DEVICE void operator()(int64_t pixel) const {
    const int64_t j = pixel % out_w, i = pixel / out_w % out_h, n = pixel / (out_w * out_h);
    const float* m = maps + 6 * n;
    const float row = m[0] * float(i) + m[1] * float(j) + m[2], col = m[3] * float(i) + m[4] * float(j) + m[5];
    const float top = floorf(row), left = floorf(col), down = row - top, right = col - left;
    const int64_t r = int64_t(top), q = int64_t(left);
    const float weights[4] = {(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right};
    float* to = y + pixel * c;
    for (int64_t k = 0; k < c; ++k) {
      float sum = 0.f;
      for (int t = 0; t < 4; ++t) {
        const int64_t a = r + t / 2, b = q + t % 2;
        const bool inside = a >= 0 && a < h && b >= 0 && b < w;
        sum += weights[t] * (inside ? x[((n / per * h + a) * w + b) * c + k] : fill[k]);
      }
      to[k] = sum;
    }
  }
};

// The same sums from the other side: a place of x gathers from the outputs whose source lies less than a pixel away.
struct AffineBackward {
  int64_t h, w, c, out_h, out_w, per;
  bool add;
  const float *dy, *maps;
  float* dx;
  SB_HOST_DEVICE static float weight(float from, int64_t to) {
    const float low = floorf(from), part = from - low;
    return int64_t(low) == to ? 1 - part : int64_t(low) + 1 == to ? part : 0.f;
  }
  SB_HOST_DEVICE void operator()(int64_t pixel) const {
    const int64_t b = pixel % w, a = pixel / w % h, n = pixel / (w * h);
    float* to = dx + pixel * c;
    for (int64_t k = 0; k < c && !add; ++k) to[k] = 0.f;
    for (int64_t output = n * per; output < (n + 1) * per; ++output) gather(a, b, output, to);
  }
  SB_HOST_DEVICE void gather(int64_t a, int64_t b, int64_t n, float* to) const {
    const float* m = maps + 6 * n;
    // The outputs around the one that (a, b) is the source of: within ±1 of it in the source, so within ±reach here.
    const float det = m[0] * m[4] - m[1] * m[3], p = float(a) - m[2], q = float(b) - m[5];
    const float i0 = (m[4] * p - m[1] * q) / det, j0 = (m[0] * q - m[3] * p) / det;
    const float reach_i = (fabsf(m[4]) + fabsf(m[1])) / fabsf(det) + 0.01f;
    const float reach_j = (fabsf(m[0]) + fabsf(m[3])) / fabsf(det) + 0.01f;
    const int64_t first_i = i0 - reach_i > 0.f ? int64_t(ceilf(i0 - reach_i)) : 0;
    const int64_t first_j = j0 - reach_j > 0.f ? int64_t(ceilf(j0 - reach_j)) : 0;
    for (int64_t i = first_i; i < out_h && float(i) <= i0 + reach_i; ++i)
      for (int64_t j = first_j; j < out_w && float(j) <= j0 + reach_j; ++j) {
        const float row = m[0] * float(i) + m[1] * float(j) + m[2], col = m[3] * float(i) + m[4] * float(j) + m[5];
        const float v = weight(row, a) * weight(col, b);
        if (v == 0.f) continue;
        const float* from = dy + ((n * out_h + i) * out_w + j) * c;
        for (int64_t k = 0; k < c; ++k) to[k] += v * from[k];
      }
  }
};

// cos and sin within 1e-7 or so for |x| up to some thousands: quarter turns are taken off in three parts, the rest is within
// ±π/4 (Cephes). CUDA's own keep a table in local memory for what is larger.
SB_HOST_DEVICE inline void cosine_sine(float x, float& cosine, float& sine) {
  const float quarters = floorf(x * 0.636619772f + 0.5f);
  const float r = ((x - quarters * 1.5703125f) - quarters * 4.837512969970703125e-4f) - quarters * 7.54978995489188216e-8f;
  const float z = r * r;
  const float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
  const float c = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.f;
  const int q = int(quarters) & 3;
  const float first = q % 2 == 0 ? c : s, second = q % 2 == 0 ? s : c;
  cosine = q == 1 || q == 2 ? -first : first;
  sine = q >= 2 ? -second : second;
}

// One coefficient of `count` in an item: its phase, and its real and imaginary parts, `count` apart.
struct PolarForward {
  int64_t count;
  const float *magnitude, *phase;
  float* y;
  SB_HOST_DEVICE void operator()(int64_t i) const {
    const int64_t n = i / count, e = i % count;
    float cosine, sine, *to = y + 2 * n * count + e;
    cosine_sine(phase[i], cosine, sine);
    to[0] = magnitude[e] * cosine;
    to[count] = magnitude[e] * sine;
  }
};
struct PolarBackward {
  int64_t count;
  const float *magnitude, *phase, *dy;
  float* dphase;
  SB_HOST_DEVICE void operator()(int64_t i) const {
    const int64_t n = i / count, e = i % count;
    const float* from = dy + 2 * n * count + e;
    float cosine, sine;
    cosine_sine(phase[i], cosine, sine);
    dphase[i] = magnitude[e] * (cosine * from[count] - sine * from[0]);
  }
};

// One pixel, all channels; z is planar within a row ([n,h,c,w]) or NHWC.
SB_HOST_DEVICE inline float sigmoid_of(float v) { return 1.f / (1.f + expf(-v)); }
struct ColoursForward {
  Colours colours;
  int64_t w, c;
  bool rows;  // z is [n,h,c,w]
  const float* z;
  float* y;
  SB_HOST_DEVICE int64_t place(int64_t pixel, int64_t k) const {
    return rows ? (pixel / w * c + k) * w + pixel % w : pixel * c + k;
  }
  SB_HOST_DEVICE void operator()(int64_t pixel) const {
    for (int64_t k = 0; k < c; ++k) {
      float sum = colours.matrix ? 0.f : z[place(pixel, k)];
      for (int64_t d = 0; d < c && colours.matrix; ++d) sum += colours.matrix[k * c + d] * z[place(pixel, d)];
      if (colours.sigmoid) sum = sigmoid_of(sum);
      y[pixel * c + k] = colours.scale[k] * sum + colours.offset[k];
    }
  }
};
struct ColoursBackward {
  Colours colours;
  int64_t w, c;
  bool rows;
  const float *z, *dy;
  float* dz;
  SB_HOST_DEVICE int64_t place(int64_t pixel, int64_t k) const {
    return rows ? (pixel / w * c + k) * w + pixel % w : pixel * c + k;
  }
  SB_HOST_DEVICE void operator()(int64_t pixel) const {
    for (int64_t d = 0; d < c; ++d) dz[place(pixel, d)] = 0.f;
    for (int64_t k = 0; k < c; ++k) {
      float g = colours.scale[k] * dy[pixel * c + k];
      if (colours.sigmoid) {
        float sum = colours.matrix ? 0.f : z[place(pixel, k)];
        for (int64_t d = 0; d < c && colours.matrix; ++d) sum += colours.matrix[k * c + d] * z[place(pixel, d)];
        const float s = sigmoid_of(sum);
        g *= s * (1.f - s);
      }
      if (!colours.matrix) dz[place(pixel, k)] = g;
      for (int64_t d = 0; d < c && colours.matrix; ++d) dz[place(pixel, d)] += colours.matrix[k * c + d] * g;
    }
  }
};

}  // namespace switchback::image_math
