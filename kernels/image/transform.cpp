// Compiled with -ffp-contract=off: see image_math.h.
#include "kernels/image/transform.h"

#include <algorithm>
#include <cmath>

#include "kernels/attention/matrices.h"
#include "kernels/device/device_ops.h"
#include "kernels/exp8.h"
#include "kernels/image/each.h"
#include "kernels/image/image_math.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"
#include "kernels/sliding.h"
#include "kernels/view_check.h"

namespace switchback {
namespace {

void check_maps(const char* op, ConstView x, ConstView y) {
  check_view(op, "x", x, x.shape, DType::f32);
  check_view(op, "y", y, {y.shape.n, x.shape.c, y.shape.h, y.shape.w}, DType::f32);
  CHECK(x.shape.n > 0 && y.shape.n % x.shape.n == 0, "{}: {} places in {} images", op, y.shape.n, x.shape.n);
}

constexpr int64_t kRows = 6;  // of a register tile of a product

// The last columns of `Rows` rows of c, fewer than kMatrixColumns. Each element is summed in the order of k, as elsewhere.
template <int Rows>
void last_columns(const MatrixProduct& p, const float* a, const float* b, float* c, int columns) {
  const int left = std::min(columns, 8), right = columns - left;
  F8 sums[Rows][2];
  for (int i = 0; i < Rows; ++i) sums[i][0] = sums[i][1] = _mm256_setzero_ps();
  for (int64_t l = 0; l < p.k; ++l) {
    const F8 first = load8(b + l * p.n, left), second = right > 0 ? load8(b + l * p.n + 8, right) : _mm256_setzero_ps();
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i) {
      const F8 v = _mm256_set1_ps(a[i * p.k + l]);
      sums[i][0] = _mm256_fmadd_ps(v, first, sums[i][0]);
      sums[i][1] = _mm256_fmadd_ps(v, second, sums[i][1]);
    }
  }
  const auto finish = [&](float* to, F8 sum, int lanes) { store8(to, p.add ? _mm256_add_ps(load8(to, lanes), sum) : sum, lanes); };
  for (int i = 0; i < Rows; ++i) {
    finish(c + i * p.n, sums[i][0], left);
    if (right > 0) finish(c + i * p.n + 8, sums[i][1], right);
  }
}

// `rows` rows of c, kRows at most.
void product_rows(const MatrixProduct& p, const float* a, const float* b, float* c, int64_t rows) {
  const int64_t whole = p.n / kMatrixColumns * kMatrixColumns;
  const int rest = int(p.n - whole);
  if (whole > 0) padded_product()(rows, whole, p.k, a, p.k, b, p.n, c, p.n, p.add);
  if (rest == 0) return;
  if (rows == kRows) return last_columns<kRows>(p, a, b + whole, c + whole, rest);
  for (int64_t i = 0; i < rows; ++i) last_columns<1>(p, a + i * p.k, b + whole, c + i * p.n + whole, rest);
}

// Row `line` of all outputs; the sums of AffineForward. C: channels, 0: any number.
template <int C>
void affine_row(const image_math::AffineForward& a, int64_t line) {
  const int64_t c = C > 0 ? C : a.c, n = line / a.out_h, i = line % a.out_h;
  const float* m = a.maps + 6 * n;
  const float* image = a.x + n / a.per * a.h * a.w * c;
  float* to = a.y + line * a.out_w * c;
  for (int64_t j = 0; j < a.out_w; ++j, to += c) {
    const float row = m[0] * float(i) + m[1] * float(j) + m[2], col = m[3] * float(i) + m[4] * float(j) + m[5];
    const float top = std::floor(row), left = std::floor(col), down = row - top, right = col - left;
    const auto r = int64_t(top), q = int64_t(left);
    if (r < 0 || r + 1 >= a.h || q < 0 || q + 1 >= a.w) {
      a(line * a.out_w + j);
      continue;
    }
    const float weights[4] = {(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right};
    const float *above = image + (r * a.w + q) * c, *below = above + a.w * c;
    for (int64_t k = 0; k < c; ++k)
      to[k] = weights[0] * above[k] + weights[1] * above[c + k] + weights[2] * below[k] + weights[3] * below[c + k];
  }
}

// Rows first … last of an image: what the output n gave to each place comes back, in the order of its places, as
// AffineBackward gathers it.
template <int C>
void affine_band(const image_math::AffineBackward& a, int64_t n, int64_t first, int64_t last) {
  const int64_t c = C > 0 ? C : a.c;
  const float* m = a.maps + 6 * n;
  float* image = a.dx + n / a.per * a.h * a.w * c;
  for (int64_t i = 0; i < a.out_h; ++i) {
    // The outputs of this row that may reach the band: row is a straight line in j.
    const float base = m[0] * float(i) + m[2], low = float(first) - 1.5f - base, high = float(last) + 0.5f - base;
    int64_t begin = 0, end = a.out_w;
    if (std::abs(m[1]) > 1e-6f) {
      const auto [least, most] = std::minmax({low / m[1], high / m[1]});
      begin = int64_t(std::clamp(std::floor(least) - 1, 0.f, float(a.out_w)));
      end = int64_t(std::clamp(std::ceil(most) + 1, 0.f, float(a.out_w)));
    } else if (low > 0.1f || high < -0.1f) {
      continue;
    }
    const float* from = a.dy + ((n * a.out_h + i) * a.out_w + begin) * c;
    for (int64_t j = begin; j < end; ++j, from += c) {
      const float row = m[0] * float(i) + m[1] * float(j) + m[2], col = m[3] * float(i) + m[4] * float(j) + m[5];
      const float top = std::floor(row), left = std::floor(col), down = row - top, right = col - left;
      const auto r = int64_t(top), q = int64_t(left);
      for (int64_t y = std::max(r, first); y <= r + 1 && y < last; ++y)
        for (int64_t x = std::max(q, int64_t{0}); x <= q + 1 && x < a.w; ++x) {
          const float v = (y == r ? 1 - down : down) * (x == q ? 1 - right : right);
          float* to = image + (y * a.w + x) * c;
          for (int64_t k = 0; k < c; ++k) to[k] += v * from[k];
        }
    }
  }
}

// Sums over the three axes of a colour, eight pixels of a row at once.
struct Rows3 {
  const Colours& colours;
  const float* z[3];
  int lanes;
  SB_INLINE F8 sum(int64_t p, int k) const {
    const float* m = colours.matrix + 3 * k;
    F8 all = _mm256_mul_ps(_mm256_set1_ps(m[0]), load8(z[0] + p, lanes));
    all = _mm256_fmadd_ps(_mm256_set1_ps(m[1]), load8(z[1] + p, lanes), all);
    return _mm256_fmadd_ps(_mm256_set1_ps(m[2]), load8(z[2] + p, lanes), all);
  }
};

// Rows of [n,h,3,w] to NHWC and back, behind a sigmoid: lucid's images.
void colour_rows(const Colours& colours, int64_t w, int64_t first, int64_t last, const float* z, float* y) {
  for (int64_t line = first; line < last; ++line) {
    const float* row = z + line * 3 * w;
    for (int64_t p = 0; p < w; p += 8) {
      const int lanes = int(std::min<int64_t>(8, w - p));
      const Rows3 rows{colours, {row, row + w, row + 2 * w}, lanes};
      for (int k = 0; k < 3; ++k) {
        alignas(32) float values[8];
        _mm256_store_ps(values, _mm256_fmadd_ps(_mm256_set1_ps(colours.scale[k]), sigmoid8(rows.sum(p, k)),
                                                _mm256_set1_ps(colours.offset[k])));
        for (int i = 0; i < lanes; ++i) y[(line * w + p + i) * 3 + k] = values[i];
      }
    }
  }
}
void colour_rows_backward(const Colours& colours, int64_t w, int64_t first, int64_t last, const float* z, const float* dy,
                          float* dz) {
  for (int64_t line = first; line < last; ++line) {
    const float* row = z + line * 3 * w;
    for (int64_t p = 0; p < w; p += 8) {
      const int lanes = int(std::min<int64_t>(8, w - p));
      const Rows3 rows{colours, {row, row + w, row + 2 * w}, lanes};
      F8 back[3] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
      for (int k = 0; k < 3; ++k) {
        alignas(32) float values[8] = {};
        for (int i = 0; i < lanes; ++i) values[i] = dy[(line * w + p + i) * 3 + k];
        const F8 slope = sigmoid_slope8(rows.sum(p, k));
        const F8 g = _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(colours.scale[k]), _mm256_load_ps(values)), slope);
        for (int d = 0; d < 3; ++d) back[d] = _mm256_fmadd_ps(_mm256_set1_ps(colours.matrix[3 * k + d]), g, back[d]);
      }
      for (int d = 0; d < 3; ++d) store8(dz + (line * 3 + d) * w + p, back[d], lanes);
    }
  }
}

}  // namespace

