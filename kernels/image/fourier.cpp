#include "kernels/image/fourier.h"

#include <algorithm>
#include <cmath>

#include "kernels/image/priors.h"
#include "kernels/image/transform.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"
#include "kernels/sliding.h"

namespace switchback {
namespace {

// Eight complex numbers, of as many lines.
struct Complex8 {
  F8 re, im;
};
SB_INLINE Complex8 operator+(Complex8 a, Complex8 b) { return {_mm256_add_ps(a.re, b.re), _mm256_add_ps(a.im, b.im)}; }
SB_INLINE Complex8 operator-(Complex8 a, Complex8 b) { return {_mm256_sub_ps(a.re, b.re), _mm256_sub_ps(a.im, b.im)}; }
SB_INLINE F8 negated(F8 v) { return _mm256_sub_ps(_mm256_setzero_ps(), v); }
SB_INLINE Complex8 swapped(Complex8 a) { return {a.im, a.re}; }

struct Turn {  // e^(iφ)
  float cosine, sine;
};
SB_INLINE Complex8 turned(Complex8 a, Turn t) {
  const F8 c = _mm256_set1_ps(t.cosine), s = _mm256_set1_ps(t.sine);
  return {_mm256_fmsub_ps(a.re, c, _mm256_mul_ps(a.im, s)), _mm256_fmadd_ps(a.re, s, _mm256_mul_ps(a.im, c))};
}

// y[k] = Σ_u x[u]·e^(2πi·u·k/n), of eight lines side by side: Stockham's passes, a radix each. The transform with −i is that
// of numbers whose parts are swapped, before and afterwards.
class Lines {
 public:
  explicit Lines(int64_t n) : n_(n), x_(size_t(n)), y_(size_t(n)) {
    for (int64_t k = 0; k < n; ++k) {
      const double angle = 2 * M_PI * double(k) / double(n);
      turns_.push_back({float(std::cos(angle)), float(std::sin(angle))});
    }
    int64_t rest = n;
    for (const int64_t radix : {4, 2, 3, 5})
      for (; rest % radix == 0; rest /= radix) radices_.push_back(radix);
    for (int64_t radix = 7; rest > 1; radix += 2)
      for (; rest % radix == 0; rest /= radix) radices_.push_back(radix);
  }
  Complex8& operator[](int64_t i) { return x_[size_t(i)]; }
  void run() {
    int64_t stride = 1;
    for (const int64_t radix : radices_) {
      if (radix == 4) pass4(stride);
      else if (radix == 2) pass2(stride);
      else if (radix == 3) odd_pass<3>(3, stride);
      else if (radix == 5) odd_pass<5>(5, stride);
      else if (radix == 7) odd_pass<7>(7, stride);
      else odd_pass<0>(radix, stride);
      stride *= radix;
      std::swap(x_, y_);
    }
  }

 private:
  // In a pass of radix r, part p of n / stride / r: inputs lie `apart`, outputs follow each other, `stride` numbers each.
  void pass2(int64_t stride) {
    const int64_t parts = n_ / stride / 2, apart = stride * parts;
    for (int64_t p = 0; p < parts; ++p) {
      const Turn turn = turns_[size_t(p * stride)];
      const Complex8* from = x_.data() + stride * p;
      Complex8* to = y_.data() + stride * 2 * p;
      for (int64_t q = 0; q < stride; ++q) {
        const Complex8 a = from[q], b = from[q + apart];
        to[q] = a + b;
        to[q + stride] = turned(a - b, turn);
      }
    }
  }
  void pass4(int64_t stride) {
    const int64_t parts = n_ / stride / 4, apart = stride * parts;
    for (int64_t p = 0; p < parts; ++p) {
      const Turn one = turns_[size_t(p * stride)], two = turns_[size_t(2 * p * stride)], three = turns_[size_t(3 * p * stride)];
      const Complex8* from = x_.data() + stride * p;
      Complex8* to = y_.data() + stride * 4 * p;
      for (int64_t q = 0; q < stride; ++q) {
        const Complex8 a = from[q], b = from[q + apart], c = from[q + 2 * apart], d = from[q + 3 * apart];
        const Complex8 even = a + c, odd = a - c, sum = b + d, left = b - d, across{negated(left.im), left.re};
        to[q] = even + sum;
        to[q + stride] = turned(odd + across, one);
        to[q + 2 * stride] = turned(even - sum, two);
        to[q + 3 * stride] = turned(odd - across, three);
      }
    }
  }
  // Inputs k and r − k go together: Σ_k cos·(a_k + a_{r−k}) ± i·Σ_k sin·(a_k − a_{r−k}).
  template <int Radix>
  void odd_pass(int64_t radix, int64_t stride) {
    const int64_t r = Radix > 0 ? Radix : radix, half = r / 2, parts = n_ / stride / r, apart = stride * parts, step = n_ / r;
    std::vector<Complex8> pairs(size_t(2 * half));
    Complex8 *sums = pairs.data(), *differences = sums + half;
    for (int64_t p = 0; p < parts; ++p) {
      const Complex8* from = x_.data() + stride * p;
      Complex8* to = y_.data() + stride * r * p;
      for (int64_t q = 0; q < stride; ++q) {
        const Complex8 first = from[q];
        Complex8 all = first;
        for (int64_t k = 0; k < half; ++k) {
          const Complex8 a = from[q + (k + 1) * apart], b = from[q + (r - 1 - k) * apart];
          sums[k] = a + b, differences[k] = a - b;
          all = all + sums[k];
        }
        to[q] = all;
        for (int64_t j = 1; j <= half; ++j) {
          Complex8 even = first, odd{_mm256_setzero_ps(), _mm256_setzero_ps()};
          for (int64_t k = 0, at = j; k < half; ++k, at = (at + j) % r) {
            const Turn t = turns_[size_t(at * step)];
            const F8 c = _mm256_set1_ps(t.cosine), s = _mm256_set1_ps(t.sine);
            even = {_mm256_fmadd_ps(c, sums[k].re, even.re), _mm256_fmadd_ps(c, sums[k].im, even.im)};
            odd = {_mm256_fnmadd_ps(s, differences[k].im, odd.re), _mm256_fmadd_ps(s, differences[k].re, odd.im)};
          }
          to[q + j * stride] = turned(even + odd, turns_[size_t(p * stride * j)]);
          to[q + (r - j) * stride] = turned(even - odd, turns_[size_t(p * stride * (r - j))]);
        }
      }
    }
  }

