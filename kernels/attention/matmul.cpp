#include "kernels/attention/matmul.h"

#include "kernels/attention/matrices.h"
#include "kernels/device/device_ops.h"
#include "kernels/view_check.h"

namespace switchback {

Shape output_shape(const MatMul&, Shape a, Shape b) {
  CHECK(a.n == b.n && a.h == b.h && a.c == b.w, "matmul: {} matrices [{},{}] and {} of [{},{}]", a.h, a.w, a.c, b.h, b.w, b.c);
  return {a.n, b.c, a.h, a.w};
}

// A task is a matrix and some of its rows, so that one large product fills all threads.
static constexpr int64_t kRows = 96;

void matmul_forward(Context& ctx, ConstView a, ConstView b, View y) {
  check_view("matmul_forward", "the output", y, output_shape(MatMul{}, a.shape, b.shape), a.dtype);
  check_view("matmul_forward", "b", b, b.shape, a.dtype);
  if (ctx.gpu) return ctx.gpu->ops->matmul_forward(ctx, a, b, y);
  const int64_t groups = a.shape.n * a.shape.h, m = a.shape.w, k = a.shape.c, n = b.shape.c, parts = (m + kRows - 1) / kRows;
  with_type(y.dtype, "matmul_forward", [&](auto type) {
    using T = decltype(type);
    const ForwardTarget<T> target(y, {});
    parallel_ranges(ctx, groups * parts, std::min(m, kRows) * k * n, [&](int64_t first, int64_t last) {
      Matrix left, right, product;
      for (int64_t task = first; task < last; ++task) {
        const int64_t g = task / parts, row = task % parts * kRows, rows = std::min(kRows, m - row);
        if (task == first || row == 0) read_rows(b.as<T>() + g * k * n, k, n, right);
        read_rows(a.as<T>() + (g * m + row) * k, rows, k, left);
        multiply(left, right, product);
        write_rows(target, product, g * m + row);
      }
    });
  });
}

void matmul_backward(Context& ctx, int operand, ConstView dy, ConstView a, ConstView b, View dx, const BackwardEpilogue& epilogue) {
  const Shape want = output_shape(MatMul{}, a.shape, b.shape);
  check_view("matmul_backward", "dy", dy, want.with_n(dx.shape.n), dx.dtype);
  check_kept("matmul_backward", dx, operand == 0 ? a : b, epilogue.seeds_per_item);
  check_epilogue(epilogue, "matmul_backward");
  if (ctx.gpu) return ctx.gpu->ops->matmul_backward(ctx, operand, dy, a, b, dx, epilogue);
  const int64_t per_item = a.shape.h, m = a.shape.w, k = a.shape.c, n = b.shape.c;
  const int64_t rows_of_dx = operand == 0 ? m : k, parts = (rows_of_dx + kRows - 1) / kRows;
  with_type(dx.dtype, "matmul_backward", [&](auto type) {
    using T = decltype(type);
    const BackwardTarget<T> target(dx, epilogue);
    parallel_ranges(ctx, dx.shape.n * per_item * parts, m * k * n / parts, [&](int64_t first, int64_t last) {
      Matrix left, all, right, product;
      for (int64_t task = first; task < last; ++task) {
        const int64_t g = task / parts, kept = g / per_item / epilogue.seeds_per_item * per_item + g % per_item;
        const int64_t row = task % parts * kRows, rows = std::min(kRows, rows_of_dx - row);
        const bool fresh = task == first || row == 0;
        if (operand == 0) {  // dy [m,n] · bᵀ [n,k]
          if (fresh) read_transposed(b.as<T>() + kept * k * n, k, n, right);
          read_rows(dy.as<T>() + (g * m + row) * n, rows, n, left);
        } else {  // aᵀ [k,m] · dy [m,n]
          if (fresh) read_rows(dy.as<T>() + g * m * n, m, n, right);
          if (fresh) read_transposed(a.as<T>() + kept * m * k, m, k, all);
          left.resize(rows, m);
          std::copy(all.row(row), all.row(row) + rows * all.stride, left.values.begin());
        }
        multiply(left, right, product);
        write_rows(target, product, g * rows_of_dx + row, kept * rows_of_dx + row);
      }
    });
  });
}

}  // namespace switchback