void affine_forward(Context& ctx, const float* maps, const float* fill, ConstView x, View y) {
  check_maps("affine_forward", x, y);
  if (ctx.gpu) return ctx.gpu->ops->affine_forward(ctx, maps, fill, x, y);
  const Shape s = x.shape, o = y.shape;
  const image_math::AffineForward a{s.h, s.w, s.c, o.h, o.w, o.n / s.n, x.as<float>(), maps, fill, y.as<float>()};
  parallel_ranges(ctx, o.n * o.h, 8 * o.w * s.c, [=](int64_t first, int64_t last) {
    for (int64_t line = first; line < last; ++line) a.c == 3 ? affine_row<3>(a, line) : affine_row<0>(a, line);
  });
}

void affine_backward(Context& ctx, const float* maps, ConstView dy, View dx, bool add) {
  check_maps("affine_backward", dx, dy);
  if (ctx.gpu) return ctx.gpu->ops->affine_backward(ctx, maps, dy, dx, add);
  const Shape s = dx.shape, o = dy.shape;
  const image_math::AffineBackward a{s.h, s.w, s.c, o.h, o.w, o.n / s.n, add, dy.as<float>(), maps, dx.as<float>()};
  parallel_ranges(ctx, s.n * s.h, 8 * a.per * s.w * s.c, [=](int64_t first, int64_t last) {
    while (first < last) {
      const int64_t n = first / a.h, row = first % a.h, end = std::min(a.h, row + last - first);
      if (!add) std::fill(a.dx + first * a.w * a.c, a.dx + (first + end - row) * a.w * a.c, 0.f);
      for (int64_t output = n * a.per; output < (n + 1) * a.per; ++output)
        a.c == 3 ? affine_band<3>(a, output, row, end) : affine_band<0>(a, output, row, end);
      first += end - row;
    }
  });
}