  int64_t n_;
  std::vector<int64_t> radices_;
  std::vector<Turn> turns_;
  std::vector<Complex8> x_, y_;
};

// Eight rows of eight become eight columns.
SB_INLINE void turn_square(F8 (&v)[8]) {
  F8 a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
  for (int j = 0; j < 4; ++j) {
    v[j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x20);
    v[4 + j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x31);
  }
}

// columns[0 … 8) of eight rows, of which `rows` are there; they lie `stride` apart, each has `lanes` numbers left.
SB_INLINE void load_columns(const float* from, int64_t stride, int64_t rows, int lanes, F8 (&columns)[8]) {
  for (int64_t i = 0; i < 8; ++i) columns[i] = i < rows ? load8(from + i * stride, lanes) : _mm256_setzero_ps();
  turn_square(columns);
}
SB_INLINE void store_columns(float* to, int64_t stride, int64_t rows, int lanes, F8 (&columns)[8]) {
  turn_square(columns);
  for (int64_t i = 0; i < std::min<int64_t>(8, rows); ++i) store8(to + i * stride, columns[i], lanes);
}

int lanes_from(int64_t at, int64_t count) { return int(std::min<int64_t>(8, count - at)); }

// Along h: `across` columns of both parts, eight at a time. Forward multiplies first, backward afterwards.
void along_columns(Context& ctx, int64_t n, int64_t h, int64_t across, const float* factors, bool back, const float* from, float* to) {
  const int64_t blocks = ceil_div(across, int64_t{8}), part = h * across;
  parallel_ranges(ctx, n * blocks, 8 * h * 10, [=](int64_t first, int64_t last) {
    Lines lines(h);
    for (int64_t b = first; b < last; ++b) {
      const int64_t begin = b / blocks * 2 * part, column = b % blocks * 8;
      const int lanes = lanes_from(column, across);
      const auto factor = [&](int64_t at, F8 v) { return factors ? _mm256_mul_ps(v, load8(factors + at, lanes)) : v; };
      for (int64_t u = 0; u < h; ++u) {
        const int64_t at = u * across + column;
        Complex8 v{load8(from + begin + at, lanes), load8(from + begin + part + at, lanes)};
        if (!back) v = {factor(at, v.re), factor(part + at, v.im)};
        lines[u] = back ? swapped(v) : v;
      }
      lines.run();
      for (int64_t k = 0; k < h; ++k) {
        const int64_t at = k * across + column;
        Complex8 v = lines[k];
        if (back) v = {factor(at, v.im), factor(part + at, v.re)};
        store8(to + begin + at, v.re, lanes);
        store8(to + begin + part + at, v.im, lanes);
      }
    }
  });
}

// Along w: sixteen rows at a time, of which two and two are the parts of one complex row.
constexpr int64_t kGroup = 16;

void rows_forward(Context& ctx, int64_t n, int64_t rows, int64_t w, float scale, const float* coefficients, float* planes) {
  const int64_t f = w / 2 + 1, groups = ceil_div(rows, kGroup), part = rows * f;
  parallel_ranges(ctx, n * groups, kGroup * w * 10, [=](int64_t first, int64_t last) {
    Lines lines(w);
    const F8 by = _mm256_set1_ps(scale), zero = _mm256_setzero_ps();
    for (int64_t g = first; g < last; ++g) {
      const int64_t row = g % groups * kGroup, left = rows - row;
      const float* from = coefficients + g / groups * 2 * part + row * f;
      for (int64_t v = 0; v < f; v += 8) {
        const int lanes = lanes_from(v, f);
        F8 a_re[8], a_im[8], b_re[8], b_im[8];
        load_columns(from + v, f, left, lanes, a_re);
        load_columns(from + part + v, f, left, lanes, a_im);
        load_columns(from + 8 * f + v, f, left - 8, lanes, b_re);
        load_columns(from + part + 8 * f + v, f, left - 8, lanes, b_im);
        for (int i = 0; i < lanes; ++i) {
          const int64_t at = v + i;
          if (at == 0 || 2 * at == w) a_im[i] = b_im[i] = zero;
          // a + i·b, and at the opposite frequency the conjugates'.
          lines[at] = {_mm256_sub_ps(a_re[i], b_im[i]), _mm256_add_ps(a_im[i], b_re[i])};
          if (at > 0) lines[w - at] = {_mm256_add_ps(a_re[i], b_im[i]), _mm256_sub_ps(b_re[i], a_im[i])};
        }
      }
      lines.run();
      float* to = planes + (g / groups * rows + row) * w;
      for (int64_t j = 0; j < w; j += 8) {
        const int lanes = lanes_from(j, w);
        F8 a[8] = {}, b[8] = {};
        for (int i = 0; i < lanes; ++i) a[i] = _mm256_mul_ps(lines[j + i].re, by), b[i] = _mm256_mul_ps(lines[j + i].im, by);
        store_columns(to + j, w, left, lanes, a);
        store_columns(to + 8 * w + j, w, left - 8, lanes, b);
      }
    }
  });
}

void rows_backward(Context& ctx, int64_t n, int64_t rows, int64_t w, float scale, const float* dplanes, float* dcoefficients) {
  const int64_t f = w / 2 + 1, groups = ceil_div(rows, kGroup), part = rows * f;
  parallel_ranges(ctx, n * groups, kGroup * w * 10, [=](int64_t first, int64_t last) {
    Lines lines(w);
    for (int64_t g = first; g < last; ++g) {
      const int64_t row = g % groups * kGroup, left = rows - row;
      const float* from = dplanes + (g / groups * rows + row) * w;
      for (int64_t j = 0; j < w; j += 8) {
        const int lanes = lanes_from(j, w);
        F8 a[8], b[8];
        load_columns(from + j, w, left, lanes, a);
        load_columns(from + 8 * w + j, w, left - 8, lanes, b);
        for (int i = 0; i < lanes; ++i) lines[j + i] = {b[i], a[i]};  // swapped
      }
      lines.run();
      float* to = dcoefficients + g / groups * 2 * part + row * f;
      for (int64_t v = 0; v < f; v += 8) {
        const int lanes = lanes_from(v, f);
        F8 a_re[8] = {}, a_im[8] = {}, b_re[8] = {}, b_im[8] = {};
        for (int i = 0; i < lanes; ++i) {
          const int64_t at = v + i;
          const F8 by = _mm256_set1_ps((at == 0 || 2 * at == w ? 0.5f : 1.f) * scale);
          const Complex8 z = swapped(lines[at]), other = swapped(lines[at == 0 ? 0 : w - at]);
          a_re[i] = _mm256_mul_ps(by, _mm256_add_ps(z.re, other.re));
          a_im[i] = _mm256_mul_ps(by, _mm256_sub_ps(z.im, other.im));
          b_re[i] = _mm256_mul_ps(by, _mm256_add_ps(z.im, other.im));
          b_im[i] = _mm256_mul_ps(by, _mm256_sub_ps(other.re, z.re));
        }
        store_columns(to + v, f, left, lanes, a_re);
        store_columns(to + part + v, f, left, lanes, a_im);
        store_columns(to + 8 * f + v, f, left - 8, lanes, b_re);
        store_columns(to + part + 8 * f + v, f, left - 8, lanes, b_im);
      }
    }
  });
}

}  // namespace

InverseFourier::InverseFourier(Context& ctx, int64_t h, int64_t w, int64_t c, double scale)
    : ctx_(ctx), h_(h), w_(w), c_(c), f_(w / 2 + 1), scale_(float(scale / double(h * w))) {
  CHECK(h > 0 && w > 0 && c > 0, "Fourier coefficients of {}x{}", h, w);
  if (!ctx.gpu) return;
  // Two products: along the columns on stacked real and imaginary parts, then along the rows.
  std::vector<float> rows(size_t(4 * h * h)), rows_back(rows.size()), tables[4];
  for (int64_t k = 0; k < h; ++k)
    for (int64_t u = 0; u < h; ++u) {
      const double angle = 2 * M_PI * double(k * u % h) / double(h), co = std::cos(angle), si = std::sin(angle);
      const double values[2][2] = {{co, -si}, {si, co}};
      for (int64_t a = 0; a < 2; ++a)
        for (int64_t b = 0; b < 2; ++b) {
          rows[size_t((a * h + k) * 2 * h + b * h + u)] = float(values[a][b]);
          rows_back[size_t((b * h + u) * 2 * h + a * h + k)] = float(values[a][b]);
        }
    }
  for (std::vector<float>& t : tables) t.resize(size_t(f_ * w));
  for (int64_t v = 0; v < f_; ++v)
    for (int64_t j = 0; j < w; ++j) {
      const double angle = 2 * M_PI * double(v * j % w) / double(w);
      const double twice = (v == 0 || 2 * v == w ? 1.0 : 2.0) * scale / double(h * w);
      tables[0][size_t(v * w + j)] = tables[2][size_t(j * f_ + v)] = float(twice * std::cos(angle));
      tables[1][size_t(v * w + j)] = tables[3][size_t(j * f_ + v)] = float(-twice * std::sin(angle));
    }
  std::vector<float> joined;
  std::vector<size_t> begins;
  for (const std::vector<float>* t : {&rows, &rows_back, &tables[0], &tables[1], &tables[2], &tables[3]}) {
    begins.push_back(joined.size());
    joined.insert(joined.end(), t->begin(), t->end());
  }
  tables_ = ctx.allocate(joined.size() * sizeof(float));
  ctx.copy_in(tables_.data(), joined.data(), tables_.size());
  const float* base = tables_.as<float>();
  rows_ = base + begins[0], rows_back_ = base + begins[1];
  real_ = base + begins[2], imaginary_ = base + begins[3], real_back_ = base + begins[4], imaginary_back_ = base + begins[5];
}

void InverseFourier::forward(const float* factors, int64_t n, const float* coefficients, float* planes) {
  const int64_t all = n * item();
  auto* turned = static_cast<float*>(ctx_.scratch.reserve(size_t(2 * all) * sizeof(float)));
  if (!ctx_.gpu) {
    along_columns(ctx_, n, h_, c_ * f_, factors, false, coefficients, turned);
    return rows_forward(ctx_, n, h_ * c_, w_, scale_, turned, planes);
  }
  if (factors) {
    const Shape line{n, 1, 1, item()};
    scale_by(ctx_, factors, {coefficients, line, DType::f32}, {turned + all, line, DType::f32});
    coefficients = turned + all;
  }
  matrix_product(ctx_, {.batch = n, .m = 2 * h_, .n = c_ * f_, .k = 2 * h_, .a_step = 0, .b_step = item(), .c_step = item()}, rows_,
                 coefficients, turned);
  MatrixProduct along{.batch = n, .m = h_ * c_, .n = w_, .k = f_, .a_step = item(), .b_step = 0, .c_step = h_ * c_ * w_};
  matrix_product(ctx_, along, turned, real_, planes);
  along.add = true;
  matrix_product(ctx_, along, turned + h_ * c_ * f_, imaginary_, planes);
}

void InverseFourier::backward(const float* factors, int64_t n, const float* dplanes, float* dcoefficients) {
  auto* turned = static_cast<float*>(ctx_.scratch.reserve(size_t(n * item()) * sizeof(float)));
  if (!ctx_.gpu) {
    rows_backward(ctx_, n, h_ * c_, w_, scale_, dplanes, turned);
    return along_columns(ctx_, n, h_, c_ * f_, factors, true, turned, dcoefficients);
  }
  const MatrixProduct along{.batch = n, .m = h_ * c_, .n = f_, .k = w_, .a_step = h_ * c_ * w_, .b_step = 0, .c_step = item()};
  matrix_product(ctx_, along, dplanes, real_back_, turned);
  matrix_product(ctx_, along, dplanes, imaginary_back_, turned + h_ * c_ * f_);
  matrix_product(ctx_, {.batch = n, .m = 2 * h_, .n = c_ * f_, .k = 2 * h_, .a_step = 0, .b_step = item(), .c_step = item()},
                 rows_back_, turned, dcoefficients);
  const Shape line{n, 1, 1, item()};
  if (factors) scale_by(ctx_, factors, {dcoefficients, line, DType::f32}, {dcoefficients, line, DType::f32});
}

}  // namespace switchback
