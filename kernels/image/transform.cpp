// Compiled with -ffp-contract=off: see image_math.h.
#include "kernels/image/transform.h"

#include <algorithm>

#include "kernels/device/device_ops.h"
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
  check_view(op, "y", y, {x.shape.n, x.shape.c, y.shape.h, y.shape.w}, DType::f32);
}

constexpr int64_t kRows = 6, kColumns = 16;  // of a register tile of a product: 12 vectors of AVX2

// A tile of c of `Rows` x 16, of which `columns` are inside. Each element is summed in the order of k, whatever the tile.
template <int Rows>
void product_tile(const MatrixProduct& p, const float* a, const float* b, float* c, int columns) {
  const int left = std::min(columns, 8), right = columns - left;
  F8 sums[Rows][2];
  for (int i = 0; i < Rows; ++i) sums[i][0] = sums[i][1] = _mm256_setzero_ps();
  if (columns == kColumns) {
    for (int64_t l = 0; l < p.k; ++l) {
      const F8 first = _mm256_loadu_ps(b + l * p.n), second = _mm256_loadu_ps(b + l * p.n + 8);
#pragma GCC unroll 6
      for (int i = 0; i < Rows; ++i) {
        const F8 v = _mm256_set1_ps(a[i * p.k + l]);
        sums[i][0] = _mm256_fmadd_ps(v, first, sums[i][0]);
        sums[i][1] = _mm256_fmadd_ps(v, second, sums[i][1]);
      }
    }
  } else {
    for (int64_t l = 0; l < p.k; ++l) {
      const F8 first = load8(b + l * p.n, left), second = right > 0 ? load8(b + l * p.n + 8, right) : _mm256_setzero_ps();
#pragma GCC unroll 6
      for (int i = 0; i < Rows; ++i) {
        const F8 v = _mm256_set1_ps(a[i * p.k + l]);
        sums[i][0] = _mm256_fmadd_ps(v, first, sums[i][0]);
        sums[i][1] = _mm256_fmadd_ps(v, second, sums[i][1]);
      }
    }
  }
  const auto finish = [&](float* to, F8 sum, int lanes) { store8(to, p.add ? _mm256_add_ps(load8(to, lanes), sum) : sum, lanes); };
  for (int i = 0; i < Rows; ++i) {
    finish(c + i * p.n, sums[i][0], left);
    if (right > 0) finish(c + i * p.n + 8, sums[i][1], right);
  }
}

// `rows` of them, kRows at most.
void product_rows(const MatrixProduct& p, const float* a, const float* b, float* c, int64_t rows, int columns) {
  if (rows == kRows) return product_tile<kRows>(p, a, b, c, columns);
  for (int64_t i = 0; i < rows; ++i) product_tile<1>(p, a + i * p.k, b, c + i * p.n, columns);
}

}  // namespace

void affine_forward(Context& ctx, const float* maps, const float* fill, ConstView x, View y) {
  check_maps("affine_forward", x, y);
  if (ctx.gpu) return ctx.gpu->ops->affine_forward(ctx, maps, fill, x, y);
  const Shape s = x.shape, o = y.shape;
  for_each(ctx, o.pixels(), 8 * s.c,
           image_math::AffineForward{s.h, s.w, s.c, o.h, o.w, x.as<float>(), maps, fill, y.as<float>()});
}

void affine_backward(Context& ctx, const float* maps, ConstView dy, View dx) {
  check_maps("affine_backward", dx, dy);
  if (ctx.gpu) return ctx.gpu->ops->affine_backward(ctx, maps, dy, dx);
  const Shape s = dx.shape, o = dy.shape;
  for_each(ctx, s.pixels(), 20 * s.c,
           image_math::AffineBackward{s.h, s.w, s.c, o.h, o.w, dy.as<float>(), maps, dx.as<float>()});
}

void colours_forward(Context& ctx, const Colours& colours, bool rows, ConstView z, View y) {
  check_same("colours_forward", z, y);
  check_view("colours_forward", "z", z, z.shape, DType::f32);
  if (ctx.gpu) return ctx.gpu->ops->colours_forward(ctx, colours, rows, z, y);
  const Shape s = z.shape;
  for_each(ctx, s.pixels(), 10 * s.c, image_math::ColoursForward{colours, s.w, s.c, rows, z.as<float>(), y.as<float>()});
}

void colours_backward(Context& ctx, const Colours& colours, bool rows, ConstView z, ConstView dy, View dz) {
  check_same("colours_backward", z, dy);
  check_same("colours_backward", z, dz);
  check_view("colours_backward", "z", z, z.shape, DType::f32);
  if (ctx.gpu) return ctx.gpu->ops->colours_backward(ctx, colours, rows, z, dy, dz);
  const Shape s = z.shape;
  for_each(ctx, s.pixels(), 10 * s.c,
           image_math::ColoursBackward{colours, s.w, s.c, rows, z.as<float>(), dy.as<float>(), dz.as<float>()});
}

void matrix_product(Context& ctx, const MatrixProduct& p, const float* a, const float* b, float* c) {
  CHECK(p.batch >= 0 && p.m > 0 && p.n > 0 && p.k > 0, "matrix_product: [{},{}] by [{},{}]", p.m, p.k, p.k, p.n);
  if (ctx.gpu) return ctx.gpu->ops->matrix_product(ctx, p, a, b, c);
  const int64_t down = ceil_div(p.m, kRows), across = ceil_div(p.n, kColumns);
  parallel_ranges(ctx, p.batch * down, across * kRows * kColumns * p.k, [=](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      const int64_t item = t / down, row = t % down * kRows;
      for (int64_t column = 0; column < p.n; column += kColumns)
        product_rows(p, a + item * p.a_step + row * p.k, b + item * p.b_step + column,
                     c + item * p.c_step + row * p.n + column, std::min(kRows, p.m - row),
                     int(std::min(kColumns, p.n - column)));
    }
  });
}

}  // namespace switchback