void polar_forward(Context& ctx, const float* magnitude, int64_t n, int64_t count, const float* phase, float* y) {
  if (ctx.gpu) return ctx.gpu->ops->polar_forward(ctx, magnitude, n, count, phase, y);
  for_each(ctx, n * count, 20, image_math::PolarForward{count, magnitude, phase, y});
}

void polar_backward(Context& ctx, const float* magnitude, int64_t n, int64_t count, const float* phase, const float* dy,
                    float* dphase) {
  if (ctx.gpu) return ctx.gpu->ops->polar_backward(ctx, magnitude, n, count, phase, dy, dphase);
  for_each(ctx, n * count, 20, image_math::PolarBackward{count, magnitude, phase, dy, dphase});
}

// y = scale·x + offset of each channel, NHWC; offset null: 0. Channels repeat every `period` numbers, which is a multiple of
// their count that vectors fill.
static void scale_channels(Context& ctx, const float* scale, const float* offset, Shape s, const float* x, float* y) {
  constexpr int64_t kLanes = 16, kMost = 8;
  float scales[kLanes * kMost], offsets[kLanes * kMost];
  const int64_t period = kLanes * s.c;
  for (int64_t i = 0; i < period; ++i) scales[i] = scale[i % s.c], offsets[i] = offset ? offset[i % s.c] : 0.f;
  parallel_ranges(ctx, ceil_div(s.count(), period), period, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t at = block * period, n = std::min(period, s.count() - at);
      for (int64_t i = 0; i < n; ++i) y[at + i] = scales[i] * x[at + i] + offsets[i];
    }
  });
}
static bool by_channels(const Colours& colours, bool rows, Shape s) { return !colours.matrix && !colours.sigmoid && !rows && s.c <= 8; }

void colours_forward(Context& ctx, const Colours& colours, bool rows, ConstView z, View y) {
  check_same("colours_forward", z, y);
  check_view("colours_forward", "z", z, z.shape, DType::f32);
  if (ctx.gpu) return ctx.gpu->ops->colours_forward(ctx, colours, rows, z, y);
  const Shape s = z.shape;
  if (by_channels(colours, rows, s)) return scale_channels(ctx, colours.scale, colours.offset, s, z.as<float>(), y.as<float>());
  if (rows && colours.sigmoid && s.c == 3 && colours.matrix)
    return parallel_ranges(ctx, s.n * s.h, 30 * s.w, [=](int64_t first, int64_t last) {
      colour_rows(colours, s.w, first, last, z.as<float>(), y.as<float>());
    });
  for_each(ctx, s.pixels(), 10 * s.c, image_math::ColoursForward{colours, s.w, s.c, rows, z.as<float>(), y.as<float>()});
}

void colours_backward(Context& ctx, const Colours& colours, bool rows, ConstView z, ConstView dy, View dz) {
  check_same("colours_backward", z, dy);
  check_same("colours_backward", z, dz);
  check_view("colours_backward", "z", z, z.shape, DType::f32);
  if (ctx.gpu) return ctx.gpu->ops->colours_backward(ctx, colours, rows, z, dy, dz);
  const Shape s = z.shape;
  if (by_channels(colours, rows, s)) return scale_channels(ctx, colours.scale, nullptr, s, dy.as<float>(), dz.as<float>());
  if (rows && colours.sigmoid && s.c == 3 && colours.matrix)
    return parallel_ranges(ctx, s.n * s.h, 60 * s.w, [=](int64_t first, int64_t last) {
      colour_rows_backward(colours, s.w, first, last, z.as<float>(), dy.as<float>(), dz.as<float>());
    });
  for_each(ctx, s.pixels(), 10 * s.c,
           image_math::ColoursBackward{colours, s.w, s.c, rows, z.as<float>(), dy.as<float>(), dz.as<float>()});
}

void matrix_product(Context& ctx, const MatrixProduct& p, const float* a, const float* b, float* c) {
  CHECK(p.batch >= 0 && p.m > 0 && p.n > 0 && p.k > 0, "matrix_product: [{},{}] by [{},{}]", p.m, p.k, p.k, p.n);
  if (ctx.gpu) return ctx.gpu->ops->matrix_product(ctx, p, a, b, c);
  const int64_t down = ceil_div(p.m, kRows);
  parallel_ranges(ctx, p.batch * down, kRows * p.n * p.k, [=](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      const int64_t item = t / down, row = t % down * kRows;
      product_rows(p, a + item * p.a_step + row * p.k, b + item * p.b_step, c + item * p.c_step + row * p.n,
                   std::min(kRows, p.m - row));
    }
  });
}

}  // namespace switchback
